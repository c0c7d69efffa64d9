"""Runs a chain of stages: teacher -> student -> student ..., each resumable.

What a stage trains, and how a student grows from its parent, is a recipe:
`discovery` has that of Section 3 of Lezama (2019), `editing` that of Section 4.

Where a run has several processes all of them train; the first one alone reads
and writes the work directory and measures, and what it finds decides for all.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
import time
from typing import Any, Protocol

from flax import linen as nn
import jax
import numpy as np

from jacsup_jax import checkpoints
from jacsup_jax import compilation
from jacsup_jax import parallel
from jacsup_jax import training
from jacsup_jax import types
from jacsup_jax import workdirs

# (state, epoch) -> (state, metrics), counted from the first teacher on.
EpochFn = Callable[
    [training.TrainState, int], tuple[training.TrainState, types.Metrics]
]
# (model, variables) -> metrics of held-out data.
EvaluateFn = Callable[[nn.Module, types.Variables], dict[str, Any]]
# (model, variables) -> error of validation data.
ValidateFn = Callable[[nn.Module, types.Variables], float]
# Called with every record of metrics.jsonl, and the stage.
ReportFn = Callable[[types.Stage, dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model at the end of its stage.

  Attributes:
    stage: that trained it.
    model: as it is evaluated, with the first teacher's factors.
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


class Recipe(Protocol):
  """How the stages of a chain begin and what an epoch of them does.

  Attributes:
    batch_size: of all devices together.
    steps_per_epoch: the same in all stages.
  """

  batch_size: int
  steps_per_epoch: int

  def create(
      self, stage: types.Stage, trained: Mapping[str, Trained]
  ) -> tuple[nn.Module, training.TrainState]:
    """Returns a stage's model and its state before the first step.

    Args:
      stage: to begin.
      trained: stages before it by name, its parent among them.
    """

  def make_epoch(
      self,
      stage: types.Stage,
      model: nn.Module,
      trained: Mapping[str, Trained],
  ) -> EpochFn:
    """Makes the epoch of a stage; it may take its state's memory."""


def run(
    stages: Sequence[types.Stage],
    recipe: Recipe,
    *,
    workdir: workdirs.WorkDir | None,
    evaluate: EvaluateFn | None,
    report: ReportFn = lambda stage, record: None,
    given: Sequence[Trained] = (),
    validate: ValidateFn | None = None,
    checkpoint_every: int = 10,
    eval_every: int = 5,
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

  Returns:
    The trained models, in the order of `stages`.
  """
  trained = {model.stage.name: model for model in given}
  for stage in stages:
    parent = trained.get(stage.parent)
    first_step = int(parent.state.step) if parent else 0
    model, state = recipe.create(stage, trained)
    with contextlib.ExitStack() as stack:
      saved, errors = None, []
      if parallel.is_first():
        directory = workdir.checkpoints(stage.name)
        saved = stack.enter_context(checkpoints.StageCheckpoints(directory))
        step = saved.latest_step()
        if step is not None:
          state = saved.restore(step, state)
        workdir.drop_metrics_after(stage.name, step or 0)
        # What a resumed stage had measured decides its end like the rest.
        errors = [
            record['validation_mse']
            for record in workdir.read_metrics()
            if stage.patience and record['stage'] == stage.name
        ]
      state, errors = parallel.share_tree(state), parallel.share(errors)
      for state, record in _train(
          stage, recipe, model, state, trained, errors, first_step
      ):
        measure = functools.partial(_measure, model, state)
        if stage.patience:
          error = measure(validate) if parallel.is_first() else None
          errors.append(parallel.share(error))
          record['validation_mse'] = errors[-1]
        last = _is_over(stage, record['epoch'], errors)
        if parallel.is_first():
          if last or record['epoch'] % eval_every == 0:
            measured = measure(evaluate)
            record |= {f'eval_{k}': v for k, v in measured.items()}
          # Before the checkpoint: a step that is saved has its line.
          workdir.append_metrics(record)
          if last or record['epoch'] % checkpoint_every == 0:
            saved.save(record['step'], state)
          report(stage, record)
        # The others wait here, and not within a step on their devices.
        parallel.share(None)
    state = jax.device_get(state)
    # Fewer epochs than asked for, where it stopped on a plateau.
    epochs = (int(state.step) - first_step) // recipe.steps_per_epoch
    result = Trained(
        dataclasses.replace(stage, epochs=epochs),
        model,
        state,
        checkpoints.hash_tree(state.params),
    )
    if parallel.is_first():
      workdir.record_stage(
          stage.name,
          {
              'parent': stage.parent,
              'parent_sha256': parent.sha256 if parent else None,
              'supervisor': (
                  stage.supervisor if stage.weights.needs_teacher else None
              ),
              'sha256': result.sha256,
              'nuisance_dim': stage.nuisance_dim,
              'epochs': epochs,
          },
      )
    trained[stage.name] = result
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


def _measure(model, state, function):
  """Calls a function of a model and its variables, on this process alone."""
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  return function(model, parallel.to_host(variables))


def _train(stage, recipe, model, state, trained, errors, first_step):
  """Yields (state, record) after each epoch of a stage that is missing.

  `errors` grows by that of the epoch before the next is asked for.
  """
  steps_per_epoch = recipe.steps_per_epoch
  # Not a whole number where a given parent was trained with other batches.
  first_epoch = first_step // steps_per_epoch
  epoch = int(state.step) // steps_per_epoch
  if _is_over(stage, epoch - first_epoch, errors):
    return
  epoch_fn = recipe.make_epoch(stage, model, trained)
  while not _is_over(stage, epoch - first_epoch, errors):
    start = time.perf_counter()
    with compilation.measured() as clock:
      state, metrics = epoch_fn(state, epoch)
    # The one transfer to the host in an epoch, and the wait for its end.
    metrics = {
        k: np.asarray(v).tolist() for k, v in jax.device_get(metrics).items()
    }
    seconds = time.perf_counter() - start
    epoch += 1
    done = epoch - first_epoch
    yield state, {
        'stage': stage.name,
        'epoch': done,
        'step': first_step + done * steps_per_epoch,
        # The data are on the devices, unless they say otherwise.
        'input_bound': 0.0,
        **metrics,
        'images_per_second': steps_per_epoch * recipe.batch_size / seconds,
        'seconds': seconds,
        # Of these, in an epoch that is the first to be run.
        'compile_seconds': clock.seconds,
    }
