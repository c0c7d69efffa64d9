"""Reads and checks a folder of faces in the layout that CelebA comes in.

That is `list_attr_celeba.txt`, `list_eval_partition.txt` and the images, in
the folder `img_align_celeba` or the archive `img_align_celeba.zip`, all in one
folder or in the folders `Anno`, `Eval` and `Img` of the original site. An
archive is read in place, never extracted.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import zipfile

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import npz

ATTRIBUTE_FILE = 'list_attr_celeba.txt'
PARTITION_FILE = 'list_eval_partition.txt'
IMAGES = 'img_align_celeba'

# The number of a split in the partition file is its position here.
SPLITS = ('train', 'validation', 'test')

_VALUES = {'-1': -1, '1': 1}
_SHOWN = 5  # Names in a message.
# Bytes of a list: ten times CelebA's, of 202,599 images and 40 attributes.
_LONGEST_LIST = 256 * 2**20
_MOST_ATTRIBUTES = 1000
# Bytes of an encoded image: CelebA's have some 8,000, a PNG of 1024x1024 has
# three million, one of `squares`' largest may have as many as this.
_LARGEST_IMAGE = 256 * 2**20
_ENCRYPTED = 0x1
# All that archives of images use; others may ask for any memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclasses.dataclass(frozen=True, eq=False)
class FaceFolder:
  """A folder whose lists and images fit together.

  Attributes:
    images: the folder or archive of the images.
    attribute_names: of the K attributes, in the order of their list.
    names: of the M images, in the order of the attribute list.
    attributes: `[M, K]` int8 in {-1, +1}.
    partitions: `[M]` int8, positions in `SPLITS`.
    members: file name or archive entry, by image name.
    digest: sha256 that changes with the lists, the names and the sizes of the
      images, and with their checksums (archive) or times (folder). It tells
      prepared sets apart; the images themselves are not read for it.
  """

  images: pathlib.Path
  attribute_names: tuple[str, ...]
  names: tuple[str, ...]
  attributes: np.ndarray
  partitions: np.ndarray
  members: Mapping[str, str]
  digest: str

  def find(self, split: str) -> np.ndarray:
    """Finds the images of a split.

    Args:
      split: one of `SPLITS`.

    Returns:
      `[N]` int, positions in `names`; N may be 0.
    """
    return np.flatnonzero(self.partitions == SPLITS.index(split))


def open_folder(data_dir: str | os.PathLike) -> FaceFolder:
  """Reads the lists of a folder and checks that they fit its images.

  Args:
    data_dir: the folder, or the archive of the images with the lists beside
      it.

  Returns:
    The folder; no image is read yet.

  Raises:
    InputError: if something is missing, damaged, or does not fit, in one line
      that says which and what was expected.
  """
  path = pathlib.Path(data_dir).expanduser()
  is_there = untrusted.exists(path)
  if is_there and path.is_dir():
    folder, images = path, None
  elif is_there and path.is_file():
    folder, images = path.parent, path
    if folder.name == 'Img' and not (folder / ATTRIBUTE_FILE).is_file():
      folder = folder.parent
  else:
    raise errors.InputError(
        f'--data_dir={data_dir} is neither a folder nor a zip file: accepted'
        f' is a folder with {ATTRIBUTE_FILE}, {PARTITION_FILE} and {IMAGES} or'
        f' {IMAGES}.zip'
    )
  attribute_file = _find_list(folder, ATTRIBUTE_FILE, 'Anno')
  partition_file = _find_list(folder, PARTITION_FILE, 'Eval')
  images = images or _find_images(folder)
  attribute_names, names, attributes = _read_attributes(attribute_file)
  partitions = _read_partitions(partition_file, names, attribute_file)
  members, marks = (
      _list_folder(images) if images.is_dir() else _list_archive(images)
  )
  _check_members(images, members, attribute_file, names)

  sha256 = hashlib.sha256()
  for file in (attribute_file, partition_file):
    sha256.update(hashlib.sha256(file.read_bytes()).digest())
  for name in names:
    sha256.update(f'{name} {marks[name]};'.encode())
  return FaceFolder(
      images=images,
      attribute_names=attribute_names,
      names=names,
      attributes=attributes,
      partitions=partitions,
      members=members,
      digest=sha256.hexdigest(),
  )


def read_images(
    folder: FaceFolder, indices: np.ndarray
) -> Iterator[tuple[int, bytes | None]]:
  """Reads encoded images, in the order asked for.

  Args:
    folder: from `open_folder`.
    indices: `[N]` int, positions in `folder.names`.

  Yields:
    (position, content); the content is None where an archive's entry is
    damaged.

  Raises:
    InputError: if a file cannot be read.
  """
  with contextlib.ExitStack() as stack:
    if folder.images.is_dir():
      archive = None
    else:
      archive = stack.enter_context(_open_archive(folder.images))
    for index in indices.tolist():
      member = folder.members[folder.names[index]]
      try:
        if archive is None:
          content = untrusted.read(folder.images / member, _LARGEST_IMAGE)
        else:
          content = archive.read(member)
      except errors.InputError:
        raise
      except OSError as error:  # Of the disk.
        raise errors.InputError(
            f'{folder.images}: {member} cannot be read: {error}'
        ) from error
      except Exception:  # Anything, of a damaged entry.
        content = None
      yield index, content


def first_names(names: list[str]) -> str:
  """Lists the first five names for a message of one line."""
  more = ' ...' if len(names) > _SHOWN else ''
  return ', '.join(_shown(name) for name in names[:_SHOWN]) + more


def _find_list(
    folder: pathlib.Path, name: str, original: str
) -> pathlib.Path:
  places = (folder / name, folder / original / name)
  for path in places:
    if path.is_file():
      return path
  raise errors.InputError(
      f'--data_dir={folder} has no {name}: looked for {places[0]} and'
      f' {places[1]}'
  )


def _find_images(folder: pathlib.Path) -> pathlib.Path:
  for parent in (folder, folder / 'Img'):
    if (parent / IMAGES).is_dir():
      return parent / IMAGES
    if (parent / f'{IMAGES}.zip').is_file():
      return parent / f'{IMAGES}.zip'
  raise errors.InputError(
      f'--data_dir={folder} has no images: looked for the folder {IMAGES} and'
      f' for {IMAGES}.zip, here and in Img'
  )


def _read_lines(path: pathlib.Path) -> list[str]:
  # Whatever is not text is reported with its line, as any other mistake.
  text = untrusted.read(path, _LONGEST_LIST).decode(errors='replace')
  return text.rstrip().split('\n') if text.strip() else []


def _read_attributes(
    path: pathlib.Path,
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
  """Reads names of attributes, names of images and `[M, K]` values."""
  lines = _read_lines(path)
  if len(lines) < 2 or not re.fullmatch(r'\s*[0-9]{1,9}\s*', lines[0]):
    found = _shown(lines[0]) if lines else 'nothing'
    raise errors.InputError(
        f'{path} line 1: found {found}, expected the number of images, and the'
        ' names of the attributes in line 2'
    )
  count, attribute_names = int(lines[0]), tuple(lines[1].split())
  if (
      not attribute_names
      or len(set(attribute_names)) < len(attribute_names)
      or set(attribute_names[1:]) & set(_VALUES)
  ):
    raise errors.InputError(
        f'{path} line 2: found {_shown(lines[1])}, expected the names of the'
        ' attributes, each once'
    )
  if len(attribute_names) > _MOST_ATTRIBUTES:
    raise errors.InputError(
        f'{path} line 2: found {len(attribute_names)} names, accepted are'
        f' {_MOST_ATTRIBUTES} at most'
    )
  if len(lines) - 2 != count:
    raise errors.InputError(
        f'{path} line 1 states {count} images, and {len(lines) - 2} lines'
        ' follow the names of the attributes'
    )
  rows = {}
  for number, line in enumerate(lines[2:], start=3):
    name, *values = line.split() or ['']
    if len(values) != len(attribute_names):
      raise errors.InputError(
          f'{path} line {number}: found {len(values)} values, expected'
          f' {len(attribute_names)} after the name of an image'
      )
    try:
      row = [_VALUES[value] for value in values]
    except KeyError as error:
      raise errors.InputError(
          f'{path} line {number}: found the value {_shown(error.args[0])},'
          ' accepted are -1 and 1'
      ) from error
    if name in rows:
      raise errors.InputError(
          f'{path} line {number}: {_shown(name)} comes a second time'
      )
    rows[name] = row
  attributes = np.array(list(rows.values()), np.int8)
  return (
      attribute_names,
      tuple(rows),
      attributes.reshape(len(rows), len(attribute_names)),
  )


def _read_partitions(
    path: pathlib.Path, names: tuple[str, ...], attribute_file: pathlib.Path
) -> np.ndarray:
  """Reads `[M]` partitions, in the order of the names."""
  known, found = set(names), {}
  for number, line in enumerate(_read_lines(path), start=1):
    name, *values = line.split() or ['']
    if len(values) != 1 or values[0] not in ('0', '1', '2'):
      raise errors.InputError(
          f'{path} line {number}: found {_shown(line)}, expected the name of'
          ' an image and 0 (train), 1 (validation) or 2 (test)'
      )
    if name not in known or name in found:
      reason = (
          'comes a second time' if name in known
          else f'is not in {attribute_file.name}'
      )
      raise errors.InputError(f'{path} line {number}: {_shown(name)} {reason}')
    found[name] = int(values[0])
  missing = [name for name in names if name not in found]
  if missing:
    raise errors.InputError(
        f'{path} names {len(found)} images and {attribute_file.name}'
        f' {len(names)}: missing are {first_names(missing)}'
    )
  return np.array([found[name] for name in names], np.int8)


def _list_folder(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Gives the files by name, and what marks each one's content."""
  members, marks = {}, {}
  try:
    with os.scandir(path) as entries:
      for entry in entries:
        if entry.name.startswith('.') or not entry.is_file():
          continue
        status = entry.stat()
        members[entry.name] = entry.name
        marks[entry.name] = f'{status.st_size} {status.st_mtime_ns}'
  except OSError as error:
    raise errors.InputError(f'{path} cannot be read: {error}') from error
  return members, marks


