"""Tests of experiments.ablation, end to end on a few images."""

import json
import os
import subprocess
import sys

import coloured_faces
import numpy as np
import pytest

from experiments import ablation
from experiments import paper_numbers

RUN_DIGITS = (
    '--table=4', '--dataset=arrays', '--epochs=1', '--nuisance_dim=2',
    '--grow_by=2', '--batch_size=64', '--seeds=2', '--eval_every=1',
    '--checkpoint_every=1',
)  # pyformat: disable
RUN_FACES = (
    '--dataset=celeba_folder', '--image_size=8', '--first_width=4',
    '--last_width=4', '--batch_size=8', '--epochs=1', '--judge_epochs=2',
    '--strengths=2,5',
)  # pyformat: disable


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  """Ten smooth patterns with noise, in the place of digits."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 10, 384)
  patterns = rng.integers(0, 200, (10, 7, 7))
  images = np.kron(patterns, np.ones((4, 4), int))[labels]
  images = (images + rng.integers(0, 55, images.shape)).astype(np.uint8)
  path = tmp_path_factory.mktemp('digits') / 'digits.npz'
  split = np.array(['train'] * 256 + ['test'] * 128)
  np.savez(path, images=images[..., None], labels=labels, split=split)
  return path


def _invoke(*args, **environment):
  return subprocess.run(
      [sys.executable, '-m', 'experiments.ablation', *args],
      capture_output=True,
      text=True,
      timeout=600,
      env={**os.environ, **environment},
      check=False,
  )


def _assert_mistake(result, *parts):
  assert result.returncode == 2
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith('error:')
  for part in parts:
    assert part in lines[0]


# Values.


def test_the_table_is_found_where_absl_would_find_it(tmp_path):
  flagfile = tmp_path / 'a.flags'
  flagfile.write_text('# Words.\n--table=6\n')
  assert ablation.find_table([]) == '4'
  assert ablation.find_table(['--seeds=2', '--table=5']) == '5'
  assert ablation.find_table(['-table', '6']) == '6'
  assert ablation.find_table([f'--flagfile={flagfile}']) == '6'
  assert ablation.find_table([f'--flagfile={flagfile}', '--table=4']) == '4'
  # Wrong ones are left to the parsing.
  assert ablation.find_table(['--table=7']) == '4'
  assert ablation.find_table(['--flagfile=missing']) == '4'


def test_table_4_is_run_once_and_then_printed(digits, tmp_path):
  args = [
      *RUN_DIGITS, f'--data_dir={digits}', f'--workdir={tmp_path / "run"}',
      f'--judge_workdir={tmp_path / "judge"}',
  ]  # pyformat: disable
  result = _invoke(*args)
  assert result.returncode == 0, result.stderr
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  models = [row['model'] for row in results['rows']]
  assert models == ['teacher'] * 2 + ['student'] * 28 + ['random']
  students = results['rows'][2:-1]
  assert [row['seed'] for row in students] == [0] * 14 + [1] * 14
  weights = paper_numbers.TABLE_4.rows[5].weights
  assert {n: students[5][n] for n in weights} == weights
  assert {row['nuisance_dim'] for row in students} == {2}
  # Not one model 28 times.
  assert len({row['sha256'] for row in students}) == 28
  table = (tmp_path / 'run' / 'table.md').read_text()
  assert result.stdout.endswith(table) and '±' in table
  assert len((tmp_path / 'run' / 'table.csv').read_text().splitlines()) == 15

  before = (tmp_path / 'run' / 'results.json').stat().st_mtime_ns
  again = _invoke(*args)
  assert again.returncode == 0
  assert 'is complete' in again.stdout and table in again.stdout
  assert (tmp_path / 'run' / 'results.json').stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ('table', 'args', 'models'),
    [
        (
            '5',
            ['--nuisance_dims=8,12', '--student_epochs=1'],
            ['teacher', *['student'] * 6, 'random'],
        ),
        ('6', ['--nuisance_dims=8'], ['teacher'] * 3 + ['random']),
    ],
)
@pytest.mark.slow
def test_tables_of_faces(tmp_path, table, args, models):
  folder = tmp_path / 'faces'
  folder.mkdir()
  coloured_faces.write(folder)
  result = _invoke(
      f'--table={table}', *RUN_FACES, *args, f'--data_dir={folder}',
      f'--workdir={tmp_path / "run"}', f'--judge_workdir={tmp_path / "judge"}',
      TFDS_DATA_DIR=str(tmp_path / 'prepared'),
  )  # pyformat: disable
  assert result.returncode == 0, result.stderr
  rows = json.loads((tmp_path / 'run' / 'results.json').read_text())['rows']
  assert [row['model'] for row in rows] == models
  papers = paper_numbers.TABLES[int(table)].rows
  compared = [row for row in rows if row['model'] == papers[0].model]
  for row, paper in zip(compared, papers, strict=True):
    assert {name: row[name] for name in paper.weights} == paper.weights
  assert f'Table {table}:' in result.stdout


# Mistakes.


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        (['--table=7'], ['--table=7', '4|5|6']),
        (['--seeds=0'], ['--seeds=0', 'accepted: 1']),
        (['--seed=2147483647', '--seeds=2'], ['--seeds=2']),
        (['--nuisance_dim=3', '--grow_by=4'], ['--grow_by=4']),
        (['--table=5', '--nuisance_dims=8'], ['--nuisance_dims=8', '2 of']),
        (['--table=6', '--students=student'], ['--students', '--table=6']),
        (['--table=5', '--nuisance_dim=3'], ['nuisance_dim']),
        (['--flagfile=missing.flags'], ['missing.flags']),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(tmp_path, args, parts):
  result = _invoke(*args, f'--workdir={tmp_path / "run"}')
  _assert_mistake(result, *parts)
  assert not list(tmp_path.iterdir())
