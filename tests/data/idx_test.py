"""Tests of jacsup_jax.data.mnist."""

import gzip
import shutil

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import mnist
from jacsup_jax.data import registry

# Two images of two rows and three columns, by hand from the format.
IMAGES = bytes.fromhex('00000803 00000002 00000002 00000003') + bytes(
  range(0, 240, 20)
)


def _refuses(message, function, *args, **kwargs):
  with pytest.raises(errors.InputError, match=message):
    function(*args, **kwargs)


@pytest.mark.parametrize('pack', [bytes, gzip.compress])
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


def test_files_unpacked_or_packed_again_are_judged_by_their_content(tmp_path):
  for name in mnist.FILE_NAMES:
    content = gzip.decompress((mnist.SOURCE_DIR / name).read_bytes())
    if 'images' in name:
      (tmp_path / name.removesuffix('.gz')).write_bytes(content)
    else:
      (tmp_path / name).write_bytes(gzip.compress(content, 1))
  mnist.check_originals('mnist', mnist.find_originals(tmp_path))
  (tmp_path / name).write_bytes(gzip.compress(content[:-1] + b'\0'))
  originals = mnist.find_originals(tmp_path)
  _refuses('not those of mnist', mnist.check_originals, 'mnist', originals)


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
