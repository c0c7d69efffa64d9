"""Read and write files so that every failure is one line that names the file.

A mistake in what the user named is an InputError, a file that cannot be written
a StorageError. Nothing that is read here is ever executed.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import re
import shutil
import stat
import tempfile
from typing import Any
import zipfile

import numpy as np

from jacsup_jax.core import errors

_ENCRYPTED = 0x1


def expand_path(flag: str, text: str | os.PathLike[str]) -> pathlib.Path:
  """Expands `~` and refuses addresses of other machines.

  Args:
    flag: name of the flag, for the message, such as `--workdir`.
    text: its value.

  Returns:
    The path, absolute.

  Raises:
    InputError: if the text is empty, has a scheme such as `gs://`, or has a
      NUL.
  """
  text = os.fspath(text)
  if re.match(r'[A-Za-z][\w+.-]*://', text):
    raise errors.InputError(
        f'{flag}={text} is on another machine; accepted: a path of this one'
        ' (mount the storage, or copy the folder afterwards).'
    )
  if not text or '\0' in text:
    raise errors.InputError(
        f'{flag}={text!r} is not a path; accepted: a path of this machine.'
    )
  try:
    return pathlib.Path(text).expanduser().absolute()
  except RuntimeError as error:  # ~name of a user who does not exist
    raise errors.InputError(f'{flag}={text}: {error}.') from error


def exists(path: str | os.PathLike[str]) -> bool:
  """Checks whether a path exists; names that no file can have do not."""
  try:
    return pathlib.Path(path).exists()
  except (OSError, ValueError):
    return False


def read_bytes(path: str | os.PathLike[str]) -> bytes:
  """Reads a file; InputError if it is not a regular one that can be read."""
  check_file(path)
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise unreadable(path, error) from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads a JSON object; InputError if the file holds anything else."""
  return parse_json(path, read_bytes(path))


def parse_json(where: str | os.PathLike[str], content: bytes) -> dict[str, Any]:
  """Parses a JSON object; InputError, which says where, if it is none."""
  try:
    value = json.loads(content)
  except (ValueError, RecursionError) as error:
    raise errors.InputError(
        f'{where} is not JSON ({str(error)[:200]}); accepted: a JSON object.'
    ) from error
  if not isinstance(value, dict):
    raise errors.InputError(
        f'{where} holds {describe(value)}; accepted: a JSON object.'
    )
  return value


