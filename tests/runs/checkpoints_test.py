"""Tests of jacsup_jax.runs.checkpoints."""

import errno
import hashlib
import shutil
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.runs import checkpoints


class State(NamedTuple):
  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any


def _state(seed=0, size=3):
  random = np.random.default_rng(seed)
  return State(
    step=np.array(7, np.int32),
    params={'kernel': random.normal(size=(2, size)).astype(np.float32)},
    batch_stats={},
    # As optax has it: tuples, some of them empty.
    opt_state=({'kernel': random.normal(size=(2, size))}, ()),
  )


def _save_two(path):
  with checkpoints.StageCheckpoints(path) as saved:
    return {str(s): saved.save(s, _state(s), [s]) for s in (1, 2)}


def _recover(path, expected, note=lambda line: None, template=None):
  with checkpoints.StageCheckpoints(path) as saved:
    return saved.recover(expected, template or _state(), note)


# Values.


def test_hash_is_the_sha256_of_path_shape_type_and_bytes():
  # The text by hand; 1.0 in little-endian float32 is 00 00 80 3f.
  expected = hashlib.sha256(b"['a'] (1,) float32" + b'\x00\x00\x80\x3f')
  assert trees.hash_tree({'a': jnp.ones(1)}) == expected.hexdigest()


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
  assert trees.hash_tree(other) != trees.hash_tree(tree)


def test_hash_does_not_depend_on_memory_order():
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  assert trees.hash_tree(np.asfortranarray(array)) == trees.hash_tree(array)


# Invariants.


def test_restored_is_what_was_saved(tmp_path):
  state = _state()
  with checkpoints.StageCheckpoints(tmp_path / 'stage') as saved:
    assert saved.list_steps() == [] and not (tmp_path / 'stage').exists()
    sha256 = saved.save(7, state, {'count': 3})
    assert sha256 == trees.hash_tree(state.params)
  found = _recover(tmp_path / 'stage', {'7': sha256}, template=_state(1))
  assert (found.step, found.progress, found.sha256) == (7, {'count': 3}, sha256)
  chex.assert_trees_all_equal(found.state, state)
  assert found.state.params['kernel'].dtype == np.float32
  step, variables = checkpoints.read_variables(tmp_path / 'stage', sha256)
  assert step == 7 and set(variables) == {'params', 'batch_stats'}
  chex.assert_trees_all_equal(variables['params'], state.params)


def test_a_state_without_an_optimizer(tmp_path):
  state = _state()._replace(opt_state=())
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    saved.save(0, state)
  found = _recover(tmp_path, {}, template=state)
  chex.assert_trees_all_equal(found.state, state)


def test_oldest_are_removed_and_a_saved_step_is_kept(tmp_path):
  with checkpoints.StageCheckpoints(tmp_path, max_to_keep=2) as saved:
    for step in (1, 2, 3, 3):
      saved.save(step, _state(step))
    assert saved.list_steps() == [2, 3]
    chex.assert_trees_all_equal(saved.restore(2, _state()), _state(2))
    assert set(saved.restore(3)) == {'step', 'params', 'batch_stats'}


@pytest.mark.parametrize('size', [2, 4])
def test_other_shapes_are_refused_by_name(tmp_path, size):
  _save_two(tmp_path)
  match = rf"{tmp_path}/2 has \['params'\]\['kernel'\] of shape \(2, 3\)"
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.InputError, match=match):
      saved.restore(2, _state(size=size))
    with pytest.raises(errors.InputError, match='kernel.*accepted: None'):
      saved.restore(2, _state()._replace(params={}))


# Damage. Each kind is done to the newest of two checkpoints.


