"""Tests of evaluation.tables."""

import pytest

from jacsup_jax.evaluation import tables

ROW = {
  'model': 'student',
  'nuisance_dim': 14,
  'class_swaps': 0.5123,
  'class_swaps_family': 'svm',
  'class_swaps_mlp': 0.6,
  'class_swaps_mlp_std': 0.004,
  'class_swaps_cnn': 0.55,
  'class_swaps_cnn_std': 0.01,
  'class_swaps_svm': 0.5123,
  'class_swaps_noisy_judge': 0.25,
  'class_swaps_true_labels': 1.0,
  'mse': 0.01234,
  'psnr': 19.087,
}

FACES = {
    'model': 'student',
    'nuisance_dim': 8192,
    'attribute_flips': 0.7222,
    'attribute_flips_balanced': 0.7412,
    'attribute_flips_balanced_told': 0.8,
    'attribute_flips_balanced_stgan': None,
    'kept': 0.955,
    'preservation': 0.94,
    'outside_inside': 0.25,
    'ssim': 0.8,
    'strength': 40.0,
    'mse': 0.00108,
    'psnr': 35.687,
    'judge_accuracy': 0.912,
    'judge_accuracy_reconstructions': 0.898,
    'judge_accuracy_by_attribute': {'Bald': 0.98, 'Smiling': 0.9},
    'judge_balanced_accuracy_by_attribute': {'Bald': 0.6, 'Smiling': 0.89},
    'judge_accuracy_reconstructions_by_attribute': {
        'Bald': 0.97, 'Smiling': 0.8
    },
    'attribute_flips_balanced_by_attribute': {'Bald': 0.25, 'Smiling': 1.0},
}  # fmt: skip

WITHOUT = {**ROW, 'model': 'student_no_jacobian'}
# Rows of two seeds.
SEED_0 = {
    'model': 'student', 'stage': 'student_d02', 'nuisance_dim': 2, 'seed': 0,
    'epochs': 3, 'lambda_y': 0.25, 'sha256': 'a', 'class_swaps': 0.5,
    'class_swaps_family': 'cnn', 'mse': 0.01,
}  # fmt: skip
SEED_1 = {
    **SEED_0, 'seed': 1, 'sha256': 'b', 'class_swaps': 0.7,
    'class_swaps_family': 'svm', 'mse': 0.03,
}  # fmt: skip


def test_effect_is_at_the_largest_d_of_both():
  rows = [
    {**row, 'nuisance_dim': dim, 'class_swaps': swaps}
    for row, dim, swaps in (
      (ROW, 1, 0.9), (ROW, 2, 0.5), (WITHOUT, 1, 0.8), (WITHOUT, 2, 0.255),
    )
  ]  # fmt: skip
  # 100 (0.5 - 0.255).
  assert tables.format_effect(rows) == (
    'At d = 2, class swaps (lowest family of judges) are 50.0% with Jacobian'
    ' supervision and 25.5% without: +24.5 points.'
  )


def test_rows_by_hand():
  _, line = tables.format_rows([ROW]).split('\n')
  assert line.split() == [
      'student', '14', '51.2%', 'svm', '60.0%', '0.4%', '55.0%', '1.0%',
      '51.2%', '25.0%', '100.0%', '0.0123', '19.09',
  ]  # fmt: skip
  _, line = tables.format_rows([FACES]).split('\n')
  assert line.split() == [
      'student', '8192', '-', '74.1%', '80.0%', '-', '95.5%', '0.25', '72.2%',
      '94.0%', '40', '1.08e-3', '0.800', '91.2%', '89.8%',
  ]  # fmt: skip
  assert ' - ' in tables.format_rows([{**FACES, 'preservation': None}])


def test_a_second_table_has_naturalness_and_leakage():
  row = {
      **ROW, 'judge_accuracy_reconstructions_mlp': 0.96,
      'judge_accuracy_reconstructions_cnn': 0.95,
      'judge_accuracy_reconstructions_svm': 0.94, 'precision_swapped': 0.5,
      'precision_reconstructions': 0.75, 'recall_swapped': 0.25,
      'recall_reconstructions': 0.625, 'frechet_swapped': 12.34,
      'frechet_reconstructions': 2.0, 'probe_linear_factors': 0.7,
      'probe_mlp_factors': 0.8, 'probe_linear_nuisance': None,
      'probe_mlp_nuisance': 0.125,
  }  # fmt: skip
  first, second = tables.format_rows([row]).split('\n\n')
  assert first == tables.format_rows([ROW])
  assert second.split('\n')[1].split() == [
      'student', '14', '96.0%', '95.0%', '94.0%', '50.0%', '75.0%', '25.0%',
      '62.5%', '12.3', '2.0', '70.0%', '80.0%', '-', '12.5%',
  ]  # fmt: skip


