"""Means and deviations over seeds, of rows of results.json."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def group_seeds(rows: Sequence[Row]) -> list[list[Row]]:
  """Groups rows that differ by their seeds alone, and by what was measured.

  Rows of a group have the same model, stage (whose name may end in its seed),
  size and weights; how many epochs a stage took may be measured, as where it
  ends on a plateau. No two of a group have the same seed: such differ in
  something that their entries do not say, and stand alone.

  Args:
    rows: of results.json.

  Returns:
    Groups in the order of their first rows.
  """
  groups = {}
  for row in rows:
    groups.setdefault(_identify(row), []).append(row)
  found = []
  for group in groups.values():
    seeds = {row['seed'] for row in group if 'seed' in row}
    if len(group) == 1 or len(seeds) == len(group):
      found.append(group)
    else:
      found += [[row] for row in group]
  # As they were given, where a group was taken apart.
  places = {id(row): i for i, row in enumerate(rows)}
  return sorted(found, key=lambda group: places[id(group[0])])


def mean(values: Sequence[float | None]) -> float | None:
  """Returns the mean of the values that are there, None without any."""
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def deviation(values: Sequence[float | None]) -> float | None:
  """Returns the standard deviation of a sample, whose divisor is n - 1.

  Args:
    values: None where one is missing.

  Returns:
    That of the values that are there; None of fewer than two.
  """
  known = [value for value in values if value is not None]
  if len(known) < 2:
    return None
  with np.errstate(invalid='ignore'):  # Of a training that diverged.
    return float(np.std(known, ddof=1))


def describe_deviation(groups: Sequence[Sequence[Row]]) -> str | None:
  """Says what a table's ± are, None where no row has several seeds."""
  seeds = sorted({
      row['seed'] for group in groups if len(group) > 1 for row in group
  })
  if not seeds:
    return None
  counts = sorted({len(group) for group in groups if len(group) > 1})
  over = ' or '.join(map(str, counts))
  return (
      f'±: standard deviation of the sample (divisor n - 1) over n = {over}'
      f' seeds ({_list_seeds(seeds)}).'
  )


def _list_seeds(seeds):
  if len(seeds) > 3 and seeds[-1] - seeds[0] == len(seeds) - 1:
    return f'{seeds[0]} to {seeds[-1]}'
  return ', '.join(map(str, seeds))


def _identify(row):
  """Returns what rows that differ by their seeds alone have in common."""
  stage = row.get('stage')
  if isinstance(stage, str):
    stage = stage.removesuffix(f'_seed{row.get("seed")}')
  chosen = {
      name: value
      for name, value in row.items()
      if name.startswith('lambda_')
      # Modes and the like; numbers but weights are measured.
      or (isinstance(value, (str, bool)) and name not in ('stage', 'sha256'))
  }
  return (stage, row.get('nuisance_dim'), *sorted(map(_show, chosen.items())))


def _show(item):
  name, value = item
  # Weights may have passed through float32, and NaN is not what it is.
  if isinstance(value, float) and math.isfinite(value):
    value = f'{value:.6g}'
  return f'{name} {value}'
