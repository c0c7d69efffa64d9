"""Convert any photo to an image that a model takes, like its training images.

`images` crops the centre square and resizes it. What comes before concerns
photos alone: orientation, transparency, 16 bits, ink on paper.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageOps

from jacsup_jax.core import errors
from jacsup_jax.data import images

# Bytes of a file: a photograph of 8192x8192 pixels in good quality.
MOST_BYTES = 32 * 2**20
_LARGEST_16_BIT = 2**16 - 1

# `[h, w, 3]` uint8 -> `[s, s, 3]` uint8, the square around a face; None if
# there is none.
AlignFn = Callable[[np.ndarray], np.ndarray | None]


class Prepared(NamedTuple):
  """A photo as an image for a model."""

  image: np.ndarray  # [H, W, C] uint8
  is_aligned: bool  # by its face; else it is the centre square


def read(
  content: bytes,
  image_shape: tuple[int, int, int],
  name: str,
  *,
  align: AlignFn | None = None,
) -> Prepared:
  """Decodes a photo and converts it to an image for a model.

  The photo is rotated as its EXIF orientation says. Transparent pixels become
  white, 16 bits become 8, and the first frame of an animation is used. The
  centre square is resized as in training, or the square of `align`, if it is
  large enough and the model's images have colours.

  A model of grey images is taken to be one of digits, white on black: a photo
  with a bright border is ink on paper, so the median of the border becomes
  black and the darkest ink white. A photo with a dark border is left as it is.

  Raises:
    InputError: if the file is not a picture, is damaged, too large or too
      small, or the model's images are not square.
  """
  height, width, channels = image_shape
  if height != width or channels not in (1, 3):
    raise errors.InputError(
      f'the model takes images of shape {list(image_shape)}; accepted for'
      ' photos: models of square images with 1 or 3 channels.'
    )
  image = _decode(content, name)
  if align is not None and channels == 3:
    square = align(np.asarray(image))
    if square is not None and images.largest_size(len(square)) >= height:
      return Prepared(images.resize(Image.fromarray(square), height), True)
  if images.largest_size(min(image.size)) < height:
    raise errors.InputError(
      f'{name} has {image.width}x{image.height} pixels; accepted: a shorter'
      f' side of at least {height // 2 + 1}, for a model of {height}.'
    )
  if channels == 3:
    return Prepared(images.resize(image, height), False)
  grey = images.resize(image.convert('L'), height)
  return Prepared(_to_white_on_black(grey)[..., None], False)


def _decode(content, name):
  """Decodes to an upright RGB picture."""
  try:
    if len(content) > MOST_BYTES:
      raise images.BadImageError(f'it has {len(content):,} bytes')
    return images.open_picture(content, _to_upright_colours)
  except images.BadImageError as error:
    raise errors.InputError(
      f'{name}: This file is not an image we can open (JPEG, PNG, WebP, BMP,'
      f' TIFF or GIF, up to {MOST_BYTES // 2**20} MB and'
      f' {images.MOST_PIXELS:,} pixels): {error}.'
    ) from error


def _to_upright_colours(image):
  image.load()
  # Read after loading: Pillow rotates TIFF files itself and drops the tag.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Damaged EXIF fails in many ways; the picture is whole.
    orientation = None
  if image.mode == 'F' or image.mode.startswith('I'):
    plain = _from_wide(image)
  elif image.has_transparency_data:
    image = image.convert('RGBA')
    plain = Image.new('RGB', image.size, 'white')
    plain.paste(image, mask=image)
  else:
    plain = image.convert('RGB')
  # Other EXIF tags cannot always be written again.
  plain.info.clear()
  if orientation in range(1, 9):
    plain.getexif()[ExifTags.Base.Orientation] = orientation
  return ImageOps.exif_transpose(plain)


def _from_wide(image):
  """Scales a grey picture of 16 bits, which Pillow's `convert` would clip."""
  values = np.asarray(image)
  if image.mode == 'F' or values.min() < 0 or values.max() > _LARGEST_16_BIT:
    raise images.BadImageError(
      'it has 32 bits per pixel; accepted are 8 and 16'
    )
  scaled = np.round(values * (255 / _LARGEST_16_BIT))
  return Image.fromarray(scaled.astype(np.uint8)).convert('RGB')


def _to_white_on_black(grey):
  """Turns ink on paper, `[S, S]` uint8, into white on black."""
  border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
  paper = float(np.median(border))
  if paper < 128:
    return grey
  ink = paper - grey
  # At least 32, so that the noise of empty paper does not become white.
  scale = 255 / max(ink.max(), 32)
  return np.clip(np.round(ink * scale), 0, 255).astype(np.uint8)
