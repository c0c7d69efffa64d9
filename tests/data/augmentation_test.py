"""Tests of jacsup_jax.data.augmentation."""

import jax.numpy as jnp
import numpy as np

from jacsup_jax.data import augmentation


def test_mirror_values():
  images = jnp.arange(12, dtype=jnp.uint8).reshape(2, 2, 3, 1)
  flags = jnp.array([True, False])
  mirrored = augmentation.mirror(images, flags)
  assert mirrored.dtype == jnp.uint8
  np.testing.assert_array_equal(
    mirrored[..., 0], [[[2, 1, 0], [5, 4, 3]], [[6, 7, 8], [9, 10, 11]]]
  )
  np.testing.assert_array_equal(augmentation.mirror(mirrored, flags), images)


def test_images_are_shifted_and_their_border_repeated():
  image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
  images = np.concatenate([image] * 3)
  shifted = augmentation.shift(images, np.array([[0, 0], [1, 0], [-1, 2]]))
  assert shifted.dtype == jnp.uint8
  np.testing.assert_array_equal(shifted[..., 0], [
      [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
      [[0, 1, 2], [0, 1, 2], [3, 4, 5]],  # one down
      [[3, 3, 3], [6, 6, 6], [6, 6, 6]],  # one up, two to the right
  ])  # fmt: skip


def test_flagged_images_are_blurred():
  image = np.zeros((2, 3, 3, 1), np.float32)
  image[:, 1, 0] = 16
  plain, blurred = augmentation.blur(image, np.array([False, True]))
  np.testing.assert_array_equal(plain, image[0])
  # The border repeats the pixel: (1 + 2) / 4 of it stay in its column.
  np.testing.assert_array_equal(
    blurred[..., 0], [[3, 1, 0], [6, 2, 0], [3, 1, 0]]
  )
