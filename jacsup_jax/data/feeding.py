"""Feeds batches of faces in chunks, decoded in parallel and ahead of use."""

from collections.abc import Iterator
import os

import grain
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import dataset as dataset_lib


def iterate_chunks(
  dataset: dataset_lib.Dataset,
  indices: np.ndarray,
  *,
  chunk_steps: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Reads the batches of many steps, a chunk of steps at a time.

  While a chunk is used, the steps of the next one are read by several threads;
  from memory they are taken when asked for. Closing the iterator, or deleting
  it, ends the threads.

  Args:
    dataset: whose examples.
    indices: `[steps, B]` int, the examples of each global batch, in order.
    chunk_steps: steps n in a chunk; the last chunk may have fewer.
    process_index: which part of each batch this process reads.
    process_count: parts of a batch, each of b = B / process_count examples.

  Yields:
    images `[n, b, S, S, 3]` uint8 and attributes `[n, b, K]` int8.
  """
  batch_size = indices.shape[1]
  if batch_size % process_count:
    raise errors.InputError(
      f'--batch_size={batch_size} is not divisible by {process_count} processes'
    )
  part = batch_size // process_count
  start = process_index * part
  return _iterate(dataset, indices[:, start : start + part], chunk_steps)


def _iterate(dataset, rows, chunk_steps):
  # A step is decoded by one thread. One chunk is read ahead: more would only
  # take memory. Where nothing is decoded, threads get in each other's way.
  decodes = dataset.images is None
  options = grain.ReadOptions(
    num_threads=min(os.cpu_count() or 1, chunk_steps) if decodes else 0,
    prefetch_buffer_size=chunk_steps if decodes else 0,
  )
  steps = grain.MapDataset.source(rows).map(dataset.read)
  iterator = iter(steps.to_iter_dataset(options).batch(chunk_steps))
  try:
    yield from iterator
  finally:
    iterator.close()
