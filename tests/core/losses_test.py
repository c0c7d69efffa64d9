"""Tests of jacsup_jax.core.losses."""

import functools

from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import losses

# Two images of two pixels.
IMAGES = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).reshape(2, 1, 2, 1)
OTHER_IMAGES = np.array([[0.0, 0.0], [3.0, 2.0]], np.float32).reshape(
  2, 1, 2, 1
)
# Mean of y is 0; mean of z is (2, 4). Covariances over M = 2 examples:
# (-1 * 1 + 1 * -1) / 2 = -1 and (-2 * 1 + 2 * -1) / 2 = -2.
FACTORS = np.array([[1.0], [-1.0]], np.float32)
NUISANCE = np.array([[1.0, 2.0], [3.0, 6.0]], np.float32)


def _random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


# Values.


def test_reconstruction_is_the_mean_over_pixels():
  # ((1 - 0)^2 + (2 - 0)^2) / 2 and ((3 - 3)^2 + (4 - 2)^2) / 2.
  loss = losses.reconstruction_loss(IMAGES, OTHER_IMAGES)
  np.testing.assert_array_equal(loss, [2.5, 2.0])


def test_factor_matching_is_the_mean_over_factors():
  student = jnp.array([[1.0, 2.0], [0.0, 0.0]])
  teacher = jnp.array([[0.0, 0.0], [3.0, 4.0]])
  # (1 + 4) / 2 and (9 + 16) / 2.
  loss = losses.factor_matching_loss(student, teacher)
  np.testing.assert_array_equal(loss, [2.5, 12.5])


def test_jacobian_is_summed_over_swaps():
  change = lambda *pixels: jnp.array(pixels).reshape(2, 1, 1, 2, 1)
  # By (1, 2) and (4, 0): (9 + 4) / 2; by (0, 0) and (1, 1): 1. Their sum.
  loss = losses.jacobian_loss(
    change(1.0, 2.0, 0.0, 0.0), change(4.0, 0.0, 1.0, 1.0)
  )
  np.testing.assert_array_equal(loss, [7.5])


def test_swap_check_is_the_mean_over_factors():
  # (1 + 4) / 2.
  loss = losses.swap_check_loss(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)))
  np.testing.assert_array_equal(loss, [2.5])


def test_neighbor_embedding_is_the_negative_log_of_a_share():
  # Factors 0 and 1, their neighbours 1 and 3, scale 1: similarities of the
  # first are 1/2 (the second), 1/2 (its own neighbour) and 1/10; of the
  # second 1/2, 1 (the first's neighbour) and 1/5 (its own).
  loss = losses.neighbor_embedding_loss(
    jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [3.0]]), scale=1.0
  )
  expected = -np.log([0.5 / 1.1, 0.2 / 1.7])
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_cross_covariance_is_the_sum_of_squares():
  # (-1)^2 + (-2)^2; with M - 1 instead of M it would be 20.
  loss = losses.cross_covariance_loss(FACTORS, NUISANCE)
  np.testing.assert_array_equal(loss, 5.0)


def test_cross_covariance_norm_is_its_root():
  norm = functools.partial(losses.cross_covariance_loss, squared=False)
  # The square root of 5, to the rounding of float32.
  np.testing.assert_allclose(norm(FACTORS, NUISANCE), 2.2360680, rtol=1e-7)


def test_attribute_hinge_is_the_mean_over_attributes():
  factors = jnp.array([[0.5, 2.0], [-1.0, 3.0]])
  attributes = jnp.array([[1.0, 1.0], [1.0, -1.0]])
  # (1 - 0.5 + 0) / 2, the second beyond the margin, and (2 + 4) / 2.
  loss = losses.attribute_hinge_loss(factors, attributes)
  np.testing.assert_array_equal(loss, [0.25, 3.0])


def test_attribute_cross_entropy_is_the_sum_over_attributes():
  logits = jnp.array([[0.0, 0.0], [jnp.log(3.0), -1000.0]])
  attributes = jnp.array([[1.0, -1.0], [1.0, 1.0]])
  # log 2 + log 2; log(4 / 3) + 1000, without overflow.
  loss = losses.attribute_cross_entropy_loss(logits, attributes)
  np.testing.assert_allclose(loss, [1.3862944, 1000.2877], rtol=1e-6)


def test_attribute_cycle_has_given_factors_for_labels():
  swapped = jnp.array([[2.0, -1.0]])
  cycled = jnp.array([[0.25, 0.5]])
  # (1 - 2 * 0.25 + 1 + 1 * 0.5) / 2.
  loss = losses.attribute_cycle_loss(swapped, cycled)
  np.testing.assert_array_equal(loss, [1.0])


