"""Read and write files so that every failure is one line that names the file.

Nothing that is read here is ever executed. stdout and stderr are written so
that their failure ends nothing.
"""

from collections.abc import Iterator, Sequence
import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
import stat
import sys
import tempfile
from typing import Any
from urllib import parse
import zipfile

import numpy as np

from jacsup_jax.core import errors

Path = str | os.PathLike[str]
# Errors of a disk that is full or may not be written to.
DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES,
    errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip
# Names of the streams that failed, and why, until somebody notes it.
lost_streams: dict[str, str] = {}


def expand_path(flag: str, text: Path) -> pathlib.Path:
  """Expands `~` and `$NAME` in a place that a flag or a variable names.

  Every such place comes through here. What is relative stays relative;
  `file:///x`, as file managers copy it, is `/x`. InputError if the place is on
  another machine, or names a user or a variable that does not exist.
  """
  text = os.fspath(text)
  accepted = 'a path of this machine'
  if text.startswith('file:///'):
    text = parse.unquote(text.removeprefix('file://'))
  if re.match(r'[A-Za-z][\w+.-]+:/', text):  # pathlib makes one slash of two.
    reason = 'is on another machine'
    accepted += ', such as a copy, or where a bucket is mounted'
  elif not text or '\0' in text:
    reason = 'is not a path'
  else:
    expanded = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r'\$(\w+|{[^}]*})', expanded)
    if expanded.startswith('~') and not exists(expanded):
      reason = 'names a user who does not exist'
    elif unset and not exists(expanded):  # A `$` may also be part of a name.
      reason = f'has {unset[0]}, a variable that is not set'
    else:
      return pathlib.Path(expanded)
  raise errors.InputError(f'{flag}={text!r} {reason}; accepted: {accepted}.')


def expand_variable(name: str) -> pathlib.Path | None:
  """Expands the place that an environment variable names, if it is set."""
  text = os.environ.get(name)
  return expand_path(name, text) if text else None


def exists(path: Path) -> bool:
  """Checks whether a path exists; names that no file can have do not."""
  try:
    return os.path.exists(path)
  except (OSError, ValueError):
    return False


def describe(value: Any) -> str:
  """Shows any value in at most 60 characters, for a message."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def some(names: Sequence[str]) -> str:
  """Lists the first five names, for a message."""
  return ', '.join(map(describe, names[:5])) + ' ...' * (len(names) > 5)


def unreadable(path: Path, error: Exception) -> errors.InputError:
  """Makes the error for a file that cannot be read."""
  reason = getattr(error, 'strerror', None) or str(error)
  return errors.InputError(
    f'{path} cannot be read ({reason}); accepted: a regular file.'
  )


def check_file(path: Path) -> None:
  """Raises InputError unless a path is a regular file."""
  try:
    mode = os.stat(path).st_mode
  except (OSError, ValueError) as error:  # ValueError: a name with a NUL
    raise unreadable(path, error) from error
  if not stat.S_ISREG(mode):
    found = 'a directory' if stat.S_ISDIR(mode) else 'a pipe or device'
    raise errors.InputError(f'{path} is {found}; accepted: a regular file.')


def read_bytes(path: Path) -> bytes:
  """Reads a file; InputError if it is not a regular one that can be read."""
  check_file(path)
  try:
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise unreadable(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
  """Reads a JSON object; InputError if the file holds anything else."""
  return parse_json(path, read_bytes(path))


def parse_json(where: Path, content: bytes) -> dict[str, Any]:
  """Parses a JSON object; InputError, which says where, if it is none."""
  try:
    if isinstance(value := json.loads(content), dict):
      return value
    found = f'holds {describe(value)}'
  except (ValueError, RecursionError) as error:
    found = f'is not JSON ({str(error)[:200]})'
  raise errors.InputError(f'{where} {found}; accepted: a JSON object.')


def open_archive(path: Path) -> zipfile.ZipFile:
  """Opens a whole zip file of which no entry leads out of the folder.

  InputError if the file is damaged or has such an entry.
  """
  check_file(path)
  try:
    archive = zipfile.ZipFile(path)
  except Exception as error:  # A damaged directory fails in many ways.
    raise errors.InputError(
      f'{path} is cut short, damaged, not readable or not a zip file; accepted:'
      ' the archive as it was published.'
    ) from error
  for name in archive.namelist():
    parts = re.split(r'[/\\]', name)
    if not parts[0] or ':' in parts[0] or '..' in parts:
      archive.close()
      raise errors.InputError(
        f'{path} has the entry {describe(name)}, which leads out of the folder;'
        ' accepted: the archive as it was published.'
      )
  return archive


def read_arrays(
  path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
  """Reads arrays of an .npz file, by name, and never Python objects.

  InputError if the file is damaged, lacks one of `names`, or has objects.
  """
  open_archive(path).close()
  try:
    with np.load(path, allow_pickle=False) as content:
      if set(names) <= set(content.files):
        wanted = [*names, *(name for name in optional if name in content)]
        return {name: content[name] for name in wanted}
      found = f'has the arrays {", ".join(content.files[:9]) or "of none"}'
  except MemoryError:
    raise
  except Exception as error:  # A damaged array fails in many ways.
    found = f'cannot be read ({type(error).__name__}: {str(error)[:200]})'
  raise errors.InputError(
    f'{path} {found}; accepted: an .npz file with the arrays'
    f' {", ".join(names)}, without Python objects.'
  )


def check_directory(flag: str, path: Path) -> pathlib.Path:
  """Returns the nearest directory that exists: a path or one above it.

  InputError, which names the flag, if that is a file.
  """
  try:
    path = pathlib.Path(path).absolute()
    found = next(part for part in (path, *path.parents) if part.exists())
    if found.is_dir():
      return found
    reason = f'is below the file {found}' if found != path else 'is a file'
  except (OSError, ValueError) as error:  # a name that no file can have
    reason = f'is not a path ({error})'
  raise errors.InputError(
    f'{flag} {reason}; accepted: a directory, or a new name.'
  )


def check_writable(flag: str, path: Path) -> None:
  """Raises InputError unless a directory can be written to, or be made."""
  found = check_directory(flag, path)
  try:  # A disk may be mounted for reading only.
    tempfile.TemporaryFile(dir=found).close()
  except OSError as error:
    raise errors.InputError(
      f'{flag} cannot be written to ({error.strerror}: {found}); accepted: a'
      ' directory that can.'
    ) from error


def check_output(
  flag: str, path: Path, endings: Sequence[str] = ()
) -> pathlib.Path:
  """Raises InputError unless a file can be written, before the work begins.

  The ending of its name decides its format: one of `endings`, if any, in any
  case. Returns the path.
  """
  path = pathlib.Path(path)
  if endings and path.suffix.lower() not in endings:
    raise errors.InputError(
      f'{flag}={path} ends in {path.suffix or "nothing"}; accepted: a name that'
      f' ends in {", ".join(endings)}.'
    )
  check_writable(f'{flag}={path}: {path.parent}', path.parent)
  temporary = path.with_name(f'.{path.name}.tmp')  # as of `write_whole`
  reason = ''
  try:
    if path.exists() and not path.is_file():
      reason = 'is a directory' if path.is_dir() else 'is a pipe or device'
    elif path.parent.exists():
      open(temporary, 'wb').close()
      temporary.unlink()
  except (OSError, ValueError) as error:  # A name that is too long.
    reason = f'cannot be written ({getattr(error, "strerror", error)})'
  if reason:
    raise errors.InputError(f'{flag}={path} {reason}; accepted: a file.')
  return path


def write_whole(path: Path, content: str | bytes) -> None:
  """Writes or replaces a file, whole or not at all; makes its directory.

  Raises:
    StorageError: if either fails.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(temporary, 'wb') as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    except OSError:  # Half a file would take the room of others.
      temporary.unlink(missing_ok=True)
      raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
  """Turns an OSError of the block into a StorageError that names the path."""
  try:
    yield
  except OSError as error:
    raise storage_error(path, error) from error


