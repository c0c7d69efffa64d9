"""Tests of what runs make of signals, damage, full disks and bad numbers.

Whole runs in processes of their own, most of them slow:

  pytest tests/faults_test.py -m slow -s
"""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import killing
import numpy as np
import pytest

MNIST = (
    '--epochs=2', '--nuisance_dim=2', '--students=student', '--eval_every=1',
    '--checkpoint_every=1', '--learning_rate=1e-3', '--noprogress',
)  # pyformat: disable
# Small faces, of which 1,024 are trained on.
FACES = (
    '--dataset=synthetic_faces', '--image_size=32', '--first_width=8',
    '--last_width=16', '--nuisance_dims=8,12', '--batch_size=32', '--epochs=2',
    '--cycle_epochs=1', '--student_epochs=2', '--held_out=10976',
    '--judge_epochs=1', '--judge_first_width=8', '--judge_last_width=16',
    '--judge_hidden=16', '--strengths=2,5', '--students=student',
    '--selection_images=64', '--eval_every=1', '--checkpoint_every=1',
    '--noprogress',
)  # pyformat: disable


class _Runs:
  """Runs of one command in many work directories."""

  def __init__(self, binary, flags, root):
    self._binary = binary
    self.root = root
    self._flags = (
        *flags, f'--judge_workdir={root / "judge"}',
        f'--compilation_cache={root / "programs"}',
    )  # pyformat: disable

  def start(self, name, *flags, **kwargs):
    return killing.start(
        self._binary,
        *self._flags,
        f'--workdir={self.root / name}',
        *flags,
        **kwargs,
    )


@pytest.fixture(scope='module', params=['mnist', 'celeba'])
def runs(request, tmp_path_factory):
  """A command with its undisturbed run, which took `seconds`."""
  flags = {'mnist': MNIST, 'celeba': FACES}[request.param]
  runs = _Runs(request.param, flags, tmp_path_factory.mktemp(request.param))
  # Judges and programs first, which every run would wait for.
  killing.finish(runs.start('first'))
  begun = time.monotonic()
  killing.finish(runs.start('undisturbed'))
  runs.seconds = time.monotonic() - begun
  runs.expected = killing.outcome(runs.root / 'undisturbed')
  assert killing.outcome(runs.root / 'first') == runs.expected
  return runs


@pytest.mark.slow
def test_thirty_kills_lose_nothing(runs):
  seed = time.time_ns()
  print(f'seed of the kills: {seed}')
  draw = random.Random(seed)
  counts = {'anywhere': 0, 'saving': 0, 'growing': 0, 'whole runs': 0}
  for name in _names('killed'):
    run = runs.root / name
    while True:
      kind = ('anywhere', 'saving', 'growing')[sum(counts.values()) % 3]
      process = runs.start(name)
      if _kill(process, run, kind, draw, runs.seconds):
        counts[kind] += 1
      elif process.returncode == 0:
        break
      if _total(counts) == 30:
        killing.finish(runs.start(name))
        break
    counts['whole runs'] += 1
    assert killing.outcome(run) == runs.expected
    if _total(counts) == 30:
      break
  print(f'kills: {counts}')


def _names(prefix):
  return (f'{prefix}_{i}' for i in range(100))


def _total(counts):
  return sum(n for kind, n in counts.items() if kind != 'whole runs')


def _kill(process, run, kind, draw, seconds):
  """Kills a process at a random moment; returns whether it still ran."""
  if kind == 'anywhere':
    delay = draw.uniform(0, seconds)
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.001)
  else:
    reached = {'saving': _is_saving, 'growing': _Growth(run)}[kind]
    while process.poll() is None and not reached(run):
      time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.1 if kind == 'saving' else 1.0))
  process.kill()
  process.communicate()
  return process.returncode == -signal.SIGKILL


def _is_saving(run):
  return any(run.glob('checkpoints/*/.*.tmp'))


class _Growth:
  """Tells when one more stage is finished: the next one grows from it."""

  def __init__(self, run):
    self._before = self._count(run)

  def __call__(self, run):
    return self._count(run) > self._before

  def _count(self, run):
    path = run / 'manifest.json'
    return len(json.loads(path.read_text())['stages']) if path.exists() else 0


@pytest.mark.slow
def test_ten_terminations_leave_in_time(runs):
  seed = time.time_ns()
  print(f'seed of the signals: {seed}')
  draw, times, positions = random.Random(seed), [], 0
  for name in _names('terminated'):
    while len(times) < 10:
      number = draw.choice([signal.SIGTERM, signal.SIGINT])
      process = runs.start(name)
      # From when the handler is there: before that nothing is to be saved.
      delay = 6 + draw.uniform(0, max(1, runs.seconds - 6))
      seconds, err = killing.signal_after(process, number, delay)
      if seconds is None:
        assert process.returncode == 0, err
        break
      if process.returncode == 0:
        break  # It was at its end.
      assert process.returncode == 128 + number, err
      assert seconds < 10
      line = err.strip().splitlines()[-1]
      assert line.startswith(f'stopped by {number.name}')
      assert 'the same command goes on' in line
      positions += 'is saved in' in line
      times.append(seconds)
    else:
      killing.finish(runs.start(name))
    assert killing.outcome(runs.root / name) == runs.expected
    if len(times) == 10:
      break
  print(f'left after {sorted(round(t, 2) for t in times)} s, {positions} saved')
