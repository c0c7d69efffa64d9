"""Tests of jacsup_jax.workdirs."""

import json
import os

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.runs import workdir as workdirs

FLAGS = {'seed': 0, 'students': ['student'], 'lambda_y': 0.25}


DATASET = {'name': 'digits', 'fingerprint': '0123'}


def _begun(path, flags=None, dataset=None):
  workdir = workdirs.WorkDir(path)
  workdir.begin('mnist', flags or FLAGS, dataset or DATASET, ['cpu:0 cpu'])
  return workdir


# Values.


def test_differing_flags_are_listed_with_both_values(tmp_path):
  _begun(tmp_path)
  with pytest.raises(errors.InputError) as error:
    workdirs.WorkDir(tmp_path).check({**FLAGS, 'seed': 1, 'lambda_y': 0.5})
  message = str(error.value)
  assert '--lambda_y=0.25 there, 0.5 now' in message
  assert '--seed=0 there, 1 now' in message
  assert 'students' not in message
  assert str(tmp_path) in message and '\n' not in message


def test_flags_of_one_side_only_differ(tmp_path):
  _begun(tmp_path)
  for flags in ({**FLAGS, 'new': 3}, {'seed': 0, 'students': ['student']}):
    with pytest.raises(errors.InputError, match='--(new|lambda_y)='):
      workdirs.WorkDir(tmp_path).check(flags)


def test_manifest_has_flags_versions_and_stages(tmp_path):
  _begun(tmp_path / 'new' / 'run')
  path = tmp_path / 'new' / 'run' / 'manifest.json'
  manifest = json.loads(path.read_text())
  assert manifest['experiment'] == 'mnist'
  assert manifest['flags'] == FLAGS
  assert manifest['dataset'] == DATASET
  assert manifest['devices'] == ['cpu:0 cpu']
  assert manifest['stages'] == {}
  assert {'jax', 'flax', 'numpy', 'python'} <= set(manifest['versions'])


def test_manifest_has_further_entries(tmp_path):
  workdir = workdirs.WorkDir(tmp_path)
  workdir.begin(
      'mnist', FLAGS, DATASET, [], how={'data_dir': tmp_path}, code='c'
  )
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  assert manifest['how'] == {'data_dir': str(tmp_path)}
  assert manifest['code'] == 'c'


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path):
  begin = lambda **entries: workdirs.WorkDir(tmp_path).begin(
      'mnist', FLAGS, DATASET, ['cpu:0 cpu'], **entries
  )
  machine = {'threads': 2}
  begin(machine=machine, how={'progress': True})
  workdirs.WorkDir(tmp_path).record_stage('teacher', {'sha256': 'abc'})
  # How it is shown decides nothing.
  begin(machine=machine, how={'progress': False})
  assert 'continued' not in workdirs.WorkDir(tmp_path).manifest
  for _ in range(2):
    begin(machine={'threads': 4}, how={})
  manifest = workdirs.WorkDir(tmp_path).manifest
  [continued] = manifest['continued']
  assert continued['finished'] == ['teacher']
  assert continued['machine'] == {'threads': 4}
  assert manifest['machine'] == machine
  # Back where it began.
  begin(machine=machine)
  assert len(workdirs.WorkDir(tmp_path).manifest['continued']) == 2


def test_results_are_json(tmp_path):
  workdir = _begun(tmp_path)
  row = {
      'model': 'teacher', 'nuisance_dim': 0, 'mse': np.float32(0.5),
      'pairs': np.int64(3),
  }  # pyformat: disable
  assert not workdir.is_complete
  workdir.write_results('mnist', 'a protocol', [row], judges={'seeds': (0, 1)})
  assert json.loads((tmp_path / 'results.json').read_text()) == {
      'experiment': 'mnist',
      'protocol': 'a protocol',
      'judges': {'seeds': [0, 1]},
      'rows': [
          {'model': 'teacher', 'nuisance_dim': 0, 'mse': 0.5, 'pairs': 3}
      ],
  }
  assert workdir.read_results()['rows'][0]['pairs'] == 3
  assert workdir.is_complete and workdirs.WorkDir(tmp_path).is_complete


def test_paths(tmp_path):
  workdir = workdirs.WorkDir(tmp_path)
  assert workdir.figures == tmp_path / 'figures'
  assert workdir.checkpoints('teacher') == tmp_path / 'checkpoints' / 'teacher'


# Invariants.


def test_same_flags_may_continue(tmp_path):
  _begun(tmp_path)
  # Tuples and numbers of numpy are those of JSON.
  same = {**FLAGS, 'students': ('student',), 'seed': np.int32(0)}
  workdirs.WorkDir(tmp_path).check(same)


def test_check_writes_nothing(tmp_path):
  workdirs.WorkDir(tmp_path / 'new').check(FLAGS)
  assert not (tmp_path / 'new').exists()
  _begun(tmp_path / 'old')
  before = (tmp_path / 'old' / 'manifest.json').stat()
  for flags in (FLAGS, {}):
    try:
      workdirs.WorkDir(tmp_path / 'old').check(flags)
    except errors.InputError:
      pass
  assert [p.name for p in (tmp_path / 'old').iterdir()] == ['manifest.json']
  after = (tmp_path / 'old' / 'manifest.json').stat()
  assert after.st_mtime_ns == before.st_mtime_ns


