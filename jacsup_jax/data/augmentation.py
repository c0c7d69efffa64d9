"""Change the images of a batch at random, given what was drawn for each.

`batches` draws it, as a pure function of (seed, step).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Draws(NamedTuple):
  """How the images of a batch are changed; None: in no such way."""

  shifts: jax.Array  # [B, 2] int, pixels down and to the right
  blurred: jax.Array | None = None  # [B] bool


def augment(images: jax.Array, draws: Draws) -> jax.Array:
  """Shifts, then blurs float images `[B, H, W, C]` as was drawn."""
  images = shift(images, draws.shifts)
  return images if draws.blurred is None else blur(images, draws.blurred)


def mirror(images: jax.Array, flags: jax.Array) -> jax.Array:
  """Swaps left and right of images `[B, H, W, C]` with a flag of `[B]` set."""
  chex.assert_rank([images, flags], [4, 1])
  chex.assert_equal_shape_prefix([images, flags], 1)
  return jnp.where(flags[:, None, None, None], images[:, :, ::-1], images)


def shift(images: jax.Array, shifts: jax.Array) -> jax.Array:
  """Moves images `[B, H, W, C]` by `[B, 2]` pixels, down and to the right.

  The pixels of the border are repeated.
  """
  chex.assert_rank([images, shifts], [4, 2])
  chex.assert_equal_shape_prefix([images, shifts], 1)
  _, height, width, _ = images.shape

  def shift_one(image, offset):
    rows = jnp.clip(jnp.arange(height) - offset[0], 0, height - 1)
    columns = jnp.clip(jnp.arange(width) - offset[1], 0, width - 1)
    return image[rows][:, columns]

  return jax.vmap(shift_one)(images, shifts)


def blur(images: jax.Array, flags: jax.Array) -> jax.Array:
  """Blurs float images `[B, H, W, C]` with a flag of `[B]` set.

  The kernel is binomial, [1, 2, 1] / 4 each way; the border is repeated.
  """
  chex.assert_rank([images, flags], [4, 1])
  chex.assert_equal_shape_prefix([images, flags], 1)
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')
  rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
  blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
  return jnp.where(flags[:, None, None, None], blurred, images)
