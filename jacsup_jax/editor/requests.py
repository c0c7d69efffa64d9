"""Parse requests for edits: `Smiling:+2`, `Male:-3:3:5`, JSON of the page.

What cannot be used raises InputError; `where` is the flag or field it is from.
"""

from collections.abc import Mapping, Sequence
import difflib
from typing import Any

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.evaluation import unit_scales

# Standard deviations: far beyond any plausible face, far within float32.
LARGEST_STRENGTH = 100.0
# Values of one sweep, tiles of a grid, names in a message.
MOST_VALUES, MOST_TILES, _MOST_NAMES = 256, 1024, 12

Units = Sequence[unit_scales.Unit]


def find_unit(units: Units, name: str, where: str) -> int:
  """Finds a unit that can be moved; case, spaces, underscores do not matter.

  InputError if there is none of that name, or it is constant.
  """
  folded = [_fold(unit.name) for unit in units]
  key = _fold(name)
  if key not in folded:
    # A name that contains the key is near, however long it is.
    near = [own for own in folded if key and key in own]
    near = near or difflib.get_close_matches(key, folded, n=3, cutoff=0.5)
    names = [units[folded.index(own)].name for own in near or folded]
    more = ', ...' if len(names) > _MOST_NAMES else ''
    raise errors.InputError(
      f'{where}: no unit is called {name[:80]!r}; accepted:'
      f' {"the nearest are " if near else ""}'
      f'{", ".join(names[:_MOST_NAMES])}{more}.'
    )
  index = folded.index(key)
  if not units[index].deviation:
    raise errors.InputError(
      f'{where}: {units[index].name} is the same for all training images and'
      ' cannot be moved; accepted: another unit.'
    )
  return index


def check_keep_detail(value: Any, where: str) -> float:
  """Returns the share of detail to keep; raises unless it is in [0, 1]."""
  if not _is_number(value) or not 0 <= value <= 1:  # NaN fails too.
    raise errors.InputError(
      f'{where} is {files.describe(value)}; accepted: a number from 0 to 1.'
    )
  return float(value)


def parse_strengths(units: Units, text: str, where: str) -> np.ndarray:
  """Parses `Smiling:+2,Eyeglasses:-1`, or nothing, to `[U]` strengths.

  InputError if a part is not of that form, a unit is unknown or named twice, or
  a strength exceeds `LARGEST_STRENGTH`.
  """
  pairs = []
  for part in _split(text):
    name, colon, number = part.rpartition(':')
    if not colon:
      raise errors.InputError(
        f'{where} has {part!r}; accepted: NAME:STRENGTH, such as'
        ' Smiling:+2,Eyeglasses:-1.'
      )
    pairs.append((name, _to_number(number)))
  return _make_strengths(units, pairs, where)


def parse_tiles(
  units: Units, base: np.ndarray, text: str, where: str, count: int
) -> tuple[np.ndarray, list[str]]:
  """Parses `count` sweeps `Smiling:-3:3:5`: lowest, highest, number of values.

  Other units stay at `base`, `[U]`, and those that it moves cannot be swept.
  Returns `[rows, cols, U]` float32 strengths, the first unit from left to
  right, the second upwards; and a description of each. InputError if the text
  is not of that form, or asks for more than `MOST_TILES`.
  """
  parts = [part.rsplit(':', 3) for part in _split(text)]
  if len(parts) != count or any(len(part) != 4 for part in parts):
    example = ','.join(['Smiling:-3:3:5', 'Male:-3:3:5'][:count])
    raise errors.InputError(
      f'{where}={text[:80]}; accepted: {count} times NAME:LOW:HIGH:COUNT, as in'
      f' {example}.'
    )
  tiles, lines = base[None, None], []
  swept = set(np.flatnonzero(base))
  for axis, (name, *ends, number) in enumerate(parts):
    unit = find_unit(units, name, where)
    own = f'{where}: {units[unit].name}'
    if unit in swept:
      raise errors.InputError(
        f'{own} has two settings; accepted: each unit once.'
      )
    swept.add(unit)
    if number not in map(str, range(2, MOST_VALUES + 1)):
      raise errors.InputError(
        f'{own} has {number[:40]!r} values; accepted: 2 to {MOST_VALUES}.'
      )
    ends = [_check_strength(_to_number(end), own) for end in ends]
    values = np.linspace(*ends, int(number), dtype=np.float32)
    numbers = ', '.join(f'{value:+.3g}' for value in values)
    way = ('from left to right', 'upwards')[axis]
    lines.append(f'{units[unit].name} {numbers} {way}')
    tiles = np.repeat(tiles, len(values), axis=1 - axis)
    tiles[..., unit] = values[::-1, None] if axis else values
  if tiles[..., 0].size > MOST_TILES:
    raise errors.InputError(
      f'{where} asks for {tiles[..., 0].size:,} images; accepted: at most'
      f' {MOST_TILES:,}.'
    )
  return tiles, lines


def read_request(
  request: Mapping[str, Any], units: Units
) -> tuple[np.ndarray, float]:
  """Reads `[U]` `strengths` by name, and `keep_detail`; both are optional.

  InputError if either is refused, as by `parse_strengths`.
  """
  strengths = request.get('strengths', {})
  if not isinstance(strengths, dict):
    raise errors.InputError('strengths: accepted: numbers by unit name.')
  detail = check_keep_detail(request.get('keep_detail', 0.0), 'keep_detail')
  return _make_strengths(units, strengths.items(), 'strengths'), detail


def _make_strengths(units, pairs, where):
  """Makes `[U]` float32 from pairs of a name and a strength."""
  strengths = np.zeros(len(units), np.float32)
  seen = set()
  for name, value in pairs:
    unit = find_unit(units, name, where)
    own = f'{where}: {units[unit].name}'
    if unit in seen:
      raise errors.InputError(f'{own} is there twice; accepted: once.')
    seen.add(unit)
    strengths[unit] = _check_strength(value, own)
  return strengths


def _check_strength(value, where):
  # The comparison is false for NaN.
  if _is_number(value) and abs(value) <= LARGEST_STRENGTH:
    return float(value)
  raise errors.InputError(
    f'{where} has the strength {files.describe(value)}; accepted: standard'
    f' deviations from {-LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}.'
  )


def _to_number(text):
  """Returns a number, or the text for the message that refuses it."""
  try:
    return float(text)
  except ValueError:
    return text


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _split(text):
  return [part.strip() for part in text.split(',') if part.strip()]


def _fold(name):
  return '_'.join(name.replace('_', ' ').lower().split())
