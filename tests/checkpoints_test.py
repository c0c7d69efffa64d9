"""Tests of jacsup_jax.checkpoints."""

import errno
import hashlib
import json
import os
import shutil

import chex
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jacsup_jax.core import errors
from jacsup_jax.runs import checkpoints


def _state(seed=0, size=3):
  random = np.random.default_rng(seed)
  return {
      'step': np.array(7, np.int32),
      'params': {'kernel': random.normal(size=(2, size)).astype(np.float32)},
      'empty': {},
  }


# Values.


def test_hash_is_the_sha256_of_path_shape_type_and_bytes():
  # The text by hand; 1.0 in little-endian float32 is 00 00 80 3f.
  expected = hashlib.sha256(b"['a'] (1,) float32" + b'\x00\x00\x80\x3f')
  assert checkpoints.hash_tree({'a': jnp.ones(1)}) == expected.hexdigest()


# Invariants.


def test_restored_is_what_was_saved(tmp_path):
  state = _state()
  with checkpoints.StageCheckpoints(tmp_path / 'stage') as saved:
    assert saved.latest_step() is None
    saved.save(7, state)
  with checkpoints.StageCheckpoints(tmp_path / 'stage') as saved:
    assert saved.latest_step() == 7
    restored = saved.restore(7, _state(seed=1))
  chex.assert_trees_all_equal(restored, state)
  assert restored['params']['kernel'].dtype == np.float32
  assert checkpoints.hash_tree(restored) == checkpoints.hash_tree(state)


def test_oldest_are_removed(tmp_path):
  with checkpoints.StageCheckpoints(tmp_path, max_to_keep=2) as saved:
    for step in (1, 2, 3):
      saved.save(step, _state(step))
    assert saved.latest_step() == 3
    chex.assert_trees_all_equal(saved.restore(2, _state()), _state(2))
  kept = sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit())
  assert kept == ['2', '3']


def test_progress_of_a_step_that_is_there_is_kept(tmp_path):
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    first = saved.save(1, _state(), {'count': 3})
    assert saved.find({'1': first}).progress == {'count': 3}
    # The same files, and so the same sha256.
    assert saved.save(1, _state(), None) == first
    found = saved.find({'1': first})
    assert (found.step, found.progress, found.notes) == (1, None, ())
    chex.assert_trees_all_equal(saved.restore(1, _state()), _state())


def test_saving_a_step_again_is_no_error(tmp_path):
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    saved.save(1, _state())
    saved.save(1, _state())
    assert saved.latest_step() == 1


@pytest.mark.parametrize(
    'template',
    [
        pytest.param(_state(size=4), id='larger'),
        pytest.param(_state(size=2), id='smaller'),
        pytest.param({'step': np.array(0, np.int32)}, id='fewer'),
        pytest.param({**_state(), 'more': np.zeros(1)}, id='more'),
    ],
)
def test_other_shapes_are_refused_by_name(tmp_path, template):
  with checkpoints.StageCheckpoints(tmp_path / 'stage') as saved:
    saved.save(5, _state())
    with pytest.raises(errors.InputError) as error:
      saved.restore(5, template)
  assert str(tmp_path / 'stage' / '5') in str(error.value)
  assert '\n' not in str(error.value)


def test_unreadable_checkpoint_is_refused_by_name(tmp_path):
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    saved.save(5, _state())
  for path in (tmp_path / '5' / 'default').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.InputError, match=f'{tmp_path}/5'):
      saved.restore(5, _state())


def test_hash_changes_with_one_bit():
  state = _state()
  before = checkpoints.hash_tree(state)
  bits = state['params']['kernel'].view(np.uint32)
  bits[1, 2] ^= 1
  assert checkpoints.hash_tree(state) != before
  bits[1, 2] ^= 1
  assert checkpoints.hash_tree(state) == before


@pytest.mark.parametrize(
    'other',
    [
        {'b': np.zeros((2, 2), np.float32)},  # Path.
        {'a': np.zeros((4,), np.float32)},  # Shape.
        {'a': np.zeros((2, 2), np.int32)},  # Type.
        {'a': -np.zeros((2, 2), np.float32)},  # Sign of zero.
    ],
)
def test_hash_tells_equal_bytes_apart(other):
  tree = {'a': np.zeros((2, 2), np.float32)}
  assert checkpoints.hash_tree(other) != checkpoints.hash_tree(tree)