def describe(value: Any) -> str:
  """Shows any value in at most 60 characters, for a message."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def check_file(path: str | os.PathLike[str]) -> None:
  """Raises InputError unless a path is a regular file."""
  try:
    mode = os.stat(path).st_mode
  except (OSError, ValueError) as error:  # ValueError: a name with a NUL
    raise unreadable(path, error) from error
  if not stat.S_ISREG(mode):
    found = 'a directory' if stat.S_ISDIR(mode) else 'a pipe or device'
    raise errors.InputError(f'{path} is {found}; accepted: a regular file.')


def unreadable(
    path: str | os.PathLike[str], error: Exception
) -> errors.InputError:
  """Makes the error for a file that cannot be read."""
  reason = getattr(error, 'strerror', None) or str(error)
  return errors.InputError(
      f'{path} cannot be read ({reason}); accepted: a regular file.'
  )


def open_archive(path: str | os.PathLike[str]) -> zipfile.ZipFile:
  """Opens a zip file whose entries all stay inside its folder.

  Args:
    path: the file.

  Returns:
    The archive, which the caller closes.

  Raises:
    InputError: if it is not a whole zip file, an entry is encrypted, or its
      name leads out of the folder.
  """
  check_file(path)
  try:
    archive = zipfile.ZipFile(path)
  except OSError as error:
    raise unreadable(path, error) from error
  except Exception as error:  # A damaged directory fails in many ways.
    with open(path, 'rb') as file:
      start = file.read(1024)
    if b'<' in start[:64] and b'html' in start.lower():
      reason = (
          'is a web page, such as Google Drive sends when its download quota'
          ' is used up: download the file again'
      )
    elif start.startswith(b'PK'):
      reason = 'is cut short or damaged: copy or download it again'
    else:
      found = start[:4].hex() or 'nothing'
      reason = f'is not a zip file: it starts with {found}'
    raise errors.InputError(f'{path} {reason}') from error
  for info in archive.infolist():
    parts = re.split(r'[/\\]', info.filename)
    if not parts[0] or ':' in parts[0] or '..' in parts:
      reason = 'leads out of the folder'
    elif info.flag_bits & _ENCRYPTED:
      reason = 'is encrypted'
    else:
      continue
    archive.close()
    raise errors.InputError(
        f'{path} has the entry {describe(info.filename)}, which {reason};'
        ' accepted: the archive as it was published.'
    )
  return archive


def read_arrays(
    path: str | os.PathLike[str],
    names: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
  """Reads arrays of an .npz file, never Python objects.

  Args:
    path: the file.
    names: of the arrays that it must hold.
    optional: names of those that it may hold; others are not read.

  Returns:
    The arrays by name.

  Raises:
    InputError: if the file is damaged, lacks an array, or one holds Python
      objects.
  """
  open_archive(path).close()
  accepted = f'an .npz file with the arrays {", ".join(names)}'
  try:
    with np.load(path, allow_pickle=False) as content:
      missing = [name for name in names if name not in content]
      if missing:
        found = ', '.join(content.files[:9]) or 'no array at all'
        raise errors.InputError(
            f'{path} has no {" and no ".join(missing)}, but {found}; accepted:'
            f' {accepted}.'
        )
      wanted = [*names, *(name for name in optional if name in content)]
      return {name: content[name] for name in wanted}
  except (errors.InputError, MemoryError):
    raise
  except Exception as error:  # A damaged array fails in many ways.
    raise errors.InputError(
        f'{path} cannot be read ({type(error).__name__}: {str(error)[:200]});'
        f' accepted: {accepted}, without Python objects.'
    ) from error


def check_directory(flag: str, path: str | os.PathLike[str]) -> pathlib.Path:
  """Checks that a path is a directory or can be made one.

  Args:
    flag: how messages name the path, such as `--workdir=runs/a`.
    path: that will be written to.

  Returns:
    The nearest directory that exists: the path or one above it.

  Raises:
    InputError: if the path, or what it would be made in, is a file.
  """
  try:
    path = pathlib.Path(path).absolute()
    found = next(part for part in (path, *path.parents) if part.exists())
    is_directory = found.is_dir()
  except (OSError, ValueError) as error:  # a name that no file can have
    reason = getattr(error, 'strerror', None) or error
    raise errors.InputError(
        f'{flag} cannot name a directory ({reason}); accepted: a directory, or'
        ' a new name.'
    ) from error
  if not is_directory:
    where = 'is a file' if found == path else f'is below the file {found}'
    raise errors.InputError(
        f'{flag} {where}; accepted: a directory, or a new name.'
    )
  return found


def check_writable(flag: str, path: str | os.PathLike[str]) -> None:
  """Raises InputError unless a directory can be written to, or be made.

  Nothing is left behind. For the arguments see `check_directory`.
  """
  found = check_directory(flag, path)
  try:
    # Permissions alone do not tell: a disk may be mounted for reading only.
    with tempfile.TemporaryFile(dir=found):
      pass
  except OSError as error:
    raise errors.InputError(
        f'{flag} cannot be written to ({error.strerror}: {found}); accepted: a'
        ' directory that can.'
    ) from error


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
  """Writes a file, whole or not at all; StorageError if it cannot be written.

  A file that exists is replaced.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  if isinstance(content, str):
    content = content.encode()
  with writing(path):
    try:
      with open(temporary, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    except OSError:
      # On a full disk, half a file would take the room of others.
      temporary.unlink(missing_ok=True)
      raise


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
  """Turns an OSError of the block into a StorageError that names the path."""
  try:
    yield
  except OSError as error:
    raise storage_error(path, error) from error


def storage_error(
    path: str | os.PathLike[str], error: Exception
) -> errors.StorageError:
  """Makes the error for a file that cannot be written, with the free space."""
  path = pathlib.Path(path)
  reason = getattr(error, 'strerror', None)
  # tensorstore hides the code in the middle of long sentences.
  code = re.search(r"os_error_code='([0-9]+)'", str(error))
  if code:
    reason = os.strerror(int(code[1]))
  reason = reason or errors.one_line(str(error))[:300]
  found = next((p for p in (path, *path.parents) if exists(p)), path)
  try:
    usage = shutil.disk_usage(found)
    room = f'{usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.1f} MB'
  except OSError:
    room = 'free space unknown'
  return errors.StorageError(
      f'{path} cannot be written ({reason}; {room}). What was saved before is'
      ' kept; the same command resumes from it.'
  )
