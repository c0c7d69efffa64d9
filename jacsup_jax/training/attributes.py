"""Section 4 of Lezama (2019): a model that edits facial attributes.

A teacher is trained in two phases, the second with cycle losses; students grow
from it by channels of their nuisance and keep its factors, the attributes.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools

from flax import linen as nn
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import growth
from jacsup_jax.core import jacobian
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import chains
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import steps

# nuisance_dim -> face autoencoder.
MakeModel = Callable[[int], nn.Module]

_FROM_SCRATCH = 'student_from_scratch'
STUDENTS = ('student', 'student_cycle', 'student_no_jacobian', _FROM_SCRATCH)
TEACHER, CVAE = 'teacher', 'cvae'
_FIRST_PHASE = 'teacher_phase_1'
# A map of 2x2 with as many channels as a layer may have.
_LARGEST_DIM = 4 * config.LARGEST_WIDTH
_option = config.option


@dataclasses.dataclass(frozen=True)
class AttributesConfig(chains.ChainConfig):
  """The flags of a chain of Section 4, with the paper's values."""

  epochs: int = _option(
    100,
    'Epochs of the teacher without cycle losses (its first phase); 0: no'
    ' teacher, only baselines, and students of --supervisor=cvae.',
    low=0,
  )
  cycle_epochs: int = _option(
    100,
    'Epochs of the teacher with cycle losses or the edit check; 0: no such'
    ' phase.',
    low=0,
  )
  student_epochs: int = _option(200, 'Epochs of a student at each size.', low=1)
  nuisance_dims: tuple[int, ...] = _option(
    (2048, 4096, 8192),
    'd of the teacher, and d after each growth; multiples of 4, since the'
    ' nuisance is a map of 2x2.',
    low=4,
    high=_LARGEST_DIM,
  )
  students: tuple[str, ...] = _option(
    ('student',),
    'Chains to grow from the teacher: student (with Jacobian supervision),'
    ' student_cycle (with cycle losses instead), student_no_jacobian'
    ' (neither), student_from_scratch (with Jacobian supervision, but not'
    ' grown: the last size at once, for as many epochs as a whole chain);'
    ' empty: only the teacher.',
    choices=STUDENTS,
  )
  supervisor: str = _option(
    TEACHER,
    "What supervises students: teacher, the paper's; or cvae, the conditional"
    ' VAE of --baselines, whose factors are the labels of an image. It is'
    ' trained with the optimizer of its students, and shares no encoder with'
    ' them, so they are trained from scratch.',
    choices=(TEACHER, CVAE),
  )
  weights: config.AttributeLossWeights = config.AttributeLossWeights(
    lambda_attribute_cycle=1e-4,
    lambda_nuisance_cycle=1e-5,
    lambda_y=1.0,
    lambda_diff=50.0,
  )
  learning_rate: float = _option(2e-3, 'Learning rate of Adam.', low=0)
  learning_rate_schedule: str = _option(
    'constant',
    'constant, or cosine: the learning rate falls to 0 within each stage. It'
    ' applies to our own models, not to baselines.',
    choices=('constant', 'cosine'),
  )
  adam_b1: float = _option(0.5, 'beta_1 of Adam.', low=0, high=config.MAX_DECAY)
  weight_decay: float = _option(
    0.0, 'Weight decay, added to the gradient as L2.', low=0
  )
  growth: str = _option(
    'random',
    "How new channels start: random (the paper's), or preserving (the"
    " student's decoder starts equal to its teacher's).",
    choices=growth.INITIALIZATIONS,
  )
  keep_moments: bool = _option(
    True, "Keep Adam's moments through a growth, instead of starting new ones."
  )
  cache: str = _option(
    'device',
    'Where the training images are kept: device, on every device; host, in'
    ' main memory; none, nowhere: they are read from the prepared set during'
    ' training.',
    choices=('device', 'host', 'none'),
    group='data',
  )

  def __post_init__(self):
    super().__post_init__()
    dims, students = self.nuisance_dims, ','.join(self.students)
    shown = f'--nuisance_dims={",".join(map(str, dims))}'
    if not dims or any(dim % 4 for dim in dims) or sorted({*dims}) != [*dims]:
      raise errors.InputError(
        f'{shown}; accepted: multiples of 4 up to {_LARGEST_DIM}, each larger'
        ' than the one before.'
      )
    if students and len(dims) < 2:
      raise errors.InputError(
        f'--students={students} with {shown}, which leaves nothing to grow to;'
        ' accepted: several sizes, or --students=.'
      )
    if self.weights.decode_labels and not self.weights.lambda_prediction:
      raise errors.InputError(
        '--decode_labels with --lambda_prediction=0, by which factors would'
        ' learn nothing; accepted: more than 0.'
      )
    if self.weights.largest_flip > 1 and self.weights.edits != 'flip':
      raise errors.InputError(
        f'--largest_flip={self.weights.largest_flip} with'
        f' --edits={self.weights.edits}, which flips nothing; accepted: 1, or'
        ' --edits=flip.'
      )
    if self.supervisor == CVAE:
      self._check_given_labels(students)
    elif students and not self.epochs and self.teacher_workdir is None:
      raise errors.InputError(
        f'--students={students} with --epochs=0, which trains no teacher;'
        ' accepted: 1 or more, or --teacher_workdir.'
      )

  def _check_given_labels(self, students):
    """Raises InputError if students cannot learn from a model of labels."""
    if self.teacher_workdir is not None:
      raise errors.InputError(
        f'--teacher_workdir with --supervisor={CVAE}, which this run trains;'
        ' accepted: one of them.'
      )
    if {*self.students} - {_FROM_SCRATCH}:
      raise errors.InputError(
        f'--students={students} with --supervisor={CVAE}, from which no student'
        f' can grow; accepted: {_FROM_SCRATCH}.'
      )
    if self.weights.decode_labels != 1:
      raise errors.InputError(
        f'--decode_labels={self.weights.decode_labels} with'
        f' --supervisor={CVAE}, which decodes the labels of all images;'
        ' accepted: 1.'
      )

  @property
  def optimization(self) -> config.Optimization:
    """The optimizer of these flags."""
    return config.Optimization(
      'adam', self.learning_rate, 'constant', self.adam_b1, self.weight_decay
    )


