"""Tests of jacsup_jax.data.arrays, by `registry.load`."""

import pathlib

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import registry

ROOT = pathlib.Path(__file__).parents[2]
SVHN = ROOT.parent / 'shared' / 'data' / 'svhn32' / 'svhn32_crops.npz'
SHAPE = (4, 6, 3)


def _content(**changes):
  """Twelve training and four test examples, with changes; None leaves out."""
  rng = np.random.default_rng(0)
  content = {
      'images': rng.integers(0, 256, (16, *SHAPE), np.uint8),
      'labels': np.arange(16) % 4,
      'split': np.array(['train'] * 12 + ['test'] * 4),
      **changes,
  }
  return {name: x for name, x in content.items() if x is not None}


def _write(folder, **changes):
  path = folder / 'mine.npz'
  np.savez(path, **_content(**changes))
  return path


def _load(path, split='train', image_shape=None):
  return registry.load('arrays', split, data_dir=path, image_shape=image_shape)


def _refuses(path, message, **kwargs):
  with pytest.raises(errors.InputError, match=message) as error:
    _load(path, **kwargs)
  assert '\n' not in str(error.value)
  assert 'accepted' in str(error.value)


# Values.


def test_splits_are_the_rows_of_the_file(tmp_path):
  content = _content(split=np.array(['train', 'test'] * 8))
  path = _write(tmp_path, **content)
  train, test = _load(path), _load(path, 'test')
  np.testing.assert_array_equal(train.images, content['images'][::2])
  np.testing.assert_array_equal(test.images, content['images'][1::2])
  np.testing.assert_array_equal(test.labels, content['labels'][1::2])
  for data in (train, test):
    assert (data.name, data.num_classes) == ('arrays', 4)
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
  assert train.fingerprint != test.fingerprint
  # The last sixth of a small set is its validation split.
  rest, validation = (
      _load(path, split) for split in ('train_minus_validation', 'validation')
  )
  assert (len(rest.images), len(validation.images)) == (7, 1)


def test_classes_are_counted_over_the_whole_file_or_named(tmp_path):
  # Class 3 is in the test split alone.
  labels = np.array([0, 1, 2] * 4 + [3] * 4)
  assert _load(_write(tmp_path, labels=labels)).num_classes == 4
  path = _write(tmp_path, labels=labels, num_classes=10)
  assert _load(path).num_classes == 10


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
@pytest.mark.parametrize('highest', [1, 255])
def test_floats_are_rounded_to_8_bits(tmp_path, highest, dtype):
  expected = _content()['images']
  images = (expected / (255 / highest)).astype(dtype)
  data = _load(_write(tmp_path, images=images))
  np.testing.assert_array_equal(data.images, expected[:12])


def test_a_folder_with_one_file_will_do(tmp_path):
  path = _write(tmp_path)
  (tmp_path / 'notes.txt').touch()
  assert _load(tmp_path).fingerprint == _load(path).fingerprint


def test_grey_images_get_a_channel_and_bytes_are_names(tmp_path):
  content = _content()
  path = _write(
      tmp_path,
      images=content['images'][..., 0],
      split=content['split'].astype('S'),
  )
  assert _load(path).images.shape == (12, 4, 6, 1)


def test_real_crops():
  if not SVHN.is_file():
    pytest.skip(f'{SVHN} is not there')
  train, test = (
      registry.load(
          'arrays', split, data_dir=SVHN, image_shape=(32, 32, 3)
      )
      for split in ('train', 'test')
  )
  assert train.images.shape == (554, 32, 32, 3)
  assert test.images.shape == (486, 32, 32, 3)
  assert train.num_classes == 10


# Bad input.


def test_no_file(tmp_path):
  _refuses(None, 'needs --data_dir: accepted .*.npz')
  _refuses(tmp_path / 'none.npz', '--data_dir=.*none.npz does not exist')
  _refuses(tmp_path, 'is a folder, of .npz files it has none')
  np.savez(tmp_path / 'a.npz', **_content())
  np.savez(tmp_path / 'b.npz', **_content())
  _refuses(tmp_path, 'a.npz, b.npz: accepted are a file, or a folder with one')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': None}, 'has no images, but labels, split; .*images, la'),
        ({'labels': None, 'split': None}, 'has no labels and no split, but im'),
        (
            {'images': np.zeros((16, 4), np.uint8)},
            r'images of shape \(16, 4\): .*M, H, W, 3',
        ),
        (
            {'images': np.zeros((16, 3, 4, 6), np.uint8)},
            r'images of shape \(16, 3, 4, 6\)',
        ),
        (
            {'images': np.zeros((0, 4, 6, 3), np.uint8)},
            r'images of shape \(0, 4, 6, 3\)',
        ),
        (
            {'labels': np.arange(15)},
            r'labels of shape \(15,\) for 16 images: accepted are \(16,\)',
        ),
        (
            {'labels': np.zeros((16, 1), int)},
            r'labels of shape \(16, 1\) for 16 images',
        ),
        (
            {'split': np.array(['train', 'test'])},
            r'split of shape \(2,\) for 16 images',
        ),
        ({'labels': np.arange(16) - 1}, 'labels from -1 to 14: .* 0 to 999'),
        ({'labels': np.arange(16) * 100}, 'labels from 0 to 1500: .* 0 to 999'),
        (
            {'num_classes': 3},
            'labels from 0 to 3: accepted are 0 to 2, as num_classes is 3',
        ),
        ({'num_classes': 0}, 'num_classes 0: accepted are 1 to 1000'),
        ({'num_classes': [10, 2]}, 'num_classes array.*are one integer'),
        ({'labels': np.arange(16) / 4}, 'labels of type float64.*integers'),
        (
            {'split': np.array(['train', 'dev'] * 8)},
            "split 'dev': accepted are 'train' and 'test'",
        ),
        ({'split': np.arange(16)}, 'split of type int64: .*strings'),
        ({'split': np.array(['train'] * 16)}, "no example of split 'test'"),
        ({'split': np.array(['test'] * 16)}, "no example of split 'train'"),
        (
            {'images': np.full((16, *SHAPE), -0.5)},
            r'float64 images from -0.5 to -0.5: .*\[0, 1\] or in \[0, 255\]',
        ),
        ({'images': np.full((16, *SHAPE), 256.0)}, 'from 256 to 256'),
        ({'images': np.full((16, *SHAPE), np.nan)}, 'from nan to nan'),
        ({'images': np.full((16, *SHAPE), 9)}, 'images of type int64: .*uint8'),
        ({'images': np.ones((16, *SHAPE), bool)}, 'images of type bool'),
    ],
)
def test_what_does_not_fit(tmp_path, changes, message):
  _refuses(_write(tmp_path, **changes), message)


def test_other_image_shapes(tmp_path):
  _refuses(
      _write(tmp_path),
      'mine.npz has images of 4x6x3: accepted are 32x32x3',
      image_shape=(32, 32, 3),
  )


def test_unknown_split(tmp_path):
  _refuses(_write(tmp_path), "unknown split 'dev'", split='dev')
