"""Runs a chain of stages: teacher -> student -> student ..., each resumable.

What a stage trains, and how a student grows from its parent, is a recipe:
`discovery` has that of Section 3 of Lezama (2019), `editing` that of Section 4.

Where a run has several processes all of them train; the first one alone reads
and writes the work directory and measures, and what it finds decides for all.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
from typing import Any, Literal, NoReturn, Protocol

from flax import linen as nn
import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import preemption
from jacsup_jax.runs import workdir
from jacsup_jax.training import compilation
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import numerics
from jacsup_jax.training import steps

# (model, variables) -> metrics of held-out data.
EvaluateFn = Callable[[nn.Module, codes.Variables], dict[str, Any]]
# (model, variables) -> error of validation data.
ValidateFn = Callable[[nn.Module, codes.Variables], float]
# Called with every record of metrics.jsonl, and the stage.
ReportFn = Callable[[config.Stage, dict[str, Any]], None]

# Between the orders of the data that a stage may go through: more epochs than
# any run has.
_ORDER_EPOCHS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model at the end of its stage.

  Attributes:
    stage: that trained it.
    model: as it is evaluated, with the first teacher's factors.
    state: at the last step, on the host.
    sha256: of its parameters.
  """

  stage: config.Stage
  model: nn.Module
  state: steps.TrainState
  sha256: str

  @property
  def variables(self) -> codes.Variables:
    return {
        'params': self.state.params,
        'batch_stats': self.state.batch_stats,
    }


