"""Tiny images, modules and short runs, for the tests of Section 3's rivals."""

import jax
import jax.numpy as jnp
import numpy as np
import short_runs

from jacsup_jax.baselines import field_recipe
from jacsup_jax.baselines import latent_steps
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.training import discovery

SHAPE = (8, 8, 1)
BATCH_SIZE = 16
# Four units, two of which are factors.
SIZES = {'num_factors': 2, 'nuisance_dim': 2}


def draw(count=64):
  """Draws bright squares on dark ground; the class is one of two places."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 20, (count, *SHAPE)).astype(np.uint8)
  labels = np.arange(count) % 2
  for image, label in zip(images, labels):
    row, bright = rng.integers(0, 4), rng.integers(100, 256)
    image[row : row + 4, 4 * label : 4 * label + 4] = bright
  return registry.Dataset(
    'squares', 'train', images, labels.astype(np.int32), num_classes=2
  )


def make_student(num_factors, nuisance_dim, is_first, convolutional=False):
  """Makes the module whose networks the rivals have."""
  if convolutional:
    return autoencoders.SvhnAutoencoder(
      num_factors, nuisance_dim, is_first, SHAPE, widths=(4, 4)
    )
  return autoencoders.MlpAutoencoder(
    num_factors, nuisance_dim, is_first, SHAPE, widths=(16,)
  )


def init(network, **options):
  """Makes a model with random weights."""
  module = network(**SIZES, image_shape=SHAPE, widths=(16,), **options)
  return models.Model(module, **autoencoders.init_variables(module, 0))


def make_inputs(**options):
  """Makes inputs of an objective: eight images."""
  data = draw(8)
  images = jnp.asarray(data.images / np.float32(255))
  return latent_steps.Inputs(
    images, jnp.asarray(data.labels), jnp.int32(0), **options
  )


def noise(seed, units=4):
  return jnp.asarray(
    np.random.default_rng(seed).normal(size=(8, units)), jnp.float32
  )


class Run(short_runs.Run):
  """A stage of a method on the squares, its steps and first inputs."""

  def __init__(self, weights, epochs=1, make=make_student):
    self.dataset = draw()
    chain = discovery.DiscoveryConfig(batch_size=BATCH_SIZE, **SIZES)
    recipe = field_recipe.Field(chain, 3e-3, make, self.dataset)
    super().__init__(recipe, weights, SIZES['nuisance_dim'], epochs)
    self.steps = recipe.make_steps(self.stage, self.module)

  def first_inputs(self):
    """Returns the inputs of the first step."""
    data = latent_steps.LatentData(
      jnp.asarray(self.dataset.images),
      jnp.asarray(self.dataset.labels),
      jnp.int32(0),
    )
    return self.steps.read_inputs(jnp.int32(0), data, jnp.arange(BATCH_SIZE))


def gradients(objective, model, *args):
  """Returns the largest gradient of each part of the parameters."""
  grads, _ = latent_steps.differentiate(
    lambda model, inputs: objective(model, inputs, *args[1:]),
    model,
    args[0],
    list(model.params),
  )
  return {
    part: max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(own))
    for part, own in grads.items()
  }
