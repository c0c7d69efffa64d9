"""Tests of repeating runs: repeated_runs, compared_runs, and end to end."""

import json
import os
import shutil
import subprocess
import sys

import coloured_faces
import killing
import numpy as np
import pytest

from experiments import compared_runs
from experiments import repeated_runs
from jacsup_jax.core import errors
from jacsup_jax.runs import circumstances

RUN = (
    '--epochs=1', '--nuisance_dim=1', '--batch_size=32', '--eval_every=1',
    '--dataset=arrays',
)  # pyformat: disable
FACES = (
    '--dataset=celeba_folder', '--image_size=8', '--first_width=4',
    '--last_width=4', '--nuisance_dims=8,12', '--batch_size=8', '--epochs=1',
    '--cycle_epochs=1', '--student_epochs=1', '--judge_epochs=1',
    '--strengths=2,5', '--eval_every=1',
)  # pyformat: disable
MANIFEST = {
    'experiment': 'mnist',
    'flags': {'epochs': 1, 'students': ['student'], 'fold': None, 'on': True},
    'dataset': {'name': 'digits', 'fingerprint': '0123'},
    'devices': ['cpu:0 cpu'],
    'stages': {'teacher': {'sha256': 'a' * 64, 'parent': None}},
}


def _python(*args, **variables):
  return subprocess.run(
      [sys.executable, *args],
      cwd=killing.ROOT,
      env={**os.environ, **variables},
      capture_output=True,
      text=True,
      timeout=900,
      check=False,
  )


def _invoke(binary, *args, **variables):
  return _python('-m', f'experiments.{binary}', *args, **variables)


def _write_digits(path, seed=0):
  """Writes ten noisy patterns in the place of digits."""
  rng = np.random.default_rng(seed)
  labels = np.arange(480) % 10
  images = np.kron(rng.integers(0, 200, (10, 7, 7)), np.ones((4, 4), int))
  images = images[labels] + rng.integers(0, 55, (480, 28, 28))
  split = np.where(np.arange(480) < 384, 'train', 'test')
  images = images[..., None].astype(np.uint8)
  np.savez(path, images=images, labels=labels, split=split)


def _write(directory, name='manifest.json', /, **changes):
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / name
  path.write_text(json.dumps({**MANIFEST, **changes}))
  return path


