"""Tests of jacsup_jax.traversals."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.figures import traversals

jax.config.update('jax_numpy_rank_promotion', 'raise')


def _flat_decode(code):
  """Images `[B, 1, K + D, 1]` whose pixels are the flat code."""
  flat = jnp.concatenate([code.factors, code.nuisance], axis=1)
  return flat[:, None, :, None]


# Values.


def test_quantile_values_between_literal_quantiles():
  # 101 examples: quantile q of unit 2 is exactly 100 q, of unit 0 it is 0.
  codes = codes.Code(
      jnp.zeros((101, 2)), jnp.arange(101.0)[::-1][:, None]
  )
  np.testing.assert_allclose(
      traversals.quantile_values(codes, 2, 3), [1, 50, 99], rtol=1e-5
  )
  np.testing.assert_allclose(
      traversals.quantile_values(codes, 2, 2, low=0.25), [25, 75], rtol=1e-5
  )
  np.testing.assert_array_equal(traversals.quantile_values(codes, 0, 2), 0)


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit])
def test_vary_factors_puts_values_where_they_belong(wrap):
  code = codes.Code(jnp.array([[7.0, 8.0, 9.0]]), jnp.array([[5.0]]))
  vary = wrap(functools.partial(traversals.vary_factors, _flat_decode))
  images = vary(code, 0, 2, jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 6.0]))
  assert images.shape == (3, 2, 1, 4, 1)
  expected = [
      [[1, 8, 3, 5], [2, 8, 3, 5]],
      [[1, 8, 4, 5], [2, 8, 4, 5]],
      [[1, 8, 6, 5], [2, 8, 6, 5]],
  ]
  np.testing.assert_array_equal(images[:, :, 0, :, 0], expected)


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit])
def test_swaps_have_the_factors_of_a_row_and_the_nuisance_of_a_column(wrap):
  code = codes.Code(
      jnp.array([[1.0, 2.0], [10.0, 20.0]]), jnp.array([[3.0], [30.0]])
  )
  swap = wrap(functools.partial(traversals.swap_all_factors, _flat_decode))
  images = swap(code)
  assert images.shape == (2, 2, 1, 3, 1)
  expected = [[[1, 2, 3], [1, 2, 30]], [[10, 20, 3], [10, 20, 30]]]
  np.testing.assert_array_equal(images[:, :, 0, :, 0], expected)


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit])
def test_vary_unit_puts_values_where_they_belong(wrap):
  code = codes.Code(
      jnp.array([[1.0, 2.0], [10.0, 20.0]]), jnp.array([[3.0], [30.0]])
  )
  vary = wrap(functools.partial(traversals.vary_unit, _flat_decode))
  images = vary(code, 2, jnp.array([-1.0, -2.0]))
  assert images.shape == (2, 2, 1, 3, 1)
  expected = [[[1, 2, -1], [1, 2, -2]], [[10, 20, -1], [10, 20, -2]]]
  np.testing.assert_array_equal(images[:, :, 0, :, 0], expected)
  # A factor is a unit like any other.
  images = vary(code, 1, jnp.array([0.0]))
  np.testing.assert_array_equal(
      images[:, 0, 0, :, 0], [[1, 0, 3], [10, 0, 30]]
  )


def test_vary_factors_keeps_a_nuisance_of_feature_maps():
  nuisance = jnp.arange(8.0).reshape(1, 2, 2, 2)
  code = codes.Code(jnp.zeros((1, 2)), nuisance)
  images = traversals.vary_factors(
      lambda code: code.nuisance, code, 0, 1, jnp.zeros(2), jnp.zeros(3)
  )
  chex.assert_shape(images, (3, 2, 2, 2, 2))
  np.testing.assert_array_equal(
      images, np.broadcast_to(nuisance, (3, 2, 2, 2, 2))
  )


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit])
def test_sweep_factor_puts_values_where_they_belong(wrap):
  code = codes.Code(
      jnp.array([[1.0, 2.0], [10.0, 20.0]]), jnp.array([[3.0], [30.0]])
  )
  sweep = wrap(functools.partial(traversals.sweep_factor, _flat_decode))
  images = sweep(code, 1, jnp.array([-5.0, 0.0, 5.0]))
  assert images.shape == (2, 3, 1, 3, 1)
  expected = [
      [[1, -5, 3], [1, 0, 3], [1, 5, 3]],
      [[10, -5, 30], [10, 0, 30], [10, 5, 30]],
  ]
  np.testing.assert_array_equal(images[:, :, 0, :, 0], expected)


def test_sweep_factor_keeps_a_nuisance_of_feature_maps():
  nuisance = jnp.arange(16.0).reshape(2, 2, 2, 2)
  code = codes.Code(jnp.zeros((2, 3)), nuisance)
  decode = lambda code: code.nuisance + code.factors[:, 2, None, None, None]
  images = traversals.sweep_factor(decode, code, 2, jnp.array([0.0, 1.0]))
  np.testing.assert_array_equal(images[:, 0], nuisance)
  np.testing.assert_array_equal(images[:, 1], nuisance + 1)


def test_flip_factors_flips_one_at_a_time():
  code = codes.Code(
      jnp.array([[1.0, -2.0, 0.5], [-1.0, 2.0, 0.0]]), jnp.zeros((2, 1))
  )
  images = traversals.flip_factors(_flat_decode, code, jnp.array([2, 0]), 9.0)
  expected = [
      [[1, -2, -9, 0], [-9, -2, 0.5, 0]],
      [[-1, 2, -9, 0], [9, 2, 0, 0]],
  ]
  np.testing.assert_array_equal(images[:, :, 0, :, 0], expected)


def test_wrong_shapes_raise():
  two = codes.Code(jnp.zeros((2, 2)), jnp.zeros((2, 1)))
  with pytest.raises(AssertionError):
    traversals.vary_factors(_flat_decode, two, 0, 1, jnp.ones(2), jnp.ones(2))
  with pytest.raises(AssertionError):
    traversals.vary_unit(_flat_decode, two, 0, jnp.ones((2, 1)))
  with pytest.raises(AssertionError):
    traversals.sweep_factor(_flat_decode, two, 0, jnp.ones((2, 1)))


# Invariants.


def test_own_value_gives_the_reconstruction():
  key = jax.random.key(0)
  code = codes.Code(*jax.random.normal(key, (2, 1, 2)))
  image = _flat_decode(code)
  grid = traversals.vary_factors(
      _flat_decode, code, 0, 1, code.factors[:, 0], code.factors[:, 1]
  )
  np.testing.assert_array_equal(grid[0, 0], image[0])
  row = traversals.vary_unit(_flat_decode, code, 3, code.nuisance[:, 1])
  np.testing.assert_array_equal(row[0, 0], image[0])
  row = traversals.sweep_factor(_flat_decode, code, 1, code.factors[:, 1])
  np.testing.assert_array_equal(row[0, 0], image[0])


def test_direction_moves_the_nuisance_along_it_alone():
  # Components along (0.6, 0.8) are 5 and 1.4, so values 1.4, 3.2 and 5.
  codes = codes.Code(
      jnp.array([[7.0], [8.0]]), jnp.array([[3.0, 4.0], [1.0, 1.0]])
  )
  found = traversals.vary_direction(
      _flat_decode, codes, 1, jnp.array([0.6, 0.8]), 3, low=0.0
  )
  expected = [[7, 0.84, 1.12], [7, 1.92, 2.56], [7, 3, 4]]
  np.testing.assert_allclose(found.reshape(3, 3), expected, rtol=1e-5)
