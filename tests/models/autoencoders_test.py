"""Tests of autoencoders."""

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


def _model(num_factors=2, nuisance_dim=1, **kwargs):
  kwargs = {'image_shape': SHAPE, 'widths': (8, 6), **kwargs}
  return autoencoders.MlpAutoencoder(num_factors, nuisance_dim, **kwargs)


def _init(model, seed=0):
  return autoencoders.init_variables(model, seed)


def _make_encode(module, batch_stats=None):
  def encode(params, images):
    variables = {'params': params, 'batch_stats': batch_stats or {}}
    return module.apply(variables, images, method='encode')

  return jax.jit(encode)


def _make_decode(module, batch_stats=None):
  def decode(params, code):
    variables = {'params': params, 'batch_stats': batch_stats or {}}
    return module.apply(variables, code, method='decode')

  return jax.jit(decode)


def _images(count=5, seed=1, shape=SHAPE):
  return jax.random.uniform(jax.random.key(seed), (count, *shape))


def _numpy_layers(x, params, names):
  """Applies dense layers with ReLU between, not after the last."""
  x = np.asarray(x)
  for name in names:
    x = x @ np.asarray(params[name]['kernel'])
    x = x + np.asarray(params[name]['bias'])
    x = np.maximum(x, 0) if name != names[-1] else x
  return x


# Values.


def test_sizes_are_the_papers():
  variables = jax.eval_shape(
      autoencoders.MlpAutoencoder(2, 14).init,
      jax.random.key(0),
      jnp.zeros((1, 28, 28, 1)),
  )
  shapes = jax.tree.map(lambda x: x.shape, variables['params'])
  kernels = lambda tree: [layer['kernel'] for layer in tree.values()]
  # Appendix A.1 of Lezama (2019): 784-256-128-64-(2 + 14), and back.
  assert set(kernels(shapes['encoder'])) == {
      (784, 256), (256, 128), (128, 64), (64, 16),
  }  # pyformat: disable
  assert set(kernels(shapes['decoder'])) == {
      (16, 64), (64, 128), (128, 256), (256, 784),
  }  # pyformat: disable


def test_forward_pass_is_that_of_numpy():
  model = _model()
  params = _init(model)['params']
  images = _images()
  code = _make_encode(model)(params, images)
  flat = _numpy_layers(
      np.reshape(images, (5, 16)),
      params['encoder'],
      ['dense_0', 'dense_1', 'code'],
  )
  # Rounding of float32 in sums of another order.
  np.testing.assert_allclose(codes.merge(code), flat, rtol=1e-5, atol=1e-6)
  decoded = _make_decode(model)(params, code)
  hidden = _numpy_layers(
      flat, params['decoder'], ['dense_0', 'dense_1', 'dense_2']
  )
  np.testing.assert_allclose(
      decoded, np.tanh(hidden).reshape(5, *SHAPE), rtol=1e-5, atol=1e-6
  )


def test_every_layer_starts_within_torchs_bounds():
  params = _init(_model(widths=(64, 32)))['params']
  for layer in [*params['encoder'].values(), *params['decoder'].values()]:
    fan_in = layer['kernel'].shape[0]
    bound = 1 / np.sqrt(fan_in)
    for leaf in layer.values():
      assert np.max(np.abs(leaf)) <= bound * (1 + 1e-6)
    assert np.max(np.abs(layer['kernel'])) > 0.9 * bound


