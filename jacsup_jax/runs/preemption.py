"""Ending a run that is told to end: SIGTERM and SIGINT.

A signal is taken note of at once, also while the main thread computes, by a
thread of its own. The main thread then ends what it does at the next place
where nothing is lost; if it does not come there in time the process is ended
without it, and a second signal ends it at once. What was saved before stands:
nothing that a run writes is ever there in part.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import select
import signal
import threading
import time

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Of the seconds that are given, for the end of the process itself.
_RESERVE_SECONDS = 1.0


class Preempted(BaseException):
  """The run was told to end. Not an Exception, so that nobody mends it.

  Its message, if any, says what it has saved.
  """


class _Watch:
  """What is known of signals, by the thread that waits for them."""

  def __init__(self, seconds, leave, relay):
    self.requested = None
    self.deferrals = 0
    self.is_to_raise = relay is None
    self._seconds = seconds
    self._leave = leave
    self._relay = relay
    self._repeated = 0  # Signals that stand for another process's.
    self._lock = threading.Lock()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The number of a signal is written by C, whatever Python does meanwhile.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    self._previous = {
        number: signal.signal(number, self._on_signal) for number in SIGNALS
    }
    self._pipe = reader, writer
    self._thread = threading.Thread(target=self._wait, daemon=True)
    self._thread.start()

  def repeat(self, number):
    """Takes note of a signal that another process of the run was sent."""
    with self._lock:
      if self.requested is not None:
        return
      self._repeated += 1
    os.kill(os.getpid(), number)

  def close(self):
    signal.set_wakeup_fd(-1)
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    os.close(self._pipe[1])
    self._thread.join()
    os.close(self._pipe[0])

  def _on_signal(self, number, unused_frame):
    """Runs in the main thread, as soon as that is in Python again."""
    with self._lock:
      if self.requested is None:
        self.requested = signal.Signals(number)
    if self.is_to_raise and not self.deferrals:
      raise Preempted

  def _wait(self):
    """Waits for signals, and for the end of the time that is given."""
    reader, deadline = self._pipe[0], None
    while True:
      left = None
      if deadline is not None:
        left = max(0.0, deadline - time.monotonic())
      if not select.select([reader], [], [], left)[0]:
        self._end(f'did not come to an end within {self._seconds:g} s')
      numbers = os.read(reader, 64)
      if not numbers:
        return
      for number in numbers:
        if number not in SIGNALS:
          continue
        with self._lock:
          if deadline is not None and self._repeated:
            self._repeated -= 1
            continue
          if self.requested is None:
            self.requested = signal.Signals(number)
        if deadline is not None:
          self._end('was told to end twice')
        deadline = time.monotonic() + self._seconds - _RESERVE_SECONDS
        if self._relay is not None:
          self._relay(number)

  def _end(self, why):
    number = self.requested
    self._leave(
        f'stopped by {number.name}: the run {why}; the last checkpoint stands,'
        ' and the same command goes on from it.',
        exit_status(number),
    )


_watch: _Watch | None = None


@contextlib.contextmanager
def watched(
    seconds: float,
    leave: Callable[[str, int], None],
    relay: Callable[[int], None] | None = None,
) -> Iterator[None]:
  """Takes SIGTERM and SIGINT for requests to end, within the block.

  Of the main thread alone; in others nothing is changed. From a signal on,
  `Preempted` is raised in it, but where that is deferred. Where it ends the
  block, what is left of the time goes on to count.

  Args:
    seconds: from a signal to the end of the process at most.
    leave: `(line, status)`, ends the process at once.
    relay: is given a signal, where another process decides when this one ends;
      nothing is raised here then.
  """
  global _watch
  if threading.current_thread() is not threading.main_thread():
    yield  # Python has no signals elsewhere.
    return
  _watch = _Watch(seconds, leave, relay)
  try:
    yield
  except Preempted:
    raise
  except BaseException:
    _stop_watching()
    raise
  _stop_watching()


def _stop_watching():
  global _watch
  watch, _watch = _watch, None
  watch.close()


def requested() -> signal.Signals | None:
  """Returns the signal by which the run was told to end, if it was."""
  return _watch.requested if _watch else None


def repeat(number: int) -> None:
  """Does what a signal would do here, which another process was sent."""
  if _watch:
    _watch.repeat(number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Lets nothing be raised by a signal within the block; see `check`."""
  watch = _watch
  if watch is None:
    yield
    return
  watch.deferrals += 1
  try:
    yield
  finally:
    watch.deferrals -= 1


@contextlib.contextmanager
def allowed() -> Iterator[None]:
  """Lets `Preempted` be raised within the block, where that is deferred."""
  watch = _watch
  if watch is None:
    yield
    return
  deferrals, watch.deferrals = watch.deferrals, 0
  try:
    check()
    yield
  finally:
    watch.deferrals = deferrals


def check() -> None:
  """Raises Preempted if the run was told to end, and decides that itself."""
  if _watch and _watch.is_to_raise and _watch.requested is not None:
    raise Preempted


def exit_status(number: int) -> int:
  """Returns the status of a process that a signal ended, as shells do."""
  return 128 + number
