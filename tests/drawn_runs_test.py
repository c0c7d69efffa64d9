"""Tests of experiments.figures and drawn_runs on tiny runs."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import celeba_figures
from experiments import celeba_runs
from experiments import discovery_runs
from experiments import drawn_runs
from experiments import figures
from experiments import front_figure
from experiments import mnist_runs
from experiments import run_gallery
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import discovery
from jacsup_jax.training import steps as training

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = {
    'dataset': 'small', 'seed': 0, 'batch_size': 64, 'epochs': 1,
    'num_factors': 2, 'nuisance_dim': 1, 'students': ['student'],
    'lambda_y': 0.25, 'lambda_diff': 0.1, 'lambda_xcov': 1e-3,
    'xcov': 'squared', 'learning_rate': 3e-4, 'weight_decay': 1e-6,
    'compute_dtype': 'float32', 'eval_split': 'test',
}  # pyformat: disable
NAMES = ('Bald', 'Big_$Nose', 'Male')
FACES = {
    'image_size': 8, 'first_width': 4, 'last_width': 4, 'linear_factors': True,
    'compute_dtype': 'float32',
}  # pyformat: disable


def _fake_load(name, split, *, data_dir=None, image_shape=None):
  del data_dir, image_shape
  rng = np.random.default_rng(len(split))
  return datasets.Dataset(
      name=name,
      split=split,
      images=rng.integers(0, 256, (64, 28, 28, 1), np.uint8),
      labels=np.arange(64, dtype=np.int32) % 10,
      num_classes=10,
      fingerprint=f'{name}-{split}',
  )


@pytest.fixture(autouse=True, scope='module')
def small_data():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, 'load', _fake_load)
    patch.setattr(run_gallery, '_find_defaults', lambda _: None)
    yield


@pytest.fixture(scope='module')
def finished(small_data, tmp_path_factory):
  """A run of a teacher and a student; do not change it."""
  del small_data
  workdir = workdirs.WorkDir(tmp_path_factory.mktemp('finished') / 'run')
  workdir.begin(
      experiment='mnist',
      flags=FLAGS,
      dataset={'fingerprint': 'small-train'},
      devices=[],
  )
  stages.run(
      discovery_runs.make_stages(FLAGS),
      discovery.Discovery(
          discovery.Settings(batch_size=64),
          lambda *sizes: mnist_runs.make_model(FLAGS, *sizes),
          2,
          jnp.asarray(_fake_load('small', 'train').images),
      ),
      workdir=workdir,
      evaluate=lambda model, variables: {'mse': 0.1, 'class_swaps': 0.5},
  )
  workdir.write_results('mnist', 'as here', [])
  return workdir.path


@pytest.fixture
def run(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'run')


def _faces():
  """Returns models without training, rows and images of faces."""
  rng = np.random.default_rng(0)
  data = datasets.FaceDataset(
      name='faces',
      split='test',
      images=rng.integers(0, 256, (8, 8, 8, 3), np.uint8),
      attributes=rng.choice([-1, 1], (8, 3)).astype(np.int8),
      attribute_names=NAMES,
      image_size=8,
      fingerprint='0',
  )
  autoencoder = celeba_runs.make_model(FACES, len(NAMES), 8)
  variables = networks.init_variables(autoencoder, 0, autoencoder.image_shape)
  state = training.TrainState(0, opt_state=(), **variables)
  trained, rows = [], []
  for i, model in enumerate(('teacher', 'student')):
    stage = config.Stage(model, model, None, 8, 1, config.AttributeLossWeights())
    trained.append(stages.Trained(stage, autoencoder, state, ''))
    rows.append({
        'stage': model, 'model': model, 'nuisance_dim': 8, 'mse': 0.1 + i,
        'attribute_flips': 0.5, 'strength': 2.0,
        'attribute_flips_by_attribute': {
            name: 0.1 * j for j, name in enumerate(NAMES)
        },
    })  # pyformat: disable
  return trained, rows, data


def test_all_figures_and_the_gallery_are_drawn(run):
  before = {p for p in run.rglob('*') if p.is_file()}
  files = list(figures.draw([run]))
  # Of a complete run, nothing else changes.
  assert {p for p in run.rglob('*') if p.is_file()} - before == set(files)
  assert {p.name for p in files} == {
      'figure_1a.pdf', 'figure_1b.pdf', 'figure_1d.pdf', 'figure_2.pdf',
      'reconstructions.pdf', 'gallery.html',
  }  # pyformat: disable
  page = (run / 'gallery.html').read_text()
  assert page.count('data:image/webp') == 4 and page.count('<svg') == 1


def test_chosen_figures_and_formats(run, tmp_path):
  files = figures.draw(
      [run], figure=['2'], formats=['svg', 'png'], output_dir=tmp_path / 'new'
  )
  assert [p.name for p in files] == ['figure_2.svg', 'figure_2.png']
  assert not (run / 'figures').exists() and not (run / 'gallery.html').exists()


def test_what_is_finished_of_an_unfinished_run_is_drawn(run, capsys):
  path = run / 'manifest.json'
  manifest = json.loads(path.read_text())
  del manifest['stages']['student_d01']
  path.write_text(json.dumps(manifest))
  (run / 'results.json').unlink()
  files = list(figures.draw([run], formats=['png']))
  assert [p.name for p in files] == [
      'figure_1a.png', 'reconstructions.png', 'gallery.html'
  ]  # pyformat: disable
  assert 'not drawn, as unfinished: student_d01' in capsys.readouterr().err
  assert 'Not complete' in (run / 'gallery.html').read_text()
  with pytest.raises(errors.InputError, match='cannot give 2.*accepted: 1'):
    list(figures.draw([run], figure=['2']))


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'figure': ['3']}, '--figure=3: there is no 3; accepted: any of 1'),
        ({'figure': ['1', '5']}, 'cannot give 5; accepted: 1, 2'),
        ({'formats': ['jpg']}, '--format=jpg: there is no jpg'),
        ({'formats': []}, '--format is empty'),
        ({'output_dir': '/proc/here'}, '--output_dir=/proc/here cannot'),
        ({'gallery': True, 'twice': True}, '--gallery with 2'),
        ({'twice': True}, 'several runs'),
    ],
)
def test_mistakes_are_named(finished, changes, message):
  changes = dict(changes)
  runs = [finished] * (2 if changes.pop('twice', False) else 1)
  with pytest.raises(errors.InputError, match=message):
    list(figures.draw(runs, **changes))
  assert not (finished / 'figures').exists()


@pytest.mark.parametrize('content', ['{', '{"protocol": "", "rows": [1]}'])
def test_damaged_results_are_named_before_anything_is_drawn(run, content):
  (run / 'results.json').write_text(content)
  with pytest.raises(errors.InputError, match='results.json'):
    list(figures.draw([run]))
  assert not (run / 'figures').exists()


@pytest.mark.parametrize(
    'record',
    [
        {'stage': 'teacher', 'step': 1},
        {'stage': 'teacher', 'step': 1, 'epoch': 1, 'eval_mse': 'small'},
    ],
)
def test_damaged_metrics_are_named(run, record):
  with open(run / 'metrics.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps(record) + '\n')
  with pytest.raises(errors.InputError, match='metrics.jsonl'):
    list(figures.draw([run]))


def test_figures_of_faces_without_fader_networks():
  trained, rows, data = _faces()
  found = celeba_figures.list_drawings(trained, rows, data, [])
  assert list(found) == ['4', '5', '7', 'sweeps']
  with pytest.raises(errors.InputError, match='8 compares a student with Fader'):
    figures.choose(found, ['8'], 'it')
  # Names that look like formulas are drawn as they are.
  found['5']['figure_5_student'].draw().draw_without_rendering()


def test_a_run_of_faces_that_was_not_measured_gives_what_needs_no_rows():
  trained, _, data = _faces()
  assert list(celeba_figures.list_drawings(trained, [], data, [])) == ['7']


def test_figure_8_compares_two_models_at_their_own_strengths():
  trained, rows, data = _faces()
  pairs = [(trained[0], rows[0]), (trained[1], {**rows[1], 'strength': 5.0})]
  figure = celeba_figures.list_comparison(*pairs, data).draw()
  assert len(figure.axes) == len(NAMES)
  # The same models here, which both strengths tell apart, but for the middle.
  shown = np.asarray(figure.axes[0].images[0].get_array())
  above, below = shown[:8], shown[8:]
  middle = slice(4 * 8, 5 * 8)
  np.testing.assert_allclose(above[:, middle], below[:, middle], atol=1e-5)
  assert np.abs(above[:, :8] - below[:, :8]).max() > 1e-4


def test_figures_7_and_8_take_models_of_several_runs(tmp_path, monkeypatch):
  trained, rows, data = _faces()
  stage = dataclasses.replace(
      trained[1].stage, name='fader', model='fader', parent=None
  )
  fader = [dataclasses.replace(trained[1], stage=stage)]
  others = dataclasses.replace(data, fingerprint='others')
  own = {
      'ours': (trained, data, rows),
      'theirs': (fader, data, [{**rows[1], 'stage': 'fader'}]),
      'others': (fader, others, []),
  }

  def load(run, unused_data_dir):
    models, images, measured = own[run.path.name]
    return drawn_runs.Loaded(run, models, images, [], measured)

  monkeypatch.setattr(drawn_runs, 'load', load)

  def list_of(*names, asked=('7', '8')):
    runs = [workdirs.WorkDir(tmp_path / name) for name in names]
    for run in runs:
      run.manifest = {'experiment': 'celeba'}
    return figures.list_of_several(runs, asked, None)

  found = list_of('ours', 'theirs')
  assert list(found) == ['7', '8']
  (axes,) = found['7']['figure_7'].draw().axes
  assert [label.get_text() for label in axes.get_yticklabels()] == [
      'original', 'teacher, d = 8', 'student, d = 8', 'Fader Networks, d = 8'
  ]  # pyformat: disable
  found['8']['figure_8'].draw()
  assert list(list_of('theirs', 'theirs')) == ['7']
  with pytest.raises(errors.InputError, match='others are of other attributes'):
    list_of('ours', 'others')


def test_front_shows_digits_and_faces(finished):
  digits = drawn_runs.load(drawn_runs.open_run(finished), None)
  trained, rows, data = _faces()
  manifest = {'experiment': 'celeba'}
  run = workdirs.WorkDir(finished)
  run.manifest = manifest
  faces = drawn_runs.Loaded(run, trained, data, [], rows)
  figure = front_figure.list_front([digits, faces]).draw()
  titles = [axes.get_title() for axes in figure.axes]
  assert titles[0] == 'teacher, d = 0' and titles[1] == 'student, d = 1'
  assert len(titles) == 3
  with pytest.raises(errors.InputError, match='2 runs of digits'):
    front_figure.list_front([digits, digits])


def test_a_mistake_is_one_line_and_status_2(tmp_path):
  process = subprocess.run(
      [sys.executable, '-m', 'experiments.figures', '--workdir=nowhere'],
      cwd=tmp_path,
      env={'PYTHONPATH': str(ROOT), 'PATH': '', 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
  )
  assert process.returncode == 2
  assert process.stderr.startswith('error: ')
  assert 'manifest.json' in process.stderr and process.stderr.count('\n') == 1
  assert not list(tmp_path.iterdir())
