"""Encode images of models as picture files, with Pillow.

Images are `[H, W, C]` uint8, grey or RGB.
"""

import io

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
}
STILL = ('.png', '.jpg', '.jpeg', '.webp')


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
  rows, cols, height, width, channels = images.shape
  return images.transpose(0, 2, 1, 3, 4).reshape(
    rows * height, cols * width, channels
  )


def encode(image: np.ndarray, ending: str) -> bytes:
  """Encodes `[H, W, C]` uint8 as a file with an ending of `STILL`.

  JPEG files are not lossless.
  """
  name, _, options = _KINDS[ending]
  file = io.BytesIO()
  to_picture(image).save(file, name, **options)
  return file.getvalue()


def to_picture(image: np.ndarray) -> Image.Image:
  """Returns `[H, W, C]` uint8 as an image of Pillow, grey if C is 1."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
