"""Tests of jacsup_jax.averages, and of the tables that it is for."""

import math

import numpy as np
import pytest

from jacsup_jax.evaluation import averages
from jacsup_jax.evaluation import tables

ROW = {
    'model': 'student', 'stage': 'student_d02', 'nuisance_dim': 2, 'seed': 0,
    'epochs': 3, 'lambda_y': 0.25, 'sha256': 'a', 'class_swaps': 0.5,
    'mse': 0.01,
}  # pyformat: disable
OTHER = {**ROW, 'seed': 1, 'sha256': 'b', 'class_swaps': 0.7, 'mse': 0.03}
FACE = {
    **ROW, 'attribute_flips': 0.8, 'seed': 0,
    'judge_accuracy_by_attribute': {'Bald': 0.9},
    'judge_balanced_accuracy_by_attribute': {'Bald': 0.8},
    'judge_accuracy_reconstructions_by_attribute': {'Bald': 0.7},
    'attribute_flips_by_attribute': {'Bald': 0.2},
}  # pyformat: disable


# Values.


def test_deviation_is_that_of_a_sample():
  # Squares of -1, 0 and 1 over 3 - 1, not over 3.
  assert averages.deviation([1.0, 2.0, 3.0]) == 1.0
  assert averages.mean([1.0, None, 3.0]) == 2.0
  assert averages.deviation([1.0, None]) is None
  assert averages.mean([None]) is None
  assert math.isnan(averages.deviation([1.0, math.nan]))


def test_a_table_has_means_and_deviations_by_hand():
  heading, line, explanation = tables.format_rows([ROW, OTHER]).split('\n')
  # (0.5 + 0.7) / 2, and 0.1 sqrt(2).
  assert '60.0% ± 14.1%' in line and '0.0200 ± 0.0141' in line
  assert line.split()[:2] == ['student', '2']
  assert 'n - 1' in explanation and 'n = 2' in explanation
  assert len(heading) == len(line)


def test_attributes_have_means_and_deviations_by_hand():
  other = {**FACE, 'seed': 1, 'attribute_flips_by_attribute': {'Bald': 0.4}}
  lines = tables.format_attributes([FACE, other]).split('\n')
  assert lines[0] == '1: student, d = 2'
  for name in ('Bald', 'mean'):
    [line] = [x for x in lines if x.startswith(name)]
    assert '30.0% ± 14.1%' in line and '70.0% ± 0.0%' in line
    assert line.split()[1:3] == ['90.0%', '80.0%']
  assert 'n - 1' in lines[-1]


def test_an_effect_is_of_pairs():
  without = [
      {**row, 'model': 'student_no_jacobian', 'class_swaps': swaps}
      for row, swaps in ((ROW, 0.3), (OTHER, 0.4))
  ]
  # Differences of 20 and 30 points, though each chain varies on its own.
  line = tables.format_effect([ROW, OTHER, *without])
  assert line.endswith('35.0% ± 7.1% without: +25.0 ± 7.1 points.')


# Invariants.


@pytest.mark.parametrize(
    'change',
    [
        {'model': 'teacher'}, {'nuisance_dim': 3}, {'lambda_y': 0.5},
        {'stage': 'other'}, {'squared_xcov': False},
    ],
)  # pyformat: disable
def test_rows_that_differ_in_more_than_seeds_stay_apart(change):
  assert averages.group_seeds([ROW, {**OTHER, **change}]) == [
      [ROW], [{**OTHER, **change}]
  ]


def test_rows_of_one_seed_stay_apart():
  # What they differ in no entry says.
  assert averages.group_seeds([ROW, {**ROW, 'mse': 0.2}, OTHER]) == [
      [ROW], [{**ROW, 'mse': 0.2}], [OTHER]
  ]


def test_stages_may_have_their_seed_in_their_names_and_epochs_of_their_own():
  rows = [
      {**row, 'stage': f'student_row1_seed{row["seed"]}', 'epochs': epochs}
      for row, epochs in ((ROW, 3), (OTHER, 5))
  ]
  assert averages.group_seeds(rows) == [rows]


def test_a_single_seed_has_no_deviations():
  rows = [ROW, {**ROW, 'model': 'random'}]
  text = tables.format_rows(rows)
  assert '±' not in text and len(text.split('\n')) == 3
  assert averages.describe_deviation([[ROW]]) is None


def test_order_of_seeds_does_not_matter():
  values = [0.1, 0.7, 0.4]
  np.testing.assert_allclose(
      averages.deviation(values), averages.deviation(values[::-1])
  )
