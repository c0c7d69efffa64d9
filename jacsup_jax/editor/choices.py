"""The models that the page of experiments.edit lets one choose from."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import os
import pathlib
import re

import numpy as np

from experiments import command_line
from experiments import edit_inputs
from experiments import edited_runs
from experiments import samples
from jacsup_jax.core import errors
from jacsup_jax.editor import editor
from jacsup_jax.editor import editor_files
from jacsup_jax.runs import workdir as workdirs

# Images of a choice that are shown to choose from.
NUM_SAMPLES = 24
# A tree of more is not one of runs alone, and takes long to look through.
_MOST_DIRECTORIES = 20_000
_NOT_OF_RUNS = ('checkpoints', 'figures', 'evaluations', 'tensorboard')


@dataclasses.dataclass(frozen=True)
class Choice:
  """A model that can be chosen, and is loaded when it is.

  Attributes:
    id: of letters, digits, `_`, `-` and `.`; the same whenever the server is
      started, as links have it.
    group: the run or file that it is of, for people.
    title: what it is there, for people.
    load: returns the editor; raises InputError.
    load_samples: given the editor, returns `[N, H, W, C]` uint8 images to start
      from, `NUM_SAMPLES` at most; raises InputError if there are none.
  """

  id: str
  group: str
  title: str
  load: Callable[[], editor.Editor]
  load_samples: Callable[[editor.Editor], np.ndarray]


def find(
    workdir: str | os.PathLike[str] | None = None,
    runs_dir: str | os.PathLike[str] | None = None,
    *,
    stage: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> list[Choice]:
  """Returns what can be chosen, by the flags of experiments.edit.

  Args:
    workdir: of a run, or a file of `editor_files.write`; its models come first.
      Without it and `runs_dir` it is the demo model.
    runs_dir: see `of_runs`.
    stage: see `of_run`, of `workdir`.
    data_dir: see `edited_runs.load`.

  Raises:
    InputError: see `of_run` and `of_runs`; or if there is a stage and no run.
  """
  choices = []
  if workdir is not None and not edit_inputs.is_file(workdir):
    choices += of_run(workdir, stage=stage, data_dir=data_dir)
  else:
    edit_inputs.check_no_stage(stage)
    if workdir is not None:
      choices.append(of_file(workdir))
  if runs_dir is not None:
    choices += of_runs(runs_dir, data_dir=data_dir)
  if not choices:
    choices.append(of_file(edit_inputs.find_demo(), title='Drawn faces'))
  return _make_unique(choices)


def of_run(
    path: str | os.PathLike[str],
    *,
    stage: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> list[Choice]:
  """Returns the finished stages of a run, that which edits best first.

  Args:
    path: of a run of experiments.mnist, svhn or celeba.
    stage: the one to begin with; None takes the one that
      `edited_runs.load` takes.
    data_dir: see `edited_runs.load`.
    name: of the run, for people; None takes that of its directory.

  Raises:
    InputError: if it is no such run, or no such stage is finished.
  """
  run = workdirs.WorkDir(path)
  first = edited_runs.choose_stage(run, stage)
  names = [found.name for found in edited_runs.list_stages(run)]
  names.sort(key=lambda own: own != first)
  name = name or run.path.resolve().name
  return [
      Choice(
          id=_make_id(f'{name}.{own}'),
          group=name,
          title=own,
          load=functools.partial(
              edited_runs.load, run, stage=own, data_dir=data_dir
          ),
          load_samples=lambda unused_editor: samples.of_run(
              run, data_dir=data_dir
          ).read_first(NUM_SAMPLES),
      )
      for own in names
  ]


def of_runs(
    directory: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> list[Choice]:
  """Returns the models of all runs below a directory.

  Runs that have none to edit with are left out.

  Args:
    directory: searched with all below it, but not within runs.
    data_dir: see `edited_runs.load`.

  Raises:
    InputError: if there is no model, or no such directory.
  """
  root = pathlib.Path(directory)
  workdirs.check_directory('--runs_dir', root)
  choices, left_out = [], 0
  for path in _find_runs(root):
    relative = path.relative_to(root)
    name = root.resolve().name if path == root else relative.as_posix()
    try:
      choices += of_run(path, data_dir=data_dir, name=name)
    # A run of another program, or damaged: of many that is no reason to end.
    except errors.InputError:
      left_out += 1
  if not choices:
    raise errors.InputError(
        f'--runs_dir={root} has no run with a model to edit with; accepted: a'
        ' directory with finished runs of mnist, svhn or celeba below it.'
    )
  if left_out:
    command_line.note(
        f'{left_out} of the runs in {root} have no model to edit with.'
    )
  return choices


def of_file(
    path: str | os.PathLike[str], *, title: str | None = None
) -> Choice:
  """Returns the model of a file of `editor_files.write`.

  It starts from faces that are drawn, or from digits, by its image shape.

  Args:
    path: of the file.
    title: for people; None takes its name.
  """
  path = pathlib.Path(path)
  title = title or path.stem
  return Choice(
      id=_make_id(path.stem),
      group='',
      title=title,
      load=functools.partial(editor_files.read, path),
      load_samples=lambda own: samples.of_package(own).read_first(
          NUM_SAMPLES
      ),
  )


def _make_id(name):
  return re.sub(r'[^A-Za-z0-9_.-]+', '.', name).strip('.') or 'model'


def _make_unique(choices):
  """Puts a number after each id that was there before."""
  seen, unique = set(), []
  for choice in choices:
    own, number = choice.id, 1
    while own in seen:
      number += 1
      own = f'{choice.id}-{number}'
    seen.add(own)
    unique.append(dataclasses.replace(choice, id=own))
  return unique


def _find_runs(root) -> Iterator[pathlib.Path]:
  """Yields directories with a manifest, in the order of their names."""
  visited = 0
  for path, directories, files in os.walk(root):
    visited += 1
    if visited > _MOST_DIRECTORIES:
      command_line.note(
          f'--runs_dir={root}: looked into {_MOST_DIRECTORIES:,} directories'
          ' and no further.'
      )
      return
    if 'manifest.json' in files:
      yield pathlib.Path(path)
      directories.clear()
    directories[:] = sorted(
        name
        for name in directories
        if name not in _NOT_OF_RUNS and not name.startswith('.')
    )
