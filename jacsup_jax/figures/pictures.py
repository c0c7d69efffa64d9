"""Write images of models as picture files, with Pillow: still and moving."""

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
  """Raises InputError if a picture is too large for its format.

  Args:
    ending: one of `STILL` or `MOVING`.
    height: in pixels.
    width: in pixels.
    what: the file, for the error.
  """
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
  """Encodes one image as a file; `.png` and `.webp` without loss.

  Args:
    image: `[H, W, C]` uint8, grey or RGB.
    ending: one of `STILL`, or `.gif`.
  """
  name, _, options = _KINDS[ending]
  file = io.BytesIO()
  to_picture(image).save(file, format=name, **options)
  return file.getvalue()


def encode_moving(
  frames: np.ndarray, ending: str, milliseconds: int = MILLISECONDS
) -> bytes:
  """Encodes an animation that repeats forever as a file.

  Args:
    frames: `[N, H, W, C]` uint8.
    ending: one of `MOVING`. A GIF has 256 colours in each frame.
    milliseconds: duration of each frame.
  """
  name, _, options = _KINDS[ending]
  first, *others = map(to_picture, frames)
  file = io.BytesIO()
  first.save(
      file, format=name, save_all=True, append_images=others,
      duration=milliseconds, loop=0, **options,
  )  # fmt: skip
  return file.getvalue()


def there_and_back(frames: np.ndarray) -> np.ndarray:
  """Returns N >= 2 frames played to the last and back, `[2 * N - 2, ...]`.

  Repeated, neither end is shown twice in a row.
  """
  return np.concatenate([frames, frames[-2:0:-1]])


def to_picture(image: np.ndarray) -> Image.Image:
  """Returns `[H, W, C]` uint8 as an image of Pillow, grey or RGB."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