def test_other_images_raise():
  model = _model()
  variables = _init(model)
  with pytest.raises(AssertionError):
    _make_encode(model)(variables['params'], jnp.zeros((2, 4, 5, 1)))
  with pytest.raises(AssertionError):
    _make_decode(model)(
        variables['params'], codes.Code(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    )


# Gradients.


def test_gradients_reach_every_parameter():
  model = _model()
  params = _init(model)['params']
  encode, decode = _make_encode(model), _make_decode(model)
  images = _images(32)
  grads = jax.grad(
      lambda p: jnp.mean(jnp.square(decode(p, encode(p, images)) - images))
  )(params)
  chex.assert_trees_all_equal_shapes(grads, params)
  for leaf in jax.tree.leaves(grads):
    assert np.any(leaf != 0)


def test_jacobian_of_the_decoder_is_that_of_reverse_differentiation():
  model = _model()
  params = _init(model)['params']
  decode = _make_decode(model)
  single = lambda flat: decode(params, codes.split(flat[None], 2))[0]
  flat = jnp.array([0.3, -0.2, 0.5])
  forward = jax.jacfwd(single)(flat)
  assert forward.shape == (*SHAPE, 3)
  np.testing.assert_allclose(forward, jax.jacrev(single)(flat), atol=1e-6)
  # Each unit of the code has an effect.
  assert np.all(np.any(forward != 0, axis=(0, 1, 2)))


# Invariants.


def test_parameters_have_the_top_keys_encoder_and_decoder():
  assert set(_init(_model())['params']) == {'encoder', 'decoder'}


def test_only_a_normalized_code_has_batch_statistics():
  assert not jax.tree.leaves(_init(_model())['batch_stats'])
  variables = _init(_model(normalize_code=True))
  # Mean and variance of the three units; no scale, no bias.
  assert [x.shape for x in jax.tree.leaves(variables['batch_stats'])] == [
      (3,), (3,),
  ]  # pyformat: disable
  chex.assert_trees_all_equal(variables['params'], _init(_model())['params'])


def test_parameters_depend_on_the_sum_of_the_sizes_alone():
  chex.assert_trees_all_equal(_init(_model(2, 1)), _init(_model(3, 0)))


def test_first_units_of_a_larger_encoder_are_those_of_a_smaller():
  small, large = _init(_model(2, 0))['params'], _init(_model(2, 3))['params']
  for name in ('kernel', 'bias'):
    np.testing.assert_array_equal(
        large['encoder']['code'][name][..., :2], small['encoder']['code'][name]
    )
  for name in ('dense_0', 'dense_1'):
    chex.assert_trees_all_equal(
        large['encoder'][name], small['encoder'][name]
    )


def test_training_normalises_with_the_statistics_of_the_batch():
  model = _model(normalize_code=True)
  variables = _init(model)
  images = _images(64)
  raw = np.asarray(
      codes.merge(_make_encode(_model())(variables['params'], images))
  )
  code, updated = model.apply(
      variables, images, train=True, method='encode', mutable='batch_stats'
  )
  mean, var = np.mean(raw, axis=0), np.var(raw, axis=0)
  # Flax divides by the root of the biased variance plus 1e-5, and keeps 0.9 of
  # the running statistics, which start at 0 and 1. Codes are of size 0.1 with a
  # spread of 0.01: float32 leaves about four digits after the mean is gone.
  np.testing.assert_allclose(
      codes.merge(code), (raw - mean) / np.sqrt(var + 1e-5), atol=2e-3
  )
  stats = updated['batch_stats']['encoder']['code_norm']
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-4)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * var, rtol=1e-5)


def test_evaluation_normalises_with_running_statistics():
  model = _model(normalize_code=True)
  params = _init(model)['params']
  stats = {'encoder': {'code_norm': {
      'mean': jnp.array([0.1, 0.2, 0.3]), 'var': jnp.array([1.0, 4.0, 9.0]),
  }}}  # pyformat: disable
  raw = _make_encode(_model())(params, _images())
  code = _make_encode(model, stats)(params, _images())
  expected = (codes.merge(raw) - np.array([[0.1, 0.2, 0.3]])) / np.sqrt(
      np.array([[1.0, 4.0, 9.0]]) + 1e-5
  )
  np.testing.assert_allclose(
      codes.merge(code), expected, rtol=1e-4, atol=1e-6
  )


def test_statistics_over_an_axis_are_those_of_the_whole_batch():
  images = _images(12)
  apply = lambda model, images: model.apply(
      _init(model), images, train=True, method='encode', mutable='batch_stats'
  )
  whole, whole_stats = apply(_model(normalize_code=True), images)
  spread, stats = jax.vmap(
      lambda x: apply(_model(normalize_code=True, axis_name='shards'), x),
      axis_name='shards',
  )(images.reshape(4, 3, *SHAPE))
  np.testing.assert_allclose(
      spread.factors.reshape(12, 2), whole.factors, atol=2e-3
  )
  for shard, expected in zip(
      jax.tree.leaves(stats), jax.tree.leaves(whole_stats)
  ):
    np.testing.assert_allclose(
        shard, np.tile(expected, (4, 1)), rtol=1e-5, atol=1e-6
    )


