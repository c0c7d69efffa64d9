"""Results of a benchmark, written as they come, and its limit of time."""

from collections.abc import Callable, Mapping
from concurrent import futures
import json
import math
import os
import pathlib
import time
from typing import Any

from jacsup_jax.core import errors
from jacsup_jax.data import files


class Ended(BaseException):
  """A signal or the limit of time; `except Exception` cannot swallow it."""


class Records:
  """The results in a folder: a JSON line each, and files with all of them.

  `accelerator.jsonl` gets a line per result at once, and `accelerator.md` is
  rewritten, so that a run that is cut short leaves all that it has. A value is
  a dict of JSON values.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    card: str,
    seconds: float,
    say: Callable[[str], None] = files.say,
  ):
    self.folder, self._card, self._say = folder, card, say
    self._end = time.monotonic() + seconds
    files.check_writable(f'--output={folder}', folder)
    folder.mkdir(parents=True, exist_ok=True)
    self._lines = folder / 'accelerator.jsonl'
    self.found: dict[str, dict[str, Any]] = {}
    if self._lines.exists():
      for line in self._lines.read_text().splitlines():
        try:
          entry = json.loads(line)
        except json.JSONDecodeError:  # The line at which a run was killed.
          continue
        if entry['card'] == card:
          self.found[entry['key']] = entry

  @property
  def left(self) -> float:
    """Seconds that are left."""
    return self._end - time.monotonic()

  def value(self, key: str) -> dict[str, Any] | None:
    """Returns the value of a key; None if it is missing or failed."""
    return self.found.get(key, {}).get('value')

  def has(self, key: str) -> bool:
    """Returns whether a key has a value or an error."""
    return not {'value', 'error'}.isdisjoint(self.found.get(key, {}))

  def measure(
    self, key: str, function: Callable[[], dict[str, Any]], needs: float = 0.0
  ) -> dict[str, Any] | None:
    """Calls a function unless its key has a result, and records its value.

    It is skipped, which a later call does not take for a result, if fewer than
    `needs` seconds are left. An error is recorded, and None returned.
    """
    if self.has(key):
      return self.value(key)
    if self.left < needs:
      self.skip(key, f'needs {needs:.0f} s, and {max(self.left, 0):.0f} left')
      return None
    start = time.monotonic()
    try:
      value = function()
    except Exception as error:
      self.fail(key, error)
      return None
    self._add(key, value=value, seconds=round(time.monotonic() - start, 2))
    return value

  def measure_all(
    self, work: Mapping[str, Callable[[], dict[str, Any]]]
  ) -> None:
    """Calls functions side by side, and records their values in order."""
    pool = futures.ThreadPoolExecutor(os.cpu_count())
    try:
      made = {
        key: pool.submit(function)
        for key, function in work.items()
        if not self.has(key)
      }
      for key, future in made.items():
        self.measure(key, future.result)
    finally:
      pool.shutdown(wait=False, cancel_futures=True)

  def fail(self, key: str, error: Exception) -> None:
    """Records an error: out of memory, or a compiler that fails."""
    line = errors.one_line(f'{type(error).__name__}: {error}')[:400]
    self._add(key, error=line)

  def skip(self, key: str, reason: str) -> None:
    """Records why a measurement is left out."""
    self._add(key, skipped=reason)

  def write(self) -> None:
    """Writes the table of all results."""
    table = format_table(self._card, self.found)
    files.write_whole(self.folder / 'accelerator.md', table)

  def _add(self, key, **entries):
    entry = {'key': key, 'card': self._card, **_to_json(entries)}
    self.found[key] = entry
    with open(self._lines, 'a') as file:
      file.write(json.dumps(entry) + '\n')
    self._say(f'{key}: {_describe(entry)}')
    self.write()


def format_table(card: str, found: Mapping[str, dict[str, Any]]) -> str:
  """Formats results as Markdown: a table for each group of keys."""
  lines, skipped = [f'# {card}'], 0
  groups: dict[str, list] = {}
  for key, entry in found.items():
    group, _, name = key.partition('/')
    if 'skipped' in entry:
      skipped += 1
    else:
      groups.setdefault(group, []).append((name, entry))
  for group, entries in groups.items():
    lines += ['', f'## {group}', '', '| | result |', '| --- | --- |']
    lines += [f'| {name} | {_describe(entry)} |' for name, entry in entries]
  if skipped:
    lines += ['', f'There was no time for {skipped} other measurements.']
  return '\n'.join([*lines, ''])


def _describe(entry):
  """Describes a result in one line, without lists."""
  for name in ('error', 'skipped'):
    if name in entry:
      return f'{name}: {entry[name]}'.replace('|', '/')
  shown = ', '.join(
    f'{name} {_format(value)}'
    for name, value in entry['value'].items()
    if not isinstance(value, (list, dict))
  )
  return shown.replace('|', '/')


def _format(value):
  if not isinstance(value, float):
    return str(value)
  if value and not 1e-2 <= abs(value) < 1e6:
    return f'{value:.2e}'
  return f'{value:.4g}'


def _to_json(value):
  """Converts numbers of NumPy; JSON has no NaN."""
  if isinstance(value, dict):
    return {name: _to_json(each) for name, each in value.items()}
  if isinstance(value, (list, tuple)):
    return [_to_json(each) for each in value]
  if hasattr(value, 'item'):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value
