"""Replicas: many students of Section 3 trained at once, as one `vmap`.

A stage of N replicas has weights with `[N]` leaves, and stacked states. Each
sees the random numbers, and up to rounding has the parameters, of a run alone.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import model as models
from jacsup_jax.training import discovery
from jacsup_jax.training import discovery_steps
from jacsup_jax.training import steps

# Larger outputs of all teachers are not cached but computed in each step.
_MAX_CACHE_BYTES = 4 << 30
# All of a stack's state has the axis of replicas, except its step.
_STATE_AXES = steps.TrainState(None, 0, 0, 0)


def stack_weights(weights: Sequence[config.LossWeights]) -> config.LossWeights:
  """Stacks the weights of replicas: leaves become `[N]` arrays.

  Raises InputError if they differ in a field that decides what is computed.
  """
  if not weights or len({jax.tree.structure(each) for each in weights}) > 1:
    raise errors.InputError(
      f'{len(weights)} replicas, which differ in more than lambda_y,'
      ' lambda_diff and lambda_xcov; accepted: 1 or more that differ in these'
      ' alone.'
    )
  return jax.tree.map(lambda *values: np.array(values), *weights)


def count_replicas(stage: config.Stage) -> int | None:
  """Returns N of a stage of replicas, None for a single model."""
  lambda_y = stage.weights.lambda_y
  return len(lambda_y) if np.ndim(lambda_y) else None


def take_model(model: models.Model, index: int) -> models.Model:
  """Returns one of stacked models."""
  take = lambda tree: jax.tree.map(lambda x: x[index], tree)
  return dataclasses.replace(
    model, params=take(model.params), batch_stats=take(model.batch_stats)
  )


def take_replica(trained: steps.Trained, index: int) -> steps.Trained:
  """Returns one of the models that a stage of replicas trained."""
  weights = jax.tree.map(lambda x: float(x[index]), trained.stage.weights)
  stage = dataclasses.replace(trained.stage, weights=weights)
  state = trained.state._replace(step=())
  state = jax.tree.map(lambda x: x[index], state)
  state = state._replace(step=trained.state.step)
  sha256 = codes.hash_tree(state.params)
  return steps.Trained(stage, trained.module, state, sha256)


@dataclasses.dataclass(frozen=True)
class ReplicaSteps:
  """The steps of a stage, mapped over replicas."""

  program: discovery_steps.DiscoverySteps
  own_teacher: bool

  def __call__(self, state, data, rows, bounds, *, shard=lambda x: x):
    """Takes the steps of all replicas; metrics are `[steps, N]`."""
    # What replicas share is not copied for each.
    axes = discovery_steps.TrainingData(
      None, None, 0 if self.own_teacher else None, None, None, weights=0
    )
    return jax.vmap(
      lambda state, data: self.program(state, data, rows, bounds, shard=shard),
      in_axes=(_STATE_AXES, axes),
      out_axes=(_STATE_AXES, 1),
    )(state, data)


class Replicas(discovery.Discovery):
  """The recipe of `discovery.Discovery` for stages of replicas.

  All replicas have the seed of their stage, and read the same batches.
  InputError if flags ask for networks that learn from each replica.
  """

  def __init__(self, flags: discovery.DiscoveryConfig, *args: Any):
    if flags.networks:
      raise errors.InputError(
        f'--checkers={",".join(flags.checkers)} for students trained at once;'
        ' accepted: teacher.'
      )
    super().__init__(flags, *args)

  def create(self, stage, trained) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's module and its stacked state before the first step."""
    count = count_replicas(stage)
    if count is None:
      return super().create(stage, trained)
    states = []
    for i in range(count):
      own = {
        name: take_replica(each, i) if _is_stacked(each) else each
        for name, each in trained.items()
      }
      module, state = super().create(stage, own)
      states.append(state)
    stacked = jax.tree.map(
      lambda *leaves: jnp.stack(leaves),
      *(state._replace(step=()) for state in states),
    )
    return module, stacked._replace(step=states[0].step)

  def make_steps(
    self, stage, module, supervisor: steps.Trained | None
  ) -> discovery_steps.DiscoverySteps | ReplicaSteps:
    """Makes the steps of a stage of all replicas."""
    program = super().make_steps(stage, module, supervisor)
    if count_replicas(stage) is None:
      return program
    if supervisor is not None:
      # Traced instead: as arrays they could not be hashed.
      unused = jax.tree.map(lambda x: 0.0, program.weights)
      program = dataclasses.replace(program, weights=unused)
    return ReplicaSteps(program, _is_stacked(supervisor))

  def make_data(self, stage, trained) -> discovery_steps.TrainingData:
    """Makes the constants of a stage, with the weights of its replicas."""
    data = super().make_data(stage, trained)
    if count_replicas(stage) is None or stage.supervisor is None:
      return data
    return data._replace(weights=stage.weights)

  def make_teacher(
    self, stage: config.Stage, supervisor: steps.Trained | None
  ) -> codes.Variables | discovery_steps.TeacherCache | None:
    """Returns what supervises a stage, stacked unless it is a single model."""
    if not (stage.weights.needs_teacher and _is_stacked(supervisor)):
      return super().make_teacher(stage, supervisor)
    module = discovery.as_teacher(supervisor.module)
    is_batch = self._flags.teacher_statistics == 'batch'
    size = 4 * self._images.size * count_replicas(supervisor.stage)
    if (is_batch and module.normalize_code) or size > _MAX_CACHE_BYTES:
      return supervisor.variables
    make_cache = lambda variables: discovery_steps.compute_teacher_cache(
      module, variables, self._images, stage.weights.supervision
    )
    # One after the other.
    make_caches = jax.jit(lambda trees: jax.lax.map(make_cache, trees))
    return make_caches(supervisor.variables)


def _is_stacked(trained):
  return trained is not None and count_replicas(trained.stage) is not None
