"""What runs of experiments.mnist have of their own; see discovery_runs."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments import discovery_runs
from jacsup_jax.data import registry as datasets
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import discovery


def make_settings(values: Mapping[str, Any]) -> discovery.Settings:
  """Returns the settings that all stages of a run share."""
  fold_normalization = values['fold_normalization']
  if fold_normalization is None:
    # A student that shall start equal to a teacher with BatchNorm needs it.
    fold_normalization = values['growth'] == 'preserving'
  return discovery_runs.make_settings(
      values, fold_normalization=fold_normalization
  )


def make_model(
    values: Mapping[str, Any],
    num_factors: int,
    nuisance_dim: int,
    normalize_code: bool,
) -> networks.MlpAutoencoder:
  """Returns the autoencoder of a run with a code of these sizes."""
  return networks.MlpAutoencoder(
      num_factors,
      nuisance_dim,
      normalize_code,
      dtype=jnp.dtype(values['compute_dtype']),
  )


EXPERIMENT = discovery_runs.Experiment(
    'mnist', datasets.IMAGE_SHAPE, make_model, make_settings
)
