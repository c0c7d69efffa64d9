"""Train a chain of stages: teacher -> student -> student ..., each resumable.

With several processes all of them train; the first one alone reads and writes
the work directory and evaluates, and what it finds decides for all.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
from typing import Any, NoReturn

import jax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import model as models
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import signals
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import steps


def run(
  stages: Sequence[config.Stage],
  recipe: steps.Recipe,
  *,
  workdir: workdirs.WorkDir | None,
  evaluate: Callable[[models.Model], dict[str, Any]] | None,
  report: Callable[[config.Stage, dict[str, Any]], None] = lambda *_: None,
  given: Sequence[steps.Trained] = (),
  validate: Callable[[models.Model], float] | None = None,
  checkpoint_every: int = 10,
  eval_every: int = 5,
  note: Callable[[str], None] = lambda line: None,
) -> list[steps.Trained]:
  """Trains what is missing of a chain of stages, in order.

  A signal to any process saves the position after the chunk of steps that runs;
  while nothing is unsaved it ends a single process at once.

  Args:
    stages: parents before their children.
    recipe: how each is trained.
    workdir: of the run, begun; used by the first process alone, as all
      functions that follow. Others may give None.
    evaluate: model -> metrics of held-out data, also after the last epoch.
    report: called with the stage and each record of metrics.jsonl.
    given: models of other runs, which stages may grow from.
    validate: model -> error, every epoch of a stage with `patience`.
    checkpoint_every: epochs between checkpoints; the last is always saved.
    eval_every: epochs between evaluations.
    note: called with a line on a problem and what is done about it.

  Raises:
    InputError: if a stage that has begun cannot be resumed.
    RunError: if a number is not finite, or a file cannot be written.
    signals.Interrupted: if a signal ended the run; its position is saved.
  """
  trained = {model.stage.name: model for model in given}
  for stage in stages:
    if devices.has_others():  # They would wait for one that ends alone.
      signals.record()
    try:
      trained[stage.name] = _StageRun(
        *(stage, recipe, trained, workdir, evaluate, report, validate),
        *(checkpoint_every, eval_every, note),
      ).run()
    finally:
      signals.release()
  return [trained[stage.name] for stage in stages]


def has_plateaued(errors: Sequence[float], patience: int) -> bool:
  """Returns whether the last `patience` errors are all no lower than before."""
  before = errors[:-patience]
  return bool(before) and min(errors[-patience:]) >= min(before)


@dataclasses.dataclass
class _StageRun:
  """Trains one stage; see `run` for the first attributes."""

  stage: config.Stage
  recipe: steps.Recipe
  trained: Mapping[str, steps.Trained]
  workdir: workdirs.WorkDir | None
  evaluate: Callable[[models.Model], dict[str, Any]] | None
  report: Callable[[config.Stage, dict[str, Any]], None]
  validate: Callable[[models.Model], float] | None
  checkpoint_every: int
  eval_every: int
  note: Callable[[str], None]

  def __post_init__(self):
    self.saved = None  # Checkpoints, open in the first process alone.
    # The position: epochs that are complete, and steps of the next one.
    self.epoch, self.taken = 0, loop.Taken()
    self.validation = []  # Errors of validation data after each epoch.
    self.has_begun = False  # Before the first chunk nothing is unsaved.

  def run(self) -> steps.Trained:
    """Trains what is missing of the stage, from its newest checkpoint on."""
    if not devices.is_first():
      return self._run()
    directory = self.workdir.checkpoints(self.stage.name)
    with checkpoints.StageCheckpoints(directory) as self.saved:
      return self._run()

  def _run(self):
    module, fresh = self.recipe.create(self.stage, self.trained)
    finished = self._begin(fresh)
    epoch_fn = None
    while not finished and not self._is_over(self.epoch):
      epoch_fn = epoch_fn or self.recipe.make_epoch(
        self.stage, module, self.trained
      )
      self._take_epoch(epoch_fn)
      self._end_epoch(module)
      # The others wait here, and not inside a step on their devices.
      devices.share(None)
    result = self._finish(module)
    if self._is_interrupted():
      raise signals.Interrupted(f'{self.stage.name} is finished and saved')
    return result

  def _begin(self, fresh):
    """Restores the position; returns whether the stage is finished."""
    name, finished, self.state = self.stage.name, False, fresh
    if devices.is_first():
      found = self.saved.recover(fresh, self.note)
      entry, done = self.workdir.manifest['stages'].get(name), -1
      if found is not None:
        self.state = found.state
        self.taken = loop.Taken.from_json(found.progress)
        finished = bool(entry) and found.sha256 == entry['sha256']
        done = int(self.state.step) - self.taken.count
      elif entry:
        self.saved.restore_last(entry['sha256'], fresh)  # Raises InputError.
      if not finished:  # Without a checkpoint the stage begins anew.
        self.workdir.drop_metrics_after(name, done)
      # Errors measured before an interruption count like later ones.
      records = self.workdir.read_metrics() if self.stage.patience else []
      own = [record for record in records if record['stage'] == name]
      self.validation = [record['validation_mse'] for record in own]
    self.state = devices.share_tree(self.state)
    found = [self.validation, finished, self.taken.to_json()]
    self.validation, finished, taken = devices.share(found)
    self.taken = loop.Taken.from_json(taken)
    done = int(self.state.step) - self.taken.count - self._first_step
    self.epoch = done // self.recipe.steps_per_epoch
    return finished

  def _is_over(self, epoch):
    """Returns whether `epoch`, from 1, is the last of the stage."""
    patience = self.stage.patience
    has_ended = patience and has_plateaued(self.validation, patience)
    return epoch >= self.stage.epochs or bool(has_ended)

  def _take_epoch(self, epoch_fn):
    """Takes the steps of an epoch that are left, or is interrupted."""
    # No two stages of a chain see the data in the same order.
    epoch = self._first_step // self.recipe.steps_per_epoch + self.epoch
    try:
      self.state = loop.run(
        epoch_fn, self.state, epoch, self.taken, self._should_stop
      )
    except loop.NonFiniteError as error:  # Nothing is saved.
      kept = self.saved.list_steps() if devices.is_first() else []
      before = f'step {kept[-1]}' if kept else 'the start of the stage'
      first = self._first_step + self.epoch * self.recipe.steps_per_epoch
      raise errors.RunError(
        f'{self.stage.name}, epoch {self.epoch + 1}, step {first + error.step}:'
        f' {error}. The checkpoint of {before} is kept; a smaller'
        ' --learning_rate or weight may help.'
      ) from error
    signals.record()
    if self.taken.count < epoch_fn.steps:
      self._save_and_leave()

  def _should_stop(self):
    """Returns whether a signal has come; called before each chunk."""
    if self.has_begun:
      signals.record()
    self.has_begun = True
    return self._is_interrupted()

  def _is_interrupted(self):
    return devices.is_any(signals.received() is not None)

  def _end_epoch(self, module):
    """Measures, records and saves an epoch whose steps are all taken."""
    epoch = self.epoch + 1
    num_steps, taken = self.recipe.steps_per_epoch, self.taken
    record = {
      'stage': self.stage.name,
      'epoch': epoch,
      'step': self._first_step + epoch * num_steps,
      'input_bound': taken.input_bound,
      **{name: mean.tolist() for name, mean in taken.summarize().items()},
      'images_per_second': num_steps * self.recipe.batch_size / taken.seconds,
      'seconds': taken.seconds,
    }
    is_first = devices.is_first()
    if self.stage.patience:
      error = self._measure(module, self.validate) if is_first else None
      self.validation.append(devices.share(error))
      record['validation_mse'] = self.validation[-1]
    last = self._is_over(epoch)
    if is_first and self.evaluate and (last or epoch % self.eval_every == 0):
      measured = self._measure(module, self.evaluate)
      record |= {f'eval_{k}': v for k, v in measured.items()}
    self.epoch, self.taken = epoch, loop.Taken()
    if is_first:
      # Before the checkpoint: every step that is saved has its record.
      self.workdir.append_metrics(record)
      self.report(self.stage, record)
      if last or epoch % self.checkpoint_every == 0:
        self._save()

  def _measure(self, module, function):
    """Calls a function of the model; a signal saves the position meanwhile."""
    state = devices.to_host(self.state)
    model = models.Model(module, state.params, state.batch_stats)
    # Other processes would wait: with them, a signal waits for the epoch.
    alone = not devices.has_others()
    try:
      with signals.raising() if alone else contextlib.nullcontext():
        return function(model)
    except signals.Interrupted:
      self._save_and_leave()

  def _save_and_leave(self) -> NoReturn:
    where = ''
    if devices.is_first():
      self._save()
      where = f' in {self.saved.directory / str(self._step)}'
    # No process leaves while the first one still saves.
    devices.share(None)
    raise signals.Interrupted(
      f'{self.stage.name}, epoch {self.epoch + 1}, step {self._step} is saved'
      f'{where}; the same command resumes from there'
    )

  def _save(self):
    self.saved.save(self._step, self.state, self.taken.to_json())

  def _finish(self, module):
    """Returns the trained model, and records that it is finished."""
    state = jax.device_get(self.state)
    # Fewer epochs than planned, if it ended on a plateau.
    stage = dataclasses.replace(self.stage, epochs=self.epoch)
    sha256 = codes.hash_tree(state.params)
    trained = steps.Trained(stage, module, state, sha256)
    if devices.is_first():
      recorded = self.workdir.manifest['stages'].get(stage.name)
      if not recorded:
        _record(self.workdir, trained, self.trained.get(stage.parent))
      elif recorded['sha256'] != sha256:
        self.saved.restore_last(recorded['sha256'], state)  # Raises InputError.
    return trained

  @property
  def _first_step(self):
    parent = self.trained.get(self.stage.parent)
    return int(parent.state.step) if parent else 0

  @property
  def _step(self):
    done = self.epoch * self.recipe.steps_per_epoch + self.taken.count
    return self._first_step + done


def save_finished(workdir: workdirs.WorkDir, trained: steps.Trained) -> None:
  """Saves a model that was trained elsewhere as a finished stage of a run."""
  directory = workdir.checkpoints(trained.stage.name)
  step, progress = int(trained.state.step), loop.Taken().to_json()
  with checkpoints.StageCheckpoints(directory) as saved:
    sha256 = saved.save(step, trained.state, progress)
  _record(workdir, dataclasses.replace(trained, sha256=sha256))


def _record(workdir, trained, parent=None):
  """Records a finished stage in the manifest, as `runs.run.Run` reads it."""
  stage = trained.stage
  entry = {
    'stage': stage.to_json(),
    'module': models.describe_module(trained.module),
    'parent_sha256': parent.sha256 if parent else None,
    'sha256': trained.sha256,
    'epochs': stage.epochs,
  }
  workdir.record_stage(stage.name, entry)
