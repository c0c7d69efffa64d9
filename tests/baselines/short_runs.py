"""Short runs of a single stage, for the tests of baselines."""

import dataclasses

import jax
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.models import model as models
from jacsup_jax.training import loop


class Run:
  """A stage of a recipe: its state at the start, and its epochs."""

  def __init__(self, recipe, weights, dims=0, epochs=1):
    self.stage = config.Stage('x', 'x', None, dims, epochs, weights)
    self.module, state = recipe.create(self.stage, {})
    # On the host, as steps may donate their state.
    self.state = jax.device_get(state)
    self._epoch = recipe.make_epoch(self.stage, self.module, {})

  def take(self, count, state=None):
    """Takes single steps, from the first by default; returns state, metrics."""
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
    """Trains for whole epochs; returns the state and the metrics of each."""
    state, found = self.state, []
    for epoch in range(epochs):
      state, metrics = self._epoch(state, epoch)
      found.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), found

  def bind(self, state):
    """Returns the model of a state."""
    return models.Model(self.module, state.params, state.batch_stats)


def differing_parts(state, other):
  """Returns the parts whose parameters differ in a bit."""
  parts = set()
  for part, params in state.params.items():
    pairs = zip(*map(jax.tree.leaves, (params, other.params[part])))
    parts |= {part} if any(np.any(a != b) for a, b in pairs) else set()
  return parts
