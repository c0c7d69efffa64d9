"""Read faces from parquet files, as hubs of data sets publish them.

A row has a picture and columns of two values, its attributes. The extra
`parquet` has the reader; see setup.cfg.
"""

from collections.abc import Iterator, Mapping, Sequence
import hashlib
import re
import types
from typing import NamedTuple

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import face_files
from jacsup_jax.data import face_lists
from jacsup_jax.data import files

_SPLIT = re.compile(r'(?:^|[/_-])([a-z]+)(?=[/._-])')
_READ_SIZE = 256  # rows that are read at a time


class Table(NamedTuple):
  """The rows of parquet files, N in all, without their pictures."""

  entries: Sequence[face_files.Entry]  # one a file
  image_column: str
  attributes: face_lists.Attributes  # images are named `PLACE:ROW`
  key: str  # sha256 of what marks the files


def read(found: Mapping[str, face_files.Entry]) -> Table | None:
  """Reads the columns of the parquet files among some; None if there is none.

  The split of a row is that of a column of `SPLIT_COLUMNS`, else the one that
  its file's name or folder says. InputError if a file is damaged, in an archive
  or has other columns than the first, if there are no pictures or attributes,
  or if pyarrow is not installed.
  """
  places = sorted(x for x in found if x.lower().endswith('.parquet'))
  if not places:
    return None
  entries = [found[place] for place in places]
  if packed := next((entry for entry in entries if entry.member), None):
    raise errors.InputError(
      f'{packed} is in an archive; accepted: parquet files, unpacked.'
    )
  pyarrow = _import(entries[0])
  tables, sha256 = [], hashlib.sha256()
  for place, entry in zip(places, entries):
    with _reading(entry), pyarrow.parquet.ParquetFile(entry.path) as file:
      schema = file.schema_arrow
      image_column = _find_image_column(pyarrow, entry, schema)
      others = [name for name in schema.names if name != image_column]
      tables.append(file.read(columns=others).flatten())
    if tables[-1].schema.names != tables[0].schema.names:
      raise errors.InputError(
        f'{entry} has other columns than {entries[0]}; accepted: the files of'
        ' one data set.'
      )
    sha256.update(f'{place} {face_files.get_mark(entry)};'.encode())
  attributes = _read_columns(places, tables, pyarrow)
  return Table(entries, image_column, attributes, sha256.hexdigest())


def iterate(
  table: Table, rows: Sequence[int]
) -> Iterator[tuple[int, bytes | None]]:
  """Yields rows, which rise, with the contents of their pictures, if any."""
  wanted, start = np.asarray(rows, np.int64), 0
  pyarrow = _import(table.entries[0])
  for entry in table.entries:
    with _reading(entry), pyarrow.parquet.ParquetFile(entry.path) as file:
      end = start + file.metadata.num_rows
      own = wanted[np.searchsorted(wanted, start) :]
      own = {*own[: np.searchsorted(own, end)].tolist()}
      if own:
        for batch in file.iter_batches(
          _READ_SIZE, columns=[table.image_column]
        ):
          for value in batch.column(0).to_pylist():
            if start in own:
              is_struct = isinstance(value, dict)
              yield start, value.get('bytes') if is_struct else value
            start += 1
      start = end


def _import(entry) -> types.ModuleType:
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError as error:
    raise errors.InputError(
      f'{entry} needs pyarrow, which is not installed; accepted: after pip'
      ' install pyarrow.'
    ) from error
  return pyarrow


class _reading:
  """Turns what a damaged file raises into one line that names it."""

  def __init__(self, entry):
    self._entry = entry

  def __enter__(self):
    return self

  def __exit__(self, unused_kind, error, unused_trace):
    if isinstance(error, (errors.InputError, MemoryError, GeneratorExit)):
      return
    if isinstance(error, Exception):
      reason = errors.one_line(str(error))[:200]
      raise errors.InputError(
        f'{self._entry} is damaged or not readable ({reason}); accepted: a'
        ' whole parquet file.'
      ) from error


def _find_image_column(pyarrow, entry, schema) -> str:
  """Finds the column of pictures: bytes, or a struct with them."""
  for field in schema:
    kind = field.type
    if pyarrow.types.is_struct(kind) and kind.get_field_index('bytes') >= 0:
      return field.name
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
      return field.name
  raise errors.InputError(
    f'{entry} has the columns {files.some(schema.names)}, none of pictures;'
    ' accepted: one with the bytes of picture files.'
  )


def _read_columns(places, tables, pyarrow) -> face_lists.Attributes:
  whole = pyarrow.concat_tables(tables, promote_options='permissive')
  names, columns, others, splits = [], [], [], None
  for name, column in zip(whole.schema.names, whole.columns):
    try:
      values = pyarrow.compute.unique(column).to_pylist()
    except pyarrow.ArrowNotImplementedError:  # Nested types.
      values = []
    if name.lower() in face_lists.SPLIT_COLUMNS:
      splits = [face_lists.name_split(str(x)) for x in column.to_pylist()]
      continue
    signs = face_lists.to_signs(values[:3])
    if signs is None:
      others.append(name)
      continue
    names.append(name.rpartition('.')[2])  # A column in a struct.
    columns.append([signs[value] for value in column.to_pylist()])
  if not names or len({*names}) < len(names) or None in (splits or ()):
    raise errors.InputError(
      f'{places[0]} has the columns {files.some(whole.schema.names)}; accepted:'
      f' attributes, each a column with {face_lists.ACCEPTED_VALUES}, and maybe'
      ' one of splits.'
    )
  counts = [table.num_rows for table in tables]
  if splits is None:
    of_files = [_name_split(place) for place in places]
    if None not in of_files:
      splits = np.repeat(of_files, counts).tolist()
  images = [f'{x}:{row}' for x, n in zip(places, counts) for row in range(n)]
  values = np.array(columns, np.int8).T.copy()
  return face_lists.Attributes(
    tuple(names), images, values, splits, tuple(others)
  )


def _name_split(place):
  """Returns the split that a file's name says, or the nearest folder."""
  words = _SPLIT.findall(place.lower())
  return next(filter(None, map(face_lists.name_split, reversed(words))), None)
