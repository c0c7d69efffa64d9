"""A directory that holds judges: `judge.json`, and their parameters.

Judges are a dataclass, one field of which is a tree of arrays; all others are
what JSON has.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, TypeVar

import chex

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir

_Judges = TypeVar('_Judges')
_MANIFEST = 'judge.json'
_CHECKPOINTS = 'checkpoints'


def exist(directory: str | os.PathLike[str]) -> bool:
  """Says whether a directory holds judges."""
  return untrusted.exists(pathlib.Path(directory) / _MANIFEST)


def check_free(directory: str | os.PathLike[str]) -> None:
  """Raises InputError unless a directory is new or empty."""
  directory = pathlib.Path(directory)
  workdir.check_writable(str(directory), directory)
  empty = directory.is_dir() and not any(directory.iterdir())
  if directory.exists() and not empty:
    raise errors.InputError(
        f'{directory} is not a directory of judges; accepted: one that has a'
        f' {_MANIFEST}, or a new or empty one.'
    )


def save(directory: str | os.PathLike[str], judges: Any, tree: str) -> None:
  """Saves judges to a directory, whole or not at all.

  Args:
    directory: a new or empty one.
    judges: a dataclass.
    tree: name of its field of arrays `[...]`.
  """
  directory = pathlib.Path(directory)
  directory.parent.mkdir(parents=True, exist_ok=True)
  entries = {
      field.name: getattr(judges, field.name)
      for field in dataclasses.fields(judges)
      if field.name != tree
  }
  scratch = pathlib.Path(
      tempfile.mkdtemp(dir=directory.parent, prefix='.judge-')
  )
  try:
    with checkpoints.StageCheckpoints(scratch / _CHECKPOINTS) as saved:
      saved.save(0, getattr(judges, tree))
    (scratch / _MANIFEST).write_text(json.dumps(entries, indent=1))
    scratch.chmod(0o755)  # mkdtemp makes it private to the user.
    scratch.rename(directory)
  except OSError:
    # Another run was faster: the same seeds give the same judges.
    if not exist(directory):
      raise
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def read(
    directory: str | os.PathLike[str], kind: type[_Judges], tree: str
) -> _Judges:
  """Reads what judges are, without their parameters.

  Args:
    directory: that `save` wrote to.
    kind: the dataclass.
    tree: name of its field of arrays, which is None in what is returned.

  Returns:
    The judges.

  Raises:
    InputError: if it is not a description of such judges.
  """
  path = pathlib.Path(directory) / _MANIFEST
  entries = untrusted.read_json(path)
  kinds = {
      field.name: field.type
      for field in dataclasses.fields(kind)
      if field.name != tree
  }
  unknown = sorted(entries.keys() - kinds.keys())
  if unknown:
    raise errors.InputError(
        f'{path} is not of such judges ({kind.__name__}): it has'
        f' {untrusted.describe(unknown[0])}; accepted:'
        f' {", ".join(kinds)}.'
    )
  untrusted.check_entries(path, entries, kinds)
  entries = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in entries.items()
  }
  return kind(**entries, **{tree: None})


def restore_tree(
    directory: str | os.PathLike[str], template: chex.ArrayTree
) -> chex.ArrayTree:
  """Restores the parameters, as host arrays of the template's shapes."""
  saved_in = pathlib.Path(directory) / _CHECKPOINTS
  with checkpoints.StageCheckpoints(saved_in) as saved:
    return saved.restore(0, template)
