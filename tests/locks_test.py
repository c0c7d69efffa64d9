"""Tests of jacsup_jax.locks."""

import json
import os
import subprocess
import sys
import threading

import killing
import pytest

from jacsup_jax.core import errors
from jacsup_jax.runs import locks

HOLD = """
import sys, time
from jacsup_jax.runs import locks
lock = locks.Lock(sys.argv[1])
print('held', flush=True)
time.sleep(600)
"""


def _hold(path):
  process = subprocess.Popen(
      [sys.executable, '-c', HOLD, str(path)],
      cwd=killing.ROOT,
      stdout=subprocess.PIPE,
      text=True,
  )
  assert process.stdout.readline() == 'held\n'
  return process


# Values.


def test_second_is_refused_with_the_first_and_its_time(tmp_path):
  holder = _hold(tmp_path)
  try:
    entries = json.loads((tmp_path / '.lock').read_text())
    with pytest.raises(errors.InputError) as error:
      locks.Lock(tmp_path)
  finally:
    holder.kill()
    holder.communicate()
  message = str(error.value)
  assert f'process {holder.pid} on {entries["host"]}' in message
  assert f'since {entries["since"]}' in message
  assert f'--workdir={tmp_path}' in message and '\n' not in message


# Invariants.


def test_lock_of_a_dead_process_is_taken_over(tmp_path):
  holder = _hold(tmp_path)
  holder.kill()
  holder.communicate()
  assert (tmp_path / '.lock').exists()
  lock = locks.Lock(tmp_path)
  assert json.loads((tmp_path / '.lock').read_text())['pid'] == os.getpid()
  lock.release()
  assert not list(tmp_path.iterdir())


def test_what_it_made_goes_with_it(tmp_path):
  lock = locks.Lock(tmp_path / 'new' / 'run')
  assert (tmp_path / 'new' / 'run' / '.lock').exists()
  lock.release()
  assert not list(tmp_path.iterdir())
  lock.release()  # Again is no error.


def test_what_others_put_there_stays(tmp_path):
  lock = locks.Lock(tmp_path / 'run')
  (tmp_path / 'run' / 'manifest.json').write_text('{}')
  lock.release()
  assert [p.name for p in (tmp_path / 'run').iterdir()] == ['manifest.json']


def test_a_lock_that_was_removed_while_waiting_is_none(tmp_path, monkeypatch):
  first = locks.Lock(tmp_path)
  flock, calls = locks.fcntl.flock, []

  def release_before(file, how):
    # Its holder lets go, and takes the file with it, as this one has it open.
    if not calls:
      first.release()
    calls.append(file)
    flock(file, how)

  monkeypatch.setattr(locks.fcntl, 'flock', release_before)
  second = locks.Lock(tmp_path)
  assert len(calls) == 2
  assert (tmp_path / '.lock').exists()
  second.release()


def test_any_content_is_described(tmp_path):
  for text in ('', '[]', '{"pid": 1}', 'x' * 100):
    assert locks._describe(text) == 'which has only just begun'


def test_of_many_at_once_one_has_it(tmp_path):
  # Locks are of open files: threads exclude each other as processes do.
  for i in range(30):
    barrier, held, refused = threading.Barrier(4), [], []

    def take():
      barrier.wait()
      try:
        held.append(locks.Lock(tmp_path / str(i)))
      except errors.InputError as error:
        refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert (len(held), len(refused)) == (1, 3)
    held[0].release()
