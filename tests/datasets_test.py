"""Tests of jacsup_jax.data.load, and of sources.py and preparing.py.

MNIST is prepared once for this module. Nothing here reaches the network or
needs TensorFlow.
"""

import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jacsup_jax.data import idx
from jacsup_jax.data import preparing
from jacsup_jax.data import registry as datasets
from jacsup_jax.data.mnist_embedded import mnist_embedded_dataset_builder

ROOT = pathlib.Path(__file__).parents[1]
FASHION = ROOT.parent / 'shared' / 'data' / 'fashion_mnist'


@pytest.fixture(scope='module')
def mnist_dir(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp('data')
  datasets.load('mnist_embedded', 'test', data_dir=data_dir)
  return data_dir


@pytest.fixture
def fashion_dir(tmp_path, monkeypatch):
  """A folder with four small files under the names of Fashion-MNIST's."""
  checksums = {}
  for split, size in (('train', 60), ('test', 12)):
    images = np.random.default_rng(size).integers(
        0, 256, (size, 28, 28), np.uint8
    )
    labels = np.arange(size, dtype=np.uint8) % 10
    for name, array in zip(idx.FILES[split], (images, labels)):
      header = bytes((0, 0, 8, array.ndim))
      header += np.array(array.shape, '>u4').tobytes()
      content = gzip.compress(header + array.tobytes())
      (tmp_path / name).write_bytes(content)
      checksums[name] = hashlib.sha256(content).hexdigest()
  monkeypatch.setattr(
      preparing, '_original_checksums', lambda builder: checksums
  )
  return tmp_path


@pytest.fixture
def no_tensorflow(monkeypatch):
  class Refuse:

    def find_spec(self, name, path=None, target=None):
      del path, target
      if name == 'tensorflow':
        raise ModuleNotFoundError("No module named 'tensorflow'")

  monkeypatch.setattr(sys, 'meta_path', [Refuse(), *sys.meta_path])
  for name in list(sys.modules):
    if name.partition('.')[0] == 'tensorflow':
      monkeypatch.delitem(sys.modules, name)


def _files(folder):
  return {
      path.relative_to(folder): path.is_file() and path.read_bytes()
      for path in folder.rglob('*')
  }


def _refuses(message, name, split='train', *, data_dir):
  """Checks the error: one line, its text, and a folder left as it was."""
  before = _files(data_dir) if data_dir.is_dir() else None
  with pytest.raises(ValueError, match=message) as error:
    datasets.load(name, split, data_dir=data_dir)
  assert '\n' not in str(error.value)
  assert (_files(data_dir) if data_dir.is_dir() else None) == before


# Values.


def test_mnist_values(mnist_dir):
  train = datasets.load('mnist_embedded', 'train', data_dir=mnist_dir)
  test = datasets.load('mnist_embedded', 'test', data_dir=mnist_dir)
  assert train.images.shape == (60_000, 28, 28, 1)
  assert test.images.shape == (10_000, 28, 28, 1)
  for split in (train, test):
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int32
    assert split.labels.shape == split.images.shape[:1]
    assert split.num_classes == 10
  # The first labels, as in every printed sample of the files.
  assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
  assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
  # The published numbers of each digit.
  assert np.bincount(train.labels).tolist() == [
      5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
  ]
  assert np.bincount(test.labels).tolist() == [
      980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
  ]
  # The mean and deviation that PyTorch's example normalises with, to the four
  # decimals given there.
  assert round(float(train.images.mean()) / 255, 4) == 0.1307
  assert round(float(train.images.std()) / 255, 4) == 0.3081


def test_mnist_pixels_are_those_of_the_files(mnist_dir):
  test = datasets.load('mnist_embedded', 'test', data_dir=mnist_dir)
  path = mnist_embedded_dataset_builder.SOURCE_DIR / idx.FILES['test'][0]
  content = gzip.decompress(path.read_bytes())
  assert test.images.tobytes() == content[16:]  # 16 bytes of header.


def test_tfds_reads_the_prepared_set(mnist_dir):
  builder = tfds.builder('mnist_embedded', data_dir=mnist_dir)
  assert builder.info.full_name == 'mnist_embedded/1.0.0'
  assert builder.info.splits['train'].num_examples == 60_000


# Invariants.


def test_validation_and_the_rest_are_train(mnist_dir):
  train, rest, validation = (
      datasets.load('mnist_embedded', split, data_dir=mnist_dir)
      for split in ('train', 'train_minus_validation', 'validation')
  )
  assert len(validation.labels) == datasets.VALIDATION_SIZE == 10_000
  np.testing.assert_array_equal(
      np.concatenate([rest.images, validation.images]), train.images
  )
  np.testing.assert_array_equal(
      np.concatenate([rest.labels, validation.labels]), train.labels
  )


def test_validation_shares_no_image_with_the_rest(mnist_dir):
  rest, validation = (
      {
          image.tobytes()
          for image in datasets.load(
              'mnist_embedded', split, data_dir=mnist_dir
          ).images
      }
      for split in ('train_minus_validation', 'validation')
  )
  assert not rest & validation


def test_fingerprints(mnist_dir):
  prints = {}
  for split in datasets.SPLITS:
    first, again = (
        datasets.load('mnist_embedded', split, data_dir=mnist_dir)
        for _ in range(2)
    )
    assert first.fingerprint == again.fingerprint
    assert len(first.fingerprint) == 16
    prints[split] = first.fingerprint
  assert len(set(prints.values())) == len(datasets.SPLITS)


def test_arrays_are_read_only(mnist_dir):
  validation = datasets.load('mnist_embedded', 'validation', data_dir=mnist_dir)
  with pytest.raises(ValueError, match='read-only'):
    validation.images[0] = 0
  with pytest.raises(ValueError, match='read-only'):
    validation.labels[0] = 0


def test_another_folder_and_the_environment_in_silence(mnist_dir, tmp_path):
  program = (
      'from jacsup_jax import datasets;'
      'assert datasets.load("mnist_embedded", "test").labels[0] == 7'
  )
  environment = os.environ | {
      'PYTHONPATH': os.fspath(ROOT),
      'TFDS_DATA_DIR': os.fspath(mnist_dir),
  }
  result = subprocess.run(
      [sys.executable, '-c', program],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      check=False,
      text=True,
  )
  assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
@pytest.mark.usefixtures('no_tensorflow')
def test_mocked_sets_are_read_without_tensorflow(name, tmp_path):
  with tfds.testing.mock_data(num_examples=60):
    sizes = {}
    for split in datasets.SPLITS:
      dataset = datasets.load(name, split, data_dir=tmp_path)
      assert dataset.images.shape[1:] == (28, 28, 1)
      assert dataset.labels.max() < dataset.num_classes == 10
      sizes[split] = len(dataset.images)
  # A small set gives its last sixth as validation.
  assert sizes == {
      'train': 60, 'train_minus_validation': 50, 'validation': 10, 'test': 60
  }
  assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures('no_tensorflow')
def test_mocked_colour_images_are_read_where_asked_for(tmp_path):
  with tfds.testing.mock_data(num_examples=12):
    for shape in ((32, 32, 3), None):
      dataset = datasets.load(
          'svhn_cropped', 'train', data_dir=tmp_path, image_shape=shape
      )
      assert dataset.images.shape == (12, 32, 32, 3)
      assert dataset.num_classes == 10


@pytest.mark.parametrize('place', ['.', 'fashion_mnist', 'downloads/manual'])
@pytest.mark.usefixtures('no_tensorflow')
def test_original_files_are_prepared_without_tensorflow(
    fashion_dir, place, tmp_path_factory
):
  data_dir = tmp_path_factory.mktemp('data')
  shutil.copytree(fashion_dir, data_dir / place, dirs_exist_ok=True)
  test = datasets.load('fashion_mnist', 'test', data_dir=data_dir)
  # TFDS shuffles the order, so compare as sets.
  images = idx.read(fashion_dir / idx.FILES['test'][0])
  labels = idx.read(fashion_dir / idx.FILES['test'][1])
  expected = {(image.tobytes(), label) for image, label in zip(images, labels)}
  assert expected == {
      (image.tobytes(), label)
      for image, label in zip(test.images, test.labels)
  }
  assert not list(data_dir.glob('.*'))
  # Prepared now: the files are needed no more.
  for file in idx.FILE_NAMES:
    (data_dir / place / file).unlink()
  again = datasets.load('fashion_mnist', 'test', data_dir=data_dir)
  assert again.fingerprint == test.fingerprint


def test_the_first_of_two_processes_wins(fashion_dir, monkeypatch):
  move = preparing._move

  def move_late(builder, staging, root):
    shutil.copytree(
        builder.data_dir, root / 'fashion_mnist' / str(builder.version)
    )
    winners.update(_files(root / 'fashion_mnist'))
    move(builder, staging, root)

  winners = {}
  monkeypatch.setattr(preparing, '_move', move_late)
  datasets.load('fashion_mnist', 'test', data_dir=fashion_dir)
  files = _files(fashion_dir / 'fashion_mnist')
  assert {path: files[path] for path in winners} == winners
  assert not list(fashion_dir.glob('.*'))


def test_a_default_folder_is_made(fashion_dir, monkeypatch):
  data_dir = fashion_dir / 'a' / 'b'
  monkeypatch.setenv('TFDS_DATA_DIR', os.fspath(data_dir))
  monkeypatch.setattr(
      preparing, '_find_originals', lambda name, root: fashion_dir
  )
  datasets.load('fashion_mnist', 'test')
  assert [path.name for path in data_dir.iterdir()] == ['fashion_mnist']


@pytest.mark.slow
def test_real_fashion_mnist(tmp_path):
  if not FASHION.is_dir():
    pytest.skip(f'{FASHION} is not there')
  shutil.copytree(FASHION, tmp_path, dirs_exist_ok=True)
  train = datasets.load('fashion_mnist', 'train', data_dir=tmp_path)
  # Fashion-MNIST has 6,000 of each class.
  assert np.bincount(train.labels).tolist() == [6_000] * 10
  # The published mean and deviation of its pixels.
  assert round(float(train.images.mean()) / 255, 4) == 0.2860
  assert round(float(train.images.std()) / 255, 4) == 0.3530


# Bad input.


def test_unknown_split(tmp_path):
  _refuses(
      "'dev'.*train, train_minus_validation, validation, test",
      'mnist_embedded', 'dev', data_dir=tmp_path,
  )


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [
        ('minst', 'mnist'),
        ('mnist_embeded', 'mnist_embedded'),
        ('fashion-mnist', 'fashion_mnist'),
        ('cifra10', 'cifar10'),
    ],
)
def test_unknown_set(name, nearest, tmp_path):
  _refuses(
      f"'{name}' is unknown, did you mean {nearest}.*mnist_embedded, mnist,"
      ' fashion_mnist, kmnist',
      name, data_dir=tmp_path,
  )


