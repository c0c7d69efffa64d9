"""Tests of jacsup_jax.tables."""

from jacsup_jax import tables

ROW = {
    'model': 'student',
    'nuisance_dim': 14,
    'class_swaps': 0.5123,
    'class_swaps_std': 0.004,
    'class_swaps_noisy_judge': 0.25,
    'class_swaps_true_labels': 1.0,
    'mse': 0.01234,
    'psnr': 19.087,
}


# Values.


def test_row_by_hand():
  _, line = tables.format_rows([ROW]).split('\n')
  assert line.split() == [
      'student', '14', '51.2%', '0.4%', '25.0%', '100.0%', '0.0123', '19.09',
  ]  # pyformat: disable


def test_missing_values_are_dashes():
  line = tables.format_rows([{'model': 'random', 'class_swaps': None}])
  assert line.split('\n')[1].split() == ['random'] + 7 * ['-']


def test_effect_is_at_the_largest_d_of_both():
  rows = [
      {**ROW, 'nuisance_dim': 1, 'class_swaps': 0.9},
      {**ROW, 'nuisance_dim': 2, 'class_swaps': 0.5},
      {**ROW, 'model': 'student_no_jacobian', 'nuisance_dim': 1,
       'class_swaps': 0.8},
      {**ROW, 'model': 'student_no_jacobian', 'nuisance_dim': 2,
       'class_swaps': 0.255},
  ]  # pyformat: disable
  # 100 (0.5 - 0.255).
  assert tables.format_effect(rows) == (
      'At d = 2, class swaps are 50.0% with Jacobian supervision and 25.5%'
      ' without: +24.5 points.'
  )


def test_effect_needs_both_chains():
  assert tables.format_effect([ROW]) is None
  assert tables.format_effect([]) is None


def test_effect_needs_a_score_of_both():
  # A judge may be left without pairs.
  rows = [ROW, {**ROW, 'model': 'student_no_jacobian', 'class_swaps': None}]
  assert tables.format_effect(rows) is None


def test_effect_compares_equal_d():
  # Chains of other lengths have no common largest d to compare at.
  rows = [
      {**ROW, 'nuisance_dim': 1, 'class_swaps': 0.9},
      {**ROW, 'nuisance_dim': 2, 'class_swaps': 0.5},
      {**ROW, 'model': 'student_no_jacobian', 'nuisance_dim': 1,
       'class_swaps': 0.8},
  ]  # pyformat: disable
  line = tables.format_effect(rows)
  # 100 (0.9 - 0.8) at d = 1, or no line; never 0.5 against 0.8.
  assert line is None or '+10.0 points' in line


def test_results_end_with_the_effect():
  rows = [ROW, {**ROW, 'model': 'student_no_jacobian'}]
  lines = tables.format_results({'rows': rows}).split('\n')
  assert len(lines) == 4
  assert '+0.0 points' in lines[-1]
  assert len(tables.format_results({'rows': [ROW]}).split('\n')) == 2


# Invariants.


def test_lines_have_equal_widths():
  rows = [ROW, {'model': 'teacher'}, {**ROW, 'model': 'student_no_jacobian'}]
  lines = tables.format_rows(rows).split('\n')
  assert len(lines) == 4
  assert len({len(line) for line in lines}) == 1
  assert len(tables.format_rows([]).split('\n')) == 1
