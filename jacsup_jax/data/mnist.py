"""Read the IDX files of the MNIST family; MNIST's come with this package."""

from collections.abc import Mapping
import gzip
import hashlib
import math
import pathlib
from typing import Any
import zlib

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import registry

# Split -> (images, labels).
FILES = {
  'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
  'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
}
FILE_NAMES = tuple(name for pair in FILES.values() for name in pair)
NAMES = ('mnist', 'fashion_mnist', 'kmnist')
# MNIST's four files, with their licence.
SOURCE_DIR = pathlib.Path(__file__).parent / 'mnist_embedded'

# Half of the sha256 of a set's four unpacked files, one after the other. TFDS
# knows those of the gzipped files, which change if packed again.
_UNPACKED_SHA256 = {
  'mnist': 'b2d8f5bf39174ee5ffeefa97e42d673c',
  'fashion_mnist': '14410854cf7a289477dcfc7df3f8ec24',
}


def load(
  name: str,
  split: str,
  *,
  image_shape: tuple[int, int, int] | None,
  **unused_options: Any,
) -> registry.Dataset:
  """Loads one split of the MNIST in this package; see `registry.load`."""
  registry.check_image_shape(f'--dataset={name}', (28, 28, 1), image_shape)
  part = 'test' if split == 'test' else 'train'
  arrays = read_split(find_originals(SOURCE_DIR), part, in_order_of_tfds=False)
  return registry.make_classes(name, split, *arrays, num_classes=10)


def find_originals(*folders: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the four files, by name, in one of some folders; else none."""
  for folder in folders:
    unpacked = {n: folder / n.removesuffix('.gz') for n in FILE_NAMES}
    found = {n: p if p.exists() else folder / n for n, p in unpacked.items()}
    if all(path.is_file() for path in found.values()):
      return found
  return {}


def check_originals(name: str, originals: Mapping[str, pathlib.Path]) -> None:
  """Raises InputError unless files have the published content of a set."""
  import tensorflow_datasets as tfds  # It takes a second.

  infos = tfds.builder_cls(name).url_infos.values()
  packed = [files.read_bytes(path) for path in originals.values()]
  unpacked = b''.join(map(_unpack, originals.values(), packed))
  *found, whole = (
    hashlib.sha256(content).hexdigest() for content in (*packed, unpacked)
  )
  is_published = {*found} == {info.checksum for info in infos}
  if not is_published and whole[:32] != _UNPACKED_SHA256.get(name):
    raise errors.InputError(
      f'{next(iter(originals.values())).parent} has files that are damaged or'
      f' not those of {name}; accepted: the four original files.'
    )


def read_split(
  originals: Mapping[str, pathlib.Path], split: str, *, in_order_of_tfds: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Reads images `[N, H, W, 1]` uint8 and labels `[N]` int32."""
  paths = [originals[name] for name in FILES[split]]
  images, labels = map(read, paths)
  if images.ndim != 3 or labels.shape != images.shape[:1]:
    raise errors.InputError(
      f'{paths[0]} has images {images.shape} and {paths[1].name} labels'
      f' {labels.shape}; accepted: [N, H, W] and [N].'
    )
  rows = range(len(labels))
  if in_order_of_tfds:  # By a hash of the position, salted with the split.
    from tensorflow_datasets.core import hashing

    rows = sorted(rows, key=hashing.Hasher(split).hash_key)
  return images[rows, ..., np.newaxis], labels[rows].astype(np.int32)


def read(path: pathlib.Path) -> np.ndarray:
  """Reads one IDX file of unsigned bytes, gzipped or unpacked."""
  content = _unpack(path, files.read_bytes(path))
  # Two zeros, the type, the number of dimensions, the sizes as uint32.
  if content[:3] == b'\0\0\x08' and len(content) >= 4 + 4 * content[3]:
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], '>u4').tolist()
    if math.prod(shape) == len(content) - start:
      return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
  raise errors.InputError(
    f'{path} begins with {content[:16].hex() or "nothing"} and has'
    f' {len(content)} bytes; accepted: a whole IDX file of unsigned bytes.'
  )


def _unpack(path: pathlib.Path, content: bytes) -> bytes:
  """Unpacks the content of a file if it is gzipped."""
  try:
    is_gzip = content.startswith(b'\x1f\x8b')
    return gzip.decompress(content) if is_gzip else content
  except (EOFError, OSError, zlib.error) as error:
    raise errors.InputError(
      f'{path} is not a whole gzip file: {error}; accepted: the original file.'
    ) from error
