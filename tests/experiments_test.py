"""Tests of the binaries, end to end on small data."""

import contextlib
import errno
import hashlib
import io
import json
import random
import sys
import time

from absl.testing import flagsaver
import killing
import numpy as np
from PIL import Image
import pytest
import shown_events

from experiments import command_line
from experiments import mnist
from jacsup_jax.data import registry as datasets
from jacsup_jax.runs import event_files
from jacsup_jax.runs import locks

SIZES = {'train': 1280, 'train_minus_validation': 1024, 'test': 256}
RUN = (
    '--epochs=2', '--nuisance_dim=1', '--students=student,student_no_jacobian',
    '--eval_every=1', '--checkpoint_every=1',
)  # pyformat: disable


def _load(name, split, *, data_dir=None, image_shape=None):
  """Ten smooth patterns with noise, in the place of digits."""
  del data_dir, image_shape
  patterns = np.random.default_rng(0).integers(0, 200, (10, 7, 7))
  generator = np.random.default_rng(len(split))
  labels = generator.integers(0, 10, SIZES[split]).astype(np.int32)
  images = np.kron(patterns, np.ones((4, 4), int))[labels]
  images = images + generator.integers(0, 55, images.shape)
  images = images.astype(np.uint8)[..., None]
  return datasets.Dataset(name, split, images, labels, 10, f'small {split}')


def _invoke(*args, load=_load):
  """Runs the binary in this process; returns status, stdout and stderr."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.ExitStack() as stack:
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(sys, 'argv', ['experiments/mnist.py', *args])
    patch.setattr(datasets, 'load', load)
    stack.enter_context(flagsaver.flagsaver())
    stack.enter_context(contextlib.redirect_stdout(out))
    stack.enter_context(contextlib.redirect_stderr(err))
    exit_info = stack.enter_context(pytest.raises(SystemExit))
    command_line.run(mnist.main)
  return exit_info.value.code or 0, out.getvalue(), err.getvalue()


def _snapshot(directory):
  """Every file below a directory, with its content and its time."""
  return {
      str(path): (
          hashlib.sha256(path.read_bytes()).hexdigest(),
          path.stat().st_mtime_ns,
      )
      for path in sorted(directory.rglob('*'))
      if path.is_file()
  }


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A whole run: its directory, its judges' and what it printed."""
  root = tmp_path_factory.mktemp('mnist')
  flags = (f'--workdir={root / "run"}', f'--judge_workdir={root / "judge"}')
  status, out, err = _invoke(*RUN, *flags, '--tensorboard')
  assert status == 0, err
  return root / 'run', root / 'judge', out


def _assert_mistake(result, *parts):
  status, _, err = result
  assert status == 2
  assert err.count('\n') == 1 and err.startswith('error: '), err
  assert 'Traceback' not in err
  for part in parts:
    assert part in err


# Values.


def test_results_have_a_row_per_model(finished):
  run, _, out = finished
  results = json.loads((run / 'results.json').read_text())
  assert results['experiment'] == 'mnist'
  rows = results['rows']
  assert [(r['model'], r['stage'], r['nuisance_dim']) for r in rows] == [
      ('teacher', 'teacher', 0),
      ('student', 'student_d01', 1),
      ('student_no_jacobian', 'student_no_jacobian_d01', 1),
      ('random', 'random', 1),
  ]
  assert [r['lambda_diff'] for r in rows[1:3]] == [0.1, 0.0]
  for row in rows:
    assert 0 < row['mse'] < 1
    assert row['class_swaps'] is None or 0 <= row['class_swaps'] <= 1
    # The patterns are easily told apart.
    assert row['judge_accuracy'] > 0.95
  # Trained models reconstruct better than an untrained one.
  assert max(r['mse'] for r in rows[:3]) < rows[3]['mse']
  assert 'student_no_jacobian' in out


def test_manifest_names_data_flags_and_judges(finished):
  run, _, _ = finished
  manifest = json.loads((run / 'manifest.json').read_text())
  assert manifest['dataset'] == {
      'name': 'mnist_embedded', 'fingerprint': 'small train'
  }  # pyformat: disable
  assert manifest['flags']['epochs'] == 2
  results = json.loads((run / 'results.json').read_text())
  assert results['judges']['seeds'] == [0, 1, 2]
  stages = manifest['stages']
  for name in ('student_d01', 'student_no_jacobian_d01'):
    assert stages[name]['parent_sha256'] == stages['teacher']['sha256']


