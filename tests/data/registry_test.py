"""Tests of `registry.load` for sets of classes, and of prepared.py.

Nothing here reaches the network or needs TensorFlow: sets are mocked, or
prepared from small files under the names of Fashion-MNIST's.
"""

import errno
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
import requests
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import classes
from jacsup_jax.data import dataset as dataset_lib
from jacsup_jax.data import mnist
from jacsup_jax.data import prepared
from jacsup_jax.data import registry

ROOT = pathlib.Path(__file__).parents[2]


def write_originals(folder):
  """Writes four small files in the format of MNIST's; returns their sha256."""
  folder.mkdir(parents=True, exist_ok=True)
  checksums = {}
  for split, size in (('train', 60), ('test', 12)):
    rng = np.random.default_rng(size)
    images = rng.integers(0, 256, (size, 28, 28), np.uint8)
    labels = np.arange(size, dtype=np.uint8) % 10
    for name, array in zip(mnist.FILES[split], (images, labels)):
      header = bytes((0, 0, 8, array.ndim))
      header += np.array(array.shape, '>u4').tobytes()
      content = gzip.compress(header + array.tobytes())
      (folder / name).write_bytes(content)
      checksums[name] = hashlib.sha256(content).hexdigest()
  return checksums


@pytest.fixture
def originals(tmp_path, monkeypatch):
  """A data folder with four small files, which count as the original ones."""
  checksums = write_originals(tmp_path)
  infos = {
      f'http://localhost/{name}': tfds.download.checksums.UrlInfo(
          size=1, checksum=checksum, filename=name
      )
      for name, checksum in checksums.items()
  }
  builder = tfds.builder_cls('fashion_mnist')
  monkeypatch.setattr(builder, 'url_infos', infos)
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


def list_files(folder):
  return {
      path.relative_to(folder): path.is_file() and path.read_bytes()
      for path in folder.rglob('*')
  }


def load(name, split='train', **kwargs):
  return registry.load(name, split, report=lambda line: None, **kwargs)


def refuses(message, name, split='train', *, data_dir, **kwargs):
  """Checks the error: one line, its text, and a folder left as it was."""
  before = list_files(data_dir)
  with pytest.raises(errors.InputError, match=message) as error:
    load(name, split, data_dir=data_dir, **kwargs)
  assert '\n' not in str(error.value)
  assert list_files(data_dir) == before


# Values.


def test_mnist_in_its_order():
  # The folder of TFDS, which other tests share.
  test = load('mnist_embedded', 'test')
  assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
  images = mnist.read(mnist.SOURCE_DIR / mnist.FILES['test'][0])
  np.testing.assert_array_equal(test.images[..., 0], images)
  assert (test.images.dtype, test.labels.dtype) == (np.uint8, np.int32)
  assert test.num_classes == 10 and test.image_shape == (28, 28, 1)
  # Published results depend on the order of examples.
  assert test.fingerprint == 'd993106a3f911be6'


def test_a_dataset_of_ones_own():
  images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1)
  data = registry.Dataset('mine', 'train', images, np.array([0, 1, 2, 1, 0]))
  assert (len(data), data.num_classes, data.image_shape) == (5, 3, (2, 2, 1))
  assert len(data.fingerprint) == 16
  found, labels = data.read([4, 0])
  np.testing.assert_array_equal(found, images[[4, 0]])
  assert labels.tolist() == [0, 0]
  with pytest.raises(IndexError, match='positions -1 to 5 of 5'):
    data.read([-1, 5])


def test_validation_is_the_end_of_train():
  labels = np.arange(25_000) % 10
  images = labels.astype(np.uint8).reshape(-1, 1, 1, 1)
  sizes = {
      split: len(dataset_lib.make_classes('x', split, images, labels, 10))
      for split in registry.SPLITS
  }
  assert sizes == {
      'train': 25_000, 'train_minus_validation': 15_000, 'validation': 10_000,
      'test': 25_000,
  }  # pyformat: disable
  rest, validation = (
      dataset_lib.make_classes('x', split, images, labels, 10)
      for split in ('train_minus_validation', 'validation')
  )
  np.testing.assert_array_equal(
      np.concatenate([rest.labels, validation.labels]), labels
  )
  assert rest.fingerprint != validation.fingerprint
  for array in (rest.images, rest.labels):
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 0


