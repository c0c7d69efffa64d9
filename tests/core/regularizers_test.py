"""Tests of jacsup_jax.core.regularizers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import regularizers

HSIC = jax.jit(
  regularizers.hsic_loss, static_argnames=('bandwidth', 'axis_name')
)


def _normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _linear(kernel, code):
  return (codes.merge(code) @ kernel).reshape(-1, 2, 2, 1)


@jax.jit
def _cosines(kernel):
  """Two factors and a nuisance unit of two examples."""
  code = codes.Code(jnp.ones((2, 2)), jnp.ones((2, 1)))
  return regularizers.column_losses(functools.partial(_linear, kernel), code)


def test_hsic_of_two_examples_by_hand():
  # Kernels [[1, k], [k, 1]] with k = exp(-d^2 / 2 s^2). Centred, the first is
  # (1 - k) / 2 [[1, -1], [-1, 1]], so the trace is (1 - k) (1 - l).
  factors, nuisance = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [2.0]])
  expected = (1 - np.exp(-0.5 / 4)) * (1 - np.exp(-2.0 / 4))
  np.testing.assert_allclose(
    HSIC(factors, nuisance, bandwidth=2.0), expected, rtol=1e-5
  )
  # The median distance is the only one: both kernels have exp(-1 / 2).
  np.testing.assert_allclose(
    HSIC(factors, nuisance), (1 - np.exp(-0.5)) ** 2, rtol=1e-5
  )


def test_cosines_of_a_linear_decoder_by_hand():
  # Two factors and a nuisance unit on four pixels. Factors: (1, 0, 0, 0) and
  # (3, 3, 0, 0), squared cosine 1/2; with (0, 0, 2, 0) both are orthogonal.
  kernel = np.array([[1.0, 0, 0, 0], [3, 3, 0, 0], [0, 0, 2, 0]], np.float32)
  with_nuisance, between = _cosines(kernel)
  np.testing.assert_allclose(with_nuisance, [0.0, 0.0], atol=1e-7)
  np.testing.assert_allclose(between, [0.5, 0.5], rtol=1e-6)
  # A nuisance unit like the first factor: 1 with it, 1/2 with the other.
  kernel[2] = [-5, 0, 0, 0]
  with_nuisance, _ = _cosines(kernel)
  np.testing.assert_allclose(with_nuisance, [0.75, 0.75], rtol=1e-6)


def test_one_example_has_no_hsic():
  with pytest.raises(errors.InputError, match='batch of 1; accepted: 2'):
    regularizers.hsic_loss(jnp.ones((1, 2)), jnp.ones((1, 2)))


def test_units_without_effect_have_a_finite_gradient():
  kernel = np.zeros((3, 4), np.float32)
  kernel[0, 0] = 1.0
  total = lambda kernel: jnp.sum(sum(_cosines(kernel)))
  value, grad = jax.jit(jax.value_and_grad(total))(kernel)
  assert value == 0.0
  assert np.all(np.isfinite(grad))


def test_constant_values_have_no_hsic_and_a_finite_gradient():
  nuisance = _normal(0, 8, 2)
  value, grad = jax.value_and_grad(HSIC)(jnp.ones((8, 2)), nuisance)
  np.testing.assert_allclose(value, 0.0, atol=1e-7)
  assert np.all(np.isfinite(grad))
  # No nuisance at all is independent of everything.
  np.testing.assert_allclose(HSIC(nuisance, jnp.zeros((8, 0))), 0.0, atol=1e-6)


def test_cosines_do_not_see_the_strength_of_a_unit():
  kernel = _normal(0, 3, 4)
  weaker = kernel * np.array([[1e-2], [1.0], [-30.0]], np.float32)
  for loss, same in zip(_cosines(kernel), _cosines(weaker)):
    np.testing.assert_allclose(loss, same, rtol=1e-5)
    assert np.all((loss > 1e-3) & (loss < 1))


def test_hsic_over_an_axis_is_that_of_the_whole_batch():
  values = jnp.asarray(_normal(0, 8, 3)), jnp.asarray(_normal(1, 8, 2))
  spread = jax.vmap(
    lambda y, z: HSIC(y, z, axis_name='shards'), axis_name='shards'
  )(*(x.reshape(2, 4, -1) for x in values))
  np.testing.assert_allclose(spread, np.full(2, HSIC(*values)), rtol=1e-5)


def test_hsic_tells_dependence_from_independence():
  y, other = jnp.asarray(_normal(0, 200, 1)), jnp.asarray(_normal(1, 200, 1))
  independent = HSIC(y, other)
  # Its bias is of the order of 1 / M.
  assert 0 < independent < 3 / 200
  # Dependent without any covariance, which eq. (10) does not see.
  assert HSIC(y, jnp.square(y)) > 5 * independent
  assert HSIC(y, y) > 10 * independent