def test_metrics_have_every_epoch_once(finished):
  run, _, _ = finished
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  names = ('teacher', 'student_d01', 'student_no_jacobian_d01')
  assert [(r['stage'], r['epoch']) for r in records] == [
      (name, epoch) for name in names for epoch in (1, 2)
  ]
  for record in records:
    # 1,280 / 128 steps of an epoch; a student counts on from its teacher.
    assert record['step'] % 10 == 0
    assert 'eval_mse' in record and 'seconds' in record


def test_event_files_have_every_record_and_a_picture(finished):
  run, _, _ = finished
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert {path.name for path in (run / 'tensorboard').iterdir()} == {
      record['stage'] for record in records
  }
  for record in records:
    shown = shown_events.read(run / 'tensorboard' / record['stage'])
    scalars = event_files.list_scalars(record)
    assert {'loss', 'eval_mse', 'images_per_second'} < dict(scalars).keys()
    for name, value in scalars:
      assert shown[name][record['step']] == np.float32(value)
    # Of ten classes eight: the originals, the reconstructions, and swaps.
    picture = Image.open(io.BytesIO(shown['pictures'][record['step']]))
    assert picture.size == (8 * 28, 10 * 28)


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        (['--nuisance_dim=0'], ['--nuisance_dim=0', 'accepted: 1']),
        (['--lambda_y=-1'], ['--lambda_y', '-1', 'accepted: 0']),
        (['--lambda_xcov=nan'], ['--lambda_xcov', 'nan']),
        (['--lambda_y=inf'], ['--lambda_y', 'inf', 'finite']),
        (['--batch_size=0'], ['--batch_size=0', 'accepted: 1']),
        (['--epochs=0'], ['--epochs=0', 'accepted: 1']),
        (['--weight_decay=-1'], ['--weight_decay=-1', 'accepted: 0']),
        (['--learning_rate=nan'], ['--learning_rate=nan', 'accepted: 0']),
        (['--checkpoint_every=0'], ['--checkpoint_every=0']),
        (['--students=pupil'], ['--students=pupil', 'student_no_jacobian']),
        (['--epoch=3'], ["'epoch'", 'Did you mean: epochs']),
        (['--seed=-1'], ['--seed=-1', 'range [0, 2147483647]']),
        (['--seed=9999999999'], ['--seed=9999999999', 'range [0,']),
        (['--growth=zeros'], ['growth', 'zeros', 'preserving']),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(tmp_path, args, parts):
  result = _invoke(
      *args,
      f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={tmp_path / "judge"}',
  )
  _assert_mistake(result, *parts)
  assert not list(tmp_path.iterdir())


def test_empty_list_of_students_is_refused(tmp_path):
  result = _invoke('--students=', f'--workdir={tmp_path / "run"}', *(
      '--epochs=1', f'--judge_workdir={tmp_path / "judge"}'
  ))
  _assert_mistake(result, '--students')
  assert not list(tmp_path.iterdir())


def test_student_named_twice_is_refused(tmp_path):
  result = _invoke(
      '--students=student,student',
      f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={tmp_path / "judge"}',
  )
  _assert_mistake(result, '--students')
  assert not list(tmp_path.iterdir())


def test_unknown_data_set_is_refused(tmp_path):
  result = _invoke(
      '--dataset=mnits',
      f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={tmp_path / "judge"}',
      load=datasets.load,
  )
  _assert_mistake(result, 'mnits', 'mnist')
  assert not list(tmp_path.iterdir())


def test_batch_larger_than_the_data_is_refused(finished, tmp_path):
  _, judge, _ = finished
  result = _invoke(
      '--batch_size=2000',
      f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={judge}',
  )
  _assert_mistake(result, '--batch_size=2000', '1280')
  assert not list(tmp_path.iterdir())


def test_other_flags_in_a_begun_directory_are_refused(finished):
  run, judge, _ = finished
  before = _snapshot(run)
  result = _invoke(
      *RUN, '--seed=1', f'--workdir={run}', f'--judge_workdir={judge}'
  )
  _assert_mistake(result, '--seed=0 there, 1 now', str(run))
  assert _snapshot(run) == before


def test_no_resume_refuses_a_begun_directory(finished):
  run, judge, _ = finished
  before = _snapshot(run)
  result = _invoke(
      *RUN, '--noresume', f'--workdir={run}', f'--judge_workdir={judge}'
  )
  _assert_mistake(result, '--resume')
  assert _snapshot(run) == before


@pytest.mark.parametrize(
    'name',
    [
        'tangent',
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ('path', 'full')
        ),
    ],
)
def test_students_are_supervised_in_other_ways(finished, tmp_path, name):
  _, judge, _ = finished
  run = tmp_path / 'run'
  status, _, err = _invoke(
      '--epochs=1',
      '--nuisance_dim=1',
      f'--jacobian={name}',
      f'--workdir={run}',
      f'--judge_workdir={judge}',
  )
  assert status == 0, err
  student = json.loads((run / 'results.json').read_text())['rows'][1]
  assert (student['model'], student['jacobian']) == ('student', name)
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(lines[-1])['jacobian'] > 0


