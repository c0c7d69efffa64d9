"""Read your own images: one .npz file with `images`, `labels` and `split`.

  np.savez('my.npz', images=images, labels=labels, split=split)

`M` is the number of examples:

- `images`: `[M, H, W, C]` or grey `[M, H, W]`, C of 1 or 3. uint8, or floats in
  [0, 1] or in [0, 255], which are rounded to 8 bits. Floats of which none is
  above 1 are taken for the former.
- `labels`: `[M]` whole numbers from 0 to 999.
- `split`: `[M]` strings, 'train' or 'test', each at least once.
- `num_classes`: optional, one number, above every label; the largest label and
  one by default.

Other arrays in the file are not read. Python objects are refused.
"""

import os
import pathlib

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import dataset
from jacsup_jax.data import files

_REQUIRED = ('images', 'labels', 'split')
_OPTIONAL = 'num_classes'
_SPLITS = ('train', 'test')
_MOST_CLASSES = 1000


def load(
    split: str,
    *,
    data_dir: str | os.PathLike | None,
    image_shape: tuple[int, int, int] | None,
) -> dataset.Dataset:
  """Loads one split of a file, in the order of the file.

  Args:
    split: one of `registry.SPLITS`.
    data_dir: the file, or a folder with no other .npz file.
    image_shape: (H, W, C) that the images must have, None for any.

  Returns:
    The split.

  Raises:
    InputError: if there is no such file, or it does not hold what it should, in
      one line that says what was found and what is accepted.
  """
  path = _find(data_dir)
  content = files.read_arrays(path, _REQUIRED, (_OPTIONAL,))
  images, labels, splits = (content[name] for name in _REQUIRED)
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
    _refuse(
        path,
        f'images of shape {images.shape}',
        '(M, H, W, 1), (M, H, W, 3) or (M, H, W), none of them 0',
    )
  for name, array in (('labels', labels), ('split', splits)):
    if array.shape != images.shape[:1]:
      _refuse(
          path,
          f'{name} of shape {array.shape} for {len(images)} images',
          f'({len(images)},)',
      )
  _check_splits(path, splits)
  num_classes = _count_classes(path, labels, content.get(_OPTIONAL))
  dataset.check_image_shape(f'{path}', images.shape[1:], image_shape)
  part = 'test' if split == 'test' else 'train'
  rows = np.flatnonzero(splits.astype('U') == part)
  images, labels = _to_uint8(path, images)[rows], labels[rows].astype(np.int32)
  return dataset.make_classes(
      dataset.ARRAYS, split, images, labels, num_classes
  )


def _find(data_dir) -> pathlib.Path:
  if data_dir is None:
    raise errors.InputError(
        '--dataset=arrays needs --data_dir: accepted is an .npz file with the'
        f' arrays {", ".join(_REQUIRED)}'
    )
  path = files.expand_path('--data_dir', data_dir)
  if not files.exists(path):
    raise errors.InputError(
        f'--data_dir={data_dir} does not exist: accepted for --dataset=arrays'
        ' is an .npz file, or a folder with one'
    )
  if not path.is_dir():
    return path
  found = sorted(path.glob('*.npz'))
  if len(found) != 1:
    names = ', '.join(file.name for file in found[:5]) or 'none'
    raise errors.InputError(
        f'--data_dir={data_dir} is a folder, of .npz files it has {names}:'
        ' accepted are a file, or a folder with one'
    )
  return found[0]


def _check_splits(path, splits):
  accepted = f'{" and ".join(map(repr, _SPLITS))}, each at least once'
  if splits.dtype.kind not in 'SU':
    _refuse(path, f'split of type {splits.dtype}', f'strings, {accepted}')
  names = np.unique(splits.astype('U')).tolist()
  unknown = [files.describe(name) for name in names if name not in _SPLITS]
  if unknown:
    _refuse(path, f'split {", ".join(unknown[:5])}', accepted)
  for name in _SPLITS:
    if name not in names:
      _refuse(path, f'no example of split {name!r}', accepted)


def _count_classes(path, labels, num_classes) -> int:
  if labels.dtype.kind not in 'iu':
    _refuse(path, f'labels of type {labels.dtype}', 'integers')
  limit, reason = _MOST_CLASSES, ''
  if num_classes is not None:
    if num_classes.shape or num_classes.dtype.kind not in 'iu':
      _refuse(path, f'{_OPTIONAL} {files.describe(num_classes)}', 'one integer')
    limit, reason = int(num_classes), f', as {_OPTIONAL} is {num_classes}'
    if not 1 <= limit <= _MOST_CLASSES:
      _refuse(path, f'{_OPTIONAL} {limit}', f'1 to {_MOST_CLASSES}')
  lowest, highest = int(labels.min()), int(labels.max())
  if lowest < 0 or highest >= limit:
    _refuse(
        path, f'labels from {lowest} to {highest}', f'0 to {limit - 1}{reason}'
    )
  return limit if num_classes is not None else highest + 1


def _to_uint8(path, images) -> np.ndarray:
  if images.dtype == np.uint8:
    return images
  accepted = 'uint8, or floats in [0, 1] or in [0, 255]'
  if images.dtype.kind != 'f':
    _refuse(path, f'images of type {images.dtype}', accepted)
  lowest, highest = float(images.min()), float(images.max())
  if not 0 <= lowest <= highest <= 255:  # This refuses NaN, too.
    found = f'{images.dtype} images from {lowest:g} to {highest:g}'
    _refuse(path, found, accepted)
  scale = 255 if highest <= 1 else 1
  return np.round(images.astype(np.float32) * scale).astype(np.uint8)


def _refuse(path, found, accepted):
  raise errors.InputError(f'{path} has {found}: accepted are {accepted}')
