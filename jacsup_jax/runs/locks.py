"""One run at a time in a work directory.

The lock is the kernel's, on an open file: it ends with the process that has it,
however that ends, so that there is nothing to clean up. What the file says is
for people.
"""

import datetime
import fcntl
import json
import os
import pathlib
import socket
import time

from jacsup_jax.core import errors
from jacsup_jax.runs import workdir

_NAME = '.lock'
_WRITING_SECONDS = 0.1


class Lock:
  """Holds a directory, which is made if it is not there."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Takes the lock.

    Args:
      directory: to hold.

    Raises:
      InputError: if another process has it, saying which and since when.
      StorageError: if it cannot be written to.
    """
    self._path = pathlib.Path(directory).absolute() / _NAME
    self._made = [
        path for path in self._path.parents if not path.exists()
    ]
    with workdir.writing(self._path):
      self._file = self._open()
      self._file.truncate()
      self._file.write(
          json.dumps({
              'pid': os.getpid(),
              'host': socket.gethostname(),
              'since': datetime.datetime.now().isoformat(timespec='seconds'),
          })
      )
      self._file.flush()

  def release(self) -> None:
    """Gives it up. What it made is removed, if nothing was put there."""
    if self._file.closed:
      return
    # While it is held: nobody else can have it.
    self._path.unlink(missing_ok=True)
    self._file.close()
    for path in self._made:
      try:
        path.rmdir()
      except OSError:
        return  # There is something in it.

  def _open(self):
    """Returns the file, locked."""
    while True:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      try:
        file = open(self._path, 'r+' if self._path.exists() else 'x+')
      except (FileExistsError, FileNotFoundError):
        continue  # Made or removed just now.
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        # Its holder may only just have it.
        time.sleep(_WRITING_SECONDS)
        holder = _describe(file.read())
        file.close()
        raise errors.InputError(
            f'--workdir={self._path.parent} is in use by a run ({holder});'
            ' accepted: when that has ended, or another directory.'
        ) from error
      if self._is_there(file):
        return file
      file.close()  # Its holder removed it in between.

  def _is_there(self, file):
    try:
      found, own = os.stat(self._path), os.fstat(file.fileno())
    except FileNotFoundError:
      return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _describe(text):
  try:
    entries = json.loads(text)
    return (
        f'process {entries["pid"]} on {entries["host"]}, since'
        f' {entries["since"]}'
    )
  except (ValueError, KeyError, TypeError):
    return 'which has only just begun'
