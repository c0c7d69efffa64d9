"""Section 3 of Lezama (2019): progressive discovery of factors.

A student grows from its parent and is supervised by it. The parent's whole code
becomes the student's factors, so that every unit found so far keeps its effect.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import growth
from jacsup_jax.core import jacobian
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.training import chains
from jacsup_jax.training import devices
from jacsup_jax.training import discovery_steps
from jacsup_jax.training import loop
from jacsup_jax.training import steps

# (num_factors, nuisance_dim, is_first) -> autoencoder; a first teacher
# normalises its code, a student may.
MakeModel = Callable[[int, int, bool], nn.Module]

_FROM_SCRATCH = 'student_from_scratch'
_ALONE, _FREE = 'student_no_jacobian', 'student_unconstrained'
STUDENTS = ('student', _ALONE, _FREE, _FROM_SCRATCH)
# What may look at swapped images; all but the teacher are networks of
# `models.checkers`.
_TEACHER = 'teacher'
CHECKERS = (_TEACHER, 'patches', 'mixer')
_option = config.option


@dataclasses.dataclass(frozen=True)
class DiscoveryConfig(chains.ChainConfig):
  """The flags of a chain of Section 3, with the paper's values for digits."""

  students: tuple[str, ...] = _option(
    ('student',),
    'Chains to grow from the teacher: student (with Jacobian supervision),'
    ' student_no_jacobian (cross-covariance only), student_unconstrained'
    ' (neither), student_from_scratch (as student, but with the last size at'
    ' once, for as many epochs as a whole chain); empty: only --baselines.',
    choices=STUDENTS,
  )
  num_factors: int = _option(
    2, 'k, code units of the first teacher.', low=1, high=config.LARGEST_WIDTH
  )
  nuisance_dim: int = _option(
    14, 'd, final number of nuisance units.', low=1, high=config.LARGEST_WIDTH
  )
  grow_by: int = _option(
    1, 'Units added in each growth; the last growth adds the rest.', low=1
  )
  epochs: int = _option(100, 'Passes over the data in each stage.', low=1)
  teacher_epochs: int | None = _option(
    None, 'Epochs of the first teacher; default: --epochs.', low=1
  )
  grow_when: str = _option(
    'schedule',
    'When a stage ends: schedule, after --epochs; plateau, earlier if the'
    ' error on validation images (which are then held out of training) has not'
    ' reached a new minimum for --patience epochs.',
    choices=('schedule', 'plateau'),
  )
  patience: int = _option(3, 'Epochs of a plateau, see --grow_when.', low=1)
  growth: str = _option(
    'random',
    "How new units start: random (the paper's), or preserving (the student"
    ' starts equal to its teacher).',
    choices=growth.INITIALIZATIONS,
  )
  fold_normalization: bool | None = _option(
    None,
    "Fold the first teacher's BatchNorm into a student without BatchNorm"
    ' instead of dropping it; default: with --growth=preserving.',
  )
  keep_moments: bool = _option(
    False, "Keep Adam's moments through a growth, instead of starting new ones."
  )
  first_teacher: str = _option(
    'autoencoder',
    'What the first teacher decodes an image to: autoencoder, the image itself'
    " (the paper's); neighbors, one of its nearest neighbors in the training"
    ' set, with neighbors close together in the code. Neither uses labels.',
    choices=('autoencoder', 'neighbors'),
  )
  teacher_statistics: str = _option(
    'running',
    'BatchNorm statistics of a teacher while it supervises: running, or batch'
    " (the released code's).",
    choices=('running', 'batch'),
  )
  checkers: tuple[str, ...] = _option(
    (_TEACHER,),
    'Networks that look at swapped images for --lambda_check, the weight of'
    ' each: teacher, and small networks of other kinds that first learn the'
    " teacher's factors: patches (a bag of patches), mixer (an MLP-Mixer).",
    choices=CHECKERS,
  )
  checker_epochs: int = _option(
    5, 'Training epochs of each network of --checkers, for each teacher.', low=1
  )
  neighbors: config.NeighborWeights = config.NeighborWeights()
  weights: config.LossWeights = config.LossWeights()
  optimization: config.Optimization = config.Optimization()

  def __post_init__(self):
    super().__post_init__()
    if self.grow_by > self.nuisance_dim:
      raise errors.InputError(
        f'--grow_by={self.grow_by} with --nuisance_dim={self.nuisance_dim};'
        f' accepted: from 1 to {self.nuisance_dim}.'
      )
    if not self.checkers:
      raise errors.InputError(f'--checkers=; accepted: {", ".join(CHECKERS)}.')
    if self.networks and not self.weights.lambda_check:
      raise errors.InputError(
        f'--checkers={",".join(self.checkers)} with --lambda_check=0, by which'
        ' they would change nothing; accepted: a weight above 0.'
      )
    optimization = self.optimization
    # Its schedule restarts in each stage, and needs its length.
    is_cosine = optimization.learning_rate_schedule == 'cosine'
    for is_refused, found in (
      (
        self.keep_moments and optimization.optimizer == 'muon',
        "--keep_moments with --optimizer=muon: only Adam's moments can grow",
      ),
      (
        self.keep_moments and is_cosine,
        '--keep_moments with --learning_rate_schedule=cosine',
      ),
      (
        self.grow_when == 'plateau' and is_cosine,
        '--grow_when=plateau with --learning_rate_schedule=cosine',
      ),
      (
        self.teacher_statistics == 'batch' and self.weights.lambda_check,
        '--teacher_statistics=batch with --lambda_check, which encodes with'
        ' running statistics',
      ),
    ):
      if is_refused:
        raise errors.InputError(f'{found}; accepted: one of them.')

  @property
  def networks(self) -> tuple[str, ...]:
    """The names of the networks that look at swapped images."""
    return tuple(name for name in self.checkers if name != _TEACHER)