def _largest(path, item):
  files = [p for p in (path / item).rglob('d/*') if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def _flip_bytes(file):
  content = bytearray(file.read_bytes())
  for i in range(0, len(content), 7):
    content[i] ^= 0x10
  file.write_bytes(content)


def _flip_model(path):
  _flip_bytes(_largest(path, 'model'))


def _flip_optimizer(path):
  _flip_bytes(_largest(path, 'optimizer'))


def _flip_progress(path):
  file = path / 'progress' / 'metadata'
  file.write_text(file.read_text().replace('[2]', '[3]'))


def _truncate(path):
  file = _largest(path, 'model')
  file.write_bytes(file.read_bytes()[:-1])


def _empty_all_files(path):
  for file in path.rglob('*'):
    if file.is_file():
      file.write_bytes(b'')


def _no_metadata(path):
  (path / 'model' / '_METADATA').unlink()


def _no_model(path):
  shutil.rmtree(path / 'model')


def _no_progress(path):
  shutil.rmtree(path / 'progress')


def _empty_folder(path):
  shutil.rmtree(path)
  path.mkdir()


def _no_folder(path):
  shutil.rmtree(path)


def _file_instead(path):
  shutil.rmtree(path)
  path.write_text('')


def _the_one_before_instead(path):
  shutil.rmtree(path)
  shutil.copytree(path.parent / '1', path)


def _one_of_another_run(path):
  with checkpoints.StageCheckpoints(path.parent.parent / 'other') as saved:
    saved.save(2, _state(9))
  shutil.rmtree(path)
  shutil.copytree(path.parent.parent / 'other' / '2', path)


@pytest.mark.parametrize(
  'damage',
  [
    _flip_model,
    _flip_optimizer,
    _flip_progress,
    _truncate,
    _empty_all_files,
    _no_metadata,
    _no_model,
    _no_progress,
    _empty_folder,
    _no_folder,
    _file_instead,
    _the_one_before_instead,
    _one_of_another_run,
  ],
)  # pyformat: disable
def test_damaged_newest_is_named_and_the_one_before_used(tmp_path, damage):
  directory, lines = tmp_path / 'stage', []
  expected = _save_two(directory)
  path = directory / '2'
  was_there = damage is not _no_folder
  damage(path)
  with checkpoints.StageCheckpoints(directory) as saved:
    found = saved.recover(expected, _state(), lines.append)
    assert (found.step, found.progress) == (1, [1])
    chex.assert_trees_all_equal(found.state, _state(1))
    [line] = lines
    assert f'{path} is {"damaged" if was_there else "missing"}' in line
    assert line.endswith(f'resuming from {directory / "1"}')
    assert '\n' not in line
    # Renamed, not deleted.
    assert (directory / 'damaged-2').exists() == was_there
    assert not path.exists()
    # The step can be saved again, and is the newest one then.
    expected['2'] = saved.save(2, _state(2))
  assert _recover(directory, expected).step == 2


def test_none_whole_is_refused_and_nothing_changed(tmp_path):
  expected = _save_two(tmp_path)
  _no_metadata(tmp_path / '2')
  _flip_model(tmp_path / '1')
  before = sorted(tmp_path.rglob('*'))
  for _ in range(2):
    with pytest.raises(errors.InputError) as error:
      _recover(tmp_path, expected)
    message = str(error.value)
    assert f'{tmp_path}/1' in message and f'{tmp_path}/2' in message
    assert '\n' not in message
  assert sorted(tmp_path.rglob('*')) == before
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.InputError, match=f'{tmp_path}/2 is damaged'):
      saved.restore(2, _state())
  with pytest.raises(errors.InputError, match=f'{tmp_path}/2 is damaged'):
    checkpoints.read_variables(tmp_path, expected['2'])


def test_none_saved_is_none_found(tmp_path):
  assert _recover(tmp_path / 'new', {}) is None
  with pytest.raises(errors.InputError, match='holds no checkpoint'):
    checkpoints.read_variables(tmp_path / 'new', '0')


def test_one_saved_just_before_a_kill_is_used(tmp_path):
  # It has its name, and the manifest of the run does not list it yet.
  expected = _save_two(tmp_path)
  assert _recover(tmp_path, {'1': expected['1']}).step == 2


def test_a_second_damaged_one_has_a_name_of_its_own(tmp_path):
  for _ in range(2):
    expected = _save_two(tmp_path)
    _no_metadata(tmp_path / '2')
    _recover(tmp_path, expected)
  assert (tmp_path / 'damaged-2').is_dir()
  assert (tmp_path / 'damaged-2-2').is_dir()


def test_leftovers_of_a_kill_are_removed(tmp_path):
  expected = _save_two(tmp_path)
  (tmp_path / '3.orbax-checkpoint-tmp' / 'model').mkdir(parents=True)
  assert _recover(tmp_path, expected).step == 2
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']


# A full disk.


@pytest.mark.parametrize(
  'error', [OSError(errno.ENOSPC, 'No space left on device'), ValueError('x')]
)
def test_failed_save_leaves_what_was_there(tmp_path, monkeypatch, error):
  expected = _save_two(tmp_path)

  def fail(*unused_args, **unused_kwargs):
    (tmp_path / '3.orbax-checkpoint-tmp' / 'model').mkdir(parents=True)
    raise error

  monkeypatch.setattr(ocp.CheckpointManager, 'save', fail)
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.StorageError) as raised:
      saved.save(3, _state(3))
  message = str(raised.value)
  assert f'{tmp_path}/3 cannot be written' in message
  assert 'MB free of' in message and '\n' not in message
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '2']
  assert _recover(tmp_path, expected).step == 2


def test_nothing_is_saved_before_its_metadata_is_read(tmp_path, monkeypatch):
  class Nothing:
    model = None

  monkeypatch.setattr(
    ocp.CheckpointManager, 'item_metadata', lambda manager, step: Nothing
  )
  with checkpoints.StageCheckpoints(tmp_path) as saved:
    with pytest.raises(errors.StorageError, match='metadata cannot be read'):
      saved.save(3, _state(3))
