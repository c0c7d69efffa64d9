"""Find pictures and lists in a folder or in zip files, at any depth.

Places are paths within the folder. A zip file counts as a folder of its name.
"""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib
import re
import threading
from typing import NamedTuple
import unicodedata
import zipfile

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import images as image_files

_DEPTH = 5  # of folders below that of --data_dir
# Archives that are not read, and what unpacks them.
_PACKED = {
  r'\.(7z|z)(\.0*1)?$': '7z x',
  r'\.zip\.0*1$': '7z x',
  r'\.rar$': 'unrar x',
  r'\.(tar|tgz|tbz2?|txz)(\.(gz|bz2|xz|zst))?$': 'tar xf',
}


class Entry(NamedTuple):
  """A file, or a file in an archive."""

  path: str
  member: str = ''  # of the archive at the path
  mark: str = ''  # of the member's content

  def __str__(self) -> str:
    return f'{self.path}: {self.member}' if self.member else self.path


def list_folder(root: pathlib.Path) -> dict[str, Entry]:
  """Lists the files of a folder by place; hidden ones are left out."""
  found, visited = {}, set()

  def refuse(error):
    raise files.unreadable(error.filename or root, error) from error

  walk = os.walk(root, onerror=refuse, followlinks=True)
  for folder, folders, names in walk:
    place = pathlib.Path(folder).relative_to(root)
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in visited or len(place.parts) > _DEPTH:
      folders.clear()
      continue  # A link to a folder above it.
    visited.add((status.st_dev, status.st_ino))
    folders[:] = sorted(name for name in folders if _is_shown(name))
    prefix = '' if place == pathlib.Path() else f'{place.as_posix()}/'
    for name in sorted(filter(_is_shown, names)):
      found[prefix + name] = Entry(os.path.join(folder, name))
  return found


def list_archives(found: Mapping[str, Entry]) -> dict[str, Entry]:
  """Lists the files in all zip files among some files, by place.

  InputError if a zip file is damaged, or one part of several.
  """
  members = {}
  for place, entry in found.items():
    if not place.lower().endswith('.zip'):
      continue
    stem = place[: -len('.zip')]
    for part in (f'{stem}.z01', f'{stem}.Z01'):
      if part in found:
        raise errors.InputError(_say_packed(found[part].path))
    with files.open_archive(entry.path) as archive:
      for info in archive.infolist():
        parts = info.filename.split('/')
        if not info.is_dir() and all(map(_is_shown, parts)):
          own = Entry(entry.path, info.filename, f'{info.file_size} {info.CRC}')
          members.setdefault(f'{stem}/{info.filename}', own)
  return members


def get_mark(entry: Entry) -> str:
  """Returns what marks an entry's content without reading it."""
  if entry.member:
    return entry.mark
  try:
    status = os.stat(entry.path)
  except OSError as error:
    raise files.unreadable(entry.path, error) from error
  return f'{status.st_size} {status.st_mtime_ns}'


class Reader:
  """Reads entries, from several threads; archives stay open until `close`."""

  def __init__(self):
    self._archives: dict[str, zipfile.ZipFile] = {}
    self._lock = threading.Lock()

  def __enter__(self) -> 'Reader':
    return self

  def __exit__(self, *unused_exception) -> None:
    for archive in self._archives.values():
      archive.close()

  def read(self, entry: Entry) -> bytes:
    """Reads an entry; BadImageError if that of an archive is damaged."""
    if not entry.member:
      return files.read_bytes(entry.path)
    with self._lock:
      if entry.path not in self._archives:
        self._archives[entry.path] = files.open_archive(entry.path)
    try:
      return self._archives[entry.path].read(entry.member)
    except OSError as error:  # The disk fails, not the archive.
      raise files.unreadable(entry.path, error) from error
    except MemoryError:
      raise
    except Exception as error:  # A damaged entry fails in many ways.
      raise image_files.BadImageError('its archive entry is damaged') from error


def select_pictures(found: Mapping[str, Entry]) -> dict[str, Entry]:
  """Selects the entries whose names are those of pictures."""
  return {
    place: entry
    for place, entry in found.items()
    if place.lower().endswith(image_files.ENDINGS)
  }


def match(
  names: Iterable[str], pictures: Mapping[str, Entry]
) -> dict[str, str]:
  """Finds the places of listed pictures, by their names in the list.

  A name is that of a file or ends its place; it may have another ending, or
  none. Letters with accents may be composed or not, as macOS stores them.
  InputError if it is that of several pictures.
  """
  by_name, by_stem = {}, {}
  for place in pictures:
    name = _compose(place.rpartition('/')[2])
    by_name.setdefault(name, []).append(place)
    by_stem.setdefault(_stem(name), []).append(place)
  found = {}
  for listed in names:
    path = _compose(listed.replace('\\', '/').lstrip('./'))
    name = path.rpartition('/')[2]
    places = by_name.get(name) or by_stem.get(_stem(name), ())
    if len(places) > 1:  # Folders may be part of the name.
      own = {x: f'/{_compose(x)}' for x in places}
      whole = [x for x in places if own[x].endswith(f'/{path}')]
      stems = [x for x in places if _stem(own[x]).endswith(f'/{_stem(path)}')]
      places = whole if len(whole) == 1 else stems
    if len(places) > 1:
      raise errors.InputError(
        f'{files.describe(listed)} may be {" or ".join(sorted(places)[:2])};'
        ' accepted: each picture once, or names with their folders.'
      )
    if places:
      found[listed] = places[0]
  return found


def describe_packed(found: Iterable[str]) -> str:
  """Says how to unpack an archive that is not read; empty if there is none."""
  lines = map(_say_packed, sorted(found))
  return next(filter(None, lines), '')


def shallowest(places: Sequence[str]) -> list[str]:
  """Returns those of some places that are in the fewest folders."""
  least = min((place.count('/') for place in places), default=0)
  return sorted(place for place in places if place.count('/') == least)


def _say_packed(path):
  for pattern, command in (*_PACKED.items(), (r'\.z0*1$', '7z x')):
    if re.search(pattern, path, re.IGNORECASE):
      name = os.path.basename(path)
      if pattern.startswith(r'\.z0'):  # Its first part is the last by name.
        name = f'{os.path.splitext(name)[0]}.zip'
      return (
        f'{path} is a packed archive of a kind that is not read; accepted: its'
        f' content. Unpack it there: {command} {name}'
      )
  return ''


def _compose(name):
  return unicodedata.normalize('NFC', name)


def _is_shown(name):
  # macOS adds entries of its own.
  return not name.startswith('.') and name != '__MACOSX'


def _stem(name):
  """Returns a name, in lower case, without the ending of a picture."""
  stem, dot, ending = name.lower().rpartition('.')
  return stem if f'{dot}{ending}' in image_files.ENDINGS else name.lower()
