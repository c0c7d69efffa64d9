"""SIGTERM and SIGINT during training: recorded, and polled between chunks.

The handler only stores a number, so a second signal cannot deadlock it; that
one ends the process at once. Nothing is lost then: files and checkpoints appear
whole or not at all.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_received: signal.Signals | None = None
_raises = False


class Interrupted(BaseException):
  """A run was interrupted by a signal; its message says what is saved.

  A BaseException, so that `except Exception` cannot swallow it.

  Attributes:
    signal: the one received; on a process that was not sent any, SIGTERM.
  """

  def __init__(self, message: str = ''):
    super().__init__(message)
    self.signal = _received or signal.SIGTERM

  @property
  def exit_status(self) -> int:
    """Status of a process that this signal ended, as shells report it."""
    return 128 + self.signal


@contextlib.contextmanager
def recorded() -> Iterator[None]:
  """Records signals within the block instead of ending the process.

  Outside the main thread, where Python has no signals, nothing changes.
  """
  global _received
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  _received = None
  previous = {number: signal.signal(number, _record) for number in SIGNALS}
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
    _received = None


def received() -> signal.Signals | None:
  """Returns the recorded signal, None if there was none."""
  return _received


@contextlib.contextmanager
def raising() -> Iterator[None]:
  """Raises Interrupted within the block, such as a long evaluation."""
  global _raises
  _raises = True
  try:
    if _received is not None:
      raise Interrupted
    yield
  finally:
    _raises = False


def _record(number, unused_frame):
  global _received
  if _received is not None:
    line = 'interrupted twice: the last checkpoint is kept\n'
    os.write(2, line.encode())
    os._exit(128 + number)
  _received = signal.Signals(number)
  if _raises:
    raise Interrupted
