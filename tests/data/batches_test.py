"""Tests of jacsup_jax.data.batches."""

import dataclasses
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry

SIZE = 20
IMAGES = np.random.default_rng(0).integers(0, 256, (SIZE, 8, 8, 3), np.uint8)
LABELS = np.where(np.arange(SIZE * 2).reshape(SIZE, 2) % 3, 1, -1)
IN_MEMORY = registry.Dataset(
  'x', 'train', IMAGES, LABELS.astype(np.int8), attribute_names=('a', 'b')
)
ON_DISK = dataclasses.replace(
  IN_MEMORY, images=None, read_images=lambda rows: IMAGES[rows]
)
INDICES = np.random.default_rng(1).integers(0, SIZE, (7, 6))
CONVERSIONS = [(batches.to_float, 0), (batches.to_signed_float, -1)]


def test_number_of_batches_is_the_papers():
  # 60,000 / 128 = 468.75, and the reference code drops the remainder.
  chex.assert_shape(batches.epoch_indices(0, 0, 60_000, 128), (468, 128))


def test_larger_images_are_taken_fewer_at_a_time():
  shapes = (28, 28, 1), (4, 4, 1), (32, 32, 3), (1024, 1024, 3)
  # 784,000 / 3,072 = 255.2.
  assert [*map(batches.count_at_once, shapes)] == [1000, 1000, 255, 1]


@pytest.mark.parametrize(('convert', 'lowest'), CONVERSIONS)
def test_floats_span_their_interval_under_jit(convert, lowest):
  images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  floats = np.asarray(jax.jit(convert)(images))
  assert floats.dtype == np.float32
  assert floats.min() == lowest and floats.max() == 1
  # 51 / 255 = 0.2; a rounding of 0.4 is one of 1e-7 after subtracting.
  expected = 0.2 if lowest == 0 else -0.6
  np.testing.assert_allclose(floats[0, 3, 3, 0], expected, rtol=0, atol=1e-7)
  scaled = (floats - lowest) * 255 / (1 - lowest)
  np.testing.assert_array_equal(np.rint(scaled).astype(np.uint8), images)
  with pytest.raises(errors.InputError, match='float32.*uint8'):
    convert(jnp.zeros((1, 2, 2, 1)))


def test_every_index_comes_once_an_epoch_and_others_are_dropped():
  indices = batches.epoch_indices(3, 5, num_examples=120, batch_size=8)
  assert indices.dtype == jnp.int32
  np.testing.assert_array_equal(np.sort(np.ravel(indices)), np.arange(120))
  draws = [np.ravel(batches.epoch_indices(0, i, 10, 4)) for i in range(20)]
  assert all(len(set(draw.tolist())) == 8 for draw in draws)
  assert set(np.concatenate(draws).tolist()) == set(range(10))


def test_swap_partners_are_permutations():
  found = batches.step_permutations(3, 5, 16, 3)
  assert found.shape == (3, 16) and found.dtype == jnp.int32
  [first] = batches.step_permutations(3, 5, 16, 1)
  np.testing.assert_array_equal(found[0], first)
  for one in found:
    np.testing.assert_array_equal(np.sort(one), np.arange(16))
  assert not np.array_equal(found[1], found[2])


@pytest.mark.parametrize(
  'function',
  [
    lambda seed, count: batches.epoch_indices(seed, count, 60, 6),
    lambda seed, count: batches.step_permutations(seed, count, 60, 1),
    lambda seed, count: batches.step_mirror(seed, count, 60),
    lambda seed, count: batches.step_shifts(seed, count, 60, 4),
    lambda seed, count: batches.step_blur(seed, count, 60),
    lambda seed, count: batches.step_flips(seed, count, 60, 1, 9),
    lambda seed, count: batches.step_labelled(seed, count, 60, 0.5),
    lambda seed, count: batches.step_rows(seed, count, 60, 90),
    lambda seed, count: batches.step_masks(seed, count, 60, 3),
    lambda seed, count: batches.step_dropout(seed, count, 60, 2),
    lambda seed, count: batches.step_neighbors(seed, count, 60, 9),
    lambda seed, count: batches.step_noise(seed, count, (60, 2)),
  ],
)
def test_a_draw_depends_on_seed_and_count_alone(function):
  first = np.asarray(function(1, 2))
  np.testing.assert_array_equal(first, jax.jit(function)(1, 2))
  for other in (function(1, 3), function(2, 2), function(2, 1)):
    assert (first != np.asarray(other)).any()


