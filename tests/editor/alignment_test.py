"""Aligning photos by faces, which are drawn."""

import numpy as np
from PIL import Image
import pytest

from jacsup_jax.data import drawn_faces
from jacsup_jax.editor import alignment


@pytest.fixture(scope='module')
def align():
  found = alignment.find_aligner()
  if found is None:
    pytest.skip('dlib or face_recognition_models is not installed')
  return found


def make_dots(eyes, height, width):
  """A picture in black with a red and a green dot, at middles of eyes."""
  y, x = np.mgrid[:height, :width] + 0.5
  image = np.zeros((height, width, 3), np.uint8)
  for channel, (own_x, own_y) in enumerate(eyes):
    near = (x - own_x) ** 2 + (y - own_y) ** 2 < 3**2
    image[near, channel] = 255
  return image


def find_dots(image):
  """Returns the middles of both dots, as parts of the side."""
  dots = [np.argwhere(image[..., channel] > 127) for channel in (0, 1)]
  middles = [dot[:, ::-1].mean(axis=0) + 0.5 for dot in dots]
  return np.array(middles) / len(image)


# Upright, turned, and upside down.
@pytest.mark.parametrize(
  'eyes',
  [[[80, 90], [120, 90]], [[80, 80], [115, 105]], [[120, 110], [85, 95]]],
)
def test_eyes_are_where_celeba_has_them(eyes):
  image = make_dots(eyes, 200, 220)
  square = alignment.cut_square(image, np.array(eyes))
  apart = np.hypot(*np.subtract(*eyes))
  assert len(square) == round(apart / 38.5 * 178) == square.shape[1]
  # Half a pixel.
  np.testing.assert_allclose(
    find_dots(square), alignment.EYES, atol=0.5 / len(square)
  )


def test_a_square_that_is_upright_is_a_crop():
  image = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
  eyes = alignment.EYES * 178 + [0, 20]
  square = alignment.cut_square(image, eyes)
  # Bicubic at the middles of pixels: these themselves, but for rounding.
  assert square.shape == (178, 178, 3)
  assert np.abs(square.astype(int) - image[20:-20]).max() <= 1


def test_drawn_faces_are_found_and_noise_has_none(align):
  face = drawn_faces.draw_face(*drawn_faces.sample(0, 'test'), 128)
  scene = np.full((300, 400, 3), 128, np.uint8)
  scene[100:228, 30:158] = face
  turned = Image.fromarray(scene).rotate(8, Image.Resampling.BICUBIC)
  square = align(np.array(turned))
  assert square is not None and 60 < len(square) < 200
  # What it cuts is upright: cut again, it is about the same.
  again = align(np.array(Image.fromarray(square).resize((256, 256))))
  assert abs(len(again) - 256) < 40
  noise = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
  assert align(noise) is None
  assert align(np.zeros((1, 1, 3), np.uint8)) is None
