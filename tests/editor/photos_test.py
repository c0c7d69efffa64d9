"""Photos of all kinds as images for a model."""

import io

import numpy as np
from PIL import Image
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import images as images_lib
from jacsup_jax.editor import photos

SHAPE = (16, 16, 3)
DIGIT = (16, 16, 1)
# For orientations from 2 on.
TURNS = (
    'FLIP_LEFT_RIGHT', 'ROTATE_180', 'FLIP_TOP_BOTTOM', 'TRANSPOSE',
    'ROTATE_270', 'TRANSVERSE', 'ROTATE_90',
)  # fmt: skip


def make_image(height=20, width=16, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


def encode(image, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(image).save(file, format=kind, **options)
  return file.getvalue()


def prepare(content, shape=SHAPE, **options):
  found, _ = photos.read(content, shape, 'a.png', **options)
  assert found.shape == shape and found.dtype == np.uint8
  return found


@pytest.mark.parametrize('size', [8, 16])
def test_squares_are_those_of_training(size):
  content = encode(make_image())
  np.testing.assert_array_equal(
    prepare(content, (size, size, 3)), images_lib.decode(content, size, 'x')
  )


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
@pytest.mark.parametrize(('orientation', 'turn'), [*enumerate(TURNS, 2)])
def test_photos_are_upright(kind, orientation, turn):
  image = make_image(24, 17)
  notes = Image.Exif()
  notes[0x0112] = orientation
  upright = Image.fromarray(image).transpose(Image.Transpose[turn])
  np.testing.assert_array_equal(
    prepare(encode(image, kind, exif=notes)), images_lib.resize(upright, 16)
  )


def test_transparent_is_white():
  image = np.dstack([make_image(16), np.zeros((16, 16), np.uint8)])
  image[:8, :, 3] = 255
  image[8, 0] = 200, 100, 0, 51  # a fifth of it
  found = prepare(encode(image))
  np.testing.assert_array_equal(found[:8], image[:8, :, :3])
  assert found[9:].min() == 255
  assert np.abs(found[8, 0].astype(int) - [244, 224, 204]).max() <= 1


def test_grey_models_take_white_on_black():
  ink = np.full(SHAPE, 200, np.uint8)
  ink[6:10, 7] = 40
  ink[6, 3] = 120
  found = prepare(encode(ink), DIGIT)[..., 0]
  # Paper of 200 and ink of 40: 0 and 255; half of it in between.
  assert found[0, 0] == 0 and found[7, 7] == 255 and found[6, 3] == 128
  # White on black is left as it is.
  digit = 255 - ink
  digit[0] = 0
  np.testing.assert_array_equal(prepare(encode(digit), DIGIT), digit[..., :1])
  # The noise of empty paper does not become ink.
  paper = np.full(SHAPE, 250, np.uint8)
  paper[5, 5] = 249
  assert prepare(encode(paper), DIGIT).max() <= 8


def test_an_aligned_square_is_resized_if_it_is_large_enough():
  square = make_image(32, 32, seed=1)
  content = encode(make_image())
  found, is_aligned = photos.read(content, SHAPE, 'a', lambda image: square)
  assert is_aligned
  np.testing.assert_array_equal(
    found, images_lib.resize(Image.fromarray(square), 16)
  )
  for other in (None, square[:8, :8]):
    found, is_aligned = photos.read(content, SHAPE, 'a', lambda image: other)
    assert not is_aligned
    np.testing.assert_array_equal(found, prepare(content))
  # Digits have no faces.
  assert not photos.read(content, DIGIT, 'a', lambda image: square)[1]


def test_pictures_of_a_folder_are_listed_and_the_rest_is_named(
  tmp_path, caplog
):
  names = ['a.JPG', 'b.jfif', 'c.HEIC', 'd.avif', 'e.hif']
  others = ['IMG_1.MOV', 'IMG_1.AAE', 'notes.txt', '.DS_Store', 'f.dng']
  for name in names + others:
    (tmp_path / name).touch()
  (tmp_path / 'more').mkdir()
  found = photos.list_inputs(str(tmp_path), None, None, None)
  assert [name for name, _ in found] == names
  assert caplog.messages == [
    f'left out 5 of 10 in {tmp_path}, which are no pictures:'
    " 'IMG_1.AAE', 'IMG_1.MOV', 'f.dng', 'more', 'notes.txt'."
  ]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'words', 'not an image we can'),
    (encode(make_image())[:-200], 'not an image we can'),
    (encode(make_image(300, 8)), '8x300 pixels; accepted: a shorter side of'),
    (b'\0' * (photos.MOST_BYTES + 1), '33,554,433 bytes'),
    (encode(np.zeros((16, 16), np.float32), 'TIFF'), 'numbers of 32 bits'),
    # A bomb: a small file of many pixels.
    (encode(np.zeros((2**13, 2**13 + 1), bool)), 'pixels'),
  ],
  ids=range(6),
)
def test_what_is_refused(content, message):
  with pytest.raises(errors.InputError, match=message) as caught:
    prepare(content)
  assert 'a.png' in str(caught.value) and str(caught.value).isprintable()
