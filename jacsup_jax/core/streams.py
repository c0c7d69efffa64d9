"""Write lines to stdout and stderr; a stream that fails ends nothing."""

import os
import sys

# Names of the streams that failed, and why, until somebody notes it.
lost: dict[str, str] = {}


def say(text: str, name: str = 'stdout') -> None:
  """Writes a line to `stdout` or `stderr`; a line that cannot be is dropped.

  A stream that fails, as its disk is full or its reader has left, is silent
  from then on, and an entry of `lost`.
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
    drop(name, error)


def drop(name: str, error: Exception) -> None:
  """Sends what is still written to a stream that failed nowhere."""
  lost.setdefault(name, getattr(error, 'strerror', None) or str(error))
  try:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, getattr(sys, name).fileno())
    os.close(nowhere)
  except (OSError, ValueError, AttributeError):
    pass  # A stream without a file, as of a notebook.


def open_missing() -> None:
  """Opens the standard streams that were closed before Python began.

  Otherwise the next file to be opened would receive what libraries write to
  stderr.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
    if getattr(sys, name) is None:
      mode = 'w' if number else 'r'
      setattr(sys, name, open(number, mode, encoding='utf-8', closefd=False))


def finish() -> None:
  """Writes what is still buffered; if it failed, Python would end with 120."""
  for name in ('stdout', 'stderr'):
    try:
      getattr(sys, name).flush()
    except AttributeError:
      pass
    except (OSError, ValueError) as error:
      drop(name, error)
