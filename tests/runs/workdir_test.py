"""Tests of jacsup_jax.runs.workdir."""

import json

import numpy as np
import pytest
import quadratic

from jacsup_jax.core import errors
from jacsup_jax.runs import workdir as workdirs

CONFIG = {'seed': 0, 'students': ['student'], 'lambda_y': 0.25}
DATASET = {'name': 'digits', 'fingerprint': '0123', 'data_dir': '/data'}


def _begun(path, dataset=DATASET, **kwargs):
  workdir = workdirs.WorkDir(path)
  workdir.begin('mnist', CONFIG, dataset, ['teacher', 'student_d01'], **kwargs)
  return workdir


def _refuses(match, function, *args, **kwargs):
  with pytest.raises(errors.InputError, match=match) as error:
    function(*args, **kwargs)
  assert '\n' not in str(error.value)


def test_manifest_has_config_versions_and_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=false')
  path = tmp_path / 'new' / 'run'
  _begun(path, teachers={'workdir': tmp_path})
  manifest = json.loads((path / 'manifest.json').read_text())
  assert manifest['config'] == CONFIG and manifest['dataset'] == DATASET
  assert manifest['stages'] == {} and manifest['devices']
  assert {'jax', 'flax', 'numpy', 'python'} <= set(manifest['versions'])
  environment = manifest['environment']
  assert environment['XLA_FLAGS'] == '--xla_cpu_enable_fast_math=false'
  assert len((environment['git_commit'] or '0' * 40).rstrip('+')) == 40
  assert manifest['teachers'] == {'workdir': str(tmp_path)}


def test_same_flags_may_resume(tmp_path, monkeypatch):
  _begun(tmp_path)
  # Tuples and NumPy numbers are those of JSON; data may have moved.
  same = {**CONFIG, 'students': ('student',), 'seed': np.int32(0)}
  again = workdirs.WorkDir(tmp_path)
  again.check(same)
  again.begin('other', {}, {**DATASET, 'data_dir': '/moved'})
  assert workdirs.WorkDir(tmp_path).manifest['config'] == CONFIG
  _refuses('--resume', again.check, same, resume=False)
  other = {**DATASET, 'fingerprint': '4567'}
  _refuses('0123.*4567', again.begin, 'mnist', CONFIG, other)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert workdirs.WorkDir('~').manifest == again.manifest


def test_a_run_of_before_a_switch_may_resume_without_it(tmp_path):
  options = {'image_size': 64, 'skip_bad_images': False}
  _begun(tmp_path, DATASET | {'options': options})
  again = workdirs.WorkDir(tmp_path)
  new = DATASET | {'options': {**options, 'skip_more': False}}
  again.check({**CONFIG, 'skip_more': False})
  again.begin('mnist', CONFIG, new)
  _refuses('--skip_more=None there', again.check, {**CONFIG, 'skip_more': True})
  new['options'] |= {'skip_more': True}
  _refuses('skip_more', again.begin, 'mnist', CONFIG, new)


def test_check_lists_other_flags_and_writes_nothing(tmp_path):
  workdirs.WorkDir(tmp_path / 'new').check(CONFIG, resume=False)
  assert not (tmp_path / 'new').exists()
  old = _begun(tmp_path / 'old')
  before = (old.path / 'manifest.json').stat().st_mtime_ns
  match = 'flags: --new=None there, 0.5 now; --seed=0 there, 1 now. Accepted'
  _refuses(match, old.check, {**CONFIG, 'seed': 1, 'new': 0.5})
  [path] = old.path.iterdir()
  assert path.stat().st_mtime_ns == before


def test_damaged_manifest_is_refused_in_one_line(tmp_path):
  path, whole = tmp_path / 'manifest.json', _begun(tmp_path).manifest
  entry = {'teacher': {'sha256': 'a', 'epochs': '1'}}
  for change in ({'config': None}, {'stages': entry}, {'stages': {'a': 1}}):
    path.write_text(json.dumps(whole | change))
    _refuses('manifest.json', workdirs.WorkDir, tmp_path)
  path.write_text('{"a": {')
  _refuses('manifest.json', workdirs.WorkDir, tmp_path)


def _record(step, stage='teacher'):
  return {'stage': stage, 'step': step}


