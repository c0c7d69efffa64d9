"""Tests of `registry.load` for sets of faces, and of faces.py."""

import functools

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_faces
import tiny_sets

from jacsup_jax.core import errors
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import faces
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared
from jacsup_jax.data import registry


@pytest.fixture
def root(tmp_path, monkeypatch):
  """The folder of prepared sets."""
  path = tmp_path / 'prepared'
  path.mkdir()
  monkeypatch.setenv('TFDS_DATA_DIR', str(path))
  return path


@pytest.fixture
def folder(tmp_path, root):
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_images(tmp_path)
  return tmp_path


def _load(folder, split='train', **kwargs):
  kwargs = {'image_size': 8} | kwargs
  return registry.load('celeba_folder', split, data_dir=folder, **kwargs)


def _refuses(message, folder, **kwargs):
  with pytest.raises(errors.InputError, match=f'^.*{message}.*$'):
    _load(folder, **kwargs)


@pytest.mark.parametrize('in_memory', [True, False])
def test_a_folder_is_read_in_its_order(folder, in_memory):
  dataset = _load(folder, image_size=16, in_memory=in_memory)
  assert (dataset.images is None) == (not in_memory)
  assert len(dataset) == 8
  assert dataset.attribute_names == tiny_faces.ATTRIBUTES
  images, attributes = dataset.read([7, 0, 0])
  # Rows 2 to -2 of 20x16 are the centre square.
  expected = tiny_faces.IMAGES[:, 2:-2]
  np.testing.assert_array_equal(images, expected[[11, 0, 0]])
  assert attributes.dtype == np.int8
  np.testing.assert_array_equal(attributes, tiny_faces.LABELS[[11, 0, 0]])
  # Published results depend on the examples and their order.
  assert dataset.fingerprint == 'ac69b5beaba1fd1c'


def test_drawn_faces(root, monkeypatch):
  sizes = {'train': 6, 'validation': 2, 'test': 3}
  monkeypatch.setattr(drawn_faces, 'SPLIT_SIZES', sizes)
  dataset = registry.load('synthetic_faces', 'test', data_dir=root)
  assert dataset.attribute_names == drawn_faces.ATTRIBUTES
  assert dataset.images.shape == (3, 64, 64, 3)
  image, attributes = drawn_faces.draw(1, 'test')
  np.testing.assert_array_equal(dataset.labels[1], attributes)
  np.testing.assert_array_equal(dataset.images[1], image)
  names = dataset.attribute_names
  black, blond = map(names.index, ('Black_Hair', 'Blond_Hair'))
  assert dataset.conflicts[black, blond] and dataset.conflicts[blond, black]
  assert not np.any(dataset.conflicts[names.index('Smiling')])


def test_larger_faces_are_drawn_and_smaller_ones_are_reduced(root, monkeypatch):
  sizes = {'train': 1, 'validation': 1, 'test': 2}
  monkeypatch.setattr(drawn_faces, 'SPLIT_SIZES', sizes)
  load = functools.partial(
    registry.load, 'synthetic_faces', 'test', data_dir=root
  )
  image, _ = drawn_faces.draw(1, 'test')
  small = image_files.resize(image_files.Image.fromarray(image), 16)
  np.testing.assert_array_equal(load(image_size=16).images[1], small)
  large, _ = drawn_faces.draw(1, 'test', 128)
  np.testing.assert_array_equal(load(image_size=128).images[1], large)
  blocks = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
  assert np.mean(np.abs(blocks - image)) < 2
  with pytest.raises(errors.InputError, match='512 .*from 8 to 256'):
    load(image_size=512)


def test_celeb_a_of_tfds(tmp_path, root):
  features = tfds.builder('celeb_a', data_dir=tmp_path).info.features
  rng = np.random.default_rng(0)
  examples = [
    {
      'image': rng.integers(0, 256, (218, 178, 3), np.uint8),
      'attributes': {n: bool(rng.integers(2)) for n in features['attributes']},
      'landmarks': dict.fromkeys(features['landmarks'], 0),
      'identity': {'Identity_No': 0},
    }
    for _ in range(4)
  ]
  splits = dict.fromkeys(('train', 'validation', 'test'), examples)
  tiny_sets.write_prepared(tmp_path, 'celeb_a', splits)
  names = ('Young', 'Male')
  dataset = registry.load(
    'celeb_a', 'validation', data_dir=tmp_path, image_size=16, attributes=names
  )
  found = {
    (image.tobytes(), *(label > 0 for label in labels))
    for image, labels in zip(dataset.images, dataset.labels)
  }
  expected = set()
  for example in examples:
    image = image_files.Image.fromarray(example['image'])
    labels = (example['attributes'][name] for name in names)
    expected.add((image_files.resize(image, 16).tobytes(), *labels))
  assert found == expected  # TFDS has shuffled them.


