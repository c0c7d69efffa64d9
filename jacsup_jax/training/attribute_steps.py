"""Steps of training for facial attributes: Section 4 of Lezama (2019).

A step has one update or two: the first of all parameters; the second, of the
decoder alone, for the cycle losses. Encoder and decoder have an optimizer
state each, so that the second leaves the encoder's as it is.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.training import attribute_objectives
from jacsup_jax.training import loop
from jacsup_jax.training import numerics
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


class FaceData(NamedTuple):
  """Examples of a data set, `[M, ...]`, or of batches, `[n, B, ...]`."""

  images: jax.Array  # [..., S, S, 3] uint8
  attributes: jax.Array  # [..., K] int8 in {-1, +1}


class StepInputs(NamedTuple):
  images: jax.Array  # [B, S, S, 3] in [-1, 1]
  attributes: jax.Array  # [B, K] in {-1, +1}
  teacher: codes.TeacherOutputs | None
  permutation: jax.Array  # [B], the swap partner of each example


def create_train_state(
    variables: codes.Variables, optimizer: optax.GradientTransformation
) -> steps.TrainState:
  """Creates the state of step 0, with an optimizer state for each part.

  Args:
    variables: 'params' and 'batch_stats' of a face autoencoder.
    optimizer: of each part.

  Returns:
    TrainState of step 0 (a scalar), `opt_state` a dict by part.
  """
  return steps.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state={
          part: optimizer.init(params)
          for part, params in variables['params'].items()
      },
  )


def apply_gradients(
    state: steps.TrainState,
    grads: Mapping[str, codes.Params],
    optimizer: optax.GradientTransformation,
) -> steps.TrainState:
  """Updates the parts of the parameters that gradients are given for.

  All others are frozen, moments and weight decay included: neither their
  parameters nor their optimizer state change by a bit.

  Args:
    state: before the update.
    grads: of some parts, by name ('encoder', 'decoder').
    optimizer: of each part.

  Returns:
    The state after the update, of the same step.
  """
  params, opt_state = dict(state.params), dict(state.opt_state)
  for part, part_grads in grads.items():
    updates, opt_state[part] = optimizer.update(
        part_grads, opt_state[part], params[part]
    )
    params[part] = optax.apply_updates(params[part], updates)
  return state._replace(params=params, opt_state=opt_state)


def train_step(
    state: steps.TrainState,
    inputs: StepInputs,
    *,
    model: nn.Module,
    weights: config.AttributeLossWeights,
    optimizer: optax.GradientTransformation,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: the first update, and the second where it has a weight.

  The second uses the gradient at the updated parameters (Section 4.2.1:
  "then"); the released code has it at the old ones.

  Args:
    state: before the step.
    inputs: `[B, ...]` arrays of one batch.
    model: a face autoencoder; its `axis_name` is that of the mapped axis that
      the batch is spread over, if any.
    weights: of the terms; they decide which are computed.
    optimizer: that made `state.opt_state`.

  Returns:
    The state after the step, and scalar metrics before each update.
  """
  axis_name = model.axis_name
  average = lambda x: x if axis_name is None else jax.lax.pmean(x, axis_name)

  first, _ = _make_objectives(state, inputs, model, weights)
  grads, (metrics, batch_stats) = jax.grad(first, has_aux=True)(state.params)
  state = apply_gradients(state, average(grads), optimizer)
  state = state._replace(step=state.step + 1, batch_stats=batch_stats)
  if not weights.needs_cycle:
    return state, average(metrics)

  _, second = _make_objectives(state, inputs, model, weights)
  grads, (cycle_metrics, _) = jax.grad(
      lambda decoder: second({**state.params, 'decoder': decoder}), has_aux=True
  )(state.params['decoder'])
  state = apply_gradients(state, {'decoder': average(grads)}, optimizer)
  loss = metrics['loss'] + cycle_metrics['loss']
  return state, average({**metrics, **cycle_metrics, 'loss': loss})


