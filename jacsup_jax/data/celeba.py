"""Read and prepare a folder of faces in the layout that CelebA comes in.

That is `list_attr_celeba.txt`, `list_eval_partition.txt` and the images, in
the folder `img_align_celeba` or the archive `img_align_celeba.zip`, all in one
folder or in the folders `Anno`, `Eval` and `Img` of the original site. An
archive is read in place, never extracted.
"""

import collections
from collections.abc import Iterator, Mapping
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import re

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import face_builder
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files

ATTRIBUTE_FILE = 'list_attr_celeba.txt'
PARTITION_FILE = 'list_eval_partition.txt'
IMAGES = 'img_align_celeba'

# The number of a split in the partition file is its position here.
SPLITS = ('train', 'validation', 'test')

_VALUES = {'-1': -1, '1': 1}
_AHEAD = 256  # images being decoded while one is written


class CelebaFolder(face_builder.FaceBuilder):
  """Faces and their attributes, from a folder of the user."""


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

  @property
  def splits(self) -> tuple[str, ...]:
    """Those that have images."""
    return tuple(split for split in SPLITS if len(self.find(split)))

  def find(self, split: str) -> np.ndarray:
    """Finds the images of a split, `[N]` int positions in `names`."""
    return np.flatnonzero(self.partitions == SPLITS.index(split))


def open_folder(data_dir: str | os.PathLike) -> FaceFolder:
  """Reads the lists of a folder and checks that they fit its images.

  No image is read yet.

  Args:
    data_dir: the folder, or the archive of the images with the lists beside
      it.

  Raises:
    InputError: if something is missing, damaged, or does not fit.
  """
  path = files.expand_path('--data_dir', data_dir)
  if not files.exists(path):
    raise errors.InputError(
        f'--data_dir={data_dir} is neither a folder nor a zip file: accepted'
        f' is a folder with {ATTRIBUTE_FILE}, {PARTITION_FILE} and {IMAGES} or'
        f' {IMAGES}.zip'
    )
  folder, images = (path, None) if path.is_dir() else (path.parent, path)
  if images and folder.name == 'Img' and not (folder / ATTRIBUTE_FILE).exists():
    folder = folder.parent
  attribute_file = _find(folder, [ATTRIBUTE_FILE, f'Anno/{ATTRIBUTE_FILE}'])
  partition_file = _find(folder, [PARTITION_FILE, f'Eval/{PARTITION_FILE}'])
  archive = f'{IMAGES}.zip'
  images = images or _find(
      folder, [IMAGES, archive, f'Img/{IMAGES}', f'Img/{archive}']
  )
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