def test_nuisance_cycle_is_the_sum_over_units():
  nuisance = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 2, 1)
  cycled = jnp.array([[0.0, 0.0], [3.0, 1.0]]).reshape(2, 1, 2, 1)
  # 1 + 4 and 0 + 9: a sum, not a mean, and no root.
  loss = losses.nuisance_cycle_loss(nuisance, cycled)
  np.testing.assert_array_equal(loss, [5.0, 9.0])


class ShapeTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('reconstruction', losses.reconstruction_loss, [(2, 4, 4, 1)] * 2),
    ('factor_matching', losses.factor_matching_loss, [(2, 3)] * 2),
    ('attribute_hinge', losses.attribute_hinge_loss, [(2, 3)] * 2),
    ('attribute_cycle', losses.attribute_cycle_loss, [(2, 3)] * 2),
    ('nuisance_cycle', losses.nuisance_cycle_loss, [(2, 2, 2, 5)] * 2),
  )
  def test_mismatched_shapes_raise(self, loss, shapes):
    arrays = [jnp.zeros(shape) for shape in shapes]
    assert loss(*arrays).shape == (2,)
    for i in range(len(arrays)):
      # A single example instead of two, which would broadcast.
      narrow = [x[:1] if i == j else x for j, x in enumerate(arrays)]
      with pytest.raises(AssertionError):
        loss(*narrow)


def test_cross_covariance_without_nuisance_is_zero():
  for squared in (True, False):
    loss = losses.cross_covariance_loss(
      _random(0, 4, 2), jnp.zeros((4, 0)), squared=squared
    )
    assert loss == 0.0


# Gradients.


def test_gradient_of_hinge_is_zero_beyond_the_margin():
  factors = jnp.array([[0.5, 2.0], [-1.0, 3.0]])
  attributes = jnp.array([[1.0, 1.0], [1.0, -1.0]])
  grads = jax.grad(
    lambda y: jnp.sum(losses.attribute_hinge_loss(y, attributes))
  )(factors)
  # -ybar / 2 attributes inside the margin.
  np.testing.assert_array_equal(grads, [[-0.5, 0.0], [-0.5, 0.5]])


@pytest.mark.parametrize('squared', [True, False])
def test_gradient_of_cross_covariance_agrees_with_differences(squared):
  loss = functools.partial(losses.cross_covariance_loss, squared=squared)
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
    lambda y, other: jnp.sum(
      losses.neighbor_embedding_loss(y, other, scale=2.0)
    ),
    (_random(0, 4, 2), _random(1, 4, 2)),
    order=1,
    atol=5e-2,
    rtol=5e-2,
  )


# Invariants.


def test_neighbor_embedding_of_parts_is_that_of_the_whole_batch():
  factors, others = _random(0, 6, 2), _random(1, 6, 2)
  whole = losses.neighbor_embedding_loss(factors, others)
  parts = jax.vmap(
    functools.partial(losses.neighbor_embedding_loss, axis_name='data'),
    axis_name='data',
  )(factors.reshape(3, 2, 2), others.reshape(3, 2, 2))
  # The order of the sum differs.
  np.testing.assert_allclose(parts.reshape(6), whole, rtol=1e-5)


def test_neighbor_embedding_of_chance_is_the_log_of_how_many():
  # All at one place: each of the 2 B - 1 others is as near.
  same = jnp.ones((5, 2))
  np.testing.assert_allclose(
    losses.neighbor_embedding_loss(same, same), np.full(5, np.log(9)), rtol=1e-6
  )
  # Pairs far from all others are certain.
  apart = 1e3 * jnp.arange(10.0).reshape(5, 2)
  assert np.all(losses.neighbor_embedding_loss(apart, apart) < 1e-3)


@pytest.mark.parametrize('squared', [True, False])
def test_cross_covariance_over_an_axis_is_that_of_the_whole_batch(squared):
  factors, nuisance = _random(0, 12, 2), 3.0 + _random(1, 12, 2, 2, 3)
  loss = functools.partial(losses.cross_covariance_loss, squared=squared)
  whole, whole_grads = jax.value_and_grad(loss, argnums=(0, 1))(
    factors, nuisance
  )

  def spread(factors, nuisance):
    shards = [x.reshape(4, 3, *x.shape[1:]) for x in (factors, nuisance)]
    of_shard = functools.partial(loss, axis_name='shards')
    return jax.vmap(of_shard, axis_name='shards')(*shards)

  by_shard = spread(factors, nuisance)
  # Rounding of float32 in sums of another order.
  np.testing.assert_allclose(by_shard, np.full(4, whole), rtol=1e-5)
  grads = jax.grad(lambda *x: jnp.mean(spread(*x)), argnums=(0, 1))(
    factors, nuisance
  )
  chex.assert_trees_all_close(grads, whole_grads, rtol=1e-4, atol=1e-6)
  # The mean of the shards' own losses is something else: the axis matters.
  own = jax.vmap(loss)(factors.reshape(4, 3, 2), nuisance.reshape(4, 3, 12))
  assert not np.allclose(jnp.mean(own), whole, rtol=0.05)


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