def storage_error(path: Path, error: Exception) -> errors.StorageError:
  """Makes the error for a file that cannot be written, with the free space."""
  path = pathlib.Path(path).absolute()
  # tensorstore hides the code in the middle of long sentences.
  code = re.search(r"os_error_code='([0-9]+)'", str(error))
  reason = os.strerror(int(code[1])) if code else None
  reason = reason or getattr(error, 'strerror', None) or str(error)[:300]
  found = next(part for part in (path, *path.parents) if exists(part))
  usage = shutil.disk_usage(found)
  return errors.StorageError(
    f'{path} cannot be written ({reason}; {usage.free / 1e6:,.1f} MB free of'
    f' {usage.total / 1e6:,.1f} MB). What was saved before is kept; the same'
    ' command resumes from it.'
  )


def say(text: str, name: str = 'stdout') -> None:
  """Writes a line to `stdout` or `stderr`; a line that cannot be is dropped.

  A stream that fails, as its disk is full or its reader has left, is silent
  from then on, and an entry of `lost_streams`.
  """
  stream = getattr(sys, name)
  if stream is None:  # It was closed before Python began.
    return
  encoding = getattr(stream, 'encoding', None) or 'utf-8'
  text = text.encode(encoding, 'backslashreplace').decode(encoding)
  try:
    stream.write(f'{text}\n')
    stream.flush()
  except (OSError, ValueError) as error:
    drop_stream(name, error)


def drop_stream(name: str, error: Exception) -> None:
  """Sends what is still written to a stream that failed nowhere."""
  lost_streams.setdefault(name, getattr(error, 'strerror', None) or str(error))
  try:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, getattr(sys, name).fileno())
    os.close(nowhere)
  except (OSError, ValueError, AttributeError):
    pass  # A stream without a file, as of a notebook.


def open_missing_streams() -> None:
  """Opens the standard streams that were closed before Python began.

  Otherwise the next file to be opened would receive what libraries write.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
    if getattr(sys, name) is None:
      mode = 'w' if number else 'r'
      setattr(sys, name, open(number, mode, encoding='utf-8', closefd=False))


def flush_streams() -> None:
  """Writes what is still buffered; if it failed, Python would end with 120."""
  for name in ('stdout', 'stderr'):
    try:
      getattr(sys, name).flush()
    except AttributeError:
      pass
    except (OSError, ValueError) as error:
      drop_stream(name, error)
