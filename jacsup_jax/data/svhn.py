"""Read the .mat files of SVHN's cropped digits, as they are published."""

from collections.abc import Mapping
import pathlib

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files

NAME = 'svhn_cropped'
FILES = {'train': 'train_32x32.mat', 'test': 'test_32x32.mat'}


def find_files(*folders: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds both files, by split, in one of some folders; else none."""
  for folder in folders:
    found = {split: folder / name for split, name in FILES.items()}
    if all(path.is_file() for path in found.values()):
      return found
  return {}


def read_split(
  paths: Mapping[str, pathlib.Path], split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Reads images `[N, 32, 32, 3]` uint8 and labels `[N]` int32 from 0.

  The order is that of TFDS. The files number digits from 1, and zeros 10.
  InputError if the file is damaged or has other arrays.
  """
  from scipy import io  # It takes a while, and other sets need none.
  from tensorflow_datasets.core import hashing

  path = paths[split]
  files.check_file(path)
  try:
    found = io.loadmat(path, variable_names=('X', 'y'))
    images, labels = np.asarray(found['X']), np.asarray(found['y'])
  except MemoryError:
    raise
  except Exception as error:  # Damaged files fail in many ways.
    reason = errors.one_line(f'{type(error).__name__}: {error}')[:200]
    raise errors.InputError(
      f'{path} cannot be read ({reason}); accepted: a whole file of MATLAB,'
      ' version 5, with the arrays X and y.'
    ) from error
  labels = labels.reshape(-1)
  whole = np.isin(labels, range(1, 11)).all()
  shape = (32, 32, 3, len(labels))
  if images.shape != shape or images.dtype != np.uint8 or not whole:
    raise errors.InputError(
      f'{path} has X of type {images.dtype} and shape {images.shape}, y of'
      f' shape {found["y"].shape} from {labels.min(initial=0)} to'
      f' {labels.max(initial=0)}; accepted: uint8 (32, 32, 3, N), and N labels'
      ' from 1 to 10, which is a zero.'
    )
  rows = sorted(range(len(labels)), key=hashing.Hasher(split).hash_key)
  images = np.ascontiguousarray(np.moveaxis(images, -1, 0)[rows])
  return images, (labels[rows] % 10).astype(np.int32)
