"""Tests of jacsup_jax.data.feeding."""

import dataclasses
import threading

import numpy as np
import pytest

from jacsup_jax.data import feeding
from jacsup_jax.data import registry

SIZE = 20


def _make_dataset(in_memory):
  images = np.random.default_rng(0).integers(
      0, 256, (SIZE, 8, 8, 3), np.uint8
  )
  attributes = np.where(np.arange(SIZE * 2).reshape(SIZE, 2) % 3, 1, -1)
  attributes = attributes.astype(np.int8)
  dataset = registry.Dataset(
      name='test', split='train', images=images, labels=attributes,
      attribute_names=('a', 'b'),
  )  # pyformat: disable
  if in_memory:
    return dataset
  return dataclasses.replace(
      dataset, images=None,
      read_images=lambda rows: images[rows],
  )  # pyformat: disable


def _make_indices(steps=7, batch_size=6):
  return np.random.default_rng(1).integers(0, SIZE, (steps, batch_size))


# Values.


@pytest.mark.parametrize('in_memory', [True, False])
def test_chunks_are_what_read_gives(in_memory):
  dataset, indices = _make_dataset(in_memory), _make_indices()
  chunks = list(feeding.iterate_chunks(dataset, indices, chunk_steps=3))
  assert [len(images) for images, _ in chunks] == [3, 3, 1]
  expected = [dataset.read(batch) for batch in indices]
  for position, dtype in ((0, np.uint8), (1, np.int8)):
    found = np.concatenate([chunk[position] for chunk in chunks])
    assert found.dtype == dtype
    np.testing.assert_array_equal(
        found, np.stack([batch[position] for batch in expected])
    )


# Invariants.


@pytest.mark.parametrize('in_memory', [True, False])
@pytest.mark.parametrize('process_count', [2, 3])
def test_parts_are_the_whole(in_memory, process_count):
  dataset, indices = _make_dataset(in_memory), _make_indices()
  whole = list(feeding.iterate_chunks(dataset, indices, chunk_steps=4))
  parts = [
      list(
          feeding.iterate_chunks(
              dataset, indices, chunk_steps=4,
              process_index=index, process_count=process_count,
          )
      )
      for index in range(process_count)
  ]
  for chunk, *shares in zip(whole, *parts, strict=True):
    for position in (0, 1):
      np.testing.assert_array_equal(
          np.concatenate([share[position] for share in shares], axis=1),
          chunk[position],
      )


def test_leaving_early_ends_the_threads():
  before = set(threading.enumerate())
  chunks = feeding.iterate_chunks(
      _make_dataset(False), _make_indices(steps=50), chunk_steps=2
  )
  next(chunks)
  started = set(threading.enumerate()) - before
  assert started
  chunks.close()
  for thread in started:
    thread.join(timeout=10)
    assert not thread.is_alive()
  assert next(chunks, None) is None


def test_no_steps_no_chunks():
  dataset = _make_dataset(True)
  assert not list(
      feeding.iterate_chunks(dataset, _make_indices(steps=0), chunk_steps=2)
  )


# Bad input.


def test_batch_that_does_not_divide():
  with pytest.raises(ValueError, match='--batch_size=6 .* 4 processes'):
    feeding.iterate_chunks(
        _make_dataset(True), _make_indices(), chunk_steps=1, process_count=4
    )


def test_empty_chunks():
  with pytest.raises(ValueError, match='chunks of 0 steps'):
    feeding.iterate_chunks(
        _make_dataset(True), _make_indices(), chunk_steps=0
    )


def test_positions_that_are_not_there():
  indices = np.full((2, 2), SIZE)
  with pytest.raises(IndexError):
    next(feeding.iterate_chunks(_make_dataset(False), indices, chunk_steps=1))