def test_held_out_and_the_rest_are_train_which_is_prepared_once(
  folder, monkeypatch
):
  lines = []
  train = _load(folder, report=lines.append)
  assert len(lines) == 1 and 'Preparing' in lines[0]
  monkeypatch.setattr(image_files, 'decode', None)
  rest = _load(folder, held_out=3)
  held_out = _load(folder, 'held_out', held_out=3)
  assert (len(rest), len(held_out)) == (5, 3)
  for name in ('images', 'labels'):
    parts = [getattr(rest, name), getattr(held_out, name)]
    np.testing.assert_array_equal(np.concatenate(parts), getattr(train, name))


def test_fingerprints_tell_apart(folder):
  choices = (
    {},
    {'split': 'validation'},
    {'attributes': ['Male', 'Bald']},
    {'attributes': ['Bald', 'Male']},
    {'held_out': 3},
    {'split': 'held_out', 'held_out': 3},
    {'image_size': 16},
  )
  found = {_load(folder, **kwargs).fingerprint for kwargs in choices}
  assert len(found) == len(choices)


@pytest.mark.parametrize(
  ('message', 'kwargs'),
  [
    ("'held_out' with --held_out=0", {'split': 'held_out'}),
    ('--held_out=8 of 8', {'held_out': 8}),
    ('--attributes=Smile;.*Bald, Male, Smiling', {'attributes': ['Smile']}),
    ('each once', {'attributes': ['Male', 'Male']}),
    ('--image_size=32 is larger .*16x16', {'image_size': 32}),
  ],
)
def test_what_is_not_there(message, kwargs, folder):
  _refuses(message, folder, **kwargs)


def test_bad_images(folder, root):
  for name in ('000004.png', '000011.png'):
    (folder / 'img_align_celeba' / name).write_bytes(b'no picture')
  _refuses('000004.png cannot be decoded .*--skip_bad_images', folder)
  assert not list((root / 'celeba_folder').iterdir())
  lines = []
  dataset = _load(folder, skip_bad_images=True, report=lines.append)
  assert lines[1] == "Left out 1 images: '000004.png'."
  rows = [row for row in tiny_faces.TRAIN if row != 3]
  np.testing.assert_array_equal(dataset.labels, tiny_faces.LABELS[rows])
  # What was prepared without them is not taken for the whole.
  _refuses('000004.png .*--skip_bad_images', folder)


def test_missing_images(folder):
  for name in ('000004.png', '000011.png'):
    (folder / 'img_align_celeba' / name).unlink()
  _refuses('lacks 2 of 12 .*--skip_missing_images', folder)
  lines = []
  dataset = _load(folder, skip_missing_images=True, report=lines.append)
  line = 'Left out 2 pictures that are missing'
  assert lines[0] == f"{line}: '000004.png', '000011.png'."
  rows = [row for row in tiny_faces.TRAIN if row != 3]
  np.testing.assert_array_equal(dataset.labels, tiny_faces.LABELS[rows])


@pytest.mark.parametrize(
  'error',
  [
    ImportError('No module named tensorflow'),
    tfds.download.DownloadError('Quota exceeded'),
    OSError(28, 'No space left on device'),
  ],
)
def test_a_download_that_fails_names_a_folder_of_ones_own(
  root, monkeypatch, error
):
  def refuse(*args, **kwargs):
    raise error

  monkeypatch.setattr(prepared.importlib, 'import_module', lambda name: None)
  builder = tfds.builder_cls('celeb_a')
  monkeypatch.setattr(builder, 'download_and_prepare', refuse)
  message = 'celeb_a cannot be prepared .*--dataset=celeba_folder'
  with pytest.raises(errors.InputError, match=message):
    faces.load(
      *('celeb_a', 'train', root, 64, None, True, (False, False), 0),
      report=lambda line: None,
    )


def test_a_damaged_set_is_named(folder, root):
  _load(folder)
  (path,) = root.rglob('train_images')
  path.write_bytes(path.read_bytes()[:100])
  _refuses(f'{path.parent} is damaged .*delete that folder', folder)
