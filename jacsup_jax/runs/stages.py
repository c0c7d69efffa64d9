"""Train a chain of stages: teacher -> student -> student ..., each resumable.

A recipe says what a stage trains and how a student grows from its parent:
`training.discovery` has that of Section 3 of Lezama (2019),
`training.attributes` that of Section 4.

With several processes all of them train; the first one alone reads and writes
the work directory and evaluates, and what it finds decides for all.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
from typing import Any, NoReturn

import jax

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.models import model as models
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import signals
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import steps

# model -> metrics of held-out data.
EvaluateFn = Callable[[models.Model], dict[str, Any]]
# model -> error of validation data.
ValidateFn = Callable[[models.Model], float]
# Called with the stage and every record of metrics.jsonl.
ReportFn = Callable[[config.Stage, dict[str, Any]], None]

_NO_CONTEXT = contextlib.nullcontext()


def run(
  stages: Sequence[config.Stage],
  recipe: steps.Recipe,
  *,
  workdir: workdirs.WorkDir | None,
  evaluate: EvaluateFn | None,
  report: ReportFn = lambda stage, record: None,
  given: Sequence[steps.Trained] = (),
  validate: ValidateFn | None = None,
  checkpoint_every: int = 10,
  eval_every: int = 5,
  note: checkpoints.NoteFn = lambda line: None,
) -> list[steps.Trained]:
  """Trains what is missing of a chain of stages, in order.

  SIGTERM and SIGINT save the position after the chunk of steps that runs. While
  nothing is unsaved, before the first chunk of a stage is compiled, they have
  their usual effect.

  Args:
    stages: parents before their children.
    recipe: of all stages.
    workdir: of the run, begun; used by the first process alone, as all
      functions that follow. Others may give None.
    evaluate: called every `eval_every` epochs.
    report: called after each epoch.
    given: models of other runs, which stages may grow from.
    validate: called every epoch of a stage with `patience`.
    checkpoint_every: epochs between checkpoints; the last is always saved.
    eval_every: epochs between evaluations; the last is always evaluated.
    note: called with a line on a problem and what is done about it.

  Returns:
    The trained models, in the order of `stages`.

  Raises:
    InputError: if a stage that has begun cannot be resumed.
    RunError: if a number is not finite, or a file cannot be written.
    signals.Interrupted: if a signal ended the run; its position is saved.
  """
  trained = {model.stage.name: model for model in given}
  for stage in stages:
    with contextlib.ExitStack() as stack:
      trained[stage.name] = _StageRun(
        stage,
        recipe,
        trained,
        workdir=workdir,
        evaluate=evaluate,
        report=report,
        validate=validate,
        checkpoint_every=checkpoint_every,
        eval_every=eval_every,
        note=note,
        stack=stack,
      ).run()
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


@dataclasses.dataclass
class _Position:
  """A position within a stage: after some steps of an epoch, from 0."""

  state: steps.TrainState
  epoch: int
  taken: loop.Taken


@dataclasses.dataclass
class _StageRun:
  """Trains one stage; see `run` for the attributes."""

  stage: config.Stage
  recipe: steps.Recipe
  trained: Mapping[str, steps.Trained]
  workdir: workdirs.WorkDir | None
  evaluate: EvaluateFn | None
  report: ReportFn
  validate: ValidateFn | None
  checkpoint_every: int
  eval_every: int
  note: checkpoints.NoteFn
  stack: contextlib.ExitStack
  # Whether a chunk has begun; before that nothing is unsaved.
  has_begun: bool = False
  records_signals: bool = False

  def run(self) -> steps.Trained:
    """Trains what is missing of the stage, from its newest checkpoint on."""
    saved = None
    if devices.is_first():
      saved = self.stack.enter_context(
        checkpoints.StageCheckpoints(self.workdir.checkpoints(self.stage.name))
      )
    module, fresh = self.recipe.create(self.stage, self.trained)
    position, validation, finished = self._begin(saved, fresh)
    epoch_fn = None
    while not finished and not self._is_over(position.epoch, validation):
      if epoch_fn is None:
        epoch_fn = self.recipe.make_epoch(self.stage, module, self.trained)
      self._take_epoch(saved, epoch_fn, position)
      self._end_epoch(saved, module, position, validation)
      # The others wait here, and not inside a step on their devices.
      devices.share(None)
    result = self._finish(module, position)
    if devices.share(signals.received() is not None):
      raise signals.Interrupted(f'{self.stage.name} is finished and saved')
    return result

  def _begin(self, saved, fresh):
    """Returns the position, validation errors so far, whether it is over."""
    name, state = self.stage.name, fresh
    taken, validation, epochs = loop.Taken(), [], None
    if devices.is_first():
      found = saved.recover(
        self.workdir.read_checkpoints(name), fresh, self.note
      )
      if found is not None:
        state = found.state
        if found.progress is not None:
          taken = loop.Taken.from_json(found.progress)
      entry = self.workdir.manifest['stages'].get(name)
      if entry and found is not None and found.sha256 == entry['sha256']:
        epochs, taken = entry['epochs'], loop.Taken()
      else:
        # Without a checkpoint the stage begins anew.
        done = int(state.step) - taken.count if found is not None else -1
        self.workdir.drop_metrics_after(name, done)
      # Errors measured before an interruption count like later ones.
      validation = [
        record['validation_mse']
        for record in self.workdir.read_metrics()
        if self.stage.patience and record['stage'] == name
      ]
    state = devices.share_tree(state)
    validation, epochs, taken = devices.share(
      [validation, epochs, taken.to_json()]
    )
    taken = loop.Taken.from_json(taken)
    done = int(state.step) - taken.count - self._first_step
    epoch = done // self.recipe.steps_per_epoch if epochs is None else epochs
    return _Position(state, epoch, taken), validation, epochs is not None

  def _is_over(self, epoch, validation):
    """Returns whether `epoch`, from 1, is the last of the stage."""
    patience = self.stage.patience
    return epoch >= self.stage.epochs or bool(
      patience and has_plateaued(validation, patience)
    )

  def _take_epoch(self, saved, epoch_fn, position):
    """Takes the steps of an epoch that are left, or is interrupted."""
    first_epoch = self._first_step // self.recipe.steps_per_epoch
    try:
      position.state = loop.run(
        epoch_fn,
        position.state,
        # No two stages of a chain see the data in the same order.
        first_epoch + position.epoch,
        position.taken,
        should_stop=self._should_stop,
      )
    except loop.NonFiniteError as error:
      self._give_up(saved, position, error)
    self._record_signals()
    if position.taken.count < epoch_fn.steps:
      self._save_and_leave(saved, position)

  def _should_stop(self):
    """Returns whether a signal has come; called before each chunk."""
    if self.has_begun:
      self._record_signals()
    self.has_begun = True
    return devices.share(signals.received() is not None)

  def _record_signals(self):
    if not self.records_signals:
      self.records_signals = True
      self.stack.enter_context(signals.recorded())

  def _end_epoch(self, saved, module, position, validation):
    """Measures, records and saves an epoch whose steps are all taken."""
    epoch = position.epoch + 1
    record = self._describe_epoch(position)
    if self.stage.patience:
      error = None
      if devices.is_first():
        error = self._measure(saved, module, position, self.validate)
      validation.append(devices.share(error))
      record['validation_mse'] = validation[-1]
    last = self._is_over(epoch, validation)
    evaluates = last or epoch % self.eval_every == 0
    if devices.is_first() and self.evaluate and evaluates:
      measured = self._measure(saved, module, position, self.evaluate)
      record |= {f'eval_{k}': v for k, v in measured.items()}
    position.epoch, position.taken = epoch, loop.Taken()
    if devices.is_first():
      # Before the checkpoint: every step that is saved has its record.
      self.workdir.append_metrics(record)
      self.report(self.stage, record)
      if last or epoch % self.checkpoint_every == 0:
        self._save(saved, position)

  def _describe_epoch(self, position):
    num_steps, taken = self.recipe.steps_per_epoch, position.taken
    means = {k: v.tolist() for k, v in taken.summarize().items()}
    done = position.epoch + 1
    rate = num_steps * self.recipe.batch_size / max(taken.seconds, 1e-9)
    return {
      'stage': self.stage.name,
      'epoch': done,
      'step': self._first_step + done * num_steps,
      'input_bound': taken.input_bound,
      **means,
      'images_per_second': rate,
      'seconds': taken.seconds,
    }

  def _measure(self, saved, module, position, function):
    """Calls a function of the model; a signal saves the position meanwhile."""
    state = devices.to_host(position.state)
    model = models.Model(module, state.params, state.batch_stats)
    try:
      # Other processes would wait: with them, a signal waits for the epoch.
      with _NO_CONTEXT if devices.has_others() else signals.raising():
        return function(model)
    except signals.Interrupted:
      self._save_and_leave(saved, position)

  def _save(self, saved, position):
    """Saves a position and records its sha256."""
    name, step = self.stage.name, self._step(position)
    progress = position.taken.to_json() if position.taken.count else None
    sha256 = saved.save(step, position.state, progress)
    known = self.workdir.read_checkpoints(name) | {str(step): sha256}
    self.workdir.record_checkpoints(
      name,
      {str(s): known[str(s)] for s in saved.list_steps() if str(s) in known},
    )

  def _save_and_leave(self, saved, position) -> NoReturn:
    step = self._step(position)
    where = ''
    if devices.is_first():
      self._save(saved, position)
      where = f' in {saved.directory / str(step)}'
    # No process leaves while the first one still saves.
    devices.share(None)
    raise signals.Interrupted(
      f'{self.stage.name}, epoch {position.epoch + 1}, step {step} is saved'
      f'{where}; the same command resumes from there'
    )

  def _give_up(self, saved, position, error) -> NoReturn:
    """Ends the run for numbers that are not finite; saves nothing."""
    kept = saved.list_steps() if devices.is_first() else []
    before = f'step {kept[-1]}' if kept else 'the start of the stage'
    first = self._first_step + position.epoch * self.recipe.steps_per_epoch
    raise errors.RunError(
      f'{self.stage.name}, epoch {position.epoch + 1}, step'
      f' {first + error.step}: {error}. The checkpoint of {before} is kept;'
      ' a smaller --learning_rate or weight may help.'
    ) from error

  def _finish(self, module, position):
    """Returns the trained model, and records that it is finished."""
    state = jax.device_get(position.state)
    stage, parent = self.stage, self.trained.get(self.stage.parent)
    sha256 = trees.hash_tree(state.params)
    if devices.is_first():
      recorded = self.workdir.manifest['stages'].get(stage.name)
      if recorded and recorded['sha256'] != sha256:
        raise errors.InputError(
          f'{self.workdir.checkpoints(stage.name)} ends in parameters of'
          f' sha256 {sha256[:12]}, the manifest has the stage as finished'
          f' with {recorded["sha256"][:12]}; accepted: the checkpoint of the'
          ' manifest.'
        )
      if not recorded:
        self.workdir.record_stage(
          stage.name,
          describe_stage(stage, module, sha256, position.epoch, parent=parent),
        )
    # Fewer epochs than planned, if it ended on a plateau.
    stage = dataclasses.replace(stage, epochs=position.epoch)
    return steps.Trained(stage, module, state, sha256)

  @property
  def _first_step(self):
    parent = self.trained.get(self.stage.parent)
    return int(parent.state.step) if parent else 0

  def _step(self, position):
    done = position.epoch * self.recipe.steps_per_epoch + position.taken.count
    return self._first_step + done


def save_finished(workdir: workdirs.WorkDir, trained: steps.Trained) -> None:
  """Saves a model that was trained elsewhere as a finished stage of a run."""
  stage, step = trained.stage, int(trained.state.step)
  with checkpoints.StageCheckpoints(workdir.checkpoints(stage.name)) as saved:
    sha256 = saved.save(step, trained.state)
  workdir.record_checkpoints(stage.name, {str(step): sha256})
  workdir.record_stage(
    stage.name, describe_stage(stage, trained.module, sha256, stage.epochs)
  )


def describe_stage(
  stage: config.Stage,
  module: Any,
  sha256: str,
  epochs: int,
  parent: steps.Trained | None = None,
) -> dict[str, Any]:
  """Describes a finished stage for the manifest.

  Args:
    stage: as planned.
    module: of its model.
    sha256: of its parameters.
    epochs: that it was trained for.
    parent: that it grew from.

  Returns:
    JSON values of which `runs.run.Run` makes the model again.
  """
  return {
    'stage': stage.to_json(),
    'module': models.describe_module(module),
    'parent': stage.parent,
    'parent_sha256': parent.sha256 if parent else None,
    'sha256': sha256,
    'epochs': epochs,
    'seed': stage.seed,
  }
