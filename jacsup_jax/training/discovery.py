"""Section 3 of Lezama (2019): progressive discovery of factors.

A student grows from its parent by surgery and is supervised by it. The parent's
whole code becomes the factors, so that every unit that was found keeps its
effect.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import growth
from jacsup_jax.data import batches
from jacsup_jax.data import neighbors
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages
from jacsup_jax.training import devices
from jacsup_jax.training import history
from jacsup_jax.training import loop
from jacsup_jax.training import numerics
from jacsup_jax.training import schedules
from jacsup_jax.training import steps

# (num_factors, nuisance_dim, is_first) -> autoencoder; a first teacher has the
# BatchNorm of the code, students may.
MakeModel = Callable[[int, int, bool], nn.Module]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all stages of a run share.

  Attributes:
    seed: of initialisation, data order and swaps.
    batch_size: of all devices together.
    learning_rate: of Adam.
    weight_decay: as L2 in the gradient.
    mode: how devices are used, see `parallel`.
    growth: initialisation of new units, see `growth.grow`.
    fold_normalization: a first teacher's BatchNorm is folded into the student
      that grows from it, if that has none (else dropped, as the released code
      does).
    keep_moments: grown optimizer state goes on; else it starts at zero, as the
      released code does.
    optimizer: of `steps.OPTIMIZERS`.
    decay_learning_rate: it falls to 0 as a cosine in each stage; else it stays.
    neighbors: a first teacher draws neighbours together, trained with these;
      None is the paper's, which reconstructs each image.
    teacher_train_mode: a teacher with BatchNorm supervises with the statistics
      of the batch, as the released code does; else with running ones.
  """

  seed: int = 0
  batch_size: int = 128
  learning_rate: float = 3e-4
  weight_decay: float = 1e-6
  mode: devices.Mode = 'jit'
  growth: str = 'random'
  fold_normalization: bool = False
  keep_moments: bool = False
  teacher_train_mode: bool = False
  optimizer: str = 'adam'
  decay_learning_rate: bool = False
  neighbors: config.NeighborWeights | None = None

  def __post_init__(self):
    if self.keep_moments and self.optimizer != 'adam':
      raise errors.InputError(
          f'--keep_moments with --optimizer={self.optimizer}; accepted: with'
          ' adam, whose moments are of the shape of the parameters.'
      )
    if self.keep_moments and self.decay_learning_rate:
      raise errors.InputError(
          '--keep_moments with --learning_rate_schedule=cosine, which begins'
          ' anew with each stage; accepted: one of them.'
      )

  def make_optimizer(self, num_steps: int) -> optax.GradientTransformation:
    """Makes the optimizer of a stage of so many steps."""
    return steps.make_optimizer(
        self.learning_rate,
        self.weight_decay,
        name=self.optimizer,
        decay_steps=num_steps if self.decay_learning_rate else None,
    )


