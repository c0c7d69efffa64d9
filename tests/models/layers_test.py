"""Tests of layers, beside PyTorch's by definition."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.models import layers


def test_kernel_fills_the_bounds_of_torch():
  kernel = layers.uniform_by_unit(100)(jax.random.key(0), (100, 32))
  # torch's Linear: uniform in +-1/sqrt(fan_in), whose spread is bound/sqrt(3).
  assert np.max(np.abs(kernel)) <= 0.1 * (1 + 1e-6)
  assert np.max(kernel) > 0.099 and np.min(kernel) < -0.099
  # 3200 draws: the spread is known to a few percent.
  np.testing.assert_allclose(np.std(kernel), 0.1 / np.sqrt(3), rtol=0.1)
  # Of the bias too, which no bias of its own 500 units would give.
  bias = layers.uniform_by_unit(100)(jax.random.key(0), (500,))
  assert 0.098 < np.max(np.abs(bias)) <= 0.1
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
  init = make(4, 3, dtype=jnp.bfloat16).init_with_output
  out, variables = jax.eval_shape(init, jax.random.key(0), jnp.ones((2, 4)))
  assert out.dtype == jnp.bfloat16
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))


def test_first_units_do_not_depend_on_how_many_there_are():
  init = layers.uniform_by_unit(64)
  small = init(jax.random.key(3), (64, 4))
  large = init(jax.random.key(3), (64, 6))
  np.testing.assert_array_equal(large[:, :4], small)
  # So for a bias.
  np.testing.assert_array_equal(
    init(jax.random.key(3), (6,))[:4], init(jax.random.key(3), (4,))
  )


def test_units_of_a_code_have_the_parameters_of_a_dense_layer():
  # A trained model is read by either.
  trees = [
    make(64, 5, dtype=jnp.float32).lazy_init(
      jax.random.key(0), jax.ShapeDtypeStruct((1, 64), jnp.float32)
    )
    for make in DENSE.values()
  ]
  chex.assert_trees_all_equal(*trees)


def test_units_of_a_code_are_rounded_alike_whatever_follows():
  x, kernel = _draw((37, 64), (64, 32))

  def apply(count):
    params = {'kernel': kernel[:, :count], 'bias': np.zeros(count, np.float32)}
    layer = layers.CodeDense(64, count, jnp.float32)
    return jax.jit(layer.apply)({'params': params}, x)

  whole = apply(32)
  for features in (2, 3, 7, 16, 31):
    np.testing.assert_array_equal(whole[:, :features], apply(features))


def test_gradient_of_a_code_does_not_see_the_padding():
  x = jnp.array([[1.0, 2.0], [3.0, 5.0]])
  params = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
  layer = layers.CodeDense(2, 3, jnp.float32)
  grads = jax.grad(lambda p: jnp.sum(layer.apply({'params': p}, x)))(params)
  # Sums over the batch of the inputs, and its size.
  np.testing.assert_array_equal(grads['kernel'], [[4] * 3, [7] * 3])
  np.testing.assert_array_equal(grads['bias'], [2] * 3)


# Batch, height, width, channels in and out; factors of `up`; in training.
MAPS = pytest.mark.parametrize(
  ('sizes', 'train'),
  [
    ((3, 2, 2, 4, 3, 2), True),
    ((3, 2, 2, 4, 3, 2), False),
    ((1, 4, 10, 3, 5, 1), True),
  ],
)


_assert_close = functools.partial(
  np.testing.assert_allclose, rtol=1e-5, atol=1e-5
)


def _draw(*shapes):
  rng = np.random.default_rng(0)
  return [rng.standard_normal(shape, np.float32) for shape in shapes]


# PyTorch's layers, by definition; maps have their channels last.


def _torch_conv(x, weight, bias, stride=2):
  """Conv2d of padding 1."""
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  size = weight.shape[-1]
  height, width = (1 + (n - size) // stride for n in x.shape[1:3])
  out = np.zeros((len(x), height, width, len(weight)))
  for p, q in np.ndindex(height, width):
    i, j = p * stride, q * stride
    window = x[:, i : i + size, j : j + size]
    out[:, p, q] = np.einsum('bijc,ocij->bo', window, weight)
  return out + bias


def _torch_conv_transpose(x, weight):
  """ConvTranspose2d(4, 2, 1, bias=False)."""
  batch, height, width, _ = x.shape
  out = np.zeros((batch, 2 * height + 2, 2 * width + 2, weight.shape[1]))
  for p, q in np.ndindex(height, width):
    out[:, 2 * p : 2 * p + 4, 2 * q : 2 * q + 4] += np.einsum(
      'bc,coij->bijo', x[:, p, q], weight
    )
  # The padding takes a pixel off each side.
  return out[:, 1:-1, 1:-1]


def _torch_batch_norm(x, norm, stats, train):
  mean, var = stats['mean'], stats['var']
  if train:
    mean, var = np.mean(x, axis=(0, 1, 2)), np.var(x, axis=(0, 1, 2))
  return (x - mean) / np.sqrt(var + 1e-5) * norm['scale'] + norm['bias']


def _draw_norm(features):
  """Returns the parameters and running statistics of a BatchNorm."""
  rng = np.random.default_rng(1)
  draw = lambda: rng.uniform(0.5, 1.5, features).astype(np.float32)
  return {'scale': draw(), 'bias': draw()}, {'mean': draw(), 'var': draw()}


def _apply(block, variables, *args, train):
  """Applies a block, as one program; returns its new statistics too."""
  apply = functools.partial(block.apply, train=train, mutable='batch_stats')
  return jax.jit(apply)(variables, *args)


@MAPS
def test_down_block_is_torchs(sizes, train):
  batch, height, width, channels, features, _ = sizes
  x, bias, weight = _draw(
    (batch, height, width, channels), (features,), (features, channels, 4, 4)
  )
  norm, stats = _draw_norm(features)
  expected = _torch_batch_norm(_torch_conv(x, weight, bias), norm, stats, train)
  params = {'kernel': weight.transpose(2, 3, 1, 0), 'bias': bias, 'norm': norm}
  variables = {'params': params, 'batch_stats': {'norm': stats}}
  out, updated = _apply(layers.DownBlock(features), variables, x, train=train)
  _assert_close(out, np.where(expected > 0, expected, 0.2 * expected))
  # Statistics move in training alone.
  moved = np.any(updated['batch_stats']['norm']['mean'] != stats['mean'])
  assert moved == train


@MAPS
def test_up_block_is_torchs_with_the_factors_as_channels(sizes, train):
  batch, height, width, channels, features, num_factors = sizes
  x, factors, weight = _draw(
    (batch, height, width, channels),
    (batch, num_factors),
    (channels + num_factors, features, 4, 4),
  )
  norm, stats = _draw_norm(features)
  constant = np.broadcast_to(
    factors[:, None, None], (batch, height, width, num_factors)
  )
  concatenated = np.concatenate((x, constant), axis=-1)
  convolved = _torch_conv_transpose(concatenated, weight)
  normalized = _torch_batch_norm(convolved, norm, stats, train)
  # Flax's order: PyTorch's, reversed.
  params = {'kernel': weight.transpose(2, 3, 0, 1)[::-1, ::-1], 'norm': norm}
  variables = {'params': params, 'batch_stats': {'norm': stats}}
  block = layers.UpBlock(features)
  out, _ = _apply(block, variables, x, factors, train=train)
  _assert_close(out, np.maximum(normalized, 0))
  last = block.clone(is_last=True)
  out, _ = _apply(last, variables, x, factors, train=train)
  _assert_close(out, np.tanh(convolved))


# torch's Conv2d: 16 or 9 taps of 8 channels. ConvTranspose2d: 16 taps of the 32
# channels that it gives.
@pytest.mark.parametrize(
  ('block', 'fan_in', 'leaves'),
  [
    (layers.DownBlock, 128, {'kernel', 'bias', 'norm'}),
    (layers.UpBlock, 512, {'kernel', 'norm'}),
    (layers.PoolBlock, 72, {'kernel', 'bias'}),
    (layers.UpConvolution, 512, {'kernel', 'bias'}),
  ],
)
def test_blocks_start_within_torchs_bounds(block, fan_in, leaves):
  args = (jnp.zeros((1, 2, 2, 8)),)
  args += (jnp.zeros((1, 3)),) if block is layers.UpBlock else ()
  params = block(32).lazy_init(jax.random.key(0), *args)['params']
  assert set(params) == leaves
  for name in leaves - {'norm'}:
    largest = np.max(np.abs(params[name]))
    assert 0.8 * fan_in**-0.5 < largest <= fan_in**-0.5
  if 'norm' in leaves:
    np.testing.assert_array_equal(params['norm']['scale'], np.ones(32))
    np.testing.assert_array_equal(params['norm']['bias'], np.zeros(32))


@pytest.mark.parametrize('block', [layers.DownBlock, layers.UpBlock])
def test_bfloat16_is_of_the_convolution_alone(block):
  x, factors = _draw((2, 4, 4, 3), (2, 2))
  args = (x,) if block is layers.DownBlock else (x, factors)
  variables = block(4).lazy_init(jax.random.key(0), *args)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  half = block(4, dtype=jnp.bfloat16)
  out, updated = _apply(half, variables, *args, train=True)
  assert out.dtype == jnp.bfloat16
  assert updated['batch_stats']['norm']['mean'].dtype == jnp.float32
  expected, _ = _apply(block(4), variables, *args, train=True)
  # bfloat16 has eight bits; normalised outputs are of size 1.
  np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=5e-2)
  # Last blocks give float32.
  wide = {'is_last': True}
  if block is layers.DownBlock:
    wide = {'output_dtype': jnp.float32}
  last = block(4, dtype=jnp.bfloat16, **wide)
  out = jax.eval_shape(last.init_with_output, jax.random.key(0), *args)[0]
  assert out.dtype == jnp.float32


@pytest.mark.parametrize('activate', [True, False])
def test_pool_block_is_a_convolution_and_a_mean(activate):
  x, kernel, bias = _draw((2, 4, 6, 3), (3, 3, 3, 5), (5,))
  expected = _torch_conv(x, kernel.transpose(3, 2, 0, 1), bias, stride=1)
  expected = np.maximum(expected, 0) if activate else expected
  params = {'params': {'kernel': kernel, 'bias': bias}}
  pooled = layers.PoolBlock(5, activate=activate).apply(params, x)
  _assert_close(pooled, expected.reshape(2, 2, 2, 3, 2, 5).mean(axis=(2, 4)))
  # As a code: the mean of the whole map.
  code = layers.PoolBlock(5, is_code=True, activate=activate).apply(params, x)
  _assert_close(code, expected.mean(axis=(1, 2)))


def test_up_convolution_is_torchs_of_maps_and_of_constants():
  x, constants, weight, bias = _draw((2, 2, 3, 4), (2, 4), (4, 5, 4, 4), (5,))
  # Flax's order: PyTorch's, reversed.
  kernel = weight.transpose(2, 3, 0, 1)[::-1, ::-1]
  params = {'params': {'kernel': kernel, 'bias': bias}}
  expected = lambda x: _torch_conv_transpose(x, weight) + bias
  _assert_close(layers.UpConvolution(5).apply(params, x), expected(x))
  _assert_close(
    layers.UpConvolution(5, (2, 3)).apply(params, constants),
    expected(np.broadcast_to(constants[:, None, None], x.shape)),
  )


def test_batch_norm_keeps_its_digits_far_from_zero():
  x = 1000 + jax.random.normal(jax.random.key(0), (64, 2, 2, 3))
  stats = {'mean': jnp.full(3, 999.5), 'var': jnp.ones(3)}
  variables = {
    'params': {'scale': jnp.ones(3), 'bias': jnp.zeros(3)},
    'batch_stats': stats,
  }
  out, updated = layers.BatchNorm(train=True).apply(
    variables, x, mutable='batch_stats'
  )
  exact = np.asarray(x, np.float64)
  mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
  # The inputs themselves are known to 6e-5 of a deviation.
  np.testing.assert_allclose(out, (exact - mean) / np.sqrt(var), atol=2e-4)
  updated = updated['batch_stats']
  np.testing.assert_allclose(updated['mean'], 0.9 * 999.5 + 0.1 * mean)
  np.testing.assert_allclose(updated['var'], 0.9 + 0.1 * var, rtol=1e-5)


def test_batch_norm_of_a_constant_is_its_bias():
  variables = {
    'params': {'scale': jnp.full(1, 2.0), 'bias': jnp.full(1, 3.0)},
    'batch_stats': {'mean': jnp.full(1, 5.0), 'var': jnp.ones(1)},
  }
  apply = lambda x: layers.BatchNorm(train=True).apply(
    variables, x, mutable='batch_stats'
  )[0]
  x = jnp.full((4, 1, 1, 1), 7.0)
  np.testing.assert_array_equal(apply(x), np.full(x.shape, 3.0))
  gradient = jax.grad(lambda x: jnp.sum(jnp.square(apply(x))))(x)
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize('block', [layers.DownBlock, layers.UpBlock])
def test_blocks_are_differentiated_forward_too(block):
  x = jax.random.normal(jax.random.key(0), (1, 2, 2, 2))
  factors = jnp.ones((1, 1))
  args = (factors,) if block is layers.UpBlock else ()
  variables = block(2).lazy_init(jax.random.key(0), x, *args)
  apply = lambda x: block(2).apply(variables, x, *args)
  np.testing.assert_allclose(
    jax.jit(jax.jacfwd(apply))(x), jax.jit(jax.jacrev(apply))(x), atol=1e-6
  )
