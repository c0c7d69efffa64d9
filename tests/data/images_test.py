"""Tests of jacsup_jax.data.images."""

import io
import struct
import sys
import zlib

import numpy as np
from PIL import Image
from PIL import features
import pytest
import tiny_faces

from jacsup_jax.core import errors
from jacsup_jax.data import images as image_files


def test_the_square_of_celeba_is_rows_20_to_minus_20():
  image = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
  found = image_files.resize(Image.fromarray(image), 178)
  np.testing.assert_array_equal(found, image[20:-20])


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'CMYK', 'P'])
def test_other_kinds_of_pictures_become_colour(mode):
  file = io.BytesIO()
  picture = Image.new('RGB', (16, 16), (50, 50, 50)).convert(mode)
  picture.save(file, format='JPEG' if mode == 'CMYK' else 'PNG')
  image = image_files.decode(file.getvalue(), 8, 'x')
  # Palettes and JPEG round.
  np.testing.assert_allclose(image, np.full((8, 8, 3), 50), atol=3)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_grey_of_16_bits_keeps_its_shades(kind):
  file = io.BytesIO()
  grey = np.repeat(np.arange(0, 256, 16, dtype=np.uint16)[None], 16, axis=0)
  Image.fromarray(grey * 257).save(file, format=kind)
  image = image_files.decode(file.getvalue(), 16, 'x')
  np.testing.assert_array_equal(image, np.dstack([grey] * 3))


def _encode_photo(kind, image, **options):
  """Encodes a photo as phones do; skips without the extra `photos`."""
  if kind == 'HEIF':
    pytest.importorskip('pillow_heif').register_heif_opener()
  elif kind == 'AVIF' and not features.check('avif'):
    pytest.skip('this Pillow has no AVIF')
  file = io.BytesIO()
  image.save(file, format=kind, **options)
  return file.getvalue()


@pytest.mark.parametrize(
  ('kind', 'orientation'),
  # Pillow's HEIF writes upright photos alone.
  [('HEIF', 1), ('AVIF', 1), ('AVIF', 3), ('AVIF', 6), ('PNG', 6)],
)
def test_photos_of_phones_are_upright(kind, orientation):
  image = np.zeros((32, 32, 3), np.uint8)
  image[:16, :, 0] = 200  # The upper half is red.
  exif = Image.Exif()
  exif[0x0112] = orientation
  content = _encode_photo(kind, Image.fromarray(image), exif=exif, quality=95)
  found = image_files.decode(content, 32, 'x')
  # Orientation 3 stands on its head, 6 lies on its left side.
  expected = np.rot90(image, {1: 0, 3: 2, 6: 3}[orientation])
  # Colours are stored at half the resolution.
  np.testing.assert_allclose(found, expected, atol=60)


@pytest.mark.parametrize(
  ('brands', 'name'),
  [(b'heic', 'HEIC'), (b'mif1\0\0\0\0heix', 'HEIC'), (b'avif', 'AVIF')],
)
def test_photos_without_their_extra_name_it(monkeypatch, brands, name):
  monkeypatch.setitem(sys.modules, 'pillow_heif', None)
  monkeypatch.setattr(image_files.features, 'check', lambda feature: False)
  message = f'it is {name}, which needs pip install .*pillow'
  with pytest.raises(image_files.BadImageError, match=message):
    image_files.decode(b'\0\0\0\x18ftyp' + brands + bytes(99), 8, 'x')
  with pytest.raises(image_files.BadImageError, match='it is none of JPEG'):
    image_files.decode(b'\0\0\0\x18ftypqt  ' + bytes(99), 8, 'a film')


@pytest.mark.filterwarnings('error::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('side', [9_000, 20_000])
def test_picture_bombs_are_refused(side):
  # A PNG of a header alone.
  chunk = b'IHDR' + struct.pack('>II5B', side, side, 8, 2, 0, 0, 0)
  chunk += struct.pack('>II', zlib.crc32(chunk), 0) + b'IDAT5\xaf\x06\x1e'
  content = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk
  with pytest.raises(image_files.BadImageError, match='pixels'):
    image_files.decode(content, 8, 'x')


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'TIFF', 'WEBP', 'BMP'])
def test_damaged_pictures_never_raise_anything_else(kind):
  file = io.BytesIO()
  Image.fromarray(tiny_faces.IMAGES[0]).save(file, format=kind)
  whole = file.getvalue()
  assert image_files.decode(whole, 8, 'x').shape == (8, 8, 3)
  for content in (b'', b'<html>', whole[: len(whole) // 2]):
    with pytest.raises(image_files.BadImageError):
      image_files.decode(content, 8, 'x')
  for position in range(0, min(len(whole), 300), 7):
    content = bytearray(whole)
    content[position] ^= 4
    try:
      image_files.decode(bytes(content), 8, 'x')
    except (image_files.BadImageError, errors.InputError) as error:
      assert str(error)
