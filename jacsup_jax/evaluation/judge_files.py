"""A directory that holds judges: one safetensors file.

Judges are a frozen dataclass; one field is a tree of arrays, and the others,
which are JSON values, go into the file's metadata.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any, TypeVar

from flax import traverse_util
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files

_Judges = TypeVar('_Judges')
_NAME = 'judge.safetensors'


def exist(directory: str | os.PathLike[str]) -> bool:
  """Returns whether a directory holds judges."""
  return files.exists(pathlib.Path(directory) / _NAME)


def check_free(directory: str | os.PathLike[str]) -> None:
  """Raises InputError unless a directory is new, or empty and writable."""
  directory = pathlib.Path(directory)
  files.check_writable(str(directory), directory)
  empty = directory.is_dir() and not any(directory.iterdir())
  if directory.exists() and not empty:
    raise errors.InputError(
      f'{directory} is not a directory of judges; accepted: one that has a'
      f' {_NAME}, or a new or empty one.'
    )


def save(directory: str | os.PathLike[str], judges: Any, tree: str) -> None:
  """Saves judges to a directory, whole or not at all.

  Args:
    directory: made if it is missing.
    judges: a dataclass.
    tree: name of its field of nested dicts of arrays.

  Raises:
    StorageError: if the file cannot be written.
  """
  # pylint: disable=import-outside-toplevel
  from safetensors import numpy as safetensors

  described = {
    field.name: getattr(judges, field.name)
    for field in dataclasses.fields(judges)
    if field.name != tree
  }
  arrays = {
    name: np.ascontiguousarray(array)
    for name, array in _flatten(getattr(judges, tree)).items()
  }
  path = pathlib.Path(directory) / _NAME
  with files.writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  files.write_whole(
    path, safetensors.save(arrays, {'judges': json.dumps(described)})
  )


def read(
  directory: str | os.PathLike[str], kind: type[_Judges], tree: str
) -> _Judges:
  """Reads what `save` saved.

  Args:
    directory: of the judges.
    kind: their dataclass.
    tree: name of its field of arrays.

  Raises:
    InputError: if the file is missing, damaged, or has judges of another kind.
  """
  # pylint: disable=import-outside-toplevel
  import safetensors

  path = pathlib.Path(directory) / _NAME
  names = {field.name for field in dataclasses.fields(kind)} - {tree}
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      described = json.loads((file.metadata() or {}).get('judges', '{}'))
      arrays = {name: file.get_tensor(name) for name in file.keys()}
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise errors.InputError(
      f'{path} cannot be read ({error}); accepted: judges that this package'
      ' saved.'
    ) from error
  if set(described) != names:
    raise errors.InputError(
      f'{path} describes {", ".join(sorted(described)) or "nothing"}, which'
      f' is not {kind.__name__}; accepted: {", ".join(sorted(names))}.'
    )
  entries = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in described.items()
  }
  return kind(**entries, **{tree: _unflatten(arrays)})


def _flatten(tree):
  return traverse_util.flatten_dict(tree, sep='/')


def _unflatten(arrays):
  return traverse_util.unflatten_dict(arrays, sep='/')
