"""Tests of jacsup_jax.data.batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.data import batches

jax.config.update('jax_numpy_rank_promotion', 'raise')


# Values.


def test_number_of_batches_is_the_papers():
  # 60,000 / 128 = 468.75, and the reference code drops the remainder.
  chex.assert_shape(batches.epoch_indices(0, 0, 60_000, 128), (468, 128))


@pytest.mark.parametrize(
  ('shape', 'count'),
  [
    ((28, 28, 1), 1000),
    ((4, 4, 1), 1000),
    ((32, 32, 3), 255),  # 784,000 / 3,072.
    ((1024, 1024, 3), 1),
  ],
)
def test_larger_images_are_taken_fewer_at_a_time(shape, count):
  assert batches.count_at_once(shape) == count


def test_to_float_values():
  images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
  floats = batches.to_float(images)
  assert floats.dtype == jnp.float32
  # 51 / 255 = 0.2 to within one rounding of float32.
  np.testing.assert_allclose(
    np.ravel(floats), [0.0, 0.2, 1.0], rtol=1e-7, atol=0
  )


def test_to_float_stays_in_the_unit_interval_under_jit():
  images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  floats = np.asarray(jax.jit(batches.to_float)(images))
  assert floats.min() == 0.0
  assert floats.max() == 1.0
  np.testing.assert_array_equal(np.rint(floats * 255).astype(np.uint8), images)


def test_to_signed_float_values():
  images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
  floats = batches.to_signed_float(images)
  assert floats.dtype == jnp.float32
  # 51 / 127.5 - 1 = -0.6; a rounding of 0.4 is one of 1e-7 after subtracting.
  np.testing.assert_allclose(
    np.ravel(floats), [-1.0, -0.6, 1.0], rtol=0, atol=1e-7
  )


def test_to_signed_float_stays_in_its_interval_under_jit():
  images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  floats = np.asarray(jax.jit(batches.to_signed_float)(images))
  assert floats.min() == -1.0
  assert floats.max() == 1.0
  np.testing.assert_array_equal(
    np.rint((floats + 1) * 127.5).astype(np.uint8), images
  )


def test_mirror_values():
  images = jnp.arange(12, dtype=jnp.uint8).reshape(2, 2, 3, 1)
  mirrored = batches.mirror(images, jnp.array([True, False]))
  assert mirrored.dtype == jnp.uint8
  np.testing.assert_array_equal(
    mirrored[..., 0],
    [[[2, 1, 0], [5, 4, 3]], [[6, 7, 8], [9, 10, 11]]],
  )


# Invariants.


def test_every_index_comes_once_an_epoch():
  indices = batches.epoch_indices(3, 5, num_examples=120, batch_size=8)
  assert indices.dtype == jnp.int32
  np.testing.assert_array_equal(np.sort(np.ravel(indices)), np.arange(120))


def test_dropped_examples_change_with_the_epoch():
  seen = [
    set(np.ravel(batches.epoch_indices(0, epoch, 10, 4)).tolist())
    for epoch in range(20)
  ]
  assert all(len(indices) == 8 for indices in seen)
  assert set.union(*seen) == set(range(10))


def test_swap_partners_are_a_permutation():
  partners = batches.step_permutation(3, 7, 128)
  assert partners.dtype == jnp.int32
  np.testing.assert_array_equal(np.sort(partners), np.arange(128))


@pytest.mark.parametrize(
  'function',
  [
    lambda seed, count: batches.epoch_indices(seed, count, 60, 6),
    lambda seed, count: batches.step_permutation(seed, count, 60),
    lambda seed, count: batches.step_mirror(seed, count, 60),
    lambda seed, count: batches.step_dropout(seed, count, 60, 2),
  ],
  ids=['epoch_indices', 'step_permutation', 'step_mirror', 'step_dropout'],
)
def test_a_draw_depends_on_seed_and_count_alone(function):
  first = np.asarray(function(1, 2))
  np.testing.assert_array_equal(first, function(1, 2))
  for other in (function(1, 3), function(2, 2), function(2, 1)):
    assert (first != np.asarray(other)).any()


@pytest.mark.parametrize('count', [0, 1, 2])
def test_order_and_partners_are_different_draws(count):
  # With one stream for both, a batch as large as the data would be permuted by
  # the permutation that it was drawn with.
  order = batches.epoch_indices(4, count, 64, 64)[0]
  partners = batches.step_permutation(4, count, 64)
  assert (np.asarray(order) != np.asarray(partners)).any()


def test_traced_arguments_give_the_same_draws():
  order = jax.jit(batches.epoch_indices, static_argnums=(2, 3))
  partners = jax.jit(batches.step_permutation, static_argnums=2)
  flags = jax.jit(batches.step_mirror, static_argnums=2)
  np.testing.assert_array_equal(
    order(1, 2, 50, 8), batches.epoch_indices(1, 2, 50, 8)
  )
  np.testing.assert_array_equal(
    partners(1, 2, 8), batches.step_permutation(1, 2, 8)
  )
  np.testing.assert_array_equal(flags(1, 2, 8), batches.step_mirror(1, 2, 8))


def test_partners_are_uniform():
  # 4,000 draws of 4 partners: each of the 16 cells expects 1,000 with standard
  # deviation sqrt(4000 * 0.25 * 0.75) = 27; 5 of them is 137.
  partners = jax.vmap(lambda step: batches.step_permutation(0, step, 4))(
    jnp.arange(4_000)
  )
  for partner in range(4):
    counts = np.asarray((partners == partner).sum(axis=0))
    np.testing.assert_allclose(counts, 1_000, atol=137)


def test_mirroring_is_fair():
  # 4,000 draws for each of 4 places: 2,000 with standard deviation
  # sqrt(4000 * 0.25) = 32; 5 of them is 160.
  flags = jax.vmap(lambda step: batches.step_mirror(0, step, 4))(
    jnp.arange(4_000)
  )
  assert flags.dtype == bool
  np.testing.assert_allclose(np.asarray(flags).sum(axis=0), 2_000, atol=160)


def test_dropout_is_uniform():
  # 40,000 numbers: their mean has a standard deviation of
  # sqrt(1 / 12 / 40000) = 0.0014; 5 of them is 0.007.
  drawn = np.asarray(batches.step_dropout(0, 0, 400, 100))
  assert drawn.shape == (400, 100)
  assert drawn.min() >= 0 and drawn.max() < 1
  np.testing.assert_allclose(drawn.mean(), 0.5, atol=0.007)


def test_mirroring_twice_is_nothing():
  images = jax.random.uniform(jax.random.key(0), (5, 4, 4, 3))
  flags = batches.step_mirror(0, 0, 5)
  twice = batches.mirror(batches.mirror(images, flags), flags)
  np.testing.assert_array_equal(twice, images)


# Bad input.


@pytest.mark.parametrize('batch_size', [0, -4, 101])
def test_batch_size_that_does_not_fit(batch_size):
  with pytest.raises(
    ValueError, match=rf'--batch_size={batch_size} .* 100 examples'
  ):
    batches.epoch_indices(0, 0, 100, batch_size)


@pytest.mark.parametrize('batch_size', [0, -1])
def test_no_partners_in_an_empty_batch(batch_size):
  with pytest.raises(ValueError, match=f'--batch_size={batch_size}'):
    batches.step_permutation(0, 0, batch_size)
  with pytest.raises(ValueError, match=f'--batch_size={batch_size}'):
    batches.step_mirror(0, 0, batch_size)


def test_float_images_are_refused():
  with pytest.raises(ValueError, match='float32.*uint8'):
    batches.to_float(jnp.zeros((1, 2, 2, 1)))
  with pytest.raises(ValueError, match='float32.*uint8'):
    batches.to_signed_float(jnp.zeros((1, 2, 2, 1)))


def test_one_flag_an_image():
  with pytest.raises(AssertionError):
    batches.mirror(jnp.zeros((2, 2, 2, 1)), jnp.array([True]))


def test_several_swaps_begin_with_that_of_one():
  found = batches.step_permutations(3, 5, 16, 3)
  assert found.shape == (3, 16) and found.dtype == jnp.int32
  np.testing.assert_array_equal(found[0], batches.step_permutation(3, 5, 16))
  for one in found:
    np.testing.assert_array_equal(np.sort(one), np.arange(16))
  assert not np.array_equal(found[1], found[2])
