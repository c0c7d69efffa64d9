"""Encode images of models as picture files, with Pillow: still and moving.

Images are `[H, W, C]` uint8, grey or RGB.
"""

import io

import chex
import numpy as np
from PIL import Image

from jacsup_jax.core import errors

# Ending of a file's name -> Pillow's format, its largest side, its options.
_KINDS = {
  # Higher levels take several times as long and save a few per cent.
  '.png': ('PNG', 2**31 - 1, {'compress_level': 1}),
  '.jpg': ('JPEG', 65500, {'quality': 95, 'subsampling': 0}),
  '.jpeg': ('JPEG', 65500, {'quality': 95, 'subsampling': 0}),
  '.webp': ('WEBP', 16383, {'lossless': True}),
  '.gif': ('GIF', 65535, {}),
}
STILL = ('.png', '.jpg', '.jpeg', '.webp')
MOVING = ('.gif', '.webp')
# A strip of nine frames goes there and back in two seconds.
MILLISECONDS = 120


def check_size(ending: str, height: int, width: int, what: str) -> None:
  """Raises InputError, which names a file, if it has too many pixels a side."""
  name, largest, _ = _KINDS[ending]
  if max(height, width) > largest:
    raise errors.InputError(
      f'{what} would have {width}x{height} pixels; {name} accepts {largest} a'
      ' side, .png more.'
    )


def tile(images: np.ndarray) -> np.ndarray:
  """Tiles `[rows, cols, H, W, C]` images to one, `[rows*H, cols*W, C]`."""
  chex.assert_rank(images, 5)
  rows, cols, height, width, channels = images.shape
  return images.transpose(0, 2, 1, 3, 4).reshape(
    rows * height, cols * width, channels
  )


def encode(image: np.ndarray, ending: str) -> bytes:
  """Encodes an image as a file that ends so; JPEG is not without loss."""
  name, _, options = _KINDS[ending]
  file = io.BytesIO()
  to_picture(image).save(file, name, **options)
  return file.getvalue()


def encode_moving(frames: np.ndarray, ending: str) -> bytes:
  """Encodes `[N, H, W, C]` frames as an animation that runs there and back.

  It repeats forever. A GIF has 256 colours in each frame.
  """
  name, _, options = _KINDS[ending]
  options = {**options, 'duration': MILLISECONDS, 'loop': 0}
  # Neither end is shown twice in a row.
  first, *others = map(to_picture, [*frames, *frames[-2:0:-1]])
  file = io.BytesIO()
  first.save(file, name, save_all=True, append_images=others, **options)
  return file.getvalue()


def to_picture(image: np.ndarray) -> Image.Image:
  """Returns an image as one of Pillow."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