def test_full_jacobian_that_is_too_large_is_refused(tmp_path):
  result = _invoke(
      '--jacobian=full', '--batch_size=60000', f'--workdir={tmp_path / "run"}'
  )
  _assert_mistake(result, '--jacobian=full', 'MiB', 'accepted')
  assert not (tmp_path / 'run').exists()


# Invariants.


def test_same_command_elsewhere_gives_the_same_bits(finished, tmp_path):
  """Also without event files."""
  run, judge, _ = finished
  status, _, err = _invoke(
      *RUN, f'--workdir={tmp_path / "run"}', f'--judge_workdir={judge}'
  )
  assert status == 0, err
  assert killing.outcome(tmp_path / 'run') == killing.outcome(run)
  assert (tmp_path / 'run' / 'scales.json').read_text() == (
      run / 'scales.json'
  ).read_text()
  assert not (tmp_path / 'run' / 'tensorboard').exists()


def test_same_command_again_is_complete_and_changes_no_result(finished):
  run, judge, _ = finished
  files = ('results.json', 'manifest.json', 'metrics.jsonl')
  before = [(run / name).read_text() for name in files]
  status, out, _ = _invoke(
      *RUN, f'--workdir={run}', f'--judge_workdir={judge}'
  )
  assert status == 0
  assert [(run / name).read_text() for name in files] == before
  # No epoch was taken.
  assert 'images/s' not in out


def _start(workdir, judge):
  return killing.start(
      'mnist', '--epochs=2', '--nuisance_dim=2', '--eval_every=1',
      '--checkpoint_every=1', f'--workdir={workdir}',
      f'--judge_workdir={judge}',
  )  # pyformat: disable


@pytest.mark.slow
def test_killed_three_times_it_gives_the_same_parameters(tmp_path):
  judge = tmp_path / 'judge'
  killing.finish(_start(tmp_path / 'undisturbed', judge))
  run = tmp_path / 'run'
  seed = time.time_ns()
  print(f'seed of the delays: {seed}')
  delay = random.Random(seed).uniform
  in_stage = lambda stage: lambda: killing.has_epoch(run, stage)
  grown = lambda: killing.has_finished(run, 'teacher')

  # In the first stage; as a student grows from it; in that student's stage.
  killing.kill_when(_start(run, judge), in_stage('teacher'), delay(0, 2))
  killing.kill_when(_start(run, judge), grown, delay(0, 1))
  killing.kill_when(_start(run, judge), in_stage('student_d01'), delay(0, 2))
  killing.finish(_start(run, judge))
  assert killing.outcome(run) == killing.outcome(tmp_path / 'undisturbed')


# Faults.


def test_bad_numbers_end_in_one_line(tmp_path, finished):
  _, judge, _ = finished
  status, _, err = _invoke(
      *RUN, '--learning_rate=1e30', f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={judge}',
  )  # pyformat: disable
  assert status == 1
  line = err.splitlines()[-1]
  assert line.startswith('error: teacher, epoch 1, step ')
  assert 'not finite' in line and '--on_nan=rollback' in line
  assert 'Traceback' not in err
  # Nothing but a manifest and no checkpoint: the next one may begin.
  assert not list(tmp_path.glob('run/checkpoints/*/[0-9]*'))


def test_directory_in_use_is_refused(tmp_path, finished):
  _, judge, _ = finished
  lock = locks.Lock(tmp_path / 'run')
  try:
    result = _invoke(
        *RUN, f'--workdir={tmp_path / "run"}', f'--judge_workdir={judge}'
    )
  finally:
    lock.release()
  _assert_mistake(result, 'is in use by a run (process', 'since')
  assert not (tmp_path / 'run').exists()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
  path = tmp_path / 'figures' / 'curves.png'

  def draw(*unused_args, **unused_kwargs):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))

  monkeypatch.setattr(mnist, 'main', draw)
  status, _, err = _invoke()
  assert status == 1
  assert err.startswith(f'error: {path} cannot be written (No space left')
  assert err.count('\n') == 1


def test_other_errors_of_the_system_are_ours(monkeypatch):
  def look(*unused_args, **unused_kwargs):
    raise FileNotFoundError(errno.ENOENT, 'No such file', 'x')

  monkeypatch.setattr(mnist, 'main', look)
  monkeypatch.setattr(sys, 'argv', ['mnist'])
  with flagsaver.flagsaver(), pytest.raises(FileNotFoundError):
    command_line.run(mnist.main)
