"""Choose the examples of a batch by pure functions of (seed, epoch, step).

Nothing about the position in the data is ever stored beyond the step. `B` is
the batch size, at least 1. The draws `epoch_*` and `step_*` take

- seed: int, may be traced under jit;
- epoch, or step counted over all epochs: int, may be traced;
- batch_size: B.

They raise InputError if B is less than 1.
"""

import math

import chex
import jax
import jax.numpy as jnp

from jacsup_jax.core import errors

# Folded into the seed, one number for each use, so that the order of the data,
# the swap partners, the mirroring and dropout are independent streams.
_ORDER_STREAM = 0
_SWAP_STREAM = 1
_MIRROR_STREAM = 2
_DROPOUT_STREAM = 3
_NEIGHBOR_STREAM = 4


def count_steps(num_examples: int, batch_size: int) -> int:
  """Counts the steps of an epoch; the incomplete last batch is dropped.

  As in the reference code: 468 batches of 128 from 60,000 examples.

  Args:
    num_examples: number of examples M in the data.
    batch_size: B, from 1 to M.

  Returns:
    M // B.

  Raises:
    InputError: if batch_size is not from 1 to num_examples.
  """
  if not 1 <= batch_size <= num_examples:
    raise errors.InputError(
        f'--batch_size={batch_size} does not fit {num_examples} examples:'
        f' accepted are 1 to {num_examples}'
    )
  return num_examples // batch_size


def count_at_once(image_shape: tuple[int, int, int]) -> int:
  """Counts the examples that a pass over a whole data set takes at a time.

  Args:
    image_shape: (H, W, C).

  Returns:
    1,000 for images of up to 28x28 values, proportionally fewer for larger
    ones, so that memory does not grow with their size; at least 1.
  """
  return max(1, min(1000, 1000 * 28 * 28 // math.prod(image_shape)))


def epoch_indices(
    seed: int | jax.Array,
    epoch: int | jax.Array,
    num_examples: int,
    batch_size: int,
) -> jax.Array:
  """Shuffles the examples of one epoch into batches.

  Which examples are left out with the incomplete last batch changes with the
  epoch.

  Args:
    seed: int, may be traced.
    epoch: int, may be traced.
    num_examples: number of examples M in the data.
    batch_size: B, from 1 to M.

  Returns:
    `[M // B, B]` int32, indices into the data, each at most once.

  Raises:
    InputError: if batch_size is not from 1 to num_examples.
  """
  steps = count_steps(num_examples, batch_size)
  order = jax.random.permutation(
      _stream_key(seed, _ORDER_STREAM, epoch), num_examples
  )
  order = order[: steps * batch_size].astype(jnp.int32)
  return order.reshape(steps, batch_size)


def step_permutation(
    seed: int | jax.Array, step: int | jax.Array, batch_size: int
) -> jax.Array:
  """Draws the swap partner of each example of one global batch.

  Returns:
    `[B]` int32, a permutation of 0 to B - 1; an example may be its own
    partner.
  """
  _check_batch_size(batch_size)
  return jax.random.permutation(
      _stream_key(seed, _SWAP_STREAM, step), batch_size
  ).astype(jnp.int32)


def step_permutations(
    seed: int | jax.Array,
    step: int | jax.Array,
    batch_size: int,
    count: int,
) -> jax.Array:
  """Draws several swap partners of each example of one global batch.

  Args:
    seed, step, batch_size: see above.
    count: n, of the permutations.

  Returns:
    `[n, B]` int32; the first is that of `step_permutation`.
  """
  key = _stream_key(seed, _SWAP_STREAM, step)
  others = [
      jax.random.permutation(jax.random.fold_in(key, i), batch_size)
      for i in range(1, count)
  ]
  first = step_permutation(seed, step, batch_size)
  return jnp.stack([first, *(other.astype(jnp.int32) for other in others)])


def step_neighbors(
    seed: int | jax.Array,
    step: int | jax.Array,
    batch_size: int,
    num_neighbors: int,
) -> jax.Array:
  """Draws which of its neighbours each image of one global batch is given.

  Args:
    seed, step, batch_size: see above.
    num_neighbors: n, at least 1.

  Returns:
    `[B]` int32 from 0 to n - 1.
  """
  _check_batch_size(batch_size)
  return jax.random.randint(
      _stream_key(seed, _NEIGHBOR_STREAM, step), (batch_size,), 0, num_neighbors
  )


def step_mirror(
    seed: int | jax.Array, step: int | jax.Array, batch_size: int
) -> jax.Array:
  """Draws which images of one global batch are mirrored, each with chance 1/2.

  The reference code mirrors the whole batch or none of it.

  Returns:
    `[B]` bool.
  """
  _check_batch_size(batch_size)
  return jax.random.bernoulli(
      _stream_key(seed, _MIRROR_STREAM, step), 0.5, (batch_size,)
  )


def step_dropout(
    seed: int | jax.Array,
    step: int | jax.Array,
    batch_size: int,
    num_units: int,
) -> jax.Array:
  """Draws what decides which units one global batch drops.

  Args:
    seed, step, batch_size: see above.
    num_units: of a layer.

  Returns:
    `[B, num_units]` float32 in [0, 1); a unit is dropped below its rate.
  """
  _check_batch_size(batch_size)
  return jax.random.uniform(
      _stream_key(seed, _DROPOUT_STREAM, step),
      (batch_size, num_units),
      jnp.float32,
  )


def mirror(images: jax.Array, flags: jax.Array) -> jax.Array:
  """Swaps left and right of the flagged images.

  Args:
    images: `[B, H, W, C]`, of any type.
    flags: `[B]` bool, which ones.

  Returns:
    `[B, H, W, C]`, of the type of `images`.
  """
  chex.assert_rank([images, flags], [4, 1])
  chex.assert_equal_shape_prefix([images, flags], 1)
  return jnp.where(flags[:, None, None, None], images[:, :, ::-1], images)


def to_float(images: jax.Array) -> jax.Array:
  """Converts 8-bit images to floats.

  Args:
    images: `[..., H, W, C]` uint8.

  Returns:
    The same shape, float32 in [0, 1].

  Raises:
    InputError: if the images are not uint8.
  """
  _check_uint8(images)
  return images.astype(jnp.float32) / 255.0


def to_signed_float(images: jax.Array) -> jax.Array:
  """Converts 8-bit images to floats around 0, as the faces are.

  Args:
    images: `[..., H, W, C]` uint8.

  Returns:
    The same shape, float32 in [-1, 1].

  Raises:
    InputError: if the images are not uint8.
  """
  _check_uint8(images)
  # Not x / 127.5 - 1: XLA multiplies by a rounded 1 / 127.5, and 255 leaves
  # the interval.
  return (2.0 * images.astype(jnp.float32) - 255.0) / 255.0


def _check_batch_size(batch_size):
  if batch_size < 1:
    raise errors.InputError(f'--batch_size={batch_size}: accepted is 1 or more')


def _check_uint8(images):
  if images.dtype != jnp.uint8:
    raise errors.InputError(f'images are {images.dtype}: accepted is uint8')


def _stream_key(seed, stream, count):
  return jax.random.fold_in(
      jax.random.fold_in(jax.random.key(seed), stream), count
  )
