"""What people ask of an editor in words: `Smiling:+2`, `Male:-3:3:5`.

The command line and the web page find units by name here, and refuse the same
strengths.
"""

from collections.abc import Mapping, Sequence
import difflib
import math
from typing import NamedTuple

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.editor import editor

# Standard deviations: far beyond what shows a face, far within float32.
LARGEST_STRENGTH = 100.0
# Of a sweep; and of the tiles of a grid, which are decoded one by one.
MOST_VALUES = 256
MOST_TILES = 1024
_MOST_NAMES = 12


class Sweep(NamedTuple):
  """A unit that runs over values."""

  unit: int
  values: np.ndarray  # [n] float32, in standard deviations


def find_unit(
    units: Sequence[editor.Unit], name: str, what: str
) -> int:
  """Finds a unit by its name; case, spaces and underscores do not matter.

  Args:
    units: of an editor.
    name: `Wearing_Hat`, `wearing hat`, `y1`, ...
    what: where the name was found, for the error.

  Returns:
    Its index.

  Raises:
    InputError: if there is no such unit, with the nearest names; or it is one
      that cannot be moved.
  """
  folded = [_fold(unit.name) for unit in units]
  key = _fold(name)
  if key not in folded:
    raise errors.InputError(
        f'{what} has no unit {name!r}; accepted: {_suggest(units, folded, key)}'
    )
  index = folded.index(key)
  if not units[index].deviation:
    raise errors.InputError(
        f'{what}: {units[index].name} is the same for all training images and'
        ' cannot be moved; accepted: another unit.'
    )
  return index


def check_strength(value: float, what: str) -> float:
  """Returns a strength; raises InputError if it is not finite, or too large.

  Args:
    value: in standard deviations.
    what: of which unit it is, for the error.
  """
  # The comparison also catches NaN.
  if not -LARGEST_STRENGTH <= value <= LARGEST_STRENGTH:
    raise errors.InputError(
        f'{what} has the strength {value}; accepted: standard deviations from'
        f' {-LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}.'
    )
  return float(value)


def check_keep_detail(value: float, what: str) -> float:
  """Returns a part of the detail; raises InputError unless it is in [0, 1].

  Args:
    value: see `editor.Editor.edit`.
    what: its name, for the error.
  """
  if not 0 <= value <= 1:
    raise errors.InputError(f'{what} is {value}; accepted: from 0 to 1.')
  return float(value)


def make_strengths(
    units: Sequence[editor.Unit], by_name: Mapping[str, float], what: str
) -> np.ndarray:
  """Makes the strengths of all units from those of some.

  Args:
    units: U of them, of an editor.
    by_name: strengths, in standard deviations.
    what: where they were found, for errors.

  Returns:
    `[U]` float32.

  Raises:
    InputError: see `find_unit` and `check_strength`; or if two names are of one
      unit.
  """
  strengths = np.zeros(len(units), np.float32)
  found = set()
  for name, value in by_name.items():
    unit = find_unit(units, name, what)
    _check_new(found, unit, units, what)
    strengths[unit] = check_strength(value, f'{what}: {name}')
  return strengths


def parse_strengths(
    units: Sequence[editor.Unit], text: str, what: str
) -> np.ndarray:
  """Parses `Smiling:+2,Eyeglasses:-1`.

  Args:
    units: U of them, of an editor.
    text: pairs of a name and a strength; empty for none.
    what: the flag, for errors.

  Returns:
    `[U]` float32.

  Raises:
    InputError: see `make_strengths`; or if it is not so written.
  """
  strengths = np.zeros(len(units), np.float32)
  found = set()
  for part in _split(text):
    name, colon, number = part.rpartition(':')
    if not colon:
      raise errors.InputError(
          f'{what} has {part!r}; accepted: NAME:STRENGTH, as in'
          ' Smiling:+2,Eyeglasses:-1.'
      )
    unit = find_unit(units, name, what)
    _check_new(found, unit, units, what)
    value = _parse_number(number, f'{what}: {name.strip()}')
    strengths[unit] = check_strength(value, f'{what}: {name.strip()}')
  return strengths


def parse_sweeps(
    units: Sequence[editor.Unit],
    text: str,
    what: str,
    *,
    count: int,
    held: np.ndarray,
) -> list[Sweep]:
  """Parses `Smiling:-3:3:5`, or several of these.

  Args:
    units: U of them, of an editor.
    text: for each sweep a name, the lowest and the highest strength and how
      many values there are, both ends included.
    what: the flag, for errors.
    count: how many sweeps there are to be.
    held: `[U]`, strengths of the other units.

  Returns:
    `count` sweeps.

  Raises:
    InputError: see `find_unit` and `check_strength`; or if it is not so
      written, has a unit twice or one that is held elsewhere, or too many
      values.
  """
  parts = _split(text)
  example = ','.join(['Smiling:-3:3:5', 'Male:-3:3:5'][:count])
  if len(parts) != count:
    raise errors.InputError(
        f'{what} has {len(parts)} units; accepted: {count}, as in {example}.'
    )
  found = set()
  sweeps = []
  for part in parts:
    fields = part.rsplit(':', 3)
    if len(fields) != 4:
      raise errors.InputError(
          f'{what} has {part!r}; accepted: NAME:LOW:HIGH:COUNT, as in'
          f' {example}.'
      )
    unit = find_unit(units, fields[0], what)
    _check_new(found, unit, units, what)
    where = f'{what}: {units[unit].name}'
    if held[unit]:
      raise errors.InputError(
          f'{where} has a strength of its own too; accepted: one of both.'
      )
    low, high = (
        check_strength(_parse_number(number, where), where)
        for number in fields[1:3]
    )
    sweeps.append(Sweep(unit, _make_values(low, high, fields[3], where)))
  tiles = math.prod(len(sweep.values) for sweep in sweeps)
  if tiles > MOST_TILES:
    raise errors.InputError(
        f'{what} asks for {tiles:,} images; accepted: {MOST_TILES:,} at most.'
    )
  return sweeps


def _make_values(low, high, text, where):
  try:
    count = int(text)
  except ValueError:
    count = 0
  if not 2 <= count <= MOST_VALUES:
    raise errors.InputError(
        f'{where} has {errors.one_line(text)[:40]!r} values; accepted: a whole'
        f' number from 2 to {MOST_VALUES}.'
    )
  return np.linspace(low, high, count, dtype=np.float32)


def _parse_number(text, where):
  try:
    return float(text)
  except ValueError as error:
    raise errors.InputError(
        f'{where} has the strength {text[:40]!r}; accepted: a number.'
    ) from error


def _split(text):
  return [part.strip() for part in text.split(',') if part.strip()]


def _check_new(found, unit, units, what):
  if unit in found:
    raise errors.InputError(
        f'{what} has {units[unit].name} twice; accepted: each unit once.'
    )
  found.add(unit)


def _fold(name):
  return '_'.join(name.replace('_', ' ').lower().split())


def _suggest(units, folded, key):
  """Names the units that a name may stand for; all of them if there are few."""
  near = difflib.get_close_matches(key, folded, n=3, cutoff=0.5)
  # What is part of a name is near it, however long that is.
  near += [own for own in folded if key and key in own and own not in near]
  names = [units[folded.index(own)].name for own in near[:_MOST_NAMES]]
  if names:
    return f'the nearest are {", ".join(names)}.'
  names = [unit.name for unit in units]
  if len(names) > _MOST_NAMES:
    names = [*names[: _MOST_NAMES - 1], '...', names[-1]]
  return f'{", ".join(names)}.'