@pytest.mark.parametrize(
    ('name', 'shape'), [('mnist', (28, 28, 1)), ('svhn_cropped', (32, 32, 3))]
)
@pytest.mark.usefixtures('no_tensorflow')
def test_mocked_sets_are_read_without_tensorflow(name, shape, tmp_path):
  with tfds.testing.mock_data(num_examples=60):
    sizes = {}
    for split in registry.SPLITS:
      data = load(name, split, data_dir=tmp_path, image_shape=shape)
      assert data.image_shape == shape
      assert data.labels.max() < data.num_classes == 10
      assert data.all_labels is None and data.label_names == ()
      sizes[split] = len(data)
  # A small set gives its last sixth as validation.
  assert sizes == {
      'train': 60, 'train_minus_validation': 50, 'validation': 10, 'test': 60
  }
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', classes.LABEL_NAMES)
def test_shapes_have_all_their_labels(name, tmp_path):
  names = classes.LABEL_NAMES[name]
  features = tfds.builder(name, data_dir=tmp_path).info.features
  assert {f'label_{label}' for label in names} == {
      feature for feature in features if feature.startswith('label_')
  }
  with tfds.testing.mock_data(num_examples=60):
    sizes = {}
    for split in registry.SPLITS:
      data = load(
          name, split, data_dir=tmp_path,
          image_shape=registry.IMAGE_SHAPES[name],
      )  # pyformat: disable
      sizes[split] = len(data)
      assert data.label_names == names
      assert data.all_labels.shape == (len(data), len(names))
      np.testing.assert_array_equal(
          data.labels, data.all_labels[:, names.index('shape')]
      )
      assert data.labels.max() < data.num_classes
  # A sixth of all is test, then a sixth of the others validation.
  assert sizes == {
      'train': 50, 'train_minus_validation': 42, 'validation': 8, 'test': 10
  }


def test_parts_of_large_and_small_sets_of_shapes():
  assert classes.choose_rows(737_280, 'train') == range(100_000)
  assert classes.choose_rows(737_280, 'test') == range(727_280, 737_280)
  assert classes.choose_rows(20_000, 'train') == range(10_000)
  assert classes.choose_rows(12, 'test') == range(10, 12)


# Preparing.


@pytest.mark.parametrize('place', ['.', 'fashion_mnist', 'downloads/manual'])
@pytest.mark.usefixtures('no_tensorflow')
def test_original_files_are_prepared_without_tensorflow(
    originals, place, tmp_path_factory, capfd
):
  data_dir = tmp_path_factory.mktemp('data')
  shutil.copytree(originals, data_dir / place, dirs_exist_ok=True)
  lines = []
  test = registry.load(
      'fashion_mnist', 'test', data_dir=data_dir, report=lines.append
  )
  assert lines == [
      f'Preparing fashion_mnist in {data_dir}, once: about half a minute.'
  ]
  # TFDS shuffles the order, so compare as sets.
  images, labels = (
      mnist.read(originals / name) for name in mnist.FILES['test']
  )
  expected = {(image.tobytes(), label) for image, label in zip(images, labels)}
  assert expected == {
      (image.tobytes(), label)
      for image, label in zip(test.images, test.labels)
  }
  assert not list(data_dir.glob('.*'))
  # Prepared now: the files are not needed any more.
  for file in mnist.FILE_NAMES:
    (data_dir / place / file).unlink()
  again = load('fashion_mnist', 'test', data_dir=data_dir)
  assert again.fingerprint == test.fingerprint
  # Neither TFDS's lines nor its progress bars are shown.
  assert capfd.readouterr() == ('', '')


