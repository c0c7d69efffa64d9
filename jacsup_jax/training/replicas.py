"""Grids: many chains of Section 3 trained at once, as one `vmap`.

A member of a grid is a chain of its own, with a seed and weights of its terms.
The members' states are stacked on a first axis, `N` long here, and one compiled
program trains them all; each sees the random numbers of its solo run, and its
parameters are those of that run up to rounding.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import neighbors
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import stages
from jacsup_jax.training import devices
from jacsup_jax.training import discovery
from jacsup_jax.training import loop
from jacsup_jax.training import steps

# Teachers' outputs on the whole training set are kept up to this size; beyond
# it they are computed in each step.
_MAX_CACHE_BYTES = 4 << 30
# Of weights: what is the same in all members, as it decides what is computed.
_STATIC = (
    'squared_xcov', 'supervision', 'lambda_hsic', 'hsic_bandwidth',
    'lambda_orthogonal', 'lambda_orthogonal_factors', 'lambda_check', 'ramp',
)  # pyformat: disable
# Axes of a stack's state: all but its step, which members share.
BY_MEMBER = steps.TrainState(None, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Member:
  """One chain of a grid.

  Attributes:
    seed: of its initialisation, order of data and swaps.
    weights: of its students' objectives; None where the stages have the same
      for all members, which then differ in their seeds alone.
  """

  seed: int
  weights: config.LossWeights | None = None


def make_stages(
    members: Sequence[Member], nuisance_dims: Sequence[int], epochs: int
) -> list[config.Stage]:
  """Makes the stages of a grid: first teachers, then all students of a size.

  Args:
    members: the chains.
    nuisance_dims: of the students, rising.
    epochs: of each stage.

  Returns:
    Stages 'teacher', 'student_d01', ...; the students' weights are `[N]`
    arrays.

  Raises:
    InputError: if no member is given, or they differ in how the
      cross-covariance is computed, which is not a number.
  """
  if not members:
    raise errors.InputError('a grid has no members; accepted: 1 or more.')
  for name in _STATIC:
    if len({getattr(member.weights, name) for member in members}) > 1:
      raise errors.InputError(
          f'members of a grid differ in {name}; accepted: the same in all.'
      )
  first = members[0].weights
  if first.supervision.history or first.ramp != config.Ramp():
    raise errors.InputError(
        'a grid of members with --supervise=history or --ramp; accepted:'
        ' --supervise=parent and --ramp=constant.'
    )
  weights = jax.tree.map(
      lambda *values: np.array(values),
      *(member.weights for member in members),
  )
  unweighted = config.LossWeights(
      0.0,
      0.0,
      0.0,
      squared_xcov=weights.squared_xcov,
      supervision=weights.supervision,
  )
  chain = [config.Stage('teacher', 'teacher', None, 0, epochs, unweighted)]
  for dim in nuisance_dims:
    name = f'student_d{dim:02d}'
    chain.append(
        config.Stage(name, 'student', chain[-1].name, dim, epochs, weights)
    )
  return chain


class GridDiscovery:
  """The recipe of `discovery.Discovery` for all members of a grid at once.

  First teachers have no terms to weigh: members of one seed share theirs.
  Stages may have a number for each member as their weights, see `make_stages`,
  or one for all.
  """

  def __init__(
      self,
      settings: discovery.Settings,
      make_model: discovery.MakeModel,
      num_factors: int,
      images: jax.Array,
      members: Sequence[Member],
  ):
    """Makes the recipe.

    Args:
      settings: that all members share; its seed is not used.
      make_model: of the sizes of a code.
      num_factors: k, of the first teachers.
      images: `[M, H, W, C]` uint8, the training set.
      members: as the stages have them.

    Raises:
      InputError: if a batch is larger than the training set.
    """
    self._settings = settings
    self._make_model = make_model
    self._num_factors = num_factors
    self._images = images
    self._members = tuple(members)
    # Of the first teachers, in their order.
    self._seeds = list(dict.fromkeys(member.seed for member in members))
    self.batch_size = settings.batch_size
    self.steps_per_epoch = batches.count_steps(
        len(images), settings.batch_size
    )

  def create(
      self, stage: config.Stage, trained: Mapping[str, stages.Trained]
  ) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's model and its stacked state before the first step."""
    parent = trained.get(stage.parent)
    is_first = stage.supervisor is None
    model = self._make_model(self._num_factors, stage.nuisance_dim, is_first)
    fresh = {
        seed: steps.create_train_state(
            autoencoders.init_variables(model, seed, model.image_shape),
            self._make_optimizer(stage),
        )
        for seed in self._seeds
    }
    if is_first:
      return model, stack_states([fresh[seed] for seed in self._seeds])
    if parent is None:  # Supervised, but not grown.
      return model, stack_states([fresh[m.seed] for m in self._members])
    states = []
    for i, member in enumerate(self._members):
      own = take_member(parent, self._parent_index(parent, i))
      states.append(
          discovery.grow_state(own, fresh[member.seed], self._settings)
      )
    return model, stack_states(states)

  def make_epoch(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> loop.Epoch:
    """Makes the compiled epoch of a stage of all members."""
    settings, supervisor = self._settings, trained.get(stage.supervisor)
    name = devices.axis_name(settings.mode)
    optimizer, nearest = self._make_optimizer(stage), None
    if supervisor is None:
      seeds, teacher_model, teachers = self._seeds, None, None
      make_objective = lambda model, unused: steps.make_teacher_objective(
          model
      )
      if settings.neighbors:
        make_objective = (
            lambda model, unused: steps.make_neighbor_objective(
                model, settings.neighbors
            )
        )
        nearest = jnp.asarray(
            neighbors.find(self._images, settings.neighbors.num_neighbors)
        )
      # None of these either, but an axis to map over.
      weights = np.zeros(len(seeds), np.float32)
    else:
      seeds = [member.seed for member in self._members]
      teacher_model, teachers = self._make_teachers(supervisor, stage.weights)
      make_objective, weights = (
          functools.partial(
              steps.make_student_objective, teacher_model=teacher_model
          ),
          stage.weights,
      )
      if not _has_own_weights(stage):
        # Constants of the program, as in a solo run.
        make_objective = lambda model, unused: steps.make_student_objective(
            model, stage.weights, teacher_model
        )
        weights = np.zeros(len(seeds), np.float32)
      # While it trains, a student's factors are all that its teacher has.
      supervisor_dim = supervisor.model.code_dim
      model = model.clone(
          num_factors=supervisor_dim,
          nuisance_dim=model.code_dim - supervisor_dim,
      )
    model = model.clone(axis_name=name)
    if teacher_model is not None:
      teacher_model = teacher_model.clone(axis_name=name)

    def epoch_fn(state, constants, epoch, bounds, *, shard):
      images, nearest, teachers, weights, seeds = constants

      def train_member(state, teacher, weights, seed):
        return steps.train_epoch(
            state,
            steps.TrainingData(images, teacher, nearest),
            epoch,
            bounds,
            objective=make_objective(model, weights),
            optimizer=optimizer,
            teacher_model=teacher_model,
            teacher_train_mode=settings.teacher_train_mode,
            seed=seed,
            batch_size=settings.batch_size,
            supervision=stage.weights.supervision,
            shard=shard,
            axis_name=name,
        )

      return map_members(
          train_member,
          count,
          in_axes=(BY_MEMBER, shared_teacher, 0, shared_seed),
          # Metrics are `[steps, N]`.
          out_axes=(BY_MEMBER, 1),
      )(state, teachers, weights, seeds)

    count = len(seeds)
    # What all members share is not copied for each: a batch of one seed is read
    # once.
    shared_seed = None if len(set(seeds)) == 1 else 0
    seeds = seeds[0] if shared_seed is None else np.array(seeds, np.int32)
    shared_teacher = None if self._share_teacher(supervisor) else 0
    constants = devices.replicate(
        (self._images, nearest, teachers, weights, seeds)
    )
    compiled = devices.compile_epoch(
        settings.mode, settings.batch_size, epoch_fn
    )
    return loop.make_resident(
        self.steps_per_epoch,
        lambda state, epoch, bounds: compiled(state, constants, epoch, bounds),
    )

  def _make_optimizer(self, stage):
    return self._settings.make_optimizer(stage.epochs * self.steps_per_epoch)

  def _parent_index(self, parent, member):
    """Returns where the parent of a member is in the stack of a stage."""
    if parent.stage.supervisor is None:
      return self._seeds.index(self._members[member].seed)
    return member

  def _share_teacher(self, parent):
    """Whether all members have one and the same parent."""
    return (
        parent is not None
        and parent.stage.supervisor is None
        and len(self._seeds) == 1
    )

  def _make_teachers(self, parent, weights):
    """Returns the model that supervises, and what it knows for each member."""
    if not weights.needs_teacher:
      return None, None
    model = discovery.as_teacher(parent.model)
    settings = self._settings
    if self._share_teacher(parent):
      indices = [0]
    else:
      indices = [
          self._parent_index(parent, i) for i in range(len(self._members))
      ]
    teachers = _stack([take_member(parent, i).variables for i in indices])
    in_step = model.normalize_code and settings.teacher_train_mode
    if not in_step and keeps_outputs(self._images.size, len(indices)):
      teachers = _make_caches(
          model, teachers, self._images, weights.supervision
      )
    if self._share_teacher(parent):
      teachers = jax.tree.map(lambda x: x[0], teachers)
    return model, teachers


def take_member(trained: stages.Trained, index: int) -> stages.Trained:
  """Returns one model of a stage that trained a stack of them.

  Args:
    trained: by a stage of a grid.
    index: in its stack.

  Returns:
    The model, with the weights of its own where its stage had several.
  """
  take = lambda tree: jax.tree.map(lambda x: x[index], tree)
  stage, state = trained.stage, trained.state
  if _has_own_weights(stage):
    weights = jax.tree.map(lambda x: float(x[index]), stage.weights)
    stage = dataclasses.replace(stage, weights=weights)
  state = state._replace(
      params=take(state.params),
      batch_stats=take(state.batch_stats),
      opt_state=take(state.opt_state),
  )
  return stages.Trained(
      stage, trained.model, state, checkpoints.hash_tree(state.params)
  )


def stack_members(members: Sequence[stages.Trained]) -> stages.Trained:
  """Stacks solo models of one stage, as a stage of a grid would train them.

  Args:
    members: of the same stage and model; with the same number of steps.

  Returns:
    The stack, of which `take_member` gives each.
  """
  state = stack_states([member.state for member in members])
  return dataclasses.replace(
      members[0],
      state=jax.device_get(state),
      sha256=checkpoints.hash_tree(state.params),
  )


def keeps_outputs(size: int, count: int) -> bool:
  """Returns whether outputs of `count` teachers on images are few enough.

  Args:
    size: of the images, numbers in all.
    count: of teachers.
  """
  return 4 * size * count <= _MAX_CACHE_BYTES


def stack_states(states: Sequence[steps.TrainState]) -> steps.TrainState:
  """Stacks states of one step, which is not stacked."""
  stacked = _stack([state._replace(step=()) for state in states])
  return stacked._replace(step=states[0].step)


def stack_shapes(
    shapes: steps.TrainState, count: int
) -> steps.TrainState:
  """Returns the shapes of `count` states as `stack_states` stacks them."""
  add = lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype)
  return jax.tree.map(add, shapes._replace(step=()))._replace(step=shapes.step)


