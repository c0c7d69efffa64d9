"""Tests of what is beyond the paper's recipe: its flags, end to end.

A run of the parts of mnist_best.flags on small data, and one that is given its
teacher.
"""

import json
import shutil

import experiments_test
import numpy as np
import pytest

from experiments import discovery_runs
from experiments import evaluate
from jacsup_jax.data import registry as datasets

RECIPE = (
    '--epochs=2', '--teacher_epochs=1', '--nuisance_dim=2', '--grow_by=2',
    '--students=student_from_scratch,student_no_jacobian', '--eval_every=1',
    '--checkpoint_every=1', '--first_teacher=neighbors', '--num_neighbors=3',
    '--learning_rate_schedule=cosine', '--lambda_check=0.02',
)  # pyformat: disable
# Takes longer to compile than all else here.
MUON = ('--optimizer=muon', '--learning_rate=0.02')
_invoke = experiments_test._invoke


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A whole run: its directory, and its judges'."""
  root = tmp_path_factory.mktemp('recipe')
  flags = (f'--workdir={root / "run"}', f'--judge_workdir={root / "judge"}')
  status, _, err = _invoke(*RECIPE, *flags)
  assert status == 0, err
  return root / 'run', root / 'judge'


def _read(directory):
  results = json.loads((directory / 'results.json').read_text())
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return results['rows'], [json.loads(line) for line in lines]


def test_each_stage_has_its_terms(finished):
  rows, records = _read(finished[0])
  assert [row['stage'] for row in rows] == [
      'teacher', 'student_from_scratch_d02', 'student_no_jacobian_d02',
      'random',
  ]  # pyformat: disable
  assert [row['epochs'] for row in rows] == [1, 2, 2, 0]
  terms = {record['stage']: set(record) for record in records}
  assert {'neighbor_reconstruction', 'neighbor_embedding'} <= terms['teacher']
  assert 'swap_check' in terms['student_from_scratch_d02']
  # No teacher looks at its swaps.
  assert 'swap_check' not in terms['student_no_jacobian_d02']
  assert rows[1]['lambda_check'] == 0.02 and 'lambda_check' not in rows[2]
  assert all(np.isfinite(record['loss']) for record in records)


def test_a_run_may_be_given_the_teacher_of_another(finished, tmp_path):
  run, judge = finished
  flags = (
      f'--judge_workdir={judge}', f'--teacher_workdir={run}', '--epochs=1',
      '--nuisance_dim=1', f'--workdir={tmp_path / "run"}',
  )  # pyformat: disable
  status, _, err = _invoke(*flags)
  assert status == 0, err
  theirs, _ = _read(run)
  rows, records = _read(tmp_path / 'run')
  assert [row['stage'] for row in rows] == ['teacher', 'student_d01', 'random']
  assert rows[0]['sha256'] == theirs[0]['sha256']
  assert rows[0]['mse'] == theirs[0]['mse']
  # It is not trained again.
  assert {record['stage'] for record in records} == {'student_d01'}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, 'load', experiments_test._load)
    _, measured = evaluate.evaluate(tmp_path / 'run', judge_workdir=judge)
  assert [row['mse'] for row in measured] == [row['mse'] for row in rows]
  assert measured[1]['jacobian_cosine'] is not None


# Bad input.


@pytest.mark.parametrize(('args', 'parts'), [
    (
        ['--optimizer=muon', '--keep_moments'],
        ['--keep_moments with --optimizer=muon', 'adam'],
    ),
    (
        ['--learning_rate_schedule=cosine', '--keep_moments'],
        ['--learning_rate_schedule=cosine', 'one of them'],
    ),
    (
        ['--learning_rate_schedule=cosine', '--grow_when=plateau'],
        ['--grow_when=plateau', 'one of them'],
    ),
    (
        ['--lambda_check=0.1', '--supervise=history'],
        ['--lambda_check', '--supervise=parent'],
    ),
    (['--lambda_check=-1'], ['--lambda_check', '0 or larger']),
    (
        ['--first_teacher=neighbors', '--num_neighbors=0'],
        ['--num_neighbors=0', '1 or more'],
    ),
    (
        ['--first_teacher=neighbors', '--neighbor_scale=-2'],
        ['--neighbor_scale', '0 or larger'],
    ),
    (['--teacher_epochs=0'], ['--teacher_epochs', '1 or larger']),
])  # pyformat: disable
def test_mistakes_are_one_line(tmp_path, args, parts):
  result = _invoke(f'--workdir={tmp_path / "run"}', *args)
  experiments_test._assert_mistake(result, *parts)
  assert not (tmp_path / 'run').exists()


def test_more_neighbors_than_images_are_refused(finished, tmp_path):
  experiments_test._assert_mistake(
      _invoke(
          f'--workdir={tmp_path / "run"}', f'--judge_workdir={finished[1]}',
          '--first_teacher=neighbors', '--num_neighbors=1280',
      ),
      '--num_neighbors=1280 of 1280 images', 'from 1 to 1279',
  )  # pyformat: disable


@pytest.mark.slow
def test_muon_trains_and_goes_on(finished, tmp_path):
  flags = (
      *RECIPE, *MUON, f'--judge_workdir={finished[1]}',
      f'--workdir={tmp_path / "run"}',
  )  # pyformat: disable
  assert _invoke(*flags)[0] == 0
  rows, _ = _read(tmp_path / 'run')
  usual, _ = _read(finished[0])
  # Adam's learning rate is the paper's, too low for so few steps.
  assert rows[1]['mse'] < usual[1]['mse']
  status, out, _ = _invoke(*flags)
  assert status == 0 and 'complete' in out


@pytest.mark.parametrize(('args', 'part'), [
    (['--num_factors=3'], 'a teacher of --num_factors=2, this run 3'),
    (['--keep_moments'], '--optimizer=muon'),
])
def test_a_teacher_must_fit(finished, tmp_path, args, part):
  theirs, judge = finished
  run = tmp_path / 'theirs'
  shutil.copytree(theirs, run)
  manifest = json.loads((run / 'manifest.json').read_text())
  manifest['flags']['optimizer'] = 'muon'
  (run / 'manifest.json').write_text(json.dumps(manifest))
  result = _invoke(
      f'--workdir={tmp_path / "run"}', f'--judge_workdir={judge}',
      f'--teacher_workdir={run}', *args,
  )  # pyformat: disable
  experiments_test._assert_mistake(result, f'--teacher_workdir={run}', part)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', ['nowhere', 'file', 'empty'])
def test_a_teacher_must_be_there(tmp_path, name):
  (tmp_path / 'file').write_text('of the user')
  (tmp_path / 'empty').mkdir()
  result = _invoke(
      f'--workdir={tmp_path / "run"}', f'--teacher_workdir={tmp_path / name}'
  )
  experiments_test._assert_mistake(
      result,
      f'--teacher_workdir={tmp_path / name} holds no finished first teacher',
  )
  assert (tmp_path / 'file').read_text() == 'of the user'


def test_a_stage_of_a_given_teacher_is_not_in_the_chain():
  values = dict(
      students=['student'], nuisance_dim=2, grow_by=1, epochs=3,
      lambda_y=0.25, lambda_diff=0.1, lambda_xcov=1e-3, xcov='squared',
  )  # pyformat: disable
  chain = discovery_runs.make_stages({**values, 'teacher_workdir': 'runs/x'})
  assert [stage.parent for stage in chain] == ['teacher', 'student_d01']
  [teacher, *_] = discovery_runs.make_stages({**values, 'teacher_epochs': 7})
  assert (teacher.name, teacher.epochs) == ('teacher', 7)
