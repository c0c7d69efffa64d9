"""Drawings become digits as MNIST has them."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.editor import drawings
from jacsup_jax.figures import pictures

SHAPE = (28, 28, 1)


def _read(ink, shape=SHAPE):
  return drawings.read(pictures.encode(ink[..., None], '.png'), shape)


@pytest.mark.parametrize(('top', 'left'), [(10, 10), (150, 200), (60, 0)])
@pytest.mark.parametrize('size', [40, 80])
def test_strokes_are_scaled_and_centred(top, left, size):
  ink = np.zeros((280, 280), np.uint8)
  ink[top : top + size, left : left + size // 2] = 255
  image = _read(ink)
  assert image.shape == SHAPE and image.dtype == np.uint8
  rows, cols, _ = np.nonzero(image)
  assert (np.ptp(rows) + 1, np.ptp(cols) + 1) == (20, 10)
  assert abs(rows.mean() - 13.5) <= 0.5 and abs(cols.mean() - 13.5) <= 0.5


def test_the_centre_is_that_of_mass():
  ink = np.zeros((280, 280), np.uint8)
  ink[100:110, 100:140] = 255  # a flag, heavy at its left and top
  ink[100:200, 100:110] = 255
  rows, cols = np.indices((28, 28))
  image = _read(ink)[..., 0].astype(float)
  center = [(axis * image).sum() / image.sum() for axis in (rows, cols)]
  np.testing.assert_allclose(center, 13.5, atol=0.6)


def test_a_dot_and_a_line_are_drawings():
  for height, width in ((1, 1), (1, 200), (200, 1)):
    ink = np.zeros((280, 280), np.uint8)
    ink[:height, :width] = 255
    assert _read(ink).max() > 0


@pytest.mark.parametrize(
  ('content', 'shape', 'message'),
  [
    (pictures.encode(np.zeros((9, 9, 1), np.uint8), '.png'), SHAPE, 'nothing'),
    (b'hello', SHAPE, 'the drawing: it is none of'),
    (bytes(2**20 + 1), SHAPE, 'bytes'),
    (b'', (64, 64, 3), 'model of 3 channels'),
  ],
)
def test_other_drawings_are_refused(content, shape, message):
  with pytest.raises(errors.InputError, match=f'{message}.*accepted'):
    drawings.read(content, shape)