def make_config(
    folder: FaceFolder, image_size: int, *, skip_bad_images: bool
) -> face_builder.Config:
  """Makes the configuration for a folder, named after its content.

  Args:
    folder: from `open_folder`.
    image_size: S, in pixels.
    skip_bad_images: whether images that cannot be decoded are left out, not
      refused. It is not part of the name: a set says what it left out.

  Returns:
    The configuration; different folders have different names.
  """
  return face_builder.Config(
      name=f'{image_size}px-{folder.digest[:12]}',
      description=f'Centre squares of {image_size} pixels.',
      image_size=image_size,
      attribute_names=folder.attribute_names,
      generators={
          split: functools.partial(
              _generate, folder, split, image_size, skip_bad_images
          )
          for split in folder.splits
      },
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
    archive = None
    if not folder.images.is_dir():
      archive = stack.enter_context(files.open_archive(folder.images))
    for index in indices.tolist():
      member = folder.members[folder.names[index]]
      if archive is None:
        yield index, files.read_bytes(folder.images / member)
        continue
      try:
        content = archive.read(member)
      except OSError as error:  # The disk fails, not the archive.
        raise files.unreadable(folder.images, error) from error
      except MemoryError:
        raise
      except Exception:  # A damaged entry fails in many ways.
        content = None
      yield index, content


def first_names(names: list[str]) -> str:
  """Lists the first five names for a message of one line."""
  more = ' ...' if len(names) > 5 else ''
  return ', '.join(files.describe(name) for name in names[:5]) + more


def _generate(
    folder: FaceFolder, split: str, image_size: int, skip_bad_images: bool
) -> Iterator[tuple[int, face_builder.Example]]:
  """Yields the examples of a split in order, decoded by threads.

  Pillow works outside Python's lock, so threads use all cores.
  """
  pending = collections.deque()

  def finish():
    index, content, future = pending.popleft()
    name, attributes = folder.names[index], folder.attributes[index]
    try:
      png = future.result()
    except image_files.BadImageError as error:
      if skip_bad_images:
        return index, face_builder.Example(None, attributes, b'', name)
      raise errors.InputError(
          f'{folder.images}: {name} cannot be decoded ({error}): replace it, or'
          ' leave such images out with --skip_bad_images'
      ) from error
    source = f'{name};'.encode() + attributes.tobytes()
    source += hashlib.sha256(content).digest()
    return index, face_builder.Example(png, attributes, source, name)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    for index, content in read_images(folder, folder.find(split)):
      future = pool.submit(_encode, content, image_size, folder.names[index])
      pending.append((index, content, future))
      if len(pending) == _AHEAD:
        yield finish()
    while pending:
      yield finish()


def _encode(content: bytes | None, image_size: int, name: str) -> bytes:
  if content is None:
    raise image_files.BadImageError('its entry in the archive is damaged')
  return image_files.encode_png(image_files.decode(content, image_size, name))


def _find(folder: pathlib.Path, places: list[str]) -> pathlib.Path:
  for place in places:
    if (folder / place).exists():
      return folder / place
  raise errors.InputError(
      f'--data_dir={folder} has no {places[0]}: looked for'
      f' {", ".join(places)}'
  )


def _read_lines(path: pathlib.Path) -> list[str]:
  # Anything but text is reported with its line, like any other mistake.
  text = files.read_bytes(path).decode(errors='replace')
  return text.rstrip().split('\n') if text.strip() else []


def _read_attributes(
    path: pathlib.Path,
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
  """Reads names of attributes, names of images and `[M, K]` values."""
  lines = _read_lines(path)
  if len(lines) < 2 or not re.fullmatch(r'\s*[0-9]{1,9}\s*', lines[0]):
    found = files.describe(lines[0]) if lines else 'nothing'
    raise errors.InputError(
        f'{path} line 1: found {found}, expected the number of images, and the'
        ' names of the attributes in line 2'
    )
  count, names = int(lines[0]), tuple(lines[1].split())
  if not names or len(set(names)) < len(names) or set(names) & set(_VALUES):
    raise errors.InputError(
        f'{path} line 2: found {files.describe(lines[1])}, expected the names'
        ' of the attributes, each once'
    )
  if len(lines) - 2 != count:
    raise errors.InputError(
        f'{path} line 1 states {count} images, and {len(lines) - 2} lines'
        ' follow the names of the attributes'
    )
  rows = {}
  for number, line in enumerate(lines[2:], start=3):
    name, *values = line.split() or ['']
    if len(values) != len(names):
      raise errors.InputError(
          f'{path} line {number}: found {len(values)} values, expected'
          f' {len(names)} after the name of an image'
      )
    if not _VALUES.keys() >= set(values):
      wrong = next(value for value in values if value not in _VALUES)
      raise errors.InputError(
          f'{path} line {number}: found the value {files.describe(wrong)},'
          ' accepted are -1 and 1'
      )
    if name in rows:
      raise errors.InputError(
          f'{path} line {number}: {files.describe(name)} comes a second time'
      )
    rows[name] = [_VALUES[value] for value in values]
  attributes = np.array(list(rows.values()), np.int8)
  return names, tuple(rows), attributes.reshape(len(rows), len(names))


def _read_partitions(
    path: pathlib.Path, names: tuple[str, ...], attribute_file: pathlib.Path
) -> np.ndarray:
  """Reads `[M]` partitions, in the order of the names."""
  known, found = set(names), {}
  for number, line in enumerate(_read_lines(path), start=1):
    name, *values = line.split() or ['']
    if len(values) != 1 or values[0] not in ('0', '1', '2'):
      raise errors.InputError(
          f'{path} line {number}: found {files.describe(line)}, expected the'
          ' name of an image and 0 (train), 1 (validation) or 2 (test)'
      )
    if name not in known or name in found:
      reason = (
          'comes a second time' if name in known
          else f'is not in {attribute_file.name}'
      )
      raise errors.InputError(
          f'{path} line {number}: {files.describe(name)} {reason}'
      )
    found[name] = int(values[0])
  missing = [name for name in names if name not in found]
  if missing:
    raise errors.InputError(
        f'{path} names {len(found)} images and {attribute_file.name}'
        f' {len(names)}: missing are {first_names(missing)}'
    )
  return np.array([found[name] for name in names], np.int8)


def _list_folder(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Lists the files by name, and what marks each one's content."""
  members, marks = {}, {}
  try:
    with os.scandir(path) as entries:
      for entry in entries:
        if not entry.name.startswith('.') and entry.is_file():
          status = entry.stat()
          members[entry.name] = entry.name
          marks[entry.name] = f'{status.st_size} {status.st_mtime_ns}'
  except OSError as error:
    raise files.unreadable(path, error) from error
  return members, marks


def _list_archive(path: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
  """Lists the entries by file name, and what marks each one's content."""
  members, marks = {}, {}
  with files.open_archive(path) as archive:
    for info in archive.infolist():
      name = pathlib.PurePosixPath(info.filename).name
      # macOS adds entries of its own.
      if info.is_dir() or name.startswith('.') or '__MACOSX' in info.filename:
        continue
      if name in members:
        raise errors.InputError(
            f'{path} has {files.describe(members[name])} and'
            f' {files.describe(info.filename)}: expected each name once'
        )
      members[name] = info.filename
      marks[name] = f'{info.file_size} {info.CRC}'
  return members, marks


def _check_members(images, members, attribute_file, names):
  missing = [name for name in names if name not in members]
  unlisted = sorted(set(members) - set(names))
  if not missing and not unlisted:
    return
  parts = []
  if missing:
    parts.append(f'missing are {first_names(missing)}')
  if unlisted:
    parts.append(f'unlisted are {first_names(unlisted)}')
  raise errors.InputError(
      f'{images} holds {len(members)} images and {attribute_file} names'
      f' {len(names)}: {"; ".join(parts)}'
  )
