"""Files to keep: their sizes, frames and colours."""

import io

import numpy as np
from PIL import Image
import pytest

from jacsup_jax.editor import exports


def _open(content):
  return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
  ('side', 'channels', 'expected'), [(64, 3, 512), (28, 1, 512), (600, 3, 600)]
)
def test_small_pictures_are_enlarged(side, channels, expected):
  image = np.full((side, side, channels), 90, np.uint8)
  picture = _open(exports.to_png(image))
  assert picture.size == (expected, expected) and picture.format == 'PNG'
  np.testing.assert_array_equal(np.asarray(picture), 90)
  if side == expected:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, image.shape, np.uint8)
    np.testing.assert_array_equal(_open(exports.to_png(image)), image)


def test_an_animation_plays_there_and_back():
  images = [np.full((16, 16, 3), 40 * i, np.uint8) for i in range(5)]
  animation = _open(exports.to_gif(images))
  assert animation.format == 'GIF' and animation.info['loop'] == 0
  assert animation.size == (320, 320)
  levels, durations = [], []
  for index in range(animation.n_frames):
    animation.seek(index)
    durations.append(animation.info['duration'])
    levels.append(int(np.asarray(animation.convert('RGB'))[160, 160, 0]))
  np.testing.assert_allclose(levels, [0, 40, 80, 120, 160, 120, 80, 40], atol=4)
  # The ends stay for a while.
  assert durations == [700, 50, 50, 50, 700, 50, 50, 50]


def test_steps_go_from_end_to_end():
  first, last = np.array([0.0, -1.0]), np.array([2.0, 3.0])
  steps = exports.make_steps(first, last)
  np.testing.assert_allclose(steps[[0, -1]], [first, last])
  sizes = np.linalg.norm(np.diff(steps, axis=0), axis=1)
  assert sizes.argmax() in (len(sizes) // 2 - 1, len(sizes) // 2)
