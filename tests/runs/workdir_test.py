"""Tests of jacsup_jax.runs.workdir."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.runs import workdir as workdirs

CONFIG = {'seed': 0, 'students': ['student'], 'lambda_y': 0.25}
DATASET = {'name': 'digits', 'fingerprint': '0123', 'data_dir': '/data'}


def _begun(path, config=CONFIG, dataset=DATASET, **kwargs):
  workdir = workdirs.WorkDir(path)
  workdir.begin('mnist', config, dataset, ['teacher', 'student_d01'], **kwargs)
  return workdir


# Values.


def test_differing_flags_are_listed_with_both_values(tmp_path):
  _begun(tmp_path)
  with pytest.raises(errors.InputError) as error:
    workdirs.WorkDir(tmp_path).check({**CONFIG, 'seed': 1, 'lambda_y': 0.5})
  message = str(error.value)
  assert '--lambda_y=0.25 there, 0.5 now' in message
  assert '--seed=0 there, 1 now' in message
  assert 'students' not in message
  assert str(tmp_path) in message and '\n' not in message
  for config in ({**CONFIG, 'new': 3}, {'seed': 0, 'students': ['student']}):
    with pytest.raises(errors.InputError, match='--(new|lambda_y)='):
      workdirs.WorkDir(tmp_path).check(config)


def test_manifest_has_config_versions_and_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=false')
  path = tmp_path / 'new' / 'run'
  _begun(path, teachers={'workdir': tmp_path})
  manifest = json.loads((path / 'manifest.json').read_text())
  assert manifest['experiment'] == 'mnist'
  assert manifest['config'] == CONFIG and manifest['dataset'] == DATASET
  assert manifest['planned'] == ['teacher', 'student_d01']
  assert manifest['stages'] == {} and manifest['devices']
  assert {'jax', 'flax', 'numpy', 'python'} <= set(manifest['versions'])
  environment = manifest['environment']
  assert environment['XLA_FLAGS'] == '--xla_cpu_enable_fast_math=false'
  assert environment['git_commit'] is None or len(
    environment['git_commit'].rstrip('+')
  ) in (40, 64)
  assert manifest['teachers'] == {'workdir': str(tmp_path)}


def test_results_are_json(tmp_path):
  workdir = _begun(tmp_path)
  row = {
    'model': 'teacher',
    'nuisance_dim': 0,
    'mse': np.float32(0.5),
    'pairs': np.int64(3),
    'each': np.arange(2),
  }  # pyformat: disable
  assert not workdir.is_complete
  workdir.write_results('mnist', 'a protocol', [row], judges={'seeds': (0, 1)})
  assert json.loads((tmp_path / 'results.json').read_text()) == {
    'experiment': 'mnist',
    'protocol': 'a protocol',
    'judges': {'seeds': [0, 1]},
    'rows': [row | {'mse': 0.5, 'pairs': 3, 'each': [0, 1]}],
  }
  assert workdir.read_results()['rows'][0]['pairs'] == 3
  assert workdir.is_complete and workdirs.WorkDir(tmp_path).is_complete


def test_paths(tmp_path, monkeypatch):
  workdir = workdirs.WorkDir(tmp_path)
  assert workdir.figures == tmp_path / 'figures'
  assert workdir.checkpoints('teacher') == tmp_path / 'checkpoints' / 'teacher'
  monkeypatch.setenv('HOME', str(tmp_path))
  assert workdirs.WorkDir('~/run').path == tmp_path / 'run'


# Invariants.


def test_same_flags_may_resume(tmp_path):
  _begun(tmp_path).record_stage('teacher', {'sha256': 'abc'})
  # Tuples and NumPy numbers are those of JSON.
  same = {**CONFIG, 'students': ('student',), 'seed': np.int32(0)}
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  manifest['stages'] = {}
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  again = workdirs.WorkDir(tmp_path)
  again.check(same)
  again.begin('other', {}, {**DATASET, 'data_dir': '/moved'})
  assert workdirs.WorkDir(tmp_path).manifest == manifest
  with pytest.raises(errors.InputError, match='--resume'):
    again.check(same, resume=False)
  workdirs.WorkDir(tmp_path / 'new').check(same, resume=False)


def test_check_writes_nothing(tmp_path):
  workdirs.WorkDir(tmp_path / 'new').check(CONFIG)
  assert not (tmp_path / 'new').exists()
  _begun(tmp_path / 'old')
  before = (tmp_path / 'old' / 'manifest.json').stat().st_mtime_ns
  workdirs.WorkDir(tmp_path / 'old').check(CONFIG)
  with pytest.raises(errors.InputError):
    workdirs.WorkDir(tmp_path / 'old').check({})
  assert [p.name for p in (tmp_path / 'old').iterdir()] == ['manifest.json']
  after = (tmp_path / 'old' / 'manifest.json').stat().st_mtime_ns
  assert after == before


def test_other_data_are_refused(tmp_path):
  _begun(tmp_path)
  with pytest.raises(errors.InputError, match='0123.*4567'):
    _begun(tmp_path, dataset={**DATASET, 'fingerprint': '4567'})
  _begun(tmp_path)


def test_run_killed_before_its_manifest_was_whole_may_begin_again(
  tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', _raise_killed)
    with pytest.raises(KeyboardInterrupt):
      _begun(tmp_path)
  again = workdirs.WorkDir(tmp_path)
  again.check(CONFIG)
  again.begin('mnist', CONFIG, DATASET)
  assert workdirs.WorkDir(tmp_path).manifest['config'] == CONFIG


def _raise_killed(*unused_args):
  raise KeyboardInterrupt


def test_results_appear_whole_or_not_at_all(tmp_path, monkeypatch):
  workdir = _begun(tmp_path)
  row = {'model': 'teacher'}
  workdir.write_results('mnist', '', [row | {'mse': 1.0}])
  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', _raise_killed)
    with pytest.raises(KeyboardInterrupt):
      workdir.write_results('mnist', '', [row | {'mse': 2.0}])
  assert workdir.read_results()['rows'] == [row | {'mse': 1.0}]


# Bad input.


@pytest.mark.parametrize('name', ['run[lr=1e-3]', 'a*', 'b?c', 'x]'])
def test_paths_that_orbax_would_glob_are_refused(tmp_path, name):
  link = tmp_path / 'link'
  link.symlink_to(tmp_path / name)
  for path in (tmp_path / name, tmp_path / name / 'run', link / 'run'):
    with pytest.raises(errors.InputError, match='could not be read back'):
      workdirs.WorkDir(path)
  assert list(tmp_path.iterdir()) == [link]


@pytest.mark.parametrize('address', ['gs://bucket/run', 's3://bucket/run'])
def test_addresses_are_refused(tmp_path, monkeypatch, address):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.InputError, match=f'--workdir={address}'):
    workdirs.WorkDir(address)
  assert not list(tmp_path.iterdir())


def test_directory_of_something_else_is_refused(tmp_path):
  workdirs.WorkDir(tmp_path).check(CONFIG)  # Empty.
  (tmp_path / 'letter.txt').write_text('dear')
  with pytest.raises(errors.InputError, match='no manifest.json'):
    workdirs.WorkDir(tmp_path).check(CONFIG)
  assert [p.name for p in tmp_path.iterdir()] == ['letter.txt']


def test_file_is_refused(tmp_path):
  (tmp_path / 'run').write_text('')
  with pytest.raises(errors.InputError, match='is a file'):
    workdirs.WorkDir(tmp_path / 'run')
  with pytest.raises(errors.InputError, match='is below the file .*run'):
    workdirs.WorkDir(tmp_path / 'run' / 'deeper' / 'still')


@pytest.mark.parametrize(
  'change',
  [
    lambda m: [],
    lambda m: {k: v for k, v in m.items() if k != 'config'},
    lambda m: m | {'planned': 'teacher'},
    lambda m: m | {'stages': {'teacher': 3}},
    lambda m: m | {'stages': {'teacher': {'sha256': 'a', 'epochs': '1'}}},
    lambda m: m | {'checkpoints': {'teacher': {'../..': 'a'}}},
  ],
)
def test_damaged_manifest_is_refused_in_one_line(tmp_path, change):
  path = tmp_path / 'manifest.json'
  _begun(tmp_path)
  for text in (json.dumps(change(json.loads(path.read_text()))), '', '{"a": {'):
    path.write_text(text)
    with pytest.raises(errors.InputError, match='manifest.json') as error:
      workdirs.WorkDir(tmp_path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'text', ['[]', '{"rows": []}', '{"protocol": "", "rows": [1]}']
)
def test_damaged_results_are_refused(tmp_path, text):
  workdir = _begun(tmp_path)
  (tmp_path / 'results.json').write_text(text)
  with pytest.raises(errors.InputError, match='results.json'):
    workdir.read_results()


# Locks.


def test_a_second_run_is_refused(tmp_path):
  workdir = workdirs.WorkDir(tmp_path / 'new' / 'run')
  with workdir.locked():
    with pytest.raises(errors.InputError, match='in use by another run'):
      with workdirs.WorkDir(tmp_path / 'new' / 'run').locked():
        pass
    workdir.check(CONFIG)  # The lock is not a file of something else.
    assert (tmp_path / 'new' / 'run').exists()
  # Nothing was written.
  assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_its_process_and_the_manifest_is_read_again(tmp_path):
  code = (
    'import sys, time; from jacsup_jax.runs import workdir\n'
    'with workdir.WorkDir(sys.argv[1]).locked():\n'
    '  print("held", flush=True)\n'
    '  time.sleep(600)'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == b'held\n'
  late = workdirs.WorkDir(tmp_path)
  with pytest.raises(errors.InputError, match='in use'):
    with late.locked():
      pass
  process.kill()
  process.wait()
  _begun(tmp_path)
  with late.locked():
    assert late.manifest['config'] == CONFIG
  assert [p.name for p in tmp_path.iterdir()] == ['manifest.json']
