"""Choose the examples of a batch by pure functions of (seed, epoch, step).

Nothing about the position in the data is ever stored beyond the step. Seed,
epoch, and step (counted over all epochs) are ints that may be traced.
"""

from collections.abc import Iterator
import math
import os

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import registry

Int = int | jax.Array

# Folded into the seed, one number for each use, so that they are independent.
_ORDER_STREAM, _SWAP_STREAM, _MIRROR_STREAM = 0, 1, 2
_DROPOUT_STREAM, _NEIGHBOR_STREAM, _NOISE_STREAM = 3, 4, 5
_SHIFT_STREAM, _BLUR_STREAM = 6, 7
_FLIP_STREAM, _LABEL_STREAM = 8, 9
_ROW_STREAM, _MASK_STREAM = 10, 11


def count_steps(num_examples: int, batch_size: int) -> int:
  """Counts the steps of an epoch; the incomplete last batch is dropped.

  InputError unless the batch size is from 1 to the number of examples.
  """
  if not 1 <= batch_size <= num_examples:
    raise errors.InputError(
      f'--batch_size={batch_size} does not fit {num_examples} examples:'
      f' accepted are 1 to {num_examples}'
    )
  return num_examples // batch_size


def count_at_once(image_shape: tuple[int, int, int]) -> int:
  """Counts the examples that a pass over a whole data set takes at a time.

  1,000 of (H, W, C) up to 28x28 values, proportionally fewer of larger ones.
  """
  return max(1, min(1000, 1000 * 28 * 28 // math.prod(image_shape)))


def epoch_indices(
  seed: Int, epoch: Int, num_examples: int, batch_size: int
) -> jax.Array:
  """Shuffles indices of M examples into batches, `[M // B, B]` int32.

  Which are left out with the incomplete last batch changes with the epoch.
  """
  steps = count_steps(num_examples, batch_size)
  key = _stream_key(seed, _ORDER_STREAM, epoch)
  order = jax.random.permutation(key, num_examples)
  order = order[: steps * batch_size].astype(jnp.int32)
  return order.reshape(steps, batch_size)


def step_permutations(
  seed: Int, step: Int, batch_size: int, count: int
) -> jax.Array:
  """Draws several swap partners of each example, `[count, B]` int32.

  Each row is a permutation: an example may be its own partner.
  """
  key = _stream_key(seed, _SWAP_STREAM, step)
  keys = [key, *(jax.random.fold_in(key, i) for i in range(1, count))]
  drawn = [jax.random.permutation(key, batch_size) for key in keys]
  return jnp.stack(drawn).astype(jnp.int32)


def step_flips(
  seed: Int, step: Int, batch_size: int, count: int, num_factors: int
) -> jax.Array:
  """Draws which factors of each example are flipped, `[count, B]` int32."""
  key = _stream_key(seed, _FLIP_STREAM, step)
  shape = count, batch_size
  return jax.random.randint(key, shape, 0, num_factors, jnp.int32)


def step_labelled(
  seed: Int, step: Int, batch_size: int, share: float
) -> jax.Array:
  """Draws which examples are decoded from their labels, `[B]` bool."""
  key = _stream_key(seed, _LABEL_STREAM, step)
  return jax.random.bernoulli(key, share, (batch_size,))


def step_rows(
  seed: Int, step: Int, batch_size: int, num_examples: int
) -> jax.Array:
  """Draws the examples of a second batch, with replacement, `[B]` int32."""
  key = _stream_key(seed, _ROW_STREAM, step)
  return jax.random.randint(key, (batch_size,), 0, num_examples, jnp.int32)


def step_masks(seed: Int, step: Int, batch_size: int, count: int) -> jax.Array:
  """Draws `[B, count]` bool, each true with chance 1/2."""
  key = _stream_key(seed, _MASK_STREAM, step)
  return jax.random.bernoulli(key, 0.5, (batch_size, count))


def step_neighbors(
  seed: Int, step: Int, batch_size: int, num_neighbors: int
) -> jax.Array:
  """Draws which of its neighbours each image is given, `[B]` int32."""
  key = _stream_key(seed, _NEIGHBOR_STREAM, step)
  return jax.random.randint(key, (batch_size,), 0, num_neighbors)


def step_mirror(seed: Int, step: Int, batch_size: int) -> jax.Array:
  """Draws which images are mirrored, `[B]` bool, each with chance 1/2.

  The reference code mirrors the whole batch or none of it.
  """
  key = _stream_key(seed, _MIRROR_STREAM, step)
  return jax.random.bernoulli(key, 0.5, (batch_size,))


def step_shifts(seed: Int, step: Int, batch_size: int, limit: int) -> jax.Array:
  """Draws how far images are shifted, `[B, 2]` int32 in [-limit, limit]."""
  key = _stream_key(seed, _SHIFT_STREAM, step)
  return jax.random.randint(key, (batch_size, 2), -limit, limit + 1)


def step_blur(seed: Int, step: Int, batch_size: int) -> jax.Array:
  """Draws which images are blurred, `[B]` bool, each with chance 1/2."""
  key = _stream_key(seed, _BLUR_STREAM, step)
  return jax.random.bernoulli(key, 0.5, (batch_size,))


def step_dropout(
  seed: Int, step: Int, batch_size: int, num_units: int
) -> jax.Array:
  """Draws `[B, num_units]` float32 in [0, 1); a unit below its rate drops."""
  key = _stream_key(seed, _DROPOUT_STREAM, step)
  return jax.random.uniform(key, (batch_size, num_units), jnp.float32)


def step_noise(seed: Int, step: Int, shape: tuple[int, ...]) -> jax.Array:
  """Draws float32 standard normal noise for a batch; `shape` is `[B, ...]`."""
  return jax.random.normal(_stream_key(seed, _NOISE_STREAM, step), shape)


def to_float(images: jax.Array) -> jax.Array:
  """Converts uint8 images to float32 in [0, 1]."""
  _check_uint8(images)
  return images.astype(jnp.float32) / 255.0


def to_signed_float(images: jax.Array) -> jax.Array:
  """Converts uint8 images to float32 in [-1, 1], as the faces are."""
  _check_uint8(images)
  # Not x / 127.5 - 1: XLA multiplies by a rounded 1 / 127.5, and 255 leaves
  # the interval.
  return (2.0 * images.astype(jnp.float32) - 255.0) / 255.0


def _check_uint8(images):
  if images.dtype != jnp.uint8:
    raise errors.InputError(f'images are {images.dtype}: accepted is uint8')


def _stream_key(seed, stream, count):
  key = jax.random.fold_in(jax.random.key(seed), stream)
  return jax.random.fold_in(key, count)


def iterate_chunks(
  dataset: registry.Dataset,
  indices: np.ndarray,
  *,
  chunk_steps: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Reads the batches of many steps, a chunk of steps at a time.

  Threads read the next chunk while one is used; from memory it is taken when
  asked for. Closing the iterator, or deleting it, ends the threads.

  `indices` are `[steps, B]` int, the examples of each global batch, in order;
  the last chunk may have fewer steps n than `chunk_steps`. Yields images
  `[n, b, S, S, 3]` uint8 and attributes `[n, b, K]` int8 of this process, which
  reads b = B / process_count examples of each batch. InputError if that is not
  a whole number.
  """
  import grain  # It takes a second, and arrays on devices need none.

  batch_size = indices.shape[1]
  if batch_size % process_count:
    raise errors.InputError(
      f'--batch_size={batch_size} is not divisible by {process_count} processes'
    )
  part = batch_size // process_count
  rows = indices[:, process_index * part : (process_index + 1) * part]
  # A step is read by one thread, one chunk ahead. From memory, threads would
  # get in each other's way.
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