def make_weights(
  flags: AttributesConfig, model: str
) -> config.AttributeLossWeights:
  """Returns the weights of the objective of a kind of model."""
  no_cycle = {'lambda_attribute_cycle': 0.0, 'lambda_nuisance_cycle': 0.0}
  no_jacobian = {'lambda_y': 0.0, 'lambda_diff': 0.0}
  # Factors of a student are its teacher's, without eq. (10).
  of_student = {'lambda_prediction': 0.0, 'lambda_xcov': 0.0}
  changes = {
    _FIRST_PHASE: no_cycle | no_jacobian | {'lambda_edit_check': 0.0},
    TEACHER: no_jacobian,
    'student': of_student | no_cycle,
    _FROM_SCRATCH: of_student | no_cycle,
    # Cycle losses instead of the Jacobian, as in Tables 2 and 5.
    'student_cycle': of_student | no_jacobian,
    'student_no_jacobian': of_student | no_cycle | no_jacobian,
  }
  return dataclasses.replace(flags.weights, **changes[model])


def make_stages(flags: AttributesConfig) -> list[config.Stage]:
  """Returns the teacher in its phases and the chains of students.

  Parents come before their children, seed after seed. Without the teacher if it
  comes from another run, or --epochs is 0.
  """
  dims, chain = flags.nuisance_dims, []
  weigh = functools.partial(make_weights, flags)
  if flags.teacher_workdir is None and flags.epochs:
    phases = [(TEACHER, None, flags.epochs, weigh(_FIRST_PHASE))]
    if flags.cycle_epochs and weigh(TEACHER).needs_cycle:
      phases = [
        (_FIRST_PHASE, *phases[0][1:]),
        (TEACHER, _FIRST_PHASE, flags.cycle_epochs, weigh(TEACHER)),
      ]
    chain = [
      config.Stage(name, name, parent, dims[0], epochs, weights)
      for name, parent, epochs, weights in phases
    ]
  for model in flags.students:
    parent, sizes, epochs = TEACHER, dims[1:], flags.student_epochs
    if model == _FROM_SCRATCH:
      parent, sizes, epochs = None, dims[-1:], (len(dims) - 1) * epochs
    for dim in sizes:
      name = f'{model}_d{dim}'
      # Supervised by the same teacher at all sizes, as released.
      weights, teacher = weigh(model), flags.supervisor
      chain.append(
        config.Stage(name, model, parent, dim, epochs, weights, teacher)
      )
      parent = name
  return flags.spread(chain)