def make_inputs(
    step: jax.Array,
    data: FaceData,
    teacher: codes.Variables | None,
    *,
    model: nn.Module,
    teacher_model: nn.Module | None,
    weights: config.AttributeLossWeights,
    seed: int,
    batch_size: int,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> StepInputs:
  """Makes what a step is given of a batch.

  Args:
    step: scalar, counted from the first teacher on; it decides mirroring and
      swaps together with `seed`.
    data: the examples of a batch that are this device's.
    teacher: see `train_steps`, as for all that follow.
    model: see `train_steps`.
    teacher_model: see `train_steps`.
    weights: see `train_steps`.
    seed: see `train_steps`.
    batch_size: see `train_steps`.
    shard: see `train_steps`.

  Returns:
    `[B, ...]` arrays.
  """
  mirrored = shard(batches.step_mirror(seed, step, batch_size))
  permutation = shard(batches.step_permutation(seed, step, batch_size))
  # As bytes until they are used: floats would be four times as much to read
  # for everything that needs the images.
  images = batches.to_signed_float(
      jax.lax.optimization_barrier(batches.mirror(data.images, mirrored))
  )
  outputs = None
  if weights.needs_teacher:
    apply = lambda method: lambda x: teacher_model.apply(
        teacher, x, method=method
    )
    outputs = objectives.compute_teacher_outputs(
        apply('encode'),
        apply('decode'),
        images,
        permutation,
        model.axis_name,
        weights.supervision,
    )
  return StepInputs(
      images, data.attributes.astype(jnp.float32), outputs, permutation
  )


def examine_step(
    state: steps.TrainState,
    data: FaceData,
    teacher: codes.Variables | None,
    *,
    model: nn.Module,
    teacher_model: nn.Module | None,
    weights: config.AttributeLossWeights,
    seed: int,
    batch_size: int,
) -> dict[str, jax.Array]:
  """Tells what is finite of the step that `train_steps` would take next.

  Args:
    state: before the step.
    data: `[B, ...]` arrays of its batch.
    teacher: see `train_steps`, as for all that follow.
    model: see `train_steps`.
    teacher_model: see `train_steps`.
    weights: see `train_steps`.
    seed: see `train_steps`.
    batch_size: see `train_steps`.

  Returns:
    Scalar bools, see `numerics.examine`. The cycle losses are those of the
    parameters before the step.
  """
  inputs = make_inputs(
      state.step,
      data,
      teacher,
      model=model,
      teacher_model=teacher_model,
      weights=weights,
      seed=seed,
      batch_size=batch_size,
  )
  first, second = _make_objectives(state, inputs, model, weights)
  return numerics.examine(
      state.params,
      {
          'the statistics of BatchNorm': state.batch_stats,
          'the images': inputs.images,
          'the attributes': inputs.attributes,
          'the outputs of the teacher': inputs.teacher,
      },
      [first, second] if weights.needs_cycle else [first],
  )


def _make_objectives(state, inputs, model, weights):
  """Makes what the two updates of a step minimise, of all parameters."""

  def first(params):
    args = (params, state.batch_stats, inputs.images, inputs.attributes)
    if inputs.teacher is None:
      return attribute_objectives.teacher_objective(
          *args, model=model, weights=weights
      )
    return attribute_objectives.student_objective(
        *args, inputs.teacher, inputs.permutation, model=model, weights=weights
    )

  def second(params):
    return attribute_objectives.cycle_objective(
        params,
        state.batch_stats,
        inputs.images,
        inputs.permutation,
        model=model,
        weights=weights,
    )

  return first, second


def train_steps(
    state: steps.TrainState,
    teacher: codes.Variables | None,
    rows: chex.ArrayTree,
    bounds: jax.Array | None = None,
    *,
    read: Callable[[chex.ArrayTree], FaceData],
    model: nn.Module,
    teacher_model: nn.Module | None,
    weights: config.AttributeLossWeights,
    optimizer: optax.GradientTransformation,
    seed: int,
    batch_size: int,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes a step per row, as one loop.

  Args:
    state: before the first step.
    teacher: variables of the supervising model, where the weights need one; it
      is applied with its running statistics.
    rows: `[steps, ...]` arrays, which say what the batches are.
    bounds: `[2]`, of the rows to take; None takes all. See `epochs`.
    read: row -> the examples of a batch that are this device's.
    model: see `train_step`.
    teacher_model: of `teacher`.
    weights: see `train_step`.
    optimizer: see `train_step`.
    seed: of mirroring and swaps.
    batch_size: B, of all devices together.
    shard: keeps of `[B]` arrays what is this device's, or lays them out.

  Returns:
    The state after the last step, and the metrics of each step, `[steps]`.
  """

  def step(state, row):
    inputs = make_inputs(
        state.step,
        read(row),
        teacher,
        model=model,
        teacher_model=teacher_model,
        weights=weights,
        seed=seed,
        batch_size=batch_size,
        shard=shard,
    )
    return train_step(
        state, inputs, model=model, weights=weights, optimizer=optimizer
    )

  return loop.loop_steps(step, state, rows, bounds)
