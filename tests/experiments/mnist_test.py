"""Tests of experiments.mnist by the run that all tests share."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import mnist

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ['teacher', 'student_d01', 'student_no_jacobian_d01']


def _read(run):
  results = json.loads((run / 'results.json').read_text())
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  return results, [json.loads(line) for line in lines]


def _start(*args, **environment):
  return subprocess.Popen(
      [sys.executable, '-m', 'experiments.mnist', *args],
      cwd=ROOT, env=os.environ | environment, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip


# Values.


def test_a_run_has_its_manifest_rows_metrics_and_figures(mnist_run, digits):
  results, records = _read(mnist_run)
  assert results['experiment'] == 'mnist'
  assert results['protocol'].startswith('test split; class_swaps: ')
  assert results['judges']['sha256']
  rows = results['rows']
  assert [row['stage'] for row in rows] == [*STAGES, 'random']
  assert [row['nuisance_dim'] for row in rows] == [0, 1, 1, 1]
  assert [row['epochs'] for row in rows] == [1, 1, 1, 0]
  weights = [(row['lambda_y'], row['lambda_diff']) for row in rows[1:3]]
  assert weights == [(0.25, 0.1), (0.0, 0.0)]
  for row in rows:
    assert {'mse', 'psnr', 'class_swaps', 'judge_accuracy', 'seed'} <= {*row}
  assert [record['stage'] for record in records] == STAGES
  assert all(np.isfinite(record['loss']) for record in records)
  # The last epoch of a stage is always evaluated, as the row is.
  assert records[1]['eval_mse'] == rows[1]['mse']

  manifest = json.loads((mnist_run / 'manifest.json').read_text())
  assert manifest['planned'] == list(manifest['stages']) == STAGES
  assert manifest['config']['nuisance_dim'] == 1
  assert 'workdir' not in manifest['config']
  assert manifest['dataset']['data_dir'] == str(digits)
  assert manifest['dataset']['split'] == 'train'
  for row in rows[:3]:
    assert row['sha256'] == manifest['stages'][row['stage']]['sha256']
  assert {'figure_1a.png', 'figure_1d.png', 'figure_2.png'} <= {
    path.name for path in (mnist_run / 'figures').iterdir()
  }
  assert {p.name for p in (mnist_run / 'tensorboard').iterdir()} == {*STAGES}


# Invariants.


def test_the_same_command_says_that_the_run_is_complete(
  mnist_run, digit_flags, invoke
):
  before = {p: p.stat().st_mtime_ns for p in mnist_run.rglob('*')}
  status, out, _ = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={mnist_run}',
      '--students=student,student_no_jacobian',
  )  # fmt: skip
  assert status == 0 and 'is complete' in out and 'student_no_jacobian' in out
  assert {p: p.stat().st_mtime_ns for p in mnist_run.rglob('*')} == before


def test_other_flags_are_refused_by_name(mnist_run, digit_flags, invoke):
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={mnist_run}',
      '--lambda_y=1',
  )  # fmt: skip
  assert status == 2 and err.count('\n') == 1
  assert '--lambda_y=0.25 there, 1.0 now' in err and '--students' in err


def test_several_seeds_are_trained_in_turn_and_a_teacher_is_given(
  mnist_run, digit_flags, root, invoke
):
  flags = (*digit_flags, f'--workdir={root / "seeds"}', '--seeds=2')
  status, out, err = invoke(mnist.main, mnist.Config(), *flags)
  assert status == 0, err
  assert '±' in out
  seeds, _ = _read(root / 'seeds')
  assert [row['stage'] for row in seeds['rows']] == [
      'teacher_seed0', 'student_d01_seed0', 'random',
      'teacher_seed1', 'student_d01_seed1', 'random',
  ]  # fmt: skip
  alone, _ = _read(mnist_run)
  for i in (0, 1):  # Seed 0 is what a run of that seed alone is.
    assert seeds['rows'][i]['sha256'] == alone['rows'][i]['sha256']

  given = (
      *digit_flags, f'--workdir={root / "given"}', '--seed=1',
      f'--teacher_workdir={root / "seeds"}',
  )  # fmt: skip
  status, _, err = invoke(mnist.main, mnist.Config(), *given)
  assert status == 0, err
  found, records = _read(root / 'given')
  assert [row['stage'] for row in found['rows']] == [
      'teacher', 'student_d01', 'random'
  ]  # fmt: skip
  for i, j in ((0, 3), (1, 4)):
    assert found['rows'][i]['sha256'] == seeds['rows'][j]['sha256']
    assert found['rows'][i]['mse'] == seeds['rows'][j]['mse']
  assert {record['stage'] for record in records} == {'student_d01'}


@pytest.mark.parametrize(
  ('flags', 'part'),
  [
    (['--num_factors=3'], 'num_factors 2 there, 3 here'),
    (['--seed=5', '--seeds=2'], 'seed'),
  ],
)
def test_a_teacher_that_does_not_fit_is_refused(
  digit_flags, root, tmp_path, invoke, flags, part
):
  if not (root / 'seeds').exists():
    pytest.skip('needs the run of two seeds')
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={tmp_path / "x"}',
      f'--teacher_workdir={root / "seeds"}', *flags,
  )  # fmt: skip
  assert status == 2 and part in err
  assert not (tmp_path / 'x').exists()


@pytest.mark.slow
def test_all_that_is_beyond_the_paper_trains_too(digit_flags, root, invoke):
  # The parts of mnist_best.flags, a plateau, and other losses.
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={root / "beyond"}',
      '--students=student_from_scratch', '--first_teacher=neighbors',
      '--num_neighbors=3', '--lambda_check=0.02', '--eval_split=validation',
      '--grow_when=plateau', '--lambda_hsic=0.1',
  )  # fmt: skip
  assert status == 0, err
  results, records = _read(root / 'beyond')
  assert results['protocol'].startswith('validation split')
  assert 'neighbor_embedding' in records[0] and 'swap_check' in records[1]
  assert all('validation_mse' in record for record in records)
  assert results['rows'][1]['lambda_check'] == 0.02


# Processes.


def test_sigterm_saves_and_the_same_command_continues(
  mnist_run, digit_flags, root
):
  flags = (
      *digit_flags, f'--workdir={root / "stopped"}', '--epochs=400',
      '--checkpoint_every=400', '--eval_every=400',
  )  # fmt: skip
  process = _start(*flags)
  metrics = root / 'stopped' / 'metrics.jsonl'
  for _ in range(1200):
    if metrics.exists() and len(metrics.read_text().splitlines()) > 2:
      break
    time.sleep(0.1)
  asked = time.monotonic()
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143, err
  assert time.monotonic() - asked < 5
  last = err.splitlines()[-1]
  assert last.startswith('stopped: teacher') and 'saved' in last
  # A reader that has left ends nothing: what follows is interrupted again.
  process = _start(*flags)
  process.stdout.close()
  count = len(metrics.read_text().splitlines())
  for _ in range(1200):
    if len(metrics.read_text().splitlines()) > count + 1:
      break
    time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 130
  epochs = [json.loads(x)['epoch'] for x in metrics.read_text().splitlines()]
  assert epochs == [*range(1, len(epochs) + 1)]


def test_help_is_fast_and_a_missing_device_is_one_line(tmp_path):
  started = time.monotonic()
  process = _start('--help', MPLBACKEND='module://nowhere.backend')
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0, err
  assert '--nuisance_dim' in out and 'mnist_quick.flags' in out
  # 1.5 s on a quiet machine.
  assert time.monotonic() - started < 10
  process = _start(f'--workdir={tmp_path / "x"}', JAX_PLATFORMS='cuda')
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2
  assert err.startswith('error: JAX_PLATFORMS=cuda') and err.count('\n') == 1
  assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize(
    'name',
    ['svhn', 'celeba', 'judge', 'evaluate', 'ablation', 'reproduce',
     'figures', 'convert', 'edit', 'own_model'],
)  # fmt: skip
def test_every_binary_shows_its_help(name):
  process = subprocess.run(
      [sys.executable, '-m', f'experiments.{name}', '--help'],
      cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
      env=os.environ | {'MPLBACKEND': 'module://nowhere.backend'},
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  # The editor is a console script of the package, too.
  called = 'jacsup-edit' if name == 'edit' else f'python -m experiments.{name}'
  assert called in process.stdout


def test_a_run_needs_few_modules_of_the_project(digit_flags, root):
  script = (
    'import sys\n'
    'from experiments import cli, mnist\n'
    'try:\n'
    '  cli.run(mnist.main, mnist.Config())\n'
    'except SystemExit as error:\n'
    '  assert not error.code\n'
    'names = [n for n, m in sys.modules.items()\n'
    '         if n.split(".")[0] in ("jacsup_jax", "experiments")\n'
    '         and not m.__file__.endswith("__init__.py")]\n'
    'print(len(names), *sorted(names))\n'
  )
  process = subprocess.run(
      [sys.executable, '-c', script, *digit_flags,
       f'--workdir={root / "modules"}'],
      cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  found = process.stdout.splitlines()[-1]
  assert int(found.split()[0]) <= 53, found