def _list_archive(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Gives the entries by file name, and what marks each one's content."""
  members, marks = {}, {}
  with _open_archive(path) as archive:
    for info in archive.infolist():
      parts = re.split(r'[/\\]', info.filename)
      if not parts[0] or ':' in parts[0] or '..' in parts:
        raise errors.InputError(
            f'{path} has the entry {_shown(info.filename)}, which leads out of'
            ' the folder: this is not the original archive'
        )
      # macOS adds entries of its own.
      if info.is_dir() or parts[-1].startswith('.') or '__MACOSX' in parts:
        continue
      _check_entry(path, info)
      if parts[-1] in members:
        raise errors.InputError(
            f'{path} has {_shown(members[parts[-1]])} and'
            f' {_shown(info.filename)}: expected each name once'
        )
      members[parts[-1]] = info.filename
      marks[parts[-1]] = f'{info.file_size} {info.CRC}'
  return members, marks


def _check_entry(path: pathlib.Path, info: zipfile.ZipInfo) -> None:
  """Checks what the archive's directory says of an image."""
  kind = stat.S_IFMT(info.external_attr >> 16)
  reason = None
  if kind not in (0, stat.S_IFREG):
    reason = 'is a link or no file'
  elif info.flag_bits & _ENCRYPTED:
    reason = 'is encrypted'
  elif info.compress_type not in _METHODS:
    reason = f'is compressed by method {info.compress_type}'
  elif info.file_size > _LARGEST_IMAGE:
    reason = f'has {info.file_size:,} bytes'
  if reason:
    raise errors.InputError(
        f'{path} has the entry {_shown(info.filename)}, which {reason}:'
        ' accepted are files, stored or deflated, of'
        f' {_LARGEST_IMAGE:,} bytes at most'
    )


def _open_archive(path: pathlib.Path) -> zipfile.ZipFile:
  try:
    return npz.open_archive(path)
  except npz.DamagedError as error:
    with path.open('rb') as file:
      start = file.read(1024)
    text = start.lstrip().lower()
    if text.startswith(b'<') and b'html' in text:
      reason = (
          'is a web page, such as Google Drive sends when its quota for a file'
          ' is used up: download the archive again'
      )
    elif start.startswith(b'PK'):
      reason = 'is cut short or damaged: download the archive again'
    else:
      reason = (
          f'is not a zip file: it starts with {start[:4].hex() or "nothing"}'
      )
    raise errors.InputError(f'{path} {reason}') from error


def _check_members(
    images: pathlib.Path,
    members: Mapping[str, str],
    attribute_file: pathlib.Path,
    names: tuple[str, ...],
) -> None:
  missing = [name for name in names if name not in members]
  unlisted = sorted(set(members) - set(names))
  if not missing and not unlisted:
    return
  message = (
      f'{images} holds {len(members)} images and {attribute_file} names'
      f' {len(names)}'
  )
  if missing:
    message += f': missing are {first_names(missing)}'
  if unlisted:
    message += f'{";" if missing else ":"} unlisted are {first_names(unlisted)}'
  raise errors.InputError(message)


def _shown(text: str) -> str:
  """Quotes text of any length and any characters for one line."""
  return repr(text if len(text) <= 60 else text[:60] + '...')