def test_rows_of_earlier_versions_were_judged_by_perceptrons():
  old = {
      'model': 'student', 'nuisance_dim': 14, 'class_swaps': 0.9,
      'class_swaps_std': 0.02, 'mse': 0.01,
  }  # fmt: skip
  found = tables.name_family(old)
  assert (
    found['class_swaps_mlp'] == 0.9 and found['class_swaps_mlp_std'] == 0.02
  )
  _, line = tables.format_rows([old]).split('\n')
  assert line.split()[:6] == ['student', '14', '90.0%', 'mlp', '90.0%', '2.0%']
  for row in (ROW, FACES, {**old, 'class_swaps': None}):
    assert tables.name_family(row) is row


def test_faces_have_one_table():
  # They have a Frechet distance of their own judges.
  rows = [{**FACES, 'frechet_reconstructions': 10.0}]
  assert tables.format_rows(rows) == tables.format_rows([FACES])


def test_tables_of_markdown_and_of_values():
  rows = [{**SEED_0, 'units': 'validation'}, {**SEED_1, 'units': 'validation'}]
  heading, line, row, _, note, *_ = tables.format_markdown(rows).split('\n')
  titles, cells = (
    [cell.strip() for cell in text.split('|')[1:-1]] for text in (heading, row)
  )
  assert line == f'|{" --- |" * len(titles)}'
  found = dict(zip(titles, cells, strict=True))
  assert found['class swaps'] == '60.0% ± 14.1%'
  assert found['factors by'] == 'validation' and found['PSNR dB'] == '-'
  assert note.startswith('±: ') and 'n = 2 seeds' in note
  heading, row, _ = tables.format_csv(rows).split('\n')
  assert heading.split(',') == titles and row.split(',') == cells
  assert '±' not in tables.format_markdown(rows[:1])


def test_attributes_by_hand():
  other = {
    **FACES,
    'model': 'teacher',
    'nuisance_dim': 2048,
    'attribute_flips_balanced_by_attribute': {'Bald': 0.5, 'Smiling': 0.75},
  }
  lines = tables.format_attributes([FACES, other, ROW]).split('\n')
  assert lines[:2] == ['1: student, d = 8192', '2: teacher, d = 2048']
  # The attribute that the judge tells best comes first.
  assert [line.split() for line in lines[3:]] == [
    ['Smiling', '90.0%', '89.0%', '80.0%', '100.0%', '80.0%', '75.0%'],
    ['Bald', '98.0%', '60.0%', '97.0%', '25.0%', '97.0%', '50.0%'],
    ['mean', '94.0%', '74.5%', '88.5%', '62.5%', '88.5%', '62.5%'],
  ]


def test_a_table_has_means_and_deviations_by_hand():
  heading, line, explanation = tables.format_rows([SEED_0, SEED_1]).split('\n')
  # (0.5 + 0.7) / 2, and 0.1 sqrt(2).
  assert '60.0% ± 14.1%' in line and '0.0200 ± 0.0141' in line
  # Seeds may differ in the family that sees the fewest.
  assert 'cnn/svm' in line
  assert 'n - 1' in explanation and 'n = 2' in explanation
  assert len(heading) == len(line)


def test_an_effect_is_of_pairs():
  without = {**SEED_0, 'model': 'student_no_jacobian', 'class_swaps': 0.3}
  # Differences of 20 and 30 points, though each chain varies on its own.
  line = tables.format_effect(
    [SEED_0, SEED_1, without, {**without, 'seed': 1, 'class_swaps': 0.4}]
  )
  assert line.endswith('35.0% ± 7.1% without: +25.0 ± 7.1 points.')


@pytest.mark.parametrize(
    'change',
    [
        {'model': 'teacher'}, {'nuisance_dim': 3}, {'lambda_y': 0.5},
        {'stage': 'other'}, {'squared_xcov': False},
        {'seed': 0},  # What they differ in no entry says.
    ],
)  # fmt: skip
def test_rows_that_differ_in_more_than_seeds_stay_apart(change):
  other = {**SEED_1, **change}
  assert tables.group_seeds([SEED_0, other]) == [[SEED_0], [other]]