def _assert_mistake(result, *parts):
  assert result.returncode == 2, result.stderr[-3000:]
  [line] = result.stderr.strip().splitlines()
  assert line.startswith('error: ')
  for part in parts:
    assert part in line, line


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A complete run of few noisy digits: its root, with `run` and `judge`."""
  root = tmp_path_factory.mktemp('repeated')
  _write_digits(root / 'mine.npz')
  done = _invoke(
      'mnist', *RUN, f'--data_dir={root / "mine.npz"}',
      f'--workdir={root / "run"}', f'--judge_workdir={root / "judge"}',
      PYTHONHASHSEED='1',
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-3000:]
  return root


@pytest.fixture(scope='module')
def repeated(finished):
  """Its repetition, which has to train its own judges: what was printed."""
  done = _invoke(
      'reproduce', f'--manifest={finished / "run"}',
      f'--output={finished / "again"}',
      f'--judge_workdir={finished / "judge_again"}', PYTHONHASHSEED='2',
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


# Values.


def test_differences_are_the_largest_of_their_column(tmp_path):
  there = _write(tmp_path / 'a')
  here = _write(tmp_path / 'b')
  rows = [{'mse': 0.5, 'by': [1.0, 2.0], 'model': 'x'}, {'mse': 1.0}]
  other = [{'mse': 0.5, 'by': [1.0, 1.75], 'model': 'y'}, {'mse': 1.25}]
  for path, found in ((there, rows), (here, other)):
    (path.parent / 'results.json').write_text(json.dumps({'rows': found}))
  comparison = compared_runs.compare(there, here)
  # 2.0 - 1.75, 1.25 - 1.0; a name has no difference that is a number.
  assert comparison.columns == {'mse': 0.25, 'by': 0.25, 'model': float('inf')}
  assert comparison.first_difference == 'results.json has other values of mse'
  text = compared_runs.format_markdown(comparison)
  assert '| mse | 0.25 |' in text and '| model | not the same |' in text


def test_the_clock_is_not_compared(tmp_path):
  record = {'stage': 'teacher', 'epoch': 1, 'loss': 0.5, 'seconds': 1.0}
  paths = []
  for name, changes in (('a', {}), ('b', {'seconds': 2.0}), ('c', {'loss': 1})):
    paths.append(_write(tmp_path / name))
    line = json.dumps({**record, **changes}) + '\n'
    # NaN is the same as NaN, which == denies.
    line += json.dumps({**record, 'epoch': 2, 'loss': float('nan')}) + '\n'
    (tmp_path / name / 'metrics.jsonl').write_text(line)
  same = compared_runs.compare(*paths[:2])
  assert same.records == (2, 2) and same.first_difference is None
  other = compared_runs.compare(paths[0], paths[2])
  assert other.records == (2, 1) and other.metrics['loss'] == 0.5
  assert 'metrics.jsonl has other values of loss' in other.first_difference


def test_the_first_stage_that_differs_is_named(tmp_path):
  stages = {name: {'sha256': name * 64} for name in 'abc'}
  there = _write(tmp_path / 'there', stages=stages)
  here = _write(
      tmp_path / 'here', stages={**stages, 'b': {'sha256': 'x'}, 'c': {}}
  )
  comparison = compared_runs.compare(there, here)
  assert comparison.first_difference == 'the stage b has other parameters'
  assert comparison.stages[2] == ('c', 'c' * 64, None)


def test_unfinished_runs_are_compared_as_far_as_they_go(tmp_path):
  there = _write(tmp_path / 'there', stages={})
  comparison = compared_runs.compare(there, _write(tmp_path / 'here'))
  assert comparison.first_difference is None
  assert comparison.columns is None and comparison.records == (0, 0)


def test_circumstances_that_differ_are_lines():
  there = {'versions': {'jax': '1', 'flax': '2'}, 'code': 'a', 'processes': 1}
  here = {'versions': {'jax': '1', 'flax': '3'}, 'code': 'b', 'processes': 1}
  assert compared_runs.list_differences(there, here) == [
      'flax: 2 there, 3 here',
      'code: a there, b here',
      'not in that manifest, which is older: devices, machine, environment',
  ]
  continued = [{'finished': [], 'code': 'c'}]
  lines = compared_runs.list_differences({**here, 'continued': continued}, here)
  assert lines[-1].endswith('other circumstances: code: b there, c here')


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (True, 'true'), (1e-6, '1e-06'), (0.1, '0.1'), (3, '3'), ('a b', 'a b'),
        (['x', 'y,z'], 'x,"y,z"'), ([], ''), ('; rm -rf /', '; rm -rf /'),
    ],
)  # pyformat: disable
def test_values_as_arguments(value, text):
  assert repeated_runs._format(None, 'name', value) == text


# Invariants.


@pytest.mark.parametrize('name', ['mnist', 'svhn', 'celeba', 'ablation'])
def test_all_binaries_are_known(name):
  binaries = {binary for binary, *_ in repeated_runs._BINARIES.values()}
  assert name in binaries
  assert (killing.ROOT / 'experiments' / f'{name}.py').exists()


def _plan(monkeypatch, path, output, known=None, **overrides):
  """Makes a plan without asking the binary; circumstances are the same."""
  original = repeated_runs.read(path)
  names = ('data_dir', 'judge_workdir', 'teacher_workdir')
  known = known or original.manifest['flags']
  monkeypatch.setattr(
      repeated_runs, '_describe', lambda *_: {**MANIFEST, 'flags': known}
  )
  return repeated_runs.make_plan(
      original, output, {name: overrides.get(name) for name in names}
  )


def test_command_has_the_flags_and_where_to_read(monkeypatch, tmp_path):
  how = {'data_dir': '/data', 'workdir': '/there', 'deterministic': True}
  path = _write(tmp_path / 'run', how=how)
  plan = _plan(monkeypatch, path, tmp_path / 'new')
  assert plan.command == [
      '-m', 'experiments.mnist', '--epochs=1', '--students=student',
      '--on=true', '--data_dir=/data', '--deterministic=true',
      '--expected_data=0123', f'--workdir={tmp_path / "new"}',
  ]  # pyformat: disable
  plan = _plan(monkeypatch, path, tmp_path / 'new', data_dir='/elsewhere')
  assert '--data_dir=/elsewhere' in plan.command
  assert '--data_dir=/data' not in plan.command


def test_sums_are_split_as_they_were(monkeypatch, tmp_path):
  monkeypatch.setattr(circumstances, 'count_threads', lambda: 2)
  for threads, expected in ((3, '3'), (2, None), ('x', None), (10**9, None)):
    path = _write(tmp_path / 'run', machine={'threads': threads})
    monkeypatch.delenv('PJRT_NPROC', raising=False)
    plan = _plan(monkeypatch, path, tmp_path / 'new')
    assert plan.environment.get('PJRT_NPROC') == expected
    assert bool(plan.remarks) == (expected is not None)


# Mistakes.


@pytest.mark.parametrize(
    ('text', 'part'),
    [
        ('', 'cannot be read'), ('[1]', 'has not the entries'),
        ('[' * 10_000, 'cannot be read'), ('null', 'has not the entries'),
        ('\xff', 'has not the entries'), ('{}', 'has not the entries'),
    ],
)  # pyformat: disable
def test_what_is_no_manifest_is_refused(tmp_path, text, part):
  path = tmp_path / 'manifest.json'
  path.write_text(text, encoding='latin-1')
  part = 'cannot be read' if text == '\xff' else part
  for given in (path, tmp_path):
    with pytest.raises(errors.InputError, match=part):
      repeated_runs.read(given)
  with pytest.raises(errors.InputError, match='nowhere'):
    repeated_runs.read(tmp_path / 'nowhere')


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'experiment': '../evil'}, "'../evil'; accepted: mnist"),
        ({'experiment': 'os'}, "'os'"),
        ({'experiment': ['mnist']}, 'accepted: mnist'),
        ({'experiment': 'ablation_table4'}, '--table=None'),
        ({'flags': []}, 'has not the entries'),
        ({'stages': {'teacher': {}}}, "no sha256 of the stage 'teacher'"),
        ({'dataset': {}}, 'no fingerprint'),
    ],
)
def test_manifests_of_something_else_are_refused(tmp_path, changes, part):
  with pytest.raises(errors.InputError) as error:
    repeated_runs.read(_write(tmp_path, **changes))
  assert part in str(error.value)


def test_other_flags_than_those_of_the_result_are_refused(tmp_path):
  names = ['flagfile', 'workdir', 'help=x --epochs', 'spirals']
  path = _write(tmp_path, flags={'epochs': 1, **dict.fromkeys(names, 'x')})
  result = _invoke(
      'reproduce', f'--manifest={path}', f'--output={tmp_path / "new"}'
  )
  listed = ', '.join(map(repr, names))
  _assert_mistake(result, f'decide its result: {listed};', str(path))
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('value', [{}, [1], [['a']], {'a': 1}])
def test_values_of_no_flag_are_refused(monkeypatch, tmp_path, value):
  path = _write(tmp_path, flags={'epochs': value})
  with pytest.raises(errors.InputError, match='of --epochs; accepted'):
    _plan(monkeypatch, path, tmp_path / 'new')


def test_a_teacher_is_to_be_there_and_the_same(monkeypatch, tmp_path):
  teacher = tmp_path / 'teacher'
  changes = {
      'flags': {'teacher_workdir': str(teacher)},
      'stages': {
          'student': {
              'sha256': 'b', 'parent': 'teacher', 'parent_sha256': 'c' * 64
          },
      },
  }  # pyformat: disable
  path = _write(tmp_path / 'run', **changes)
  with pytest.raises(errors.InputError, match='--teacher_workdir=.* holds no'):
    _plan(monkeypatch, path, tmp_path / 'new')
  _write(teacher)
  with pytest.raises(errors.InputError, match='teacher of sha256 aaa.* ccc'):
    _plan(monkeypatch, path, tmp_path / 'new')
  _write(teacher, stages={'teacher': {'sha256': 'c' * 64}})
  assert _plan(monkeypatch, path, tmp_path / 'new').command
  own = _write(tmp_path / 'own')
  with pytest.raises(errors.InputError, match='trained its own teacher'):
    _plan(monkeypatch, own, tmp_path / 'new', teacher_workdir=str(teacher))


def test_directories_of_other_runs_are_refused(tmp_path):
  original = repeated_runs.read(_write(tmp_path / 'run'))
  with pytest.raises(errors.InputError, match='that is to be repeated'):
    repeated_runs.check_output(original, tmp_path / 'run')
  _write(tmp_path / 'other', flags={'epochs': 2})
  with pytest.raises(errors.InputError, match='another run, by --epochs'):
    repeated_runs.check_output(original, tmp_path / 'other')
  assert not repeated_runs.check_output(original, tmp_path / 'new')


@pytest.mark.parametrize(
    ('args', 'named'),
    [(['--table=1', '--figure=1'], '--table'), (['--scale=quick'], '--scale')],
)
def test_a_table_and_a_manifest_are_refused(tmp_path, args, named):
  path = _write(tmp_path)
  result = _invoke('reproduce', f'--manifest={path}', *args)
  _assert_mistake(result, f'{named} with --manifest=')


def test_a_value_that_is_refused_is_one_line(tmp_path):
  path = _write(tmp_path, flags={'epochs': 1, 'parallel': 'threads'})
  result = _invoke(
      'reproduce', f'--manifest={path}', f'--output={tmp_path / "new"}'
  )
  _assert_mistake(result, str(path), 'experiments.mnist', 'parallel', 'pmap')
  assert not (tmp_path / 'new').exists()


# End to end.


def test_repeated_to_the_bit(finished, repeated):
  assert 'The same to the bit: 2 stages, 2 lines of metrics' in repeated
  assert 'The circumstances are the same.' in repeated
  assert 'note: ' not in repeated
  text = (finished / 'again' / 'comparison.md').read_text()
  assert text in repeated
  a, b = (killing.outcome(finished / name) for name in ('run', 'again'))
  assert a == b


def test_manifest_has_what_a_repetition_needs(finished):
  manifest = json.loads((finished / 'run' / 'manifest.json').read_text())
  assert set(circumstances.ENTRIES) <= set(manifest)
  assert manifest['how']['data_dir'] == str(finished / 'mine.npz')
  assert manifest['how']['judge_workdir'] == str(finished / 'judge')
  assert manifest['machine']['threads'] == circumstances.count_threads()
  assert manifest['code'] == circumstances.hash_code(
      'jacsup_jax', 'experiments'
  )
  assert 'continued' not in manifest


@pytest.fixture
def tampered(finished, repeated, tmp_path):
  """A copy of the run whose teacher is another one, and its repetition."""
  del repeated
  for name in ('run', 'again'):
    shutil.copytree(finished / name, tmp_path / name)
  path = tmp_path / 'run' / 'manifest.json'
  manifest = json.loads(path.read_text())
  manifest['stages']['teacher']['sha256'] = 'f' * 64
  path.write_text(json.dumps(manifest))
  return path


def test_other_bits_in_the_same_circumstances_are_an_error(tampered):
  args = (f'--manifest={tampered}', f'--output={tampered.parents[1] / "again"}')
  done = _invoke('reproduce', *args)
  assert done.returncode == 1
  assert 'error: Not the same to the bit: the stage teacher' in done.stderr
  # Nothing was run, as the repetition is complete.
  assert 'python -m' not in done.stdout
  manifest = json.loads(tampered.read_text())
  manifest['machine']['processor'] = 'another'
  tampered.write_text(json.dumps(manifest))
  done = _invoke('reproduce', *args)
  assert done.returncode == 0
  assert '- processor: another there' in done.stdout


def test_other_data_are_refused_before_training(finished, tmp_path):
  _write_digits(tmp_path / 'mine.npz', seed=1)
  done = _invoke(
      'reproduce', f'--manifest={finished / "run"}',
      f'--output={tmp_path / "new"}', f'--data_dir={tmp_path / "mine.npz"}',
  )  # pyformat: disable
  assert done.returncode == 2
  first, last = done.stderr.strip().splitlines()
  assert '--expected_data=' in first and 'fingerprint' in first
  assert 'experiments.mnist ended with status 2' in last
  assert not (tmp_path / 'new').exists()


def test_norun_says_the_command(finished, tmp_path):
  result = _invoke(
      'reproduce', f'--manifest={finished / "run"}', '--norun',
      f'--output={tmp_path / "new"}',
  )  # pyformat: disable
  _assert_mistake(result, 'python -m experiments.mnist', '--nuisance_dim=1')
  assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_faces_are_repeated_to_the_bit(tmp_path):
  folder = tmp_path / 'faces'
  folder.mkdir()
  coloured_faces.write(folder)
  done = _invoke(
      'celeba', *FACES, f'--data_dir={folder}', f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={tmp_path / "judge"}', TFDS_DATA_DIR=str(tmp_path),
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-3000:]
  done = _invoke(
      'reproduce', f'--manifest={tmp_path / "run"}',
      f'--output={tmp_path / "again"}', TFDS_DATA_DIR=str(tmp_path),
  )  # pyformat: disable
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'The same to the bit: 3 stages' in done.stdout


# Few faces are drawn, where a run draws 14,000.
_DRAWN = """
import runpy, sys
from jacsup_jax.data import drawn_faces
drawn_faces.SPLIT_SIZES.update(train=48, validation=16, test=16)
sys.argv = ['experiments/celeba.py', *sys.argv[1:]]
runpy.run_module('experiments.celeba', run_name='__main__', alter_sys=True)
"""


@pytest.mark.slow
def test_drawn_faces_give_the_same_bits_twice(tmp_path):
  outcomes = []
  for name in ('a', 'b'):
    # Drawn, judged and trained anew, by another order of hashes.
    root = tmp_path / name
    (root / 'data').mkdir(parents=True)
    done = _python(
        '-c', _DRAWN, *FACES, '--dataset=synthetic_faces', '--image_size=16',
        f'--data_dir={root / "data"}', f'--workdir={root / "run"}',
        f'--judge_workdir={root / "judge"}', PYTHONHASHSEED=str(ord(name)),
    )  # pyformat: disable
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes.append(killing.outcome(root / 'run'))
  assert outcomes[0] == outcomes[1]
