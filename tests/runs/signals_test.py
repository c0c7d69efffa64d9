"""Tests of jacsup_jax.runs.signals."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jacsup_jax.runs import signals


@pytest.mark.parametrize('number', signals.SIGNALS)
def test_a_signal_is_recorded_and_handlers_are_restored(number):
  before = [signal.getsignal(n) for n in signals.SIGNALS]
  signals.record()
  os.kill(os.getpid(), number)
  signals.record()
  assert signals.received() == number
  assert signals.Interrupted('saved').exit_status == 128 + number
  signals.release()
  assert signals.received() is None
  assert [signal.getsignal(n) for n in signals.SIGNALS] == before


@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_so(number):
  before = signal.signal(number, signal.SIG_IGN)  # As nohup does.
  try:
    signals.record()
    os.kill(os.getpid(), number)
    assert signals.received() is None
    signals.release()
    assert signal.getsignal(number) == signal.SIG_IGN
  finally:
    signal.signal(number, before)


def test_a_signal_is_raised_where_it_may_be_also_if_it_came_before():
  signals.record()
  with pytest.raises(signals.Interrupted), signals.raising():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
  with pytest.raises(signals.Interrupted), signals.raising():
    pytest.fail('the block was entered')
  signals.release()


def test_a_second_signal_ends_the_process_at_once():
  code = (
    'import os, signal, time; from jacsup_jax.runs import signals\n'
    'signals.record()\n'
    'os.kill(os.getpid(), signal.SIGTERM)\n'
    'print(signals.received().name, flush=True)\n'
    'os.kill(os.getpid(), signal.SIGINT)\n'
    'time.sleep(600)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, timeout=60, check=False
  )
  assert done.returncode == 128 + signal.SIGINT
  assert done.stdout == b'SIGTERM\n' and b'interrupted twice' in done.stderr
