"""Tests of jacsup_jax.data.batches."""

import dataclasses
import threading

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry

SIZE = 20


def _make_dataset(in_memory):
  images = np.random.default_rng(0).integers(0, 256, (SIZE, 8, 8, 3), np.uint8)
  attributes = np.where(np.arange(SIZE * 2).reshape(SIZE, 2) % 3, 1, -1)
  dataset = registry.Dataset(
    name='test',
    split='train',
    images=images,
    labels=attributes.astype(np.int8),
    attribute_names=('a', 'b'),
  )
  if in_memory:
    return dataset
  return dataclasses.replace(
    dataset, images=None, read_images=lambda rows: images[rows]
  )


def _make_indices(steps=7, batch_size=6):
  return np.random.default_rng(1).integers(0, SIZE, (steps, batch_size))


def _iterate(in_memory, indices, **kwargs):
  dataset = _make_dataset(in_memory)
  return batches.iterate_chunks(dataset, indices, **kwargs)


@pytest.mark.parametrize('in_memory', [True, False])
def test_chunks_are_what_read_gives(in_memory):
  indices = _make_indices()
  chunks = list(_iterate(in_memory, indices, chunk_steps=3))
  assert [len(images) for images, _ in chunks] == [3, 3, 1]
  expected = [_make_dataset(True).read(batch) for batch in indices]
  for position, dtype in ((0, np.uint8), (1, np.int8)):
    found = np.concatenate([chunk[position] for chunk in chunks])
    assert found.dtype == dtype
    np.testing.assert_array_equal(
      found, np.stack([batch[position] for batch in expected])
    )
  assert not list(_iterate(in_memory, indices[:0], chunk_steps=3))


@pytest.mark.parametrize('in_memory', [True, False])
@pytest.mark.parametrize('process_count', [2, 3])
def test_parts_are_the_whole(in_memory, process_count):
  indices = _make_indices()
  whole = list(_iterate(in_memory, indices, chunk_steps=4))
  options = {'chunk_steps': 4, 'process_count': process_count}
  parts = [
    list(_iterate(in_memory, indices, process_index=index, **options))
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
  chunks = _iterate(False, _make_indices(steps=50), chunk_steps=2)
  next(chunks)
  started = set(threading.enumerate()) - before
  assert started
  chunks.close()
  for thread in started:
    thread.join(timeout=10)
    assert not thread.is_alive()
  assert next(chunks, None) is None


def test_mistakes_are_refused():
  with pytest.raises(errors.InputError, match='--batch_size=6 .* 4 processes'):
    _iterate(True, _make_indices(), chunk_steps=1, process_count=4)
  with pytest.raises(IndexError):
    next(_iterate(False, np.full((2, 2), SIZE), chunk_steps=1))
