"""Codes of any `encode`, and all scores of them by name."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.evaluation.disentanglement import information
from jacsup_jax.evaluation.disentanglement import prediction
from jacsup_jax.evaluation.disentanglement import scores

# What each metric gives.
SCORES = {
    'mig': ('mig',),
    'sap': ('sap',),
    'dci': ('dci_disentanglement', 'dci_completeness', 'dci_informativeness'),
    'modularity': ('modularity',),
}
METRICS = tuple(SCORES)
# Whose parts are of units; those of the others are of labels.
SCORES_OF_UNITS = ('dci_disentanglement', 'modularity')


def compute_codes(
    encode: codes.EncodeFn,
    images: jax.Array,
    *,
    to_float: Callable[[jax.Array], jax.Array] = batches.to_float,
) -> jax.Array:
  """Computes the flat codes of a data set, in batches.

  May be jitted, with the parameters that `encode` has bound as arguments.

  Args:
    encode: `[B, H, W, C] -> Code`, of what `to_float` makes.
    images: `[M, H, W, C]` uint8.
    to_float: `batches.to_float` for digits, `to_signed_float` for faces.

  Returns:
    `[M, U]`: factors, then the nuisance, a feature map of it flattened.

  Raises:
    InputError: if the code does not have factors `[B, K]` and a nuisance
      `[B, ...]`.
  """
  if images.ndim != 4 or not images.shape[0]:
    raise errors.InputError(
        f'images have the shape {tuple(images.shape)}; accepted: (M, H, W, C),'
        ' M of 1 or more.'
    )

  def encode_one(image):
    code = encode(to_float(image[None]))
    factors, nuisance = code
    if factors.ndim != 2 or nuisance.ndim < 2 or not (
        factors.shape[0] == nuisance.shape[0] == 1
    ):
      raise errors.InputError(
          f'encode gives a code of factors {factors.shape} and nuisance'
          f' {nuisance.shape} for an image; accepted: (1, K) and (1, ...).'
      )
    return jnp.concatenate([factors[0], nuisance[0].ravel()])

  at_once = batches.count_at_once(images.shape[1:])
  return jax.lax.map(encode_one, images, batch_size=at_once)


def compute_scores(
    metrics: Sequence[str],
    codes: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> dict[str, scores.Score]:
  """Computes scores by name, with the defaults of each.

  Args:
    metrics: of `METRICS`.
    codes: `[M, U]`.
    labels: `[M, L]` int; each value is a class.
    label_names: L names, for reasons.
    seed: of what is drawn, in DCI alone.

  Returns:
    The scores that `SCORES` lists for these metrics.

  Raises:
    InputError: if a metric is unknown, or see `scores.check_arrays`.
  """
  check_metrics(metrics)
  arrays = (codes, labels, label_names)
  found = {}
  if 'mig' in metrics:
    found['mig'] = information.compute_mig(*arrays)
  if 'sap' in metrics:
    found['sap'] = prediction.compute_sap(*arrays)
  if 'dci' in metrics:
    found |= prediction.compute_dci(*arrays, seed=seed)
  if 'modularity' in metrics:
    found['modularity'] = information.compute_modularity(*arrays)
  return found


def check_metrics(metrics: Sequence[str]) -> None:
  """Raises InputError unless metrics are known, and each is there once."""
  if set(metrics) - set(METRICS) or len(metrics) > len(set(metrics)):
    raise errors.InputError(
        f'--metrics={",".join(metrics)}; accepted: any of'
        f' {", ".join(METRICS)}, each once.'
    )
