"""Tests of jacsup_jax.layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax import layers


# Values.


@pytest.mark.parametrize('fan_in', [4, 64, 784])
def test_kernel_fills_the_bounds_of_torch(fan_in):
  kernel = layers.uniform_by_unit(fan_in)(jax.random.key(0), (fan_in, 32))
  # torch's Linear: uniform in +-1/sqrt(fan_in), whose spread is bound/sqrt(3).
  bound = 1 / np.sqrt(fan_in)
  assert np.max(np.abs(kernel)) <= bound * (1 + 1e-6)
  assert np.max(kernel) > 0.9 * bound
  assert np.min(kernel) < -0.9 * bound
  # 128 draws or more: the spread is known to a tenth.
  np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=0.1)


def test_bias_has_the_bounds_of_its_layer():
  bias = layers.uniform_by_unit(100)(jax.random.key(0), (500,))
  # 1/sqrt(100), which no bias of its own 500 units would give.
  assert np.max(np.abs(bias)) <= 0.1
  assert np.max(np.abs(bias)) > 0.098
  assert len(np.unique(bias)) > 490


DENSE = {
    'dense': lambda *sizes, dtype: layers.dense(*sizes, dtype=dtype),
    'code': lambda *sizes, dtype: layers.CodeDense(*sizes, dtype),
}


@pytest.mark.parametrize('make', DENSE.values(), ids=DENSE.keys())
def test_dense_is_an_affine_map(make):
  layer = make(2, 2, dtype=jnp.float32)
  params = {
      'kernel': jnp.array([[1.0, 2.0], [3.0, 4.0]]),
      'bias': jnp.array([10.0, 20.0]),
  }
  # (1 + 2 * 3 + 10, 2 + 2 * 4 + 20).
  out = layer.apply({'params': params}, jnp.array([[1.0, 2.0]]))
  np.testing.assert_array_equal(out, [[17.0, 30.0]])


@pytest.mark.parametrize('make', DENSE.values(), ids=DENSE.keys())
def test_parameters_are_float32_whatever_it_computes_in(make):
  layer = make(4, 3, dtype=jnp.bfloat16)
  out, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 4)))
  assert out.dtype == jnp.bfloat16
  for leaf in jax.tree.leaves(variables):
    assert leaf.dtype == jnp.float32


# Invariants.


def test_first_units_do_not_depend_on_how_many_there_are():
  init = layers.uniform_by_unit(64)
  small = init(jax.random.key(3), (64, 4))
  large = init(jax.random.key(3), (64, 6))
  np.testing.assert_array_equal(large[:, :4], small)
  # Of a bias too.
  np.testing.assert_array_equal(
      init(jax.random.key(3), (6,))[:4], init(jax.random.key(3), (4,))
  )


def test_units_of_a_code_have_the_parameters_of_a_dense_layer():
  # A trained model is read by either.
  inputs = jnp.ones((1, 64))
  trees = [
      make(64, 5, dtype=jnp.float32).init(jax.random.key(0), inputs)
      for make in DENSE.values()
  ]
  assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
  for first, second in zip(*map(jax.tree.leaves, trees)):
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize('features', [2, 3, 31, 32])
def test_units_of_a_code_are_rounded_alike_whatever_follows(features):
  x, kernel = (
      jax.random.normal(jax.random.key(i), shape)
      for i, shape in enumerate([(37, 64), (64, 33)])
  )

  def apply(count):
    params = {'kernel': kernel[:, :count], 'bias': jnp.zeros(count)}
    layer = layers.CodeDense(64, count, jnp.float32)
    return jax.jit(layer.apply)({'params': params}, x)

  for more in range(features, 33):
    np.testing.assert_array_equal(apply(more)[:, :features], apply(features))


def test_gradient_of_a_code_does_not_see_the_padding():
  x = jnp.array([[1.0, 2.0], [3.0, 5.0]])
  params = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
  layer = layers.CodeDense(2, 3, jnp.float32)
  grads = jax.grad(lambda p: jnp.sum(layer.apply({'params': p}, x)))(params)
  # Sums over the batch of the inputs, and its size.
  np.testing.assert_array_equal(grads['kernel'], [[4] * 3, [7] * 3])
  np.testing.assert_array_equal(grads['bias'], [2] * 3)


def test_units_differ_from_one_another_and_by_key():
  init = layers.uniform_by_unit(64)
  kernel = init(jax.random.key(0), (64, 8))
  assert len(np.unique(np.asarray(kernel).T, axis=0)) == 8
  assert not np.any(kernel == init(jax.random.key(1), (64, 8)))
