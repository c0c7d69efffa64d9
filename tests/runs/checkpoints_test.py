"""Tests of jacsup_jax.runs.checkpoints."""

import errno
import shutil
import types

import chex
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.runs import checkpoints
from jacsup_jax.training import steps


def _state(step, size=3):
  random = np.random.default_rng(step)
  return steps.TrainState(
    step=np.array(step, np.int32),
    params={'kernel': random.normal(size=(2, size)).astype(np.float32)},
    batch_stats={'mean': random.normal(size=2)},
    # As optax has it: tuples, some of them empty.
    opt_state=({'kernel': random.normal(size=(2, size))}, ()),
  )


def _save(path, *saved_steps):
  with checkpoints.StageCheckpoints(path) as saved:
    return [saved.save(step, _state(step), [step]) for step in saved_steps]


def _recover(path, template=None, note=None):
  with checkpoints.StageCheckpoints(path) as saved:
    return saved.recover(template or _state(0), note)


def test_restored_is_what_was_saved(tmp_path):
  path, state = tmp_path / 'stage', _state(7)
  assert _recover(path) is None and not path.exists()
  [sha256] = _save(path, 7)
  assert sha256 == codes.hash_tree(state.params)
  found = _recover(path)
  assert (found.step, found.progress, found.sha256) == (7, [7], sha256)
  chex.assert_trees_all_equal(found.state, state)
  assert found.state.params['kernel'].dtype == np.float32
  # Without the optimizer, as for a model.
  with checkpoints.StageCheckpoints(path) as saved:
    alone = saved.restore_last(sha256, _state(0)._replace(opt_state=()))
  chex.assert_trees_all_equal(alone, state._replace(opt_state=()))


def test_oldest_and_leftovers_of_a_kill_are_removed(tmp_path):
  _save(tmp_path, 1, 2, 3, 3)
  (tmp_path / '4.orbax-checkpoint-tmp' / 'model').mkdir(parents=True)
  assert _recover(tmp_path).step == 3
  assert sorted(p.name for p in tmp_path.iterdir()) == ['2', '3']


def test_other_shapes_are_refused_by_name(tmp_path):
  _save(tmp_path, 2)
  match = rf"{tmp_path}/2 has \['params'\]\['kernel'\] of shape \(2, 3\)"
  with pytest.raises(errors.InputError, match=match):
    _recover(tmp_path, _state(2, size=4))
  with pytest.raises(errors.InputError, match='kernel.*accepted: None'):
    _recover(tmp_path, _state(2)._replace(params={}))


def _largest(path):
  files = [p for p in path.rglob('d/*') if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def _flip_bytes(path):
  content = bytearray(_largest(path).read_bytes())
  for i in range(0, len(content), 7):
    content[i] ^= 0x10
  _largest(path).write_bytes(content)


def _flip_progress(path):
  file = path / 'progress' / 'metadata'
  file.write_text(file.read_text().replace('[2]', '[3]'))


def _the_one_before_instead(path):
  shutil.rmtree(path)
  shutil.copytree(path.parent / '1', path)


@pytest.mark.parametrize(
  'damage',
  [
    lambda path: _flip_bytes(path / 'model'),
    lambda path: _flip_bytes(path / 'optimizer'),
    _flip_progress,
    lambda path: shutil.rmtree(path / 'model'),
    _the_one_before_instead,
  ],
)
def test_damaged_newest_is_named_and_the_one_before_used(tmp_path, damage):
  lines = []
  for count in (1, 2):
    # The step can be saved again, and is the newest one then.
    _save(tmp_path, 1, 2)
    assert _recover(tmp_path).step == 2
    damage(tmp_path / '2')
    found = _recover(tmp_path, note=lines.append)
    assert (found.step, found.progress) == (1, [1])
    chex.assert_trees_all_equal(found.state, _state(1))
    line = lines.pop()
    assert line.startswith(f'{tmp_path}/2 is damaged (') and '\n' not in line
    assert line.endswith(f'resuming from {tmp_path}/1')
    # Renamed, not deleted.
    assert (tmp_path / f'damaged-2-{count}').exists()
    assert not (tmp_path / '2').exists()


def test_none_whole_is_refused_and_nothing_changed(tmp_path):
  _, sha256 = _save(tmp_path, 1, 2)
  (tmp_path / '2' / 'model' / '_METADATA').unlink()
  _flip_bytes(tmp_path / '1' / 'model')
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(errors.InputError, match=f'^{tmp_path}/2 .*/1 .*$'):
    _recover(tmp_path)
  assert sorted(tmp_path.rglob('*')) == before
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.InputError, match=f'{tmp_path}/2 is damaged'):
      saved.restore_last(sha256, _state(0))


def test_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
  _save(tmp_path, 1, 2)

  def fail(*unused_args, **unused_kwargs):
    (tmp_path / '3.orbax-checkpoint-tmp' / 'model').mkdir(parents=True)
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(ocp.CheckpointManager, 'save', fail)
  match = f'^{tmp_path}/3 cannot be written .*MB free of.*$'
  with pytest.raises(errors.StorageError, match=match):
    _save(tmp_path, 3)
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']
  monkeypatch.undo()  # Nothing is saved before its metadata is read.
  nothing = lambda manager, step: types.SimpleNamespace(model=None)
  monkeypatch.setattr(ocp.CheckpointManager, 'item_metadata', nothing)
  with pytest.raises(errors.StorageError, match='metadata cannot be read'):
    _save(tmp_path, 3)