def test_draws_are_those_of_published_runs():
  order = batches.epoch_indices(7, 1, 8, 4).tolist()
  assert order == [[3, 7, 2, 0], [5, 6, 4, 1]]
  assert batches.step_permutations(7, 1, 6, 2).tolist() == [
    [4, 5, 1, 3, 2, 0],
    [5, 3, 2, 1, 4, 0],
  ]
  mirrored = batches.step_mirror(7, 1, 6).tolist()
  assert mirrored == [False, True, True, True, True, True]
  assert batches.step_neighbors(7, 1, 6, 5).tolist() == [0, 2, 0, 0, 1, 0]


def test_every_factor_is_flipped_in_batches_of_any_size():
  flips = np.concatenate([batches.step_flips(7, i, 4, 2, 9) for i in range(20)])
  assert flips.shape == (40, 4) and flips.dtype == jnp.int32
  assert {*flips.ravel().tolist()} == {*range(9)}


@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
def test_labels_are_given_to_a_share_of_the_images(share):
  labelled = batches.step_labelled(7, 1, 4000, share)
  assert np.mean(labelled) == pytest.approx(share, abs=0.03 * (0 < share < 1))


def test_rows_of_a_second_batch_are_of_the_data_and_masks_are_even():
  rows = np.asarray(batches.step_rows(7, 1, 400, 5))
  assert {*rows.tolist()} == {0, 1, 2, 3, 4}
  masks = np.asarray(batches.step_masks(7, 1, 1000, 3))
  assert masks.shape == (1000, 3) and masks.dtype == bool
  np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.06)


def test_shifts_reach_their_limits():
  shifts = np.asarray(batches.step_shifts(7, 1, 200, 2))
  assert shifts.shape == (200, 2)
  for own in shifts.T:
    assert set(own.tolist()) == {-2, -1, 0, 1, 2}
  assert not np.any(batches.step_shifts(7, 1, 60, 0))


def test_order_and_partners_are_different_draws():
  # With one stream for both, a batch as large as the data would be permuted by
  # the permutation that it was drawn with.
  order = batches.epoch_indices(4, 1, 64, 64)[0]
  [partners] = batches.step_permutations(4, 1, 64, 1)
  assert (np.asarray(order) != np.asarray(partners)).any()


@pytest.mark.parametrize('dataset', [IN_MEMORY, ON_DISK])
def test_chunks_are_what_read_gives_and_parts_are_the_whole(dataset):
  options = {'chunk_steps': 3, 'process_count': 2}
  whole = list(batches.iterate_chunks(dataset, INDICES, chunk_steps=3))
  parts = [
    list(batches.iterate_chunks(dataset, INDICES, process_index=i, **options))
    for i in range(2)
  ]
  for start, chunk, *shares in zip((0, 3, 6), whole, *parts, strict=True):
    rows = INDICES[start : start + 3]
    for found, halves, array in zip(chunk, zip(*shares), (IMAGES, LABELS)):
      np.testing.assert_array_equal(found, array[rows])
      np.testing.assert_array_equal(found, np.concatenate(halves, axis=1))
    assert [x.dtype for x in chunk] == [np.uint8, np.int8]


def test_leaving_early_ends_the_threads():
  before = set(threading.enumerate())
  indices = np.tile(INDICES, (8, 1))
  chunks = batches.iterate_chunks(ON_DISK, indices, chunk_steps=2)
  next(chunks)
  started = set(threading.enumerate()) - before
  assert started
  chunks.close()
  for thread in started:
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_sizes_that_do_not_fit():
  for size in (0, 101):
    with pytest.raises(errors.InputError, match=f'={size} .* 100 examples'):
      batches.epoch_indices(0, 0, 100, size)
  options = {'chunk_steps': 1, 'process_count': 4}
  chunks = batches.iterate_chunks(ON_DISK, INDICES, **options)
  with pytest.raises(errors.InputError, match='--batch_size=6 .* 4 processes'):
    next(chunks)
