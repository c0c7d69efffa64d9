"""Tests of `registry.load` for sets of faces, and of faces.py."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_faces

from jacsup_jax.core import errors
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import images as image_files
from jacsup_jax.data import registry

REAL = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'celeba256'

# The training examples of the folder of tiny_faces.
TRAIN = [0, 1, 3, 4, 6, 8, 9, 11]


@pytest.fixture
def root(tmp_path, monkeypatch):
  """The folder of prepared sets."""
  path = tmp_path / 'prepared'
  path.mkdir()
  monkeypatch.setenv('TFDS_DATA_DIR', str(path))
  return path


@pytest.fixture
def folder(tmp_path, root):
  del root  # Prepared sets go there.
  path = tmp_path / 'faces'
  tiny_faces.write_lists(path)
  tiny_faces.write_images(path)
  return path


@pytest.fixture
def few_drawings(monkeypatch):
  monkeypatch.setattr(
      drawn_faces, 'SPLIT_SIZES', {'train': 6, 'validation': 2, 'test': 3}
  )


def _load(folder, split='train', **kwargs):
  kwargs = {'image_size': 8} | kwargs
  return registry.load('celeba_folder', split, data_dir=folder, **kwargs)


def _refuses(message, folder, split='train', *, root, **kwargs):
  """Checks the error: one line, its text, and nothing prepared."""
  with pytest.raises(errors.InputError, match=message) as error:
    _load(folder, split, **kwargs)
  assert '\n' not in str(error.value)
  assert not list(root.iterdir())


def _assert_same(first, second):
  assert first.fingerprint == second.fingerprint
  indices = np.arange(len(first))
  for found, expected in zip(first.read(indices), second.read(indices)):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# Values.


@pytest.mark.parametrize('in_memory', [True, False])
def test_a_folder_is_read_in_its_order(folder, in_memory):
  dataset = _load(folder, image_size=16, in_memory=in_memory)
  assert len(dataset) == 8
  assert dataset.attribute_names == tiny_faces.ATTRIBUTES
  images, attributes = dataset.read([7, 0, 0])
  # Rows 2 to -2 of 20x16 are the centre square.
  expected = tiny_faces.make_images()[:, 2:-2]
  np.testing.assert_array_equal(images, expected[[11, 0, 0]])
  assert attributes.dtype == np.int8
  np.testing.assert_array_equal(
      attributes, tiny_faces.make_attributes()[[11, 0, 0]]
  )
  assert (dataset.images is None) == (not in_memory)


def test_splits_are_the_partitions(folder):
  for split, positions in (
      ('train', TRAIN), ('validation', [2, 7, 10]), ('test', [5])
  ):
    np.testing.assert_array_equal(
        _load(folder, split).labels,
        tiny_faces.make_attributes()[positions],
    )


def test_attributes_in_the_order_asked_for(folder):
  dataset = _load(folder, attributes=('Smiling', 'Bald'))
  assert dataset.attribute_names == ('Smiling', 'Bald')
  np.testing.assert_array_equal(
      dataset.labels, tiny_faces.make_attributes()[TRAIN][:, [2, 0]]
  )


@pytest.mark.usefixtures('few_drawings')
@pytest.mark.parametrize('image_size', [16, 64])
def test_drawn_faces(image_size, root):
  del root
  dataset = registry.load(
      'synthetic_faces', 'test', image_size=image_size
  )
  assert dataset.attribute_names == drawn_faces.ATTRIBUTES
  assert dataset.images.shape == (3, image_size, image_size, 3)
  image, attributes = drawn_faces.draw(1, 'test')
  np.testing.assert_array_equal(dataset.labels[1], attributes)
  if image_size == 64:
    np.testing.assert_array_equal(dataset.images[1], image)


def test_real_faces(root):
  if not REAL.is_dir():
    pytest.skip(f'{REAL} does not exist')
  del root
  dataset = registry.load(
      'celeba_folder', 'validation', data_dir=REAL, image_size=16
  )
  assert dataset.images.shape == (99, 16, 16, 3)
  assert dataset.labels.shape == (99, 40)
  # The last 99 lines of its attribute file have 1 for Male in this many.
  males = dataset.labels[:, dataset.attribute_names.index('Male')]
  assert (males == 1).sum() == 45


def test_mocked_celeb_a(tmp_path):
  with tfds.testing.mock_data(num_examples=4):
    for in_memory in (True, False):
      dataset = registry.load(
          'celeb_a', 'validation', data_dir=tmp_path, image_size=16,
          attributes=('Male', 'Young'), in_memory=in_memory,
      )
      images, attributes = dataset.read(range(4))
      assert images.shape == (4, 16, 16, 3)
      assert attributes.shape == (4, 2)
      assert set(np.unique(attributes)) <= {-1, 1}
  assert not list(tmp_path.iterdir())


# Invariants.


def test_memory_and_records_hold_the_same(folder):
  for kwargs in (
      {}, {'attributes': ['Male']}, {'held_out': 3},
      {'split': 'held_out', 'held_out': 3},
  ):
    _assert_same(
        _load(folder, **kwargs), _load(folder, in_memory=False, **kwargs)
    )


def test_prepared_and_decoded_once(folder, monkeypatch):
  lines = []
  first = _load(folder, report=lines.append)
  (line,) = lines
  assert 'Preparing celeba_folder in' in line

  def refuse(*args):
    raise AssertionError('decoded again')

  monkeypatch.setattr(image_files, 'decode', refuse)
  monkeypatch.setattr(image_files, 'resize', refuse)
  _assert_same(_load(folder, report=lines.append), first)
  assert lines == [line]


def test_held_out_and_the_rest_are_train(folder):
  train = _load(folder)
  rest = _load(folder, held_out=3)
  held_out = _load(folder, 'held_out', held_out=3)
  assert (len(rest), len(held_out)) == (5, 3)
  np.testing.assert_array_equal(
      np.concatenate([rest.images, held_out.images]), train.images
  )
  np.testing.assert_array_equal(
      np.concatenate([rest.labels, held_out.labels]), train.labels
  )
  _assert_same(
      _load(folder, 'validation', held_out=3), _load(folder, 'validation')
  )


def test_fingerprints_tell_apart(folder):
  choices = (
      {}, {'split': 'validation'}, {'attributes': ['Male']},
      {'attributes': ['Male', 'Bald']}, {'attributes': ['Bald', 'Male']},
      {'held_out': 3}, {'split': 'held_out', 'held_out': 3},
      {'image_size': 16},
  )
  found = {_load(folder, **kwargs).fingerprint for kwargs in choices}
  assert len(found) == len(choices)
  assert all(len(fingerprint) == 16 for fingerprint in found)


def test_folder_and_archive_have_one_fingerprint(folder, tmp_path):
  tiny_faces.write_lists(tmp_path / 'zipped')
  tiny_faces.write_archive(tmp_path / 'zipped' / 'img_align_celeba.zip')
  _assert_same(_load(folder), _load(tmp_path / 'zipped'))


def test_folders_do_not_collide(folder, root):
  first = _load(folder)
  lists = folder / 'list_attr_celeba.txt'
  lists.write_text(lists.read_text().replace('000001.png -1', '000001.png 1'))
  lists.write_text(lists.read_text().replace('Bald', 'Bold'))
  second = _load(folder)
  assert second.attribute_names[0] == 'Bold'
  assert first.fingerprint != second.fingerprint
  assert len(list((root / 'celeba_folder').iterdir())) == 2


@pytest.mark.parametrize('in_memory', [True, False])
def test_arrays_are_read_only(folder, in_memory):
  dataset = _load(folder, in_memory=in_memory)
  with pytest.raises(ValueError, match='read-only'):
    dataset.labels[0] = 1
  if in_memory:
    with pytest.raises(ValueError, match='read-only'):
      dataset.images[0] = 1


@pytest.mark.parametrize('in_memory', [True, False])
def test_positions_that_are_not_there(folder, in_memory):
  dataset = _load(folder, in_memory=in_memory)
  assert len(dataset.read([])[0]) == 0
  for index in (-1, 8):
    with pytest.raises(IndexError, match='of 8'):
      dataset.read([0, index])


def test_a_split_that_is_not_there_costs_no_others(folder):
  partitions = folder / 'list_eval_partition.txt'
  partitions.write_text(partitions.read_text().replace(' 2\n', ' 1\n'))
  assert len(_load(folder, 'validation')) == 4
  with pytest.raises(ValueError, match="no split 'test': .* train, valid"):
    _load(folder, 'test')


# Bad input: nothing is left on disk.


@pytest.mark.parametrize(
    ('message', 'kwargs'),
    [
        ("'dev': this set has train, validation, test$", {'split': 'dev'}),
        ("'held_out': .* .held_out needs --h", {'split': 'held_out'}),
        ('--held_out=-1: accepted is 0', {'held_out': -1}),
        (
            "unknown attribute 'Smile', the nearest are Smiling",
            {'attributes': ['Smile']},
        ),
        ('names Male more than once', {'attributes': ['Male', 'Male']}),
        ('--attributes=.*: accepted are .*Bald, Male', {'attributes': []}),
        ('--image_size=12: accepted are powers', {'image_size': 12}),
        ('--image_size=32 is larger .*16x16', {'image_size': 32}),
        ('--dataset=celeba_folder needs --data_dir', {'folder': None}),
    ],
)
def test_what_is_not_there(message, kwargs, folder, root):
  _refuses(message, **{'folder': folder, 'root': root} | kwargs)


def test_all_of_train_held_out(folder):
  with pytest.raises(errors.InputError, match='nothing of 8 .* 0 to 7'):
    _load(folder, held_out=8)


@pytest.mark.parametrize('content', [b'', b'no picture'])
def test_bad_image(content, folder, root):
  (folder / 'img_align_celeba' / '000004.png').write_bytes(content)
  (folder / 'img_align_celeba' / '000011.png').write_bytes(content)
  _refuses(
      '000004.png cannot be decoded .*--skip_bad_images', folder, root=root
  )
  lines = []
  dataset = _load(folder, skip_bad_images=True, report=lines.append)
  line = "Left out: 2 images cannot be decoded: '000004.png', '000011.png'."
  assert lines[1:] == [line]
  np.testing.assert_array_equal(
      dataset.labels,
      tiny_faces.make_attributes()[[i for i in TRAIN if i != 3]],
  )
  # What was prepared without them is not taken for the whole.
  with pytest.raises(ValueError, match='2 images .*--skip_bad_images'):
    _load(folder)


def test_no_image_is_good(folder, root):
  (folder / 'img_align_celeba' / '000006.png').write_bytes(b'')
  _refuses(
      "none of the 1 images of the split 'test'", folder, root=root,
      skip_bad_images=True,
  )


@pytest.mark.usefixtures('few_drawings')
def test_folder_that_holds_other_sets(folder, root):
  _load(folder)
  shutil.move(root / 'celeba_folder', root / 'other')
  with pytest.raises(ValueError, match='does not hold synthetic_faces, it'):
    registry.load('synthetic_faces', 'train', data_dir=root)