def test_hash_does_not_depend_on_memory_order():
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  assert checkpoints.hash_tree(np.asfortranarray(array)) == (
      checkpoints.hash_tree(array)
  )


# Damage. Each kind is done to the newest of two checkpoints.


def _list_files():
  """Names of the files of a checkpoint, but of what Orbax numbers."""
  return (
      'manifest.json', 'default/_METADATA', 'default/_CHECKPOINT_METADATA',
      'default/manifest.ocdbt', 'default/d/*', 'default/ocdbt.process_0/d/*',
      'default/ocdbt.process_0/manifest.ocdbt',
  )  # pyformat: disable


def _find_file(path, pattern):
  found = sorted(p for p in path.glob(pattern) if p.is_file())
  if not found:
    pytest.skip(f'Orbax writes no {pattern}')
  return found[0]


def _flip(path, pattern):
  file = _find_file(path, pattern)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 0x10
  file.write_bytes(content)


def _truncate(path, pattern):
  file = _find_file(path, pattern)
  file.write_bytes(file.read_bytes()[:-1])


def _empty(path, pattern):
  _find_file(path, pattern).write_bytes(b'')


def _append(path, pattern):
  file = _find_file(path, pattern)
  file.write_bytes(file.read_bytes() + b' ')


def _delete(path, pattern):
  _find_file(path, pattern).unlink()


def _empty_directory(path):
  shutil.rmtree(path)
  path.mkdir()


def _no_directory(path):
  shutil.rmtree(path)


def _file_in_its_place(path):
  shutil.rmtree(path)
  path.write_text('')


def _no_tree(path):
  shutil.rmtree(path / 'default')


def _directory_for_a_file(path):
  file = _find_file(path, 'default/_METADATA')
  file.unlink()
  file.mkdir()


def _the_one_before_in_its_place(path):
  shutil.rmtree(path)
  shutil.copytree(path.parent / '1', path)


def _one_of_another_run(path):
  # Whole in itself.
  with checkpoints.StageCheckpoints(path.parent.parent / 'other') as saved:
    saved.save(2, _state(9))
  shutil.rmtree(path)
  shutil.copytree(path.parent.parent / 'other' / '2', path)


def _manifest_of_nothing(path):
  (path / 'manifest.json').write_text('{"files": {}}')


def _manifest_that_names_others(path):
  manifest = json.loads((path / 'manifest.json').read_text())
  manifest['files']['../../1/manifest.json'] = {'size': 1, 'sha256': ''}
  (path / 'manifest.json').write_text(json.dumps(manifest))


OF_FILES = [
    pytest.param(damage, name, id=f'{damage.__name__.strip("_")} {name}')
    for damage in (_flip, _truncate, _empty, _append, _delete)
    for name in _list_files()
]
OF_ALL = [
    pytest.param(damage, None, id=damage.__name__.strip('_'))
    for damage in (
        _empty_directory, _no_directory, _file_in_its_place, _no_tree,
        _directory_for_a_file, _the_one_before_in_its_place,
        _one_of_another_run, _manifest_of_nothing,
        _manifest_that_names_others,
    )
]  # pyformat: disable


def _save_two(path):
  with checkpoints.StageCheckpoints(path) as saved:
    return {str(s): saved.save(s, _state(s), [s]) for s in (1, 2)}


@pytest.mark.parametrize(('damage', 'file'), [*OF_FILES, *OF_ALL])
def test_damaged_newest_is_named_and_the_one_before_used(
    tmp_path, damage, file
):
  directory, lines = tmp_path / 'stage', []
  expected = _save_two(directory)
  path = directory / '2'
  was_there = damage is not _no_directory
  damage(path, *([file] if file else []))
  with checkpoints.StageCheckpoints(directory) as saved:
    found = checkpoints.recover(saved, expected, lines.append)
    assert (found.step, found.progress) == (1, [1])
    chex.assert_trees_all_equal(saved.restore(1, _state()), _state(1))
    assert str(path) in lines[0]
    assert ('is damaged' if was_there else 'is missing') in lines[0]
    assert all('\n' not in line for line in lines)
    # Set aside, not deleted.
    aside = directory / 'damaged-2'
    assert aside.exists() == was_there and not path.exists()
    # Its step can be saved again, and is the newest then.
    saved.save(2, _state(2))
    assert checkpoints.recover(saved, {}, lines.append).step == 2


