"""Anybody's photo as an image that a model takes, as its training data are.

The centre square, resized: `squares` has both. What comes before is of photos
alone: the side that is up, transparency, 16 bits, paper instead of black.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageOps

from jacsup_jax.core import errors
from jacsup_jax.data import squares

# Bytes of a file: a photograph of 8192x8192 in good quality.
MOST_BYTES = 32 * 2**20
_LARGEST_16_BIT = 2**16 - 1

# `[h, w, 3]` uint8 of a photo -> `[s, s, 3]` uint8, the square around a face;
# None where there is none.
AlignFn = Callable[[np.ndarray], np.ndarray | None]


class Prepared(NamedTuple):
  image: np.ndarray  # [H, W, C] uint8
  is_aligned: bool  # by its face; else it is the centre square


def read(
    content: bytes,
    image_shape: tuple[int, int, int],
    what: str,
    *,
    align: AlignFn | None = None,
) -> Prepared:
  """Decodes a photo, and makes an image for a model of it.

  It is turned as the camera's notes say, where these can be read. What is
  transparent becomes white, 16 bits become 8, of an animation the first frame
  counts. Then its centre square is resized, as in training.

  For a model of grey images, which are digits in white on black, a photo with
  a bright border is taken for ink on paper: the border's median becomes black,
  and the darkest ink white. One with a dark border is left as it is.

  Args:
    content: an encoded picture.
    image_shape: (H, W, C) of the model.
    what: name of the photo, for messages.
    align: finds a face and cuts the square around it, see `alignment`; where
      it finds none that is large enough, the centre square is taken. It is not
      asked for a model of grey images.

  Returns:
    The image, and whether it was aligned.

  Raises:
    InputError: if it is no picture, one that is damaged, too large or too
      small, or the model's images are not square.
  """
  height, width, channels = image_shape
  if height != width or channels not in (1, 3):
    raise errors.InputError(
        f'the model takes images of {list(image_shape)}, which no photo is made'
        ' into; accepted: models of square images, grey or in colours.'
    )
  image = _decode(content, what)
  if align is not None and channels == 3:
    square = align(np.asarray(image))
    if square is not None and squares.largest_size(len(square)) >= height:
      return Prepared(
          squares.resize(Image.fromarray(square), height), is_aligned=True
      )
  side = min(image.size)
  if squares.largest_size(side) < height:
    raise errors.InputError(
        f'{what} has {image.width}x{image.height} pixels; accepted: a side of'
        f' {height // 2 + 1} or more, for a model of {height}x{height}.'
    )
  if channels == 3:
    return Prepared(squares.resize(image, height), is_aligned=False)
  grey = squares.resize(image.convert('L'), height)
  return Prepared(_to_white_on_black(grey)[..., None], is_aligned=False)


def _decode(content, what):
  """Returns an upright RGB picture."""
  try:
    if len(content) > MOST_BYTES:
      raise squares.BadImageError(f'it has {len(content):,} bytes')
    return squares.open_picture(content, _to_upright_colours)
  except squares.BadImageError as error:
    raise errors.InputError(
        f'{what} is no picture that can be read: {error}; accepted: a whole'
        f' file of {", ".join(squares.FORMATS)}, with {squares.MOST_PIXELS:,}'
        f' pixels and {MOST_BYTES:,} bytes at most.'
    ) from error


def _to_upright_colours(image):
  image.load()
  # After it is loaded: TIFF files are turned then, and it is taken back.
  orientation = _read_orientation(image)
  if image.mode == 'F' or image.mode.startswith('I'):
    plain = _from_wide(image)
  elif image.has_transparency_data:
    image = image.convert('RGBA')
    plain = Image.new('RGB', image.size, 'white')
    plain.paste(image, mask=image)
  else:
    plain = image.convert('RGB')
  # Without the camera's other notes, which cannot always be written again.
  plain.info.clear()
  plain.getexif()[ExifTags.Base.Orientation] = orientation
  return ImageOps.exif_transpose(plain)


def _read_orientation(image):
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  # Anything: damaged notes say nothing, and the picture is whole.
  except Exception:
    return 1
  return orientation if orientation in range(1, 9) else 1


def _from_wide(image):
  """Scales a grey picture of 16 bits, which Pillow's `convert` would cut."""
  values = np.asarray(image)
  if (
      image.mode == 'F' or values.min() < 0 or values.max() > _LARGEST_16_BIT
  ):
    raise squares.BadImageError('it has 32 bits a pixel, accepted are 8 and 16')
  half = _LARGEST_16_BIT // 2
  scaled = (values.astype(np.uint32) * 255 + half) // _LARGEST_16_BIT
  # A grey that stands for transparent.
  transparent = image.info.get('transparency')
  if isinstance(transparent, int):
    scaled[values == transparent] = 255
  return Image.fromarray(scaled.astype(np.uint8)).convert('RGB')


def _to_white_on_black(grey):
  """Turns ink on paper into what digits are; `[S, S]` uint8."""
  border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
  paper = float(np.median(border))
  if paper < 128:
    return grey
  ink = paper - grey
  # No ink at all is not to become noise in white.
  scale = 255 / max(ink.max(), 32)
  return np.clip(np.round(ink * scale), 0, 255).astype(np.uint8)
