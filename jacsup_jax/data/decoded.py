"""Decoded splits as arrays, kept in a file beside the prepared set.

Decoding 60,000 PNGs takes several seconds, reading the arrays a fraction of
one. A file is believed only if its key is that of the prepared set and its
arrays have the digest written with them; otherwise it is made again.
"""

from collections.abc import Callable, Mapping
import contextlib
import hashlib
import os
import pathlib
import tempfile

from absl import logging
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import npz

# Bytes: 64 digits and a header.
_LONGEST_KEY = 1000

Arrays = tuple[np.ndarray, ...]


def digest(*arrays: np.ndarray) -> str:
  """Computes the sha256 of arrays, their types and shapes included.

  Args:
    *arrays: images `[N, H, W, C]` uint8 and labels `[N]` int32, say.

  Returns:
    64 hexadecimal digits.
  """
  sha256 = hashlib.sha256()
  for array in arrays:
    sha256.update(f'{array.dtype.str} {array.shape};'.encode())
    sha256.update(np.ascontiguousarray(array).data)
  return sha256.hexdigest()


def prepared_key(directory: str | os.PathLike) -> str:
  """Computes a key that changes whenever the prepared set does.

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
    directory: str | os.PathLike,
    split: str,
    make: Callable[[], Arrays],
    names: tuple[str, ...] = ('images', 'labels'),
) -> Arrays:
  """Reads a decoded split, or makes it and keeps it for the next time.

  Args:
    directory: the folder of one version of a prepared set. If it is not
      writable, nothing is kept.
    split: its name, part of the file name.
    make: decodes the split.
    names: of the arrays that `make` returns, in order.

  Returns:
    The arrays, as `make` returns them.
  """
  path = pathlib.Path(directory) / f'decoded_{split}.npz'
  key = prepared_key(directory)
  arrays = _read(path, key, names)
  if arrays is None:
    arrays = make()
    try:
      _write(path, key, dict(zip(names, arrays, strict=True)))
    except OSError as error:
      logging.info('Decoded arrays are not kept in %s: %s', path, error)
  return arrays


def _read(
    path: pathlib.Path, key: str, names: tuple[str, ...]
) -> Arrays | None:
  if not untrusted.exists(path):
    return None
  try:
    with npz.open_archive(path) as archive:
      # Of the other arrays nothing is read then.
      if npz.read_array(archive, 'key', _LONGEST_KEY).tolist() != key:
        return None
      arrays = tuple(npz.read_array(archive, name) for name in names)
      expected = npz.read_array(archive, 'digest', _LONGEST_KEY).tolist()
  except (errors.InputError, npz.DamagedError) as error:
    logging.info('%s is damaged and made again: %s', path, error)
    return None
  if digest(*arrays) != expected:
    logging.info('%s is damaged and made again: wrong digest', path)
    return None
  return arrays


def _write(
    path: pathlib.Path, key: str, arrays: Mapping[str, np.ndarray]
) -> None:
  """Writes the file under another name first: no reader sees half of it."""
  content = dict(arrays)
  content |= {
      'key': np.array(key),
      'digest': np.array(digest(*arrays.values())),
  }
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.decoding-')
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(file, **content)
    os.chmod(temporary, 0o644)  # mkstemp makes it private to the user.
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(temporary)
    raise