@pytest.mark.parametrize(('damage', 'file'), OF_ALL[:2])
def test_nothing_whole_is_refused_and_nothing_changed(tmp_path, damage, file):
  del file
  expected, lines = _save_two(tmp_path), []
  damage(tmp_path / '2')
  _flip(tmp_path / '1', 'manifest.json')
  before = sorted(tmp_path.rglob('*'))
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    for _ in range(2):
      with pytest.raises(errors.InputError) as error:
        checkpoints.recover(saved, expected, lines.append)
    message = str(error.value)
    assert f'{tmp_path}/1' in message and f'{tmp_path}/2' in message
    assert '--on_damage=retrain' in message and '\n' not in message
    assert sorted(tmp_path.rglob('*')) == before and not lines
    found = checkpoints.recover(saved, expected, lines.append, retrain=True)
  assert found.step is None
  assert 'trained again from its start' in lines[-1]


def test_damage_that_restores_would_read_is_refused(tmp_path):
  _save_two(tmp_path)
  _flip(tmp_path / '2', 'default/d/*')
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.InputError, match=f'{tmp_path}/2 is damaged'):
      saved.restore(2, _state())


def test_one_that_was_saved_just_before_a_kill_is_whole(tmp_path):
  # It has its name, and the run's manifest does not know it yet.
  _save_two(tmp_path)
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    for expected in ({}, {'1': ''}, {'1': '', '2': ''}):
      assert saved.find(expected).step == 2
    _delete(tmp_path / '2', 'manifest.json')
    assert saved.find({'1': ''}).step == 1


def test_a_second_damaged_one_has_a_name_of_its_own(tmp_path):
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    for _ in range(2):
      saved.save(1, _state(1))
      saved.save(2, _state(2))
      _delete(tmp_path / '2', 'manifest.json')
      checkpoints.recover(saved, {}, lambda line: None)
  assert (tmp_path / 'damaged-2').is_dir()
  assert (tmp_path / 'damaged-2-2').is_dir()


def test_leftovers_of_a_kill_are_removed(tmp_path):
  expected = _save_two(tmp_path)
  for name in ('.3.tmp', '.1.old', '4.orbax-checkpoint-tmp-5'):
    (tmp_path / name / 'default').mkdir(parents=True)
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    assert checkpoints.recover(saved, expected, print).step == 2
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read all files')
def test_a_file_that_may_not_be_read_is_refused_by_name(tmp_path):
  _save_two(tmp_path)
  file = tmp_path / '2' / 'default' / '_METADATA'
  file.chmod(0)
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.InputError, match='_METADATA cannot be read'):
      checkpoints.recover(saved, {}, print)
  assert (tmp_path / '2').exists()


def test_checkpoints_from_before_manifests_are_read(tmp_path):
  with ocp.CheckpointManager(tmp_path) as manager:
    manager.save(5, args=ocp.args.StandardSave(_state(5)))
    manager.wait_until_finished()
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    assert checkpoints.recover(saved, {}, print).step == 5
    chex.assert_trees_all_equal(saved.restore(5, _state()), _state(5))
    assert saved.save(5, _state()) == ''


# A disk that is full.


@pytest.mark.parametrize(
    'error', [OSError(errno.ENOSPC, 'No space left on device'), ValueError('x')]
)
def test_failed_save_leaves_what_was_there(tmp_path, monkeypatch, error):
  expected = _save_two(tmp_path)

  def fail(*unused_args, **unused_kwargs):
    (tmp_path / '.3.tmp' / 'default').mkdir()
    raise error

  with checkpoints.StageCheckpoints(tmp_path) as saved:
    monkeypatch.setattr(saved._checkpointer, 'save', fail)
    with pytest.raises(errors.StorageError) as raised:
      saved.save(3, _state(3))
    message = str(raised.value)
    assert f'{tmp_path}/3 cannot be written' in message
    assert 'MB free of' in message and '\n' not in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']
    assert checkpoints.recover(saved, expected, print).step == 2
