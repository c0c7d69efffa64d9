"""Tests of what runs make of signals, damage, full disks and bad numbers.

Whole runs in processes of their own, most of them slow:

  pytest tests/faults_test.py -m slow -s
"""

import json
import random
import signal
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


DATA = (
    '--dataset=arrays', '--nuisance_dim=1', '--students=student',
    '--batch_size=64', '--eval_every=1000', '--checkpoint_every=1000',
    '--noprogress',
)  # pyformat: disable


def _write_data(path):
  """Ten blurred patterns of 28x28, 256 for training."""
  random = np.random.default_rng(0)
  labels = random.integers(0, 10, 320)
  patterns = np.kron(random.integers(0, 200, (10, 7, 7)), np.ones((4, 4), int))
  images = patterns[labels] + random.integers(0, 55, (320, 28, 28))
  split = np.where(np.arange(320) < 256, 'train', 'test')
  np.savez(path, images=images.astype(np.uint8), labels=labels, split=split)
  return path


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


def _has_lock(run, pid):
  path = run / '.lock'
  return path.exists() and f'"pid": {pid},' in path.read_text()


def _count_epochs(run):
  path = run / 'metrics.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


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
      epochs = len(runs.expected[2])
      run = runs.root / name
      # Within any epoch, before the first or after the last of this process.
      lines = draw.randint(min(_count_epochs(run), epochs - 1), epochs - 1)
      # Before it has its lock a signal ends it as any other program.
      while process.poll() is None and not (
          _has_lock(run, process.pid) and _count_epochs(run) >= lines
      ):
        time.sleep(0.01)
      seconds, err = killing.signal_after(process, number, draw.uniform(0, 2))
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


@pytest.mark.slow
def test_of_two_starts_one_wins(tmp_path):
  data = _write_data(tmp_path / 'data.npz')
  for i in range(20):
    run = tmp_path / f'run{i}'
    command = (
        *DATA, f'--data_dir={data}', f'--judge_workdir={tmp_path / "judge"}',
        f'--workdir={run}', '--epochs=100000',
    )  # pyformat: disable
    both = [killing.start('mnist', *command) for _ in range(2)]
    # The other goes on until it is told to end.
    while all(process.poll() is None for process in both):
      time.sleep(0.05)
    [loser] = [process for process in both if process.poll() is not None]
    [winner] = [process for process in both if process is not loser]
    _, err = loser.communicate()
    assert loser.returncode == 2, err
    assert err.startswith('error: ') and err.count('\n') == 1
    assert f'is in use by a run (process {winner.pid} on' in err, err
    winner.kill()
    winner.communicate()
    assert winner.returncode == -signal.SIGKILL


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path):
  data = _write_data(tmp_path / 'data.npz')

  def start(name):
    return killing.start(
        'mnist', *DATA, f'--data_dir={data}', '--epochs=300',
        f'--judge_workdir={tmp_path / "judge"}',
        f'--compilation_cache={tmp_path / "programs"}',
        f'--workdir={tmp_path / name}',
    )  # pyformat: disable

  killing.finish(start('undisturbed'))
  run = tmp_path / 'run'
  for stage in ('teacher', 'student_d01'):
    process = start('run')
    while not killing.has_epoch(run, stage):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.01)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert time.monotonic() - begun < 10
    assert err.startswith(f'stopped by SIGTERM: {stage}, epoch ')
    assert err.endswith('the same command goes on from there.\n')
    assert not (run / '.lock').exists()
  killing.finish(start('run'))
  assert killing.outcome(run) == killing.outcome(tmp_path / 'undisturbed')
