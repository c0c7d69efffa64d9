"""Measures models of faces: rows of results.json, and the error for curves."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import celeba_runs
from experiments import seed_runs
from experiments import supervision_flags
from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import attribute_flips as flips
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages

_PROTOCOL = (
    'attribute_flips: y_i set to -strength sign(y_i), counted if the judge then'
    ' sees the opposite of the label, mean over all images and attributes;'
    ' _as_asked: counted if it sees the sign that y_i was given;'
    ' strength has the most flips on the selection split; _told: over the'
    ' attributes that the judge tells on real images with a balanced accuracy'
    f' of at least {flips.TOLD_ACCURACY}; preservation: the other attributes\''
    ' judgements that stay those of the reconstruction'
)


def make_evaluate_error(
    data: datasets.FaceDataset, most: int
) -> Callable[[nn.Module, codes.Variables], dict[str, Any]]:
  """Makes `evaluate(model, variables) -> {'mse': ...}` for curves.

  Args:
    data: not of the training set.
    most: how many of its images are looked at.
  """
  images = jnp.asarray(data.images[:most])
  attributes = jnp.asarray(data.attributes[:most])
  return lambda model, variables: {
      'mse': float(_measure_error(model, variables, images, attributes))
  }


def measure_models(
    values: Mapping[str, Any],
    models: Sequence[stages.Trained],
    judge: attribute_judges.AttributeJudge,
    selection: datasets.FaceDataset,
    data: datasets.FaceDataset,
) -> list[dict[str, Any]]:
  """Measures models, and an untrained one: rows of results.json.

  Args:
    values: of the run's flags, by name.
    models: parents before their children.
    judge: of the same attributes.
    selection: whose first images alpha is chosen on, for each model.
    data: to measure on.

  Returns:
    A row per model, in order, then that of the untrained one.
  """
  random = celeba_runs.random_model(values, len(data.attribute_names))
  return [
      {
          **describe(model, values['seed']),
          **measure(
              model,
              judge,
              selection,
              data,
              [float(strength) for strength in values['strengths']],
              values['selection_images'],
          ),
      }
      for model in [*models, random]
  ]


def measure_seeds(
    values: Mapping[str, Any],
    models: Mapping[int, Sequence[stages.Trained]],
    judge: attribute_judges.AttributeJudge,
    selection: datasets.FaceDataset,
    data: datasets.FaceDataset,
) -> list[dict[str, Any]]:
  """Measures the models of several seeds, see `measure_models`.

  Args:
    values: of the run's flags, by name.
    models: by seed; a model that all have, such as a given teacher, is measured
      with the first.
    judge: of the same attributes.
    selection: whose first images alpha is chosen on, for each model.
    data: to measure on.

  Returns:
    Rows of results.json, one seed after the other.
  """
  measured = list_measured(values, models, len(data.attribute_names))
  return [
      row
      for seed, own in measured.items()
      for row in measure_models(
          # The last is the untrained one, which it adds itself.
          seed_runs.for_seed(values, seed), own[:-1], judge, selection, data
      )
  ]  # pyformat: disable


def list_measured(
    values: Mapping[str, Any],
    models: Mapping[int, Sequence[stages.Trained]],
    num_factors: int,
) -> dict[int, list[stages.Trained]]:
  """Returns the models of the rows of `measure_seeds`, by seed, in order."""
  listed, measured = {}, set()
  for seed, own in models.items():
    random = celeba_runs.random_model(
        seed_runs.for_seed(values, seed), num_factors
    )
    listed[seed] = [m for m in own if m.sha256 not in measured] + [random]
    measured |= {model.sha256 for model in own}
  return listed


def describe_protocol(split: str, selection_split: str) -> str:
  """Returns how the rows of one split were measured, for results.json."""
  return f'{split} split, selection on {selection_split}; {_PROTOCOL}'


def measure(
    trained: stages.Trained,
    judge: attribute_judges.AttributeJudge,
    selection: datasets.FaceDataset,
    data: datasets.FaceDataset,
    grid: Sequence[float],
    selection_images: int,
) -> dict[str, Any]:
  """Measures a model: chooses its alpha on one split, flips on another.

  Args:
    trained: the model.
    judge: of the same attributes.
    selection: whose first images alpha is chosen on.
    data: to measure on.
    grid: strengths to choose from.
    selection_images: how many.

  Returns:
    Entries of a row.
  """
  apply = (trained.model, trained.variables, judge.model, judge.variables)
  strength, rates = _choose_strength(
      *apply,
      jnp.asarray(selection.images[:selection_images]),
      jnp.asarray(selection.attributes[:selection_images]),
      tuple(grid),
  )
  measured = _measure(
      *apply, jnp.asarray(data.images), jnp.asarray(data.attributes), strength
  )
  row = flips.summarize(jax.device_get(measured), data.attribute_names)
  rates = dict(zip(map(str, sorted(grid)), jax.device_get(rates).tolist()))
  if trained.stage.model == celeba_runs.FADER:
    # Its factors are the labels: nothing is predicted.
    row = {**row, 'factor_accuracy': None}
    del row['factor_accuracy_by_attribute']
  return {**row, 'selection_flips_by_strength': rates}


def describe(trained: stages.Trained, seed: int) -> dict[str, Any]:
  """Returns what a row of results.json says of a model besides measurements."""
  stage = trained.stage
  weights = dataclasses.asdict(stage.weights)
  if weights.pop('supervision', None) is not None:
    weights |= supervision_flags.describe(stage.weights.supervision)
  return {
      'model': stage.model,
      'stage': stage.name,
      'nuisance_dim': stage.nuisance_dim,
      'seed': seed,
      'epochs': stage.epochs,
      **weights,
      'sha256': trained.sha256,
  }


def encode_models(
    models: Sequence[stages.Trained],
    images: np.ndarray,
    attributes: np.ndarray,
) -> list[codes.Code]:
  """Encodes the same few images by models, with running statistics.

  Args:
    models: of faces; Fader Networks are given the labels.
    images: `[M, S, S, 3]` uint8.
    attributes: `[M, K]` int in {-1, +1}.
  """
  arrays = jnp.asarray(images), jnp.asarray(attributes)
  return [_encode(model.model, model.variables, *arrays) for model in models]


def _bind(model, variables, judge_model, judge_variables):
  params, batch_stats = variables['params'], variables['batch_stats']
  return (
      functools.partial(
          fader_networks.make_labelled_encode(model, batch_stats), params
      ),
      functools.partial(networks.make_decode(model, batch_stats), params),
      functools.partial(
          attribute_judges.classify, judge_model, judge_variables
      ),
  )


@functools.partial(jax.jit, static_argnames='model')
def _encode(model, variables, images, attributes):
  encode, _, _ = _bind(model, variables, None, None)
  return encode(batches.to_signed_float(images), attributes)


@functools.partial(jax.jit, static_argnames='model')
def _measure_error(model, variables, images, attributes):
  encode, decode, _ = _bind(model, variables, None, None)
  return flips.compute_mse(encode, decode, images, attributes)


@functools.partial(jax.jit, static_argnames=('model', 'judge_model', 'grid'))
def _choose_strength(
    model, variables, judge_model, judge_variables, images, attributes, grid
):
  functions = _bind(model, variables, judge_model, judge_variables)
  return flips.choose_strength(*functions, images, attributes, grid)


@functools.partial(jax.jit, static_argnames=('model', 'judge_model'))
def _measure(
    model, variables, judge_model, judge_variables, images, attributes, strength
):
  functions = _bind(model, variables, judge_model, judge_variables)
  return flips.evaluate_faces(*functions, images, attributes, strength)