def test_a_server_thread_may_prepare_data(originals, monkeypatch):
  # Another thread's prints would be lost if standard output were swapped.
  stdout, found = sys.stdout, []
  make = mnist.generate_examples

  def watch(folder, split):
    found.append(sys.stdout is stdout)
    return make(folder, split)

  monkeypatch.setattr(mnist, 'generate_examples', watch)
  load('fashion_mnist', 'test', data_dir=originals)
  assert found == [True, True]


def test_the_first_of_two_processes_wins(originals, monkeypatch):
  move, winners = prepared._move, {}

  def move_late(builder, staging, root):
    shutil.copytree(
        builder.data_dir, root / 'fashion_mnist' / str(builder.version)
    )
    winners.update(list_files(root / 'fashion_mnist'))
    move(builder, staging, root)

  monkeypatch.setattr(prepared, '_move', move_late)
  load('fashion_mnist', 'test', data_dir=originals)
  found = list_files(originals / 'fashion_mnist')
  assert {path: found[path] for path in winners} == winners
  assert not list(originals.glob('.*'))


def test_importing_the_registry_is_cheap():
  program = (
      'import sys, jacsup_jax.data.registry;'
      'heavy = {"tensorflow_datasets", "sklearn", "PIL", "scipy"};'
      'print(heavy & set(sys.modules))'
  )
  result = subprocess.run(
      [sys.executable, '-c', program], env=os.environ | {'PYTHONPATH': ROOT},
      capture_output=True, check=True, text=True,
  )  # pyformat: disable
  assert result.stdout == 'set()\n'


# Bad input.


@pytest.mark.parametrize(
    ('message', 'name', 'options'),
    [
        (
            "'dev'.*train, train_minus_validation, validation, test",
            'mnist_embedded', {'split': 'dev'},
        ),
        ("'minst' is unknown, did you mean mnist.*mnist_embedded", 'minst', {}),
        ("'cifra10' is unknown, did you mean cifar10", 'cifra10', {}),
        ('is unknown', '', {}),
        ('is unknown', '../mnist', {}),
        ('is unknown', 'huggingface:mnist', {}),
        ('is unknown', 'a\nb', {}),
        ('--dataset=mnist/x cannot be made by TFDS', 'mnist/x', {}),
        (
            '32x32x3: accepted are 28x28x1', 'svhn_cropped',
            {'image_shape': (28, 28, 1)},
        ),
        ('features .*accepted', 'imdb_reviews', {}),
        # Without a size of their own, whatever is asked for.
        ('anyxanyx3: accepted are images of one', 'oxford_flowers102', {}),
        ('mnist is not a set of faces', 'mnist', {'attributes': ['Male']}),
    ],
)  # pyformat: disable
def test_what_does_not_fit(message, name, options, tmp_path):
  refuses(message, name, data_dir=tmp_path, **options)


def test_missing_folder(tmp_path):
  (tmp_path / 'file').touch()
  for name in ('none', 'file'):
    with pytest.raises(errors.InputError, match=f'--data_dir=.*{name} is not'):
      load('mnist', data_dir=tmp_path / name)


def test_folder_that_holds_other_sets(originals):
  load('fashion_mnist', 'test', data_dir=originals)
  for file in mnist.FILE_NAMES:
    (originals / file).unlink()
  refuses(
      'does not hold kmnist, it holds fashion_mnist/3.0.1: choose', 'kmnist',
      data_dir=originals,
  )  # pyformat: disable


def test_unwritable_folder(tmp_path, monkeypatch):
  make = tempfile.mkdtemp

  def refuse(*args, dir=None, **kwargs):
    if dir is None:
      return make(*args, **kwargs)
    raise PermissionError(errno.EACCES, 'Permission denied')

  monkeypatch.setattr(prepared.tempfile, 'mkdtemp', refuse)
  refuses(
      '--data_dir=.* cannot be written to .Permission denied.',
      'mnist_embedded', data_dir=tmp_path,
  )  # pyformat: disable


