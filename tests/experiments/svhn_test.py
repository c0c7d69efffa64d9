"""Tests of experiments.svhn by the run that all tests share."""

import json

from experiments import cli
from experiments import svhn


def test_a_run_has_its_rows_and_figures(svhn_run):
  results = json.loads((svhn_run / 'results.json').read_text())
  assert [row['stage'] for row in results['rows']] == [
      'teacher', 'student_d02', 'random'
  ]  # fmt: skip
  names = {path.stem for path in (svhn_run / 'figures').iterdir()}
  assert {'figure_9', 'figure_10', 'figure_11', 'figure_12', 'curves'} <= names
  manifest = json.loads((svhn_run / 'manifest.json').read_text())
  module = manifest['stages']['student_d02']['module']
  assert module['name'] == 'SvhnAutoencoder' and module['widths'] == [4, 8, 16]


def test_students_normalize_and_sets_have_their_own_shapes():
  make = lambda *args: svhn.make_module(
    cli.parse(svhn.DEFAULT, args), 2, 3, False
  )
  assert make().normalize_code
  assert not make('--nonormalize_students').normalize_code
  assert make('--dataset=dsprites').image_shape == (64, 64, 1)
  assert make('--dataset=shapes3d').image_shape == (64, 64, 3)
  assert make('--first_width=8', '--linear_code').linear_code
