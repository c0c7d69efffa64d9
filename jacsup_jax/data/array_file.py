"""A user's own images: one .npz file with `images`, `labels` and `split`.

  np.savez('my.npz', images=images, labels=labels, split=split)

`M` is the number of examples:

- `images`: `[M, H, W, C]` or grey `[M, H, W]`, C of 1 or 3. uint8, or floats in
  [0, 1] or in [0, 255], which are rounded to 8 bits. Floats of which none is
  above 1 are taken for the former.
- `labels`: `[M]` whole numbers from 0 to 999.
- `split`: `[M]` strings, 'train' or 'test', each at least once.
- `num_classes`: optional, one number, above every label; the largest label and
  one by default.

Other arrays in the file are not looked at. Nothing in it is ever executed, and
sizes are checked before anything is read (see npz.py).
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import npz
from jacsup_jax.data import preparing

NAME = preparing.ARRAYS
_REQUIRED = ('images', 'labels', 'split')
_OPTIONAL = 'num_classes'
_SPLITS = ('train', 'test')
_MOST_CLASSES = 1000
# Bytes of all arrays: SVHN with its extra images, 630,420 of them, has 7.7e9 as
# floats of 32 bits.
_LARGEST = 8 * 2**30


class Content(NamedTuple):
  """One split of a file."""

  images: np.ndarray  # [N, H, W, C] uint8
  labels: np.ndarray  # [N] int32, 0 to num_classes - 1
  num_classes: int


def read(data_dir: str | os.PathLike | None, split: str) -> Content:
  """Reads one split of a file, in the order of the file.

  Args:
    data_dir: the file, or a folder with no other .npz file.
    split: 'train' or 'test'.

  Returns:
    The split as arrays.

  Raises:
    InputError: if there is no such file, or it does not hold what it should, in
      one line that says what was found and what is accepted.
  """
  path = _find(data_dir)
  arrays = _read_arrays(path)
  images, labels, splits = (arrays[name] for name in _REQUIRED)
  images = _check_shape(path, images)
  for name, array in (('labels', labels), ('split', splits)):
    if array.shape != images.shape[:1]:
      _refuse(
          path,
          f'{name} of shape {array.shape} for {len(images)} images',
          f'({len(images)},)',
      )
  rows = _check_splits(path, splits)[split]
  num_classes = _check_labels(path, labels, arrays.get(_OPTIONAL))
  return Content(
      images=_to_uint8(path, images)[rows],
      labels=labels[rows].astype(np.int32),
      num_classes=num_classes,
  )


def _find(data_dir):
  """Returns the path of the file."""
  if data_dir is None:
    raise errors.InputError(
        f'--dataset={NAME} needs --data_dir, which is not given: accepted is an'
        f' .npz file with the arrays {", ".join(_REQUIRED)}'
    )
  path = pathlib.Path(data_dir).expanduser()
  if untrusted.exists(path) and path.is_dir():
    files = sorted(path.glob('*.npz'))
    if len(files) != 1:
      found = ', '.join(file.name for file in files[:5]) or 'none'
      raise errors.InputError(
          f'--data_dir={data_dir} is a folder, of .npz files it has {found}:'
          ' accepted are a file, or a folder with one'
      )
    return files[0]
  if not untrusted.exists(path):
    raise errors.InputError(
        f'--data_dir={data_dir} does not exist: accepted for --dataset={NAME}'
        ' is an .npz file, or a folder with one'
    )
  return path


def _read_arrays(path):
  """Returns the arrays that are looked at, by name."""
  try:
    archive = npz.open_archive(path)
  except npz.DamagedError as error:
    if _is_single_array(path):
      _refuse(
          path, 'a single array', f'an .npz file with {", ".join(_REQUIRED)}'
      )
    _refuse_damaged(path, error)
  with archive:
    found = npz.names(archive)
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
      _refuse(
          path,
          f'no {" and no ".join(missing)}, but'
          f' {", ".join(found[:9]) or "no array at all"}',
          f'the arrays {", ".join(_REQUIRED)}',
      )
    arrays, left = {}, _LARGEST
    for name in (*_REQUIRED, _OPTIONAL):
      if name in found:
        try:
          arrays[name] = npz.read_array(archive, name, left)
        except npz.DamagedError as error:
          _refuse_damaged(path, error, name)
        left -= arrays[name].nbytes
  return arrays


def _is_single_array(path):
  with open(path, 'rb') as file:
    return file.read(6) == np.lib.format.MAGIC_PREFIX


def _check_shape(path, images):
  """Returns the images with a channel axis."""
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
    _refuse(
        path,
        f'images of shape {images.shape}',
        '(M, H, W, 1), (M, H, W, 3) or (M, H, W), none of them 0',
    )
  return images


def _check_splits(path, splits):
  """Returns which examples are of each split."""
  if splits.dtype.kind == 'S':
    splits = np.char.decode(splits, 'latin-1')
  accepted = f'{" and ".join(map(repr, _SPLITS))}, each at least once'
  if splits.dtype.kind != 'U':
    _refuse(path, f'split of type {splits.dtype}', f'strings, {accepted}')
  unknown = [name for name in np.unique(splits) if name not in _SPLITS]
  if unknown:
    _refuse(
        path,
        f'split {", ".join(untrusted.describe(str(n)) for n in unknown[:5])}',
        accepted,
    )
  rows = {name: np.flatnonzero(splits == name) for name in _SPLITS}
  for name in _SPLITS:
    if not rows[name].size:
      _refuse(path, f'no example of split {name!r}', accepted)
  return rows


def _check_labels(path, labels, num_classes):
  """Returns the number of classes."""
  if labels.dtype.kind not in 'iu':
    _refuse(path, f'labels of type {labels.dtype}', 'integers')
  lowest, highest = int(labels.min()), int(labels.max())
  limit, named = _MOST_CLASSES, ''
  if num_classes is not None:
    if num_classes.shape or num_classes.dtype.kind not in 'iu':
      _refuse(
          path,
          f'{_OPTIONAL} of type {num_classes.dtype} and shape'
          f' {num_classes.shape}',
          'one integer',
      )
    limit, named = int(num_classes), f', as {_OPTIONAL} is {num_classes}'
    if not 1 <= limit <= _MOST_CLASSES:
      _refuse(path, f'{_OPTIONAL} {limit}', f'1 to {_MOST_CLASSES}')
  if lowest < 0 or highest >= limit:
    _refuse(
        path, f'labels from {lowest} to {highest}', f'0 to {limit - 1}{named}'
    )
  return limit if num_classes is not None else highest + 1


def _to_uint8(path, images):
  """Returns the images as 8 bits, floats rounded."""
  if images.dtype == np.uint8:
    return images
  accepted = 'uint8, or floats in [0, 1] or in [0, 255]'
  if images.dtype.kind != 'f':
    _refuse(path, f'images of type {images.dtype}', accepted)
  lowest, highest = float(images.min()), float(images.max())
  if not 0 <= lowest <= highest <= 255:  # Also catches NaN.
    _refuse(
        path,
        f'{images.dtype} images from {lowest:g} to {highest:g}',
        accepted,
    )
  scale = 255 if highest <= 1 else 1
  return np.round(images.astype(np.float32) * scale).astype(np.uint8)


def _refuse(path, found, accepted):
  raise errors.InputError(f'{path} has {found}: accepted are {accepted}')


def _refuse_damaged(path, error, name=None):
  what = f'array {name!r} of {path}' if name else f'{path}'
  raise errors.InputError(
      f'{what} cannot be read ({error}): accepted is an'
      f' .npz file with the arrays {", ".join(_REQUIRED)}, without objects'
  ) from error
