"""Drawn faces, short runs and measurements, for the tests of baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import short_runs

from jacsup_jax.data import batches
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import registry
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import attributes

# The mean of an image is darker with the first, brighter with the second.
NAMES = ('Black_Hair', 'Pale_Skin')


def draw(count, size, names=NAMES, split='train'):
  """Draws faces of `size` pixels, with some of their attributes."""
  columns = [drawn_faces.ATTRIBUTES.index(name) for name in names]
  images, labels = zip(*(drawn_faces.draw(i, split) for i in range(count)))
  scale = drawn_faces.IMAGE_SIZE // size
  blocks = np.stack(images).reshape(count, size, scale, size, scale, 3)
  small = blocks.mean(axis=(2, 4)).round().astype(np.uint8)
  labels = np.where(np.stack(labels)[:, columns] > 0, 1, -1).astype(np.int8)
  return registry.Dataset('drawn', split, small, labels, attribute_names=names)


class Run(short_runs.Run):
  """A stage of a module, and its first inputs."""

  def __init__(self, module, steps_type, weights, dataset, batch_size=16):
    self.dataset = dataset
    flags = attributes.AttributesConfig(batch_size=batch_size)
    recipe = attributes.Attributes(flags, lambda _: module, dataset, steps_type)
    super().__init__(recipe, weights)
    self._steps = recipe.make_steps(self.stage, self.module, None)

  def first_inputs(self):
    """Returns the inputs of the objectives at the first step."""
    size = self._steps.batch_size
    rows = batches.epoch_indices(0, 0, len(self.dataset), size)[0]
    images, labels = self.dataset.read(np.asarray(rows))
    data = attribute_steps.FaceData(jnp.asarray(images), jnp.asarray(labels))
    constants = attribute_steps.FaceConstants(jnp.int32(0), None, None)
    return self._steps.make_inputs(jnp.int32(0), data, constants)


def change(model, dataset):
  """Returns how much a value of a factor changes images, compared with -1.

  `[2, K]` means over images, for +1 and +2; of black hair, the darkening.
  """
  encode, decode = map(jax.jit, (models.Model.encode, models.Model.decode))
  code = encode(model, dataset.images, dataset.labels)

  def mean(index, value):
    factors = code.factors.at[:, index].set(value)
    return decode(model, code._replace(factors=factors)).mean()

  means = np.array([[mean(i, value) for i in range(2)] for value in (-1, 1, 2)])
  return (means[1:] - means[0]) * [-1, 1]
