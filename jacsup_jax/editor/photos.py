"""Read photos and samples as images that a model takes, as in its training.

`images` crops the centre square and resizes it. What comes before concerns
photos alone: orientation, transparency, ink on paper.
"""

from collections.abc import Callable
import functools
import logging
import os
import pathlib
import re

import numpy as np
from PIL import Image

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import images
from jacsup_jax.editor import editor

_log = logging.getLogger(__name__)
# Bytes of a file: a photograph of 8192x8192 pixels in good quality.
MOST_BYTES = 32 * 2**20

# `[h, w, 3]` uint8 -> `[s, s, 3]` uint8, the square around a face; None if
# there is none.
AlignFn = Callable[[np.ndarray], np.ndarray | None]


def is_folder(text: str | None) -> bool:
  """Checks whether --input names a folder."""
  return bool(text) and os.path.isdir(text)


def list_inputs(
  text: str,
  choice: editor.Choice,
  own: editor.Editor,
  align: AlignFn | None,
) -> list[tuple[str, Callable[[], np.ndarray]]]:
  """Lists the images that --input names: one, or those of a folder by name.

  Each is a name and a function that loads `[H, W, C]` uint8. InputError if a
  folder cannot be read or has no pictures; functions raise it for bad photos.
  """
  if text.startswith('sample:'):
    return [(text, lambda: _read_sample(text, choice.open_samples(own)))]
  path = pathlib.Path(text)
  if not is_folder(text):
    return [(text, lambda: _read_photo(path, own, align))]
  try:
    names = sorted(n for n in os.listdir(path) if not n.startswith('.'))
  except OSError as error:
    raise files.unreadable(path, error) from error
  pictures = [n for n in names if n.lower().endswith(images.ENDINGS)]
  found = [
    (name, functools.partial(_read_photo, path / name, own, align))
    for name in names
    if name in pictures
  ]
  if not found:
    raise errors.InputError(
      f'--input={path} has no pictures; accepted: a folder with files of'
      f' {", ".join(images.ENDINGS)}.'
    )
  if others := [name for name in names if name not in pictures]:
    _log.warning(
      'left out %d of %d in %s, which are no pictures: %s.',
      *(len(others), len(names), path, files.some(others)),
    )
  return found


def read(
  content: bytes,
  image_shape: tuple[int, int, int],
  name: str,
  align: AlignFn | None = None,
) -> tuple[np.ndarray, bool]:
  """Decodes a photo and converts it to an image for a model.

  The photo is rotated as its EXIF orientation says. Transparent pixels become
  white, and the first frame of an animation is used. The centre square is
  resized as in training, or the square of `align`, if it is large enough and
  the model's images have colours.

  A model of grey images is taken to be one of digits, white on black: a photo
  with a bright border is ink on paper, so the median of the border becomes
  black and the darkest ink white. A photo with a dark border is left as it is.

  Returns `[H, W, C]` uint8, and whether it was aligned. Raises InputError if
  the file is not a picture, is damaged, too large or too small.
  """
  height, _, channels = image_shape
  image = _decode(content, name)
  if align is not None and channels == 3:
    square = align(np.asarray(image))
    if square is not None and images.largest_size(len(square)) >= height:
      return images.resize(Image.fromarray(square), height), True
  if images.largest_size(min(image.size)) < height:
    raise errors.InputError(
      f'{name} has {image.width}x{image.height} pixels; accepted: a shorter'
      f' side of at least {height // 2 + 1}, for a model of {height}.'
    )
  if channels == 3:
    return images.resize(image, height), False
  grey = images.resize(image.convert('L'), height)
  return _to_white_on_black(grey)[..., None], False


def _read_photo(path, own, align):
  content = files.read_bytes(path)
  image, is_aligned = read(content, own.image_shape, str(path), align)
  if align is not None and not is_aligned:
    _log.warning('%s: no face found; its centre square is taken.', path)
  return image


def _read_sample(text, samples):
  number = text.removeprefix('sample:')
  if not re.fullmatch('[0-9]{1,9}', number) or int(number) >= samples.count:
    raise errors.InputError(
      f'--input={text[:80]}; accepted: sample:0 to sample:{samples.count - 1}.'
    )
  return samples.read([int(number)])[0]


def _decode(content, name):
  """Decodes to an upright RGB picture."""
  try:
    if len(content) > MOST_BYTES:
      raise images.BadImageError(f'it has {len(content):,} bytes')
    return images.open_picture(content)
  except images.BadImageError as error:
    raise errors.InputError(
      f'{name}: This file is not an image we can open (JPEG, PNG, WebP, BMP,'
      ' TIFF, GIF, and HEIC and AVIF with an extra, up to'
      f' {MOST_BYTES // 2**20} MB and {images.MOST_PIXELS:,} pixels): {error}.'
    ) from error


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
