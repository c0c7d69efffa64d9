"""Tests of experiments.paper_tables and paper_numbers."""

import pytest

from experiments import paper_numbers
from experiments import paper_tables

TABLE = paper_numbers.TABLE_4


def _row(paper, swaps, *, seed=0, dim=14, mse=0.02):
  """A row of results.json of a row of the paper."""
  return {
      'model': paper.model, 'nuisance_dim': dim, 'seed': seed, 'epochs': 5,
      'class_swaps': swaps, 'mse': mse, **paper.weights,
  }  # pyformat: disable


# Values.


def test_the_papers_tables_have_its_numbers():
  # Counted and read in the document.
  assert {n: len(t.rows) for n, t in paper_numbers.TABLES.items()} == {
      1: 5, 2: 6, 4: 14, 5: 6, 6: 3
  }
  assert TABLE.rows[7].rate == 0.705
  assert paper_numbers.TABLE_5.rows[-1].mse == 1.84e-3
  assert paper_numbers.TABLE_6.rows[0].weights == {'lambda_xcov': 1e-3}
  weights = [tuple(row.weights.items()) for row in TABLE.rows]
  assert len(set(weights)) == 14


def test_means_and_deviations_are_over_seeds():
  rows = [
      _row(TABLE.rows[4], 0.5, seed=1, mse=0.01),
      _row(TABLE.rows[4], 0.7, seed=0, mse=0.03),
  ]
  line = paper_tables.match(TABLE, rows)[4]
  assert line.seeds == [0, 1]
  assert line.mean('class_swaps') == pytest.approx(0.6)
  # sqrt((0.1^2 + 0.1^2) / 1), the deviation of a sample.
  assert line.std('class_swaps') == pytest.approx(0.1414, abs=1e-4)
  assert paper_tables.match(TABLE, rows)[5].ours == ()
  assert paper_tables.match(TABLE, rows[:1])[4].std('mse') is None


def test_weights_that_passed_through_float32_are_found():
  row = _row(TABLE.rows[0], 0.3)
  row['lambda_xcov'] = 0.10000000149011612
  assert len(paper_tables.match(TABLE, [row])[0].ours) == 1
  row['lambda_xcov'] = 0.1001
  assert not paper_tables.match(TABLE, [row])[0].ours


def test_a_reduced_run_is_matched_by_its_smallest_and_largest_size():
  table = paper_numbers.TABLE_1
  rows = [_row(table.rows[0], 1.0, dim=0)]
  rows += [_row(table.rows[1], 0.9 - dim / 10, dim=dim) for dim in (1, 2, 3)]
  lines = paper_tables.match(table, rows)
  assert [row['nuisance_dim'] for row in lines[1].ours] == [3]
  # d = 18 is neither the smallest nor what a reduced run has in its place.
  assert not lines[2].ours
  assert [row['nuisance_dim'] for row in lines[0].ours] == [0]


def test_table_as_text():
  rows = [_row(TABLE.rows[0], 0.25, seed=3)]
  text = paper_tables.format_csv(TABLE, rows).splitlines()
  assert text[0].startswith('model,λ_y,λ_diff,λ_xcov,"d, paper","d, ours",')
  assert text[1] == 'student,0,0,0.1,14,14,33.6,25.0,0.0115,0.02,100,5,3'
  assert text[2] == 'student,0,0,0.01,14,,32.6,,0.0117,,100,,'
  markdown = paper_tables.format_markdown(TABLE, rows)
  assert '| student | 0 | 0 | 0.1 | 14 | 14 | 33.6 | 25.0 |' in markdown
  assert 'Spearman' not in markdown


# Oracle and anti-oracle.


def test_rank_correlation_is_one_for_the_papers_order_and_minus_one_reversed():
  same = [_row(row, row.rate / 2) for row in TABLE.rows]
  assert paper_tables.rank_correlation(TABLE, same) == pytest.approx(1)
  reverse = [_row(row, 1 - row.rate) for row in TABLE.rows]
  assert paper_tables.rank_correlation(TABLE, reverse) == pytest.approx(-1)
  assert 'paper\'s: 1.00' in paper_tables.format_markdown(TABLE, same)


def test_rank_correlation_needs_three_rows_that_differ():
  two = [_row(row, row.rate) for row in TABLE.rows[:2]]
  assert paper_tables.rank_correlation(TABLE, two) is None
  constant = [_row(row, 0.5) for row in TABLE.rows]
  assert paper_tables.rank_correlation(TABLE, constant) is None
