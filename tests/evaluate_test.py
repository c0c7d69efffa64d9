"""Tests of experiments.evaluate, and of the figures of the run that it reads.

A run of two stages and one epoch on random images is made once.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import ceilings
from experiments import discovery_runs
from experiments import drawings
from experiments import evaluate
from experiments import mnist_figures
from experiments import mnist_runs
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import discovery

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = {
    'dataset': 'small',
    'seed': 0,
    'batch_size': 128,
    'epochs': 1,
    'num_factors': 2,
    'nuisance_dim': 1,
    'students': ['student', 'student_no_jacobian'],
    'lambda_y': 0.25,
    'lambda_diff': 0.1,
    'lambda_xcov': 1e-3,
    'xcov': 'squared',
    'learning_rate': 3e-4,
    'weight_decay': 1e-6,
    'compute_dtype': 'float32',
    'eval_split': 'test',
}
METRICS = ['mig', 'sap', 'dci', 'modularity']
# Name of a data set: shape of its images and number of classes.
KNOWN = {
    'small': ((28, 28, 1), 10),
    'wide': ((28, 32, 1), 10),
    'five': ((28, 28, 1), 5),
}


def fake_load(name, split, *, data_dir=None, image_shape=None):
  del data_dir, image_shape
  shape, num_classes = KNOWN[name]
  rng = np.random.default_rng(len(split))
  return datasets.Dataset(
      name=name,
      split=split,
      images=rng.integers(0, 256, (256, *shape), np.uint8),
      labels=np.arange(256, dtype=np.int32) % num_classes,
      num_classes=num_classes,
      fingerprint=f'{name}-{split}',
  )


@pytest.fixture(autouse=True, scope='module')
def small_data():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, 'load', fake_load)
    yield


@pytest.fixture(scope='module')
def finished(small_data, tmp_path_factory):
  """A finished run and its judges: RUN and JUDGES of the folder."""
  del small_data
  root = tmp_path_factory.mktemp('finished')
  judges.restore_or_train(
      root / 'judges', 'small', None, seeds=(0, 1), epochs=1
  )
  workdir = workdirs.WorkDir(root / 'run')
  workdir.begin(
      experiment='mnist',
      flags=FLAGS,
      dataset={'fingerprint': 'small-train'},
      devices=[],
  )
  stages.run(
      discovery_runs.make_stages(FLAGS),
      discovery.Discovery(
          discovery.Settings(),
          lambda *sizes: mnist_runs.make_model(FLAGS, *sizes),
          2,
          jnp.asarray(fake_load('small', 'train').images),
      ),
      workdir=workdir,
      evaluate=lambda model, variables: {
          'mse': 0.1, 'class_swaps': 0.5
      },
  )
  workdir.write_results('mnist', '', [], judges={'sha256': 'of others'})
  return root


@pytest.fixture(scope='module')
def evaluated(finished):
  path, rows = evaluate.evaluate(
      finished / 'run',
      judge_workdir=finished / 'judges',
      diagnostics_images=20,
  )
  return path, rows


@pytest.fixture
def run(finished, tmp_path):
  """A copy of the run to spoil."""
  return pathlib.Path(shutil.copytree(finished / 'run', tmp_path / 'run'))


def _edit_manifest(run, edit):
  path = run / 'manifest.json'
  manifest = json.loads(path.read_text())
  edit(manifest)
  path.write_text(json.dumps(manifest))


def _files(folder):
  return {
      path.relative_to(folder): path.is_file() and path.read_bytes()
      for path in folder.rglob('*')
  }


def _measure(finished, run, **kwargs):
  """Measures without the diagnostics, which other tests look at."""
  return evaluate.evaluate(
      run, judge_workdir=finished / 'judges', diagnostics_images=0, **kwargs
  )


def _refuses(message, run, **kwargs):
  """Checks the error: one line, its text, and a folder left as it was."""
  before = _files(run)
  with pytest.raises(errors.InputError, match=message) as error:
    evaluate.evaluate(run, **kwargs)
  assert '\n' not in str(error.value)
  assert _files(run) == before


# Values.


def test_rows_of_every_stage_and_a_random_model(evaluated, finished):
  path, rows = evaluated
  assert path == finished / 'run' / 'evaluations' / 'small_test.json'
  assert [(row['stage'], row['nuisance_dim']) for row in rows] == [
      ('teacher', 0),
      ('student_d01', 1),
      ('student_no_jacobian_d01', 1),
      ('random', 1),
  ]
  manifest = json.loads((finished / 'run' / 'manifest.json').read_text())
  for row in rows[:-1]:
    assert row['sha256'] == manifest['stages'][row['stage']]['sha256']
  results = json.loads(path.read_text())
  assert results['rows'] == rows
  assert results['experiment'] == 'evaluate'
  assert results['protocol'].startswith('test split of small; class_swaps')
  assert results['dataset']['fingerprint'] == 'small-test'
  assert results['judges']['seeds'] == [0, 1]


def test_mse_is_that_of_the_restored_model(evaluated, finished):
  _, rows = evaluated
  workdir = workdirs.WorkDir(finished / 'run')
  stage = discovery_runs.make_stages(FLAGS)[1]
  model = discovery_runs.restore(mnist_runs.make_model, FLAGS, stage, workdir)
  images = fake_load('small', 'test').images / np.float32(255)
  output = model.model.apply(model.variables, jnp.asarray(images))
  expected = np.mean((np.asarray(output, np.float64) - images) ** 2)
  # A mean over 200,000 pixels in float32.
  np.testing.assert_allclose(rows[1]['mse'], expected, rtol=1e-4)


def test_another_file_of_the_same_name_is_other_data(run, finished, capsys):
  # `arrays` is the name of every file.
  _edit_manifest(run, lambda m: m['dataset'].update(fingerprint='of another'))
  path, _ = _measure(finished, run, split='train')
  assert path.name == 'small_small-train_train.json'
  assert 'trained on' not in path.read_text()
  # Its judges are others by right.
  assert 'had other weights' not in capsys.readouterr().err


def test_validation_data_of_a_plateau_were_not_trained_on(run, finished):
  def end_by_plateau(manifest):
    manifest['flags'] |= {'grow_when': 'plateau', 'patience': 1}
    manifest['dataset']['fingerprint'] = 'small-train_minus_validation'

  _edit_manifest(run, end_by_plateau)
  path, _ = _measure(finished, run, split='validation')
  assert path.name == 'small_validation.json'
  assert 'trained on' not in path.read_text()


def test_data_of_training_are_named_as_such(run, finished, capsys):
  def leave_the_teacher(manifest):
    manifest['stages'] = {'teacher': manifest['stages']['teacher']}

  _edit_manifest(run, leave_the_teacher)
  path, rows = _measure(finished, run, split='validation')
  assert 'which the models were trained on' in path.read_text()
  # What is unfinished is said, and the rest is measured.
  assert [row['stage'] for row in rows] == ['teacher', 'random']
  assert capsys.readouterr().err == (
      'note: not measured, as unfinished: student_d01,'
      ' student_no_jacobian_d01\n'
      'note: the judges of results.json had other weights: swaps do not'
      ' compare\n'
  )


def test_diagnostics_are_in_rows_and_a_file(evaluated):
  path, rows = evaluated
  diagnostics = json.loads(
      path.with_name('small_test_diagnostics.json').read_text()
  )
  assert diagnostics['images'] == 20
  teacher, student, without, random = diagnostics['models']
  assert teacher['supervisor'] is teacher['first_teacher'] is None
  assert teacher['principal_directions'] is None
  # The first teacher supervises the only student: on its two units.
  for entry, row in ((student, rows[1]), (without, rows[2])):
    assert entry['supervisor'] == entry['first_teacher']
    assert list(entry['supervisor']['factors']) == ['y1', 'y2']
    assert row['jacobian_cosine'] == entry['supervisor']['cosine']
    assert -1 <= row['jacobian_cosine'] <= 1
    assert row['jacobian_norm_error'] >= 0
  assert random['supervisor'] is None
  assert rows[3]['jacobian_cosine_first_teacher'] is not None
  assert student['column_cosines']['names'] == ['y1', 'y2', 'z1']
  np.testing.assert_allclose(
      np.diag(student['column_cosines']['cosines']), 1, atol=1e-5
  )
  [direction] = student['principal_directions']['directions']
  np.testing.assert_allclose(direction, [1], rtol=1e-5)
  pictures = sorted(file.name for file in path.parent.glob('*.png'))
  names = [row['stage'] for row in rows]
  assert pictures == sorted(
      [f'small_test_cosines_{stage}.png' for stage in names]
      + [f'small_test_directions_{stage}.png' for stage in names[1:-1]]
  )


def test_singular_value_of_one_unit_is_the_norm_of_its_column(
    evaluated, finished
):
  path, _ = evaluated
  diagnostics = json.loads(
      path.with_name('small_test_diagnostics.json').read_text()
  )
  stage = discovery_runs.make_stages(FLAGS)[1]
  trained = discovery_runs.restore(
      mnist_runs.make_model, FLAGS, stage, workdirs.WorkDir(finished / 'run')
  )
  images = fake_load('small', 'test').images[:20] / np.float32(255)
  apply = lambda method: lambda x: trained.model.apply(
      trained.variables, x, method=method
  )
  code = apply('encode')(images)
  move = lambda z: apply('decode')(code._replace(nuisance=z))
  _, column = jax.jvp(move, (code.nuisance,), (jnp.ones_like(code.nuisance),))
  norm = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(column), axis=(1, 2, 3))))
  [found] = diagnostics['models'][1]['principal_directions']['singular_values']
  np.testing.assert_allclose(found, norm, rtol=1e-4)


def test_ceiling_of_the_first_teacher(evaluated):
  path, rows = evaluated
  ceiling = json.loads(
      path.with_name('small_test_diagnostics.json').read_text()
  )['ceiling']
  assert ceiling['teacher_mse'] == rows[0]['mse']
  whole = ceiling['shares'][-1]
  assert whole['residual_share'] == 0
  # A swap exchanges all that the teacher knows, as in its own row.
  assert whole['by_teacher_image'] == rows[0]['class_swaps']
  assert [entry['stage'] for entry in ceiling['students']] == [
      'student_d01', 'student_no_jacobian_d01'
  ]  # pyformat: disable
  for row, entry in zip(rows[1:], ceiling['students']):
    assert row['class_swaps_ceiling'] == entry['class_swaps']
    share = entry['residual_share']
    if share is not None:
      np.testing.assert_allclose(
          (1 - share) ** 2 * rows[0]['mse'], row['mse'], rtol=1e-5
      )
  text = ceilings.format_ceiling(ceiling)
  assert 'nan' not in text.lower()
  assert len(text.splitlines()) >= 2 + 5 + 2


def test_scores_are_columns_and_have_their_details(run, finished, capsys):
  path, rows = evaluate.evaluate(
      run, judge_workdir=finished / 'judges', metrics=METRICS
  )
  results = json.loads(path.read_text())
  assert results['rows'] == rows
  details = json.loads(path.with_name('small_test_metrics.json').read_text())
  assert details['labels'] == ['class'] and details['images'] == 256
  for row, detail in zip(rows, details['rows'], strict=True):
    assert detail['stage'] == row['stage']
    # One label: neither is defined.
    for name in ('modularity', 'dci_disentanglement'):
      assert row[name] is None
      assert 'needs two labels that vary' in detail[name]['reasons'][0]
    for name in ('mig', 'sap', 'dci_completeness', 'dci_informativeness'):
      assert 0 <= row[name] <= 1
      assert detail[name]['parts'] == {'class': row[name]}
  err = capsys.readouterr().err
  # A line for all models.
  assert err.count('modularity needs two labels that vary, found 1') == 1
  heading, *lines = tables.format_rows(rows).splitlines()
  assert heading.endswith('MIG    SAP  DCI d  DCI c  DCI i  modul.')
  assert all(line.endswith('-') and 'nan' not in line for line in lines)


def test_no_scores_are_no_columns(evaluated):
  path, rows = evaluated
  assert not any('mig' in row for row in rows)
  assert 'MIG' not in tables.format_rows(rows)
  assert not path.with_name('small_test_metrics.json').exists()


# Bad input.


def test_unknown_scores(run):
  _refuses('--metrics=mig,beta; accepted: any of mig', run,
           metrics=['mig', 'beta'])  # pyformat: disable


def test_no_run(tmp_path):
  _refuses('has no manifest.json', tmp_path)


def test_another_experiment(run):
  _edit_manifest(run, lambda manifest: manifest.update(experiment='shapes'))
  _refuses('is a run of shapes; accepted: one of experiments.mnist or', run)


def test_nothing_finished(run):
  _edit_manifest(run, lambda manifest: manifest.update(stages={}))
  _refuses('no finished stage .unfinished: teacher, student_d01', run)


def test_missing_checkpoint(run):
  shutil.rmtree(run / 'checkpoints' / 'student_d01')
  _refuses('student_d01 holds no checkpoint', run)


def test_other_parameters(run):
  def spoil(manifest):
    manifest['stages']['teacher']['sha256'] = 64 * '0'

  _edit_manifest(run, spoil)
  _refuses('the manifest 000000000000', run)


def test_images_of_another_shape(run):
  _refuses(r'images of \(28, 32, 1\); accepted: \(28, 28, 1\)', run,
           dataset='wide')  # pyformat: disable


def test_judges_of_other_classes(run, finished):
  _refuses(
      r'trained for small \(10 classes.*one for five \(5 classes',
      run,
      dataset='five',
      judge_workdir=finished / 'judges',
  )


@pytest.mark.parametrize(
    'flag, message',
    [
        ('--split=valid', 'split'),
        ('--diagnostics_images=-1', 'diagnostics_images'),
        ('--workdir=nowhere', 'manifest.json'),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, flag, message):
  process = subprocess.run(
      [sys.executable, '-m', 'experiments.evaluate', flag],
      cwd=tmp_path,
      env={'PYTHONPATH': str(ROOT), 'PATH': '', 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
  )
  assert process.returncode == 2
  assert message in process.stderr
  assert process.stderr.startswith('error: ')
  assert process.stderr.count('\n') == 1
  assert not list(tmp_path.iterdir())


# Figures of the same run.


def test_draw_writes_every_figure(run):
  workdir = workdirs.WorkDir(run)
  trained = [
      discovery_runs.restore(mnist_runs.make_model, FLAGS, stage, workdir)
      for stage in discovery_runs.make_stages(FLAGS)
  ]
  test = fake_load('small', 'test')
  metrics = workdir.read_metrics()
  draw = lambda models: drawings.save_all(
      workdir.figures,
      mnist_figures.list_drawings(models, test.images, test.labels, metrics),
  )
  draw(trained)
  assert sorted(path.name for path in workdir.figures.iterdir()) == [
      'figure_1a.png',
      'figure_1b.png',
      'figure_1c.png',
      'figure_1d.png',
      'figure_1d_no_jacobian.png',
      'figure_2.png',
      'figure_2_no_jacobian.png',
      'reconstructions.png',
  ]
  # A run of one chain has no figures of the other.
  shutil.rmtree(workdir.figures)
  draw(trained[::2])
  assert sorted(path.name for path in workdir.figures.iterdir()) == [
      'figure_1a.png',
      'figure_1c.png',
      'figure_1d_no_jacobian.png',
      'figure_2_no_jacobian.png',
      'reconstructions.png',
  ]
