"""Tests of jacsup_jax.data.images."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
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


def test_pictures_are_not_enlarged():
  content = tiny_faces.encode(tiny_faces.IMAGES[0])
  with pytest.raises(errors.InputError, match='=32 is larger than .* x, 16x16'):
    image_files.decode(content, 32, 'x')


def _make_png(width, height):
  """Makes a PNG of a header alone."""
  header = b'IHDR' + struct.pack('>II5B', width, height, 8, 2, 0, 0, 0)
  chunks = [
    struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', crc)
    for chunk in (header, b'IDAT')
    for crc in [zlib.crc32(chunk)]
  ]
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


@pytest.mark.filterwarnings('error::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('side', [9_000, 20_000])
def test_picture_bombs_are_refused(side):
  with pytest.raises(image_files.BadImageError, match='pixels'):
    image_files.decode(_make_png(side, side), 8, 'x')


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
