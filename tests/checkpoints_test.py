"""Tests of jacsup_jax.checkpoints."""

import hashlib

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax import checkpoints
from jacsup_jax import types


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
    with pytest.raises(types.InputError) as error:
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
    with pytest.raises(types.InputError, match=f'{tmp_path}/5'):
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
