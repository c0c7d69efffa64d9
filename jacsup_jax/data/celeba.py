"""Read CelebA in the forms that it comes in, and folders of your own faces.

A folder, or a zip file, holds lists and pictures anywhere within it: the lists
of the original site, Kaggle's CSV files, CelebAMask-HQ, or one CSV file with a
line for each picture; or it holds parquet files.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
import functools
import hashlib
import itertools
import os
import pathlib
import re
from typing import NamedTuple

from jacsup_jax.core import errors
from jacsup_jax.data import face_files
from jacsup_jax.data import face_lists
from jacsup_jax.data import face_parquet
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files
from jacsup_jax.data import prepared
from jacsup_jax.data import registry

SPLITS = face_lists.SPLITS

# Attributes of which an edit can ask for one alone. The pairs are those that
# AttGAN and STGAN keep apart when they are tested.
_HAIR = ('Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair')
EXCLUSIVE = (
  *itertools.combinations(_HAIR, 2),
  *(('Bald', 'Bangs'), ('Receding_Hairline', 'Bangs')),
  *(('Straight_Hair', 'Wavy_Hair'), ('Mustache', 'No_Beard')),
)

# Folders of pictures, the first that has any; else all pictures are taken.
_FOLDERS = ('img_align_celeba', 'img_align_celeba_png', 'CelebA-HQ-img')
_LISTS = ('.txt', '.csv', '.tsv')
# Other lists of CelebA and CelebAMask-HQ.
_OTHER_LISTS = ('bbox', 'landmark', 'identity', 'pose', 'mapping', 'partition')
_ACCEPTED = (
  'a folder or zip file of CelebA as it comes (list_attr_celeba.txt or .csv'
  f' with {_FOLDERS[0]} or {_FOLDERS[0]}.zip, CelebAMask-HQ, or parquet files),'
  ' or pictures with one CSV file, a column for their names and one for each'
  ' attribute'
)
_AHEAD = 256  # images being decoded while others are written
_Files = Mapping[str, face_files.Entry]


class _Listed(NamedTuple):
  """Lists that were read, by the files that they are in."""

  entries: Sequence[face_files.Entry]
  attributes: face_lists.Attributes
  splits: Mapping[str, str] | None  # by the name of an image


def find_source(
  data_dir: files.Path | None,
  image_size: int,
  skip_bad_images: bool = False,
  skip_missing_images: bool = False,
) -> registry.FaceSource:
  """Reads the lists of a folder, or beside an archive, and no image yet."""
  path = _find_path(data_dir)
  found, archives = _list_files(path)
  listed = _find_lists(path, found, archives)
  if listed is None:
    table = face_parquet.read(found)
    if table is None:
      raise _refuse(path, found)
    return _make_parquet_source(table, image_size, skip_bad_images)
  places, pictures = _find_pictures(path, listed, found, archives)
  names = listed.attributes.images
  rows = [row for row, name in enumerate(names) if name in places]
  notes = _check_missing(path, listed, places, skip_missing_images)
  unlisted = sorted(pictures.keys() - {*places.values()})
  if unlisted:
    notes.append(
      f'{len(unlisted)} pictures are in no list and are left out:'
      f' {files.some(unlisted)}.'
    )
  splits = _find_splits(listed, rows, notes)
  entries = {row: pictures[places[names[row]]] for row in rows}

  # What the set is known by, of which no image is read.
  sha256 = hashlib.sha256()
  with face_files.Reader() as reader:
    for entry in listed.entries:
      sha256.update(hashlib.sha256(reader.read(entry)).digest())
  for row in rows:
    mark = face_files.get_mark(entries[row])
    sha256.update(f'{names[row]} {mark};'.encode())

  def read(chosen, reader):
    for row in chosen:
      yield row, functools.partial(reader.read, entries[row])

  return _make_source(
    *(listed.attributes, dict(zip(rows, splits)), read, sha256.hexdigest()),
    *(image_size, skip_bad_images, notes),
  )


def _make_parquet_source(table, image_size, skip_bad_images):
  own, notes = table.attributes, []
  rows = range(len(own.images))
  listed = _Listed(table.entries, own, None)
  splits = _find_splits(listed, rows, notes)

  def read(chosen, unused_reader):
    for row, content in face_parquet.iterate(table, chosen):
      yield row, lambda content=content: content or b''

  return _make_source(
    *(own, dict(zip(rows, splits)), read, table.key),
    *(image_size, skip_bad_images, notes),
  )


def _make_source(
  attributes: face_lists.Attributes,
  splits: Mapping[int, str],
  read: Callable[..., Iterator[tuple[int, Callable[[], bytes]]]],
  key: str,
  image_size: int,
  skip_bad_images: bool,
  notes: Sequence[str],
) -> registry.FaceSource:
  """Makes the source of the rows of a list, whose splits are given.

  `read` takes rows and a `face_files.Reader`, and gives each row with a
  function that reads its picture.
  """

  def make(row, read_content):
    """Makes one face, or its name if it is left out."""
    name, values = attributes.images[row], attributes.values[row]
    try:
      content = read_content()
      image = image_files.decode(content, image_size, name)
    except image_files.BadImageError as error:
      if skip_bad_images:
        return name
      raise errors.InputError(
        f'{name} cannot be decoded ({error}); accepted: whole images, or'
        ' --skip_bad_images, which leaves such out.'
      ) from error
    source = f'{name};'.encode() + values.tobytes()
    return registry.Face(
      image, values, source + hashlib.sha256(content).digest()
    )

  def generate(split):
    rows = [row for row, own in splits.items() if own == split]
    # Pillow works outside Python's lock, so threads use all cores.
    with face_files.Reader() as reader, futures.ThreadPoolExecutor() as pool:
      for some in _take(read(rows, reader), _AHEAD):
        yield from pool.map(make, *zip(*some))

  there = {*splits.values()}
  return registry.FaceSource(
    prepared.find_root(None),
    key[:12] + '-skip' * skip_bad_images,
    attributes.names,
    tuple(split for split in SPLITS if split in there),
    generate,
    tuple(notes),
  )


def _take(iterable: Iterable, count: int) -> Iterator[list]:
  """Yields lists of `count` elements; the last may be shorter."""
  iterator = iter(iterable)
  while some := [*itertools.islice(iterator, count)]:
    yield some


def _find_path(data_dir) -> pathlib.Path:
  if data_dir is None:
    raise errors.InputError(
      f'--dataset=celeba_folder needs --data_dir; accepted: {_ACCEPTED}.'
    )
  path = files.expand_path('--data_dir', data_dir).absolute()
  if not files.exists(path):
    raise errors.InputError(
      f'--data_dir={path} does not exist; accepted: {_ACCEPTED}.'
    )
  ending = path.suffix.lower()
  if path.is_file() and ending not in ('.zip', '.parquet', *_LISTS):
    raise errors.InputError(
      face_files.describe_packed([str(path)])
      or f'--data_dir={path} is a file {ending}; accepted: {_ACCEPTED}.'
    )
  return path


def _list_files(path) -> tuple[dict, Callable[[], dict]]:
  """Lists files by place; a function lists those in archives when needed."""
  ending = path.suffix.lower()
  if path.is_dir():
    found = face_files.list_folder(path)
  elif ending in _LISTS:
    found = face_files.list_folder(path.parent)
  else:
    found = {path.name: face_files.Entry(str(path))}
  if path.is_file() and ending == '.zip':
    # Lists are beside it, or in the folders of the original site.
    site = [path.parent.parent / name for name in ('Anno', 'Eval')]
    for file in itertools.chain(*(x.glob('*') for x in (path.parent, *site))):
      if re.search('attr|partition', file.name) and file.is_file():
        found.setdefault(file.name, face_files.Entry(str(file)))
  return found, functools.cache(lambda: face_files.list_archives(found))


def _find_lists(path, found, archives) -> _Listed | None:
  """Reads the list of attributes, and that of splits, if there is one."""
  named, zips = _find_list(path, found), _find_zips(found)
  # Single files come from Kaggle in an archive each.
  if zips and (named is None or 'partition' in ' '.join(zips)):
    found = {**archives(), **found}
    named = named or _find_list(path, found)
  if named is None:
    return None
  entries = [found[named]]
  partitions = [
    place
    for place in found
    if place.lower().endswith(_LISTS)
    and 'partition' in place.lower().rpartition('/')[2]
  ]
  if partitions:
    entries.append(found[face_files.shallowest(partitions)[-1]])
  with face_files.Reader() as reader:
    contents = [reader.read(entry) for entry in entries]
  attributes = face_lists.read_attributes(entries[0], contents[0])
  splits = None
  if len(entries) > 1:
    splits = face_lists.read_splits(entries[1], contents[1])
  return _Listed(entries, attributes, splits)


def _find_list(path, found) -> str | None:
  """Finds the place of the list of attributes: by its name, or the only CSV."""
  if path.is_file() and path.suffix.lower() in _LISTS:
    return path.name
  name = lambda place: place.lower().rpartition('/')[2]
  lists = [
    place
    for place in found
    if place.lower().endswith(_LISTS)
    and not any(word in name(place) for word in _OTHER_LISTS)
  ]
  own = [x for x in lists if 'attr' in name(x)]
  own = own or [x for x in lists if not x.lower().endswith('.txt')]
  own = face_files.shallowest(own)
  stems = {name(x).rpartition('.')[0] for x in own}
  if len(stems) > 1:
    raise errors.InputError(
      f'--data_dir={path} has several lists, {files.some(own)}; accepted: one'
      ' that is named list_attr_celeba, or its own path as --data_dir.'
    )
  return own[-1] if own else None  # .txt rather than .csv


def _find_pictures(path, listed, found, archives):
  """Finds the listed pictures; returns their places, and all pictures there.

  Zip files are looked into if there are none beside them.
  """
  names = listed.attributes.images
  sources = [lambda: found, *([archives] if _find_zips(found) else [])]
  for list_source in sources:
    pictures = face_files.select_pictures(list_source())
    pools = [
      {x: e for x, e in pictures.items() if f'/{folder}/' in f'/{x}'}
      for folder in _FOLDERS
    ]
    for pool in (*pools, pictures):
      if places := face_files.match(names, pool):
        return places, pool
  there = [*face_files.select_pictures(found)]
  packed = face_files.describe_packed(entry.path for entry in found.values())
  if packed and not there:
    raise errors.InputError(packed)
  raise errors.InputError(
    f'--data_dir={path} has none of the {len(names)} pictures of'
    f' {listed.entries[0]}, such as {files.some(names[:2])}; found:'
    f' {files.some(sorted(there)[:3]) or "no pictures"}; accepted: {_ACCEPTED}.'
  )


def _find_zips(found):
  return [place for place in found if place.lower().endswith('.zip')]


def _check_missing(path, listed, places, skip_missing_images) -> list[str]:
  """Refuses or notes listed pictures that are missing."""
  missing = [x for x in listed.attributes.images if x not in places]
  if missing and not skip_missing_images:
    raise errors.InputError(
      f'--data_dir={path} lacks {len(missing)} of'
      f' {len(listed.attributes.images)} pictures of {listed.entries[0]}:'
      f' {files.some(missing)}; accepted: all of them, or'
      ' --skip_missing_images, which leaves them out.'
    )
  line = f'Left out {len(missing)} pictures that are missing:'
  return [f'{line} {files.some(missing)}.'] if missing else []


def _find_splits(listed, rows, notes) -> list[str]:
  """Returns the splits of the rows; notes what is not given in the lists."""
  own = listed.attributes
  names = [own.images[row] for row in rows]
  given = own.splits and [own.splits[row] for row in rows]
  if listed.splits is not None:
    by_stem = {_stem(name): split for name, split in listed.splits.items()}
    given = [listed.splits.get(x) or by_stem.get(_stem(x)) for x in names]
    lacking = [name for name, split in zip(names, given) if split is None]
    if lacking:
      raise errors.InputError(
        f'{listed.entries[1]} lacks {files.some(lacking)}; accepted: the images'
        f' of {listed.entries[0]}.'
      )
  if own.others:
    notes.append(
      f'Columns of {listed.entries[0]} that are no attributes:'
      f' {files.some(own.others)}.'
    )
  splits = face_lists.choose_splits(names, given)
  if splits != given:
    counts = ', '.join(f'{splits.count(split)} {split}' for split in SPLITS)
    notes.append(f'The lists give no splits; they are drawn: {counts}.')
  return splits


def _stem(name):
  return os.path.splitext(name.replace('\\', '/').rpartition('/')[2])[0]


def _refuse(path, found) -> errors.InputError:
  """Makes the error for a folder without lists."""
  packed = face_files.describe_packed(entry.path for entry in found.values())
  there = sorted({place.partition('/')[0] for place in found})
  return errors.InputError(
    packed
    or f'--data_dir={path} has no list of attributes; found:'
    f' {files.some(there) or "nothing"}; accepted: {_ACCEPTED}.'
  )
