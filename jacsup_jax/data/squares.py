"""Square colour images of one size from pictures of any, with Pillow."""

from collections.abc import Callable
import io
import warnings

import numpy as np
from PIL import Image
from PIL import UnidentifiedImageError

from jacsup_jax.core import errors

# Not all that Pillow knows: for some it starts another program.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
# A photograph of 8192x8192; faces are published at 1024x1024 at most.
MOST_PIXELS = 2**26
# Pillow warns of what decode refuses or does without: of many pixels, of
# damaged notes of the camera. That would be lines beside the one that is due.
# Not around each call: threads decode, and filters are those of the process.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\b')


class BadImageError(ValueError):
  """Bytes that are not a whole picture of a kind that Pillow reads."""


def check_fits(image_size: int, height: int, width: int, what: str) -> None:
  """Checks that a picture's centre square is large enough for a size.

  See `largest_size`.

  Args:
    image_size: S, in pixels.
    height: of the picture.
    width: of the picture.
    what: the picture or its set, for the message.

  Raises:
    InputError: if the square would have to be enlarged further.
  """
  side = min(height, width)
  largest = largest_size(side)
  if image_size > largest:
    raise errors.InputError(
        f'--image_size={image_size} is larger than the centre square of {what},'
        f' {side}x{side} pixels: accepted are powers of two from 8 to {largest}'
    )


def largest_size(side: int) -> int:
  """Returns the largest size that a square may be resized to.

  It may be enlarged to the next power of two and no further: the paper makes
  256x256 of CelebA's 178x178.

  Args:
    side: of the square, in pixels.
  """
  return 1 << (side - 1).bit_length()


def decode(content: bytes, image_size: int, what: str) -> np.ndarray:
  """Decodes a picture and makes it a square of one size.

  Args:
    content: an encoded picture.
    image_size: S, in pixels.
    what: its name, for messages.

  Returns:
    `[S, S, 3]` uint8.

  Raises:
    BadImageError: if the picture cannot be decoded.
    InputError: if its centre square is too small for S.
  """
  image = open_picture(content, lambda image: image.convert('RGB'))
  check_fits(image_size, image.height, image.width, what)
  return resize(image, image_size)


def open_picture(
    content: bytes, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
  """Decodes a picture of bounded size.

  Args:
    content: an encoded picture.
    convert: from what is in the file, of which nothing is decoded yet, to what
      is wanted.

  Returns:
    What `convert` does.

  Raises:
    BadImageError: if the picture cannot be decoded.
  """
  try:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
      # Of the header: nothing is decoded yet.
      if image.width * image.height > MOST_PIXELS:
        raise BadImageError(
            f'it has {image.width}x{image.height} pixels, accepted are'
            f' {MOST_PIXELS:,} at most'
        )
      return convert(image)
  except BadImageError:
    raise
  # Anything: readers of damaged pictures have many ways to fail.
  except Exception as error:
    if not content:
      raise BadImageError('it is empty') from error
    if isinstance(error, UnidentifiedImageError):
      raise BadImageError(
          f'it is none of {", ".join(FORMATS)}'
      ) from error
    if isinstance(
        error, (Image.DecompressionBombError, Image.DecompressionBombWarning)
    ):
      raise BadImageError(
          f'it has more pixels than are accepted, {MOST_PIXELS:,} at most'
      ) from error
    text = errors.one_line(str(error))[:200]
    raise BadImageError(text or type(error).__name__) from error


def resize(image: Image.Image, image_size: int) -> np.ndarray:
  """Cuts the centre square and resizes it, with a Lanczos filter.

  The square of a 218x178 picture is its rows 20 to -20, as in the reference
  code. A square of the right size is left as it is.

  Args:
    image: a picture, grey or in colours.
    image_size: S, in pixels.

  Returns:
    `[S, S, 3]` uint8, or `[S, S]` of a grey one.
  """
  side = min(image.size)
  left, top = (image.width - side) // 2, (image.height - side) // 2
  image = image.crop((left, top, left + side, top + side))
  if side != image_size:
    image = image.resize((image_size, image_size), Image.Resampling.LANCZOS)
  return np.array(image)


def encode_png(image: np.ndarray) -> bytes:
  """Encodes one image, losslessly.

  Args:
    image: `[H, W, 3]` uint8, or `[H, W]` of a grey one.

  Returns:
    A PNG file.
  """
  file = io.BytesIO()
  # Higher levels take several times as long, for some percent of the size.
  Image.fromarray(image).save(file, format='PNG', compress_level=1)
  return file.getvalue()
