"""Tests of jacsup_jax.data.arrays, by `registry.load`."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import registry

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


def _load(path, split='train', **kwargs):
  return registry.load('arrays', split, data_dir=path, **kwargs)


def _refuses(path, message, **kwargs):
  with pytest.raises(errors.InputError, match=f'^.*{message}.*accepted.*$'):
    _load(path, **kwargs)


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
  # Results name their data by it.
  assert train.fingerprint == '9649922d2b891db6'
  # The last sixth of a small set is its validation split.
  assert len(_load(path, 'train_minus_validation')) == 7
  assert len(_load(path, 'validation')) == 1


@pytest.mark.parametrize(('lowest', 'lines'), [(0, 0), (1, 1), (5, 1)])
def test_labels_that_start_higher_are_said(tmp_path, lowest, lines):
  said = []
  path = _write(tmp_path, labels=_content()['labels'] + lowest)
  data = _load(path, report=said.append)
  assert data.labels.min() == lowest and len(said) == lines
  assert all(f'start at {lowest}: ' in line for line in said)


@pytest.mark.parametrize('named', [None, 10])
def test_classes_are_counted_over_the_whole_file_or_named(tmp_path, named):
  # Class 3 is in the test split alone.
  labels = np.array([0, 1, 2] * 4 + [3] * 4)
  path = _write(tmp_path, labels=labels, num_classes=named)
  assert _load(path).num_classes == (named or 4)


@pytest.mark.parametrize('highest', [1, 255])
def test_floats_are_rounded_to_8_bits(tmp_path, highest):
  expected = _content()['images']
  images = (expected / (255 / highest)).astype(np.float16)
  data = _load(_write(tmp_path, images=images))
  np.testing.assert_array_equal(data.images, expected[:12])


def test_a_folder_with_one_file_grey_images_and_names_as_bytes(tmp_path):
  content = _content()
  grey, names = content['images'][..., 0], content['split'].astype('S')
  _write(tmp_path, images=grey, split=names)
  (tmp_path / 'notes.txt').touch()
  np.testing.assert_array_equal(_load(tmp_path).images[..., 0], grey[:12])


def test_no_file(tmp_path):
  _refuses(None, '--data_dir=None finds nothing')
  _refuses(tmp_path / 'none.npz', '--data_dir=.*none.npz')
  for name in ('a.npz', 'b.npz'):
    (tmp_path / name).touch()
  _refuses(tmp_path, 'a.npz, b.npz')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'images': None}, 'has the arrays labels, split'),
    ({'images': np.zeros((16, 4), np.uint8)}, r'images of shape \(16, 4\)'),
    ({'labels': np.arange(15)}, r'shape \(15,\)'),
    ({'labels': np.arange(16) - 1}, 'labels from -1 to 14'),
    ({'labels': np.arange(16) * 100}, 'labels from 0 to 1500'),
    ({'num_classes': 3}, 'labels from 0 to 3 and num_classes 3'),
    ({'num_classes': [10, 2]}, r'num_classes \[10, 2\]'),
    ({'split': np.arange(16)}, 'split of type int64'),
    ({'split': np.array(['train'] * 16)}, "split 'train'"),
    ({'images': np.full((16, *SHAPE), -0.5)}, 'float64, or out of range'),
    ({'images': np.full((16, *SHAPE), np.nan)}, 'out of range'),
    ({}, 'mine.npz has images of 4x6x3'),
  ],
)
def test_what_does_not_fit(tmp_path, changes, message):
  path = _write(tmp_path, **changes)
  _refuses(path, message, image_shape=None if changes else (32, 32, 3))
