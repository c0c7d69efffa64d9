"""Read the IDX files of the MNIST family; MNIST's come with this package."""

import bz2
from collections.abc import Callable, Mapping
import gzip
import hashlib
import io
import lzma
import math
import pathlib
from typing import Any
import zipfile

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
# Name of a set -> name of its folder in torchvision.
NAMES = {'mnist': 'MNIST', 'fashion_mnist': 'FashionMNIST', 'kmnist': 'KMNIST'}
# MNIST's four files, with their licence.
SOURCE_DIR = pathlib.Path(__file__).parent / 'mnist_embedded'

_ENDINGS = ('.gz', '.bz2', '.xz', '.zip')
# Half of the sha256 of a set's four unpacked files, one after the other, and
# their size. TFDS knows those of the gzipped files, which change if packed
# again. That of kmnist is not published.
_UNPACKED_SIZE = 54_950_048
_UNPACKED_SHA256 = {
  'mnist': 'b2d8f5bf39174ee5ffeefa97e42d673c',
  'fashion_mnist': '14410854cf7a289477dcfc7df3f8ec24',
}


def _unzip(content: bytes) -> bytes:
  """Reads the one file of a zip archive."""
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    [name] = [x for x in archive.namelist() if '-ubyte' in x.rpartition('/')[2]]
    return archive.read(name)


# First bytes of a packed file -> what unpacks it.
_UNPACK = {
  b'\x1f\x8b': gzip.decompress,
  b'BZh': bz2.decompress,
  b'\xfd7zXZ\0': lzma.decompress,
  b'PK\3\4': _unzip,
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
  """Finds the four files, by name, in one of some folders; else none.

  They may be unpacked or packed in another way, be named with a dot, or be in
  folders of their own, as Kaggle has them. InputError if some are missing.
  """
  for folder in folders:
    places = {name: _list_places(folder, name) for name in FILE_NAMES}
    found = {
      name: next((path for path in paths if path.is_file()), None)
      for name, paths in places.items()
    }
    missing = [name for name, path in found.items() if path is None]
    if not missing:
      return found
    if len(missing) < len(found):
      raise errors.InputError(
        f'{folder} lacks {", ".join(missing)}; accepted: all four files.'
      )
  return {}


def list_folders(root: pathlib.Path) -> list[pathlib.Path]:
  """Lists torchvision's `raw`, or the only folder in a root, such as `archive`.

  Of several folders each may hold another set of the family.
  """
  if (root / 'raw').is_dir():
    return [root / 'raw']
  found = [path for path in root.glob('[!.]*') if path.is_dir()]
  return found if len(found) == 1 else []


def _list_places(folder, name):
  """Lists where a file may be; unpacked ones come first."""
  stem = name.removesuffix('.gz')
  for base in (stem, stem.replace('-idx', '.idx')):
    for path in (folder / base, folder / base / base):
      yield path
      for ending in _ENDINGS:
        yield path.with_name(path.name + ending)


def check_originals(
  name: str,
  originals: Mapping[str, pathlib.Path],
  report: Callable[[str], None] = lambda line: None,
) -> None:
  """Raises InputError unless files have the published content of a set.

  If the unpacked content of a set is not known, that is reported.
  """
  import tensorflow_datasets as tfds  # It takes a second.

  infos = tfds.builder_cls(name).url_infos.values()
  packed = [files.read_bytes(path) for path in originals.values()]
  unpacked = b''.join(map(_unpack, originals.values(), packed))
  *found, whole = (
    hashlib.sha256(content).hexdigest() for content in (*packed, unpacked)
  )
  if {*found} == {info.checksum for info in infos}:
    return
  folder = next(iter(originals.values())).parent
  is_another = whole[:32] in _UNPACKED_SHA256.values()
  if name not in _UNPACKED_SHA256 and len(unpacked) == _UNPACKED_SIZE:
    report(f'{name} in {folder} is packed anew: its content is not compared')
    is_right = not is_another
  else:
    is_right = whole[:32] == _UNPACKED_SHA256.get(name)
  if not is_right:
    raise errors.InputError(
      f'{folder} has files that are damaged or not those of {name}; accepted:'
      ' the four original files, packed or not.'
    )


def read_split(
  originals: Mapping[str, pathlib.Path], split: str, *, in_order_of_tfds: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Reads images `[N, H, W, 1]` uint8 and labels `[N]` int32.

  InputError if a file is damaged, or images and labels differ in number.
  """
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
  """Reads one IDX file of unsigned bytes, packed or not.

  InputError if it is damaged or holds anything else.
  """
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
  """Unpacks the content of a file if it is packed, by its first bytes."""
  unpack = next(
    (own for start, own in _UNPACK.items() if content.startswith(start)), bytes
  )
  try:
    return unpack(content)
  except Exception as error:  # Damaged archives fail in many ways.
    raise errors.InputError(
      f'{path} is not a whole archive: {errors.one_line(str(error))[:200]};'
      ' accepted: the original file.'
    ) from error
