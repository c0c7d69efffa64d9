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


@functools.cache
def _init_once(model, seed):
  return autoencoders.init_variables(model, seed)


def _init(model, seed=0):
  return dict(_init_once(model, seed))


# One program instead of one an operation and shape.
_grow_tree = jax.jit(
  growth.grow, static_argnames=('position', 'initialization')
)


def _grow(params, model, seed, **kwargs):
  return _grow_tree(params, _init(model, seed)['params'], **kwargs)


def test_new_units_stand_at_the_position_newest_first():
  small = {'kernel': jnp.array([[1.0, 2.0]])}
  fresh = {'kernel': jnp.array([[10.0, 20.0, 30.0, 40.0]])}
  for position, expected in (
    (0, [[40, 30, 1, 2]]),
    (1, [[1, 40, 30, 2]]),
    (2, [[1, 2, 40, 30]]),
  ):
    grown = growth.grow(small, fresh, position=position)
    np.testing.assert_array_equal(grown['kernel'], expected)


def test_preserving_zeroes_the_decoder_alone():
  leaf = lambda rows, value: {'kernel': jnp.full((rows, 2), value)}
  small = {'encoder': leaf(1, 1.0), 'decoder': leaf(1, 2.0)}
  fresh = {'encoder': leaf(2, 3.0), 'decoder': leaf(2, 4.0)}
  grown = growth.grow(small, fresh, position=0, initialization='preserving')
  np.testing.assert_array_equal(grown['encoder']['kernel'], [[3, 3], [1, 1]])
  np.testing.assert_array_equal(grown['decoder']['kernel'], [[0, 0], [2, 2]])


def test_any_pytree_grows():
  # A convolution's kernel on its inputs, running statistics, a counter.
  small = (np.ones((3, 3, 2, 5)), {'norm': [np.ones(2)]}, np.array(7))
  fresh = (2 * np.ones((3, 3, 4, 5)), {'norm': [3 * np.ones(4)]}, np.array(0))
  kernel, stats, count = _grow_tree(small, fresh, position=1)
  chex.assert_shape(kernel, (3, 3, 4, 5))
  np.testing.assert_array_equal(kernel[0, 0, :, 0], [1, 2, 2, 1])
  np.testing.assert_array_equal(stats['norm'][0], [1, 3, 3, 1])
  assert count == 7


@pytest.mark.parametrize(
  ('old', 'new', 'position'),
  [
    ((2, 3), (2, 3, 1), 0),  # Another rank.
    ((2, 3), (3, 4), 0),  # Two axes.
    ((2, 3), (2, 2), 0),  # Smaller.
    ((2, 3), (2, 4), 4),  # Position beyond the end.
  ],
)
def test_errors_name_the_leaf_and_both_shapes(old, new, position):
  trees = [{'decoder': {'dense_0': np.ones(shape)}} for shape in (old, new)]
  with pytest.raises(errors.InputError) as error:
    growth.grow(*trees, position=position)
  for part in ("['decoder']['dense_0']", str(old), str(new)):
    assert part in str(error.value)


@families
@pytest.mark.parametrize(
  ('count', 'initialization'), [(1, 'random'), (2, 'preserving')]
)
def test_old_weights_stay_where_they_were(
  make_model, first, axis, initialization, count
):
  small, large = _init(make_model(3))['params'], make_model(3, count)
  grown = _grow(small, large, 1, position=2, initialization=initialization)
  chex.assert_trees_all_equal_shapes(grown, _init(large)['params'])
  new = [2, 3][:count]
  grown = jax.device_get(grown)
  code, kernel = grown['encoder']['code'], grown['decoder'][first]['kernel']
  new_rows = np.take(kernel, new, axis)
  assert np.all((new_rows == 0) == (initialization == 'preserving'))
  assert np.all(code['kernel'][..., new] != 0)
  # Without the new units all is as it was.
  grown['decoder'][first]['kernel'] = np.delete(kernel, new, axis)
  grown['encoder']['code'] = {n: np.delete(x, new, -1) for n, x in code.items()}
  chex.assert_trees_all_equal(grown, small)


_encode = jax.jit(models.Model.encode)
_decode = jax.jit(models.Model.decode)


