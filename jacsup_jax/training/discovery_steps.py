"""The steps of Section 3 of Lezama (2019), as one program."""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.training import loop
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


class TeacherCache(NamedTuple):
  """A teacher's outputs on the whole training set: constants of a stage."""

  factors: jax.Array  # [M, K]
  images: jax.Array | None  # [M, H, W, C], for the secant
  # Where its derivatives are compared, or for the swap check.
  variables: codes.Variables | None = None


class TrainingData(NamedTuple):
  """Constants of a stage, whole on every device."""

  images: jax.Array  # [M, H, W, C] uint8
  seed: jax.Array  # [] int32, of swaps and neighbours
  teacher: codes.Variables | TeacherCache | None = None
  # [M, n] int32, rows of the neighbours of each image, if they are used.
  neighbors: jax.Array | None = None
  first_step: jax.Array | int = 0  # [], of the stage
  # Traced weights, which replace those of `DiscoverySteps`.
  weights: config.LossWeights | None = None


@dataclasses.dataclass(frozen=True)
class DiscoverySteps:
  """The steps of a stage of Section 3, of data that are on the devices.

  Hashable: equal stages share one compiled program, whatever their seeds.
  `module.axis_name` is the axis that a batch is spread over, if any.
  """

  module: nn.Module
  teacher_module: nn.Module | None
  # None for a first teacher that reconstructs its images.
  weights: config.LossWeights | config.NeighborWeights | None
  optimization: config.Optimization
  batch_size: int  # Over all devices.
  num_steps: int | None = None  # Length of the stage, for a cosine schedule.
  ramp_steps: int | None = None  # Until the weights reach their full values.
  teacher_statistics: str = 'running'  # Or 'batch', of a teacher's BatchNorm.

  def __call__(
    self,
    state: steps.TrainState,
    data: TrainingData,
    rows: jax.Array,
    bounds: jax.Array,
    *,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> tuple[steps.TrainState, codes.Metrics]:
    """Takes a step per row within bounds, see `loop.loop_steps`.

    Rows are `[steps, B]` indices into the data; `shard` keeps the part of `[B]`
    arrays that belongs to this device, or lays them out.
    """
    step = functools.partial(
      steps.train_step,
      objective=self.make_objective(data.weights),
      optimizer=steps.make_optimizer(self.optimization, self.num_steps),
      axis_name=self.module.axis_name,
    )

    def take_step(state, indices):
      return step(state, self.read_inputs(state.step, data, indices, shard))

    # Two steps per iteration: reading the second batch overlaps with the first
    # update.
    return loop.loop_steps(take_step, state, rows, bounds, unroll=2)

  def make_objective(
    self, weights: config.LossWeights | None = None
  ) -> steps.Objective:
    """Makes the objective, with `weights` instead of its own if given."""
    weights = self.weights if weights is None else weights
    if weights is None:
      return functools.partial(objectives.teacher_objective, module=self.module)
    bind = functools.partial(
      functools.partial, module=self.module, weights=weights
    )
    if isinstance(weights, config.NeighborWeights):
      return bind(objectives.neighbor_teacher_objective)
    return bind(
      objectives.student_objective, teacher_module=self.teacher_module
    )

  def read_inputs(
    self,
    step: jax.Array,
    data: TrainingData,
    indices: jax.Array,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> objectives.Inputs:
    """Reads one batch, draws its swaps, and applies its teacher."""
    weights = self.weights if data.weights is None else data.weights
    images = batches.to_float(jnp.take(data.images, shard(indices), axis=0))
    if weights is None:
      return objectives.Inputs(images)
    if isinstance(weights, config.NeighborWeights):
      chosen = batches.step_neighbors(
        data.seed, step, len(indices), data.neighbors.shape[1]
      )
      rows = shard(data.neighbors[indices, chosen])
      neighbor_images = batches.to_float(jnp.take(data.images, rows, axis=0))
      return objectives.Inputs(images, neighbor_images=neighbor_images)
    permutations = batches.step_permutations(
      data.seed, step, len(indices), weights.supervision.num_swaps
    )
    each = lambda rows: jnp.stack([shard(row) for row in rows])
    teacher = None
    if isinstance(data.teacher, TeacherCache):
      teacher = self._look_up(
        data.teacher,
        shard(indices),
        each(indices[permutations]),
        weights.supervision,
      )
    permutations = each(permutations)
    if data.teacher is not None and teacher is None:
      teacher = self._apply_teacher(
        data.teacher, images, permutations, weights.supervision
      )
    if teacher is not None and weights.lambda_check:
      is_cache = isinstance(data.teacher, TeacherCache)
      teacher = teacher._replace(
        partner_factors=codes.take_partners(
          teacher.factors, permutations[0], self.module.axis_name
        ),
        variables=data.teacher.variables if is_cache else data.teacher,
      )
    ramp = steps.make_ramp(weights.ramp, self.ramp_steps)
    scale = ramp and ramp(step - data.first_step)
    return objectives.Inputs(images, permutations, teacher, scale)

  def _look_up(self, cache, indices, partners, supervision):
    """Reads a teacher's outputs from its cache."""
    factors = jnp.take(cache.factors, indices, axis=0)
    if supervision.jacobian == 'secant':
      images = jnp.take(cache.images, indices, axis=0)
      changes = jnp.stack(
        [jnp.take(cache.images, row, axis=0) - images for row in partners]
      )
      return objectives.TeacherOutputs(factors, changes)
    changes = objectives.compute_changes(
      supervision,
      self._bind_decode(cache.variables),
      # A teacher with a cache has no nuisance.
      codes.Code(factors, factors[:, :0]),
      jnp.take(cache.factors, partners, axis=0),
    ).changes
    return jax.lax.stop_gradient(objectives.TeacherOutputs(factors, changes))

  def _apply_teacher(self, variables, images, permutations, supervision):
    def encode(images):
      return self.teacher_module.apply(
        variables,
        images,
        train=self.teacher_statistics == 'batch',
        method='encode',
        mutable='batch_stats',
      )[0]

    return objectives.compute_teacher_outputs(
      encode,
      self._bind_decode(variables),
      images,
      permutations,
      supervision,
      self.module.axis_name,
    )

  def _bind_decode(self, variables):
    return lambda code: self.teacher_module.apply(
      variables, code, method='decode'
    )


@functools.partial(
  jax.jit, static_argnames=('teacher_module', 'supervision', 'check')
)
def compute_teacher_cache(
  teacher_module: nn.Module,
  variables: codes.Variables,
  images: jax.Array,
  supervision: config.Supervision = config.Supervision(),
  *,
  check: bool = False,
) -> TeacherCache:
  """Computes a teacher's outputs for `[M, H, W, C]` uint8 images.

  The teacher has no nuisance units, so that its swapped images are images of
  other examples. `check`: its student has a swap check.
  """

  def outputs(image):
    apply = functools.partial(teacher_module.apply, variables)
    code = apply(batches.to_float(image[None]), method='encode')
    return TeacherCache(code.factors[0], apply(code, method='decode')[0])

  at_once = batches.count_at_once(images.shape[1:])
  cache = jax.lax.map(outputs, images, batch_size=at_once)
  is_secant = supervision.jacobian == 'secant'
  return cache._replace(
    images=cache.images if is_secant else None,
    variables=None if is_secant and not check else variables,
  )
