"""Tests of jacsup_jax.data.mnist."""

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import zipfile

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import mnist
from jacsup_jax.data import registry

# Two images of two rows and three columns, by hand from the format.
IMAGES = bytes.fromhex('00000803 00000002 00000002 00000003') + bytes(
  range(0, 240, 20)
)
LABELS = bytes.fromhex('00000801 00000002 07 03')
NAME = 't10k-images-idx3-ubyte.gz'


def _refuses(message, function, *args, **kwargs):
  with pytest.raises(errors.InputError, match=message):
    function(*args, **kwargs)


@pytest.mark.parametrize('pack', [bytes, gzip.compress, lzma.compress])
def test_read_values(tmp_path, pack):
  path = tmp_path / 'images'
  path.write_bytes(pack(IMAGES))
  expected = np.arange(0, 240, 20).reshape(2, 2, 3)
  np.testing.assert_array_equal(mnist.read(path), expected)


def test_the_package_holds_mnist():
  train, test = (registry.load('mnist_embedded', s) for s in ('train', 'test'))
  # The first labels, as in every printed sample, and the published counts.
  assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
  counts = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
  assert tuple(np.bincount(train.labels)) == counts
  # The mean and deviation that PyTorch's example normalises with.
  assert round(float(train.images.mean()) / 255, 4) == 0.1307
  assert round(float(train.images.std()) / 255, 4) == 0.3081
  # Published results depend on the order of examples.
  assert train.fingerprint == '0560295d6af96cd4'
  assert test.fingerprint == 'd993106a3f911be6'
  assert test.num_classes == 10 and test.image_shape == (28, 28, 1)


def test_the_order_is_that_of_tfds(originals, prepared, tmp_path):
  # They may be in a folder of their own.
  shutil.copytree(originals, tmp_path / 'data' / 'downloads' / 'manual')
  originals = tmp_path / 'data'
  for split in registry.SPLITS:
    found, expected = (
      registry.load('fashion_mnist', split, data_dir=folder)
      for folder in (originals, prepared)
    )
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)


def _zip(content, name='train-images-idx3-ubyte'):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    archive.writestr(f'{name}/{name}', content)
  return file.getvalue()


# Name -> (a change of the name, how the content is packed).
FORMS = {
  'unpacked': (lambda stem: stem, bytes),
  'of Kaggle, with a dot': (lambda stem: stem.replace('-idx', '.idx'), bytes),
  'of Kaggle, in folders': (lambda stem: f'{stem}/{stem}', bytes),
  'packed anew': (lambda stem: f'{stem}.gz', lambda x: gzip.compress(x, 1)),
  'of another kind': (lambda stem: f'{stem}.bz2', lambda x: bz2.compress(x, 1)),
  'zip': (lambda stem: f'{stem}.zip', _zip),
}


@pytest.mark.parametrize('form', FORMS)
def test_files_are_judged_by_their_content_in_any_form(
  tmp_path, monkeypatch, form
):
  rename, pack = FORMS[form]
  contents = {}
  for split in ('train', 'test'):
    for name, content in zip(mnist.FILES[split], (IMAGES, LABELS)):
      contents[name] = content
      path = tmp_path / rename(name.removesuffix('.gz'))
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(pack(content))
  whole = b''.join(contents[name] for name in mnist.FILE_NAMES)
  sha256 = hashlib.sha256(whole).hexdigest()[:32]
  monkeypatch.setattr(mnist, '_UNPACKED_SHA256', {'mnist': sha256})
  originals = mnist.find_originals(tmp_path)
  mnist.check_originals('mnist', originals)
  found, labels = mnist.read_split(originals, 'test', in_order_of_tfds=False)
  np.testing.assert_array_equal(found[..., 0], mnist.read(originals[NAME]))
  assert labels.tolist() == [7, 3]
  path.write_bytes(pack(content[:-1] + b'\0'))
  _refuses('not those of mnist', mnist.check_originals, 'mnist', originals)
  path.unlink()
  _refuses('lacks t10k-labels-idx1-ubyte.gz', mnist.find_originals, tmp_path)


def test_the_unpacked_mnist_of_torchvision_is_accepted(tmp_path, monkeypatch):
  # As `registry.load` finds it.
  folder = tmp_path / 'MNIST' / 'raw'
  folder.mkdir(parents=True)
  for name in mnist.FILE_NAMES:
    content = gzip.decompress((mnist.SOURCE_DIR / name).read_bytes())
    (folder / name.removesuffix('.gz')).write_bytes(content)
  data = registry.load('mnist', 'test', data_dir=tmp_path)
  embedded = registry.load('mnist_embedded', 'test')
  assert np.bincount(data.labels).tolist() == [
    *np.bincount(embedded.labels).tolist()
  ]
  # What is known of another set is not that of kmnist.
  originals = mnist.find_originals(folder)
  _refuses('not those of kmnist', mnist.check_originals, 'kmnist', originals)
  lines = []
  monkeypatch.setattr(mnist, '_UNPACKED_SHA256', {})
  mnist.check_originals('kmnist', originals, lines.append)
  assert 'its content is not compared' in lines[0]


@pytest.mark.parametrize('place', ['raw', 'archive', 'mnist data'])
def test_files_are_found_in_a_folder_that_is_alone(tmp_path, place):
  shutil.copytree(mnist.SOURCE_DIR, tmp_path / place)
  found = registry.load('mnist', 'test', data_dir=tmp_path)
  assert len(found) == 10_000
  (tmp_path / 'other').mkdir()
  assert mnist.list_folders(tmp_path) == [tmp_path / place][: place == 'raw']


def test_read_refuses(tmp_path):
  floats, cut = b'\x00\x00\x0d\x01' + bytes(8), gzip.compress(IMAGES)[:-10]
  for content in (b'', floats, IMAGES[:9], IMAGES[:-1], cut):
    (tmp_path / 'images').write_bytes(content)
    _refuses('images .*accepted', mnist.read, tmp_path / 'images')


def test_files_that_do_not_fit(originals):
  paths = mnist.find_originals(originals)
  train, test = mnist.FILES['train'], mnist.FILES['test']
  mixed = paths | {test[1]: paths[train[1]]}
  read = lambda: mnist.read_split(mixed, 'test', in_order_of_tfds=False)
  _refuses(r'\(12, 28, 28\).*\(60,\)', read)
  # The same names, another set.
  _refuses('not those of kmnist', registry.load, 'kmnist', data_dir=originals)
