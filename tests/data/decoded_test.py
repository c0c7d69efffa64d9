"""Tests of jacsup_jax.data.decoded."""

import numpy as np
import pytest

from jacsup_jax.data import dataset
from jacsup_jax.data import decoded


class Prepared:
  """A builder of a set that is prepared in a folder."""

  def __init__(self, directory):
    self.data_dir = directory

  def is_prepared(self):
    return True


class Maker:
  """Decodes a small split, and counts how often."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4, 1)
    return images, np.arange(5, dtype=np.int32)


@pytest.fixture
def directory(tmp_path):
  (tmp_path / 'dataset_info.json').write_text('{"version": "1.0.0"}')
  (tmp_path / 'set-train.array_record-00000-of-00001').write_bytes(b'record')
  return tmp_path


def _load(directory, make):
  return decoded.load_or_make(Prepared(directory), 'train', make)


def _assert_good(arrays):
  for found, expected in zip(arrays, Maker()()):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# Invariants.


def test_second_time_is_read(directory):
  make = Maker()
  _assert_good(_load(directory, make))
  _assert_good(_load(directory, make))
  assert make.calls == 1
  assert sorted(path.name for path in directory.glob('*.npz')) == [
      'decoded_train.npz'
  ]
  assert not list(directory.glob('.decoding-*'))


@pytest.mark.parametrize(
    'name', ['dataset_info.json', 'set-train.array_record-00000-of-00001']
)
def test_another_prepared_set_is_decoded_again(directory, name):
  make = Maker()
  _load(directory, make)
  with (directory / name).open('ab') as file:
    file.write(b' ')
  _load(directory, make)
  assert make.calls == 2


def test_a_set_without_a_folder_is_decoded_each_time(tmp_path, monkeypatch):
  monkeypatch.setattr(Prepared, 'is_prepared', lambda self: False)
  make = Maker()
  for _ in range(2):
    _assert_good(_load(tmp_path, make))
  assert make.calls == 2 and not list(tmp_path.iterdir())


def test_digest_sees_values_and_shapes():
  images, labels = Maker()()
  digests = {dataset.digest(images, labels)}
  other = images.copy()
  other[0, 0, 0, 0] ^= 1
  digests.add(dataset.digest(other, labels))
  digests.add(dataset.digest(images, labels[::-1]))
  digests.add(dataset.digest(images.reshape(5, 2, 8, 1), labels))
  assert len(digests) == 4


# Bad input: damaged files are never trusted.


def _save(directory, **changes):
  images, labels = Maker()()
  content = {
      'images': images,
      'labels': labels,
      'key': decoded.compute_key(directory),
      'digest': dataset.digest(images, labels),
  } | changes
  np.savez(directory / 'decoded_train.npz', **content)


@pytest.mark.parametrize(
    'changes',
    [
        {'images': np.zeros((5, 4, 4, 1), np.uint8)},
        {'labels': np.array([{}], object)},
        {'key': 'another'},
        {'digest': np.zeros(3)},
        b'',
        b'not an archive',
    ],
    ids=['images', 'pickle', 'key', 'digest', 'empty', 'text'],
)
def test_a_file_with_wrong_content_is_made_again(directory, changes):
  _save(directory)
  make = Maker()
  _load(directory, make)
  assert make.calls == 0
  if isinstance(changes, bytes):
    (directory / 'decoded_train.npz').write_bytes(changes)
  else:
    _save(directory, **changes)
  _assert_good(_load(directory, make))
  assert make.calls == 1


def test_a_folder_that_cannot_be_written_to_costs_only_time(
    directory, monkeypatch
):
  def refuse(**kwargs):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(decoded.tempfile, 'mkstemp', refuse)
  make = Maker()
  _assert_good(_load(directory, make))
  _assert_good(_load(directory, make))
  assert make.calls == 2
