"""Tests of experiments.compare, and of a run with baselines of Section 3."""

import json
import shutil

import pytest

from experiments import compare
from experiments import drawing
from experiments import evaluate
from experiments import mnist
from jacsup_jax.runs import run as run_lib

STAGES = ['teacher', 'student_d01', 'beta_vae', 'qlae']


def _flags(digit_flags, workdir, *more):
  return (
      *digit_flags, f'--workdir={workdir}', '--baselines=beta_vae,qlae',
      '--baseline_epochs=1', '--seeds=2', *more,
  )  # fmt: skip


def _read(path):
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def field_run(digit_flags, root, invoke):
  """A run of two seeds with two baselines, without most figures."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      drawing, 'save', lambda found, folder: names.extend(d.name for d in found)
    )
    names = []
    flags = _flags(digit_flags, root / 'field')
    status, out, err = invoke(mnist.main, mnist.Config(), *flags)
  assert status == 0, err
  assert (
    'choosing factors on the validation split' in err and 'factors by' in out
  )
  # One picture is of all models.
  assert names.count('swaps') == 1
  return root / 'field'


def test_baselines_are_measured_with_both_choices_of_factors(field_run):
  results = _read(field_run / 'results.json')
  assert 'factor_units: ' in results['protocol']
  rows = results['rows']
  assert [row['stage'] for row in rows[:7]] == [
      'teacher_seed0', 'student_d01_seed0', 'beta_vae_seed0', 'beta_vae_seed0',
      'qlae_seed0', 'qlae_seed0', 'random',
  ]  # fmt: skip
  assert [row.get('units') for row in rows[:7]] == [
      None, None, 'largest_divergence', 'validation', 'largest_variance',
      'validation', None,
  ]  # fmt: skip
  for row in rows:
    if 'units' in row:
      assert len({*row['factor_units']}) == 2
      assert 0 <= min(row['factor_units']) <= max(row['factor_units']) <= 2
      assert {'mse', 'class_swaps'} <= {*row}
  beta = rows[2]
  assert beta['lambda_beta_vae'] == 4.0 and beta['nuisance_dim'] == 1
  # A swap does not change what is reconstructed.
  assert beta['mse'] == pytest.approx(rows[3]['mse'], rel=1e-6)
  manifest = _read(field_run / 'manifest.json')
  names = [f'{name}_seed{seed}' for seed in (0, 1) for name in STAGES]
  assert sorted(manifest['planned']) == sorted(names)
  assert {*manifest['stages']} == {*names}


def test_models_are_restored_and_measured_again(
  field_run, root, invoke, tmp_path
):
  run = run_lib.Run.open(field_run)
  assert run.restore('qlae_seed0').has_free_units
  assert run.stage('qlae_seed1').weights.qlae_weight_decay == 0.1
  copy = shutil.copytree(field_run, tmp_path / 'copy')
  status, out, err = invoke(
      evaluate.main, evaluate.Config(), f'--workdir={copy}',
      f'--judge_workdir={root / "judges"}', '--diagnostics_images=4',
      '--metrics=infomec', '--infomec_pruning=0.2', '--factor_units=2,0',
  )  # fmt: skip
  assert status == 0, err
  found = _read(copy / 'evaluations' / 'arrays_test.json')['rows']
  own = {
    (row['stage'], row['seed'], row.get('units')): row
    for row in _read(copy / 'results.json')['rows']
  }
  given = [row for row in found if row.get('units') == 'given']
  assert [row['factor_units'] for row in given] == [[2, 0]] * 4
  for row in found:
    # Choices are those of the run.
    before = own.get((row['stage'], row['seed'], row.get('units')), {})
    assert {**row, **before} == row
  # Of one label modularity is not defined.
  assert found[2]['infoe'] is not None and found[2]['infom'] is None
  assert found[2]['infoe'] == found[3]['infoe']
  assert 'jacobian_cosine' in found[1] and 'jacobian_cosine' not in found[2]


def test_the_table_has_means_over_seeds(field_run, tmp_path, invoke):
  status, out, err = invoke(
      compare.main, compare.Config(), f'--workdir={field_run}',
      f'--output={tmp_path / "table"}',
  )  # fmt: skip
  assert status == 0, err
  lines = (tmp_path / 'table.md').read_text().splitlines()
  models = [line.split('|')[1].strip() for line in lines[2:8]]
  assert models == [
      'teacher', 'student', 'beta_vae', 'beta_vae', 'qlae', 'qlae'
  ]  # fmt: skip
  assert '±' in lines[4] and 'largest_divergence' in lines[4]
  assert (tmp_path / 'table.csv').read_text().count('\n') == 8
  assert 'n = 2 seeds' in out and 'field' in lines[4]


def test_classes_and_faces_are_not_one_table(field_run, celeba_run, invoke):
  status, _, err = invoke(
    compare.main, compare.Config(), f'--workdir={field_run},{celeba_run}'
  )
  assert status == 2 and 'of classes and of faces' in err


@pytest.mark.parametrize(
  ('flags', 'part'),
  [
    (['--evaluation=nothing'], 'no evaluation nothing'),
    (['--workdir='], '--workdir is empty'),
    (['--workdir=nowhere'], 'holds no run'),
    (['--output=/proc/x'], '--output=/proc/x'),
  ],
)
def test_mistakes_are_one_line(field_run, invoke, flags, part):
  status, _, err = invoke(
    compare.main, compare.Config(), f'--workdir={field_run}', *flags
  )
  assert status == 2 and err.count('\n') == 1 and part in err, err


def test_one_seed_has_no_deviation(mnist_run, tmp_path, invoke):
  args = f'--workdir={mnist_run}', f'--output={tmp_path / "table"}'
  status, _, err = invoke(compare.main, compare.Config(), *args)
  assert status == 2 and err.count('\n') == 1
  assert 'teacher of seed 0 alone' in err and '--seeds=3' in err
  assert not list(tmp_path.iterdir())
  status, _, err = invoke(compare.main, compare.Config(), *args, '--nospread')
  assert status == 0, err
