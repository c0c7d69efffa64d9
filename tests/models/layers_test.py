"""Tests of layers, beside PyTorch's by definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.models import layers

# Values.


@pytest.mark.parametrize('fan_in', [4, 784])
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
  # So for a bias.
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


# Batch, height, width, channels in and out; factors of `up`.
MAPS = [(3, 2, 2, 4, 3, 2), (1, 4, 6, 3, 5, 1)]


def _torch_conv(x, weight, bias):
  """PyTorch's Conv2d(kernel_size=4, stride=2, padding=1), by definition."""
  x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
  height, width = x.shape[2] // 2 - 1, x.shape[3] // 2 - 1
  out = np.zeros((len(x), len(weight), height, width))
  for p in range(height):
    for q in range(width):
      window = x[:, :, 2 * p : 2 * p + 4, 2 * q : 2 * q + 4]
      out[:, :, p, q] = np.einsum('bcij,ocij->bo', window, weight) + bias
  return out


def _torch_conv_transpose(x, weight):
  """PyTorch's ConvTranspose2d(4, 2, 1, bias=False), by definition."""
  out = np.zeros(
    (len(x), weight.shape[1], 2 * x.shape[2] + 2, 2 * x.shape[3] + 2)
  )
  for p in range(x.shape[2]):
    for q in range(x.shape[3]):
      out[:, :, 2 * p : 2 * p + 4, 2 * q : 2 * q + 4] += np.einsum(
        'bc,coij->boij', x[:, :, p, q], weight
      )
  # The padding takes a pixel off each side.
  return out[:, :, 1:-1, 1:-1]


def _torch_batch_norm(x, norm, stats, train):
  column = lambda x: np.reshape(x, (1, -1, 1, 1))
  mean, var = stats['mean'], stats['var']
  if train:
    mean, var = np.mean(x, axis=(0, 2, 3)), np.var(x, axis=(0, 2, 3))
  x = (x - column(mean)) / np.sqrt(column(var) + 1e-5)
  return x * column(norm['scale']) + column(norm['bias'])


def _draw_norm(rng, features):
  """Returns the parameters and running statistics of a BatchNorm."""
  draw = lambda: rng.uniform(0.5, 1.5, features).astype(np.float32)
  return {'scale': draw(), 'bias': draw()}, {'mean': draw(), 'var': draw()}


def _apply(block, variables, *args, train):
  """Applies a block, as one program; returns its new statistics too."""
  apply = functools.partial(block.apply, train=train, mutable='batch_stats')
  return jax.jit(apply)(variables, *args)


def _channels_first(x):
  return np.transpose(x, (0, 3, 1, 2))


def _channels_last(x):
  return np.transpose(x, (0, 2, 3, 1))


@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('sizes', MAPS)
def test_down_block_is_torchs(sizes, train):
  batch, height, width, channels, features, _ = sizes
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  x, bias = draw(batch, height, width, channels), draw(features)
  weight = draw(features, channels, 4, 4)
  norm, stats = _draw_norm(rng, features)
  expected = _torch_batch_norm(
    _torch_conv(_channels_first(x), weight, bias[None]), norm, stats, train
  )
  params = {
    'kernel': weight.transpose(2, 3, 1, 0),
    'bias': bias,
    'norm': norm,
  }
  out, updated = _apply(
    layers.DownBlock(features),
    {'params': params, 'batch_stats': {'norm': stats}},
    x,
    train=train,
  )
  expected = np.where(expected > 0, expected, 0.2 * expected)
  np.testing.assert_allclose(
    out, _channels_last(expected), rtol=1e-5, atol=1e-5
  )
  # Statistics move in training alone.
  moved = np.any(updated['batch_stats']['norm']['mean'] != stats['mean'])
  assert moved == train


@pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('sizes', MAPS)
def test_up_block_is_torchs_with_the_factors_as_channels(sizes, train):
  batch, height, width, channels, features, num_factors = sizes
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  x, factors = draw(batch, height, width, channels), draw(batch, num_factors)
  weight = draw(channels + num_factors, features, 4, 4)
  norm, stats = _draw_norm(rng, features)
  constant = np.broadcast_to(
    factors[:, :, None, None], (batch, num_factors, height, width)
  )
  concatenated = np.concatenate((_channels_first(x), constant), axis=1)
  convolved = _torch_conv_transpose(concatenated, weight)
  normalized = _torch_batch_norm(convolved, norm, stats, train)
  # Flax's order: PyTorch's, reversed.
  kernel = weight.transpose(2, 3, 0, 1)[::-1, ::-1]
  apply = lambda block, params: _apply(
    block,
    {'params': params, 'batch_stats': {'norm': stats}},
    x,
    factors,
    train=train,
  )[0]
  np.testing.assert_allclose(
    apply(layers.UpBlock(features), {'kernel': kernel, 'norm': norm}),
    _channels_last(np.maximum(normalized, 0)),
    rtol=1e-5,
    atol=1e-5,
  )
  np.testing.assert_allclose(
    apply(layers.UpBlock(features, is_last=True), {'kernel': kernel}),
    _channels_last(np.tanh(convolved)),
    rtol=1e-5,
    atol=1e-5,
  )


