"""Tests of experiments.svhn."""

import json

import pytest

from experiments import cli
from experiments import drawing
from experiments import svhn

FIGURES = ('figure_9', 'figure_10', 'figure_11', 'figure_12', 'curves')


@pytest.mark.parametrize(
  'is_drawn', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_run_of_one_growth_by_two_units(
  tmp_path, invoke, monkeypatch, colours, is_drawn
):
  if not is_drawn:
    monkeypatch.setattr(drawing, 'save', lambda *unused_args: [])
  workdir = tmp_path / 'svhn'
  status, _, err = invoke(
      svhn.main, svhn.DEFAULT, '--dataset=arrays',
      f'--data_dir={colours}', '--batch_size=16', '--epochs=1',
      '--nuisance_dim=2', '--grow_by=2', '--first_width=4', '--linear_code',
      f'--workdir={workdir}', f'--judge_workdir={tmp_path / "judges"}',
  )  # fmt: skip
  assert status == 0, err
  results = json.loads((workdir / 'results.json').read_text())
  assert [row['stage'] for row in results['rows']] == [
      'teacher', 'student_d02', 'random'
  ]  # fmt: skip
  manifest = json.loads((workdir / 'manifest.json').read_text())
  module = manifest['stages']['student_d02']['module']
  assert module['name'] == 'SvhnAutoencoder' and module['widths'] == [4, 8, 16]
  if is_drawn:
    names = {path.stem for path in (workdir / 'figures').iterdir()}
    assert {*FIGURES} <= names


def test_students_normalize_and_sets_have_their_own_shapes():
  make = lambda *args: svhn.make_module(
    cli.parse(svhn.DEFAULT, args), 2, 3, False
  )
  assert make().normalize_code
  assert not make('--nonormalize_students').normalize_code
  assert make('--dataset=dsprites').image_shape == (64, 64, 1)
  assert make('--dataset=shapes3d').image_shape == (64, 64, 3)
  assert make('--first_width=8', '--linear_code').linear_code
