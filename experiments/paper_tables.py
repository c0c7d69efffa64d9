"""Tables of the paper and of our runs side by side."""

from collections.abc import Mapping, Sequence
import csv
import io
import math
from typing import Any, NamedTuple

import numpy as np

from experiments import paper_numbers


class Line(NamedTuple):
  """A row of the paper's table, and our rows of it, one for each seed."""

  paper: paper_numbers.PaperRow
  ours: list[Mapping[str, Any]]

  def values(self, name: str) -> list[float]:
    """Returns an entry of our rows, without those that are undefined."""
    return [row[name] for row in self.ours if row.get(name) is not None]


def match(
  table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> list[Line]:
  """Finds our rows of each row of the paper, by model, weights and d.

  A reduced run has other d: its largest stands for the paper's largest, its
  smallest for the smallest, as the table says.
  """
  lines = []
  for paper in table.rows:
    ours = [row for row in rows if _is_same(paper, row)]
    dims, dim = {row['nuisance_dim'] for row in ours}, paper.nuisance_dim
    if dims and dim not in dims and dim in table.reduced_dims:
      dim = table.reduced_dims[dim](dims)
    lines.append(Line(paper, [x for x in ours if x['nuisance_dim'] == dim]))
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
    (line.paper.rate, np.mean(rates))
    for line in match(table, rows)
    if (rates := line.values(table.rate_name))
  ]
  if len(pairs) < 3 or len({ours for _, ours in pairs}) == 1:
    return None
  from scipy import stats  # pylint: disable=import-outside-toplevel

  return float(stats.spearmanr(*zip(*pairs)).statistic)


def format_markdown(
  table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> str:
  """Formats the paper's table and ours, and their rank correlation.

  Rates are in per cent; ours are means over seeds, with the standard deviation
  of the sample if there are several.
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
      f"Spearman's rank correlation of our {_rate(table)} with the"
      f" paper's: {correlation:.2f}",
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


def _rate(table):
  return table.rate_name.replace('_', ' ')


def _make_cells(table, rows):
  """Yields the rows of cells of a table as text, the heading first."""
  names = ('d', _rate(table), 'MSE', 'epochs')
  pairs = [f'{name}, {whose}' for name in names for whose in ('paper', 'ours')]
  yield ['model', *table.weights.values(), *pairs, 'seeds']
  for line in match(table, rows):
    paper, ours = line.paper, line.ours
    yield [
      paper.title or paper.model,
      *(f'{paper.weights[name]:g}' for name in table.weights),
      str(paper.nuisance_dim),
      str(ours[0]['nuisance_dim']) if ours else '',
      f'{100 * paper.rate:.1f}',
      _show([100 * x for x in line.values(table.rate_name)], '.1f'),
      f'{paper.mse:g}',
      _show(line.values('mse'), '.3g'),
      paper.epochs,
      '/'.join(sorted({str(row['epochs']) for row in ours})),
      ', '.join(map(str, sorted({row['seed'] for row in ours}))),
    ]


def _show(values, style):
  """Formats a mean, and the sample's standard deviation of two or more."""
  text = f'{np.mean(values):{style}}' if values else ''
  if len(values) > 1:
    text += f' ± {np.std(values, ddof=1):{style}}'
  return text
