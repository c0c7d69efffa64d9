"""Tests of `registry.load` for sets of classes, and of prepared.py.

Nothing here reaches the network or needs TensorFlow.
"""

import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_sets

from jacsup_jax.core import errors
from jacsup_jax.data import classes
from jacsup_jax.data import registry


def _refuses(message, name, split='train', **kwargs):
  with pytest.raises(errors.InputError, match=f'^.*{message}.*$') as error:
    registry.load(name, split, **kwargs)
  return str(error.value)


def test_a_dataset_of_ones_own():
  images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1)
  data = registry.Dataset('mine', 'train', images, np.array([0, 1, 2, 1, 0]))
  assert (len(data), data.num_classes, data.image_shape) == (5, 3, (2, 2, 1))
  found, labels = data.read([4, 0])
  np.testing.assert_array_equal(found, images[[4, 0]])
  assert labels.tolist() == [0, 0]
  with pytest.raises(IndexError, match='positions -1 to 5 of 5'):
    data.read([-1, 5])


def test_fingerprints_see_values_order_and_shapes():
  images, labels = np.arange(80, dtype=np.uint8).reshape(5, 4, 4), np.arange(5)
  reshaped = images.reshape(5, 2, 8)
  others = [(images ^ 1, labels), (images, labels[::-1]), (reshaped, labels)]
  digests = {registry.digest(*pair) for pair in [(images, labels), *others]}
  assert len(digests) == 4


def test_validation_is_the_end_of_train():
  labels = np.arange(25_000) % 10
  images = labels.astype(np.uint8).reshape(-1, 1, 1, 1)
  splits = {
    split: registry.make_classes('x', split, images, labels, 10)
    for split in registry.SPLITS
  }
  sizes = [len(data) for data in splits.values()]
  assert sizes == [25_000, 15_000, 10_000, 25_000]
  rest, validation = splits['train_minus_validation'], splits['validation']
  np.testing.assert_array_equal(
    np.concatenate([rest.labels, validation.labels]), labels
  )
  assert rest.fingerprint != validation.fingerprint
  with pytest.raises(ValueError, match='read-only'):
    rest.images[0] = 0


@pytest.mark.parametrize('name', classes.LABEL_NAMES)
def test_shapes_have_all_their_labels(name, tmp_path):
  names = classes.LABEL_NAMES[name]
  features = tfds.builder(name, data_dir=tmp_path).info.features
  rng = np.random.default_rng(0)
  examples = [
    {
      key: rng.integers(0, 2, feature.shape, np.uint8)
      if key == 'image'
      else rng.integers(getattr(feature, 'num_classes', 1))
      for key, feature in features.items()
    }
    for _ in range(60)
  ]
  tiny_sets.write_prepared(tmp_path, name, {'train': examples})
  sizes = []
  for split in registry.SPLITS:
    shape = (64, 64, features['image'].shape[-1])
    data = registry.load(name, split, data_dir=tmp_path, image_shape=shape)
    sizes.append(len(data))
    assert data.label_names == names
    np.testing.assert_array_equal(
      data.labels, data.all_labels[:, names.index('shape')]
    )
    assert data.labels.max() < data.num_classes
    assert set(np.unique(data.images)) == {0, 255}
  # A sixth of all is test, then a sixth of the others validation.
  assert sizes == [50, 42, 8, 10]
  assert classes.choose_rows(737_280, 'train') == range(100_000)
  assert classes.choose_rows(737_280, 'test') == range(727_280, 737_280)


@pytest.mark.parametrize(
  ('message', 'name', 'options'),
  [
    ("'dev'.*train_minus_validation", 'mnist_embedded', {'split': 'dev'}),
    ("'minst' is unknown, did you mean mnist", 'minst', {}),
    ('is unknown', 'huggingface:mnist', {}),
    ('--dataset=mnist/x cannot be made by TFDS', 'mnist/x', {}),
    ('32x32x3', 'svhn_cropped', {'image_shape': (28, 28, 1)}),
    ('features .*accepted', 'imdb_reviews', {}),
    # Without a size of their own, whatever is asked for.
    ('anyxanyx3', 'oxford_flowers102', {}),
    ('mnist is not a set of faces', 'mnist', {'attributes': ['Male']}),
  ],
)
def test_what_does_not_fit(message, name, options, tmp_path):
  _refuses(message, name, data_dir=tmp_path, **options)
  assert not list(tmp_path.iterdir())


def test_downloads_and_other_records_need_tensorflow(
  prepared, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  folder = tmp_path / 'empty'
  folder.mkdir()
  message = 'pip install tensorflow-cpu.*train-images-idx3'
  _refuses(message, 'fashion_mnist', data_dir=folder)
  assert not list(folder.iterdir())
  (path,) = prepared.rglob('dataset_info.json')
  path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
  _refuses('not in the format array_record', 'fashion_mnist', data_dir=prepared)


def test_damaged_records(prepared):
  (path,) = prepared.rglob('*test.array_record*')
  path.write_bytes(path.read_bytes()[:100])
  message = 'is damaged .*: delete that folder'
  _refuses(message, 'fashion_mnist', 'test', data_dir=prepared)


def test_too_little_memory_is_not_damage(prepared, monkeypatch):
  def refuse(*args, **kwargs):
    raise MemoryError('Unable to allocate 44.9 MiB')

  monkeypatch.setattr(classes.np, 'empty', refuse)
  with pytest.raises(errors.RunError, match='memory .*MiB.: end other'):
    registry.load('fashion_mnist', data_dir=prepared)


def test_missing_permission_is_not_damage(prepared, monkeypatch):
  (path,) = prepared.rglob('*train.array_record*')
  path.chmod(0)
  if os.geteuid() == 0:  # Nothing is refused to root.
    access = os.access
    monkeypatch.setattr(
      os, 'access', lambda p, mode: p != path and access(p, mode)
    )
    path.write_bytes(b'')
  message = _refuses('Permission denied', 'fashion_mnist', data_dir=prepared)
  assert 'delete' not in message
