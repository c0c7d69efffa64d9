"""Turn a drawing of strokes into a digit as MNIST has them."""

import numpy as np
from PIL import Image

from jacsup_jax.core import errors
from jacsup_jax.data import images

# MNIST's digits fit a box of 20 of 28 pixels, and their centre of mass is in
# the middle of the picture.
_BOX = 20 / 28
_MOST_BYTES = 2**20
# Grey below this is the paper.
_LEAST_INK = 32


def read(content: bytes, image_shape: tuple[int, int, int]) -> np.ndarray:
  """Decodes a picture of light strokes on black for a model of grey images.

  The strokes are scaled and moved as MNIST's. Returns `[H, W, 1]` uint8. Raises
  InputError if nothing is drawn, or the file is no picture.
  """
  height, width, channels = image_shape
  if channels != 1:
    raise errors.InputError(
      f'a drawing for a model of {channels} channels; accepted: of grey images.'
    )
  try:
    if len(content) > _MOST_BYTES:
      raise images.BadImageError(f'it has {len(content):,} bytes')
    grey = images.open_picture(content).convert('L')
  except images.BadImageError as error:
    raise errors.InputError(
      f'the drawing: {error}; accepted: a picture of at most'
      f' {_MOST_BYTES // 2**20} MB.'
    ) from error
  ink = np.asarray(grey)
  rows, cols = (np.flatnonzero((ink > _LEAST_INK).any(axis)) for axis in (1, 0))
  if not rows.size:
    raise errors.InputError(
      'nothing is drawn; accepted: strokes of some length.'
    )
  ink = ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
  factor = _BOX * min(height, width) / max(ink.shape)
  size = [max(1, round(side * factor)) for side in ink.shape[::-1]]
  small = Image.fromarray(ink).resize(size, Image.Resampling.BOX)
  return _center(np.asarray(small), height, width)[..., None]


def _center(ink, height, width):
  """Places `[h, w]` with its centre of mass in the middle, if it fits."""
  canvas = np.zeros((height, width), np.uint8)
  mass = ink.sum()
  starts = []
  for axis, side in enumerate((height, width)):
    places = np.arange(ink.shape[axis]) + 0.5
    center = (ink.sum(1 - axis) * places).sum() / mass
    most = side - ink.shape[axis]
    starts.append(int(np.clip(round(side / 2 - center), 0, most)))
  top, left = starts
  canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
  return canvas
