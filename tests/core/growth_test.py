"""Tests of jacsup_jax.core.growth."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import growth
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

SHAPE = (4, 4, 1)


def _model(num_factors=2, nuisance_dim=0, **kwargs):
  kwargs = {'image_shape': SHAPE, 'widths': (8, 6), **kwargs}
  return autoencoders.MlpAutoencoder(num_factors, nuisance_dim, **kwargs)


def _svhn_model(num_factors=2, nuisance_dim=0, **kwargs):
  kwargs = {'image_shape': (16, 16, 3), 'widths': (4, 5, 6), **kwargs}
  return autoencoders.SvhnAutoencoder(num_factors, nuisance_dim, **kwargs)


# A dense code and a convolutional one; the decoder's first layer, and the axis
# of its kernel that the code enters by.
FAMILIES = {'dense': (_model, 'dense_0', 0), 'svhn': (_svhn_model, 'up_0', 2)}
families = pytest.mark.parametrize(
  ('make_model', 'first', 'axis'), FAMILIES.values(), ids=FAMILIES.keys()
)


def _init(model, seed=0):
  return autoencoders.init_variables(model, seed)


def _grow(params, model, seed, **kwargs):
  return growth.grow(params, _init(model, seed)['params'], **kwargs)


# Values.


def test_new_units_stand_at_the_position_newest_first():
  small = {'kernel': jnp.array([[1.0, 2.0]])}
  fresh = {'kernel': jnp.array([[10.0, 20.0, 30.0, 40.0]])}
  grown = lambda position: growth.grow(small, fresh, position=position)[
    'kernel'
  ]
  np.testing.assert_array_equal(grown(0), [[40, 30, 1, 2]])
  np.testing.assert_array_equal(grown(1), [[1, 40, 30, 2]])
  np.testing.assert_array_equal(grown(2), [[1, 2, 40, 30]])


def test_preserving_zeroes_the_decoder_alone():
  leaf = lambda rows, value: {'kernel': jnp.full((rows, 2), value)}
  small = {'encoder': leaf(1, 1.0), 'decoder': leaf(1, 2.0)}
  fresh = {'encoder': leaf(2, 3.0), 'decoder': leaf(2, 4.0)}
  grown = growth.grow(small, fresh, position=0, initialization='preserving')
  np.testing.assert_array_equal(grown['encoder']['kernel'], [[3, 3], [1, 1]])
  np.testing.assert_array_equal(grown['decoder']['kernel'], [[0, 0], [2, 2]])


def test_any_pytree_grows():
  # A convolution's kernel on its inputs, a bias, running statistics in a tuple.
  small = (
    jnp.ones((3, 3, 2, 5)),
    {'norm': [jnp.ones(2), jnp.ones(2)]},
    jnp.array(7),
  )
  fresh = (
    2 * jnp.ones((3, 3, 4, 5)),
    {'norm': [jnp.zeros(4), 3 * jnp.ones(4)]},
    jnp.array(0),
  )
  kernel, stats, count = growth.grow(small, fresh, position=1)
  chex.assert_shape(kernel, (3, 3, 4, 5))
  np.testing.assert_array_equal(kernel[0, 0, :, 0], [1, 2, 2, 1])
  np.testing.assert_array_equal(stats['norm'][0], [1, 0, 0, 1])
  np.testing.assert_array_equal(stats['norm'][1], [1, 3, 3, 1])
  assert count == 7


@pytest.mark.parametrize(
  ('old', 'new', 'position'),
  [
    ((2, 3), (2, 3, 1), 0),  # Another rank.
    ((2, 3), (3, 4), 0),  # Two axes.
    ((2, 3), (2, 2), 0),  # Smaller.
    ((2, 3), (2, 4), 4),  # Position beyond the end.
    ((2, 3), (2, 4), -1),
  ],
)
def test_errors_name_the_leaf_and_both_shapes(old, new, position):
  with pytest.raises(errors.InputError) as error:
    growth.grow(
      {'decoder': {'dense_0': jnp.ones(old)}},
      {'decoder': {'dense_0': jnp.ones(new)}},
      position=position,
    )
  for part in ("['decoder']['dense_0']", str(old), str(new)):
    assert part in str(error.value)


# Invariants.


@families
@pytest.mark.parametrize('initialization', growth.INITIALIZATIONS)
@pytest.mark.parametrize('count', [1, 2])
def test_old_weights_stay_where_they_were(
  make_model, first, axis, initialization, count
):
  small, large = _init(make_model(3))['params'], make_model(3, count)
  grown = _grow(small, large, 1, position=2, initialization=initialization)
  chex.assert_trees_all_equal_shapes(grown, _init(large)['params'])
  new = [2, 3][:count]
  without = lambda x, axis: np.delete(x, new, axis)
  encoder, decoder = grown['encoder'], grown['decoder']
  for name in ('kernel', 'bias'):
    np.testing.assert_array_equal(
      without(encoder['code'][name], -1), small['encoder']['code'][name]
    )
  np.testing.assert_array_equal(
    without(decoder[first]['kernel'], axis), small['decoder'][first]['kernel']
  )
  new_rows = np.take(np.asarray(decoder[first]['kernel']), new, axis)
  assert np.all((new_rows == 0) == (initialization == 'preserving'))
  assert np.all(encoder['code']['kernel'][..., jnp.array(new)] != 0)
  # Leaves that do not grow are the same.
  for name in set(encoder) - {'code'}:
    chex.assert_trees_all_equal(encoder[name], small['encoder'][name])
  for name in set(decoder) - {first}:
    chex.assert_trees_all_equal(decoder[name], small['decoder'][name])


_encode = jax.jit(models.Model.encode)
_decode = jax.jit(models.Model.decode)


def _outputs(module, variables, images, with_jit):
  """Returns factors and decoded images of a whole code of factors."""
  model = models.Model(module, variables['params'], variables['batch_stats'])
  if with_jit:
    code = _encode(model, images)
    return code.factors, _decode(model, code)
  code = model.encode(images)
  return code.factors, model.decode(code)


def _check_preserving(make, code_dim, small, images, with_jit):
  """Checks that students that grow by 1 and 2 units start as their teacher."""
  before = _outputs(make(0), small, images, with_jit)
  for count in (1, 2):
    grown = growth.grow(
      small,
      _init(make(count), 1),
      position=code_dim,
      initialization='preserving',
    )
    after = _outputs(make(count), grown, images, with_jit)
    chex.assert_trees_all_equal(after, before)


# The paper's whole model: whether sums over n and over n + 1 terms, one of them
# 0, agree to the last bit depends on how a matrix product is blocked.
@pytest.mark.parametrize('with_jit', [True, False])
@pytest.mark.parametrize(
  'code_dim',
  [2, 7, 15, *(pytest.param(d, marks=pytest.mark.slow) for d in (3, 8, 20))],
)
def test_preserving_growth_reproduces_the_teacher_bit_for_bit(
  code_dim, with_jit
):
  make = lambda count: autoencoders.MlpAutoencoder(code_dim, count)
  images = jax.random.uniform(jax.random.key(5), (37, 28, 28, 1))
  _check_preserving(make, code_dim, _init(make(0)), images, with_jit)


# The BatchNorm of the code stays, and grows with it.
@pytest.mark.parametrize('with_jit', [True, False])
@pytest.mark.parametrize(
  'code_dim', [2, *(pytest.param(d, marks=pytest.mark.slow) for d in (7, 17))]
)
def test_preserving_growth_of_a_convolutional_code_is_exact_too(
  code_dim, with_jit
):
  make = lambda count: autoencoders.SvhnAutoencoder(
    code_dim, count, normalize_code=True, widths=(8, 12, 16)
  )
  small = _init(make(0))
  # Some running statistics, as after training.
  keys = iter(jax.random.split(jax.random.key(3), 2))
  small['batch_stats'] = jax.tree.map(
    lambda x: jax.random.uniform(next(keys), x.shape, minval=0.5),
    small['batch_stats'],
  )
  images = jax.random.uniform(jax.random.key(5), (9, 32, 32, 3))
  _check_preserving(make, code_dim, small, images, with_jit)


@families
@pytest.mark.parametrize(
  'position', [0, pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_growing_twice_by_one_is_growing_once_by_two(
  make_model, first, axis, position
):
  del first, axis
  small = _init(make_model(2), seed=0)['params']
  kwargs = {'position': position, 'initialization': 'preserving'}
  twice = _grow(small, make_model(2, 1), 1, **kwargs)
  twice = _grow(twice, make_model(2, 2), 1, **kwargs)
  once = _grow(small, make_model(2, 2), 1, **kwargs)
  chex.assert_trees_all_equal(twice, once)


@families
def test_moments_grow_with_their_parameters(make_model, first, axis):
  optimizer = optax.adam(1e-2)
  small, large = _init(make_model(2)), _init(make_model(2, 1), 1)
  old = optimizer.init(small['params'])
  _, old = optimizer.update(small['params'], old)
  new = growth.grow(old, optimizer.init(large['params']), position=2)
  old, new = old[0], new[0]
  assert new.count == old.count == 1
  for name in ('mu', 'nu'):
    before, after = (
      np.asarray(getattr(state, name)['decoder'][first]['kernel'])
      for state in (old, new)
    )
    np.testing.assert_array_equal(np.take(after, [0, 1], axis), before)
    np.testing.assert_array_equal(np.take(after, 2, axis), 0)
    assert np.any(before != 0)
    before = getattr(old, name)['encoder']['code']['bias']
    after = getattr(new, name)['encoder']['code']['bias']
    np.testing.assert_array_equal(after, [*before, 0.0])


@families
def test_folded_normalization_gives_the_same_factors(make_model, first, axis):
  del first, axis
  # After a ReLU there is nothing to fold into.
  linear = {'linear_code': True} if make_model is _svhn_model else {}
  make_model = functools.partial(make_model, 3, **linear)
  model = make_model(normalize_code=True)
  variables = _init(model)
  stats = {'mean': jnp.array([0.3, -0.2, 0.1]), 'var': jnp.array([0.5, 1, 4])}
  variables['batch_stats'] = {'encoder': {'code_norm': stats}}
  folded = growth.fold_normalization(variables)
  assert not jax.tree.leaves(folded['batch_stats'])
  images = jax.random.uniform(jax.random.key(1), (9, *model.image_shape))
  encode = lambda params, images: models.Model(
    model, params, variables['batch_stats']
  ).encode(images)
  plain = lambda params, images: models.Model(make_model(), params).encode(
    images
  )
  # Rounding of float32 in codes of size 1.
  np.testing.assert_allclose(
    codes.merge(plain(folded['params'], images)),
    codes.merge(encode(variables['params'], images)),
    atol=1e-6,
  )
