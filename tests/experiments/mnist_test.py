"""Tests of experiments.mnist by the run that all tests share."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import drawing
from experiments import mnist

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ['teacher', 'student_d01', 'student_no_jacobian_d01']


def _read(run):
  results = json.loads((run / 'results.json').read_text())
  lines = (run / 'metrics.jsonl').read_text().splitlines()
  return results, [json.loads(line) for line in lines]


def _start(*args, command=('-m', 'experiments.mnist'), **environment):
  return subprocess.Popen(
      [sys.executable, *command, *args], cwd=ROOT, env=os.environ | environment,
      text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip


def test_a_run_has_its_manifest_rows_metrics_and_figures(mnist_run, digits):
  results, records = _read(mnist_run)
  assert results['experiment'] == 'mnist'
  assert results['protocol'].startswith('test split; class_swaps: ')
  families = [judge['family'] for judge in results['judges']]
  assert families == ['mlp', 'cnn', 'svm']
  rows = results['rows']
  assert [row['stage'] for row in rows] == [*STAGES, 'random']
  assert [row['nuisance_dim'] for row in rows] == [0, 1, 1, 1]
  assert [row['epochs'] for row in rows] == [1, 1, 1, 0]
  weights = [(row['lambda_y'], row['lambda_diff']) for row in rows[1:3]]
  assert weights == [(0.25, 0.1), (0.0, 0.0)]
  for row in rows:
    assert {'mse', 'psnr', 'class_swaps', 'class_swaps_family'} <= {*row}
    assert {'class_swaps_cnn', 'judge_accuracy_svm', 'seed'} <= {*row}
    assert {'precision_swapped', 'frechet_reconstructions'} <= {*row}
    assert {'probe_linear_factors', 'probe_mlp_nuisance'} <= {*row}
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
  assert {'figure_1a.png', 'figure_1d.png', 'figure_2.png', 'swaps.png'} <= {
    path.name for path in (mnist_run / 'figures').iterdir()
  }
  assert {p.name for p in (mnist_run / 'tensorboard').iterdir()} == {*STAGES}


def test_the_same_command_says_that_the_run_is_complete(
  mnist_run, digit_flags, invoke
):
  before = {p: p.stat().st_mtime_ns for p in mnist_run.rglob('*')}
  status, out, _ = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={mnist_run}',
      '--students=student,student_no_jacobian',
  )  # fmt: skip
  assert status == 0 and 'is complete' in out and 'student_no_jacobian' in out
  assert out.splitlines()[-2:] == [
    f'figures: {mnist_run / "figures"}',
    f'next: python -m experiments.edit --workdir={mnist_run}',
  ]
  assert {p: p.stat().st_mtime_ns for p in mnist_run.rglob('*')} == before


def test_other_flags_are_refused_by_name(mnist_run, digit_flags, invoke):
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={mnist_run}',
      '--lambda_y=1',
  )  # fmt: skip
  assert status == 2 and err.count('\n') == 1
  assert '--lambda_y=0.25 there, 1.0 now' in err and '--students' in err


@pytest.fixture(scope='module')
def seeds_run(digit_flags, root, invoke):
  """A run of the seeds 0 and 1, without figures."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(drawing, 'save', lambda *unused_args: [])
    flags = (*digit_flags, f'--workdir={root / "seeds"}', '--seeds=2')
    status, out, err = invoke(mnist.main, mnist.Config(), *flags)
  assert status == 0 and '±' in out, err
  return root / 'seeds'