class Discovery:
  """The recipe of a chain that grows from a first teacher without nuisance."""

  def __init__(
      self,
      settings: Settings,
      make_model: MakeModel,
      num_factors: int,
      images: jax.Array,
  ):
    """Makes the recipe.

    Args:
      settings: that all stages share.
      make_model: of the sizes of a code.
      num_factors: k, of the first teachers.
      images: `[M, H, W, C]` uint8, the training set.

    Raises:
      InputError: if a batch is larger than the training set.
    """
    self._settings = settings
    self._make_model = make_model
    self._num_factors = num_factors
    self._images = images
    self.batch_size = settings.batch_size
    self.steps_per_epoch = batches.count_steps(
        len(images), settings.batch_size
    )

  def create(
      self, stage: config.Stage, trained: Mapping[str, stages.Trained]
  ) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's model and its state before the first step."""
    parent = trained.get(stage.parent)
    model = self._make_model(
        self._num_factors,
        stage.nuisance_dim,
        # A student may be supervised without having grown from anything.
        stage.supervisor is None,
    )
    fresh = steps.create_train_state(
        autoencoders.init_variables(model, self._settings.seed, model.image_shape),
        self._make_optimizer(stage),
    )
    if parent is None:
      return model, fresh
    return model, grow_state(parent, fresh, self._settings)

  def make_epoch(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> loop.Epoch:
    """Makes the compiled epoch of a stage."""
    settings, supervisor = self._settings, trained.get(stage.supervisor)
    make_objective, teacher, teacher_model = (
        steps.make_teacher_objective,
        None,
        None,
    )
    supervision, history_models, schedule = config.Supervision(), (), None
    nearest = None
    if settings.neighbors and stage.supervisor is None:
      make_objective = functools.partial(
          steps.make_neighbor_objective, weights=settings.neighbors
      )
      nearest = jnp.asarray(
          neighbors.find(self._images, settings.neighbors.num_neighbors)
      )
    if supervisor is not None:
      supervision = stage.weights.supervision
      # While it trains, a student's factors are all that its teacher has.
      supervisor_dim = supervisor.model.code_dim
      model = model.clone(
          num_factors=supervisor_dim,
          nuisance_dim=model.code_dim - supervisor_dim,
      )
      if stage.weights.needs_teacher:
        teacher = supervisor.variables
        teacher_model = as_teacher(supervisor.model)
        if supervision.history:
          ancestors = history.trace(stage, trained)
          history_models = tuple(as_teacher(a.model) for a in ancestors)
          supervision = dataclasses.replace(
              supervision, blocks=history.count_units(history_models)
          )
          teacher = history.compute_history(
              history_models, [a.variables for a in ancestors], self._images
          )
        elif not (teacher_model.normalize_code and settings.teacher_train_mode):
          teacher = jax.jit(
              steps.compute_teacher_cache, static_argnums=(0, 3)
          )(teacher_model, teacher, self._images, supervision)
      make_objective = functools.partial(
          steps.make_student_objective,
          weights=dataclasses.replace(stage.weights, supervision=supervision),
          teacher_model=teacher_model,
      )
      parent = trained.get(stage.parent)
      schedule = schedules.make_schedule(
          stage.weights.ramp,
          first_step=int(parent.state.step) if parent else 0,
          steps_per_epoch=self.steps_per_epoch,
          epochs=stage.epochs,
      )
    compiled = devices.make_epoch_fn(
        settings.mode,
        settings.batch_size,
        make_objective,
        model,
        teacher_model,
        optimizer=self._make_optimizer(stage),
        teacher_train_mode=settings.teacher_train_mode,
        seed=settings.seed,
        supervision=supervision,
        history_models=history_models,
        schedule=schedule,
    )
    data = devices.replicate(
        steps.TrainingData(self._images, teacher, nearest)
    )
    examine = numerics.compile_examination(
        functools.partial(
            steps.examine_step,
            objective=make_objective(model),
            teacher_model=teacher_model,
            teacher_train_mode=settings.teacher_train_mode,
            seed=settings.seed,
            batch_size=settings.batch_size,
            supervision=supervision,
            history_models=history_models,
            schedule=schedule,
        )
    )
    return loop.make_resident(
        self.steps_per_epoch,
        lambda state, epoch, bounds: compiled(state, data, epoch, bounds),
        lambda state, epoch, step: examine(state, data, epoch, step),
    )

  def _make_optimizer(self, stage):
    return self._settings.make_optimizer(stage.epochs * self.steps_per_epoch)


def as_teacher(model: nn.Module) -> nn.Module:
  """Returns a model with its whole code as factors."""
  return model.clone(num_factors=model.code_dim, nuisance_dim=0)


def grow_state(
    parent: stages.Trained, fresh: steps.TrainState, settings: Settings
) -> steps.TrainState:
  """Grows the state that a student begins with.

  Args:
    parent: that it grows from.
    fresh: state of the student's model, freshly initialised.
    settings: of the chain.

  Returns:
    State of the parent's step.
  """
  variables = parent.variables
  # Of a student without BatchNorm, whose teacher has one.
  if parent.model.normalize_code and not fresh.batch_stats:
    if settings.fold_normalization:
      variables = growth.fold_normalization(variables)
    else:
      variables = {**variables, 'batch_stats': {}}
  opt_state = parent.state.opt_state if settings.keep_moments else None
  grow = functools.partial(
      growth.grow,
      position=parent.model.code_dim,
      initialization=settings.growth,
  )
  return steps.TrainState(
      # Goes on, so that no two stages see the data in the same order.
      step=parent.state.step,
      params=grow(variables['params'], fresh.params),
      batch_stats=grow(variables['batch_stats'], fresh.batch_stats),
      opt_state=grow(opt_state, fresh.opt_state)
      if opt_state
      else fresh.opt_state,
  )
