"""Tests of jacsup_jax.core.losses."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import losses

# Mean of y is 0; mean of z is (2, 4). Covariances over M = 2 examples:
# (-1 * 1 + 1 * -1) / 2 = -1 and (-2 * 1 + 2 * -1) / 2 = -2.
FACTORS = np.array([[1.0], [-1.0]], np.float32)
NUISANCE = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)
NEIGHBORS = jax.jit(
  losses.neighbor_embedding_loss, static_argnames=('scale', 'axis_name')
)


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _images(values):
  """Images of two pixels."""
  return np.reshape(values, (-1, 1, 2, 1))


@pytest.mark.parametrize(
  ('loss', 'args', 'expected'),
  [
    # ((1 - 0)^2 + (2 - 0)^2) / 2 and ((3 - 3)^2 + (4 - 2)^2) / 2.
    ('reconstruction', map(_images, ([1, 2, 3, 4], [0, 0, 3, 2])), [2.5, 2]),
    # (1 + 4) / 2 and (9 + 16) / 2, means over factors.
    ('factor_matching', ([[1, 2], [0, 0]], [[0, 0], [3, 4]]), [2.5, 12.5]),
    ('swap_check', ([[1, 2]], [[0, 0]]), [2.5]),
    # (0.5 + 1) / 2 * (1 - 0.6), as both pixels are near 0.6; (0.25 + 0) / 2.
    (
      'background',
      map(_images, ([0.5, -1, 0.25, 0], [0, 0.2, 0, 0], [0.6, 0, 0, 0])),
      [0.3, 0.125],
    ),
    # (1 - 0.5 + 0) / 2, the second beyond the margin, and (2 + 4) / 2.
    ('attribute_hinge', ([[0.5, 2], [-1, 3]], [[1, 1], [1, -1]]), [0.25, 3]),
    # -(log(3 / 4) + log(1 / 2)) / 2; of the wrong bound, -log(1e-6) / 2.
    (
      'attribute_likelihood',
      ([[0.5, 0], [-1, 1]], [[1, -1], [1, 1]]),
      [0.4904146, 6.9077553],
    ),
    # log 2 + log 2; log(4 / 3) + 1000, without overflow.
    (
      'attribute_cross_entropy',
      ([[0, 0], [np.log(3), -1000]], [[1, -1], [1, 1]]),
      [1.3862944, 1000.2877],
    ),
    # The second changes: log 4 + (0 + log 4) / 2; none: (log 2 + log 2) / 2.
    (
      'edit_check',
      (
        [[100, np.log(3)], [0, 0]],
        [[1, -1], [1, 1]],
        [[1, 1], [1, 1]],
      ),
      [2.0794415, 0.6931472],
    ),
    # The given factors are the labels: (1 - 2 * 0.25 + 1 + 1 * 0.5) / 2.
    ('attribute_cycle', ([[2, -1]], [[0.25, 0.5]]), [1]),
    # 1 + 4 and 0 + 9: a sum, not a mean, and no root.
    ('nuisance_cycle', map(_images, ([1, 2, 3, 4], [0, 0, 3, 1])), [5, 9]),
    # (-1)^2 + (-2)^2; with M - 1 instead of M it would be 20.
    ('cross_covariance', (FACTORS, NUISANCE), 5),
  ],
)  # fmt: skip
def test_losses_by_hand(loss, args, expected):
  args = [np.asarray(x, np.float32) for x in args]
  found = getattr(losses, f'{loss}_loss')(*args)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_jacobian_is_summed_over_swaps():
  # By (1, 2) and (4, 0): (9 + 4) / 2; by (0, 0) and (1, 1): 1. Their sum.
  changes = [[1.0, 2.0], [0.0, 0.0]], [[4.0, 0.0], [1.0, 1.0]]
  loss = losses.jacobian_loss(*(np.reshape(x, (2, 1, 2, 1)) for x in changes))
  np.testing.assert_array_equal(loss, [7.5])


def test_neighbor_embedding_is_the_negative_log_of_a_share():
  # Factors 0 and 1, their neighbours 1 and 3, scale 1: similarities of the
  # first are 1/2 (the second), 1/2 (its own neighbour) and 1/10; of the
  # second 1/2, 1 (the first's neighbour) and 1/5 (its own).
  loss = losses.neighbor_embedding_loss(
    jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [3.0]]), scale=1.0
  )
  expected = -np.log([0.5 / 1.1, 0.2 / 1.7])
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_cross_covariance_norm_is_its_root():
  loss = losses.cross_covariance_loss(FACTORS, NUISANCE, squared=False)
  # The square root of 5, to the rounding of float32.
  np.testing.assert_allclose(loss, 2.2360680, rtol=1e-7)


@pytest.mark.parametrize(
  'name',
  [
    'reconstruction',
    'factor_matching',
    'attribute_hinge',
    'attribute_likelihood',
  ],
)
def test_mismatched_shapes_raise(name):
  # A single example instead of two, which would broadcast.
  with pytest.raises(AssertionError):
    getattr(losses, f'{name}_loss')(jnp.zeros((2, 3)), jnp.zeros((1, 3)))


@pytest.mark.parametrize('squared', [True, False])
def test_cross_covariance_without_nuisance_is_zero(squared):
  args = _random(0, 4, 2), jnp.zeros((4, 0))
  assert losses.cross_covariance_loss(*args, squared=squared) == 0.0


def test_gradient_of_hinge_is_zero_beyond_the_margin():
  attributes = jnp.array([[1.0, 1.0], [1.0, -1.0]])
  total = lambda y: jnp.sum(losses.attribute_hinge_loss(y, attributes))
  grads = jax.grad(total)(jnp.array([[0.5, 2.0], [-1.0, 3.0]]))
  # -ybar / 2 attributes inside the margin.
  np.testing.assert_array_equal(grads, [[-0.5, 0.0], [-0.5, 0.5]])


@pytest.mark.parametrize('squared', [True, False])
def test_gradient_of_cross_covariance_agrees_with_differences(squared):
  loss = jax.jit(
    functools.partial(losses.cross_covariance_loss, squared=squared)
  )
  # Central differences of float32 are good to about three digits.
  chex.assert_numerical_grads(
    loss, (_random(0, 6, 2), _random(1, 6, 3)), order=1, atol=1e-2, rtol=1e-2
  )


@pytest.mark.parametrize('squared', [True, False])
def test_gradient_of_cross_covariance_is_zero_where_it_is_zero(squared):
  # A new nuisance unit may be constant over the batch.
  factors, nuisance = _random(0, 6, 2), jnp.ones((6, 1))
  grads = jax.grad(
    functools.partial(losses.cross_covariance_loss, squared=squared),
    argnums=(0, 1),
  )(factors, nuisance)
  chex.assert_tree_all_finite(grads)
  for grad in grads:
    np.testing.assert_array_equal(grad, np.zeros(grad.shape))


def test_gradient_of_neighbor_embedding_agrees_with_differences():
  # Central differences of float32 are good to about three digits.
  chex.assert_numerical_grads(
    jax.jit(lambda *args: jnp.sum(NEIGHBORS(*args, scale=2.0))),
    (_random(0, 4, 2), _random(1, 4, 2)),
    order=1,
    atol=5e-2,
    rtol=5e-2,
  )


def test_neighbor_embedding_of_parts_is_that_of_the_whole_batch():
  factors, others = _random(0, 6, 2), _random(1, 6, 2)
  whole = NEIGHBORS(factors, others)
  parts = jax.vmap(
    functools.partial(NEIGHBORS, axis_name='data'),
    axis_name='data',
  )(factors.reshape(3, 2, 2), others.reshape(3, 2, 2))
  # The order of the sum differs.
  np.testing.assert_allclose(parts.reshape(6), whole, rtol=1e-5)


def test_neighbor_embedding_of_chance_is_the_log_of_how_many():
  # All at one place: each of the 2 B - 1 others is as near.
  same = jnp.ones((5, 2))
  np.testing.assert_allclose(
    NEIGHBORS(same, same), np.full(5, np.log(9)), rtol=1e-6
  )
  # Pairs far from all others are certain.
  apart = 1e3 * jnp.arange(10.0).reshape(5, 2)
  assert np.all(NEIGHBORS(apart, apart) < 1e-3)


@pytest.mark.parametrize('squared', [True, False])
def test_cross_covariance_over_an_axis_is_that_of_the_whole_batch(squared):
  random = np.random.default_rng(0).normal
  args = random(size=(12, 2)), random(size=(12, 6)) + 3.0
  loss = functools.partial(losses.cross_covariance_loss, squared=squared)

  def spread(*args, axis_name='shards'):
    shards = [x.reshape(4, 3, -1) for x in args]
    of_shard = functools.partial(loss, axis_name=axis_name)
    return jax.vmap(of_shard, axis_name='shards')(*shards)

  @jax.jit
  def compute(*args):
    return (
      jax.value_and_grad(loss, argnums=(0, 1))(*args),
      spread(*args),
      jax.grad(lambda *args: jnp.mean(spread(*args)), argnums=(0, 1))(*args),
      spread(*args, axis_name=None),
    )

  (whole, whole_grads), by_shard, grads, own = compute(*args)
  # Rounding of float32 in sums of another order.
  np.testing.assert_allclose(by_shard, np.full(4, whole), rtol=1e-5)
  chex.assert_trees_all_close(grads, whole_grads, rtol=1e-4, atol=1e-6)
  # The mean of the shards' own losses is something else: the axis matters.
  assert not np.allclose(jnp.mean(own), whole, rtol=0.02)


def test_cross_covariance_is_that_of_numpy():
  factors, nuisance = _random(0, 50, 3), _random(1, 50, 4) + 2.0
  # rowvar: rows of the joint matrix are units; bias divides by M.
  joint = np.cov(np.hstack([factors, nuisance]), rowvar=False, bias=True)
  np.testing.assert_allclose(
    losses.cross_covariance_loss(factors, nuisance),
    np.sum(joint[:3, 3:] ** 2),
    # Sums of 50 float32 against float64.
    rtol=1e-4,
  )


def test_background_begins_one_pixel_away_from_strokes():
  images = np.zeros((1, 5, 5, 1), np.float32)
  images[0, 2, 2] = 1
  ones, empty = np.ones_like(images), np.zeros_like(images)
  # Nine of 25 pixels are near the stroke, whichever image has it.
  for pair in ((images, empty), (empty, images)):
    found = losses.background_loss(ones, *pair)
    np.testing.assert_allclose(found, [16 / 25], rtol=1e-6)
  # What is compared with stays as it is.
  gradient = jax.grad(lambda x: losses.background_loss(ones, x, x)[0])(images)
  assert not gradient.any()