def test_several_seeds_are_trained_in_turn_and_a_teacher_is_given(
  mnist_run, seeds_run, digit_flags, root, invoke, undrawn
):
  seeds, _ = _read(seeds_run)
  assert [row['stage'] for row in seeds['rows']] == [
      'teacher_seed0', 'student_d01_seed0', 'random',
      'teacher_seed1', 'student_d01_seed1', 'random',
  ]  # fmt: skip
  alone, _ = _read(mnist_run)
  for i in (0, 1):  # Seed 0 is what a run of that seed alone is.
    assert seeds['rows'][i]['sha256'] == alone['rows'][i]['sha256']
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags, '--seed=1',
      f'--workdir={root / "given"}', f'--teacher_workdir={seeds_run}',
  )  # fmt: skip
  assert status == 0, err
  found, records = _read(root / 'given')
  stages = [row['stage'] for row in found['rows']]
  assert stages == ['teacher', 'student_d01', 'random']
  for row, other in zip(found['rows'][:2], seeds['rows'][3:]):
    assert (row['sha256'], row['mse']) == (other['sha256'], other['mse'])
  assert {record['stage'] for record in records} == {'student_d01'}


@pytest.mark.parametrize(
  ('flags', 'part'),
  [
    (['--num_factors=3'], 'num_factors 2 there, 3 here'),
    (['--seed=5', '--seeds=2'], 'seed'),
  ],
)
def test_a_teacher_that_does_not_fit_is_refused(
  seeds_run, digit_flags, tmp_path, invoke, flags, part
):
  status, _, err = invoke(
      mnist.main, mnist.Config(), *digit_flags, f'--workdir={tmp_path / "x"}',
      f'--teacher_workdir={seeds_run}', *flags,
  )  # fmt: skip
  assert status == 2 and part in err
  assert not (tmp_path / 'x').exists()


@pytest.fixture(scope='module')
def checked_flags(digit_flags, mnist_run):
  """Flags of a student whose swaps are checked by networks too."""
  return (
      *digit_flags, f'--teacher_workdir={mnist_run}', '--lambda_check=0.1',
      '--checkers=teacher,mixer,patches', '--checker_epochs=1',
  )  # fmt: skip


@pytest.fixture(scope='module')
def checked_run(checked_flags, root, invoke):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(drawing, 'save', lambda *unused_args: [])
    flags = (*checked_flags, f'--workdir={root / "checked"}')
    status, out, err = invoke(mnist.main, mnist.Config(), *flags)
  assert status == 0 and 'mixer 1/1 loss=' in out, err
  return root / 'checked'


def test_networks_of_the_check_are_kept_and_described(checked_run, mnist_run):
  results, records = _read(checked_run)
  paths = sorted((checked_run / 'checkers').rglob('*.safetensors'))
  assert [str(path.relative_to(checked_run)) for path in paths] == [
      'checkers/teacher/mixer.safetensors',
      'checkers/teacher/patches.safetensors',
  ]  # fmt: skip
  alone, _ = _read(mnist_run)
  assert 'checkers' not in alone
  for path, found in zip(paths, results['checkers']):
    assert found['name'] == path.stem and found['epochs'] == 1
    assert found['module']['name'] == f'{path.stem.title()}Checker'
    assert found['teacher_sha256'] == alone['rows'][0]['sha256']
    assert found['loss'] > 0 and len(found['sha256']) == 64
  assert records[-1]['swap_check'] > 0
  # It differs from the student of the same teacher without a check.
  assert results['rows'][1]['sha256'] != alone['rows'][1]['sha256']


@pytest.fixture
def stopped_run(checked_run, tmp_path):
  """The run as if stopped before the first checkpoint of its student."""
  run = tmp_path / 'run'
  shutil.copytree(checked_run, run)
  (run / 'results.json').unlink()
  shutil.rmtree(run / 'checkpoints' / 'student_d01')
  manifest = json.loads((run / 'manifest.json').read_text())
  manifest['stages'] = {}
  (run / 'manifest.json').write_text(json.dumps(manifest))
  return run


@pytest.mark.parametrize('lost', [False, True])
def test_a_resumed_run_goes_by_the_same_networks(
  checked_run, stopped_run, checked_flags, invoke, undrawn, lost
):
  if lost:
    (stopped_run / 'checkers' / 'teacher' / 'mixer.safetensors').unlink()
  flags = (*checked_flags, f'--workdir={stopped_run}')
  status, out, err = invoke(mnist.main, mnist.Config(), *flags)
  assert status == 0, err
  assert ('mixer 1/1' in out) == lost and 'patches 1/1' not in out
  found, expected = _read(stopped_run)[0], _read(checked_run)[0]
  assert found['checkers'] == expected['checkers']
  assert found['rows'] == expected['rows']