def test_bfloat16_computes_less_exactly_and_gives_float32():
  model, exact = _model(dtype=jnp.bfloat16), _model()
  params = _init(exact)['params']
  code = _make_encode(model)(params, _images())
  exact_code = _make_encode(exact)(params, _images())
  assert code.factors.dtype == jnp.float32
  # bfloat16 has eight bits.
  np.testing.assert_allclose(code.factors, exact_code.factors, atol=2e-2)
  assert not np.array_equal(code.factors, exact_code.factors)
  assert _make_decode(model)(params, code).dtype == jnp.float32


def test_seeds_give_other_parameters():
  first, second = _init(_model(), 0), _init(_model(), 1)
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
    assert not np.any(a == b)


# SVHN.


def _svhn_model(num_factors=2, nuisance_dim=1, **kwargs):
  kwargs = {'widths': (3, 4, 5), **kwargs}
  return autoencoders.SvhnAutoencoder(num_factors, nuisance_dim, **kwargs)


def test_svhn_sizes_are_the_papers():
  model = autoencoders.SvhnAutoencoder(2, 16, True)
  shapes = jax.tree.map(
      lambda x: x.shape,
      jax.eval_shape(
          model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
      ),
  )
  kernels = lambda name: [
      layer['kernel'] for layer in shapes['params'][name].values()
  ]
  # Appendix A.5 of Lezama (2019), with k = 2 and d = 16.
  assert set(kernels('encoder')) == {
      (3, 3, 3, 64), (3, 3, 64, 128), (3, 3, 128, 256), (3, 3, 256, 18),
  }  # pyformat: disable
  assert set(kernels('decoder')) == {
      (4, 4, 18, 256), (4, 4, 256, 128), (4, 4, 128, 64), (4, 4, 64, 3),
  }  # pyformat: disable
  assert shapes['batch_stats']['encoder']['code_norm']['mean'] == (18,)


@pytest.mark.parametrize('linear_code', [False, True])
def test_svhn_codes_and_images(linear_code):
  model = _svhn_model(linear_code=linear_code)
  variables = _init(model)
  assert set(variables['params']) == {'encoder', 'decoder'}
  encode, decode = _make_encode(model), _make_decode(model)
  images = _images(shape=(32, 32, 3))
  code = encode(variables['params'], images)
  assert (code.factors.shape, code.nuisance.shape) == ((5, 2), (5, 1))
  # Averages of what has passed a ReLU.
  assert linear_code or np.all(codes.merge(code) >= 0)
  decoded = decode(variables['params'], code)
  assert decoded.shape == images.shape
  assert np.all((decoded > 0) & (decoded < 1))


@pytest.mark.parametrize(
    'shape', [(28, 28, 1), (32, 24, 3), (0, 16, 3), (8, 8, 3)]
)
def test_svhn_sizes_are_multiples_of_sixteen(shape):
  with pytest.raises(errors.InputError, match='multiples of 16'):
    _svhn_model(image_shape=shape)


