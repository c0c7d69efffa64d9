"""Tests of experiments.celeba, end to end on a small folder of faces."""

import json
import os
import random
import subprocess
import sys
import time

import coloured_faces
import killing
import pytest

from experiments import edited_runs
from jacsup_jax.runs import event_files
from jacsup_jax.runs import workdir as workdirs

RUN = (
    '--dataset=celeba_folder', '--image_size=8', '--first_width=4',
    '--last_width=4', '--nuisance_dims=8,12', '--batch_size=8', '--epochs=1',
    '--cycle_epochs=1', '--student_epochs=1', '--judge_epochs=2',
    '--strengths=2,5', '--students=student,student_cycle,student_from_scratch',
    '--fader_epochs=1', '--eval_every=1',
)  # pyformat: disable


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder in the layout of CelebA, whose attributes are colours."""
  return coloured_faces.write(tmp_path_factory.mktemp('faces'))


def _environment(folder):
  return {**os.environ, 'TFDS_DATA_DIR': str(folder / 'prepared')}


def _invoke(folder, *args):
  return _invoke_binary('celeba', folder, *RUN, *args)


def _invoke_binary(name, folder, *args):
  return subprocess.run(
      [
          sys.executable, '-m', f'experiments.{name}', f'--data_dir={folder}',
          *args,
      ],
      cwd=killing.ROOT,
      env=_environment(folder),
      capture_output=True,
      text=True,
      check=False,
  )  # pyformat: disable


@pytest.fixture(scope='module')
def finished(folder, tmp_path_factory):
  root = tmp_path_factory.mktemp('celeba')
  done = _invoke(
      folder,
      f'--workdir={root / "run"}',
      f'--judge_workdir={root / "judge"}',
      '--tensorboard',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return root, done.stdout


def _assert_mistake(done, *parts):
  assert done.returncode == 2, done.stderr[-3000:]
  [line] = [l for l in done.stderr.splitlines() if l.startswith('error: ')]
  assert done.stderr.rstrip().endswith(line)
  assert 'Traceback' not in done.stderr
  for part in parts:
    assert part in line


def test_results_have_a_row_per_model(finished):
  root, out = finished
  results = json.loads((root / 'run' / 'results.json').read_text())
  assert results['experiment'] == 'celeba'
  rows = results['rows']
  assert [(r['model'], r['nuisance_dim']) for r in rows] == [
      ('teacher_phase_1', 8),
      ('teacher', 8),
      ('student', 12),
      ('student_cycle', 12),
      ('student_from_scratch', 12),
      ('fader', 8),
      ('random', 8),
  ]
  for row in rows:
    assert 0 < row['mse'] < 4
    assert row['strength'] in (2.0, 5.0)
    assert set(row['attribute_flips_by_attribute']) == set(coloured_faces.NAMES)
    for name in ('attribute_flips', 'preservation', 'judge_accuracy'):
      assert 0 <= row[name] <= 1
  fader = rows[-2]
  # Its factors are the labels.
  assert fader['factor_accuracy'] is None
  assert fader['lambda_adversarial'] == 1e-4
  assert results['judge']['attribute_names'] == list(coloured_faces.NAMES)
  # Alpha is chosen on validation, where test is measured on.
  assert 'test split, selection on validation' in results['protocol']
  assert 'student_cycle' in out and 'Smiling' in out


def test_figures_are_drawn(finished):
  root, _ = finished
  names = {path.stem for path in (root / 'run' / 'figures').iterdir()}
  assert names >= {
      'reconstructions', 'figure_4', 'figure_5_teacher', 'figure_5_student',
      'figure_8_student', 'curves_student', 'curves_student_cycle',
      'figure_5_fader', 'curves_fader', 'discriminator_fader',
  }  # pyformat: disable


def test_what_a_strength_is_and_event_files_are_written(finished):
  root, _ = finished
  run = workdirs.WorkDir(root / 'run')
  scales = json.loads((run.path / 'scales.json').read_text())['stages']
  stages = set(run.manifest['stages'])
  # Fader Networks predict no factors.
  assert set(scales) == stages - {'fader'}
  own = edited_runs.load(run)
  assert [unit.name for unit in own.units] == list(coloured_faces.NAMES)
  assert own.is_signed and own.title == 'run, student_d12'
  assert {p.name for p in (run.path / 'tensorboard').iterdir()} == stages
  for record in run.read_metrics():
    directory = run.path / 'tensorboard' / record['stage']
    assert record['step'] in event_files.read_steps(directory)


def test_same_command_is_complete_and_other_flags_are_refused(
    finished, folder
):
  root, _ = finished
  flags = (f'--workdir={root / "run"}', f'--judge_workdir={root / "judge"}')
  results = (root / 'run' / 'results.json').read_text()
  done = _invoke(folder, *flags)
  assert done.returncode == 0
  assert 'is complete' in done.stdout
  done = _invoke(folder, *flags, '--lambda_diff=1')
  _assert_mistake(done, '--lambda_diff=50.0 there, 1.0 now')
  assert (root / 'run' / 'results.json').read_text() == results


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        (['--attributes=Bald,Smilling'], ['Smilling', 'Smiling']),
        (['--image_size=16'], ['16', '8']),
        (['--strengths=0'], ['--strengths=0', 'above 0']),
        (['--adam_b1=1.5'], ['--adam_b1=1.5', 'less than 1']),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(
    folder, tmp_path, args, parts
):
  done = _invoke(
      folder,
      f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={tmp_path / "judge"}',
      *args,
  )
  _assert_mistake(done, *parts)
  assert not list(tmp_path.iterdir())


def test_judge_for_other_attributes_is_refused(finished, folder, tmp_path):
  root, _ = finished
  done = _invoke(
      folder,
      '--attributes=Bald,Smiling',
      f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={root / "judge"}',
  )
  _assert_mistake(done, 'Young')
  assert not list(tmp_path.iterdir())


# The same run, measured again.


def _evaluate(root, folder, *args, judge='judge'):
  return _invoke_binary(
      'evaluate',
      folder,
      f'--workdir={root / "run"}',
      f'--judge_workdir={root / judge}',
      *args,
  )


def test_evaluate_finds_the_same_again(finished, folder):
  root, _ = finished
  done = _evaluate(root, folder)
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'note: ' not in done.stderr
  path = root / 'run' / 'evaluations' / 'celeba_folder_test.json'
  again = json.loads(path.read_text())
  first = json.loads((root / 'run' / 'results.json').read_text())
  plain = lambda row: {
      n: v for n, v in row.items() if not n.startswith('jacobian_')
  }
  assert [plain(row) for row in again['rows']] == first['rows']
  assert again['protocol'] == first['protocol']
  assert again['judge'] == first['judge']
  # By the Jacobians: of every model a heat map, of students the agreement.
  diagnostics = json.loads(
      path.with_name('celeba_folder_test_diagnostics.json').read_text()
  )
  for row, model in zip(again['rows'], diagnostics['models']):
    assert row['stage'] == model['stage']
    name = f'celeba_folder_test_cosines_{row["stage"]}.png'
    assert path.with_name(name).exists()
    directions = model['principal_directions']['singular_values']
    assert directions == sorted(directions, reverse=True)
    agreement = row['jacobian_cosine']
    assert (agreement is not None) == row['model'].startswith('student')
    if agreement is not None:
      assert agreement == model['supervisor']['cosine']


@pytest.mark.parametrize(
    ('args', 'judge', 'parts'),
    [
        (['--split=validation'], 'judge', ['--split=validation', 'alpha']),
        (['--dataset=celeb_a'], 'judge', ['celeb_a', 'of celeba_folder']),
        ([], 'nothing', ['nothing has no judge', '--judge_workdir']),
    ],
)
def test_evaluate_refuses(finished, folder, args, judge, parts):
  root, _ = finished
  _assert_mistake(_evaluate(root, folder, *args, judge=judge), *parts)


# Killed in each phase.


@pytest.mark.slow
def test_killed_in_every_phase_it_gives_the_same_parameters(
    finished, folder, tmp_path
):
  root, _ = finished
  seed = time.time_ns()
  print(f'seed of the delays: {seed}')
  delay = random.Random(seed).uniform

  def start(run):
    return killing.start(
        'celeba', *RUN, f'--data_dir={folder}', '--epochs=3',
        '--cycle_epochs=3', '--student_epochs=3', '--fader_epochs=3',
        '--checkpoint_every=1',
        f'--workdir={run}', f'--judge_workdir={root / "judge"}',
        env=_environment(folder),
    )  # pyformat: disable

  undisturbed, run = tmp_path / 'undisturbed', tmp_path / 'run'
  killing.finish(start(undisturbed))
  for stage in ('teacher_phase_1', 'teacher', 'student_d12'):
    reached = lambda stage=stage: killing.has_epoch(run, stage)
    killing.kill_when(start(run), reached, delay(0, 0.2))
  # While a student grows, and in its stage.
  grows = lambda: killing.has_finished(run, 'student_d12')
  killing.kill_when(start(run), grows, delay(0, 1))
  for stage in ('student_cycle_d12', 'student_from_scratch_d12', 'fader'):
    reached = lambda stage=stage: killing.has_epoch(run, stage)
    killing.kill_when(start(run), reached, delay(0, 0.2))
  killing.finish(start(run))
  assert killing.outcome(run) == killing.outcome(undisturbed)
