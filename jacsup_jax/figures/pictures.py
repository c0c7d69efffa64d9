"""Images of models as picture files, with Pillow: single, tiled and moving."""

import io

import chex
import numpy as np
from PIL import Image

from jacsup_jax.core import errors

# By the ending of the file's name: what Pillow calls it, the largest side that
# it may have, and how it is written.
_KINDS = {
    # Higher levels take several times as long, for some percent of the size.
    '.png': ('PNG', 2**31 - 1, {'compress_level': 1}),
    '.jpg': ('JPEG', 65500, {'quality': 95, 'subsampling': 0}),
    '.jpeg': ('JPEG', 65500, {'quality': 95, 'subsampling': 0}),
    '.webp': ('WEBP', 16383, {'lossless': True}),
    '.gif': ('GIF', 65535, {}),
}
STILL = ('.png', '.jpg', '.jpeg', '.webp')
MOVING = ('.gif', '.webp')
# Of a frame: a strip of nine values goes there and back in two seconds.
MILLISECONDS = 120


def check_size(ending: str, height: int, width: int, what: str) -> None:
  """Raises InputError if a picture is too large for its kind.

  Args:
    ending: of `STILL` or `MOVING`.
    height: in pixels.
    width: in pixels.
    what: the file, for the error.
  """
  name, largest, _ = _KINDS[ending]
  if max(height, width) > largest:
    raise errors.InputError(
        f'{what} would have {width}x{height} pixels; accepted of {name}:'
        f' {largest} a side, or .png.'
    )


def tile(images: np.ndarray) -> np.ndarray:
  """Puts images beside and below each other, pixel by pixel.

  Args:
    images: `[rows, cols, H, W, C]`, row 0 on top.

  Returns:
    `[rows * H, cols * W, C]`.
  """
  chex.assert_rank(images, 5)
  rows, cols, height, width, channels = images.shape
  return images.transpose(0, 2, 1, 3, 4).reshape(
      rows * height, cols * width, channels
  )


def encode(image: np.ndarray, ending: str) -> bytes:
  """Encodes one image; `.png` and `.webp` without loss.

  Args:
    image: `[H, W, C]` uint8, grey or in colours.
    ending: of `STILL`, or `.gif`.

  Returns:
    A file.
  """
  name, _, options = _KINDS[ending]
  file = io.BytesIO()
  to_picture(image).save(file, format=name, **options)
  return file.getvalue()


def encode_moving(
    frames: np.ndarray, ending: str, milliseconds: int = MILLISECONDS
) -> bytes:
  """Encodes an animation that runs without end.

  Args:
    frames: `[N, H, W, C]` uint8.
    ending: of `MOVING`. A GIF has 256 colours in each frame.
    milliseconds: of each frame.

  Returns:
    A file.
  """
  name, _, options = _KINDS[ending]
  first, *others = map(to_picture, frames)
  file = io.BytesIO()
  first.save(
      file,
      format=name,
      save_all=True,
      append_images=others,
      duration=milliseconds,
      loop=0,
      **options,
  )
  return file.getvalue()


def there_and_back(frames: np.ndarray) -> np.ndarray:
  """Returns frames that go to the last and back, to be run without end.

  Args:
    frames: `[N, ...]`, N of 2 or more.

  Returns:
    `[2 * N - 2, ...]`: neither end stands still.
  """
  return np.concatenate([frames, frames[-2:0:-1]])


def to_picture(image: np.ndarray) -> Image.Image:
  """Returns `[H, W, C]` uint8 as Pillow has it, grey or in colours."""
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
