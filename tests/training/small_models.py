"""Small models of digits, and their training, for the tests of this room."""

import jax
import numpy as np

from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.training import steps

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)


def make_module(num_factors, nuisance_dim, normalize_code=False, shape=SHAPE):
  return autoencoders.MlpAutoencoder(
    num_factors, nuisance_dim, normalize_code, image_shape=shape, widths=(8,)
  )


def init(*sizes, seed=0):
  module = make_module(*sizes)
  return models.Model(module, **autoencoders.init_variables(module, seed))


def train(recipe, stages, given=()):
  """Trains stages; returns them by name, and their last metrics by name."""
  trained, metrics = {each.stage.name: each for each in given}, {}
  for stage in stages:
    module, state = recipe.create(stage, trained)
    epoch_fn = recipe.make_epoch(stage, module, trained)
    first = int(state.step) // recipe.steps_per_epoch
    for epoch in range(stage.epochs):
      state, metrics[stage.name] = epoch_fn(state, first + epoch)
    trained[stage.name] = steps.Trained(stage, module, jax.device_get(state))
  return trained, metrics
