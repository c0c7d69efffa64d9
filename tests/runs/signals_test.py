"""Tests of jacsup_jax.runs.signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jacsup_jax.runs import signals


@pytest.mark.parametrize('number', signals.SIGNALS)
def test_a_signal_is_recorded_and_handlers_are_restored(number):
  before = [signal.getsignal(n) for n in signals.SIGNALS]
  with signals.recorded():
    assert signals.received() is None
    os.kill(os.getpid(), number)
    assert signals.received() == number
    error = signals.Interrupted('saved')
  assert (error.signal, error.exit_status) == (number, 128 + number)
  assert signals.received() is None
  assert [signal.getsignal(n) for n in signals.SIGNALS] == before


def test_a_signal_is_raised_where_it_may_be():
  with signals.recorded():
    with pytest.raises(signals.Interrupted):
      with signals.raising():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
  with signals.recorded():
    os.kill(os.getpid(), signal.SIGTERM)
    # It came before.
    with pytest.raises(signals.Interrupted):
      with signals.raising():
        pytest.fail('the block was entered')


def test_a_second_signal_ends_the_process_at_once():
  code = (
    'import os, signal, time; from jacsup_jax.runs import signals\n'
    'with signals.recorded():\n'
    '  os.kill(os.getpid(), signal.SIGTERM)\n'
    '  print(signals.received().name, flush=True)\n'
    '  os.kill(os.getpid(), signal.SIGINT)\n'
    '  time.sleep(600)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, timeout=60, check=False
  )
  assert done.returncode == 128 + signal.SIGINT
  assert done.stdout == b'SIGTERM\n' and b'interrupted twice' in done.stderr


def test_other_threads_record_nothing():
  found = []

  def record():
    with signals.recorded():
      found.append(signals.received())

  thread = threading.Thread(target=record)
  thread.start()
  thread.join()
  assert found == [None]
