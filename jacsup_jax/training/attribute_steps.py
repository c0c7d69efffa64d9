"""The steps of Section 4 of Lezama (2019), for facial attributes, as a program.

A step updates all parameters, then, for the cycle losses, the decoder alone.
Encoder and decoder have an optimizer state each.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import ClassVar, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import augmentation
from jacsup_jax.data import batches
from jacsup_jax.models import model as models
from jacsup_jax.training import loop
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


class FaceData(NamedTuple):
  """Examples of a data set, `[M, ...]`, or of batches, `[n, B, ...]`."""

  images: jax.Array  # [..., S, S, 3] uint8
  attributes: jax.Array  # [..., K] int8 in {-1, +1}


class FaceConstants(NamedTuple):
  """Constants of a stage, whole on every device."""

  seed: jax.Array  # [] int32, of mirroring and swaps
  teacher: codes.Variables | None
  data: FaceData | None  # None if batches are fed
  conflicts: jax.Array | None = None  # [K, K] bool, see `codes.edit_factor`
  checker: codes.Variables | None = None


def create_train_state(
  variables: codes.Variables, optimizer: optax.GradientTransformation
) -> steps.TrainState:
  """Creates the state of step 0, its `opt_state` a dict by part."""
  params, stats = variables['params'], variables['batch_stats']
  opt_state = {part: optimizer.init(each) for part, each in params.items()}
  return steps.TrainState(jnp.zeros((), jnp.int32), params, stats, opt_state)


def make_scale(step: jax.Array, num_steps: int | None) -> jax.Array | float:
  """Makes the factor of the learning rate at a step: 1, or a cosine to 0."""
  if num_steps is None:
    return 1.0
  return (1.0 + jnp.cos(jnp.pi * step / num_steps)) / 2.0


def train_step(
  state: steps.TrainState,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: config.AttributeLossWeights,
  optimizer: optax.GradientTransformation,
  checker_module: nn.Module | None = None,
  num_steps: int | None = None,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: the first update, and the second if it has a weight.

  With `num_steps` the learning rate falls to 0 over them by a cosine.
  The second uses the gradient at the updated parameters (Section 4.2.1:
  "then"); the released code has it at the old ones. Metrics are scalars, from
  before each update.
  """
  average = functools.partial(steps.average_over, axis_name=module.axis_name)
  options = {'module': module, 'weights': weights}
  scale = make_scale(state.step, num_steps)
  grads, (metrics, batch_stats) = jax.grad(
    objectives.attribute_objective, has_aux=True
  )(state.params, state.batch_stats, inputs, **options)
  state = steps.apply_gradients(state, average(grads), optimizer, scale)
  state = state._replace(step=state.step + 1, batch_stats=batch_stats)
  if not weights.needs_cycle:
    return state, average(metrics)
  grads, (cycle_metrics, _) = jax.grad(
    lambda decoder: objectives.cycle_objective(
      {**state.params, 'decoder': decoder},
      state.batch_stats,
      inputs,
      checker_module=checker_module,
      **options,
    ),
    has_aux=True,
  )(state.params['decoder'])
  grads = {'decoder': average(grads)}
  state = steps.apply_gradients(state, grads, optimizer, scale)
  loss = metrics['loss'] + cycle_metrics['loss']
  return state, average({**metrics, **cycle_metrics, 'loss': loss})


@dataclasses.dataclass(frozen=True)
class FaceSteps:
  """The steps of a stage of Section 4.

  Hashable: equal stages share one compiled program, whatever their seeds.
  `module.axis_name` is the axis that a batch is spread over, if any. If
  `is_fed`, rows are batches of images; otherwise indices into the data.
  """

  module: nn.Module
  teacher_module: nn.Module | None
  weights: config.Weights
  optimization: config.Optimization
  batch_size: int
  is_fed: bool = False
  checker_module: nn.Module | None = None
  num_steps: int | None = None  # Length of the stage, for a cosine schedule.
  train_step: ClassVar[Callable] = staticmethod(train_step)

  def __call__(
    self,
    state: steps.TrainState,
    constants: FaceConstants,
    rows: chex.ArrayTree,
    bounds: jax.Array,
    *,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> tuple[steps.TrainState, codes.Metrics]:
    """Takes a step per row within bounds, see `loop.loop_steps`.

    Rows are `[steps, B]` indices, or images and attributes `[steps, B, ...]`;
    `shard` keeps this device's part of `[B, ...]` arrays, or lays them out.
    """
    step = functools.partial(
      self.train_step,
      module=self.module,
      weights=self.weights,
      optimizer=steps.make_optimizer(self.optimization),
    )
    # The steps of rivals have neither.
    if self.checker_module is not None:
      step = functools.partial(step, checker_module=self.checker_module)
    if self.num_steps is not None:
      step = functools.partial(step, num_steps=self.num_steps)

    def take_step(state, row):
      take = lambda x: jnp.take(x, shard(row), axis=0)
      data = row if self.is_fed else jax.tree.map(take, constants.data)
      data = FaceData(*data)
      inputs = self.make_inputs(state.step, data, constants, shard)
      return step(state, inputs)

    return loop.loop_steps(take_step, state, rows, bounds)

  def make_inputs(
    self,
    step: jax.Array,
    data: FaceData,
    constants: FaceConstants,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> objectives.Inputs:
    """Mirrors a device's part of a batch, draws swaps, applies the teacher."""
    mirrored = shard(batches.step_mirror(constants.seed, step, self.batch_size))
    # As bytes until they are used: floats would be four times as much to read
    # for everything that needs the images.
    images = batches.to_signed_float(
      jax.lax.optimization_barrier(augmentation.mirror(data.images, mirrored))
    )
    labels = data.attributes.astype(jnp.float32)
    inputs = objectives.Inputs(images, attributes=labels)
    return self.draw(step, inputs, constants, shard)

  def draw(self, step, inputs, constants, shard):
    """Adds the edits of a batch, and the outputs of its teacher if needed."""
    weights, num_edits = self.weights, self.weights.supervision.num_swaps
    place = constants.seed, step, self.batch_size
    if weights.edits == 'flip':
      drawn = batches.step_flips(*place, num_edits, self.module.num_factors)
    else:
      drawn = batches.step_permutations(*place, num_edits)
    inputs = inputs._replace(
      permutations=jnp.stack([shard(row) for row in drawn]),
      conflicts=constants.conflicts,
    )
    if (largest := weights.largest_flip) > 1:
      strengths = jnp.geomspace(1.0, largest, self.batch_size)
      inputs = inputs._replace(strengths=shard(strengths))
    if share := weights.decode_labels:
      labelled = shard(batches.step_labelled(*place, share))
      inputs = inputs._replace(labelled=labelled)
    if weights.lambda_edit_check:
      # As what it was trained on.
      draws = augmentation.Draws(
        shard(batches.step_shifts(*place, self.module.image_size // 16)),
        shard(batches.step_blur(*place)),
      )
      checker = objectives.Checker(constants.checker, draws)
      inputs = inputs._replace(checkers=(checker,))
    if not weights.needs_teacher:
      return inputs
    outputs = objectives.compute_attribute_outputs(
      models.Model(self.teacher_module, **constants.teacher),
      inputs,
      weights,
      self.module.axis_name,
    )
    return inputs._replace(teacher=outputs)
