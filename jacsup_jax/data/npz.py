"""Reads arrays of .npz files of which nothing is believed.

What an array will take is known from the zip's directory and the array's own
header before anything is allocated or inflated; both must agree.
"""

from collections.abc import Sequence
import math
import os
import struct
import warnings
import zipfile

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted

# Deflate reaches 1030; pictures, also as floats of 64 bits, stay far below
# this. What is small may be anything, as a thousand times the same name.
_LARGEST_RATIO = 200
_SMALL = 64 * 2**20
# np.savez and savez_compressed know these. LZMA may ask for any memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class DamagedError(ValueError):
  """What is in an archive is not a whole array that may be read."""


def open_archive(path: str | os.PathLike[str]) -> zipfile.ZipFile:
  """Opens an archive and reads its directory.

  Args:
    path: of the file.

  Returns:
    The archive, to be closed.

  Raises:
    InputError: if it is no regular file, or cannot be read.
    DamagedError: if it is no zip file.
  """
  untrusted.check_file(path)
  try:
    return zipfile.ZipFile(path)
  except OSError as error:
    untrusted.refuse_unreadable(path, error)
  # The ways in which a damaged directory shows.
  except (
      zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError,
      struct.error,
  ) as error:
    raise DamagedError(f'it is no zip file: {error}') from error


def read_array(
    archive: zipfile.ZipFile, name: str, largest: float = math.inf
) -> np.ndarray:
  """Reads one array.

  Args:
    archive: from `open_archive`.
    name: of the array, one of `names`.
    largest: how many bytes are accepted. What is not compressed is never larger
      than the archive.

  Returns:
    `[...]`, never of objects.

  Raises:
    DamagedError: if it is damaged or too large, in one line without its name.
  """
  found = [i for i in archive.infolist() if i.filename == f'{name}.npy']
  if len(found) != 1:
    raise DamagedError(f'it is there {len(found)} times; accepted: once')
  (info,) = found
  _check_entry(info, archive, largest)
  try:
    with archive.open(info) as file, warnings.catch_warnings():
      # Of headers that Python 2 wrote.
      warnings.simplefilter('ignore', UserWarning)
      return _read(file, info.file_size)
  except DamagedError:
    raise
  except Exception as error:  # Anything, of a damaged array.
    text = errors.one_line(str(error))[:300]
    raise DamagedError(f'{type(error).__name__}: {text}') from error


def names(archive: zipfile.ZipFile) -> Sequence[str]:
  """Lists the names of the arrays of an archive."""
  return [
      name.removesuffix('.npy')
      for name in archive.namelist()
      if name.endswith('.npy')
  ]


def _check_entry(info, archive, largest):
  """Checks what the archive's directory says of an entry."""
  if info.flag_bits & _ENCRYPTED:
    raise DamagedError('it is encrypted; accepted: what np.savez writes')
  if info.compress_type not in _METHODS:
    raise DamagedError(
        f'it is compressed by method {info.compress_type}; accepted: what'
        ' np.savez or np.savez_compressed writes'
    )
  if info.file_size > largest:
    raise DamagedError(
        f'it has {info.file_size:,} bytes; accepted: {largest:,} at most'
    )
  if info.compress_type == zipfile.ZIP_STORED:
    # Else the directory may say anything.
    most = os.fstat(archive.fp.fileno()).st_size
  else:
    most = max(_SMALL, _LARGEST_RATIO * info.compress_size)
  if info.file_size > most:
    raise DamagedError(
        f'{info.compress_size:,} bytes would become {info.file_size:,};'
        f' accepted: {most:,} at most'
    )


def _read(file, size):
  """Reads a .npy file whose header agrees with its size."""
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    header = np.lib.format.read_array_header_1_0(file)
  else:  # (2, 0); refuses others. np.save writes (3, 0) of named fields alone.
    header = np.lib.format.read_array_header_2_0(file)
  shape, is_fortran, dtype = header
  if dtype.hasobject:
    raise DamagedError('it holds Python objects, which are never read')
  if any(n < 0 for n in shape) or not dtype.itemsize:
    raise DamagedError(f'it has the shape {shape} and the type {dtype}')
  count = math.prod(shape)
  left = size - file.tell()
  if count * dtype.itemsize != left:
    raise DamagedError(
        f'its header states {count * dtype.itemsize:,} bytes, {left:,} follow'
    )
  array = np.empty(count, dtype)
  view = memoryview(array.view(np.uint8)) if count else memoryview(b'')
  done = 0
  while done < left:
    read = file.readinto(view[done : done + 2**24])
    if not read:
      raise DamagedError(f'it ends after {done:,} of {left:,} bytes')
    done += read
  # The checksum is looked at where the entry ends.
  file.read(1)
  return array.reshape(shape, order='F' if is_fortran else 'C')
