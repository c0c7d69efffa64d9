"""What two runs of one command have in common, to the bit."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import json
import math
import pathlib
from typing import Any

from jacsup_jax.core import errors
from jacsup_jax.runs import circumstances

# What of a record of metrics.jsonl is of the clock.
_CLOCK = ('seconds', 'images_per_second', 'compile_seconds', 'input_bound')


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two runs of one command.

  Attributes:
    differences: circumstances that differ, a line each.
    stages: name, sha256 there and here (None where it is missing).
    columns: of results.json, the largest difference by name; inf where a value
      is no number, or missing; None without results of both.
    records: lines of metrics.jsonl that both have, and how many are the same
      but for the clock.
    metrics: of those lines, the largest difference by name.
  """

  differences: Sequence[str]
  stages: Sequence[tuple[str, str, str | None]]
  columns: Mapping[str, float] | None
  records: tuple[int, int]
  metrics: Mapping[str, float]

  @property
  def first_difference(self) -> str | None:
    """What differs first: a stage, else a column; None if nothing does."""
    for name, there, here in self.stages:
      if there != here:
        return f'the stage {name} has other parameters'
    if self.records[0] != self.records[1]:
      return f'metrics.jsonl has other values of {_first(self.metrics)}'
    if self.columns and any(self.columns.values()):
      return f'results.json has other values of {_first(self.columns)}'
    return None

  def summarize(self) -> str:
    """Returns the outcome in a line."""
    if self.first_difference is not None:
      return f'Not the same to the bit: {self.first_difference}.'
    parts = [
        f'{len(self.stages)} stages',
        f'{self.records[0]} lines of metrics',
    ]
    if self.columns is not None:
      parts.append(f'{len(self.columns)} columns of results')
    return f'The same to the bit: {", ".join(parts)}.'


def list_differences(
    there: Mapping[str, Any], here: Mapping[str, Any]
) -> list[str]:
  """Lists what decides bits and differs, or is not known of an older run.

  Args:
    there: manifest of the run that is repeated.
    here: the same of the repetition, or what it would be.
  """
  lines = circumstances.compare(there, here)
  unknown = [name for name in circumstances.ENTRIES if name not in there]
  if unknown:
    lines.append(f'not in that manifest, which is older: {", ".join(unknown)}')
  for where, run in (('there', there), ('here', here)):
    continued = run.get('continued')
    for entry in continued if isinstance(continued, list) else ():
      lines += [
          f'the run {where} went on in other circumstances: {line}'
          for line in circumstances.compare(run, entry)
      ]
  return lines


def compare(there: pathlib.Path, here: pathlib.Path) -> Comparison:
  """Compares two runs as far as both go.

  Args:
    there: manifest of the run that is repeated; its metrics and results are
      looked for beside it.
    here: the same of the repetition.

  Raises:
    InputError: if a file of either cannot be read.
  """
  manifests = [_read_json(path) for path in (there, here)]
  results, records = (
      [read(path.parent / name) for path in (there, here)]
      for name, read in (
          ('results.json', _read_json), ('metrics.jsonl', _read_records)
      )
  )  # pyformat: disable
  differences = list_differences(*manifests)
  columns = None
  if None not in results:
    differences += _compare_judges(*results)
    columns = {}
    for rows in itertools.zip_longest(
        *(result['rows'] for result in results), fillvalue={}
    ):
      _add(columns, *rows)
  shared = [key for key in records[0] if key in records[1]]
  metrics, same = {}, 0
  for key in shared:
    found = {}
    _add(found, records[0][key], records[1][key])
    same += not any(found.values())
    metrics = {n: max(x, metrics.get(n, 0.0)) for n, x in found.items()}
  return Comparison(
      differences,
      [
          (
              name,
              stage['sha256'],
              manifests[1]['stages'].get(name, {}).get('sha256'),
          )
          for name, stage in manifests[0]['stages'].items()
      ],
      columns,
      (len(shared), same),
      metrics,
  )


def format_markdown(comparison: Comparison) -> str:
  """Formats a comparison.

  Args:
    comparison: of a run and its repetition.
  """
  lines = [comparison.summarize(), '']
  if comparison.differences:
    lines += ['Circumstances that differ, so that bits may:', '']
    lines += [f'- {line}' for line in comparison.differences]
  else:
    lines += ['The circumstances are the same.']
  lines += [
      '',
      '| stage | sha256 there | here | same to the bit |',
      '| --- | --- | --- | --- |',
      *(
          f'| {name} | {a[:12]} | {b[:12] if b else "-"} |'
          f' {"yes" if a == b else "no"} |'
          for name, a, b in comparison.stages
      ),
      '',
  ]
  if comparison.columns is not None:
    lines += _format_values('column of results.json', comparison.columns)
  shared, same = comparison.records
  lines += [
      f'Of {shared} lines of metrics.jsonl {same} are the same but for the'
      ' clock.',
      '',
  ]
  if shared != same:
    lines += _format_values('entry of metrics.jsonl', comparison.metrics)
  return '\n'.join(lines)


def _format_values(title, values):
  show = lambda x: 'not the same' if math.isinf(x) else f'{x:.3g}'
  return [
      f'| {title} | largest difference |',
      '| --- | --- |',
      *(f'| {name} | {show(value)} |' for name, value in values.items()),
      '',
  ]


def _compare_judges(there, here):
  """Lists judges that differ: they decide results, not parameters."""
  identify = lambda x: x.get('sha256') if isinstance(x, Mapping) else None
  pairs = [
      (name, identify(there.get(name)), identify(here.get(name)))
      for name in ('judge', 'judges')
  ]
  return [
      f'{name}: {str(a)[:12]} there, {str(b)[:12]} here'
      for name, a, b in pairs
      if a != b
  ]


def _add(largest, there, here):
  """Enters the differences of two rows, by name."""
  for name in [*there, *(name for name in here if name not in there)]:
    difference = (
        _measure(there[name], here[name])
        if name in there and name in here
        else math.inf
    )
    largest[name] = max(largest.get(name, 0.0), difference)


def _measure(a, b):
  """Returns the largest difference of two values of JSON; inf if no number."""
  if a == b:
    return 0.0
  if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
    return max(_measure(x, y) for x, y in zip(a, b))
  if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
    return max(_measure(a[name], b[name]) for name in a)
  if isinstance(a, (int, float)) and isinstance(b, (int, float)):
    if math.isnan(a) and math.isnan(b):
      return 0.0
    return math.inf if math.isnan(a - b) else abs(a - b)
  return math.inf


def _first(values):
  return next((name for name, value in values.items() if value), 'nothing')


def _read_json(path):
  """Returns the content of a file, None without one."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise errors.InputError(
        f'{path} cannot be read: {error}; accepted: a file of a run.'
    ) from error


def _read_records(path):
  """Returns the lines of metrics.jsonl without the clock, by what they are."""
  try:
    lines = path.read_text(encoding='utf-8').split('\n')[:-1]
    records = [json.loads(line) for line in lines]
    return {
        (record['stage'], record['epoch']): {
            name: x for name, x in record.items() if name not in _CLOCK
        }
        for record in records
    }
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
        f'{path} cannot be read: {error!r}; accepted: metrics of a run.'
    ) from error