@pytest.mark.parametrize('name', ['', '../mnist', 'huggingface:mnist', 'a\nb'])
def test_names_that_are_none(name, tmp_path):
  _refuses('is unknown', name, data_dir=tmp_path)


def test_other_image_shapes(tmp_path):
  _refuses('32x32x3: accepted are 28x28x1', 'svhn_cropped', data_dir=tmp_path)
  _refuses('features .*accepted', 'imdb_reviews', data_dir=tmp_path)
  with pytest.raises(ValueError, match='28x28x1: accepted are 32x32x3'):
    datasets.load(
        'mnist', 'test', data_dir=tmp_path, image_shape=(32, 32, 3)
    )
  # Without a size of their own, whatever is asked for.
  with pytest.raises(ValueError, match='anyxanyx3: accepted are images of one'):
    datasets.load(
        'oxford_flowers102', 'test', data_dir=tmp_path, image_shape=None
    )


def test_missing_folder(tmp_path):
  _refuses('--data_dir=.*none is not', 'mnist', data_dir=tmp_path / 'none')
  (tmp_path / 'file').touch()
  _refuses('--data_dir=.*file is not', 'mnist', data_dir=tmp_path / 'file')


def test_folder_that_holds_other_sets(fashion_dir):
  datasets.load('fashion_mnist', 'test', data_dir=fashion_dir)
  for file in idx.FILE_NAMES:
    (fashion_dir / file).unlink()
  for name in ('mnist_embedded', 'mnist', 'kmnist'):
    _refuses(
        f'does not hold {name}, it holds fashion_mnist/3.0.1: choose',
        name, data_dir=fashion_dir,
    )