@pytest.mark.usefixtures('no_tensorflow')
def test_no_tensorflow(tmp_path):
  refuses(
      'pip install tensorflow-cpu .*downloads/manual: train-images-idx3',
      'fashion_mnist', data_dir=tmp_path,
  )  # pyformat: disable


def test_no_answer(tmp_path, monkeypatch):
  def refuse(url, *, timeout):
    assert timeout <= 10
    raise requests.ConnectTimeout(url)

  monkeypatch.setattr(prepared.importlib, 'import_module', lambda name: None)
  monkeypatch.setattr(requests, 'head', refuse)
  refuses(
      'ConnectionError: https?://[^/]*/ does not answer; or put', 'kmnist',
      data_dir=tmp_path,
  )  # pyformat: disable


def test_damaged_original_file(originals):
  path = originals / mnist.FILES['test'][0]
  content = path.read_bytes()
  path.write_bytes(content[:1000] + b'#' + content[1001:])
  refuses(
      f'{path.name} is damaged .*expected sha256', 'fashion_mnist',
      data_dir=originals,
  )  # pyformat: disable
  refuses('not the original file', 'kmnist', data_dir=originals)


def test_damaged_embedded_file(tmp_path, monkeypatch):
  write_originals(tmp_path / 'source')
  (tmp_path / 'data').mkdir()
  monkeypatch.setattr(mnist, 'SOURCE_DIR', tmp_path / 'source')
  name = mnist.FILE_NAMES[0]
  refuses(
      f'{name} is damaged .*{mnist.SHA256[name]}, found', 'mnist_embedded',
      data_dir=tmp_path / 'data',
  )  # pyformat: disable


def test_records_that_need_tensorflow(originals):
  load('fashion_mnist', 'test', data_dir=originals)
  path = originals / 'fashion_mnist' / '3.0.1' / 'dataset_info.json'
  path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
  refuses(
      'in another format than array_record', 'fashion_mnist', 'test',
      data_dir=originals,
  )  # pyformat: disable


def test_set_without_the_split(originals, monkeypatch):
  monkeypatch.setattr(mnist, 'FILES', {'train': mnist.FILES['train']})
  assert len(load('fashion_mnist', data_dir=originals)) == 60
  refuses(
      "no split 'test': it has train", 'fashion_mnist', 'test',
      data_dir=originals,
  )  # pyformat: disable


# Only damage advises to delete what is prepared.


def test_damaged_records(originals):
  load('fashion_mnist', 'test', data_dir=originals)
  directory = originals / 'fashion_mnist' / '3.0.1'
  (path,) = directory.glob('*test.array_record*')
  path.write_bytes(path.read_bytes()[:100])
  refuses(
      f'{directory} is damaged .*delete that folder', 'fashion_mnist', 'test',
      data_dir=originals,
  )  # pyformat: disable
  path.unlink()
  refuses('delete that folder', 'fashion_mnist', 'test', data_dir=originals)


def test_too_little_memory_is_not_damage(originals, monkeypatch):
  load('fashion_mnist', 'test', data_dir=originals)

  def refuse(*args, **kwargs):
    raise MemoryError('Unable to allocate 44.9 MiB')

  monkeypatch.setattr(classes.np, 'empty', refuse)
  with pytest.raises(errors.RunError, match='memory .*44.9 MiB') as error:
    load('fashion_mnist', 'train', data_dir=originals)
  assert 'delete' not in str(error.value)


def test_missing_permission_is_not_damage(originals, monkeypatch):
  load('fashion_mnist', 'test', data_dir=originals)
  (path,) = originals.rglob('*train.array_record*')
  path.chmod(0)
  if os.geteuid() == 0:  # Nothing is refused to root.
    access = os.access
    monkeypatch.setattr(
        os, 'access', lambda p, mode: p != path and access(p, mode)
    )
    path.write_bytes(b'')
  with pytest.raises(errors.InputError, match='Permission denied') as error:
    load('fashion_mnist', 'train', data_dir=originals)
  assert 'delete' not in str(error.value)