def test_a_damaged_network_of_the_check_is_one_line(
  stopped_run, checked_flags, invoke
):
  path = stopped_run / 'checkers' / 'teacher' / 'patches.safetensors'
  path.write_bytes(path.read_bytes()[:-9])
  flags = (*checked_flags, f'--workdir={stopped_run}')
  status, _, err = invoke(mnist.main, mnist.Config(), *flags)
  assert status == 2 and err.splitlines()[-1].startswith(f'error: {path} is')


# Says on stderr which modules of the project a run has imported. It draws
# nothing; the run that all tests share does.
_COUNTED = """
import sys
from experiments import cli, drawing, mnist
drawing.save = lambda *unused_args: []
try:
  cli.run(mnist.main, mnist.Config())
finally:
  names = [name for name, module in sys.modules.items()
           if name.split('.')[0] in ('jacsup_jax', 'experiments')
           and not module.__file__.endswith('__init__.py')]
  print(len(names), *sorted(names), file=sys.stderr)
"""


def test_a_stopped_run_is_continued_and_needs_few_modules(
  mnist_run, digit_flags, root
):
  flags = (
      *digit_flags, f'--workdir={root / "stopped"}', '--epochs=60',
      '--checkpoint_every=60', '--eval_every=60',
  )  # fmt: skip
  process = _start(*flags)
  metrics = root / 'stopped' / 'metrics.jsonl'
  while process.poll() is None and not (
    metrics.exists() and metrics.read_text().count('\n') > 2
  ):
    time.sleep(0.02)
  asked = time.monotonic()
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 143, err
  assert time.monotonic() - asked < 5
  last = err.splitlines()[-1]
  assert last.startswith('stopped: ') and 'saved' in last
  assert not (root / 'stopped' / 'results.json').exists()
  # A reader that has left ends nothing.
  process = _start(*flags, command=('-c', _COUNTED))
  process.stdout.close()
  err = process.stderr.read()
  assert process.wait(timeout=300) == 0, err
  _, records = _read(root / 'stopped')
  epochs = [record['epoch'] for record in records]
  assert epochs == [*range(1, 61)] * 2
  found = err.splitlines()[-1]
  # Judges of three families, their scores, and choices of baselines are eight.
  assert int(found.split()[0]) <= 48, found


def test_help_is_fast_and_a_missing_device_is_one_line(tmp_path):
  seconds = lambda: resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
  before = seconds()
  process = _start('--help', MPLBACKEND='module://nowhere.backend')
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0, err
  assert '--nuisance_dim' in out and '--flagfile=mnist_quick' in out
  # 1.5 s on a quiet machine.
  assert seconds() - before < 8
  process = _start(f'--workdir={tmp_path / "x"}', JAX_PLATFORMS='cuda')
  _, err = process.communicate(timeout=60)
  assert process.returncode == 2
  assert err.startswith('error: JAX_PLATFORMS=cuda') and err.count('\n') == 1
  assert not (tmp_path / 'x').exists()


def test_every_binary_shows_its_help():
  script = """
import runpy, sys
for name in sys.argv[1:]:
  sys.argv = [name, '--help']
  try:
    runpy.run_module(f'experiments.{name}', None, '__main__', alter_sys=True)
  except SystemExit as error:
    assert not error.code
"""
  names = (
      'svhn', 'celeba', 'judge', 'evaluate', 'ablation', 'reproduce', 'figures',
      'convert', 'own_model', 'compare', 'edit',
  )  # fmt: skip
  process = _start(
    *names, command=('-c', script), MPLBACKEND='module://nowhere.backend'
  )
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  for name in names[:-1]:
    assert f'python -m experiments.{name}' in out
  assert 'jacsup-edit' in out  # Also a console script of the package.