def map_members(function, count, in_axes, out_axes):
  """Maps a function over stacks of `count` members.

  A single one, such as the first teacher of one seed, is not batched: products
  of a batch of one are rounded in another way than those of a solo run.

  Args:
    function: of one member.
    count: N.
    in_axes: of its arguments, see `jax.vmap`.
    out_axes: of what it returns.

  Returns:
    The same function of stacks.
  """
  if count > 1:
    return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

  def on_one(*stacks):
    # As vmap reads its axes: None stands for a whole tree.
    is_none = lambda axis: axis is None
    spread = lambda axes, trees, change: jax.tree.map(
        lambda axis, tree: (
            tree if axis is None else jax.tree.map(change(axis), tree)
        ),
        axes,
        trees,
        is_leaf=is_none,
    )
    members = spread(in_axes, stacks, lambda axis: lambda x: x[0])
    return spread(
        out_axes,
        function(*members),
        lambda axis: lambda x: jnp.expand_dims(x, axis),
    )

  return on_one


def _has_own_weights(stage):
  """Whether a stage has weights of each member, not the same for all."""
  return any(np.ndim(leaf) for leaf in jax.tree.leaves(stage.weights))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _make_caches(model, teachers, images, supervision):
  """Computes stacked teachers' outputs, of one teacher after the other."""
  return jax.lax.map(
      lambda teacher: steps.compute_teacher_cache(
          model, teacher, images, supervision
      ),
      teachers,
  )


def _stack(trees: Sequence[chex.ArrayTree]) -> chex.ArrayTree:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
