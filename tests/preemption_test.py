"""Tests of jacsup_jax.preemption, in processes that are sent signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import killing
import pytest

from jacsup_jax.runs import preemption

# Says `ready`, does something, and says what became of it.
PROGRAM = """
import os, sys, time
from jacsup_jax.runs import preemption

def leave(line, status):
  os.write(1, (line + chr(10)).encode())
  os._exit(status)

def compute(seconds):
  '''Keeps the main thread out of Python, as a compiled program does.'''
  import hashlib
  end = time.monotonic() + seconds
  # One call of C; the lock of the interpreter is free.
  hashlib.pbkdf2_hmac('sha256', b'', b'', int(seconds * 1_000_000))

with preemption.watched(float(sys.argv[1]), leave):
  try:
    print('ready', flush=True)
    {body}
    print('done', flush=True)
  except preemption.Preempted:
    leave(f'preempted by {{preemption.requested().name}}', 3)
"""


def _start(body, seconds=5.0):
  program = PROGRAM.format(body=body.strip().replace('\n', '\n    '))
  process = subprocess.Popen(
      [sys.executable, '-c', program, str(seconds)],
      cwd=killing.ROOT,
      stdout=subprocess.PIPE,
      text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  time.sleep(0.3)
  return process


def _end(process, *numbers, pause=0.3):
  """Sends signals; returns seconds to the end, what it said, and status."""
  start = time.monotonic()
  for number in numbers:
    process.send_signal(number)
    time.sleep(pause)
  out, _ = process.communicate(timeout=60)
  return time.monotonic() - start, out, process.returncode


# Values.


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_signal_is_raised_where_it_is_not_deferred(number):
  _, out, status = _end(_start('time.sleep(60)'), number)
  assert (out, status) == (f'preempted by {number.name}\n', 3)


DEFERRED = """
with preemption.deferred():
  while preemption.requested() is None:
    time.sleep(0.01)
  print('saved', flush=True)
preemption.check()
"""
ALLOWED = """
with preemption.deferred():
  try:
    with preemption.allowed():
      time.sleep(60)
  except preemption.Preempted:
    time.sleep(0.1)
    print('saved', flush=True)
preemption.check()
"""


@pytest.mark.parametrize('body', [DEFERRED, ALLOWED])
def test_deferred_signal_is_seen_and_raised_later(body):
  _, out, status = _end(_start(body), signal.SIGTERM)
  assert (out, status) == ('saved\npreempted by SIGTERM\n', 3)


def test_what_is_not_over_in_time_is_left():
  # Not by the main thread, which does not come to it.
  seconds, out, status = _end(
      _start('compute(1000)', seconds=3.0), signal.SIGTERM
  )
  assert status == 128 + signal.SIGTERM
  assert out.startswith('stopped by SIGTERM') and 'within 3 s' in out
  assert 'the same command goes on' in out
  # Two seconds, on a machine that may have other work.
  assert 1.5 < seconds < 6.0


def test_second_signal_leaves_at_once():
  body = 'with preemption.deferred():\n  compute(1000)'
  seconds, out, status = _end(
      _start(body, seconds=60.0), signal.SIGINT, signal.SIGTERM
  )
  assert status == 128 + signal.SIGINT
  assert 'told to end twice' in out and seconds < 5


def test_without_a_signal_nothing_happens():
  _, out, status = _end(_start('time.sleep(1)\npreemption.check()'))
  assert (out, status) == ('done\n', 0)


# Invariants.


def test_handlers_are_those_of_before_afterwards():
  before = [signal.getsignal(number) for number in preemption.SIGNALS]
  fds = len(os.listdir('/proc/self/fd'))
  for _ in range(3):
    with preemption.watched(10.0, leave=None):
      assert preemption.requested() is None
      preemption.check()
  with pytest.raises(KeyError):
    with preemption.watched(10.0, leave=None):
      raise KeyError
  assert [signal.getsignal(n) for n in preemption.SIGNALS] == before
  assert len(os.listdir('/proc/self/fd')) == fds
  assert preemption.requested() is None


def test_without_a_watch_nothing_is_deferred_or_raised():
  with preemption.deferred(), preemption.allowed():
    preemption.check()
  preemption.repeat(signal.SIGTERM)


def test_other_threads_may_not_watch():
  found = []

  def watch():
    with preemption.watched(10.0, leave=None):
      found.append(preemption.requested())

  thread = threading.Thread(target=watch)
  thread.start()
  thread.join()
  assert found == [None]


def test_signals_of_others_count_once():
  # As when all hosts are told to end, and the others pass it on.
  body = """
with preemption.deferred():
  for _ in range(5):
    preemption.repeat(15)
  time.sleep(1)
  preemption.repeat(15)
  time.sleep(0.2)
preemption.check()
"""
  _, out, status = _end(_start(body))
  assert (out, status) == ('preempted by SIGTERM\n', 3)
