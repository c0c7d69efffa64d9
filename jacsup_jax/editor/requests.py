"""Parse requests for edits: `Smiling:+2`, `Male:-3:3:5`, JSON of the page."""

from collections.abc import Mapping, Sequence
import difflib
import math
from typing import Any, NamedTuple

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.evaluation import unit_scales

# Standard deviations: far beyond any plausible face, far within float32.
LARGEST_STRENGTH = 100.0
# Values of one sweep, and tiles of a grid.
MOST_VALUES = 256
MOST_TILES = 1024
_MOST_NAMES = 12


class Sweep(NamedTuple):
  """A unit that runs over values."""

  unit: int
  values: np.ndarray  # [n] float32, in standard deviations


def find_unit(units: Sequence[unit_scales.Unit], name: str, where: str) -> int:
  """Finds a unit by name; case, spaces and underscores do not matter.

  `where` is the flag or field, for messages. Raises InputError with the nearest
  names if there is no such unit, and if it is constant.
  """
  folded = [_fold(unit.name) for unit in units]
  key = _fold(name)
  if key not in folded:
    raise errors.InputError(
      f'{where}: no unit is called {name[:80]!r}; accepted:'
      f' {_suggest(units, folded, key)}'
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


def parse_strengths(
  units: Sequence[unit_scales.Unit], text: str, where: str
) -> np.ndarray:
  """Parses `Smiling:+2,Eyeglasses:-1`, or nothing, to `[U]` float32 strengths.

  Raises InputError as `find_unit` does, or if the text has another form, a
  strength is out of range, or a unit occurs twice.
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


def parse_sweeps(
  units: Sequence[unit_scales.Unit],
  text: str,
  where: str,
  *,
  count: int,
  held: np.ndarray,
) -> list[Sweep]:
  """Parses `count` of `Smiling:-3:3:5`: lowest, highest, number of values.

  Units that `held`, `[U]` strengths, moves cannot be swept. Raises InputError
  as `parse_strengths` does, or if there are too many values.
  """
  parts = [part.rsplit(':', 3) for part in _split(text)]
  if len(parts) != count or any(len(part) != 4 for part in parts):
    example = ','.join(['Smiling:-3:3:5', 'Male:-3:3:5'][:count])
    raise errors.InputError(
      f'{where}={text[:80]}; accepted: {count} times NAME:LOW:HIGH:COUNT, as in'
      f' {example}.'
    )
  sweeps = []
  for name, low, high, number in parts:
    unit = find_unit(units, name, where)
    own = f'{where}: {units[unit].name}'
    if held[unit] or any(sweep.unit == unit for sweep in sweeps):
      raise errors.InputError(
        f'{own} has two settings; accepted: each unit once.'
      )
    if number not in map(str, range(2, MOST_VALUES + 1)):
      raise errors.InputError(
        f'{own} has {number[:40]!r} values; accepted: a whole number from 2 to'
        f' {MOST_VALUES}.'
      )
    ends = [_check_strength(_to_number(end), own) for end in (low, high)]
    values = np.linspace(*ends, int(number), dtype=np.float32)
    sweeps.append(Sweep(unit, values))
  tiles = math.prod(len(sweep.values) for sweep in sweeps)
  if tiles > MOST_TILES:
    raise errors.InputError(
      f'{where} asks for {tiles:,} images; accepted: at most {MOST_TILES:,}.'
    )
  return sweeps


def read_request(
  request: Mapping[str, Any], units: Sequence[unit_scales.Unit]
) -> tuple[np.ndarray, float]:
  """Reads `strengths` by unit name and `keep_detail`, both optional.

  Returns `[U]` float32 strengths, and the share of detail to keep.
  """
  strengths = request.get('strengths', {})
  if not isinstance(strengths, dict):
    raise errors.InputError('strengths: accepted: numbers by unit name.')
  detail = check_keep_detail(request.get('keep_detail', 0.0), 'keep_detail')
  return _make_strengths(units, strengths.items(), 'strengths'), detail


def sweep(base: np.ndarray, sweeps: Sequence[Sweep]) -> np.ndarray:
  """Makes the grid of strengths in which some units run over values.

  Returns `[N, U]` float32 of N settings; the last sweep runs fastest, and other
  units stay at `base`, `[U]`.
  """
  grids = np.meshgrid(*(values for _, values in sweeps), indexing='ij')
  strengths = np.tile(base, (grids[0].size, 1)).astype(np.float32)
  for (unit, _), grid in zip(sweeps, grids):
    strengths[:, unit] = grid.ravel()
  return strengths


def _make_strengths(units, pairs, where):
  """Makes `[U]` float32 from pairs of a name and a strength."""
  strengths = {}
  for name, value in pairs:
    unit = find_unit(units, name, where)
    if unit in strengths:
      raise errors.InputError(
        f'{where} has {units[unit].name} twice; accepted: each unit once.'
      )
    strengths[unit] = _check_strength(value, f'{where}: {units[unit].name}')
  return np.array(
    [strengths.get(i, 0.0) for i in range(len(units))], np.float32
  )


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


def _suggest(units, folded, key):
  """Lists the units that a name may stand for; the first ones if none is."""
  # A name that contains the key is near, however long it is.
  near = [own for own in folded if key and key in own]
  near = near or difflib.get_close_matches(key, folded, n=3, cutoff=0.5)
  names = [units[folded.index(own)].name for own in near or folded]
  shown = ', '.join(names[:_MOST_NAMES])
  more = ', ...' if len(names) > _MOST_NAMES else ''
  return f'{"the nearest are " if near else ""}{shown}{more}.'