def test_unwritable_folder(tmp_path, monkeypatch):
  make = tempfile.mkdtemp

  def refuse(*args, dir=None, **kwargs):
    if dir is None:
      return make(*args, **kwargs)
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(preparing.tempfile, 'mkdtemp', refuse)
  _refuses(
      '--data_dir=.* cannot be written to .Permission denied.',
      'mnist_embedded', data_dir=tmp_path,
  )


@pytest.mark.usefixtures('no_tensorflow')
def test_no_tensorflow(tmp_path, capsys):
  _refuses(
      'pip install tensorflow-cpu .*downloads/manual: train-images-idx3',
      'fashion_mnist', data_dir=tmp_path,
  )
  assert capsys.readouterr() == ('', '')


def test_no_network(tmp_path, monkeypatch):
  def refuse(*args):
    raise ConnectionError('no\nroute')

  monkeypatch.setattr(
      preparing, '_before_downloads', lambda builder: builder._split_generators
  )
  monkeypatch.setattr(
      tfds.download.DownloadManager, 'download_and_extract', refuse
  )
  _refuses(
      'ConnectionError: no route; or put .*downloads/manual: train-images-idx3',
      'kmnist', data_dir=tmp_path,
  )


def test_no_answer(tmp_path, monkeypatch):
  def refuse(url, *, timeout, **kwargs):
    assert timeout <= 10
    raise preparing.requests.ConnectTimeout(url)

  monkeypatch.setattr(
      preparing.importlib, 'import_module', lambda name: None
  )
  monkeypatch.setattr(preparing.requests, 'head', refuse)
  _refuses(
      'ConnectionError: https?://[^/]*/ does not answer; or put', 'kmnist',
      data_dir=tmp_path,
  )


