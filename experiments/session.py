"""The frame of a training run: where it reads and writes, and how it ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import pathlib
from typing import Any

from flax import linen as nn
import jax

from experiments import cli
from experiments import flags
from experiments import progress
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import tables
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as model_lib
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices
from jacsup_jax.training import steps

_Report = Callable[..., None]
_Evaluate = Callable[[model_lib.Model], dict[str, Any]]


@contextlib.contextmanager
def opened(
  run: flags.RunConfig, values: Mapping[str, Any]
) -> Iterator[workdirs.WorkDir | None]:
  """Locks the work directory of a run and checks that it may begin or resume.

  Yields it, or None on all processes but the first; `values` are all that
  decide the result, by flag name.
  """
  if not devices.is_first():
    yield None
    return
  workdir = workdirs.WorkDir(run.workdir)
  workdir.check(values, run.resume)
  if workdir.is_complete:  # It may be on a disk that is read-only.
    yield workdir
    return
  with workdir.locked():
    # Another run may have begun or ended before the lock was ours.
    workdir.check(values, run.resume)
    yield workdir


def is_complete(workdir: workdirs.WorkDir | None) -> bool:
  """Returns whether a run is complete; if so, prints its results."""
  if not devices.share(workdir is not None and workdir.is_complete):
    return False
  if workdir is not None:
    progress.say(f'The run in {workdir.path} is complete.')
    progress.say(tables.format_results(workdir.read_results()))
  return True


@contextlib.contextmanager
def observed(
  run: flags.RunConfig,
  workdir: workdirs.WorkDir,
  stages: Sequence[config_lib.Stage],
  evaluate: _Evaluate,
  data: registry.Dataset,
  strength: float | None = None,
) -> Iterator[tuple[_Report, _Evaluate]]:
  """Shows progress, and writes event files if they were asked for.

  Their pictures are of swaps, or of faces' flips of a strength.

  Yields:
    `report` and `evaluate` of `runs.stages.run`.
  """
  with progress.Progress(stages, run.progress) as shown:
    if not run.tensorboard:
      yield shown.report, evaluate
      return
    # Imported here: few runs write event files.
    from experiments import event_files

    with event_files.added(
      workdir, shown.report, evaluate, data, strength
    ) as both:
      yield both


def restore_teachers(
  directory: str,
  stages: Sequence[config_lib.Stage],
  module: nn.Module | None = None,
  recipe: steps.Recipe | None = None,
) -> list[steps.Trained]:
  """Restores the first teachers of another run for the students of this one.

  Args:
    directory: --teacher_workdir.
    stages: of this run, students whose first parents are missing.
    module: that a first teacher must have; None for any.
    recipe: of this run, if students inherit the state of the optimizer.

  Returns:
    A teacher for each missing name: that of the same seed, or the only one.

  Raises:
    InputError: if there is none, or one of another shape or of other seeds.
  """
  # Imported here: few runs are given a teacher.
  from jacsup_jax.runs import run as run_lib

  flag = f'--teacher_workdir={directory}'
  run = run_lib.Run.open(directory, '--teacher_workdir')
  theirs = {
    run.stage(name).seed: name
    for name in run.stages
    if run.stage(name).model == 'teacher'
  }
  own = {stage.name for stage in stages}
  wanted = {
    name: stage.seed
    for stage in stages
    for name in (stage.parent, stage.teacher)
    if name is not None and name not in own
  }
  found = []
  for name, seed in wanted.items():
    source = theirs.get(seed) if len(theirs) != 1 else [*theirs.values()][0]
    if source is None:
      raise errors.InputError(
        f'{flag} has finished teachers of the seeds {sorted(theirs)}, and'
        f' seed {seed} is needed; accepted: a run with that teacher, or with'
        ' a single one.'
      )
    if module is not None:
      _check_module(flag, run.module(source), module)
    alone = dataclasses.replace(run.stage(source), parent=None, teacher=None)
    template = recipe and jax.eval_shape(
      lambda alone=alone: recipe.create(alone, {})[1]
    )
    teacher = run.trained(source, template)
    stage = dataclasses.replace(
      teacher.stage, name=name, parent=None, seed=seed
    )
    found.append(dataclasses.replace(teacher, stage=stage))
  return found


def _check_module(flag, found, wanted):
  """Raises InputError, naming fields, unless two modules are equal."""
  found, wanted = map(model_lib.describe_module, (found, wanted))
  differing = [
    f'{name} {found.get(name)} there, {wanted.get(name)} here'
    for name in sorted({*found, *wanted})
    if found.get(name) != wanted.get(name)
  ]
  if differing:
    raise errors.InputError(
      f'{flag} has a teacher of another model: {"; ".join(differing)};'
      ' accepted: the same model.'
    )


def begin(
  workdir: workdirs.WorkDir,
  experiment: str,
  values: Mapping[str, Any],
  stages: Sequence[config_lib.Stage],
  train: registry.Dataset,
  data_dir: pathlib.Path | None,
  **load_options: Any,
) -> None:
  """Writes the manifest of a run, with the options of `registry.load`."""
  names = train.attribute_names
  dataset = {
    'name': train.name,
    'fingerprint': train.fingerprint,
    'split': train.split,
    **({} if names is None else {'attributes': list(names)}),
    'options': load_options,
    'data_dir': data_dir and str(data_dir.absolute()),
  }
  workdir.begin(experiment, values, dataset, [stage.name for stage in stages])


def choose_selection_split(eval_split: str, held_out: int) -> str:
  """Returns the split on which alpha and the judge's epoch are chosen.

  Never the one that is measured: validation if that is test, else a part of
  train that is held out.
  """
  if eval_split == 'test':
    return 'validation'
  if held_out < 1:
    raise errors.InputError(
      '--eval_split=validation needs images on which alpha is chosen, and'
      f' --held_out={held_out}; accepted: 1 or more of the training images.'
    )
  return 'held_out'


def by_seed(models: Sequence[steps.Trained]) -> list[steps.Trained]:
  """Returns models of one seed after the other, in their order otherwise."""
  return sorted(models, key=lambda model: model.stage.seed)


def add_random(
  models: Sequence[steps.Trained],
  choose: Callable[[Sequence[steps.Trained]], steps.Trained],
  module: nn.Module | None = None,
) -> list[steps.Trained]:
  """Adds an untrained model to the models of each seed, as a baseline.

  `choose` returns the model of a seed whose size, weights and module it has,
  unless a module is given.
  """
  found = []
  for _, group in itertools.groupby(models, lambda model: model.stage.seed):
    own = [*group]
    like = choose(own)
    stage = dataclasses.replace(
        like.stage, name='random', model='random', parent=None, epochs=0,
        teacher=None,
    )  # fmt: skip
    of_random = module or like.module
    state = steps.TrainState(
      0, opt_state=(), **autoencoders.init_variables(of_random, stage.seed)
    )
    found += [*own, steps.Trained(stage, of_random, state, '')]
  return found


def describe(trained: steps.Trained) -> dict[str, Any]:
  """Returns the entries of a row of results.json that are not measured."""
  stage = trained.stage
  weights = cli.as_dict(stage.weights)
  usual = cli.as_dict(type(stage.weights)())
  return {
    'model': stage.model,
    'stage': stage.name,
    'nuisance_dim': stage.nuisance_dim,
    'seed': stage.seed,
    'epochs': stage.epochs,
    **{
      name: value
      for name, value in weights.items()
      if name.startswith('lambda_') or value != usual[name]
    },
    'sha256': trained.sha256,
  }


def finish(
  workdir: workdirs.WorkDir,
  experiment: str,
  protocol: str,
  rows: Sequence[Mapping[str, Any]],
  trained: Sequence[steps.Trained],
  data: registry.Dataset,
  **entries: Any,
) -> None:
  """Draws the figures of a run, writes its results and prints its table.

  Models of the first seed are drawn; the entries, such as `judges`, are more of
  results.json.
  """
  # Imported here: --help needs no matplotlib.
  from experiments import drawing

  progress.announce(f'drawing figures to {workdir.figures}')
  seed = trained[0].stage.seed
  own = drawing.Loaded(
    workdir.path,
    [model for model in trained if model.stage.seed == seed],
    data,
    [row for row in rows if row.get('seed', seed) == seed],
    workdir.read_metrics(),
  )
  drawing.save(drawing.list_drawings(own), workdir.figures)
  workdir.write_results(experiment, protocol, rows, **entries)
  progress.say(tables.format_results(workdir.read_results()))
  progress.say(f'figures: {workdir.figures}')
  progress.say(
    f'next: python -m experiments.evaluate --workdir={workdir.path}, or'
    f' python -m experiments.edit --serve --workdir={workdir.path}'
  )
