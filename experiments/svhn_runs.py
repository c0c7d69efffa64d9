"""What runs of experiments.svhn have of their own; see discovery_runs."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax.numpy as jnp

from experiments import discovery_runs
from jacsup_jax.core import errors
from jacsup_jax.data import shape_sets
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import discovery

IMAGE_SHAPE = (32, 32, 3)


def image_shape(dataset: str) -> tuple[int, int, int]:
  """Returns (H, W, C) of a data set's images: 32x32x3, unless it is known."""
  layout = shape_sets.LAYOUTS.get(dataset)
  return layout.image_shape if layout else IMAGE_SHAPE


def make_experiment(dataset: str) -> discovery_runs.Experiment:
  """Returns what a run on a data set is."""
  return dataclasses.replace(EXPERIMENT, image_shape=image_shape(dataset))


def make_settings(values: Mapping[str, Any]) -> discovery.Settings:
  """Returns the settings that all stages of a run share.

  Args:
    values: of its flags, by name.

  Raises:
    InputError: if the teacher's BatchNorm would have to be folded into
      students and cannot.
  """
  fold = values['growth'] == 'preserving' and not values['normalize_students']
  if fold and not values['linear_code']:
    raise errors.InputError(
        '--growth=preserving with --nonormalize_students folds the BatchNorm'
        ' of the code into the layer before it, which a ReLU prevents'
        ' (--nolinear_code); accepted: --linear_code, or'
        ' --normalize_students, or --growth=random.'
    )
  return discovery_runs.make_settings(values, fold_normalization=fold)


def make_model(
    values: Mapping[str, Any],
    num_factors: int,
    nuisance_dim: int,
    is_first: bool,
) -> networks.SvhnAutoencoder:
  """Returns the autoencoder of a run with a code of these sizes."""
  width = values['first_width']
  return networks.SvhnAutoencoder(
      num_factors,
      nuisance_dim,
      normalize_code=is_first or values['normalize_students'],
      image_shape=image_shape(values['dataset']),
      widths=(width, 2 * width, 4 * width),
      linear_code=values['linear_code'],
      dtype=jnp.dtype(values['compute_dtype']),
  )


EXPERIMENT = discovery_runs.Experiment(
    'svhn', IMAGE_SHAPE, make_model, make_settings
)
