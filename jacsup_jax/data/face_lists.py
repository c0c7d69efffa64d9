"""Read lists of faces: their attributes, and the splits that they belong to.

Fields are separated by spaces, as in CelebA's lists, or as in CSV files.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import hashlib
import re
from typing import Any, NamedTuple

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files

# The number of a split in CelebA's partition file is its position here.
SPLITS = ('train', 'validation', 'test')
_SPLIT_NAMES = {
    **{str(number): split for number, split in enumerate(SPLITS)},
    'train': 'train', 'training': 'train', 'val': 'validation',
    'valid': 'validation', 'validation': 'validation', 'dev': 'validation',
    'test': 'test', 'testing': 'test',
}  # fmt: skip
SPLIT_COLUMNS = ('partition', 'split')
_IMAGE_COLUMNS = (
    'image_id', 'image', 'image_name', 'img', 'file', 'filename', 'file_name',
    'path', 'name', 'id',
)  # fmt: skip


class _Signs(dict):
  """Signs of texts as they are in lists; `_NO_SIGN` of any other text."""

  def __missing__(self, text):
    return self.setdefault(text, self.get(text.lower(), _NO_SIGN))


_NO_SIGN = 2
_SIGNS = {
    '1': 1, '+1': 1, '1.0': 1, 'true': 1, 'yes': 1,
    '-1': -1, '-1.0': -1, '0': 0, '0.0': 0, 'false': 0, 'no': 0,
}  # fmt: skip
ACCEPTED_VALUES = '1 and -1, 1 and 0, true and false, or yes and no'
# In a list without splits, one picture of ten is in each held-out split, drawn
# with this seed.
_SHARE, _SEED = 10, 0


class Attributes(NamedTuple):
  """A list of N images and K attributes."""

  names: tuple[str, ...]  # of the attributes
  images: list[str]  # as listed
  values: np.ndarray  # [N, K] int8 in {-1, +1}
  splits: list[str] | None  # of the images
  others: tuple[str, ...] = ()  # columns that are no attributes


def read_attributes(path: Any, content: bytes) -> Attributes:
  """Reads a list of attributes; InputError, with its line, if it is damaged.

  It has a header with the names of the attributes. CelebA's lists have the
  number of images before it. A CSV file may have more columns: the splits of
  the images, named in `SPLIT_COLUMNS`, and others, which are no attributes if
  fewer than half of their values are `ACCEPTED_VALUES`.
  """
  lines, delimiter, first = _read_lines(content)
  count = lines[0].strip() if re.fullmatch(r'\s*\d+\s*', lines[0]) else None
  header, *rows = _split(lines[1:] if count else lines, delimiter) or [(1, [])]
  first += 1 if count else 0
  rows = [(number + first - 1, cells) for number, cells in rows]
  names, width = header[1], len(rows[0][1]) if rows else 0
  column = 0
  if delimiter or width == len(names):
    column = _find_image_column(names, rows)
  else:
    names = ['', *names]  # That of the image has no name.
  known = [name for i, name in enumerate(names) if i != column and name]
  if (
    (count and int(count) != len(rows))
    or not rows
    or len({*known}) < len(known)
    or (delimiter and {name.lower() for name in known} & _SIGNS.keys())
  ):
    raise errors.InputError(
      f'{path} begins with {files.describe(" / ".join(lines[:2]))}; accepted:'
      f' maybe the number of images ({len(rows)} lines follow), then the names'
      ' of the attributes, each once, then a line for each image.'
    )
  images = _read_images(path, rows, column, len(names))
  parts = [i for i, x in enumerate(names) if x.lower() in SPLIT_COLUMNS]
  columns = [i for i, x in enumerate(names) if x and i not in (column, *parts)]
  known_signs = _Signs(_SIGNS)  # A dict is faster than lower().
  signs = [[known_signs[cells[i]] for i in columns] for _, cells in rows]
  signs = np.array(signs, np.int8).reshape(len(rows), len(columns))
  is_sign = _find_signs(signs)
  kept = np.mean(is_sign, axis=0) >= 0.5
  if not delimiter:
    kept[:] = True
  _check_signs(path, rows, is_sign[:, kept])
  return Attributes(
    tuple(names[i] for i, is_kept in zip(columns, kept) if is_kept),
    images,
    np.where(signs[:, kept] > 0, 1, -1).astype(np.int8),
    [_read_split(path, *row, parts[0]) for row in rows] if parts else None,
    tuple(names[i] for i, is_kept in zip(columns, kept) if not is_kept),
  )


def read_splits(path: Any, content: bytes) -> dict[str, str]:
  """Reads a list of the splits of images, by their names as listed."""
  lines, delimiter, first = _read_lines(content)
  rows = _split(lines, delimiter) or [(1, [])]
  rows = [(number + first - 1, cells) for number, cells in rows]
  column, part = 0, -1
  header = [cell.lower() for cell in rows[0][1]]
  if {*header} & {*SPLIT_COLUMNS}:
    part = next(i for i, name in enumerate(header) if name in SPLIT_COLUMNS)
    rows = rows[1:]
    column = _find_image_column(header, rows)
  width = len(rows[0][1]) if rows and delimiter else 2
  images = _read_images(path, rows, column, width)
  splits = [_read_split(path, *row, part) for row in rows]
  return dict(zip(images, splits))


def choose_splits(
  names: Sequence[str], given: Sequence[str] | None
) -> list[str]:
  """Draws validation and test, a tenth of the images each, if none is given.

  They are the images whose names come first by their sha256 with a seed. Splits
  that hold out any image stand as they are: a test split drawn beside them
  would take training images away. InputError if too few would be left.
  """
  splits = list(given or ['train'] * len(names))
  if {*splits} != {'train'}:
    return splits
  count = max(1, len(names) // _SHARE)
  if len(names) <= 2 * count:
    raise errors.InputError(
      f'there are {len(names)} images to train on; accepted: more than'
      f' {2 * count}, of which validation and test take a tenth each.'
    )
  rank = lambda i: hashlib.sha256(f'{_SEED} {names[i]}'.encode()).digest()
  drawn = sorted(range(len(names)), key=rank)
  for number, split in enumerate(SPLITS[1:]):
    for i in drawn[number * count : (number + 1) * count]:
      splits[i] = split
  return splits


def to_signs(values: Iterable[Any]) -> Mapping[Any, int] | None:
  """Maps the values of a column to -1 and 1; None if they are no attribute."""
  values = [*values]
  signs = {value: _SIGNS.get(str(value).lower(), _NO_SIGN) for value in values}
  found = np.array([*signs.values()], np.int8)[:, None]
  if not found.size or not np.all(_find_signs(found)):
    return None
  return {value: 1 if sign > 0 else -1 for value, sign in signs.items()}


def name_split(text: str) -> str | None:
  """Returns the split that a text names; None if it names none."""
  return _SPLIT_NAMES.get(text.strip().lower())


def _read_lines(content):
  """Decodes a list.

  Returns its lines, what separates their fields (None for spaces), and the
  number of the first: empty lines and Excel's `sep=;` before it are left out.
  """
  lines = re.split('\r\n|\r|\n', _decode(content).rstrip())
  first = next((i for i, line in enumerate(lines) if line.strip()), 0)
  named = re.fullmatch('sep=(.)', lines[first])
  first += bool(named)
  lines = lines[first:] or ['']
  found = named[1] if named else (x for x in ',;\t' if x in lines[0])
  return lines, next(iter(found), None), first + 1


def _decode(content):
  """Decodes text as UTF-8, UTF-16, or else as Excel on Windows writes it."""
  if content[:2] in (b'\xff\xfe', b'\xfe\xff'):
    # Anything but text is reported with its line, like any other mistake.
    return content.decode('utf-16', 'replace')
  try:
    return content.decode('utf-8-sig')
  except UnicodeDecodeError:
    return content.decode('cp1252', 'replace')


def _split(lines, delimiter):
  """Returns the numbers of lines, from 1, and their fields."""
  if delimiter is None:
    rows = [(i, line.split()) for i, line in enumerate(lines, 1)]
    return [(i, cells) for i, cells in rows if cells]
  reader = csv.reader(lines, delimiter=delimiter)
  try:
    return [
      (reader.line_num, [cell.strip() for cell in row]) for row in reader if row
    ]
  except csv.Error as error:
    raise errors.InputError(
      f'line {reader.line_num} is not CSV ({error}); accepted: one that is.'
    ) from error


def _find_image_column(names, rows):
  """Finds the column of the images: by its values, else by its name."""
  first = rows[0][1] if rows else []
  for i, cell in enumerate(first):
    if cell.lower().endswith(image_files.ENDINGS):
      return i
  lower = [name.lower() for name in names]
  return next((lower.index(x) for x in _IMAGE_COLUMNS if x in lower), 0)


def _read_images(path, rows, column, width):
  """Returns the names of the images; each line must have its width."""
  seen = {}
  for number, cells in rows:
    if len(cells) != width or cells[column] in seen or not cells[column]:
      raise errors.InputError(
        f'{path} line {number}: found {files.describe(" ".join(cells))};'
        f' accepted: {width} fields, of which one is the name of an image, each'
        ' once.'
      )
    seen[cells[column]] = None
  return [*seen]


def _read_split(path, number, cells, part):
  split = name_split(cells[part])
  if split is None:
    raise errors.InputError(
      f'{path} line {number}: found {files.describe(" ".join(cells))};'
      ' accepted: one of 0, 1, 2, or train, validation, test.'
    )
  return split


def _find_signs(signs):
  """Returns which are signs: 0 is none beside -1."""
  has_minus = np.any(signs == -1, axis=0, keepdims=True)
  return (signs != _NO_SIGN) & ~((signs == 0) & has_minus)


def _check_signs(path, rows, is_sign):
  if is_sign.shape[1] == 0:
    raise errors.InputError(
      f'{path} has no column of an attribute; accepted: one or more with the'
      f' values {ACCEPTED_VALUES}.'
    )
  if not is_sign.all():
    row = int(np.argmin(is_sign.all(axis=1)))
    number, cells = rows[row]
    raise errors.InputError(
      f'{path} line {number}: found {files.describe(" ".join(cells))};'
      f' accepted: the name of an image and {is_sign.shape[1]} attributes, each'
      f' column {ACCEPTED_VALUES}.'
    )
