"""Tests of jacsup_jax.runs.stages: the engine, on quadratics."""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import chex
import pytest
import quadratic
from quadratic import CHAIN
from quadratic import EPOCHS
from quadratic import STEPS

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import signals
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  path = tmp_path_factory.mktemp('undisturbed')
  return path, quadratic.run(path)


def _manifest(path):
  return json.loads((path / 'manifest.json').read_text())


def _assert_same(path, trained, undisturbed):
  """A disturbed run ends as the undisturbed one, bit for bit."""
  expected_path, expected = undisturbed
  for found, model in zip(trained, expected, strict=True):
    chex.assert_trees_all_equal(found.state, model.state)
    assert found.sha256 == model.sha256
  # Each (stage, epoch) once, with the same numbers.
  assert quadratic.read_metrics(path) == quadratic.read_metrics(expected_path)
  assert _manifest(path)['stages'] == _manifest(expected_path)['stages']


def _check_same_after(path, undisturbed, **kwargs):
  _assert_same(path, quadratic.run(path, **kwargs), undisturbed)


def test_metrics_have_every_epoch_once_and_the_manifest_parents(undisturbed):
  path, trained = undisturbed
  records = quadratic.read_metrics(path)
  assert [(r['stage'], r['epoch'], r['step']) for r in records] == [
    (stage.name, epoch, STEPS * (EPOCHS * i + epoch))
    for i, stage in enumerate(CHAIN)
    for epoch in range(1, EPOCHS + 1)
  ]
  # Evaluated at epoch 2 and at the last.
  assert [r['epoch'] for r in records if 'eval_dim' in r] == [2, 3] * 2
  assert records[-1]['eval_dim'] == records[0]['constant'] == 1
  recorded = _manifest(path)['stages']
  assert list(recorded) == ['teacher', 'd1']
  assert recorded['teacher']['parent_sha256'] is None
  assert recorded['d1']['parent_sha256'] == recorded['teacher']['sha256']
  for model in trained:
    entry = recorded[model.stage.name]
    assert entry['stage'] == model.stage.to_json()
    assert entry['sha256'] == codes.hash_tree(model.state.params)


def test_plateau_is_so_many_epochs_without_a_lowest_error():
  for errors_, patience in (([], 1), ([1.0, 0.9], 1), ([0.9, 1.0, 0.95], 3)):
    assert not stages.has_plateaued(errors_, patience)
  assert stages.has_plateaued([1.0, 1.0], 1)  # Equal is not better.
  assert stages.has_plateaued([0.9, 1.0, 0.95], 2)


# Before and after each file is written: checkpoint, the stage's entry in the
# manifest, metrics.
@pytest.mark.parametrize('after', [False, True])
@pytest.mark.parametrize(
  ('target', 'name', 'number'),
  [
    (checkpoints.StageCheckpoints, 'save', 1),
    (workdirs.WorkDir, 'record_stage', 1),
    (workdirs.WorkDir, 'append_metrics', 1),
    (workdirs.WorkDir, 'append_metrics', 4),
  ],
)
def test_killed_between_two_writes_is_bit_identical(
  undisturbed, tmp_path, monkeypatch, target, name, number, after
):
  function, calls = getattr(target, name), itertools.count(1)

  def call(*args, **kwargs):
    is_last = next(calls) == number
    result = None if is_last and not after else function(*args, **kwargs)
    if is_last:
      raise quadratic.Killed
    return result

  with monkeypatch.context() as patch, pytest.raises(quadratic.Killed):
    patch.setattr(target, name, call)
    quadratic.run(tmp_path)
  _check_same_after(tmp_path, undisturbed)


def test_complete_run_trains_nothing(undisturbed, monkeypatch):
  path, expected = undisturbed
  before = (path / 'metrics.jsonl').read_text()
  monkeypatch.setattr(quadratic.Quadratic, 'make_epoch', None)
  assert [t.sha256 for t in quadratic.run(path)] == [t.sha256 for t in expected]
  assert (path / 'metrics.jsonl').read_text() == before


def test_given_models_are_grown_from(undisturbed, tmp_path):
  path, (teacher, _) = undisturbed
  quadratic.run(tmp_path, chain=CHAIN[1:], given=[teacher])
  found, expected = _manifest(tmp_path)['stages'], _manifest(path)['stages']
  assert found == {'d1': expected['d1']}


def _run_to_plateau(path, **kwargs):
  """Each stage has its lowest error after its second epoch, and ends at 4."""
  chain = [dataclasses.replace(s, epochs=9, patience=2) for s in CHAIN]

  def validate(model):
    stages_ = [r['stage'] for r in quadratic.read_metrics(path)]
    done = stages_.count(CHAIN[model.nuisance_dim].name)
    return [3.0, 1.0, 2.0, 1.5, 0.0][done]

  kwargs = {'chain': chain, 'save_every': 1, 'validate': validate} | kwargs
  return quadratic.run(path, **kwargs)


