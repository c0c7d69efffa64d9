"""Tests of experiments.celeba by the run that all tests share."""

import json

import jax
import numpy as np
from PIL import Image
import pytest

from experiments import celeba
from jacsup_jax.runs import run as run_lib

STAGES = ['teacher', 'student_d8', 'fader']


def test_a_run_has_its_rows_metrics_and_figures(celeba_run):
  results = json.loads((celeba_run / 'results.json').read_text())
  assert results['protocol'].startswith('test split, selection on validation;')
  rows = results['rows']
  assert [(row['stage'], row['labels']) for row in rows] == [
      ('teacher', 'predicted'), ('teacher', 'given'),
      ('student_d8', 'predicted'), ('student_d8', 'given'),
      ('fader', 'given'), ('fader', 'predicted'), ('random', 'predicted'),
  ]  # fmt: skip
  assert [row['nuisance_dim'] for row in rows] == [4, 4, 8, 8, 4, 4, 4]
  rows = [rows[i] for i in (0, 2, 4, 1, 3, 5, 6)]
  assert (rows[1]['lambda_y'], rows[1]['lambda_diff']) == (1.0, 50.0)
  assert rows[1]['lambda_edit_check'] == 0.1
  assert results['edit_check']['kind'] == 'robust'
  assert results['edit_check']['sha256'] not in {
    judge['sha256'] for judge in results['judges']
  }
  assert rows[2]['lambda_adversarial'] == 1e-4
  # What Fader Networks are given, they do not predict.
  assert rows[2]['factor_accuracy'] is None
  assert rows[1]['factor_accuracy'] is not None
  names = ['Bald', 'Male', 'Smiling']
  for row in rows:
    assert row['strength'] in (1, 4)
    assert 0 <= row['attribute_flips'] <= 1
    assert [*row['attribute_flips_by_attribute']] == names
  manifest = json.loads((celeba_run / 'manifest.json').read_text())
  assert manifest['dataset']['attributes'] == names
  stage = manifest['stages']['student_d8']
  assert stage['parent_sha256'] == rows[0]['sha256']
  figures = {path.stem for path in (celeba_run / 'figures').iterdir()}
  assert figures >= {'figure_4', 'figure_5_student', 'figure_8'}


def test_a_conditional_vae_supervises_students(
  face_flags, root, invoke, tmp_path, undrawn
):
  status, _, err = invoke(
      celeba.main, celeba.Config(), *face_flags, '--epochs=0',
      '--students=student_from_scratch', '--supervisor=cvae',
      '--baselines=cvae', '--baseline_epochs=1', '--decode_labels=1',
      '--largest_flip=4', f'--workdir={tmp_path / "run"}',
  )  # fmt: skip
  assert status == 0, err
  run = run_lib.Run.open(tmp_path / 'run')
  # What supervises is trained first; the student predicts labels for it.
  student = 'student_from_scratch_d8'
  assert run.stages == ['cvae', student]
  assert [(row['stage'], row['labels']) for row in run.rows] == [
      ('cvae', 'given'), ('cvae', 'predicted'), (student, 'predicted'),
      (student, 'given'), ('random', 'predicted'),
  ]  # fmt: skip
  assert run.rows[2]['largest_flip'] == 4.0
  assert run.rows[2]['lambda_diff'] == run.rows[-1]['lambda_diff'] == 50.0
  assert run.rows[3]['factor_accuracy'] is None


@pytest.mark.slow  # A minute: faces of another number of attributes.
def test_own_faces_with_a_list_of_their_attributes(
  face_flags, root, invoke, tmp_path
):
  generator = np.random.default_rng(0)
  for row in range(24):
    size = (*generator.integers(16, 40, 2), 3)
    pixels = generator.integers(0, 256, size, np.uint8)
    Image.fromarray(pixels).save(tmp_path / f'IMG {row}.JPG')
  rows = [f'IMG {row}.JPG;{("no", "yes")[row % 2]}' for row in range(24)]
  (tmp_path / 'hats.csv').write_text('\n'.join(['photo;wears a hat', *rows]))
  status, _, err = invoke(
      celeba.main, celeba.Config(), *face_flags, f'--data_dir={tmp_path}',
      f'--judge_workdir={tmp_path / "judges"}', f'--workdir={tmp_path / "run"}',
  )  # fmt: skip
  assert status == 0, err
  run = run_lib.Run.open(tmp_path / 'run')
  assert run.factor_names == ['wears a hat']
  found = ['teacher', 'teacher', 'student_d8', 'student_d8', 'random']
  assert [row['stage'] for row in run.rows] == found
  assert len(run.load_data('train')) == 20


def test_a_run_is_opened_with_nothing_of_its_experiment(celeba_run):
  run = run_lib.Run.open(celeba_run)
  data = run.load_data('test')
  assert data.image_shape == (8, 8, 3)

  @jax.jit
  def reconstruct(model):
    return model.decode(model.encode(data.images, data.labels))

  images = np.asarray(reconstruct(run.restore('student_d8')))
  # In [-1, 1], as the models have them.
  error = np.mean(np.square(images - (data.images / 127.5 - 1)))
  np.testing.assert_allclose(error, run.rows[2]['mse'], rtol=1e-4)


@pytest.mark.parametrize(
  'cache', ['host', pytest.param('none', marks=pytest.mark.slow)]
)
def test_a_student_grows_from_the_teacher_of_another_run(
  celeba_run, face_flags, root, invoke, undrawn, cache
):
  status, _, err = invoke(
      celeba.main, celeba.Config(), *face_flags, f'--cache={cache}',
      f'--workdir={root / cache}', f'--teacher_workdir={celeba_run}',
  )  # fmt: skip
  assert status == 0, err
  rows = json.loads((root / cache / 'results.json').read_text())['rows']
  theirs = json.loads((celeba_run / 'results.json').read_text())['rows']
  found = ['teacher', 'teacher', 'student_d8', 'student_d8', 'random']
  assert [row['stage'] for row in rows] == found
  assert rows[0]['sha256'] == theirs[0]['sha256']
  # The state of Adam comes with the teacher, and data that are fed are equal;
  # but their programs, compiled without optimizations, round in other ways.
  assert rows[2]['mse'] == pytest.approx(theirs[2]['mse'], rel=1e-3)
