"""Tests of experiments.reproduce and reproduced_runs."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import paper_numbers
from experiments import paper_properties
from experiments import reproduced_runs
from jacsup_jax.core import errors

ROOT = pathlib.Path(__file__).parents[1]
PROTOCOL = 'test split; as always'


def _row(model, swaps, dim, **changes):
  weights = {'lambda_y': 0.25, 'lambda_diff': 0.1, 'lambda_xcov': 1e-3}
  if model == 'student_no_jacobian':
    weights |= {'lambda_y': 0.0, 'lambda_diff': 0.0}
  return {
      'model': model, 'nuisance_dim': dim, 'seed': 0, 'epochs': 10,
      'class_swaps': swaps, 'mse': 0.03, 'sha256': f'{model}{dim}', **weights,
      **changes,
  }  # pyformat: disable


ROWS = [
    _row('teacher', 1.0, 0), _row('student', 0.7, 3),
    _row('student_no_jacobian', 0.4, 3), _row('random', 0.1, 3),
]  # pyformat: disable


def _write_run(path, rows=ROWS, **changes):
  """Writes a complete work directory, as a run leaves it."""
  path.mkdir(parents=True)
  dataset = {'name': 'mnist_embedded', 'fingerprint': 'abc'}
  manifest = {
      'experiment': 'mnist', 'flags': {}, 'stages': {},
      'dataset': changes.pop('dataset', dataset),
  }  # pyformat: disable
  results = {
      'experiment': 'mnist', 'protocol': PROTOCOL, 'judges': {'sha256': 'x'},
      'rows': rows, **changes,
  }  # pyformat: disable
  (path / 'manifest.json').write_text(json.dumps(manifest))
  (path / 'results.json').write_text(json.dumps(results))
  return path


def _invoke(tmp_path, *args):
  return subprocess.run(
      [
          sys.executable, '-m', 'experiments.reproduce',
          f'--runs_dir={tmp_path / "runs"}', *args,
      ],
      cwd=ROOT,
      env=dict(os.environ),
      capture_output=True,
      text=True,
      timeout=600,
      check=False,
  )  # pyformat: disable


def _assert_mistake(result, *parts):
  assert result.returncode == 2
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith('error:')
  for part in parts:
    assert part in lines[0], lines[0]


# Values.


def test_every_run_has_its_flagfile():
  for runs_of in (reproduced_runs.TABLES, reproduced_runs.FIGURES):
    for scales in runs_of.values():
      assert tuple(scales) == reproduced_runs.SCALES
      for run in (run for runs in scales.values() for run in runs):
        flagfile = reproduced_runs.FLAGFILES / f'{run.name}.flags'
        text = (ROOT / flagfile).read_text()
        # The same command by hand finds the same work directory.
        assert f'--workdir=runs/{run.name}\n' in text
  assert set(reproduced_runs.PATTERNS) == set(reproduced_runs.FIGURES)
  # Table 3 has no numbers.
  numbered = {int(n) for n in reproduced_runs.TABLES} - {3}
  assert numbered == set(paper_numbers.TABLES)


def test_rows_that_two_runs_share_are_given_once(tmp_path):
  a = _write_run(tmp_path / 'a', ROWS[:2])
  b = _write_run(tmp_path / 'b', [ROWS[0], ROWS[2]])
  models = [row['model'] for row in reproduced_runs.read_rows([a, b])]
  assert models == ['teacher', 'student', 'student_no_jacobian']


def test_points_of_the_paper_have_its_name():
  points = reproduced_runs.figure_4_of_paper()
  assert len(points) == 6 and {p['source'] for p in points} == {'paper'}
  assert points[1]['attribute_flips'] == 0.722 and points[1]['mse'] == 1.08e-3


# Invariants.


def test_what_is_complete_is_only_read(tmp_path):
  path = _write_run(tmp_path / 'runs' / 'mnist_quick')
  before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}
  result = _invoke(tmp_path, '--table=1')
  assert result.returncode == 0, result.stderr
  assert '| student with Jacobian supervision | 14 | 3 | 61.7 | 70.0 |' in (
      result.stdout
  )
  assert 'python -m' not in result.stdout
  assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before
  output = tmp_path / 'runs' / 'reproduce'
  assert (output / 'table1.md').read_text().strip() in result.stdout
  assert 'student without,14,3,32.6,40.0' in (output / 'table1.csv').read_text()


def test_figures_are_copied_and_figure_4_has_the_papers_points(tmp_path):
  rows = [
      {**_row('teacher', None, 32), 'attribute_flips': 0.8},
      {**_row('student', None, 256), 'attribute_flips': 0.8, 'mse': 0.02},
  ]
  run = _write_run(tmp_path / 'runs' / 'celeba_quick', rows)
  fader = {**_row('fader', None, 32), 'attribute_flips': 0.5, 'mse': 0.05}
  _write_run(tmp_path / 'runs' / 'celeba_quick_fader', [fader])
  (run / 'figures').mkdir()
  (run / 'figures' / 'figure_5_student.png').write_bytes(b'picture')
  result = _invoke(tmp_path, '--table=2', '--figure=5')
  assert result.returncode == 0, result.stderr
  output = tmp_path / 'runs' / 'reproduce'
  copy = output / 'celeba_quick_figure_5_student.png'
  assert copy.read_bytes() == b'picture'
  assert (output / 'figure_4.png').stat().st_size > 1000
  assert '| Fader Networks | 2048 | 32 | 43.1 | 50.0 |' in result.stdout


def test_table_3_needs_no_run(tmp_path):
  result = _invoke(tmp_path, '--table=3')
  assert result.returncode == 0, result.stderr
  output = tmp_path / 'runs' / 'reproduce'
  table = paper_properties.format_markdown()
  assert (output / 'table3.md').read_text() == table
  assert table in result.stdout
  assert 'Fader Networks,yes,no,yes,256x256,3,yes' in (
      output / 'table3.csv'
  ).read_text()


# Mistakes.


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        ([], ['--table', '--figure']),
        (['--table=7'], ['--table=7', '1, 2, 3, 4, 5, 6']),
        (['--figure=3'], ['--figure=3', '12']),
        (['--table=1', '--scale=huge'], ['scale', 'quick|full']),
        (
            ['--table=1', '--scale=full', '--norun'],
            ['2 runs', 'experiments.mnist', 'mnist_table1_no_jacobian.flags'],
        ),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(tmp_path, args, parts):
  _assert_mistake(_invoke(tmp_path, *args), *parts)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'flag', ['--runs_dir=setup.cfg', '--output=setup.cfg/tables']
)
def test_a_file_in_the_place_of_a_directory_is_refused_first(tmp_path, flag):
  result = _invoke(tmp_path, '--table=1', flag)
  _assert_mistake(result, flag, 'accepted: a directory')
  assert not list(tmp_path.iterdir())


def test_a_run_that_fails_ends_with_its_own_line(tmp_path):
  result = _invoke(tmp_path, '--figure=9', '--dataset=nonsense')
  assert result.returncode == 2
  first, last = result.stderr.strip().splitlines()
  assert 'nonsense' in first and 'experiments.svhn ended' in last


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'protocol': 'validation split'}, 'protocol'),
        ({'judges': {'sha256': 'y'}}, 'judges'),
        ({'dataset': {'name': 'mnist', 'fingerprint': 'd'}}, 'data'),
    ],
)
def test_rows_of_another_protocol_are_refused(tmp_path, changes, named):
  a = _write_run(tmp_path / 'a')
  b = _write_run(tmp_path / 'b', **changes)
  with pytest.raises(errors.InputError, match=f'b has {named} .*a has'):
    reproduced_runs.read_rows([a, b])


@pytest.mark.parametrize('text', ['', '{}', '{"rows": 3}', '[1]', 'null'])
def test_results_that_are_none_are_refused(tmp_path, text):
  path = _write_run(tmp_path / 'a')
  (path / 'results.json').write_text(text)
  with pytest.raises(errors.InputError, match='results.json'):
    reproduced_runs.read_rows([path])