def test_cut_off_last_line_is_left_out(tmp_path):
  workdir = _begun(tmp_path)
  assert workdir.read_metrics() == []
  workdir.append_metrics(_record(np.int32(1)))
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"stage": "a", "st')
  assert workdir.read_metrics() == [_record(1)]
  # Resuming removes it, so that the next line is whole.
  workdir.drop_metrics_after('teacher', 1)
  workdir.append_metrics(_record(2))
  assert workdir.read_metrics() == [_record(1), _record(2)]
  for line in ('{', '{"stage": "a"}'):  # Whole, but damaged.
    path.write_text(f'{{"stage": "a", "step": 1}}\n{line}\n')
    _refuses('metrics.jsonl line 2', workdir.read_metrics)


def test_steps_after_a_checkpoint_are_dropped_of_its_stage_alone(tmp_path):
  workdir = _begun(tmp_path)
  for stage, step in (('a', 1), ('a', 2), ('b', 3), ('b', 4)):
    workdir.append_metrics(_record(step, stage))
  workdir.drop_metrics_after('b', 3)
  assert [r['step'] for r in workdir.read_metrics()] == [1, 2, 3]


def test_failed_append_leaves_whole_lines(tmp_path):
  workdir = _begun(tmp_path)
  workdir.append_metrics(_record(1))
  size = (tmp_path / 'metrics.jsonl').stat().st_size
  with quadratic.file_size_limit(size + 5):
    with pytest.raises(errors.StorageError, match='cannot be written'):
      workdir.append_metrics(_record(2))
  assert workdir.read_metrics() == [_record(1)]


def test_results_are_json(tmp_path):
  workdir = _begun(tmp_path)
  row = {'model': 'teacher', 'mse': np.float32(0.5), 'each': np.arange(2)}
  assert not workdir.is_complete
  workdir.write_results('mnist', 'a protocol', [row], judges={'seeds': (0, 1)})
  expected = {'experiment': 'mnist', 'protocol': 'a protocol'}
  expected |= {'judges': {'seeds': [0, 1]}}
  expected |= {'rows': [row | {'mse': 0.5, 'each': [0, 1]}]}
  assert workdir.read_results() == expected
  assert workdir.is_complete and workdirs.WorkDir(tmp_path).is_complete
  (tmp_path / 'results.json').write_text('{"rows": []}')
  _refuses('results.json', workdir.read_results)


def test_paths_that_orbax_would_glob_are_refused(tmp_path, monkeypatch):
  link = tmp_path / 'link'
  link.symlink_to(tmp_path / 'run[lr=1e-3]')
  for name in ('run[lr=1e-3]', 'a*', 'b?c/run', 'x]', 'link/run'):
    workdir = workdirs.WorkDir(tmp_path / name)
    _refuses('could not be read back', workdir.check, CONFIG)
    _refuses('could not be read back', workdir.begin, 'mnist', CONFIG, DATASET)
  assert list(tmp_path.iterdir()) == [link]
  # The folder that is at fault may be above one that is named.
  (tmp_path / 'old [1]').mkdir()
  monkeypatch.chdir(tmp_path / 'old [1]')
  workdir = workdirs.WorkDir('run')
  _refuses(r'/old \[1\]/run .* has \[ \];', workdir.check, CONFIG)


def test_files_and_directories_of_something_else_are_refused(tmp_path):
  workdirs.WorkDir(tmp_path).check(CONFIG)  # Empty.
  (tmp_path / 'letter.txt').write_text('dear')
  _refuses('no manifest.json', workdirs.WorkDir(tmp_path).check, CONFIG)
  _refuses('is a file', workdirs.WorkDir, tmp_path / 'letter.txt')
  assert [p.name for p in tmp_path.iterdir()] == ['letter.txt']


def test_a_second_run_is_refused(tmp_path):
  workdir = workdirs.WorkDir(tmp_path / 'new' / 'run')
  with workdir.locked():
    second = workdirs.WorkDir(tmp_path / 'new' / 'run').locked()
    _refuses('in use by another run', second.__enter__)
    workdir.check(CONFIG)  # The lock is not a file of something else.
    assert (tmp_path / 'new' / 'run').exists()
  # Nothing was written.
  assert not list(tmp_path.iterdir())


def test_a_lock_reads_the_manifest_again(tmp_path):
  late = workdirs.WorkDir(tmp_path)
  _begun(tmp_path)
  with late.locked():
    assert late.manifest['config'] == CONFIG
  assert [p.name for p in tmp_path.iterdir()] == ['manifest.json']
