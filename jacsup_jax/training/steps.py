"""Train state, optimizer, one step, and an epoch as one scanned program."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.training import history
from jacsup_jax.training import loop
from jacsup_jax.training import numerics
from jacsup_jax.training import objectives
from jacsup_jax.training import schedules


class TrainState(NamedTuple):
  step: jax.Array  # [] int32, counted from the first teacher on
  params: codes.Params
  batch_stats: chex.ArrayTree
  opt_state: optax.OptState


class TeacherCache(NamedTuple):
  """A teacher's outputs on the whole training set: constants of a stage.

  Its variables too where its derivatives are compared, which no cache has, or
  it looks at what its student makes of a swap.
  """

  factors: jax.Array  # [M, K]
  images: jax.Array | None  # [M, H, W, C], without a swap
  variables: codes.Variables | None = None


class TrainingData(NamedTuple):
  """What an epoch reads, whole on every device."""

  images: jax.Array  # [M, H, W, C] uint8
  teacher: codes.Variables | TeacherCache | history.TeacherHistory | None
  # [M, n] int32, rows of the neighbours of each image, where they are used.
  neighbors: jax.Array | None = None


class StepInputs(NamedTuple):
  images: jax.Array  # [B, H, W, C]
  teacher: codes.TeacherOutputs | None
  # [B], the swap partner of each example; [n, B] of n swaps a step.
  permutation: jax.Array
  scale: jax.Array | None = None  # [], of all weights
  neighbor_images: jax.Array | None = None  # [B, H, W, C]


class Objective(Protocol):

  def __call__(
      self,
      params: codes.Params,
      batch_stats: chex.ArrayTree,
      inputs: StepInputs,
  ) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
    ...


OPTIMIZERS = ('adam', 'muon')


def make_optimizer(
    learning_rate: float,
    weight_decay: float,
    b1: float = 0.9,
    *,
    name: str = 'adam',
    decay_steps: int | None = None,
) -> optax.GradientTransformation:
  """Makes Adam, or Muon, with weight decay as L2 in the gradient.

  Adam is as PyTorch's `Adam(weight_decay=...)`, which the paper used; not
  AdamW. Muon (Jordan et al., 2024) makes the update of every matrix orthogonal;
  what is no matrix is left to Adam, with Nesterov's momentum as Muon itself, at
  a tenth of the learning rate.

  Args:
    learning_rate: of every step, or of the first.
    weight_decay: times the parameters is added to the gradient.
    b1: of Adam.
    name: of `OPTIMIZERS`.
    decay_steps: over which the learning rate falls to 0 as a cosine, counted
      from where the optimizer's state is made; None keeps it.

  Returns:
    An optax transformation.
  """
  def rate(peak):
    if decay_steps is None:
      return peak
    return optax.cosine_decay_schedule(peak, decay_steps)

  decay = optax.add_decayed_weights(weight_decay)
  if name == 'muon':
    # What moves biases as fast as Adam's usual 1e-3 would, where matrices take
    # the usual 2e-2.
    biases = learning_rate / 10
    return optax.chain(
        decay,
        optax.contrib.muon(
            rate(learning_rate), adam_b1=b1, adam_learning_rate=rate(biases)
        ),
    )
  adam = optax.scale_by_adam(b1=b1)
  if decay_steps is None:
    return optax.chain(decay, adam, optax.scale(-learning_rate))
  return optax.chain(
      decay, adam, optax.scale_by_learning_rate(rate(learning_rate))
  )


def create_train_state(
    variables: codes.Variables, optimizer: optax.GradientTransformation
) -> TrainState:
  """Creates the state of step 0 from initialised variables.

  Args:
    variables: 'params' and 'batch_stats' of any model.
    optimizer: that the state is for.

  Returns:
    TrainState of step 0 (a scalar).
  """
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=optimizer.init(variables['params']),
  )


def make_teacher_objective(model: nn.Module) -> Objective:
  """Makes the objective of a first teacher, of `[B, H, W, C]` images."""

  def objective(params, batch_stats, inputs):
    return objectives.teacher_objective(
        params, batch_stats, inputs.images, model=model
    )

  return objective


def make_neighbor_objective(
    model: nn.Module, weights: config.NeighborWeights
) -> Objective:
  """Makes the objective of a first teacher that draws neighbours together."""

  def objective(params, batch_stats, inputs):
    return objectives.neighbor_teacher_objective(
        params,
        batch_stats,
        inputs.images,
        inputs.neighbor_images,
        model=model,
        weights=weights,
    )

  return objective


def make_student_objective(
    model: nn.Module,
    weights: config.LossWeights,
    teacher_model: nn.Module | None = None,
) -> Objective:
  """Makes the objective of a student, of `[B, H, W, C]` images."""

  def objective(params, batch_stats, inputs):
    return objectives.student_objective(
        params,
        batch_stats,
        inputs.images,
        inputs.teacher,
        inputs.permutation,
        inputs.scale,
        model=model,
        weights=weights,
        teacher_model=teacher_model,
    )

  return objective


def train_step(
    state: TrainState,
    inputs: StepInputs,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[TrainState, codes.Metrics]:
  """Takes one optimizer step.

  Args:
    state: before the step.
    inputs: `[B, ...]` arrays of one batch.
    objective: (params, batch_stats, inputs) -> (loss, (metrics, batch_stats)).
    optimizer: that made `state.opt_state`.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    The state after the step, and scalar metrics before it.
  """
  grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(
      state.params, state.batch_stats, inputs
  )
  if axis_name is not None:
    grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  state = TrainState(state.step + 1, params, batch_stats, opt_state)
  return state, metrics


def train_epoch(
    state: TrainState,
    data: TrainingData,
    epoch: jax.Array,
    bounds: jax.Array | None = None,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    teacher_model: nn.Module | None,
    teacher_train_mode: bool = False,
    seed: int,
    batch_size: int,
    supervision: config.Supervision = config.Supervision(),
    history_models: Sequence[nn.Module] = (),
    schedule: schedules.Schedule | None = None,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
    axis_name: str | None = None,
) -> tuple[TrainState, codes.Metrics]:
  """Takes one pass over the data, or a part of it, as one loop.

  Args:
    state: at the start of the epoch.
    data: `[M, ...]` arrays of the whole training set.
    epoch: scalar, which decides the order of the data together with `seed`.
    bounds: `[2]`, of the steps to take; None takes all. See `epochs`.
    objective: see `train_step`.
    optimizer: that made `state.opt_state`.
    teacher_model: of the variables in `data.teacher`, where it has them.
    teacher_train_mode: that teacher normalises with batch statistics.
    seed: of data order and swaps.
    batch_size: of all devices together; an incomplete last batch is left out.
    supervision: how the objective compares Jacobians.
    history_models: of the history in `data.teacher`, where it is one.
    schedule: of the weights of the objective.
    shard: keeps of `[B]` indices those of this device, or lays them out.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    The state after the last step, and the metrics of each step, `[steps]`.
  """
  num_examples = data.images.shape[0]
  indices = batches.epoch_indices(seed, epoch, num_examples, batch_size)

  def step(state, batch_indices):
    permutation = _draw_swaps(seed, state.step, batch_size, supervision)
    neighbors = _draw_neighbors(data, batch_indices, seed, state.step)
    inputs = _gather_inputs(
        data,
        shard(batch_indices),
        _shard_swaps(shard, batch_indices[permutation]),
        _shard_swaps(shard, permutation),
        teacher_model,
        teacher_train_mode,
        axis_name,
        supervision,
        history_models,
        schedule and schedule(state.step),
        None if neighbors is None else shard(neighbors),
    )
    return train_step(
        state,
        inputs,
        objective=objective,
        optimizer=optimizer,
        axis_name=axis_name,
    )

  # Two steps in the loop's body: the reading of the second batch overlaps with
  # the update before it.
  return loop.loop_steps(step, state, indices, bounds, unroll=2)


def examine_step(
    state: TrainState,
    data: TrainingData,
    epoch: jax.Array,
    step: jax.Array,
    *,
    objective: Objective,
    teacher_model: nn.Module | None,
    teacher_train_mode: bool = False,
    seed: int,
    batch_size: int,
    supervision: config.Supervision = config.Supervision(),
    history_models: Sequence[nn.Module] = (),
    schedule: schedules.Schedule | None = None,
) -> dict[str, jax.Array]:
  """Tells what is finite of the step that `train_epoch` would take next.

  Args:
    state: before the step.
    data: see `train_epoch`, as for all others but `step`.
    epoch: scalar.
    step: scalar, of the epoch, from 0.
    objective: see `train_epoch`.
    teacher_model: see `train_epoch`.
    teacher_train_mode: see `train_epoch`.
    seed: see `train_epoch`.
    batch_size: see `train_epoch`.
    supervision: see `train_epoch`.
    history_models: see `train_epoch`.
    schedule: see `train_epoch`.

  Returns:
    Scalar bools, see `numerics.examine`.
  """
  indices = batches.epoch_indices(seed, epoch, len(data.images), batch_size)
  permutation = _draw_swaps(seed, state.step, batch_size, supervision)
  rows = indices[step]
  inputs = _gather_inputs(
      data,
      rows,
      rows[permutation],
      permutation,
      teacher_model,
      teacher_train_mode,
      None,
      supervision,
      history_models,
      schedule and schedule(state.step),
      _draw_neighbors(data, rows, seed, state.step),
  )
  return numerics.examine(
      state.params,
      {
          'the statistics of BatchNorm': state.batch_stats,
          'the images': inputs.images,
          'the outputs of the teacher': inputs.teacher,
          'the images of neighbours': inputs.neighbor_images,
      },
      [lambda params: objective(params, state.batch_stats, inputs)],
  )


def compute_teacher_cache(
    teacher_model: nn.Module,
    variables: codes.Variables,
    images: jax.Array,
    supervision: config.Supervision = config.Supervision(),
) -> TeacherCache:
  """Computes a teacher's factors and images for a whole data set.

  Only for a teacher without nuisance units, whose swapped images are images of
  other examples.

  Args:
    teacher_model: with `nuisance_dim` 0.
    variables: of the teacher.
    images: `[M, H, W, C]` uint8.
    supervision: which decides what of the outputs is needed.

  Returns:
    `[M, K]` factors, `[M, H, W, C]` images unless derivatives are compared, and
    the variables where they are needed.
  """
  encode = autoencoders.make_encode(teacher_model, variables['batch_stats'])
  decode = autoencoders.make_decode(teacher_model, variables['batch_stats'])

  def outputs(image):
    code = encode(variables['params'], batches.to_float(image[None]))
    decoded = decode(variables['params'], code)
    return TeacherCache(code.factors[0], decoded[0])

  at_once = batches.count_at_once(images.shape[1:])
  cache = jax.lax.map(outputs, images, batch_size=at_once)
  if not supervision.is_one_swap:
    cache = cache._replace(images=None)
  if not supervision.is_one_swap or supervision.check:
    cache = cache._replace(variables=variables)
  return cache


def _draw_swaps(seed, step, batch_size, supervision):
  """Returns `[B]` partners, or `[n, B]` of n swaps."""
  if supervision.num_swaps == 1:
    return batches.step_permutation(seed, step, batch_size)
  return batches.step_permutations(
      seed, step, batch_size, supervision.num_swaps
  )


def _shard_swaps(shard, values):
  if values.ndim == 1:
    return shard(values)
  return jnp.stack([shard(row) for row in values])


def _gather_inputs(
    data,
    indices,
    partner_indices,
    permutation,
    teacher_model,
    teacher_train_mode,
    axis_name,
    supervision,
    history_models,
    scale,
    neighbor_indices,
):
  """Reads a batch and what its teacher makes of it."""
  images = batches.to_float(jnp.take(data.images, indices, axis=0))
  teacher = data.teacher
  if isinstance(teacher, history.TeacherHistory):
    outputs = history.compute_outputs(
        teacher, history_models, indices, partner_indices, supervision
    )
  elif isinstance(teacher, TeacherCache) and not supervision.is_one_swap:
    factors = jnp.take(teacher.factors, indices, axis=0)
    outputs = objectives.compute_teacher_changes(
        lambda code: teacher_model.apply(
            teacher.variables, code, method='decode'
        ),
        # A teacher with a cache has no nuisance.
        codes.Code(factors, factors[:, :0]),
        jnp.take(teacher.factors, jnp.atleast_2d(partner_indices), axis=0),
        supervision,
    )
  elif isinstance(teacher, TeacherCache):
    outputs = codes.TeacherOutputs(
        factors=jnp.take(teacher.factors, indices, axis=0),
        images=jnp.take(teacher.images, indices, axis=0),
        swapped_images=jnp.take(teacher.images, partner_indices, axis=0),
    )
  elif teacher is not None:
    apply = lambda method: lambda x, **kwargs: teacher_model.apply(
        teacher, x, method=method, **kwargs
    )
    encode = lambda x: apply('encode')(
        x, train=teacher_train_mode, mutable='batch_stats'
    )[0]
    outputs = objectives.compute_teacher_outputs(
        encode,
        apply('decode'),
        images,
        permutation,
        axis_name,
        supervision,
    )
  else:
    outputs = None
  if outputs is not None and supervision.check:
    is_cache = isinstance(teacher, TeacherCache)
    # Of several swaps the first is looked at.
    first = lambda x: x if x.ndim == 1 else x[0]
    outputs = outputs._replace(
        partner_factors=jnp.take(
            teacher.factors, first(partner_indices), axis=0
        )
        if is_cache
        else codes.take_partners(
            outputs.factors, first(permutation), axis_name
        ),
        variables=teacher.variables if is_cache else teacher,
    )
  neighbor_images = None
  if neighbor_indices is not None:
    neighbor_images = batches.to_float(
        jnp.take(data.images, neighbor_indices, axis=0)
    )
  return StepInputs(images, outputs, permutation, scale, neighbor_images)


def _draw_neighbors(data, indices, seed, step):
  """Returns a neighbour of each row of a batch, `[B]`; None without them."""
  if data.neighbors is None:
    return None
  chosen = batches.step_neighbors(
      seed, step, indices.shape[0], data.neighbors.shape[1]
  )
  return data.neighbors[indices, chosen]
