"""Tests of jacsup_jax.figures.pictures."""

import io

import numpy as np
from PIL import Image
from PIL import ImageSequence
import pytest

from jacsup_jax.core import errors
from jacsup_jax.figures import pictures


def _make_images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _decode(content):
  return Image.open(io.BytesIO(content))


def test_tiles_are_where_they_belong():
  images = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2, 1)
  tiled = pictures.tile(images)
  assert tiled.shape == (4, 6, 1)
  np.testing.assert_array_equal(tiled[2:, 4:], images[1, 2])
  np.testing.assert_array_equal(tiled[:2, 2:4], images[0, 1])


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('ending', pictures.STILL)
def test_files_hold_the_image(ending, channels):
  image = np.full((16, 16, channels), 100, np.uint8)
  image[8:] = 180
  found = np.asarray(_decode(pictures.encode(image, ending)).convert('RGB'))
  tolerance = 5 if ending in ('.jpg', '.jpeg') else 0
  assert np.abs(found.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('ending', pictures.MOVING)
def test_animations_run_there_and_back(ending, channels):
  # 64 colours: a frame of GIF has room for them.
  frames = _make_images(4, 8, 8, channels)
  file = _decode(pictures.encode_moving(frames, ending))
  found = [np.asarray(f.convert('RGB')) for f in ImageSequence.Iterator(file)]
  expected = np.broadcast_to(frames[[0, 1, 2, 3, 2, 1]], (6, 8, 8, 3))
  np.testing.assert_array_equal(found, expected)
  assert file.info['loop'] == 0
  assert file.info['duration'] == pictures.MILLISECONDS


def test_pictures_too_large_for_their_kind():
  pictures.check_size('.png', 20, 100_000, 'it')
  with pytest.raises(errors.InputError, match='it would .* accepts 16383'):
    pictures.check_size('.webp', 20, 20_000, 'it')
