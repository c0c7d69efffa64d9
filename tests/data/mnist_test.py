"""Tests of jacsup_jax.data.mnist."""

import gzip

import numpy as np
from PIL import Image
import pytest

from jacsup_jax.data import mnist


def _write(path, content):
  path.write_bytes(gzip.compress(content))
  return path


# Two images of two rows and three columns, by hand from the format: 0, 0, type
# 8, three dimensions, their sizes as big-endian int32, the bytes.
IMAGES = bytes.fromhex('00000803 00000002 00000002 00000003') + bytes(
    range(0, 240, 20)
)
LABELS = bytes.fromhex('00000801 00000002') + bytes((7, 2))


# Values.


def test_read_values(tmp_path):
  images = mnist.read(_write(tmp_path / 'images.gz', IMAGES))
  assert images.dtype == np.uint8
  np.testing.assert_array_equal(
      images,
      [[[0, 20, 40], [60, 80, 100]], [[120, 140, 160], [180, 200, 220]]],
  )


def test_examples_decode_to_the_images(tmp_path):
  images_name, labels_name = mnist.FILES['train']
  _write(tmp_path / images_name, IMAGES)
  _write(tmp_path / labels_name, LABELS)
  examples = dict(mnist.generate_examples(tmp_path, 'train'))
  assert [examples[i]['label'] for i in (0, 1)] == [7, 2]
  images = mnist.read(tmp_path / images_name)
  for index, example in examples.items():
    with Image.open(example['image']) as image:
      assert (image.format, image.mode) == ('PNG', 'L')
      np.testing.assert_array_equal(np.asarray(image), images[index])


def test_the_package_holds_mnist():
  mnist.check_sha256(mnist.SOURCE_DIR, mnist.SHA256)
  images, labels = (
      mnist.read(mnist.SOURCE_DIR / name) for name in mnist.FILES['train']
  )
  # The first labels, as in every printed sample, and the published counts.
  assert labels[:5].tolist() == [5, 0, 4, 1, 9]
  assert np.bincount(labels).tolist() == [
      5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
  ]
  # The mean and deviation that PyTorch's example normalises with, to the four
  # decimals given there.
  assert round(float(images.mean()) / 255, 4) == 0.1307
  assert round(float(images.std()) / 255, 4) == 0.3081


def test_check_sha256_accepts_the_file(tmp_path):
  (tmp_path / 'file').write_bytes(b'abc')
  # The first test vector of FIPS 180-2.
  mnist.check_sha256(
      tmp_path,
      {
          'file': (
              'ba7816bf8f01cfea414140de5dae2223'
              'b00361a396177a9cb410ff61f20015ad'
          )
      },
  )


# Bad input.


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'starts with nothing'),
        (b'\x00\x00\x0d\x01' + bytes(8), 'starts with 00000d01'),
        (IMAGES[:-1], r'shape \(2, 2, 3\) and holds 11 bytes'),
        (IMAGES + b'\x00', r'shape \(2, 2, 3\) and holds 13 bytes'),
        (IMAGES[:9], 'images.gz is not an IDX file'),
    ],
    ids=['empty', 'floats', 'short', 'long', 'half a header'],
)
def test_read_refuses(tmp_path, content, message):
  path = _write(tmp_path / 'images.gz', content)
  with pytest.raises(ValueError, match=message):
    mnist.read(path)


def test_read_refuses_a_cut_gzip_file(tmp_path):
  path = _write(tmp_path / 'images.gz', IMAGES)
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(ValueError, match='images.gz is not a whole gzip file'):
    mnist.read(path)
  path.write_bytes(b'not gzip')
  with pytest.raises(ValueError, match='images.gz is not a whole gzip file'):
    mnist.read(path)


def test_examples_of_different_lengths_are_refused(tmp_path):
  images_name, labels_name = mnist.FILES['test']
  _write(tmp_path / images_name, IMAGES)
  _write(tmp_path / labels_name, bytes.fromhex('00000801 00000001 07'))
  with pytest.raises(ValueError, match=r'\(2, 2, 3\).*\(1,\)'):
    next(mnist.generate_examples(tmp_path, 'test'))


def test_check_sha256_names_file_and_both_digests(tmp_path):
  (tmp_path / 'file').write_bytes(b'abd')
  with pytest.raises(ValueError, match='file .*expected sha256 ba78, found'):
    mnist.check_sha256(tmp_path, {'file': 'ba78'})


def test_check_sha256_of_a_missing_file(tmp_path):
  with pytest.raises(ValueError, match='missing cannot be read'):
    mnist.check_sha256(tmp_path, {'missing': 'ba78'})