def _check_preserving(make, code_dim, small, images, with_jit):
  """Checks that students that grow by 1 and 2 units start as their teacher."""

  def apply(count, variables):
    encode, decode = _encode, _decode
    if not with_jit:
      encode, decode = models.Model.encode, models.Model.decode
    model = models.Model(make(count), **variables)
    code = encode(model, images)
    return code.factors, decode(model, code)

  kwargs = {'position': code_dim, 'initialization': 'preserving'}
  for count in (1, 2):
    grown = _grow_tree(small, _init(make(count), 1), **kwargs)
    chex.assert_trees_all_equal(apply(count, grown), apply(0, small))


# The paper's whole model: whether sums over n and over n + 1 terms, one of them
# 0, agree to the last bit depends on how a matrix product is blocked.
@pytest.mark.parametrize(
  ('code_dim', 'with_jit'),
  [
    *((2, True), (15, True), (7, False)),
    *(pytest.param(d, True, marks=pytest.mark.slow) for d in (3, 8, 20)),
  ],
)
def test_preserving_growth_reproduces_the_teacher_bit_for_bit(
  code_dim, with_jit
):
  make = lambda count: autoencoders.MlpAutoencoder(code_dim, count)
  images = jax.random.uniform(jax.random.key(5), (37, 28, 28, 1))
  _check_preserving(make, code_dim, _init(make(0)), images, with_jit)


# The BatchNorm of the code stays, and grows with it.
@pytest.mark.parametrize(
  ('code_dim', 'with_jit'),
  [(2, True), *(pytest.param(7, x, marks=pytest.mark.slow) for x in (0, 1))],
)
def test_preserving_growth_of_a_convolutional_code_is_exact_too(
  code_dim, with_jit
):
  make = lambda count: _svhn_model(code_dim, count, normalize_code=True)
  small = _init(make(0))
  # Some running statistics, as after training.
  draw = np.random.default_rng(3).uniform
  small['batch_stats'] = jax.tree.map(
    lambda x: draw(0.5, 1.0, x.shape).astype(np.float32), small['batch_stats']
  )
  images = jax.random.uniform(jax.random.key(5), (9, 16, 16, 3))
  _check_preserving(make, code_dim, small, images, with_jit)


@pytest.mark.parametrize('make_model', [_model, _svhn_model])
@pytest.mark.parametrize('position', [0, 2])
def test_growing_twice_by_one_is_growing_once_by_two(make_model, position):
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

  @jax.jit
  def states(small, large):
    old = optimizer.update(small, optimizer.init(small))[1]
    return old, growth.grow(old, optimizer.init(large), position=2)

  (old, *_), (new, *_) = states(small['params'], large['params'])
  assert new.count == old.count == 1
  for name in ('mu', 'nu'):
    before, after = getattr(old, name), getattr(new, name)
    kernel, grown = (
      np.asarray(x['decoder'][first]['kernel']) for x in (before, after)
    )
    np.testing.assert_array_equal(np.take(grown, [0, 1], axis), kernel)
    np.testing.assert_array_equal(np.take(grown, 2, axis), 0)
    assert np.any(kernel != 0)
    bias, grown = (x['encoder']['code']['bias'] for x in (before, after))
    np.testing.assert_array_equal(grown, [*bias, 0.0])


@pytest.mark.parametrize('make_model', [_model, _svhn_model])
def test_folded_normalization_gives_the_same_factors(make_model):
  # After a ReLU there is nothing to fold into.
  linear = {'linear_code': True} if make_model is _svhn_model else {}
  module = make_model(3, normalize_code=True, **linear)
  variables = _init(module)
  stats = {'mean': jnp.array([0.3, -0.2, 0.1]), 'var': jnp.array([0.5, 1, 4])}
  variables['batch_stats'] = {'encoder': {'code_norm': stats}}
  folded = growth.fold_normalization(variables)
  assert not jax.tree.leaves(folded['batch_stats'])
  images = jax.random.uniform(jax.random.key(1), (9, *module.image_shape))
  plain = models.Model(make_model(3, **linear), **folded)
  # Rounding of float32 in codes of size 1.
  np.testing.assert_allclose(
    codes.merge(_encode(plain, images)),
    codes.merge(_encode(models.Model(module, **variables), images)),
    atol=1e-6,
  )