def test_empty_directory_is_accepted(tmp_path):
  workdirs.WorkDir(tmp_path).check(FLAGS)


def test_directory_of_something_else_is_refused(tmp_path):
  (tmp_path / 'letter.txt').write_text('dear')
  with pytest.raises(errors.InputError, match='no manifest.json'):
    workdirs.WorkDir(tmp_path).check(FLAGS)
  assert [p.name for p in tmp_path.iterdir()] == ['letter.txt']


def test_file_is_refused(tmp_path):
  (tmp_path / 'run').write_text('')
  with pytest.raises(errors.InputError, match='is a file'):
    workdirs.WorkDir(tmp_path / 'run')
  with pytest.raises(errors.InputError, match='is below the file .*run'):
    workdirs.WorkDir(tmp_path / 'run' / 'deeper' / 'still')


@pytest.mark.parametrize('text', ['', '[]', '{"flags": {}}', '{"flags": {'])
def test_damaged_manifest_is_refused_by_name(tmp_path, text):
  (tmp_path / 'manifest.json').write_text(text)
  with pytest.raises(errors.InputError, match='manifest.json'):
    workdirs.WorkDir(tmp_path)


def test_run_killed_before_its_manifest_was_whole_may_begin_again(
    tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', _raise_killed)
    with pytest.raises(KeyboardInterrupt):
      _begun(tmp_path)
  again = workdirs.WorkDir(tmp_path)
  again.check(FLAGS)
  again.begin('mnist', FLAGS, DATASET, [])
  assert workdirs.WorkDir(tmp_path).manifest['flags'] == FLAGS


def _raise_killed(*unused_args):
  raise KeyboardInterrupt


def test_no_resume_refuses_a_run_that_is_there(tmp_path):
  workdirs.WorkDir(tmp_path).check(FLAGS, resume=False)
  _begun(tmp_path)
  with pytest.raises(errors.InputError, match='--resume'):
    workdirs.WorkDir(tmp_path).check(FLAGS, resume=False)


def test_begin_keeps_what_is_there(tmp_path):
  _begun(tmp_path).record_stage('teacher', {'sha256': 'abc'})
  again = workdirs.WorkDir(tmp_path)
  again.begin('other', {}, DATASET, [])
  assert workdirs.WorkDir(tmp_path).manifest['experiment'] == 'mnist'
  assert again.manifest['stages'] == {'teacher': {'sha256': 'abc'}}


def test_an_older_manifest_goes_on_as_it_is(tmp_path):
  _begun(tmp_path)
  before = (tmp_path / 'manifest.json').read_text()
  again = workdirs.WorkDir(tmp_path)
  again.check(FLAGS)
  # It has no such entries, and they are not known to be others.
  again.begin('mnist', FLAGS, DATASET, ['cpu:0 cpu'], code='c', machine={})
  assert (tmp_path / 'manifest.json').read_text() == before


def test_run_begun_on_other_data_is_refused(tmp_path):
  _begun(tmp_path)
  with pytest.raises(errors.InputError, match='0123.*4567'):
    _begun(tmp_path, dataset={**DATASET, 'fingerprint': '4567'})
  _begun(tmp_path)


def test_metrics_come_back_in_order(tmp_path):
  workdir = _begun(tmp_path)
  assert workdir.read_metrics() == []
  records = [{'stage': 'a', 'epoch': i, 'step': 10 * i} for i in (1, 2)]
  for record in records:
    workdir.append_metrics(record)
  assert workdir.read_metrics() == records


def test_cut_off_last_line_is_left_out(tmp_path):
  workdir = _begun(tmp_path)
  workdir.append_metrics({'stage': 'a', 'step': 1})
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + '{"stage": "a", "st')
  assert workdir.read_metrics() == [{'stage': 'a', 'step': 1}]
  # Resuming cleans it, so that the next line is whole.
  workdir.drop_metrics_after('a', 1)
  workdir.append_metrics({'stage': 'a', 'step': 2})
  assert [r['step'] for r in workdir.read_metrics()] == [1, 2]


def test_steps_after_a_checkpoint_are_dropped_of_its_stage_alone(tmp_path):
  workdir = _begun(tmp_path)
  for stage, step in (('a', 1), ('a', 2), ('b', 3), ('b', 4)):
    workdir.append_metrics({'stage': stage, 'step': step})
  workdir.drop_metrics_after('b', 3)
  assert [r['step'] for r in workdir.read_metrics()] == [1, 2, 3]
  workdir.drop_metrics_after('a', 0)
  assert [r['step'] for r in workdir.read_metrics()] == [3]


def test_results_appear_whole_or_not_at_all(tmp_path, monkeypatch):
  workdir = _begun(tmp_path)
  workdir.write_results('mnist', '', [{'mse': 1.0}])
  with monkeypatch.context() as patch:
    # A crash after the text is written, before it has its name.
    patch.setattr(os, 'replace', _raise_killed)
    with pytest.raises(KeyboardInterrupt):
      workdir.write_results('mnist', '', [{'mse': 2.0}])
  path = tmp_path / 'results.json'
  assert json.loads(path.read_text())['rows'] == [{'mse': 1.0}]
  workdir.write_results('mnist', '', [{'mse': 3.0}])
  assert json.loads(path.read_text())['rows'] == [{'mse': 3.0}]
