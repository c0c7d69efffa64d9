"""The frame of a training run: where it reads and writes, and how it ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import shlex
from typing import Any

from flax import linen as nn
import jax

from experiments import cli
from experiments import progress
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_judges
from jacsup_jax.evaluation import judges
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
  run: cli.RunConfig, values: Mapping[str, Any]
) -> Iterator[workdirs.WorkDir | None]:
  """Yields the locked work directory of a run that may begin or resume.

  Yields None on all processes but the first.
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
    say_results(workdir)
  return True


def say_results(workdir: workdirs.WorkDir) -> None:
  """Prints the table of a complete run, its figures, and a command to type."""
  results = workdir.read_results()
  progress.say(tables.format_results(results))
  if workdir.figures.exists():
    progress.say(f'figures: {workdir.figures}')
  # The editor has no choice of the units of baselines.
  kinds = [row['model'] for row in results['rows']]
  own = any(kind.startswith(('teacher', 'student')) for kind in kinds)
  progress.say(
    f'next: python -m experiments.{"edit" if own else "evaluate"}'
    f' --workdir={shlex.quote(str(workdir.path))}'
  )


@contextlib.contextmanager
def observed(
  run: cli.RunConfig,
  workdir: workdirs.WorkDir,
  stages: Sequence[config_lib.Stage],
  evaluate: _Evaluate,
  data: registry.Dataset,
  strength: float | None = None,
) -> Iterator[tuple[_Report, _Evaluate]]:
  """Yields `report` and `evaluate` of `runs.stages.run` that show progress.

  They write event files, too, if these were asked for, see `event_files`.
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

  A teacher for each parent that is missing of the stages: that of the same
  seed, or the only one. It must have the module, if one is given; with a
  recipe it has the state of its optimizer.

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


def restore_or_train_classes(
  directory: pathlib.Path | None,
  dataset: str,
  data_dir: pathlib.Path | None,
  image_shape: tuple[int, int, int] | None = None,
  **settings: Any,
) -> tuple[class_judges.ClassJudges, ...]:
  """Restores the judges of a data set, see `class_judges.restore_or_train`."""
  directory = directory or class_judges.default_directory(dataset, data_dir)
  found = class_judges.restore_or_train(
      directory, dataset, data_dir, image_shape=image_shape,
      report=progress.report_judge, announce=progress.announce, **settings,
  )  # fmt: skip
  progress.report_judges({judge.family: judge.accuracy for judge in found})
  return found


def restore_or_train_faces(
  directory: pathlib.Path | None,
  train: registry.Dataset,
  selection: registry.Dataset,
  sizes: judges.JudgeConfig,
  **settings: Any,
) -> tuple[Any, ...]:
  """Restores a judge of faces of each kind, or trains and saves them.

  Their epochs are chosen on the selection. Those that are there must have these
  sizes and the other settings of `attribute_judges.train`, if any of these are
  given.
  """
  # Imported here: experiments of classes do not need it.
  from jacsup_jax.evaluation import attribute_judges

  restore = functools.partial(
    _restore_or_train_face, directory, train, selection, sizes, settings
  )
  found = tuple(restore(kind) for kind in attribute_judges.KINDS)
  progress.report_judges({judge.kind: judge.accuracy for judge in found})
  return found


def restore_or_train_checker(*args: Any) -> Any:
  """Restores the classifier of the edit check, or trains and saves it.

  The arguments are those of `restore_or_train_faces`; it is kept beside the
  judges.
  """
  from jacsup_jax.evaluation import attribute_judges

  return _restore_or_train_face(*args, {}, attribute_judges.ROBUST)


def restore_or_distill(workdir: workdirs.WorkDir | None, *args: Any) -> Any:
  """Restores a network of --checkers from a run, or trains and saves it."""
  # Imported here: few runs have any.
  from jacsup_jax.runs import distilled

  return distilled.restore_or_distill(workdir, *args, progress.report_checker)


def describe_checkers(workdir: workdirs.WorkDir) -> dict[str, Any]:
  """Returns the entry of results.json on the networks of a run, if any."""
  if not workdir.checkers.exists():
    return {}
  from jacsup_jax.runs import distilled

  return {'checkers': distilled.describe(workdir)}


def _restore_or_train_face(directory, train, selection, sizes, settings, kind):
  from jacsup_jax.evaluation import attribute_judges

  usual = {'batch_size': min(judges.BATCH_SIZE, len(train))}
  for name, value in dataclasses.asdict(sizes).items():
    usual[name.removeprefix('judge_')] = value
  own = attribute_judges.default_directory(
    train.name, train.image_shape[0], kind
  )
  own = own if directory is None else directory / kind
  role = 'classifier' if kind == attribute_judges.ROBUST else 'judge'
  progress.announce(f'{kind} {role} in {own}, trained if missing')
  wanted = usual | settings if settings or not judges.exist(own) else {}
  return attribute_judges.restore_or_train(
      own, train, selection, kind=kind, report=progress.report_judge, **wanted,
  )  # fmt: skip


def compare_judges(
  results: Mapping[str, Any] | None, found: Mapping[str, Any]
) -> None:
  """Notes that results.json was measured by judges of other weights."""
  recorded = judges.list_hashes(results or {})
  # Runs of earlier versions were measured by one family.
  if not {*recorded} <= {*judges.list_hashes(found)}:
    progress.note(
      'the judges of results.json had other weights: do not compare the rates'
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
  """Returns the split, never the measured one, on which alpha is chosen."""
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


def choose_own(models: Sequence[steps.Trained]) -> steps.Trained:
  """Returns the first model of faces that predicts factors, else the first."""
  own = [model for model in models if not model.model.factors_are_labels]
  return (own or models)[0]


def add_random(
  models: Sequence[steps.Trained],
  choose: Callable[[Sequence[steps.Trained]], steps.Trained],
  module: nn.Module | None = None,
) -> list[steps.Trained]:
  """Adds an untrained model to the models of each seed, as a baseline.

  It is like the model that `choose` returns, with the module if one is given.
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
  """Draws the first seed of a run, writes its results and prints its table."""
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
  say_results(workdir)
