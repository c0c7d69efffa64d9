"""Drawn faces, short runs and measurements, for the tests of baselines."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import registry
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import attributes
from jacsup_jax.training import loop
from jacsup_jax.training import steps

# The mean of an image is darker with the first, brighter with the second.
NAMES = ('Black_Hair', 'Pale_Skin')
BATCH_SIZE = 16


def draw(count, size):
  """Draws faces of `size` pixels, with two attributes."""
  columns = [drawn_faces.ATTRIBUTES.index(name) for name in NAMES]
  images, labels = zip(*(drawn_faces.draw(i, 'train') for i in range(count)))
  scale = drawn_faces.IMAGE_SIZE // size
  blocks = np.stack(images).reshape(count, size, scale, size, scale, 3)
  small = blocks.mean(axis=(2, 4)).round().astype(np.uint8)
  labels = np.where(np.stack(labels)[:, columns] > 0, 1, -1).astype(np.int8)
  return registry.Dataset(
    'drawn', 'train', small, labels, attribute_names=NAMES
  )


class Run:
  """A stage of a module: its state at the start, and its steps."""

  def __init__(self, module, steps_type, weights, dataset):
    self.dataset = dataset
    flags = attributes.AttributesConfig(batch_size=BATCH_SIZE)
    recipe = attributes.Attributes(flags, lambda _: module, dataset, steps_type)
    self.stage = config.Stage('x', 'x', None, 0, 1, weights)
    self.module, state = recipe.create(self.stage, {})
    # On the host, as steps may donate their state.
    self.state = jax.device_get(state)
    self._epoch = recipe.make_epoch(self.stage, self.module, {})
    self._steps = recipe.make_steps(self.stage, self.module, None)

  def first_inputs(self):
    """Returns the inputs of the objectives at the first step."""
    rows = batches.epoch_indices(0, 0, len(self.dataset), BATCH_SIZE)[0]
    images, labels = self.dataset.read(np.asarray(rows))
    data = attribute_steps.FaceData(jnp.asarray(images), jnp.asarray(labels))
    constants = attribute_steps.FaceConstants(jnp.int32(0), None, None)
    return self._steps.make_inputs(jnp.int32(0), data, constants)

  def take(self, count, state=None):
    """Takes steps, from the first by default; returns a state, and metrics."""
    state = self.state if state is None else state
    each = dataclasses.replace(self._epoch, part_steps=1)
    for _ in range(count):
      epoch, done = divmod(int(state.step), each.steps)
      taken, polls = loop.Taken(done), iter([False, True])
      state = loop.run(
        each, state, epoch, taken, lambda polls=polls: next(polls)
      )
      state = jax.device_get(state)
    return state, {name: parts[-1][-1] for name, parts in taken.metrics.items()}

  def train(self, epochs):
    """Trains for whole epochs."""
    state = self.state
    for epoch in range(epochs):
      state, _ = self._epoch(state, epoch)
    return steps.Trained(self.stage, self.module, jax.device_get(state))


def check_resuming(run, again):
  """Checks that two runs of single steps equal whole epochs, to the bit."""
  whole = run.train(2).state
  first, _ = run.take(3)
  resumed, _ = again.take(int(whole.step) - 3, first)
  chex.assert_trees_all_equal(resumed, whole)


def differing_parts(state, other):
  """Returns the parts whose parameters differ in a bit."""
  parts = set()
  for part, params in state.params.items():
    pairs = zip(*map(jax.tree.leaves, (params, other.params[part])))
    parts |= {part} if any(np.any(a != b) for a, b in pairs) else set()
  return parts


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
