"""Read your own images: one .npz file with `images`, `labels` and `split`.

np.savez('my.npz', images=images, labels=labels, split=split)
"""

from collections.abc import Callable
import os
import pathlib

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import registry

_REQUIRED = ('images', 'labels', 'split')
_MOST_CLASSES = 1000


def load(
  unused_name: str,
  split: str,
  *,
  data_dir: files.Path | None,
  image_shape: tuple[int, int, int] | None,
  report: Callable[[str], None],
) -> registry.Dataset:
  """Loads one split of M examples, in the order of the file.

  `data_dir` is the file, or a folder with no other .npz file. It holds

  - `images`: `[M, H, W, C]` or grey `[M, H, W]`, C of 1 or 3. uint8, or floats
    in [0, 1] or in [0, 255], which are rounded to 8 bits.
  - `labels`: `[M]` whole numbers from 0 to 999; that they start higher is
    reported.
  - `split`: `[M]` strings, 'train' or 'test', each at least once.
  - `num_classes`: optional, above every label; else the largest label plus 1.
  """
  path = _find(data_dir)
  content = files.read_arrays(path, _REQUIRED, ('num_classes',))
  images, labels, splits = (content[name] for name in _REQUIRED)
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
    accepted = '(M, H, W, 1), (M, H, W, 3) or (M, H, W), none of them 0'
    _refuse(path, f'images of shape {images.shape}', accepted)
  for name, kinds in (('labels', 'iu'), ('split', 'SU')):
    array = content[name]
    if array.shape != images.shape[:1] or array.dtype.kind not in kinds:
      _refuse(
        path,
        f'{name} of type {array.dtype} and shape {array.shape}',
        f'{len(images)} {"integers" if name == "labels" else "strings"}',
      )
  splits = splits.astype('U')
  if set(splits.tolist()) != {'train', 'test'}:
    found = ', '.join(map(files.describe, np.unique(splits)[:5].tolist()))
    _refuse(path, f'split {found}', "'train' and 'test', each at least once")
  num_classes = _count_classes(path, labels, content.get('num_classes'))
  if (lowest := int(labels.min())) and split != 'test':
    report(
      f'labels in {path} start at {lowest}: no image is of a class below it;'
      f' subtract {lowest} if that is not meant'
    )
  registry.check_image_shape(f'{path}', images.shape[1:], image_shape)
  rows = (splits == 'test') == (split == 'test')
  arrays = _to_uint8(path, images)[rows], labels[rows].astype(np.int32)
  return registry.make_classes(registry.ARRAYS, split, *arrays, num_classes)


def _find(data_dir) -> pathlib.Path:
  found = []
  if data_dir is not None:
    path = files.expand_path('--data_dir', data_dir).absolute()
    found = sorted(path.glob('*.npz')) if os.path.isdir(path) else [path]
  if len(found) != 1 or not files.exists(found[0]):
    names = ', '.join(file.name for file in found[:5]) or 'nothing'
    raise errors.InputError(
      f'--dataset=arrays with --data_dir={data_dir} finds {names}; accepted:'
      ' an .npz file that exists, or a folder with one.'
    )
  return found[0]


def _count_classes(path, labels, num_classes) -> int:
  low, high = int(labels.min()), int(labels.max())
  count = high + 1 if num_classes is None else num_classes.tolist()
  accepted = range(high + 1, _MOST_CLASSES + 1)
  if low < 0 or not isinstance(count, int) or count not in accepted:
    _refuse(
      path,
      f'labels from {low} to {high} and num_classes {files.describe(count)}',
      f'labels from 0, below num_classes, which is at most {_MOST_CLASSES}',
    )
  return count


def _to_uint8(path, images) -> np.ndarray:
  if images.dtype == np.uint8:
    return images
  # NaN fails this comparison, too.
  is_float = images.dtype.kind == 'f'
  if not (is_float and images.min() >= 0 and images.max() <= 255):
    accepted = 'uint8, or floats in [0, 1] or in [0, 255]'
    _refuse(path, f'images of type {images.dtype}, or out of range', accepted)
  scale = 255 if images.max() <= 1 else 1
  return np.round(images.astype(np.float32) * scale).astype(np.uint8)


def _refuse(path, found, accepted):
  raise errors.InputError(f'{path} has {found}; accepted: {accepted}.')
