"""Tables of the paper and of our runs side by side."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import math
from typing import Any

import scipy

from experiments import paper_numbers
from jacsup_jax.evaluation import averages


@dataclasses.dataclass(frozen=True)
class Line:
  """A row of the paper's table and our runs of it.

  Attributes:
    paper: the paper's.
    ours: rows of results.json, one per seed; empty where none was run.
  """

  paper: paper_numbers.PaperRow
  ours: tuple[Mapping[str, Any], ...]

  def mean(self, name: str) -> float | None:
    """Returns the mean over seeds of an entry, None where it was not run."""
    return averages.mean([row.get(name) for row in self.ours])

  def std(self, name: str) -> float | None:
    """Returns the deviation of the sample, None of fewer than two seeds."""
    return averages.deviation([row.get(name) for row in self.ours])

  @property
  def seeds(self) -> list[int]:
    return sorted({row['seed'] for row in self.ours})


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
    ours = [row for row in ours if row['nuisance_dim'] == dim]
    lines.append(Line(paper, tuple(ours)))
  return lines


def rank_correlation(
    table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> float | None:
  """Computes Spearman's rank correlation of our rates with the paper's.

  Args:
    table: the paper's.
    rows: of results.json.

  Returns:
    From -1 to 1; None where fewer than three rows of the paper were run, or
    all rates are the same.
  """
  pairs = [
      (line.paper.rate, line.mean(table.rate_name))
      for line in match(table, rows)
      if line.mean(table.rate_name) is not None
  ]
  if len(pairs) < 3 or len({ours for _, ours in pairs}) == 1:
    return None
  # scipy imports its parts when they are asked for; this is one of the slow.
  return float(scipy.stats.spearmanr(*zip(*pairs)).statistic)


def format_markdown(
    table: paper_numbers.PaperTable, rows: Sequence[Mapping[str, Any]]
) -> str:
  """Formats the paper's table and ours as Markdown.

  Rates are in per cent; ours are means over seeds, with their deviation where
  there are several.

  Args:
    table: the paper's.
    rows: of results.json.

  Returns:
    Lines: a heading, the table, what the deviations are, and for three rows
    or more the rank correlation of the rates.
  """
  heading, *cells = _cells(table, rows)
  lines = [
      f'Table {table.number}: {table.title}',
      '',
      f'| {" | ".join(heading)} |',
      f'|{" --- |" * len(heading)}',
      *(f'| {" | ".join(line)} |' for line in cells),
  ]
  explanation = averages.describe_deviation(
      [line.ours for line in match(table, rows)]
  )
  if explanation is not None:
    lines += ['', explanation]
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
  """Formats the same cells as comma-separated values.

  Args:
    table: the paper's.
    rows: of results.json.

  Returns:
    Lines: names of the columns, and a line for each row of the paper.
  """
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(_cells(table, rows))
  return text.getvalue()


def _is_same(paper, row):
  """Whether a row of results.json has the model and weights of the paper's."""
  return row['model'] == paper.model and all(
      # Weights may have passed through float32.
      math.isclose(row.get(name, math.nan), value, rel_tol=1e-6)
      for name, value in paper.weights.items()
  )


def _cells(table, rows):
  """Returns the cells of a table as text, the first row its heading."""
  rate = table.rate_title
  yield [
      'model', *table.weights.values(), 'd, paper', 'd, ours',
      f'{rate}, paper', f'{rate}, ours', 'MSE, paper', 'MSE, ours',
      'epochs, paper', 'epochs, ours', 'seeds',
  ]  # pyformat: disable
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
        ', '.join(map(str, line.seeds)),
    ]


def _show(line, name, show):
  """Shows a mean over seeds and its deviation; blank where not run."""
  mean, std = line.mean(name), line.std(name)
  if mean is None:
    return ''
  return show(mean) if std is None else f'{show(mean)} ± {show(std)}'
