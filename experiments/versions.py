"""Models of classes as they are measured: with each choice of their factors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from experiments import progress
from experiments import session
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.models import model as model_lib
from jacsup_jax.training import steps


class Version(NamedTuple):
  """A model with a choice of its factors, and entries of its row on them."""

  trained: steps.Trained
  entries: dict[str, Any]


def is_rival(trained: steps.Trained) -> bool:
  """Returns whether a model is a baseline's, which no teacher supervises."""
  return trained.model.is_rival


def choose_like(models: Sequence[steps.Trained]) -> steps.Trained:
  """Returns what random weights are like: the last of our own, if any."""
  own = [each for each in models if not is_rival(each)]
  return (own or models)[-1]


def list_versions(
  models: Sequence[steps.Trained],
  judges: Sequence[Any],
  load_validation: Callable[[], registry.Dataset],
  given: Sequence[int] = (),
  rows: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Version], str]:
  """Lists models with the factors that they are measured with.

  Models that name their factors come once. `judges` are those of
  `class_judges`; `rows` are results whose choices hold. Also returns a sentence
  on the choices for a protocol.
  """
  if not any(each.model.has_free_units for each in models):
    return [Version(each, {}) for each in models], ''
  # Imported here: few runs have baselines.
  from jacsup_jax.evaluation import unit_choice

  recorded = {
    (row['stage'], row['units']): row['factor_units']
    for row in rows
    if 'units' in row
  }
  data = load_validation()
  images, labels = (
    jnp.asarray(x[: unit_choice.MOST_IMAGES])
    for x in (data.images, data.labels)
  )
  # Perceptrons alone: there may be a hundred choices.
  family = class_swaps.PAPER_FAMILY
  judges = [judge for judge in judges if judge.family == family]
  score = lambda model: class_swaps.measure(model, judges, images, labels)[
    f'class_swaps_{family}'
  ]
  models = progress.track('choosing factors on the validation split', models)
  versions = unit_choice.list_versions(models, images, score, given, recorded)
  found = [Version(*version) for version in versions]
  return found, f'; {unit_choice.PROTOCOL}'


def make_rows(
  versions: Sequence[Version],
  measure: Callable[[model_lib.Model], dict[str, Any]],
) -> list[dict[str, Any]]:
  """Measures versions, and returns a row of results.json for each."""
  return [
    session.describe(trained) | entries | measure(trained.model)
    for trained, entries in progress.track('measuring', versions)
  ]


def list_shown(versions: Sequence[Version]) -> list[steps.Trained]:
  """Returns each trained model once, as figures show it.

  Baselines have the factors that validation chose.
  """
  shown = {}
  for trained, entries in versions:
    if trained.stage.epochs and entries.get('units') != 'given':
      shown[trained.stage.name] = trained
  return list(shown.values())
