"""Read the IDX files of the MNIST family, and MNIST from this package's own.

MNIST, Fashion-MNIST and KMNIST are each published as four gzipped IDX files
with the same four names (`FILES`). TFDS extracts and encodes them with
TensorFlow; the functions here need none, and give the same examples under the
same keys, so in the same order.
"""

from collections.abc import Iterator, Mapping
import gzip
import hashlib
import io
import os
import pathlib
import struct
import zlib

import numpy as np
import tensorflow_datasets as tfds

from jacsup_jax.core import errors
from jacsup_jax.data import files

# TFDS split -> (images, labels).
FILES = {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
}
FILE_NAMES = tuple(name for pair in FILES.values() for name in pair)

# MNIST's four files, with their licence.
SOURCE_DIR = pathlib.Path(__file__).parent / 'mnist_embedded'
# The sha256 that TFDS registers for them.
SHA256 = dict(zip(FILE_NAMES, (
    '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
)))  # pyformat: disable


class MnistEmbedded(tfds.core.GeneratorBasedBuilder):
  """The MNIST database of handwritten digits, in the order of its files."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self,
        description=type(self).__doc__,
        features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(
                shape=(28, 28, 1), encoding_format='png'
            ),
            'label': tfds.features.ClassLabel(num_classes=10),
        }),
        supervised_keys=('image', 'label'),
        homepage='http://yann.lecun.com/exdb/mnist/',
        license='CC BY-SA 3.0',
        # The last 10,000 training digits are the customary validation set.
        disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    return {split: self._generate_examples(split) for split in FILES}

  def _generate_examples(self, split):
    return generate_examples(SOURCE_DIR, split)


def find_originals(name: str, root: pathlib.Path) -> pathlib.Path | None:
  """Finds the folder of a set's four files, None if they are not there."""
  for folder in (root, root / name, root / 'downloads' / 'manual'):
    if all((folder / file).is_file() for file in FILE_NAMES):
      return folder
  return None


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
    content = files.read_bytes(pathlib.Path(folder) / name)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
      raise errors.InputError(
          f'{pathlib.Path(folder) / name} is damaged or not the original file:'
          f' expected sha256 {digest}, found {found} ({len(content)} bytes)'
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
  try:
    content = gzip.decompress(files.read_bytes(path))
  except (EOFError, OSError, zlib.error) as error:
    raise errors.InputError(
        f'{path} is not a whole gzip file: {error}'
    ) from error
  # Two zeros, the type (8: unsigned bytes), the number of dimensions, then the
  # sizes as big-endian uint32.
  if content[:3] != b'\0\0\x08' or len(content) < 4 + 4 * content[3]:
    raise errors.InputError(
        f'{path} is not an IDX file of unsigned bytes: it starts with'
        f' {content[:4].hex() or "nothing"}, expected 000008'
    )
  start = 4 + 4 * content[3]
  shape = np.frombuffer(content[4:start], '>u4').tolist()
  values = np.frombuffer(content, np.uint8, offset=start)
  if values.size != np.prod(shape, dtype=object):
    raise errors.InputError(
        f'{path} states the shape {tuple(shape)} and holds {values.size} bytes'
    )
  return values.reshape(shape)


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
  """Encodes `[N, H, W]` uint8 as grey PNGs, twice as fast as Pillow."""
  count, height, width = images.shape
  # Each row begins with the number of its filter: 0, none.
  rows = np.zeros((count, height, 1 + width), np.uint8)
  rows[:, :, 1:] = images
  # Width, height, 8 bits, grey, and the only methods that there are.
  header = struct.pack('>II5B', width, height, 8, 0, 0, 0, 0)
  start = b'\x89PNG\r\n\x1a\n' + _make_chunk(b'IHDR', header)
  end = _make_chunk(b'IEND', b'')
  for image in rows:
    yield start + _make_chunk(b'IDAT', zlib.compress(image.data, 1)) + end


def _make_chunk(kind: bytes, content: bytes) -> bytes:
  checksum = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + checksum
