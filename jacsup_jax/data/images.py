"""Decode pictures and make squares of one size of them, with Pillow.

HEIC and AVIF, as phones write them, need the extra `photos`; see setup.cfg.
"""

import io
import warnings

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageOps
from PIL import UnidentifiedImageError
from PIL import features

from jacsup_jax.core import errors

# Pillow knows more formats, and starts another program for some of them.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
# Endings of such files, and of HEIC and AVIF; other files are no pictures.
ENDINGS = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.bmp', '.tif', '.tiff',
    '.gif', '.heic', '.heif', '.hif', '.avif',
)  # fmt: skip
# A photograph of 8192x8192; faces are published at 1024x1024 at most.
MOST_PIXELS = 2**26
# Beside the one line that is due. Set once, as threads share these filters.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\b')


class BadImageError(ValueError):
  """Bytes that are not a whole picture of an accepted format."""


def check_fits(image_size: int, height: int, width: int, what: str) -> None:
  """Raises InputError if a centre square would have to be enlarged too far."""
  side, largest = min(height, width), largest_size(min(height, width))
  if image_size > largest:
    raise errors.InputError(
      f'--image_size={image_size} is larger than the centre square of {what},'
      f' {side}x{side} pixels; accepted: powers of two from 8 to {largest}.'
    )


def largest_size(side: int) -> int:
  """Returns the next power of two: the paper makes 256 of CelebA's 178."""
  return 1 << (side - 1).bit_length()


def decode(content: bytes, image_size: int, what: str) -> np.ndarray:
  """Decodes a picture and makes it a square, `[S, S, 3]` uint8.

  Raises BadImageError if it cannot be decoded, InputError if it is too small.
  """
  image = open_picture(content)
  check_fits(image_size, image.height, image.width, what)
  return resize(image, image_size)


def open_picture(content: bytes) -> Image.Image:
  """Opens a picture of at most `MOST_PIXELS`; else raises BadImageError.

  It is RGB and upright, as its EXIF orientation says; transparent pixels are
  white, and of an animation it is the first frame.
  """
  formats = _find_formats(content)
  try:
    with Image.open(io.BytesIO(content), formats=formats) as image:
      if image.width * image.height <= MOST_PIXELS:
        return _to_upright_colours(image)
  except (BadImageError, MemoryError):
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning):
    pass
  except UnidentifiedImageError as error:
    raise BadImageError(f'it is none of {", ".join(formats)}') from error
  except Exception as error:  # Readers of damaged pictures fail in many ways.
    text = errors.one_line(str(error))[:200]
    raise BadImageError(text or type(error).__name__) from error
  raise BadImageError(
    f'it has more pixels than are accepted, {MOST_PIXELS:,} at most'
  )


def _find_formats(content):
  """Returns Pillow's formats to try; BadImageError if an extra is missing."""
  if content[4:8] != b'ftyp':
    return FORMATS
  brands = content[8:48]
  if b'avif' in brands or b'avis' in brands:
    if features.check('avif'):
      return ('AVIF',)
    raise BadImageError('it is AVIF, which needs pip install -U pillow')
  if not any(brand in brands for brand in (b'hei', b'hev', b'mif1', b'msf1')):
    return FORMATS  # A film.
  try:
    import pillow_heif
  except ImportError as error:
    raise BadImageError(
      'it is HEIC, which needs pip install pillow-heif'
    ) from error
  pillow_heif.register_heif_opener()
  return ('HEIF',)


def _to_upright_colours(image):
  image.load()
  # Read after loading: Pillow rotates TIFF files itself and drops the tag.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Damaged EXIF fails in many ways; the picture is whole.
    orientation = None
  if image.mode.startswith('I;16'):
    # Pillow would clip them. Colours of 16 bits it reads as 8.
    grey = np.asarray(image).astype(np.float32) / 257
    image = Image.fromarray(np.round(grey).astype(np.uint8))
  if image.mode[0] in 'FI':
    raise BadImageError('it has numbers of 32 bits; accepted: of 8 or 16')
  if image.has_transparency_data:
    image = image.convert('RGBA')
    plain = Image.new('RGB', image.size, 'white')
    plain.paste(image, mask=image)
  else:
    plain = image.convert('RGB')
  # Other EXIF tags cannot always be written again.
  plain.info.clear()
  if orientation in range(2, 9):
    plain.getexif()[ExifTags.Base.Orientation] = orientation
    plain = ImageOps.exif_transpose(plain)
  return plain


def resize(image: Image.Image, image_size: int) -> np.ndarray:
  """Cuts the centre square and resizes it, with a Lanczos filter.

  The square of a 218x178 picture is its rows 20 to -20, as in the reference
  code. Gives `[S, S, 3]` uint8, or `[S, S]` for a grey picture.
  """
  side = min(image.size)
  left, top = (image.width - side) // 2, (image.height - side) // 2
  image = image.crop((left, top, left + side, top + side))
  if side != image_size:
    image = image.resize((image_size, image_size), Image.Resampling.LANCZOS)
  return np.array(image)
