"""Tests of jacsup_jax.core.codes."""

import functools
import hashlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes

FLAT = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_factors_come_first():
  code = codes.split(FLAT, 2)
  np.testing.assert_array_equal(code.factors, [[0, 1], [3, 4]])
  np.testing.assert_array_equal(code.nuisance, [[2], [5]])


def test_swap_gives_the_partners_factors():
  column = jnp.array([[1.0], [2.0], [3.0]])
  code = codes.Code(10 * column, column)
  # Not an involution: with partners read the wrong way it would differ.
  swapped = codes.swap_factors(code, jnp.array([1, 2, 0]))
  np.testing.assert_array_equal(swapped.factors, [[20], [30], [10]])
  np.testing.assert_array_equal(swapped.nuisance, [[1], [2], [3]])


def test_flip_sets_the_opposite_sign():
  factors = jnp.array([[0.1, 5.0], [-7.0, 5.0], [0.0, 5.0]])
  code = codes.Code(factors, jnp.ones((3, 1)))
  flipped = codes.flip_factor(code, 0, 2.0)
  # -2 sign(y), and 0 counts as positive.
  np.testing.assert_array_equal(flipped.factors, [[-2, 5], [2, 5], [-2, 5]])
  np.testing.assert_array_equal(flipped.nuisance, code.nuisance)


def test_edits_set_conflicting_factors_absent():
  factors = jnp.array([[-0.5, 0.25, 0.75], [0.5, -0.25, 0.0]])
  code = codes.Code(factors, jnp.ones((2, 1)))
  values = jnp.array([-1.0, -2.0, -3.0]), jnp.array([1.0, 2.0, 3.0])
  asked = jnp.array([1, -1])
  edited = codes.edit_factor(code, 0, asked, *values)
  np.testing.assert_array_equal(
    edited.factors, [[1, 0.25, 0.75], [-1, -0.25, 0.0]]
  )
  # The first excludes the others, which say nothing of it.
  conflicts = jnp.array([[False, True, True], [False] * 3, [False] * 3])
  edited = codes.edit_factor(code, 0, asked, *values, conflicts)
  np.testing.assert_array_equal(edited.factors, [[1, -2, -3], [-1, -0.25, 0]])
  # Another factor of each example; what is absent already stays.
  index, asked = jnp.array([2, 0]), jnp.array([1, 1])
  edited = codes.edit_factor(code, index, asked, *values, conflicts)
  np.testing.assert_array_equal(
    edited.factors, [[-0.5, 0.25, 3], [1, -0.25, -3]]
  )
  # Attributes are present from their thresholds on.
  levels = jnp.array([0, -0.3, 0.1])
  edited = codes.edit_factor(code, 0, asked, *values, conflicts, levels)
  np.testing.assert_array_equal(edited.factors, [[1, -2, -3], [1, -2, 0]])
  assert edited.nuisance is code.nuisance


def test_wrong_ranks_raise():
  code = codes.Code(jnp.zeros((2, 1)), jnp.zeros((2, 2, 2, 1)))
  with pytest.raises(AssertionError):
    codes.merge(code)
  with pytest.raises(AssertionError):
    codes.swap_factors(code, jnp.array([[0, 1]]))


def test_gradient_of_a_swap_goes_back_to_the_partner():
  weights = jnp.array([[1.0], [10.0], [100.0]])

  def total(factors):
    code = codes.Code(factors, jnp.zeros((3, 1)))
    swapped = codes.swap_factors(code, jnp.array([1, 2, 0]))
    return jnp.sum(weights * swapped.factors)

  # Example 0 is the partner of 2, 1 of 0, and 2 of 1.
  grads = jax.grad(total)(jnp.zeros((3, 1)))
  np.testing.assert_array_equal(grads, [[100.0], [1.0], [10.0]])


def test_gradient_of_a_flip_is_zero_in_the_flipped_factor():
  code = codes.Code(jnp.array([[0.5, 2.0]]), jnp.zeros((1, 1)))
  total = lambda code: jnp.sum(codes.flip_factor(code, 0, 3.0).factors)
  np.testing.assert_array_equal(jax.grad(total)(code).factors, [[0.0, 1.0]])


@pytest.mark.parametrize('num_factors', [0, 1, 3])
def test_merge_is_the_inverse_of_split(num_factors):
  code = codes.split(FLAT, num_factors)
  assert code.factors.shape == (2, num_factors)
  assert code.nuisance.shape == (2, 3 - num_factors)
  np.testing.assert_array_equal(codes.merge(code), FLAT)


def test_swapping_back_gives_the_code_again():
  code = codes.split(jax.random.normal(jax.random.key(0), (8, 5)), 2)
  permutation = jax.random.permutation(jax.random.key(1), 8)
  swapped = codes.swap_factors(code, permutation)
  back = codes.swap_factors(swapped, jnp.argsort(permutation))
  assert not np.array_equal(swapped.factors, code.factors)
  chex.assert_trees_all_equal(back, code)


def test_partners_over_an_axis_are_those_of_the_whole_batch():
  values = jax.random.normal(jax.random.key(0), (12, 2, 3))
  # Across the borders of the shards: 0 is given what 11 has.
  permutation = jnp.arange(12)[::-1]
  take = functools.partial(codes.take_partners, axis_name='shards')
  spread = jax.vmap(take, axis_name='shards')
  taken = spread(values.reshape(4, 3, 2, 3), permutation.reshape(4, 3))
  np.testing.assert_array_equal(taken.reshape(12, 2, 3), values[::-1])


def test_hash_is_the_sha256_of_path_shape_type_and_bytes():
  # The text by hand; 1.0 in little-endian float32 is 00 00 80 3f.
  expected = hashlib.sha256(b"['a'] (1,) float32" + b'\x00\x00\x80\x3f')
  assert codes.hash_tree({'a': jnp.ones(1)}) == expected.hexdigest()
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  assert codes.hash_tree(np.asfortranarray(array)) == codes.hash_tree(array)