def make_stages(flags: DiscoveryConfig) -> list[config.Stage]:
  """Returns the teacher, unless it is given, and the chains of students.

  Parents come before their children, seed after seed. None without students.
  """
  no_jacobian = dataclasses.replace(
    flags.weights, **dict.fromkeys(config.SUPERVISED, 0.0)
  )
  weights = {
    'student': flags.weights,
    _FROM_SCRATCH: flags.weights,
    _ALONE: no_jacobian,
    _FREE: dataclasses.replace(
      no_jacobian,
      lambda_xcov=0.0,
      lambda_hsic=0.0,
      lambda_orthogonal=0.0,
      lambda_orthogonal_factors=0.0,
    ),
  }
  patience = flags.patience if flags.grow_when == 'plateau' else None
  last, chain = flags.nuisance_dim, []
  dims = [*range(flags.grow_by, last, flags.grow_by), last]
  make_stage = functools.partial(config.Stage, patience=patience)
  if flags.teacher_workdir is None and flags.students:
    epochs = flags.teacher_epochs or flags.epochs
    chain.append(
      make_stage('teacher', 'teacher', None, 0, epochs, flags.weights)
    )
  for model in flags.students:
    parent, sizes, epochs, teacher = 'teacher', dims, flags.epochs, None
    if model == _FROM_SCRATCH:
      parent, sizes, epochs = None, [last], len(dims) * flags.epochs
      teacher = 'teacher'
    for dim in sizes:
      name = f'{model}_d{dim:02d}'
      chain.append(
        make_stage(name, model, parent, dim, epochs, weights[model], teacher)
      )
      parent = name
  return flags.spread(chain)


def check_sizes(
  flags: DiscoveryConfig,
  chain: Sequence[config.Stage],
  image_shape: tuple[int, int, int],
) -> None:
  """Raises InputError if a full Jacobian of a run is too large to compute."""
  # A teacher from another run is not in the chain.
  dims = {stage.name: stage.nuisance_dim for stage in chain}
  shape, k = (flags.batch_size, *image_shape), flags.num_factors
  for stage in chain:
    weights = stage.weights
    if stage.supervisor is None:
      continue
    if weights.needs_teacher and weights.supervision.jacobian == 'full':
      # A student's factors are all units of its supervisor.
      jacobian.check_full_size(shape, k + dims.get(stage.supervisor, 0))
    if weights.lambda_orthogonal or weights.lambda_orthogonal_factors:
      units = k + stage.nuisance_dim
      jacobian.check_full_size(shape, units, name='--lambda_orthogonal')


