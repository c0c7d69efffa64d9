"""A directory that holds judges: one safetensors file.

Judges are a frozen dataclass; the field that its `tree` names is a tree of
arrays, and the others, which are JSON values, go into the file's metadata.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
from typing import Any

from flax import traverse_util
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files

_NAME = 'judge.safetensors'


def exist(directory: str | os.PathLike[str]) -> bool:
  """Returns whether a directory holds judges."""
  return files.exists(pathlib.Path(directory) / _NAME)


def save(directory: str | os.PathLike[str], judges: Any) -> None:
  """Saves judges, whole or not at all; StorageError where that fails."""
  # pylint: disable=import-outside-toplevel
  from safetensors import numpy as safetensors

  described = {
    field.name: getattr(judges, field.name)
    for field in dataclasses.fields(judges)
    if field.name != judges.tree
  }
  flat = traverse_util.flatten_dict(getattr(judges, judges.tree), sep='/')
  arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
  path = pathlib.Path(directory) / _NAME
  with files.writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  files.write_whole(
    path, safetensors.save(arrays, {'judges': json.dumps(described)})
  )


def restore(
  directory: str | os.PathLike[str], kind: type, **wanted: Any
) -> Any:
  """Restores judges of a kind; `wanted` is what their fields must be.

  Raises:
    InputError: if the file is missing, damaged, or has judges of another kind
      or with other fields.
  """
  # pylint: disable=import-outside-toplevel
  import safetensors

  path = pathlib.Path(directory) / _NAME
  names = {field.name for field in dataclasses.fields(kind)} - {kind.tree}
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
  for name, value in described.items():
    if isinstance(value, list):
      described[name] = tuple(value)
  for name, value in wanted.items():
    if described[name] != value:
      raise errors.InputError(
        f'the judge in {directory} was trained for {name} {described[name]};'
        f' accepted: one for {value}, or another directory.'
      )
  tree = traverse_util.unflatten_dict(arrays, sep='/')
  return kind(**described, **{kind.tree: tree})


def restore_or_train(
  directory: str | os.PathLike[str],
  kind: type,
  train: Callable[[], Any],
  **wanted: Any,
) -> Any:
  """Restores the judges of a directory, or trains and saves them there."""
  if exist(directory):
    return restore(directory, kind, **wanted)
  directory = pathlib.Path(directory)
  files.check_writable(str(directory), directory)
  if directory.is_dir() and any(directory.iterdir()):
    raise errors.InputError(
      f'{directory} is not a directory of judges; accepted: one that has a'
      f' {_NAME}, or a new or empty one.'
    )
  judges = train()
  save(directory, judges)
  return judges