class Recipe(Protocol):
  """How the stages of a chain begin and what an epoch of them does.

  Attributes:
    batch_size: of all devices together.
    steps_per_epoch: the same in all stages.
  """

  batch_size: int
  steps_per_epoch: int

  def create(
      self, stage: config.Stage, trained: Mapping[str, Trained]
  ) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's model and its state before the first step.

    Args:
      stage: to begin.
      trained: stages before it by name, its parent among them.
    """

  def make_epoch(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, Trained],
  ) -> loop.Epoch:
    """Makes the epoch of a stage; epochs count from the first teacher on."""


@dataclasses.dataclass(frozen=True)
class Faults:
  """What a run does about what goes wrong.

  Attributes:
    on_checkpoint_error: 'stop', or 'continue' without the checkpoint.
    on_nan: 'stop', or 'rollback': back to the last checkpoint, and on with the
      data in another order.
    max_rollbacks: of a stage, at most.
    on_damage: of a stage of which no checkpoint is whole: 'stop', or 'retrain'
      from its start.
  """

  on_checkpoint_error: Literal['stop', 'continue'] = 'stop'
  on_nan: Literal['stop', 'rollback'] = 'stop'
  max_rollbacks: int = 3
  on_damage: Literal['stop', 'retrain'] = 'stop'


def run(
    stages: Sequence[config.Stage],
    recipe: Recipe,
    *,
    workdir: workdir.WorkDir | None,
    evaluate: EvaluateFn | None,
    report: ReportFn = lambda stage, record: None,
    given: Sequence[Trained] = (),
    validate: ValidateFn | None = None,
    checkpoint_every: int = 10,
    eval_every: int = 5,
    faults: Faults = Faults(),
    note: checkpoints.NoteFn = lambda line: None,
) -> list[Trained]:
  """Trains what is missing of a chain of stages, in order.

  Args:
    stages: parents before their children.
    recipe: of all stages.
    workdir: where checkpoints and metrics are; continued if it has some. Of
      the first process, as all functions that follow; others may give None.
    evaluate: called every `eval_every` epochs.
    report: called after each epoch.
    given: models of another run, which stages may grow from.
    validate: called every epoch of a stage that has `patience`.
    checkpoint_every: epochs between checkpoints; the last is always saved.
    eval_every: epochs between evaluations; the last is always evaluated.
    faults: what to do about what goes wrong.
    note: called with lines on what went wrong and what is done about it.

  Returns:
    The trained models, in the order of `stages`.

  Raises:
    InputError: if what is there cannot be gone on from.
    RunError: if a number is not finite, or a checkpoint cannot be written, and
      `faults` says to stop.
    Preempted: if the run was told to end; its position is saved.
  """
  trained = {model.stage.name: model for model in given}
  for stage in stages:
    preemption.check()
    one = _StageRun(
        stage,
        recipe,
        trained,
        workdir=workdir,
        evaluate=evaluate,
        report=report,
        validate=validate,
        checkpoint_every=checkpoint_every,
        eval_every=eval_every,
        faults=faults,
        note=note,
    )
    # Nothing is raised by a signal but where the position is saved then.
    with preemption.deferred():
      trained[stage.name] = one.run()
  return [trained[stage.name] for stage in stages]


def has_plateaued(errors: Sequence[float], patience: int) -> bool:
  """Returns whether the last `patience` errors are all no better than before.

  Args:
    errors: of validation data after each epoch; lower is better.
    patience: epochs without a new lowest error, 1 or more.
  """
  if len(errors) <= patience:
    return False
  return min(errors[-patience:]) >= min(errors[:-patience])


def _is_over(stage, epoch, errors):
  """Returns whether `epoch`, from 1, is the last of a stage."""
  if epoch >= stage.epochs:
    return True
  return bool(stage.patience) and has_plateaued(errors, stage.patience)


@dataclasses.dataclass
class _Position:
  """Where a stage is: after `taken` steps of an epoch, counted from 0."""

  state: steps.TrainState
  epoch: int
  taken: loop.Taken


@dataclasses.dataclass(frozen=True)
class _StageRun:
  """Trains one stage; see `run` for the attributes."""

  stage: config.Stage
  recipe: Recipe
  trained: Mapping[str, Trained]
  workdir: workdir.WorkDir | None
  evaluate: EvaluateFn | None
  report: ReportFn
  validate: ValidateFn | None
  checkpoint_every: int
  eval_every: int
  faults: Faults
  note: checkpoints.NoteFn

  def run(self) -> Trained:
    with contextlib.ExitStack() as stack:
      saved = None
      if devices.is_first():
        directory = self.workdir.checkpoints(self.stage.name)
        saved = stack.enter_context(checkpoints.StageCheckpoints(directory))
      while True:
        # Again, where it goes back: training takes over the state's memory.
        model, fresh = self.recipe.create(self.stage, self.trained)
        try:
          return self._train(saved, model, fresh)
        except _RollBack as back:
          self.note(str(back))

  def _train(self, saved, model, fresh):
    """Trains what is missing, from the last checkpoint on."""
    stage = self.stage
    position, errors = self._begin(saved, fresh)
    epoch_fn = None
    pace = loop.Pace()
    while not _is_over(stage, position.epoch, errors):
      if epoch_fn is None:
        epoch_fn = self.recipe.make_epoch(stage, model, self.trained)
      with compilation.measured() as clock:
        self._take_epoch(saved, model, epoch_fn, position, pace)
      record = self._describe_epoch(position, clock.seconds)
      if stage.patience:
        error = None
        if devices.is_first():
          with self._saving(saved, position):
            error = _measure(model, position.state, self.validate)
        errors.append(devices.share(error))
        record['validation_mse'] = errors[-1]
      last = _is_over(stage, record['epoch'], errors)
      if devices.is_first():
        if last or record['epoch'] % self.eval_every == 0:
          with self._saving(saved, position):
            measured = _measure(model, position.state, self.evaluate)
          record |= {f'eval_{k}': v for k, v in measured.items()}
        # Before the checkpoint: a step that is saved has its line.
        self._append_metrics(record)
        position.epoch, position.taken = record['epoch'], loop.Taken()
        if last or record['epoch'] % self.checkpoint_every == 0:
          self._save(saved, position, is_last=last)
        with self._saving(saved, position):
          self.report(stage, record)
      else:
        position.epoch, position.taken = record['epoch'], loop.Taken()
      # The others wait here, and not within a step on their devices.
      devices.share(None)
    return self._finish(model, position)

  def _begin(self, saved, fresh):
    """Returns the position to go on from, and validation errors so far."""
    stage, state, errors = self.stage, fresh, []
    taken = loop.Taken()
    if devices.is_first():
      found = checkpoints.recover(
          saved,
          self.workdir.read_checkpoints(stage.name),
          self.note,
          retrain=self.faults.on_damage == 'retrain',
      )
      if found.step is not None:
        state = saved.restore(found.step, fresh)
        if found.progress is not None:
          taken = loop.Taken.from_json(found.progress)
      done = int(state.step) - taken.count
      # Of a stage that has not begun nothing is there to be kept.
      self.workdir.drop_metrics_after(
          stage.name, done if found.step is not None else -1
      )
      # What a resumed stage had measured decides its end like the rest.
      errors = [
          record['validation_mse']
          for record in self.workdir.read_metrics()
          if stage.patience and record['stage'] == stage.name
      ]
    state = devices.share_tree(state)
    errors = devices.share(errors)
    taken = loop.Taken.from_json(devices.share(taken.to_json()))
    done = int(state.step) - taken.count
    epoch = (done - self._first_step) // self.recipe.steps_per_epoch
    return _Position(state, epoch, taken), errors

  def _take_epoch(self, saved, model, epoch_fn, position, pace):
    """Takes the steps of an epoch that are left, or stops and says so."""

    def choose(most):
      # The first process decides for all.
      stopping = preemption.requested() is not None
      return devices.share(0 if stopping else pace.choose(most))

    epoch = self._order(position)
    try:
      position.state = loop.run(
          epoch_fn,
          position.state,
          epoch,
          position.taken,
          choose=choose,
          check=numerics.check_metrics,
          tell=pace.tell,
      )
      # A gradient of the last step shows in no metric.
      if not np.asarray(numerics.is_finite(position.state)):
        raise numerics.NonFiniteError(position.taken.count)
    except numerics.NonFiniteError as error:
      self._give_up(saved, model, epoch_fn, position.epoch, error)
    if position.taken.count < epoch_fn.steps:
      self._save_and_leave(saved, position)

  def _order(self, position):
    """Returns the number of an epoch, by which its data are ordered."""
    first_epoch = self._first_step // self.recipe.steps_per_epoch
    entries = self.workdir and self.workdir.read_rollbacks(self.stage.name)
    step = self._step(position)
    # Of those that went back to what is before this.
    count = sum(entry['to_step'] <= step for entry in entries or ())
    return first_epoch + position.epoch + devices.share(count) * _ORDER_EPOCHS

  def _describe_epoch(self, position, compile_seconds):
    """Returns the record of an epoch whose steps are all taken."""
    steps, taken = self.recipe.steps_per_epoch, position.taken
    means = {k: v.tolist() for k, v in taken.summarize().items()}
    done = position.epoch + 1
    return {
        'stage': self.stage.name,
        'epoch': done,
        'step': self._first_step + done * steps,
        'input_bound': taken.input_bound,
        **means,
        'images_per_second': steps * self.recipe.batch_size / taken.seconds,
        'seconds': taken.seconds,
        # Of these, in an epoch that is the first to be run.
        'compile_seconds': compile_seconds,
    }

  def _append_metrics(self, record):
    try:
      self.workdir.append_metrics(record)
    except errors.StorageError as error:
      self._continue_or_raise(error)

  def _save(self, saved, position, *, is_last=False):
    """Saves a position, and writes down that it is saved."""
    step = self._step(position)
    progress = position.taken.to_json() if position.taken.count else None
    try:
      sha256 = saved.save(step, position.state, progress)
      known = self.workdir.read_checkpoints(self.stage.name)
      self.workdir.record_checkpoints(
          self.stage.name,
          {
              str(kept): sha256 if kept == step else known.get(str(kept), '')
              for kept in saved.list_steps()
          },
      )
    except errors.StorageError as error:
      # Without the last one the stage is not there.
      if is_last:
        raise
      self._continue_or_raise(error)

  def _continue_or_raise(self, error):
    if self.faults.on_checkpoint_error == 'stop':
      raise error
    self.note(f'{error} It goes on without: --on_checkpoint_error=continue.')

  @contextlib.contextmanager
  def _saving(self, saved, position):
    """Saves the position if the block, which measures it, is told to end."""
    try:
      with preemption.allowed():
        yield
    except preemption.Preempted:
      self._save_and_leave(saved, position)

  def _save_and_leave(self, saved, position) -> NoReturn:
    if not devices.is_first():
      devices.share(None)  # The first process ends this one.
    step = self._step(position)
    before = saved.latest_step()
    self._save(saved, position)
    if saved.latest_step() != step:
      raise preemption.Preempted(
          f'{self.stage.name}, step {step} could not be saved; the run goes on'
          f' from step {before or 0}'
      )
    raise preemption.Preempted(
        f'{self.stage.name}, epoch {position.epoch + 1}, step {step} is saved'
        f' in {saved.directory / str(step)}'
    )

  def _give_up(self, saved, model, epoch_fn, epoch, error) -> NoReturn:
    """Stops, or goes back, for numbers that are not finite."""
    entries = self.workdir and self.workdir.read_rollbacks(self.stage.name)
    found = None
    # One term alone is what broke. More may come one of another, or of data.
    if (
        len(error.broken) != 1
        and epoch_fn.examine is not None
        and not devices.has_others()
    ):
      found = self._examine(saved, epoch_fn, epoch, error.step)
    step = self._first_step + epoch * epoch_fn.steps + error.step
    line = (
        f'{self.stage.name}, epoch {epoch + 1}, step {step}:'
        f' {numerics.describe(error, found)}'
    )
    latest = saved.latest_step() if devices.is_first() else None
    where = f'step {latest}' if latest is not None else 'the stage\'s start'
    if self.faults.on_nan == 'stop':
      raise errors.RunError(
          f'{line}; {where} stands. --on_nan=rollback goes back to it and on'
          ' with the data in another order.'
      )
    count = devices.share(len(entries or ()))
    if count >= self.faults.max_rollbacks:
      raise errors.RunError(
          f'{line}; {where} stands. The stage went back {count} times, as often'
          ' as --max_rollbacks says.'
      )
    if devices.is_first():
      self.workdir.record_rollback({
          'stage': self.stage.name,
          'to_step': latest if latest is not None else self._first_step,
          'because': line,
      })
    raise _RollBack(
        f'{line}; back to {where}, and on with the data in another order'
        f' ({count + 1} of {self.faults.max_rollbacks})'
    )

  def _examine(self, saved, epoch_fn, epoch, step):
    """Takes the steps up to a bad one again, and looks at that."""
    self.note(
        f'{self.stage.name}: not finite at step {step} of epoch {epoch + 1};'
        ' its steps are taken again from the last checkpoint, to see what broke'
    )
    _, fresh = self.recipe.create(self.stage, self.trained)
    position, _ = self._begin(saved, fresh)
    # What breaks a gradient shows in the step after it.
    for target in (max(0, step - 1), min(step, epoch_fn.steps - 1)):
      while position.epoch < epoch or position.taken.count < target:
        position.state = loop.run(
            epoch_fn,
            position.state,
            self._order(position),
            position.taken,
            last=target if position.epoch == epoch else None,
        )
        if position.taken.count == epoch_fn.steps:
          position.epoch, position.taken = position.epoch + 1, loop.Taken()
      found = epoch_fn.examine(position.state, self._order(position), target)
      if not all(found.values()):
        return found
    return None

  def _finish(self, model, position):
    """Returns the trained model, and writes down that it is finished."""
    state = jax.device_get(position.state)
    stage, parent = self.stage, self.trained.get(self.stage.parent)
    sha256 = checkpoints.hash_tree(state.params)
    if devices.is_first():
      recorded = self.workdir.manifest['stages'].get(stage.name)
      if recorded and recorded['sha256'] != sha256:
        raise errors.InputError(
            f'{self.workdir.checkpoints(stage.name)} ends in parameters of'
            f' sha256 {sha256[:12]}, the manifest has the stage as finished'
            f' with {recorded["sha256"][:12]}; accepted: the checkpoint of the'
            ' manifest.'
        )
      self.workdir.record_stage(
          stage.name,
          {
              'parent': stage.parent,
              'parent_sha256': parent.sha256 if parent else None,
              'supervisor': (
                  stage.supervisor if stage.weights.needs_teacher else None
              ),
              'sha256': sha256,
              'nuisance_dim': stage.nuisance_dim,
              'epochs': position.epoch,
          },
      )
    # Fewer epochs than asked for, where it stopped on a plateau.
    return Trained(
        dataclasses.replace(stage, epochs=position.epoch), model, state, sha256
    )

  @property
  def _first_step(self):
    parent = self.trained.get(self.stage.parent)
    return int(parent.state.step) if parent else 0

  def _step(self, position):
    done = position.epoch * self.recipe.steps_per_epoch + position.taken.count
    return self._first_step + done


class _RollBack(Exception):
  """A stage goes back to its last checkpoint; the message says why."""


def _measure(model, state, function):
  """Calls a function of a model and its variables, on this process alone."""
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  return function(model, devices.to_host(variables))
