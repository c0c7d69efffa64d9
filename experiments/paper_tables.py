"""Tables of the paper and of our runs side by side."""

from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import Any

import pandas as pd

from experiments import paper_numbers
from jacsup_jax.data import files
from jacsup_jax.evaluation import tables

_Rows = Sequence[Mapping[str, Any]]


def write(
  table: paper_numbers.PaperTable,
  rows: _Rows,
  path: pathlib.Path,
  ending: str = '',
) -> str:
  """Writes PATH.csv and PATH.md, and returns the latter with its ending."""
  text = format_markdown(table, rows) + ending
  files.write_whole(path.with_suffix('.md'), text)
  cells = make_cells(table, rows).to_csv(index=False, lineterminator='\n')
  files.write_whole(path.with_suffix('.csv'), cells)
  return text


def match(table: paper_numbers.PaperTable, rows: _Rows) -> list[pd.DataFrame]:
  """Finds our rows of each row of the paper, by model, weights and d.

  There is one for each seed, if any. A reduced run has other d: its largest
  stands for the paper's largest, its smallest for the smallest, as the table
  says.
  """
  found = []
  rows = [_complete(row) for row in rows]
  for paper in table.rows:
    ours = [row for row in rows if _is_same(paper, row)]
    dims, dim = {row['nuisance_dim'] for row in ours}, paper.nuisance_dim
    if dims and dim not in dims and dim in table.reduced_dims:
      dim = table.reduced_dims[dim](dims)
    measured = ['mse', table.rate_name, *_list_others(table)]
    own = [row for row in ours if row['nuisance_dim'] == dim]
    frame = pd.DataFrame(
      own, columns=['nuisance_dim', 'seed', 'epochs', *measured]
    )
    found.append(frame.astype(dict.fromkeys(measured, float)))
  return found


def rank_correlation(
  table: paper_numbers.PaperTable, rows: _Rows
) -> float | None:
  """Computes Spearman's rank correlation of our rates with the paper's.

  From -1 to 1; None if fewer than three rows of the paper were run, or all
  rates are the same.
  """
  means = [own[table.rate_name].mean() for own in match(table, rows)]
  rates = pd.DataFrame(
    {'paper': [row.rate for row in table.rows], 'our': means}
  )
  rates = rates.dropna()
  if len(rates) < 3 or rates['our'].nunique() == 1:
    return None
  return float(rates['paper'].corr(rates['our'], method='spearman'))


def format_markdown(table: paper_numbers.PaperTable, rows: _Rows) -> str:
  """Formats the paper's table and ours, and their rank correlation.

  Rates are in per cent; ours are means over seeds, with the standard deviation
  of the sample if there are several.
  """
  cells = make_cells(table, rows)
  lines = [
    f'Table {table.number}: {table.title}',
    '',
    f'| {" | ".join(cells.columns)} |',
    f'|{" --- |" * cells.shape[1]}',
    *(f'| {" | ".join(line)} |' for line in cells.to_numpy()),
  ]
  if any(len(own) > 1 for own in match(table, rows)):
    lines += ['', '±: standard deviation over seeds (divisor n - 1).']
  correlation = rank_correlation(table, rows)
  if correlation is not None:
    lines += [
      '',
      f"Spearman's rank correlation of our {_rate(table)} with the"
      f" paper's: {correlation:.2f}",
    ]
  return '\n'.join(lines) + '\n'


def make_cells(table: paper_numbers.PaperTable, rows: _Rows) -> pd.DataFrame:
  """Makes the cells of a table as text."""
  pairs = []
  for name in ('d', _rate(table), 'MSE', 'epochs'):
    pairs += [f'{name}, paper', f'{name}, ours']
    if name == _rate(table):
      pairs += _list_others(table).values()
  lines = []
  for paper, ours in zip(table.rows, match(table, rows), strict=True):
    lines.append([
      paper.title or paper.model,
      *(f'{paper.weights[name]:g}' for name in table.weights),
      str(paper.nuisance_dim),
      _list(ours['nuisance_dim']),
      f'{100 * paper.rate:.1f}',
      _show(100 * ours[table.rate_name], '.1f'),
      *(_show(100 * ours[name], '.1f') for name in _list_others(table)),
      f'{paper.mse:g}',
      _show(ours['mse'], '.5f'),
      paper.epochs,
      _list(ours['epochs'], '/'),
      _list(ours['seed']),
    ])  # fmt: skip
  columns = ['model', *table.weights.values(), *pairs, 'seeds']
  return pd.DataFrame(lines, columns=columns)


def _complete(row):
  """Returns a row with names of families; one family has no lowest."""
  row = tables.name_family(row)
  return row if 'class_swaps_cnn' in row else {**row, 'class_swaps': None}


def _is_same(paper, row):
  """Returns whether a row of results.json has the paper's model and weights."""
  if row.get('labels', paper.labels) != paper.labels:  # Digits have none.
    return False
  return row['model'] == paper.model and all(
    # Weights may have passed through float32.
    math.isclose(row.get(name, math.nan), value, rel_tol=1e-6)
    for name, value in paper.weights.items()
  )


def _rate(table):
  return table.rate_name.replace('_mlp', ' by perceptrons').replace('_', ' ')


def _list_others(table):
  """Lists entries of ours that the paper does not have, and their titles."""
  if table.rate_name != 'class_swaps_mlp':
    return {}
  return {
    'class_swaps_cnn': 'cnn',
    'class_swaps_svm': 'svm',
    'class_swaps': 'lowest family',
  }


def _list(values, separator=', '):
  return separator.join(map(str, sorted(values.unique())))


def _show(values, style):
  """Formats a mean, and the sample's standard deviation of two or more."""
  values = values.dropna()
  text = f'{values.mean():{style}}' if len(values) else ''
  return text + (f' ± {values.std():{style}}' if len(values) > 1 else '')
