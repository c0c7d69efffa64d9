"""Tests of experiments.figures and decoding on models without training."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments import decoding
from experiments import drawing
from experiments import figures
from jacsup_jax.baselines import fader
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.training import steps

NAMES = ('Bald', 'Big_$Nose', 'Male')


def _train(module, name, model, parent, dim, seed=0):
  """Returns a model that was not trained."""
  variables = autoencoders.init_variables(module, seed)
  state = steps.TrainState(np.int32(0), opt_state=(), **variables)
  stage = config.Stage(
    name, model, parent, dim, 1, config.LossWeights(), seed=seed
  )
  return steps.Trained(stage, module, state)


def _chain(make_module, last, model='student'):
  """Returns a teacher and students of d = 1 to `last`."""
  trained = [_train(make_module(0), 'teacher', 'teacher', None, 0)]
  for dim in range(1, last + 1):
    parent = trained[-1].stage.name
    name = f'{model}_d{dim:02d}'
    trained.append(_train(make_module(dim), name, model, parent, dim))
  return trained


def _classes(shape):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (64, *shape), np.uint8)
  return registry.Dataset(
    'small', 'test', images, np.arange(64, dtype=np.int32) % 10, 'f'
  )


def _make_module(dim, num_factors=2, channels=1):
  return autoencoders.MlpAutoencoder(
    num_factors, dim, image_shape=(8, 8, channels), widths=(8,)
  )


def _record(stage, step, **entries):
  return {'stage': stage, 'epoch': 1, 'step': step, 'eval_mse': 0.1, **entries}


@pytest.fixture(scope='module')
def digits():
  trained = _chain(_make_module, 2)
  records = [_record(one.stage.name, i) for i, one in enumerate(trained)]
  return decoding.Loaded(
    pathlib.Path('digits'), trained, _classes((8, 8, 1)), records=records
  )


@pytest.fixture(scope='module')
def people():
  rng = np.random.default_rng(0)
  data = registry.Dataset(
      'faces', 'test', rng.integers(0, 256, (8, 8, 8, 3), np.uint8),
      rng.choice([-1, 1], (8, 3)).astype(np.int8), 'f', NAMES,
  )  # fmt: skip
  sizes = {'image_size': 8, 'first_width': 4, 'last_width': 4}
  module = autoencoders.FaceAutoencoder(3, 2, linear_factors=True, **sizes)
  trained = [
    _train(module, 'teacher', 'teacher', None, 8),
    _train(module, 'student_d08', 'student', 'teacher', 8),
  ]
  rows = [
      {
          'stage': one.stage.name, 'model': one.stage.model, 'nuisance_dim': 8,
          'mse': 0.1, 'attribute_flips': 0.5, 'strength': 2.0,
          'attribute_flips_by_attribute': dict(zip(NAMES, (0.0, 0.1, 0.2))),
      }
      for one in trained
  ]  # fmt: skip
  return decoding.Loaded(pathlib.Path('faces'), trained, data, rows, [])


@pytest.fixture(scope='module')
def faders(people):
  module = fader.FaderAutoencoder(
      3, 2, image_size=8, first_width=4, last_width=4, discriminator_width=4,
      discriminator_hidden=4,
  )  # fmt: skip
  trained = [_train(module, 'fader', 'fader', None, 8)]
  rows = [{**people.rows[0], 'stage': 'fader', 'model': 'fader',
           'strength': 5.0}]  # fmt: skip
  records = [
      _record('fader', 1, discriminator_accuracy=0.6, adversarial_weight=0.1,
              reconstruction=0.1),
  ]  # fmt: skip
  return decoding.Loaded(
    pathlib.Path('fader'), trained, people.data, rows, records
  )


def _names(drawings):
  return {one.name for one in drawings}


def _run(own, path, **run_config):
  """Returns what stands for `runs.run.Run` of models in memory."""
  by_name = {one.stage.name: one for one in own.trained}
  return types.SimpleNamespace(
    path=path,
    config=run_config,
    stages=list(by_name),
    rows=list(own.rows),
    find_stage=lambda unused_name: next(iter(by_name)),
    stage=lambda name: by_name[name].stage,
    trained=lambda name: by_name[name],
    load_data=lambda *unused_args: own.data,
    workdir=types.SimpleNamespace(read_metrics=lambda: list(own.records)),
  )


# Which figures there are, by what a run holds.


def test_a_run_of_digits_is_drawn(digits, tmp_path):
  run = _run(digits, tmp_path)
  written = figures.draw([run], formats=('png', 'svg'))
  assert sorted(written) == sorted((tmp_path / 'figures').iterdir())
  assert {path.stem for path in written} == {
      'figure_1a', 'figure_1b', 'figure_1d', 'figure_2', 'reconstructions',
      'swaps_teacher', 'swaps_student',
  }  # fmt: skip
  [path] = figures.draw([run], names=['2'], folder=tmp_path / 'new')
  assert path == tmp_path / 'new' / 'figure_2.png'


def test_models_that_are_missing_are_left_out(digits):
  alone = dataclasses.replace(digits, trained=digits.trained[:1])
  assert _names(drawing.list_drawings(alone)) == {
      'figure_1a', 'reconstructions', 'swaps_teacher'
  }  # fmt: skip
  without = _chain(_make_module, 1, 'student_no_jacobian')[1]
  scratch = _train(_make_module(2), 'scratch', 'student_from_scratch', None, 2)
  more = dataclasses.replace(
    digits, trained=[*digits.trained, without, scratch], records=[]
  )
  assert _names(drawing.list_drawings(more)) >= {
      'figure_1c', 'figure_2_no_jacobian', 'figure_1b_from_scratch'
  }  # fmt: skip


@pytest.mark.parametrize('num_factors', [1, 2])
def test_images_in_colour_give_figures_9_to_12(num_factors):
  make_module = lambda dim: _make_module(dim, num_factors, channels=3)
  own = decoding.Loaded(
      pathlib.Path(), _chain(make_module, 2), _classes((8, 8, 3)),
      records=[_record('teacher', 1)],
  )  # fmt: skip
  found = drawing.list_drawings(own)
  two = {'figure_9', 'figure_12'} if num_factors == 2 else set()
  assert _names(found) == two | {
      'figure_10', 'figure_11', 'curves', 'reconstructions', 'swaps_teacher',
      'swaps_student',
  }  # fmt: skip
  for one in found:
    if one.figure in ('11', '12'):
      assert len(one.draw().axes) == 4


def test_runs_of_faces_and_of_fader_networks(people, faders):
  found = drawing.list_drawings(people)
  assert _names(found) == {
      'figure_4', 'figure_5_teacher', 'figure_5_student', 'figure_8_teacher',
      'figure_8_student', 'reconstructions', 'swaps_teacher', 'swaps_student',
  }  # fmt: skip
  # Names that look like formulas are drawn as they are, the best first.
  by_name = {one.name: one.draw for one in found}
  flips = by_name['figure_5_student']()
  flips.draw_without_rendering()
  texts = [text.get_text() for text in flips.axes[1].get_xticklabels()]
  assert texts == ['male', 'big \\$nose', 'bald']
  by_name['figure_8_student']()
  unmeasured = dataclasses.replace(people, rows=[])
  assert {one.figure for one in drawing.list_drawings(unmeasured)} == {
      '7', 'swaps'
  }  # fmt: skip
  # Fader Networks take their factors from the labels.
  found = {one.name: one.draw for one in drawing.list_drawings(faders)}
  assert {'curves_fader', 'discriminator_fader'} < set(found)
  for name in ('figure_5_fader', 'discriminator_fader'):
    found[name]()


def test_the_first_seed_and_its_given_teacher_are_drawn(
  digits, tmp_path, monkeypatch
):
  teacher, *students = digits.trained
  other = _train(_make_module(1), 'other_seed1', 'student', 'teacher', 1, 1)
  own = dataclasses.replace(digits, trained=[*students, other])
  run = _run(own, tmp_path, teacher_workdir='given')
  given = _run(dataclasses.replace(digits, trained=[teacher]), tmp_path)
  monkeypatch.setattr(figures.run_lib.Run, 'open', lambda *unused: given)
  assert figures.load(run).trained == [teacher, *students]


# Pixels.


def test_figure_2_varies_the_unit_that_each_student_found(digits):
  found = {one.name: one.draw for one in drawing.list_drawings(digits)}
  axes = found['figure_2']().axes
  assert len(axes) == 3  # examples
  assert [t.get_text() for t in axes[0].get_yticklabels()] == ['d = 1', 'd = 2']
  # The second student's last unit in the first digit 7, from its 1 % quantile.
  model = digits.trained[2].model
  factors, nuisance = map(np.asarray, model.encode(digits.data.images))
  code = type(model.encode(digits.data.images[:1]))(
    factors[7:8], nuisance[7:8].copy()
  )
  code.nuisance[0, 1] = np.quantile(nuisance[:, 1], 0.01)
  shown = np.asarray(axes[0].images[0].get_array())[8:, :8]
  np.testing.assert_allclose(
    shown, np.clip(model.decode(code)[0, ..., 0], 0, 1), atol=1e-5
  )


def test_figure_8_compares_two_models_at_their_own_strengths(people):
  ours, theirs = people.measured['teacher'], people.measured['student']
  pair = (ours[0], {**theirs[1], 'strength': 5.0})
  figure = drawing.list_comparison(people, ours, pair).draw()
  assert len(figure.axes) == len(NAMES)
  # The same models, which differ in strength except in the middle.
  shown = np.asarray(figure.axes[0].images[0].get_array())
  above, below = shown[:8], shown[8:]
  middle = slice(4 * 8, 5 * 8)
  np.testing.assert_allclose(above[:, middle], below[:, middle], atol=1e-5)
  assert np.abs(above[:, :8] - below[:, :8]).max() > 1e-4


# Several runs.


def test_runs_of_faces_together(people, faders, tmp_path):
  runs = [_run(people, tmp_path / 'ours'), _run(faders, tmp_path / 'theirs')]
  written = figures.draw(runs)
  assert [path.name for path in written] == [
      'figure_4.png', 'figure_7.png', 'figure_8.png'
  ]  # fmt: skip
  assert written[0].parent == tmp_path / 'ours' / 'figures'
  others = dataclasses.replace(
    people, data=dataclasses.replace(people.data, fingerprint='others')
  )
  with pytest.raises(errors.InputError, match='other are of other attributes'):
    figures.draw([runs[0], _run(others, tmp_path / 'other')])


def test_front_shows_digits_and_faces(digits, people, tmp_path):
  front = figures.list_front([digits, people]).draw()
  titles = [axes.get_title() for axes in front.axes]
  assert titles == ['teacher, d = 0', 'student, d = 2', '']
  with pytest.raises(errors.InputError, match='2 runs of digits'):
    figures.list_front([digits, digits])
  unmeasured = dataclasses.replace(people, rows=[])
  with pytest.raises(errors.InputError, match='faces measured'):
    figures.list_front([unmeasured])
  [path] = figures.draw([_run(digits, tmp_path)], names=['front'])
  assert path.name == 'front.png'


# Mistakes.


def test_mistakes_are_named(digits, tmp_path):
  run = _run(digits, tmp_path)
  with pytest.raises(errors.InputError, match='cannot give 5; accepted: 1, 2'):
    figures.draw([run], names=['1', '5'])
  with pytest.raises(errors.InputError, match='output_dir=/proc/here cannot'):
    figures.draw([run], folder='/proc/here')
  with pytest.raises(errors.InputError, match='these runs cannot'):
    figures.draw([run, run], names=['4'])
  for changes, message in (
    ({'figure': ('3',)}, '--figure=3; accepted: 1, 2'),
    ({'format': ('jpg',)}, '--format=jpg; accepted: png, pdf, svg'),
    ({'format': ()}, '--format is empty'),
  ):
    with pytest.raises(errors.InputError, match=message):
      figures.FiguresConfig(**changes)


def test_a_mistake_is_one_line_and_status_2(tmp_path):
  process = subprocess.run(
    [sys.executable, '-m', 'experiments.figures', '--workdir=nowhere'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': os.getcwd(), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert process.returncode == 2
  assert process.stderr.startswith('error: ')
  assert 'manifest.json' in process.stderr and process.stderr.count('\n') == 1
  assert not list(tmp_path.iterdir())
