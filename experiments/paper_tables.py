"""Tables of the paper and of our runs side by side."""

from collections.abc import Mapping, Sequence
import csv
import io
import math
from typing import Any, NamedTuple

import numpy as np

from experiments import paper_numbers


class Line(NamedTuple):
  """A row of the paper's table and our runs of it.

  Attributes:
    paper: the paper's.
    ours: rows of results.json, one per seed; empty if none was run.
  """

  paper: paper_numbers.PaperRow
  ours: tuple[Mapping[str, Any], ...]

  def mean(self, name: str) -> float | None:
    """Returns the mean of an entry over seeds, None if it was not run."""
    values = self._values(name)
    return float(np.mean(values)) if values else None

  def deviation(self, name: str) -> float | None:
    """Returns the sample's standard deviation, None of fewer than two seeds."""
    values = self._values(name)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None

  def _values(self, name):
    return [row[name] for row in self.ours if row.get(name) is not None]


def match(
    table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> list[Line]:
  """Finds our rows of each row of the paper, by model, weights and d.

  A reduced run has other d: its largest stands for the paper's largest, its
  smallest for the smallest, as the table says.

  Args:
    table: the paper's.
    rows: of results.json.

  Returns:
    A line for each row of the paper, in its order.
  """
  lines = []
  for paper in table.rows:
    ours = [row for row in rows if _is_same(paper, row)]
    dims = {row['nuisance_dim'] for row in ours}
    dim = paper.nuisance_dim
    if dims and dim not in dims:
      if dim == table.largest_dim:
        dim = max(dims)
      elif dim == table.smallest_dim:
        dim = min(dims)
    ours = tuple(row for row in ours if row['nuisance_dim'] == dim)
    lines.append(Line(paper, ours))
  return lines


def rank_correlation(
    table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> float | None:
  """Computes Spearman's rank correlation of our rates with the paper's.

  Returns:
    From -1 to 1; None if fewer than three rows of the paper were run, or all
    rates are the same.
  """
  pairs = [
      (line.paper.rate, line.mean(table.rate_name))
      for line in match(table, rows)
      if line.mean(table.rate_name) is not None
  ]
  if len(pairs) < 3 or len({ours for _, ours in pairs}) == 1:
    return None
  from scipy import stats  # pylint: disable=import-outside-toplevel

  return float(stats.spearmanr(*zip(*pairs)).statistic)


def format_markdown(
    table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> str:
  """Formats the paper's table and ours as Markdown.

  Rates are in per cent; ours are means over seeds, with the standard deviation
  of the sample if there are several.

  Args:
    table: the paper's.
    rows: of results.json.

  Returns:
    A heading, the table, and the rank correlation of the rates of three rows or
    more.
  """
  heading, *cells = _make_cells(table, rows)
  lines = [
      f'Table {table.number}: {table.title}',
      '',
      f'| {" | ".join(heading)} |',
      f'|{" --- |" * len(heading)}',
      *(f'| {" | ".join(line)} |' for line in cells),
  ]
  if any(len(line.ours) > 1 for line in match(table, rows)):
    lines += ['', '±: standard deviation over seeds (divisor n - 1).']
  correlation = rank_correlation(table, rows)
  if correlation is not None:
    lines += [
        '',
        f'Spearman\'s rank correlation of our {table.rate_title} with the'
        f' paper\'s: {correlation:.2f}',
    ]
  return '\n'.join(lines) + '\n'


def format_csv(
    table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> str:
  """Formats the cells of `format_markdown` as comma-separated values."""
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(_make_cells(table, rows))
  return text.getvalue()


def _is_same(paper, row):
  """Returns whether a row of results.json has the paper's model and weights."""
  return row['model'] == paper.model and all(
      # Weights may have passed through float32.
      math.isclose(row.get(name, math.nan), value, rel_tol=1e-6)
      for name, value in paper.weights.items()
  )


def _make_cells(table, rows):
  """Yields the rows of cells of a table as text, the heading first."""
  rate = table.rate_title
  yield [
      'model', *table.weights.values(), 'd, paper', 'd, ours',
      f'{rate}, paper', f'{rate}, ours', 'MSE, paper', 'MSE, ours',
      'epochs, paper', 'epochs, ours', 'seeds',
  ]  # fmt: skip
  for line in match(table, rows):
    paper, ours = line.paper, line.ours
    yield [
        paper.title or paper.model,
        *(f'{paper.weights[name]:g}' for name in table.weights),
        str(paper.nuisance_dim),
        str(ours[0]['nuisance_dim']) if ours else '',
        f'{100 * paper.rate:.1f}',
        _show(line, table.rate_name, lambda x: f'{100 * x:.1f}'),
        f'{paper.mse:g}',
        _show(line, 'mse', lambda x: f'{x:.3g}'),
        paper.epochs,
        '/'.join(sorted({str(row['epochs']) for row in ours})),
        ', '.join(map(str, sorted({row['seed'] for row in ours}))),
    ]


def _show(line, name, show):
  mean, deviation = line.mean(name), line.deviation(name)
  if mean is None:
    return ''
  return show(mean) + ('' if deviation is None else f' ± {show(deviation)}')