def test_blocks_start_within_torchs_bounds():
  x, factors = jnp.zeros((1, 2, 2, 8)), jnp.zeros((1, 3))
  init = lambda block, *args: block.lazy_init(jax.random.key(0), *args)
  down = init(layers.DownBlock(32), x)['params']
  # torch's Conv2d: 16 taps of 8 channels.
  for leaf in (down['kernel'], down['bias']):
    assert 0.8 * 128**-0.5 < np.max(np.abs(leaf)) <= 128**-0.5
  np.testing.assert_array_equal(down['norm']['scale'], np.ones(32))
  np.testing.assert_array_equal(down['norm']['bias'], np.zeros(32))
  # torch's ConvTranspose2d: 16 taps of 32 channels, those that it gives.
  up = init(layers.UpBlock(32), x, factors)['params']
  assert up['kernel'].shape == (4, 4, 11, 32)
  assert 0.9 * 512**-0.5 < np.max(np.abs(up['kernel'])) <= 512**-0.5
  assert 'bias' not in up


@pytest.mark.parametrize('block', [layers.DownBlock, layers.UpBlock])
def test_bfloat16_is_of_the_convolution_alone(block):
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
  factors = jnp.ones((2, 2))
  args = (x,) if block is layers.DownBlock else (x, factors)
  exact = block(4)
  variables = exact.lazy_init(jax.random.key(0), *args)
  for leaf in jax.tree.leaves(variables):
    assert leaf.dtype == jnp.float32
  half = block(4, dtype=jnp.bfloat16)
  out, updated = _apply(half, variables, *args, train=True)
  assert out.dtype == jnp.bfloat16
  assert updated['batch_stats']['norm']['mean'].dtype == jnp.float32
  expected, _ = _apply(exact, variables, *args, train=True)
  # bfloat16 has eight bits; normalised outputs are of size 1.
  np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=5e-2)


def test_last_blocks_give_float32():
  x = jnp.ones((2, 2, 2, 3))
  last_down = layers.DownBlock(4, dtype=jnp.bfloat16, output_dtype=jnp.float32)
  out, _ = jax.eval_shape(last_down.init_with_output, jax.random.key(0), x)
  assert out.dtype == jnp.float32
  last_up = layers.UpBlock(3, is_last=True, dtype=jnp.bfloat16)
  out, _ = jax.eval_shape(
    last_up.init_with_output, jax.random.key(0), x, jnp.ones((2, 2))
  )
  assert out.dtype == jnp.float32


@pytest.mark.parametrize('activate', [True, False])
def test_pool_block_is_a_convolution_and_a_mean(activate):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  x, kernel, bias = draw(2, 4, 6, 3), draw(3, 3, 3, 5), draw(5)
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = np.zeros((2, 4, 6, 5))
  for p in range(4):
    for q in range(6):
      window = padded[:, p : p + 3, q : q + 3]
      expected[:, p, q] = np.einsum('bijc,ijco->bo', window, kernel) + bias
  expected = np.maximum(expected, 0) if activate else expected
  params = {'params': {'kernel': kernel, 'bias': bias}}
  pooled = layers.PoolBlock(5, activate=activate).apply(params, x)
  np.testing.assert_allclose(
    pooled,
    expected.reshape(2, 2, 2, 3, 2, 5).mean(axis=(2, 4)),
    rtol=1e-5,
    atol=1e-5,
  )
  # As a code: the mean of the whole map.
  code = layers.PoolBlock(5, is_code=True, activate=activate).apply(params, x)
  np.testing.assert_allclose(
    code, expected.mean(axis=(1, 2)), rtol=1e-5, atol=1e-5
  )


def test_up_convolution_is_torchs_of_maps_and_of_constants():
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  x, weight, bias = draw(2, 2, 3, 4), draw(4, 5, 4, 4), draw(5)
  params = {
    'params': {
      # Flax's order: PyTorch's, reversed.
      'kernel': weight.transpose(2, 3, 0, 1)[::-1, ::-1],
      'bias': bias,
    }
  }  # pyformat: disable
  expected = lambda x: (
    _channels_last(_torch_conv_transpose(_channels_first(x), weight))
    + bias.reshape(1, 1, 1, 5)
  )
  np.testing.assert_allclose(
    layers.UpConvolution(5).apply(params, x),
    expected(x),
    rtol=1e-5,
    atol=1e-5,
  )
  constants = draw(2, 4)
  np.testing.assert_allclose(
    layers.UpConvolution(5, (2, 3)).apply(params, constants),
    expected(np.broadcast_to(constants[:, None, None], x.shape)),
    rtol=1e-5,
    atol=1e-5,
  )


def test_blocks_without_normalization_start_within_torchs_bounds():
  x = jnp.zeros((1, 2, 2, 8))
  init = lambda block: block.lazy_init(jax.random.key(0), x)['params']
  # torch's Conv2d: 9 taps of 8 channels. ConvTranspose2d: 16 of the 32 that it
  # gives.
  for block, fan in ((layers.PoolBlock, 72), (layers.UpConvolution, 512)):
    for leaf in init(block(32)).values():
      assert 0.8 * fan**-0.5 < np.max(np.abs(leaf)) <= fan**-0.5


def test_pooling_needs_even_sizes():
  with pytest.raises(AssertionError):
    layers.pool(jnp.zeros((1, 3, 4, 2)))


# BatchNorm of values thousands of deviations from zero.


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


# Gradients.


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
