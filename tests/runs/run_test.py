"""Tests of jacsup_jax.runs.run."""

import json

import chex
import jax
import numpy as np
import pytest
import quadratic

from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import model as models
from jacsup_jax.runs import run as runs
from jacsup_jax.runs import workdir as workdirs


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('run')
  return path, quadratic.run(path)


def test_stages_are_restored_as_they_were_trained(finished):
  path, trained = finished
  run = runs.Run.open(path)
  assert run.stages == ['teacher', 'd1']
  assert run.find_stage(None) == 'teacher'
  assert run.factor_names == ['y1', 'y2']
  assert run.results is None and run.rows == []
  for expected in trained:
    name = expected.stage.name
    found = run.trained(name)
    assert (found.stage, found.module) == (expected.stage, expected.module)
    assert found.sha256 == expected.sha256
    without = expected.state._replace(opt_state=())
    chex.assert_trees_all_equal(found.state, without)
    chex.assert_trees_all_equal(run.restore(name), found.model)
    whole = run.trained(name, jax.tree.map(np.zeros_like, expected.state))
    chex.assert_trees_all_equal(whole.state, expected.state)


def test_stages_that_are_not_finished_are_refused(finished, tmp_path):
  workdir = workdirs.WorkDir(tmp_path)
  data = {'name': 'none', 'fingerprint': '', 'attributes': ['Smiling']}
  workdir.begin('x', {}, data, ['teacher', 'd1'])
  run = runs.Run.open(tmp_path)
  assert run.planned == ['teacher', 'd1'] and run.factor_names == ['Smiling']
  for found, name, match in (
    (run, 'd1', 'unfinished stage d1'),
    (run, None, 'no finished stage'),
    (runs.Run.open(finished[0]), 'other', 'unknown .* of teacher, d1'),
  ):
    with pytest.raises(errors.InputError, match=match):
      found.find_stage(name)


def test_a_directory_without_a_run_is_refused(tmp_path):
  for path, match in ((tmp_path / 'x', 'holds no run'), ('gs://x', '--a=.*gs')):
    with pytest.raises(errors.InputError, match=match):
      runs.Run.open(path, '--a')


def test_nonsense_in_a_manifest_is_refused_in_one_line(finished, tmp_path):
  path, (_, student) = finished
  (tmp_path / 'checkpoints').symlink_to(path / 'checkpoints')
  larger = models.describe_module(student.module) | {'nuisance_dim': 3}
  for changes, match in (
    ({'module': {'name': 'Unknown'}}, "^.*model named 'Unknown'.*$"),
    ({'stage': {'name': 'd1'}}, '^.*stage of a manifest cannot be read.*$'),
    ({'sha256': '0' * 64}, '^.*the manifest 000000000000.*$'),
    ({'module': larger}, r'^.*of shape .*; accepted: \(.*$'),
  ):
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['stages']['d1'] |= changes
    (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(errors.InputError, match=match):
      runs.Run.open(tmp_path).restore('d1')


def test_data_are_loaded_as_for_the_run(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(
    registry, 'load', lambda *args, **kwargs: calls.append((*args, kwargs))
  )
  data = {
    'name': 'own', 'fingerprint': '', 'data_dir': '/data',
    'options': {'image_shape': [8, 8, 1], 'held_out': 3},
  }  # fmt: skip
  workdirs.WorkDir(tmp_path).begin('x', {}, data)
  run = runs.Run.open(tmp_path)
  run.load_data()
  run.load_data('train', data_dir='/moved')
  run.load_data('test', dataset='other', held_out=0)
  options = {'image_shape': (8, 8, 1), 'held_out': 3}
  assert calls == [
    ('own', 'test', {'data_dir': '/data', **options}),
    ('own', 'train', {'data_dir': '/moved', **options}),
    ('other', 'test', {'data_dir': None, **options, 'held_out': 0}),
  ]
