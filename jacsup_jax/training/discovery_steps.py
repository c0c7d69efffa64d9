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
from jacsup_jax.models import model as models
from jacsup_jax.training import loop
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


class TeacherCache(NamedTuple):
  """A teacher's outputs on the whole training set: constants of a stage."""

  factors: jax.Array  # [M, K]
  images: jax.Array | None  # [M, H, W, C], for the secant
  variables: codes.Variables | None  # For derivatives and the swap check.


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
  # Variables of the distilled networks of the swap check.
  checkers: tuple[codes.Variables, ...] = ()


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
  # What looks at swapped images, if the swap check has a weight: the teacher,
  # and networks that learnt its factors.
  teacher_checks: bool = True
  checker_modules: tuple[nn.Module, ...] = ()

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

    Rows are `[steps, B]` indices into the data; `shard` keeps this device's
    part of `[B]` arrays, or lays them out.
    """
    take_step = lambda state, indices: steps.train_step(
      state,
      self.read_inputs(state.step, data, indices, shard),
      objective=self.make_objective(data.weights),
      optimizer=steps.make_optimizer(self.optimization, self.num_steps),
      axis_name=self.module.axis_name,
    )
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
    options = {'module': self.module, 'weights': weights}
    if isinstance(weights, config.NeighborWeights):
      return functools.partial(objectives.neighbor_teacher_objective, **options)
    if self.teacher_checks:
      options['teacher_module'] = self.teacher_module
    options['checker_modules'] = self.checker_modules
    return functools.partial(objectives.student_objective, **options)

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
    teacher, variables = None, data.teacher
    if isinstance(data.teacher, TeacherCache):
      variables = data.teacher.variables
      partners = each(indices[permutations])
      teacher = self._look_up(
        data.teacher, shard(indices), partners, weights.supervision
      )
    permutations = each(permutations)
    if data.teacher is not None and teacher is None:
      teacher = self._apply_teacher(
        variables, images, permutations, weights.supervision
      )
    if teacher is not None:
      teacher = teacher._replace(variables=variables)
    ramp = steps.make_ramp(weights.ramp, self.ramp_steps)
    scale = ramp and ramp(step - data.first_step)
    found = ()
    if data.checkers:
      # Imported here: most runs have none.
      from jacsup_jax.training import distillation

      place = data.seed, step, len(indices)
      draws = distillation.draw(*place, images.shape[1:])
      draws = jax.tree.map(shard, draws)
      found = tuple(objectives.Checker(own, draws) for own in data.checkers)
    return objectives.Inputs(
      images, permutations, teacher, scale, checkers=found
    )

  def _look_up(self, cache, indices, partners, supervision):
    """Reads a teacher's outputs from its cache."""
    factors = jnp.take(cache.factors, indices, axis=0)
    if supervision.jacobian == 'secant':
      take = lambda rows: jnp.take(cache.images, rows, axis=0)
      images = take(indices)
      changes = jnp.stack([take(row) - images for row in partners])
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
    encode = lambda images: self.teacher_module.apply(
      variables,
      images,
      train=self.teacher_statistics == 'batch',
      method='encode',
      mutable='batch_stats',
    )[0]
    decode, axis = self._bind_decode(variables), self.module.axis_name
    return objectives.compute_teacher_outputs(
      encode, decode, images, permutations, supervision, axis
    )

  def _bind_decode(self, variables):
    return models.Model(self.teacher_module, **variables).decode


@functools.partial(jax.jit, static_argnames=('teacher_module', 'supervision'))
def compute_teacher_cache(
  teacher_module: nn.Module,
  variables: codes.Variables,
  images: jax.Array,
  supervision: config.Supervision = config.Supervision(),
) -> TeacherCache:
  """Computes the outputs of a teacher without nuisance on uint8 images."""

  def outputs(image):
    apply = functools.partial(teacher_module.apply, variables)
    code = apply(batches.to_float(image[None]), method='encode')
    images = apply(code, method='decode')
    return TeacherCache(code.factors[0], images[0], None)

  at_once = batches.count_at_once(images.shape[1:])
  cache = jax.lax.map(outputs, images, batch_size=at_once)
  cached_images = cache.images if supervision.jacobian == 'secant' else None
  return TeacherCache(cache.factors, cached_images, variables)