def test_other_images_raise_for_svhn():
  model = _svhn_model()
  params = _init(model)['params']
  with pytest.raises(AssertionError):
    _make_encode(model)(params, _images(shape=(16, 32, 3)))
  with pytest.raises(AssertionError):
    _make_decode(model)(
        params, codes.Code(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    )


@pytest.mark.parametrize('image_shape', [(32, 32, 3), (16, 48, 1)])
def test_gradients_reach_every_parameter_of_svhn(image_shape):
  # A unit that starts below 0 has none with a ReLU.
  model = _svhn_model(image_shape=image_shape, linear_code=True)
  params = _init(model)['params']
  encode, decode = _make_encode(model), _make_decode(model)
  images = _images(8, shape=image_shape)
  grads = jax.grad(
      lambda p: jnp.mean(jnp.square(decode(p, encode(p, images)) - images))
  )(params)
  chex.assert_trees_all_equal_shapes(grads, params)
  for leaf in jax.tree.leaves(grads):
    assert np.any(leaf != 0)


def test_units_of_a_svhn_code_have_effects_of_their_own():
  model = autoencoders.SvhnAutoencoder(3, 0, widths=(8, 8, 8))
  params = _init(model)['params']
  decode = lambda flat: _make_decode(model)(
      params, codes.split(flat[None], 3)
  )[0]
  # Forward differentiation, as the Jacobian of the decoder is drawn.
  columns = jax.jacfwd(decode)(jnp.array([0.3, -0.2, 0.5]))
  np.testing.assert_allclose(
      columns, jax.jacrev(decode)(jnp.array([0.3, -0.2, 0.5])), atol=1e-6
  )
  assert np.linalg.matrix_rank(np.reshape(columns, (-1, 3)), tol=1e-9) == 3


def test_svhn_parameters_depend_on_the_sum_of_the_sizes_alone():
  chex.assert_trees_all_equal(
      _init(_svhn_model(2, 1)), _init(_svhn_model(3, 0))
  )


def test_svhn_in_bfloat16_gives_float32():
  model, exact = _svhn_model(dtype=jnp.bfloat16), _svhn_model()
  params = _init(exact)['params']
  images = _images(shape=(32, 32, 3))
  code = _make_encode(model)(params, images)
  exact_code = _make_encode(exact)(params, images)
  assert code.factors.dtype == jnp.float32
  # bfloat16 has eight bits.
  np.testing.assert_allclose(code.factors, exact_code.factors, atol=2e-2)
  assert _make_decode(model)(params, code).dtype == jnp.float32


# Faces.


def _face_model(num_factors=2, nuisance_channels=3, **kwargs):
  kwargs = {'image_size': 8, 'first_width': 4, 'last_width': 6, **kwargs}
  return autoencoders.FaceAutoencoder(num_factors, nuisance_channels, **kwargs)


def _face_images(count=3):
  images = _images(count, shape=(8, 8, 3))
  return 2 * images - 1


def _kernels(tree):
  return [layer['kernel'].shape for layer in tree.values()]


def test_face_sizes_are_the_papers():
  variables = jax.eval_shape(
      autoencoders.FaceAutoencoder(40, 512).init,
      jax.random.key(0),
      jnp.zeros((1, 256, 256, 3)),
  )
  # Appendix A.2 of Lezama (2019): C(16) to C(512), C(512 + 40), and back; the
  # released code gives the factors to all of the decoder's layers.
  widths = [3, 16, 32, 64, 128, 256, 512, 552]
  assert _kernels(variables['params']['encoder']) == [
      (4, 4, *pair) for pair in zip(widths, widths[1:])
  ]
  widths = [512, 512, 256, 128, 64, 32, 16, 3]
  assert _kernels(variables['params']['decoder']) == [
      (4, 4, fan_in + 40, fan_out)
      for fan_in, fan_out in zip(widths, widths[1:])
  ]
  assert autoencoders.FaceAutoencoder(40, 512).nuisance_dim == 2048


def test_small_face_sizes():
  params = _init(_face_model())['params']
  assert list(params['encoder']) == ['down_0', 'down_1']
  # Width 4, then 3 + 2 channels of 2x2 pixels.
  assert _kernels(params['encoder']) == [(4, 4, 3, 4), (4, 4, 4, 5)]
  assert _kernels(params['decoder']) == [(4, 4, 5, 4), (4, 4, 6, 3)]
  # The first block has no BatchNorm, nor has the last.
  assert [set(x) for x in params['encoder'].values()] == [
      {'kernel', 'bias'}, {'kernel', 'bias', 'norm'},
  ]  # pyformat: disable
  assert [set(x) for x in params['decoder'].values()] == [
      {'kernel', 'norm'}, {'kernel'},
  ]  # pyformat: disable
  assert _face_model().image_shape == (8, 8, 3)


@pytest.mark.parametrize('size', [0, 4, 12, 257])
def test_image_sizes_are_powers_of_two(size):
  for make in (
      lambda: _face_model(image_size=size),
      lambda: classifiers.AttributeJudge(2, size),
  ):
    with pytest.raises(errors.InputError, match=f'size={size}: accepted'):
      make()


def test_factors_are_means_of_the_last_channels():
  model = _face_model()
  variables = _init(model)
  images = _face_images()
  code = _make_encode(model, variables['batch_stats'])(
      variables['params'], images
  )
  assert code.nuisance.shape == (3, 2, 2, 3)
  # The same parameters, all channels as nuisance.
  whole = _make_encode(_face_model(0, 5), variables['batch_stats'])(variables['params'], images)
  np.testing.assert_array_equal(code.nuisance, whole.nuisance[..., :3])
  np.testing.assert_allclose(
      code.factors, np.mean(whole.nuisance[..., 3:], axis=(1, 2)), rtol=1e-5
  )
  # With zeros for factors the decoder gives other images, in their range.
  decode = _make_decode(model, variables['batch_stats'])
  decoded = decode(variables['params'], code)
  assert decoded.shape == images.shape
  assert np.max(np.abs(decoded)) < 1
  others = decode(variables['params'], code._replace(factors=jnp.zeros((3, 2))))
  assert np.all(np.any(others != decoded, axis=(1, 2, 3)))


def test_linear_factors_have_no_leaky_relu():
  variables = _init(_face_model())
  images = _face_images()
  encode = lambda model: _make_encode(model, variables['batch_stats'])(variables['params'], images)
  code = encode(_face_model(linear_factors=True))
  whole = np.asarray(encode(_face_model(0, 5)).nuisance)
  assert np.any(whole[..., 3:] < 0)
  np.testing.assert_array_equal(code.nuisance, whole[..., :3])
  # The slope of 0.2 is undone.
  factors = np.where(whole < 0, 5 * whole, whole)[..., 3:].mean(axis=(1, 2))
  np.testing.assert_allclose(code.factors, factors, rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_parameter_of_faces():
  model = _face_model()
  variables = _init(model)
  images = _face_images()

  @jax.jit
  def gradients(params):
    def loss(params):
      reconstructions, updated = model.apply(
          {**variables, 'params': params},
          images,
          train=True,
          mutable='batch_stats',
      )
      return jnp.mean(jnp.square(reconstructions - images)), updated

    return jax.grad(loss, has_aux=True)(params)

  grads, updated = gradients(variables['params'])
  chex.assert_trees_all_equal_shapes(grads, variables['params'])
  for leaf in jax.tree.leaves(grads):
    assert np.any(leaf != 0)
  # Both halves have running statistics, and all of them have moved.
  for old, new in zip(
      jax.tree.leaves(variables['batch_stats']),
      jax.tree.leaves(updated['batch_stats']),
      strict=True,
  ):
    assert np.all(old != new)


def test_only_the_layers_of_the_code_grow():
  small, large = (
      autoencoders.init_variables(model, 0)
      for model in (_face_model(2, 3), _face_model(2, 5))
  )
  grown = set()

  def compare_shapes(path, first, second):
    if first.shape != second.shape:
      grown.add(jax.tree_util.keystr(path, simple=True, separator='/'))
    else:
      # What does not grow starts alike.
      np.testing.assert_array_equal(first, second)

  jax.tree.map_with_path(compare_shapes, small, large)
  last = 'encoder/down_1'
  assert grown == {
      'params/decoder/up_0/kernel',
      *(f'params/{last}/{x}' for x in ('kernel', 'bias')),
      *(f'params/{last}/norm/{x}' for x in ('scale', 'bias')),
      *(f'batch_stats/{last}/norm/{x}' for x in ('mean', 'var')),
  }
  # Units are drawn one by one.
  for name in ('kernel', 'bias'):
    np.testing.assert_array_equal(
        large['params']['encoder']['down_1'][name][..., :5],
        small['params']['encoder']['down_1'][name],
    )


def test_statistics_of_faces_over_an_axis_are_those_of_the_whole_batch():
  images = _face_images(4)
  variables = _init(_face_model())
  apply = lambda model, images: model.apply(
      variables, images, train=True, mutable='batch_stats'
  )
  whole, whole_stats = jax.jit(lambda x: apply(_face_model(), x))(images)
  spread, stats = jax.jit(
      jax.vmap(
          lambda x: apply(_face_model(axis_name='shards'), x),
          axis_name='shards',
      )
  )(images.reshape(2, 2, 8, 8, 3))
  np.testing.assert_allclose(
      spread.reshape(4, 8, 8, 3), whole, rtol=1e-4, atol=1e-5
  )
  for shard, expected in zip(
      jax.tree.leaves(stats), jax.tree.leaves(whole_stats)
  ):
    np.testing.assert_allclose(
        shard, np.tile(expected, (2, 1)), rtol=1e-5, atol=1e-6
    )


def test_faces_in_bfloat16_give_float32():
  variables = _init(_face_model())
  images = _face_images()

  def code_and_images(dtype):
    model = _face_model(dtype=dtype)

    @jax.jit
    def apply(variables, images):
      code = model.apply(variables, images, method='encode')
      return code, model.apply(variables, code, method='decode')

    return apply(variables, images)

  half, exact = code_and_images(jnp.bfloat16), code_and_images(jnp.float32)
  for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact)):
    assert a.dtype == jnp.float32
    # bfloat16 has eight bits.
    np.testing.assert_allclose(a, b, atol=3e-2)
    assert not np.array_equal(a, b)
