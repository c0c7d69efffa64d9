"""Tests of jacsup_jax.core.trees."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import trees


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
