"""Runs a chain of stages: teacher -> student -> student ..., each resumable.

A student grows from its parent by surgery and is supervised by it. The parent's
whole code becomes the factors (Section 3 of Lezama, 2019), so that every unit
that was found keeps its effect.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import time
from typing import Any

from flax import linen as nn
import jax

from jacsup_jax import checkpoints
from jacsup_jax import networks
from jacsup_jax import parallel
from jacsup_jax import surgery
from jacsup_jax import training
from jacsup_jax import types
from jacsup_jax import workdirs
from jacsup_jax.datasets import batches

# (num_factors, nuisance_dim, normalize_code) -> autoencoder.
MakeModel = Callable[[int, int, bool], nn.Module]
# (model, variables) -> metrics of held-out data.
EvaluateFn = Callable[[nn.Module, types.Variables], dict[str, Any]]
# Called with every record of metrics.jsonl, and the stage.
ReportFn = Callable[[types.Stage, dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all stages of a run share.

  Attributes:
    seed: of initialisation, data order and swaps.
    batch_size: of all devices together.
    learning_rate: of Adam.
    weight_decay: as L2 in the gradient.
    mode: how devices are used, see `parallel`.
    growth: initialisation of new units, see `surgery.grow`.
    fold_normalization: a first teacher's BatchNorm is folded into the student
      that grows from it (else dropped, as the released code does).
    keep_moments: grown optimizer state goes on; else it starts at zero, as the
      released code does.
    teacher_train_mode: a teacher with BatchNorm supervises with the statistics
      of the batch, as the released code does; else with running ones.
    checkpoint_every: epochs between checkpoints; the last is always saved.
    eval_every: epochs between evaluations; the last is always evaluated.
  """

  seed: int = 0
  batch_size: int = 128
  learning_rate: float = 3e-4
  weight_decay: float = 1e-6
  mode: parallel.Mode = 'jit'
  growth: surgery.Initialization = 'random'
  fold_normalization: bool = False
  keep_moments: bool = False
  teacher_train_mode: bool = False
  checkpoint_every: int = 10
  eval_every: int = 5


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model at the end of its stage.

  Attributes:
    stage: that trained it.
    model: with the first teacher's factors; the rest of the code is nuisance.
    state: at the last step, on the host.
    sha256: of its parameters.
  """

  stage: types.Stage
  model: nn.Module
  state: training.TrainState
  sha256: str

  @property
  def variables(self) -> types.Variables:
    return {
        'params': self.state.params,
        'batch_stats': self.state.batch_stats,
    }

  @property
  def as_teacher(self) -> nn.Module:
    """The model with its whole code as factors."""
    return self.model.clone(num_factors=self.model.code_dim, nuisance_dim=0)


def run(
    stages: Sequence[types.Stage],
    settings: Settings,
    *,
    make_model: MakeModel,
    num_factors: int,
    images: jax.Array,
    workdir: workdirs.WorkDir,
    evaluate: EvaluateFn,
    report: ReportFn = lambda stage, record: None,
) -> list[Trained]:
  """Trains what is missing of a chain of stages, in order.

  Args:
    stages: parents before their children.
    settings: that all share.
    make_model: of the sizes of a code.
    num_factors: k, of the first teachers.
    images: `[M, H, W, C]` uint8, the training set.
    workdir: where checkpoints and metrics are; continued if it has some.
    evaluate: called every `eval_every` epochs.
    report: called after each epoch.

  Returns:
    The trained models, in the order of `stages`.
  """
  optimizer = training.make_optimizer(
      settings.learning_rate, settings.weight_decay
  )
  trained = {}
  for stage in stages:
    parent = trained.get(stage.parent)
    model = make_model(num_factors, stage.nuisance_dim, parent is None)
    state = _create_state(model, parent, settings, optimizer)
    with checkpoints.StageCheckpoints(workdir.checkpoints(stage.name)) as saved:
      step = saved.latest_step()
      if step is not None:
        state = saved.restore(step, state)
      workdir.drop_metrics_after(stage.name, step or 0)
      state = _train(
          stage,
          settings,
          model,
          parent,
          state,
          images=images,
          optimizer=optimizer,
          saved=saved,
          workdir=workdir,
          evaluate=evaluate,
          report=report,
      )
    result = Trained(
        stage, model, state, checkpoints.hash_tree(state.params)
    )
    workdir.record_stage(
        stage.name,
        {
            'parent': stage.parent,
            'parent_sha256': parent.sha256 if parent else None,
            'sha256': result.sha256,
            'nuisance_dim': stage.nuisance_dim,
            'epochs': stage.epochs,
        },
    )
    trained[stage.name] = result
  return list(trained.values())


def _create_state(model, parent, settings, optimizer):
  """Creates the state of step 0, grown from the parent where there is one."""
  fresh = training.create_train_state(
      networks.init_variables(model, settings.seed, model.image_shape),
      optimizer,
  )
  if parent is None:
    return fresh
  variables = parent.variables
  if parent.model.normalize_code:
    if settings.fold_normalization:
      variables = surgery.fold_normalization(variables)
    else:
      variables = {**variables, 'batch_stats': {}}
  opt_state = parent.state.opt_state if settings.keep_moments else None
  grow = functools.partial(
      surgery.grow,
      position=parent.model.code_dim,
      initialization=settings.growth,
  )
  return training.TrainState(
      # Goes on, so that no two stages see the data in the same order.
      step=parent.state.step,
      params=grow(variables['params'], fresh.params),
      batch_stats=grow(variables['batch_stats'], fresh.batch_stats),
      opt_state=grow(opt_state, fresh.opt_state)
      if opt_state
      else fresh.opt_state,
  )


def _make_training(stage, settings, model, parent, images, optimizer):
  """Makes the compiled epoch of a stage and the data that it reads."""
  make_objective, teacher, teacher_model = (
      training.make_teacher_objective,
      None,
      None,
  )
  if parent is not None:
    make_objective = functools.partial(
        training.make_student_objective, weights=stage.weights
    )
    # While it trains, a student's factors are all that its teacher has.
    parent_dim = parent.model.code_dim
    model = model.clone(
        num_factors=parent_dim, nuisance_dim=model.code_dim - parent_dim
    )
    if stage.weights.needs_teacher:
      teacher, teacher_model = parent.variables, parent.as_teacher
      if not (teacher_model.normalize_code and settings.teacher_train_mode):
        teacher = jax.jit(training.compute_teacher_cache, static_argnums=0)(
            teacher_model, teacher, images
        )
  epoch_fn = parallel.make_epoch_fn(
      settings.mode,
      settings.batch_size,
      make_objective,
      model,
      teacher_model,
      optimizer=optimizer,
      teacher_train_mode=settings.teacher_train_mode,
      seed=settings.seed,
  )
  return epoch_fn, training.TrainingData(images, teacher)


def _train(
    stage,
    settings,
    model,
    parent,
    state,
    *,
    images,
    optimizer,
    saved,
    workdir,
    evaluate,
    report,
):
  """Takes the epochs of a stage that are missing; returns a host state."""
  steps_per_epoch = batches.count_steps(len(images), settings.batch_size)
  first_step = int(parent.state.step) if parent else 0
  first_epoch = first_step // steps_per_epoch
  last_epoch = first_epoch + stage.epochs
  epochs = range(int(state.step) // steps_per_epoch, last_epoch)
  if not epochs:
    return jax.device_get(state)
  epoch_fn, data = _make_training(
      stage, settings, model, parent, images, optimizer
  )
  for epoch in epochs:
    start = time.perf_counter()
    state, metrics = epoch_fn(state, data, epoch)
    # The one transfer to the host in an epoch, and the wait for its end.
    metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
    seconds = time.perf_counter() - start
    done = epoch + 1 - first_epoch
    last = done == stage.epochs
    if last or done % settings.eval_every == 0:
      variables = {'params': state.params, 'batch_stats': state.batch_stats}
      measured = evaluate(model, variables)
      metrics |= {f'eval_{k}': v for k, v in measured.items()}
    record = {
        'stage': stage.name,
        'epoch': done,
        'step': (epoch + 1) * steps_per_epoch,
        **metrics,
        'images_per_second': steps_per_epoch * settings.batch_size / seconds,
        'seconds': seconds,
    }
    # Before the checkpoint: a step that is saved has its line.
    workdir.append_metrics(record)
    if last or done % settings.checkpoint_every == 0:
      saved.save((epoch + 1) * steps_per_epoch, state)
    report(stage, record)
  return jax.device_get(state)