def check_sizes(
  flags: AttributesConfig,
  chain: Sequence[config.Stage],
  num_factors: int,
  image_shape: tuple[int, int, int],
) -> None:
  """Raises InputError if a full Jacobian of a run is too large to compute."""
  supervised = [s.weights for s in chain if s.weights.needs_teacher]
  if any(each.supervision.jacobian == 'full' for each in supervised):
    jacobian.check_full_size((flags.batch_size, *image_shape), num_factors)


class Attributes:
  """The recipe of a chain of face autoencoders."""

  def __init__(
    self,
    flags: AttributesConfig,
    make_model: MakeModel,
    dataset: registry.Dataset,
    steps_type: type[attribute_steps.FaceSteps] = attribute_steps.FaceSteps,
    checker: tuple[nn.Module, codes.Variables] | None = None,
  ):
    """Keeps what stages are made from.

    `checker` classifies `[B, S, S, 3]` images in [-1, 1], for the edit check.
    """
    self.flags = flags
    self._checker_module, self._checker = checker or (None, None)
    self._make_model = make_model
    self._dataset = dataset
    self._steps_type = steps_type
    self.batch_size = flags.batch_size
    self.steps_per_epoch = batches.count_steps(len(dataset), flags.batch_size)

  @functools.cached_property
  def _resident(self):
    """The data on the devices; None if they are fed."""
    if self.flags.cache != 'device':
      return None
    images, labels = self._dataset.images, self._dataset.labels
    return attribute_steps.FaceData(jnp.asarray(images), jnp.asarray(labels))

  def create(self, stage, trained) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's module and its state before the first step."""
    module = self._make_model(stage.nuisance_dim)
    fresh = attribute_steps.create_train_state(
      autoencoders.init_variables(module, stage.seed),
      steps.make_optimizer(self.flags.optimization),
    )
    parent = trained.get(stage.parent)
    if parent is None:
      return module, fresh
    # Channels of a code are (nuisance, factors): new ones come between. Moments
    # are always kept between the phases of a teacher.
    is_grown = module.nuisance_dim != parent.module.nuisance_dim
    return module, steps.grow_state(
      parent.state,
      fresh,
      keep_moments=self.flags.keep_moments or not is_grown,
      position=parent.module.nuisance_channels,
      initialization=self.flags.growth,
    )

  def make_epoch(self, stage, module, trained) -> loop.Epoch:
    """Makes the epoch of a stage, of resident or of fed data."""
    supervisor, data = trained.get(stage.supervisor), self._resident
    compiled = devices.compile_epoch(
      self.flags.parallel,
      self.batch_size,
      self.make_steps(stage, module, supervisor),
      fed=data is None,
    )
    teacher = supervisor.variables if stage.weights.needs_teacher else None
    seed = jnp.asarray(stage.seed)
    constants = attribute_steps.FaceConstants(
      seed, teacher, data, jnp.asarray(self._dataset.conflicts), self._checker
    )
    shape = (self.batch_size, *self._dataset.image_shape)
    return chains.make_epoch(
      compiled,
      devices.replicate(constants),
      stage.seed,
      len(self._dataset),
      shape,
      self._dataset if data is None else None,
    )

  def make_steps(
    self, stage, module, supervisor: steps.Trained | None
  ) -> attribute_steps.FaceSteps:
    """Makes the steps of a stage."""
    name, teacher_module = devices.axis_name(self.flags.parallel), None
    is_cosine = self.flags.learning_rate_schedule == 'cosine'
    if stage.weights.needs_teacher:
      teacher_module = supervisor.module.clone(axis_name=name)
    return self._steps_type(
      module.clone(axis_name=name),
      teacher_module,
      stage.weights,
      self.flags.optimization,
      self.batch_size,
      is_fed=self._resident is None,
      checker_module=self._checker_module,
      num_steps=stage.epochs * self.steps_per_epoch if is_cosine else None,
    )
