"""Tests of jacsup_jax.figures.pictures."""

import io

import numpy as np
from PIL import Image
from PIL import ImageSequence
import pytest

from jacsup_jax.core import errors
from jacsup_jax.figures import pictures


def make_images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def decode(content):
  return Image.open(io.BytesIO(content))


# Value.


def test_tiles_are_where_they_belong():
  images = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2, 1)
  tiled = pictures.tile(images)
  assert tiled.shape == (4, 6, 1)
  np.testing.assert_array_equal(tiled[2:, 4:], images[1, 2])
  np.testing.assert_array_equal(tiled[:2, 2:4], images[0, 1])


def test_there_and_back():
  frames = np.arange(4)
  assert pictures.there_and_back(frames).tolist() == [0, 1, 2, 3, 2, 1]
  assert pictures.there_and_back(frames[:2]).tolist() == [0, 1]


# Invariant.


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('ending', ['.png', '.webp'])
def test_files_without_loss(ending, channels):
  image = make_images(9, 7, channels)
  found = decode(pictures.encode(image, ending))
  expected = image if channels == 3 else image.repeat(3, axis=2)
  np.testing.assert_array_equal(np.asarray(found.convert('RGB')), expected)


@pytest.mark.parametrize('channels', [1, 3])
def test_jpeg_is_near(channels):
  image = np.full((16, 16, channels), 100, np.uint8)
  image[8:] = 180
  found = np.asarray(decode(pictures.encode(image, '.jpg')))
  assert np.abs(found.reshape(image.shape).astype(int) - image).max() < 6


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('ending', pictures.MOVING)
def test_animations(ending, channels):
  # 64 colours: a frame of GIF has room for them.
  frames = make_images(4, 8, 8, channels)
  file = decode(pictures.encode_moving(frames, ending, 70))
  found = [np.asarray(f.convert('RGB')) for f in ImageSequence.Iterator(file)]
  expected = frames if channels == 3 else frames.repeat(3, axis=3)
  np.testing.assert_array_equal(found, expected)
  assert file.info['loop'] == 0 and file.info['duration'] == 70


# Mistakes.


def test_pictures_too_large_for_their_kind():
  pictures.check_size('.png', 20, 100_000, 'it')
  with pytest.raises(
    errors.InputError, match='it would have 20000x20 .* 16383'
  ):
    pictures.check_size('.webp', 20, 20_000, 'it')