def _cut(content):
  return content[:-100]


def _flip(content):
  return content[:1000] + bytes((content[1000] ^ 1,)) + content[1001:]


@pytest.mark.parametrize('file', idx.FILE_NAMES)
@pytest.mark.parametrize('damage', [_cut, _flip])
def test_damaged_embedded_file(file, damage, tmp_path, monkeypatch):
  source_dir, data_dir = tmp_path / 'source', tmp_path / 'data'
  source_dir.mkdir()
  data_dir.mkdir()
  for name in idx.FILE_NAMES:
    shutil.copy(mnist_embedded_dataset_builder.SOURCE_DIR / name, source_dir)
  content = damage((source_dir / file).read_bytes())
  (source_dir / file).write_bytes(content)
  expected = mnist_embedded_dataset_builder.SHA256[file]
  found = hashlib.sha256(content).hexdigest()
  message = f'{file} is damaged .*{expected}, found {found}'

  builder = mnist_embedded_dataset_builder.Builder(
      source_dir=source_dir, data_dir=data_dir
  )
  with pytest.raises(ValueError, match=message):
    builder.download_and_prepare(file_format='array_record')
  shutil.rmtree(data_dir)

  data_dir.mkdir()
  monkeypatch.setattr(mnist_embedded_dataset_builder, 'SOURCE_DIR', source_dir)
  _refuses(message, 'mnist_embedded', data_dir=data_dir)


def test_damaged_original_file(fashion_dir):
  path = fashion_dir / idx.FILES['test'][0]
  path.write_bytes(_flip(path.read_bytes()))
  _refuses(
      f'{path.name} is damaged .*expected sha256',
      'fashion_mnist', data_dir=fashion_dir,
  )


def test_originals_of_another_set(fashion_dir, monkeypatch):
  monkeypatch.undo()  # The real checksums again.
  _refuses('not the original file', 'kmnist', data_dir=fashion_dir)


def test_damaged_records(fashion_dir):
  datasets.load('fashion_mnist', 'test', data_dir=fashion_dir)
  directory = fashion_dir / 'fashion_mnist' / '3.0.1'
  (path,) = directory.glob('*test.array_record*')
  path.write_bytes(path.read_bytes()[:100])
  _refuses(
      f'{directory} cannot be read .*delete', 'fashion_mnist', 'test',
      data_dir=fashion_dir,
  )


def test_records_that_need_tensorflow(fashion_dir):
  datasets.load('fashion_mnist', 'test', data_dir=fashion_dir)
  path = fashion_dir / 'fashion_mnist' / '3.0.1' / 'dataset_info.json'
  path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
  _refuses(
      'as tfrecord, accepted is array_record', 'fashion_mnist', 'test',
      data_dir=fashion_dir,
  )


def test_set_without_the_split(fashion_dir, monkeypatch):
  monkeypatch.setattr(idx, 'FILES', {'train': idx.FILES['train']})
  train = datasets.load('fashion_mnist', 'train', data_dir=fashion_dir)
  assert len(train.labels) == 60
  _refuses(
      "no split 'test': it has train", 'fashion_mnist', 'test',
      data_dir=fashion_dir,
  )
