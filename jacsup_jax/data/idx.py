"""IDX files of the MNIST family, read and checked without TensorFlow.

MNIST, Fashion-MNIST and KMNIST are each published as four gzipped IDX files
with the same four names (`FILES`). TFDS extracts and encodes them with
TensorFlow; the functions here do it with the standard library.
"""

from collections.abc import Iterator, Mapping
import gzip
import hashlib
import io
import math
import os
import pathlib
import struct
import zlib

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted

# TFDS split -> (images, labels).
FILES = {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
}
FILE_NAMES = tuple(name for pair in FILES.values() for name in pair)

# The third byte of an IDX header: unsigned bytes.
_UBYTE = 0x08
# Images have three, in colour four.
_MOST_DIMENSIONS = 4
# Bytes: EMNIST, the largest of the family, has 697,932 images of 784.
_LARGEST = 2**30


def check_sha256(
    folder: str | os.PathLike, expected: Mapping[str, str]
) -> None:
  """Checks that files are, byte for byte, the ones expected.

  Args:
    folder: where the files are.
    expected: sha256 in hexadecimal digits, by file name.

  Raises:
    InputError: if a file is missing, or its sha256 is another one.
  """
  for name, digest in expected.items():
    path = pathlib.Path(folder) / name
    size = untrusted.check_file(path)
    try:
      with open(path, 'rb') as file:
        found = hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
      untrusted.refuse_unreadable(path, error)
    if found != digest:
      raise errors.InputError(
          f'{path} is damaged or not the original file: expected sha256'
          f' {digest}, found {found} ({size} bytes)'
      )


def read(path: str | os.PathLike) -> np.ndarray:
  """Reads one gzipped IDX file of unsigned bytes.

  Args:
    path: the file.

  Returns:
    uint8 array of the shape that the file's header states, read-only.

  Raises:
    InputError: if the file is not gzip, is cut short, or is not such an IDX
      file.
  """
  untrusted.check_file(path)
  try:
    with gzip.open(path) as file:
      content = file.read(4)
      shape = _read_shape(path, content, file)
      count = math.prod(shape)
      if count > _LARGEST:
        raise errors.InputError(
            f'{path} states the shape {shape}, {count:,} bytes; accepted:'
            f' {_LARGEST:,} at most'
        )
      # One more than there should be: the checksum is behind the last, and a
      # file that goes on is not inflated any further.
      content = file.read(count + 1)
  except (EOFError, OSError, zlib.error) as error:
    raise errors.InputError(
        f'{path} is not a whole gzip file: {error}'
    ) from error
  if len(content) != count:
    more = ' or more' if len(content) > count else ''
    raise errors.InputError(
        f'{path} states the shape {shape} and holds {len(content)} bytes{more}'
    )
  return np.frombuffer(content, np.uint8).reshape(shape)


def _read_shape(path, content, file):
  """Reads the rest of a header that begins with `content`."""
  if len(content) < 4 or content[:3] != bytes((0, 0, _UBYTE)):
    raise errors.InputError(
        f'{path} is not an IDX file of unsigned bytes: it starts with'
        f' {content[:4].hex() or "nothing"}, expected 000008'
    )
  ndim = content[3]
  if not 1 <= ndim <= _MOST_DIMENSIONS:
    raise errors.InputError(
        f'{path} states {ndim} dimensions; accepted: 1 to {_MOST_DIMENSIONS}'
    )
  sizes = file.read(4 * ndim)
  if len(sizes) < 4 * ndim:
    raise errors.InputError(f'{path} ends within its header')
  return tuple(int(n) for n in np.frombuffer(sizes, dtype='>u4'))


def generate_examples(
    folder: str | os.PathLike, split: str
) -> Iterator[tuple[int, dict[str, object]]]:
  """Yields one split in the form that a TFDS builder writes.

  The image is handed over as an encoded PNG: given an array, TFDS would import
  TensorFlow to encode it.

  Args:
    folder: where the four files are.
    split: a key of `FILES`.

  Yields:
    (position in the file, `{'image': BytesIO, 'label': int}`).

  Raises:
    InputError: if the files are unreadable or disagree on their length.
  """
  images_path, labels_path = (pathlib.Path(folder) / f for f in FILES[split])
  images, labels = read(images_path), read(labels_path)
  if images.ndim != 3 or labels.shape != images.shape[:1]:
    raise errors.InputError(
        f'{images_path} holds images {images.shape} and {labels_path.name}'
        f' labels {labels.shape}: expected [N, H, W] and [N]'
    )
  for index, (png, label) in enumerate(zip(_encode_pngs(images), labels)):
    yield index, {'image': io.BytesIO(png), 'label': int(label)}


def _encode_pngs(images: np.ndarray) -> Iterator[bytes]:
  """Encodes `[N, H, W]` uint8 as grey PNGs, some four times faster than Pillow.

  The first run waits for this. A higher compression level gains nothing on
  images this small.
  """
  count, height, width = images.shape
  # Each row begins with the number of its filter: 0, none.
  rows = np.zeros((count, height, 1 + width), np.uint8)
  rows[:, :, 1:] = images
  # Width, height, 8 bits, grey, and the only methods that there are.
  header = struct.pack('>II5B', width, height, 8, 0, 0, 0, 0)
  start = b'\x89PNG\r\n\x1a\n' + _png_chunk(b'IHDR', header)
  end = _png_chunk(b'IEND', b'')
  for image in rows:
    yield start + _png_chunk(b'IDAT', zlib.compress(image.data, 1)) + end


def _png_chunk(kind: bytes, content: bytes) -> bytes:
  checksum = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + checksum
