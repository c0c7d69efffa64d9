"""Which units of a code are its factors, where a method names none.

Two ways: the units that the method itself makes most of, and those that the
judges of a validation split favor, which needs labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.data import batches
from jacsup_jax.models import latents
from jacsup_jax.models import model as models

# Images of the validation split on which units are chosen.
MOST_IMAGES = 1280
PROTOCOL = (
  'factor_units: units, from 0, that are the factors of a method that names'
  ' none, by units: largest_divergence (from the prior) or largest_variance, a'
  ' mean or variance over images, or validation, the most class swaps of all'
  ' choices by perceptrons; both on the first'
  f' {MOST_IMAGES} validation images; or given'
)

# (model) -> its score, or None.
Score = Callable[[models.Model], float | None]
# (stage, way) -> units, of a run that has been measured.
Recorded = Mapping[tuple[str, str], Sequence[int]]


def list_versions(
  trained: Iterable[Any],
  images: jax.Array,
  score: Score,
  given: Sequence[int] = (),
  recorded: Recorded | None = None,
) -> Iterator[tuple[Any, dict[str, Any]]]:
  """Lists models with each choice of their factors.

  Args:
    trained: `training.steps.Trained`.
    images: `[M, H, W, C]` uint8, on which units are chosen.
    score: what the units of 'validation' maximize.
    given: other units to be factors, if any.
    recorded: choices not to be made again.

  Yields:
    A model, and entries of its row: `units`, the way, and `factor_units`. One
    that names its factors, or was not trained, comes once, without entries.
  """
  recorded = recorded or {}
  for own in trained:
    if not own.model.has_free_units or not own.stage.epochs:
      yield own, {}
      continue
    own_way, weigh = find_strengths(own.model)
    ways = {
      own_way: lambda own=own, weigh=weigh: choose_strongest(
        own.model, weigh(own.model, images)
      ),
      'validation': lambda own=own: choose_best(own.model, score),
    }
    if given:
      ways['given'] = lambda: tuple(given)
    for way, choose in ways.items():
      units = recorded.get((own.stage.name, way)) or choose()
      model = latents.choose_factors(own.model, units)
      state = own.state._replace(batch_stats=model.batch_stats)
      entries = {'units': way, 'factor_units': list(map(int, units))}
      yield dataclasses.replace(own, state=state), entries


def find_strengths(model: models.Model) -> tuple[str, Callable[..., Any]]:
  """Returns how a model's own units are ranked: a name, and a function.

  `(model, images) -> [U]`: by divergence if it has posteriors, else variance.
  """
  if hasattr(model.module, 'unit_divergences'):
    return 'largest_divergence', measure_divergences
  return 'largest_variance', measure_variances


def choose_strongest(
  model: models.Model, strengths: np.ndarray
) -> tuple[int, ...]:
  """Returns the group of units with the largest sum of `[U]` strengths."""
  strengths = np.asarray(strengths)
  groups = model.module.unit_groups()
  return max(groups, key=lambda units: strengths[list(units)].sum())


def choose_best(model: models.Model, score: Score) -> tuple[int, ...]:
  """Returns the group of units that scores most; the first of equals."""
  groups = model.module.unit_groups()
  return max(
    groups, key=lambda units: score(latents.choose_factors(model, units)) or 0.0
  )


@jax.jit
def measure_divergences(model: models.Model, images: jax.Array) -> jax.Array:
  """Computes the mean divergence of each unit from the prior, `[U]` nats."""
  found = model.module.apply(
    model.variables, batches.to_float(images), method='unit_divergences'
  )
  return jnp.mean(found, axis=0)


@jax.jit
def measure_variances(model: models.Model, images: jax.Array) -> jax.Array:
  """Computes the variance of each unit over images, `[U]`."""
  units = model.module.apply(
    model.variables, batches.to_float(images), method='units'
  )
  return jnp.var(units, axis=0)