class Discovery:
  """The recipe of chains that grow from a first teacher without nuisance."""

  def __init__(
    self,
    flags: DiscoveryConfig,
    make_model: MakeModel,
    images: jax.Array,
    distill: Callable[..., Any] = lambda network, *data: network.distill(*data),
  ):
    """Keeps what stages are made from.

    `distill` trains a network of --checkers, or restores it; its arguments are
    those of `distillation.Distilled.distill`.
    """
    self._distill = distill
    self._flags = flags
    self._make_model = make_model
    self._images = images
    self.batch_size = flags.batch_size
    self.steps_per_epoch = batches.count_steps(len(images), flags.batch_size)

  def create(self, stage, trained) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's module and its state before the first step."""
    # A student may be supervised without growing from a parent.
    is_first = stage.supervisor is None
    module = self._make_model(
      self._flags.num_factors, stage.nuisance_dim, is_first
    )
    fresh = steps.create_train_state(
      autoencoders.init_variables(module, stage.seed),
      steps.make_optimizer(self._flags.optimization, self._count_steps(stage)),
    )
    parent = trained.get(stage.parent)
    if parent is None:
      return module, fresh
    return module, grow_state(parent, fresh, self._flags)

  def make_epoch(self, stage, module, trained) -> loop.Epoch:
    """Makes the compiled epoch of a stage."""
    program = self.make_steps(stage, module, trained.get(stage.supervisor))
    compiled = devices.compile_epoch(
      self._flags.parallel, self.batch_size, program
    )
    data = devices.replicate(self.make_data(stage, trained))
    shape = (self.batch_size, *self._images.shape[1:])
    return chains.make_epoch(
      compiled, data, stage.seed, len(self._images), shape
    )

  def make_data(self, stage, trained) -> discovery_steps.TrainingData:
    """Makes the constants of a stage."""
    parent = trained.get(stage.parent)
    supervisor = trained.get(stage.supervisor)
    teacher = self.make_teacher(stage, supervisor)
    is_embedding = self._flags.first_teacher == 'neighbors'
    networks = [
      self._distill(own, self._images, teacher.factors)
      for own in self._list_networks(stage, supervisor)
    ]
    return discovery_steps.TrainingData(
      self._images,
      jnp.asarray(stage.seed),
      teacher,
      self._neighbors if is_embedding and not stage.supervisor else None,
      parent.state.step if parent else 0,
      checkers=tuple(own.variables for own in networks),
    )

  def make_steps(
    self, stage, module, supervisor: steps.Trained | None
  ) -> discovery_steps.DiscoverySteps:
    """Makes the steps of a stage."""
    flags = self._flags
    weights = teacher_module = ramp_steps = None
    axis_name = devices.axis_name(flags.parallel)
    if supervisor is not None:
      weights = stage.weights
      teacher_module = as_teacher(supervisor.module)
      module = as_student(module, teacher_module)
      teacher_module = teacher_module.clone(axis_name=axis_name)
      if weights.ramp.ramp != 'constant':
        epochs = weights.ramp.ramp_epochs or stage.epochs
        ramp_steps = epochs * self.steps_per_epoch
    elif flags.first_teacher == 'neighbors':
      weights = flags.neighbors
    return discovery_steps.DiscoverySteps(
      module.clone(axis_name=axis_name),
      teacher_module if weights and weights.needs_teacher else None,
      weights,
      flags.optimization,
      flags.batch_size,
      self._count_steps(stage),
      ramp_steps,
      flags.teacher_statistics,
      _TEACHER in flags.checkers,
      tuple(own.module for own in self._list_networks(stage, supervisor)),
    )

  def make_teacher(
    self, stage: config.Stage, supervisor: steps.Trained | None
  ) -> codes.Variables | discovery_steps.TeacherCache | None:
    """Returns what supervises a stage: variables, their outputs, or None."""
    if supervisor is None or not stage.weights.needs_teacher:
      return None
    module = as_teacher(supervisor.module)
    if module.normalize_code and self._flags.teacher_statistics == 'batch':
      return supervisor.variables
    return discovery_steps.compute_teacher_cache(
      module, supervisor.variables, self._images, stage.weights.supervision
    )

  @functools.cached_property
  def _neighbors(self):
    # Imported here: most teachers have none.
    from jacsup_jax.data import neighbors

    count = self._flags.neighbors.num_neighbors
    return jnp.asarray(neighbors.find(self._images, count))

  def _list_networks(self, stage, supervisor):
    """Lists the networks that look at the swapped images of a stage."""
    names = supervisor and stage.weights.lambda_check and self._flags.networks
    if not names:
      return []
    # Imported here: most runs have none.
    from jacsup_jax.training import distillation

    return distillation.plan(
      names,
      supervisor,
      epochs=self._flags.checker_epochs,
      batch_size=self.batch_size,
      dtype=self._flags.compute_dtype,
    )

  def _count_steps(self, stage):
    """Returns the steps of a stage if its learning rate depends on them."""
    if self._flags.optimization.learning_rate_schedule == 'constant':
      return None
    return stage.epochs * self.steps_per_epoch


def as_teacher(module: nn.Module) -> nn.Module:
  """Returns a module with its whole code as factors."""
  return module.clone(num_factors=module.code_dim, nuisance_dim=0)


def as_student(module: nn.Module, teacher_module: nn.Module) -> nn.Module:
  """Returns a module as it trains, with its teacher's whole code as factors."""
  dim = teacher_module.code_dim
  return module.clone(num_factors=dim, nuisance_dim=module.code_dim - dim)


def grow_state(
  parent: steps.Trained, fresh: steps.TrainState, flags: DiscoveryConfig
) -> steps.TrainState:
  """Grows the state that a student begins with, of the parent's step."""
  state = parent.state
  # A student without BatchNorm, of a teacher with one.
  if parent.module.normalize_code and not fresh.batch_stats:
    fold = flags.fold_normalization
    if flags.growth == 'preserving' if fold is None else fold:
      state = state._replace(**growth.fold_normalization(parent.variables))
    else:
      state = state._replace(batch_stats={})
  return steps.grow_state(
    state,
    fresh,
    keep_moments=flags.keep_moments and bool(state.opt_state),
    position=parent.module.code_dim,
    initialization=flags.growth,
  )