def test_a_stage_ends_on_a_plateau_also_when_resumed(tmp_path):
  trained = _run_to_plateau(tmp_path / 'a')
  stored = _manifest(tmp_path / 'a')['stages'].values()
  for i, entry in enumerate(stored):
    assert entry['epochs'] == trained[i].stage.epochs == 4
  records = quadratic.read_metrics(tmp_path / 'a')
  assert [r['validation_mse'] for r in records] == [3.0, 1.0, 2.0, 1.5] * 2
  for epoch in (2, 4):
    with pytest.raises(quadratic.Killed):
      _run_to_plateau(tmp_path / 'b', report=quadratic.kill_at('d1', epoch))
  resumed = _run_to_plateau(tmp_path / 'b')
  _assert_same(tmp_path / 'b', resumed, (tmp_path / 'a', trained))


def test_signals_to_any_process_are_bit_identical(
  undisturbed, tmp_path, monkeypatch
):
  """Every sixth time that the processes agree, another one has a signal."""
  is_any = devices.is_any
  for stops in range(100):
    calls = itertools.count(1)
    other = lambda flag, calls=calls: is_any(flag) or next(calls) == 6
    with monkeypatch.context() as patch:
      patch.setattr(devices, 'is_any', other)
      try:
        _check_same_after(tmp_path, undisturbed)
        break
      except signals.Interrupted as error:
        assert error.exit_status == 128 + signal.SIGTERM
  assert 3 < stops < 99


@pytest.mark.parametrize(
  ('function', 'number', 'message'),
  [
    ('report', 2, 'teacher, epoch 3, step 20 is saved'),
    ('report', 3, 'teacher is finished'),
    ('evaluate', 2, 'step 30 is saved'),  # It is evaluated again.
  ],
)
def test_a_signal_saves_and_leaves(
  undisturbed, tmp_path, function, number, message
):
  calls = itertools.count(1)

  def interrupted(*args):
    if next(calls) == number:
      os.kill(os.getpid(), signal.SIGINT)
    return quadratic.evaluate(*args) if function == 'evaluate' else None

  with pytest.raises(signals.Interrupted, match=message) as error:
    quadratic.run(tmp_path, **{function: interrupted})
  assert error.value.signal == signal.SIGINT
  _check_same_after(tmp_path, undisturbed)


def test_sigkill_of_a_process(undisturbed, tmp_path):
  code = (
    f'import sys, time; sys.path.insert(0, {str(ROOT / "tests" / "runs")!r})\n'
    'import quadratic\n'
    f'quadratic.run({str(tmp_path)!r}, report=lambda *_: time.sleep(0.1))'
  )
  process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT)
  while not (tmp_path / 'checkpoints' / 'd1').exists():
    assert process.poll() is None
    time.sleep(0.01)
  process.kill()
  assert process.wait() == -signal.SIGKILL
  _check_same_after(tmp_path, undisturbed)


def test_not_finite_names_stage_step_and_term(undisturbed, tmp_path):
  for step, where, kept in (
    (25, 'teacher, epoch 3', 'step 20'),
    (49, 'd1, epoch 2', 'the start of the stage'),
  ):
    match = f'^{where}, step {step}: .*distance.* checkpoint of {kept} is kept'
    with pytest.raises(errors.RunError, match=match) as error:
      quadratic.run(tmp_path, nan_at=step)
    assert 'constant' not in str(error.value)
  # Nothing is saved: a run without the fault ends like any other.
  _check_same_after(tmp_path, undisturbed)


def test_damaged_newest_checkpoint_is_named_and_the_one_before_used(
  undisturbed, tmp_path
):
  with pytest.raises(quadratic.Killed):
    quadratic.run(tmp_path, save_every=1, report=quadratic.kill_at('d1', 3))
  newest = tmp_path / 'checkpoints' / 'd1' / '50'
  (newest / 'model' / '_METADATA').write_bytes(b'{}')
  lines = []
  _check_same_after(tmp_path, undisturbed, save_every=1, note=lines.append)
  [line] = lines
  assert f'{newest} is damaged' in line and line.endswith('/d1/40')


def test_a_finished_stage_without_its_checkpoint_is_refused(tmp_path):
  quadratic.run(tmp_path, chain=CHAIN[:1])
  manifest = _manifest(tmp_path)
  manifest['stages']['teacher']['sha256'] = '0' * 64
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  for match in ('the manifest 000000000000', 'teacher holds no checkpoint'):
    with pytest.raises(errors.InputError, match=match):
      quadratic.run(tmp_path, chain=CHAIN[:1])
    shutil.rmtree(tmp_path / 'checkpoints', ignore_errors=True)
  assert _manifest(tmp_path) == manifest


def test_no_room_for_a_checkpoint_leaves_those_before(
  undisturbed, tmp_path, monkeypatch
):
  save = checkpoints.StageCheckpoints.save

  def save_without_room(saved, step, *args):
    with quadratic.file_size_limit(500 if step == 50 else 10**9):
      return save(saved, step, *args)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.StageCheckpoints, 'save', save_without_room)
    message = '^.*/50 cannot be written .*MB free.*$'
    with pytest.raises(errors.StorageError, match=message):
      quadratic.run(tmp_path)
  left = (tmp_path / 'checkpoints').glob('*/*')
  assert sorted(path.name for path in left) == ['20', '30']
  _check_same_after(tmp_path, undisturbed)
