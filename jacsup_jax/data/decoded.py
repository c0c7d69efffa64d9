"""Keep decoded arrays in a file beside the prepared set that they come from.

Decoding 60,000 PNGs takes several seconds, reading the arrays a fraction of
one.
"""

from collections.abc import Callable
import contextlib
import hashlib
import os
import pathlib
import tempfile

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import dataset
from jacsup_jax.data import files

Arrays = tuple[np.ndarray, ...]


def compute_key(directory: str | os.PathLike) -> str:
  """Computes a key that changes whenever a prepared set does.

  Args:
    directory: the folder of one version of a prepared set.

  Returns:
    sha256 over its metadata files and the names and sizes of its records.
  """
  sha256 = hashlib.sha256()
  for path in sorted(pathlib.Path(directory).iterdir()):
    if path.suffix == '.json' and path.is_file():
      sha256.update(f'{path.name};'.encode() + path.read_bytes())
    elif '.array_record' in path.name:
      sha256.update(f'{path.name} {path.stat().st_size};'.encode())
  return sha256.hexdigest()


def load_or_make(
    builder: tfds.core.DatasetBuilder,
    label: str,
    make: Callable[[], Arrays],
    names: tuple[str, ...] = ('images', 'labels'),
) -> Arrays:
  """Reads decoded arrays, or makes them and keeps them for the next time.

  A file is used only if its key is that of the prepared set and its arrays
  have the digest written with them; otherwise it is made again.

  Args:
    builder: of the prepared set. If its folder is not writable, nothing is
      kept.
    label: part of the file name.
    make: decodes the arrays.
    names: of the arrays that `make` returns, in order.

  Returns:
    The arrays, as `make` returns them.
  """
  if not builder.is_prepared():  # A mocked builder has no folder.
    return make()
  path = pathlib.Path(builder.data_dir) / f'decoded_{label}.npz'
  key = compute_key(builder.data_dir)
  arrays = _read_kept(path, key, names)
  if arrays is None:
    arrays = make()
    try:
      _keep(path, key, dict(zip(names, arrays, strict=True)))
    except OSError as error:
      logging.info('Decoded arrays are not kept in %s: %s', path, error)
  return arrays


def _read_kept(path, key, names) -> Arrays | None:
  if not files.exists(path):
    return None
  try:
    if files.read_arrays(path, ('key',))['key'].tolist() != key:
      return None
    content = files.read_arrays(path, ('digest', *names))
  except errors.InputError as error:
    logging.info('%s is damaged and made again: %s', path, error)
    return None
  arrays = tuple(content[name] for name in names)
  is_whole = dataset.digest(*arrays) == content['digest'].tolist()
  return arrays if is_whole else None


def _keep(path, key, arrays):
  """Writes the file under another name first: no reader sees half of it."""
  digest = dataset.digest(*arrays.values())
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.decoding-')
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(file, key=key, digest=digest, **arrays)
    os.chmod(temporary, 0o644)  # mkstemp makes it private to the user.
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(temporary)
    raise
