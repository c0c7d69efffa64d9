"""Read a folder of faces in the layout that CelebA comes in.

The lists and the images, or their archive, are in one folder, or in the folders
`Anno`, `Eval` and `Img` of the original site.
"""

from concurrent import futures
import hashlib
import itertools
import os
import pathlib

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared
from jacsup_jax.data import registry

# The number of a split in the partition file is its position here.
SPLITS = ('train', 'validation', 'test')

# Attributes of which an edit can ask for one alone. The pairs are those that
# AttGAN and STGAN keep apart when they are tested.
_HAIR = ('Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair')
EXCLUSIVE = (
  *itertools.combinations(_HAIR, 2),
  *(('Bald', 'Bangs'), ('Receding_Hairline', 'Bangs')),
  *(('Straight_Hair', 'Wavy_Hair'), ('Mustache', 'No_Beard')),
)

_IMAGES = 'img_align_celeba'
_ACCEPTED = (
  'a folder with list_attr_celeba.txt, list_eval_partition.txt and'
  f' {_IMAGES} or {_IMAGES}.zip'
)
_AHEAD = 256  # images being decoded while others are written


def find_source(
  data_dir: files.Path | None, image_size: int, skip_bad_images: bool
) -> registry.FaceSource:
  """Reads the lists of a folder, or beside an archive, and no image yet."""
  attribute_file, partition_file, images = _find_files(data_dir)
  attribute_names, rows = _read_attributes(attribute_file)
  lines = _read_lines(partition_file)
  partitions = _read_rows(partition_file, lines, 1, 1, ('0', '1', '2'))
  members = _list_folder(images) if images.is_dir() else _list_archive(images)
  for path, found in ((partition_file, partitions), (images, members)):
    missing = [name for name in rows if name not in found]
    others = sorted(found.keys() - rows.keys())
    if missing or others:
      raise errors.InputError(
        f'{path} lacks {files.some(missing) or "nothing"} and has in addition'
        f' {files.some(others) or "nothing"}; accepted: the {len(rows)} images'
        f' of {attribute_file}.'
      )
  by_split = {split: [] for split in SPLITS}
  for name in rows:
    by_split[SPLITS[partitions[name][0]]].append(name)

  def generate(split):
    archive = None if images.is_dir() else files.open_archive(images)

    def make(name):
      """Makes one face, or its name if it is left out."""
      try:
        content = _read_image(images, archive, members[name][0])
        image = image_files.decode(content, image_size, name)
      except image_files.BadImageError as error:
        if skip_bad_images:
          return name
        raise errors.InputError(
          f'{images}: {name} cannot be decoded ({error}); accepted: whole'
          ' images, or --skip_bad_images, which leaves such out.'
        ) from error
      attributes = np.array(rows[name], np.int8)
      source = f'{name};'.encode() + attributes.tobytes()
      source += hashlib.sha256(content).digest()
      return registry.Face(image, attributes, source)

    names = by_split[split]
    # Pillow works outside Python's lock, so threads use all cores.
    with futures.ThreadPoolExecutor() as pool:
      for start in range(0, len(names), _AHEAD):
        yield from pool.map(make, names[start : start + _AHEAD])

  # What the set is known by, of which no image is read.
  sha256 = hashlib.sha256()
  for path in (attribute_file, partition_file):
    sha256.update(hashlib.sha256(path.read_bytes()).digest())
  for name in rows:
    sha256.update(f'{name} {members[name][1]};'.encode())
  key = sha256.hexdigest()[:12] + '-skip' * skip_bad_images
  splits = tuple(split for split in SPLITS if by_split[split])
  root = prepared.find_root(None)
  return registry.FaceSource(root, key, attribute_names, splits, generate)


def _read_image(images, archive, member) -> bytes:
  if archive is None:
    return files.read_bytes(images / member)
  try:
    return archive.read(member)
  except OSError as error:  # The disk fails, not the archive.
    raise files.unreadable(images, error) from error
  except MemoryError:
    raise
  except Exception as error:  # A damaged entry fails in many ways.
    raise image_files.BadImageError('its archive entry is damaged') from error


def _find_files(data_dir) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
  if data_dir is None:
    raise errors.InputError(
      f'--dataset=celeba_folder needs --data_dir; accepted: {_ACCEPTED}.'
    )
  path = files.expand_path('--data_dir', data_dir).absolute()
  is_archive = os.path.isfile(path)
  folder = path.parent if is_archive else path
  names = (path.name,) if is_archive else (_IMAGES, f'{_IMAGES}.zip')
  return (
    _find(folder, ('', 'Anno/', '../Anno/'), 'list_attr_celeba.txt'),
    _find(folder, ('', 'Eval/', '../Eval/'), 'list_eval_partition.txt'),
    _find(folder, ('', 'Img/'), *names),
  )


def _find(folder, places, *names) -> pathlib.Path:
  for place in places:
    for name in names:
      if files.exists(folder / place / name):
        return folder / place / name
  raise errors.InputError(
    f'--data_dir={folder} has no {names[0]}; accepted: {_ACCEPTED}.'
  )


def _read_lines(path) -> list[str]:
  # Anything but text is reported with its line, like any other mistake.
  return files.read_bytes(path).decode(errors='replace').rstrip().split('\n')


def _read_attributes(path) -> tuple[tuple[str, ...], dict[str, list[int]]]:
  """Reads the names of the attributes, and their values by image."""
  first, second, *lines = [*_read_lines(path), '']
  names = tuple(second.split())
  lines = lines[:-1]
  if first.split() != [str(len(lines))] or len(set(names)) < len(names):
    raise errors.InputError(
      f'{path} begins with {files.describe(f"{first} / {second}")}; accepted:'
      f' the number of images ({len(lines)} lines follow), then the names of'
      ' the attributes, each once.'
    )
  return names, _read_rows(path, lines, 3, len(names), ('-1', '1'))


def _read_rows(path, lines, first_number, width, accepted):
  """Reads lines of an image's name and as many values as `width`, by name."""
  rows = {}
  for number, line in enumerate(lines, first_number):
    name, *values = line.split() or ['']
    is_good = len(values) == width and set(values) <= set(accepted)
    if not is_good or name in rows:
      raise errors.InputError(
        f'{path} line {number}: found {files.describe(line)}; accepted: the'
        f' name of an image, each once, and {width} of {", ".join(accepted)}.'
      )
    rows[name] = [int(value) for value in values]
  return rows


def _list_folder(path) -> dict[str, tuple[str, str]]:
  """Lists, by file name, where an image is and what marks its content."""
  members = {}
  try:
    for entry in os.scandir(path):
      if not entry.name.startswith('.') and entry.is_file():
        mark = f'{entry.stat().st_size} {entry.stat().st_mtime_ns}'
        members[entry.name] = entry.name, mark
    return members
  except OSError as error:
    raise files.unreadable(path, error) from error


def _list_archive(path) -> dict[str, tuple[str, str]]:
  members = {}
  with files.open_archive(path) as archive:
    for info in archive.infolist():
      name = pathlib.PurePosixPath(info.filename).name
      # macOS adds entries of its own.
      if info.is_dir() or name.startswith('.') or '__MACOSX' in info.filename:
        continue
      if name in members:
        raise errors.InputError(
          f'{path} has {files.describe(name)} twice; accepted: each name once.'
        )
      members[name] = info.filename, f'{info.file_size} {info.CRC}'
  return members
