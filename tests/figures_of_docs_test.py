"""Tables of the documentation hold what results/ has: their figures are read.

A table is checked if `<!-- figures: RUN, RUN/FILE -->` stands above it. Each of
its rows has to be one model of these runs: all decimal fractions in the row are
figures of that model, rounded, maybe in percent, of one seed, or their mean or
deviation. Columns of the paper's are left out.
"""

import itertools
import json
import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / 'results'
PAGES = ('README.md', 'docs/results.md')
# What models of a run differ in, besides their figures.
SETTINGS = (
  'model', 'nuisance_dim', 'labels', 'lambda_adversarial', 'epochs_asked',
  'growth', 'grow_by', 'grow_when', 'units',
)  # fmt: skip
# Columns whose figures are not in results/.
ELSEWHERE = ('paper', 'ms a step', 'time')
_TABLE = re.compile(r'<!-- figures: (.*) -->\n+((?:\|.*\n)+)')
_FIGURE = re.compile(r'(?<![\w.])\d+\.\d+(?:e-?\d+)?(?!\w)')


def find_tables(page: str) -> list[tuple[list[str], list[list[str]]]]:
  """Finds checked tables: the names of their runs, and their cells."""
  tables = []
  for names, text in _TABLE.findall(page):
    rows = [line.strip().strip('|').split('|') for line in text.splitlines()]
    tables.append((names.split(', '), [rows[0], *rows[2:]]))
  return tables


def read_models(name: str) -> list[list[dict]]:
  """Reads a run's rows, those of one model and all of its seeds together."""
  run, _, file = name.partition('/')
  rows = json.loads((RESULTS / run / f'{file or "results"}.json').read_text())
  models = {}
  for row in rows['rows']:
    key = tuple(row.get(setting) for setting in SETTINGS)
    models.setdefault(key, []).append(row)
  return [*models.values()]


def list_figures(seeds: list[dict]) -> np.ndarray:
  """Lists a model's figures: of each seed, and their means and deviations."""
  figures = []
  for name, value in seeds[0].items():
    if isinstance(value, int | float):
      values = [row[name] for row in seeds if row.get(name) is not None]
      spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
      figures += [*values, np.mean(values), spread]
  return np.array([*figures, *(100 * x for x in figures)])


def read_figures(header: list[str], row: list[str]) -> list[str]:
  """Reads the decimal fractions of a row, but those from elsewhere."""
  found = []
  for title, cell in itertools.zip_longest(header, row, fillvalue=''):
    if not any(word in title.lower() for word in ELSEWHERE):
      found += _FIGURE.findall(cell)
  return found


def find_wrong(figures: list[str], known: np.ndarray) -> list[str]:
  """Returns the figures that none of the known ones rounds to."""
  wrong = []
  for text in figures:
    mantissa, _, exponent = text.partition('e')
    half = 0.501 * 10.0 ** (int(exponent or 0) - len(mantissa.split('.')[1]))
    if not np.any(np.abs(known - float(text)) <= half):
      wrong.append(text)
  return wrong


@pytest.mark.parametrize('page', PAGES)
def test_tables_hold_the_figures_of_runs(page):
  tables = find_tables((ROOT / page).read_text())
  assert tables
  for names, (header, *rows) in tables:
    models = [list_figures(x) for name in names for x in read_models(name)]
    for row in rows:
      figures = read_figures(header, row)
      wrong = min((find_wrong(figures, known) for known in models), key=len)
      assert not wrong, f'{page}: {names}: {" | ".join(row)}: {wrong}'


def test_a_figure_that_no_run_has_is_found():
  known = list_figures([{'mse': 0.0141, 'class_swaps': 0.62}, {'mse': 0.0143}])
  assert not find_wrong(['62.0', '0.0142', '0.0001'], known)
  assert find_wrong(['62.1', '0.015', '1.42e-2', '6.2'], known) == [
    '62.1', '0.015', '6.2',
  ]  # fmt: skip
