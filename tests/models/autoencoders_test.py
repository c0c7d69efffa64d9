"""Tests of autoencoders: values, gradients, and what growth relies on."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers

SHAPE = (4, 4, 1)


def _mlp(num_factors=2, nuisance_dim=1, **kwargs):
  kwargs = {'image_shape': SHAPE, 'widths': (8, 6), **kwargs}
  return autoencoders.MlpAutoencoder(num_factors, nuisance_dim, **kwargs)


def _svhn(num_factors=2, nuisance_dim=1, **kwargs):
  kwargs = {'image_shape': (8, 8, 3), 'widths': (3, 4), **kwargs}
  return autoencoders.SvhnAutoencoder(num_factors, nuisance_dim, **kwargs)


def _faces(num_factors=2, nuisance_channels=3, **kwargs):
  kwargs = {'image_size': 8, 'first_width': 4, 'last_width': 6, **kwargs}
  return autoencoders.FaceAutoencoder(num_factors, nuisance_channels, **kwargs)


MAKERS = pytest.mark.parametrize('make', [_mlp, _svhn, _faces])
FLAT = pytest.mark.parametrize('make', [_mlp, _svhn])
_init = functools.lru_cache(autoencoders.init_variables)


def _images(module, count=5):
  images = jax.random.uniform(jax.random.key(1), (count, *module.image_shape))
  low, high = module.image_range
  return low + (high - low) * images


@functools.partial(jax.jit, static_argnums=(0, 3))
def _encode(module, variables, images, method='encode'):
  return module.apply(variables, images, method=method)


def _decode(module, variables, code):
  return _encode(module, variables, code, 'decode')


def _numpy_layers(x, params, names):
  """Applies dense layers with ReLU between, not after the last."""
  for name in names:
    x = x @ np.asarray(params[name]['kernel']) + params[name]['bias'][None]
    x = np.maximum(x, 0) if name != names[-1] else x
  return x


def _kernels(module, part):
  shapes = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
  return {x['kernel'].shape[-2:] for x in shapes['params'][part].values()}


def test_sizes_are_the_papers():
  pairs = lambda *sizes: set(itertools.pairwise(sizes))
  # Appendix A.1 of Lezama (2019): 784-256-128-64-(2 + 14), and back.
  mlp = autoencoders.MlpAutoencoder(2, 14)
  assert _kernels(mlp, 'encoder') == pairs(784, 256, 128, 64, 16)
  assert _kernels(mlp, 'decoder') == pairs(16, 64, 128, 256, 784)
  # Appendix A.5, with k = 2 and d = 16.
  svhn = autoencoders.SvhnAutoencoder(2, 16, True)
  assert _kernels(svhn, 'encoder') == pairs(3, 64, 128, 256, 18)
  assert _kernels(svhn, 'decoder') == pairs(18, 256, 128, 64, 3)
  # Appendix A.2: C(16) to C(512), C(512 + 40), and back; the released code
  # gives the factors to all of the decoder's layers.
  faces = autoencoders.FaceAutoencoder(40, 512)
  widths = (16, 32, 64, 128, 256, 512)
  assert _kernels(faces, 'encoder') == pairs(3, *widths, 552)
  widths = pairs(512, *widths[::-1], 3)
  assert _kernels(faces, 'decoder') == {(a + 40, b) for a, b in widths}
  assert faces.nuisance_dim == 2048


def test_mlp_is_that_of_numpy():
  module = _mlp()
  variables, images = _init(module, 0), _images(module)
  code = _encode(module, variables, images)
  params = variables['params']
  names = ['dense_0', 'dense_1', 'code']
  flat = _numpy_layers(np.reshape(images, (5, 16)), params['encoder'], names)
  # Rounding of float32 in sums of another order.
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(codes.merge(code), flat)
  names = ['dense_0', 'dense_1', 'dense_2']
  images = np.tanh(_numpy_layers(flat, params['decoder'], names))
  close(_decode(module, variables, code), images.reshape(5, *SHAPE))


@pytest.mark.parametrize('linear_code', [False, True])
def test_svhn_codes_and_images(linear_code):
  module = _svhn(linear_code=linear_code)
  variables, images = _init(module, 0), _images(module)
  code = _encode(module, variables, images)
  assert (code.factors.shape, code.nuisance.shape) == ((5, 2), (5, 1))
  # With a ReLU, averages of what is not negative.
  assert linear_code or np.all(codes.merge(code) >= 0)
  decoded = _decode(_svhn(), variables, code)
  assert decoded.shape == images.shape
  assert np.all((decoded > 0) & (decoded < 1))


def test_factors_of_faces_are_means_of_the_last_channels():
  module = _faces()
  variables, images = _init(module, 0), _images(module)
  code = _encode(module, variables, images)
  # The same parameters, all channels as nuisance.
  whole = np.asarray(_encode(_faces(0, 5), variables, images).nuisance)
  np.testing.assert_array_equal(code.nuisance, whole[..., :3])
  np.testing.assert_allclose(
    code.factors, np.mean(whole[..., 3:], axis=(1, 2)), rtol=1e-5
  )
  linear = _encode(_faces(factor_activation='linear'), variables, images)
  np.testing.assert_array_equal(linear.nuisance, whole[..., :3])
  # The slope of 0.2 is undone.
  factors = np.where(whole < 0, 5 * whole, whole)[..., 3:].mean(axis=(1, 2))
  np.testing.assert_allclose(linear.factors, factors, rtol=1e-5, atol=1e-6)
  bounded = _encode(_faces(factor_activation='tanh'), variables, images)
  np.testing.assert_array_equal(bounded.nuisance, linear.nuisance)
  np.testing.assert_allclose(bounded.factors, np.tanh(factors), atol=1e-6)
  with pytest.raises(errors.InputError, match="'relu'; accepted: leaky_relu"):
    _faces(factor_activation='relu')
  # With zeros for factors the decoder gives other images, in their range.
  decoded = _decode(module, variables, code)
  assert np.max(np.abs(decoded)) < 1
  zeros = code._replace(factors=np.zeros((5, 2), np.float32))
  others = _decode(module, variables, zeros)
  assert np.all(np.any(others != decoded, axis=(1, 2, 3)))


@MAKERS
def test_other_images_and_codes_raise(make):
  module = make()
  with pytest.raises(AssertionError):
    _encode(module, _init(module, 0), jnp.zeros((2, 4, 5, 1)))
  code = codes.Code(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
  with pytest.raises(AssertionError):
    _decode(module, _init(module, 0), code)


def test_sizes_of_svhn_are_multiples_and_of_faces_powers_of_two():
  for shape in ((28, 28, 1), (32, 12, 3), (0, 16, 3), (4, 4, 3)):
    with pytest.raises(errors.InputError, match='multiples of 8'):
      _svhn(image_shape=shape)
  for make in (
    _faces, classifiers.AttributeJudge, classifiers.ResidualAttributeJudge
  ):  # fmt: skip
    with pytest.raises(errors.InputError, match='size=12: accepted'):
      make(2, image_size=12)


@MAKERS
def test_gradients_reach_every_parameter(make):
  # A unit of SVHN that starts below 0 has none with a ReLU.
  module = make(linear_code=True) if make is _svhn else make()
  variables, images = _init(module, 0), _images(module)
  options = {'train': True} if make is _faces else {}

  def loss(params):
    outputs, updated = module.apply(
      {**variables, 'params': params},
      images,
      mutable='batch_stats',
      **options,
    )
    return jnp.mean(jnp.square(outputs - images)), updated

  grads, updated = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  chex.assert_trees_all_equal_shapes(grads, variables['params'])
  assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grads))
  # All running statistics have moved.
  stats = (variables['batch_stats'], updated)
  for old, new in zip(*map(jax.tree.leaves, stats)):
    assert np.all(old != new)


@FLAT
def test_jacobian_of_the_decoder(make):
  module = make(widths=(8, 8))
  variables = _init(module, 0)
  decode = lambda flat: module.apply(
    variables, codes.split(flat[None], 2), method='decode'
  )[0]
  flat = np.array([0.3, -0.2, 0.5], np.float32)
  # Forward differentiation, as the Jacobian of the decoder is drawn.
  both = jax.jit(lambda x: (jax.jacfwd(decode)(x), jax.jacrev(decode)(x)))
  columns, rows = both(flat)
  np.testing.assert_allclose(columns, rows, atol=1e-6)
  # Each unit of the code has an effect of its own.
  assert np.linalg.matrix_rank(np.reshape(columns, (-1, 3)), tol=1e-9) == 3


@FLAT
def test_flat_parameters_depend_on_the_sum_of_the_sizes_alone(make):
  chex.assert_trees_all_equal(_init(make(2, 1), 0), _init(make(3, 0), 0))


def test_only_the_layers_of_the_code_of_faces_grow():
  shapes = [
    jax.eval_shape(lambda m=m: autoencoders.init_variables(m, 0))
    for m in (_faces(2, 3), _faces(2, 5))
  ]
  leaves = map(jax.tree_util.tree_leaves_with_path, shapes)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  grown = {name(p) for (p, a), (_, b) in zip(*leaves) if a.shape != b.shape}
  last = 'encoder/down_1'
  assert grown == {
    'params/decoder/up_0/kernel',
    *(f'params/{last}/{x}' for x in ('kernel', 'bias')),
    *(f'params/{last}/norm/{x}' for x in ('scale', 'bias')),
    *(f'batch_stats/{last}/norm/{x}' for x in ('mean', 'var')),
  }


@FLAT
def test_only_a_normalized_code_has_batch_statistics(make):
  assert not jax.tree.leaves(_init(make(), 0)['batch_stats'])
  # Mean and variance of the three units; no scale, no bias.
  stats = jax.tree.leaves(_init(make(normalize_code=True), 0)['batch_stats'])
  assert [x.shape for x in stats] == [(3,), (3,)]


def test_normalization_is_by_the_batch_or_by_running_statistics():
  module = _mlp(normalize_code=True)
  variables, images = _init(module, 0), _images(module)
  raw = np.asarray(codes.merge(_encode(_mlp(), variables, images)))
  code, updated = module.apply(
    variables, images, train=True, method='encode', mutable='batch_stats'
  )
  mean, var = np.mean(raw, axis=0), np.var(raw, axis=0)
  # Flax divides by the root of the biased variance plus 1e-5, and keeps 0.9 of
  # the running statistics, which start at 0 and 1. Codes are of size 0.1 with a
  # spread of 0.01: float32 leaves about four digits after the mean is gone.
  normalize = lambda mean, var: (raw - mean) / np.sqrt(var + 1e-5)
  np.testing.assert_allclose(codes.merge(code), normalize(mean, var), atol=2e-3)
  stats = updated['batch_stats']['encoder']['code_norm']
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-4)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * var, rtol=1e-5)
  # In evaluation the running ones.
  mean, var = np.float32([[0.1, 0.2, 0.3]]), np.float32([[1, 4, 9]])
  stats = {'encoder': {'code_norm': {'mean': mean[0], 'var': var[0]}}}
  code = _encode(module, {**variables, 'batch_stats': stats}, images)
  np.testing.assert_allclose(
    codes.merge(code), normalize(mean, var), rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize('make', [_mlp, _faces])
def test_statistics_over_an_axis_are_those_of_the_whole_batch(make):
  options = {'normalize_code': True} if make is _mlp else {}
  method = 'encode' if make is _mlp else '__call__'
  module, spread = make(**options), make(**options, axis_name='shards')
  images, variables = _images(module, 8), _init(module, 0)
  apply = lambda module, images: module.apply(
    variables, images, train=True, method=method, mutable='batch_stats'
  )
  whole, whole_stats = jax.jit(lambda x: apply(module, x))(images)
  mapped = jax.vmap(lambda x: apply(spread, x), axis_name='shards')
  outputs, stats = jax.jit(mapped)(images.reshape(2, 4, *module.image_shape))
  for shards, expected in zip(*map(jax.tree.leaves, (outputs, whole))):
    np.testing.assert_allclose(
      shards.reshape(expected.shape), expected, rtol=1e-4, atol=2e-3
    )
  for shards, expected in zip(*map(jax.tree.leaves, (stats, whole_stats))):
    for shard in shards:
      np.testing.assert_allclose(shard, expected, rtol=1e-5, atol=1e-6)


@MAKERS
def test_bfloat16_computes_less_exactly_and_gives_float32(make):
  exact, half = make(), make(dtype=jnp.bfloat16)
  variables, images = _init(exact, 0), _images(exact)
  outputs = []
  for module in (half, exact):
    code = _encode(module, variables, images)
    outputs.append((code, _decode(module, variables, code)))
  assert not np.array_equal(outputs[0][0].nuisance, outputs[1][0].nuisance)
  for found, expected in zip(*map(jax.tree.leaves, outputs)):
    assert found.dtype == jnp.float32
    # bfloat16 has eight bits.
    np.testing.assert_allclose(found, expected, atol=3e-2)
