"""Signals during training: recorded, and polled between chunks.

SIGTERM, SIGINT, SIGHUP (a terminal that closes) and SIGUSR1 (a batch system
before its limit). A second one ends the process at once; files appear whole or
not.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import threading

SIGNALS = tuple(
  getattr(signal, name)
  for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1')
  if hasattr(signal, name)  # Windows has the first two.
)

_previous = {}  # Handlers by signal, while signals are recorded.
_received: signal.Signals | None = None
_raises = False


class Interrupted(BaseException):
  """A run was interrupted; not an Exception, which one could swallow."""

  def __init__(self, message: str = ''):
    super().__init__(message)
    self.signal = _received or signal.SIGTERM  # another process received it

  @property
  def exit_status(self) -> int:
    """Status of a process that this signal ended, as shells report it."""
    return 128 + self.signal


def record() -> None:
  """Records signals until `release`, instead of ending the process."""
  # Outside the main thread Python has no signals.
  if threading.current_thread() is threading.main_thread() and not _previous:
    for number in SIGNALS:
      # nohup ignores SIGHUP, a shell SIGINT for what it runs in background.
      if signal.getsignal(number) != signal.SIG_IGN:
        _previous[number] = signal.signal(number, _record)


def release() -> None:
  """Gives signals their usual effect again, and forgets the one recorded."""
  global _received
  while _previous:
    signal.signal(*_previous.popitem())
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
    os.write(2, b'interrupted twice: the last checkpoint is kept\n')
    os._exit(128 + number)
  _received = signal.Signals(number)
  if _raises:
    raise Interrupted
