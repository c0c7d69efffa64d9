"""Tests of experiments.figures and drawing on models without training."""

import dataclasses
import pathlib
import types

import numpy as np
import pytest

from experiments import drawing
from experiments import figures
from jacsup_jax.baselines import fader
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.training import steps

NAMES = ('Bald', 'Big_$Nose', 'Male')


def _train(module, name, dim, parent=None, seed=0):
  """Returns a model that was not trained."""
  variables = autoencoders.init_variables(module, seed)
  state = steps.TrainState(np.int32(0), opt_state=(), **variables)
  kind, weights = name.split('_d0')[0], config.LossWeights()
  stage = config.Stage(name, kind, parent, dim, 1, weights, seed=seed)
  return steps.Trained(stage, module, state)


def _make_digits(num_factors=2, channels=1):
  """Returns a run of digits: a teacher and two students."""
  shape, trained = (8, 8, channels), []
  for dim, name in enumerate(('teacher', 'student_d01', 'student_d02')):
    module = autoencoders.MlpAutoencoder(
      num_factors, dim, image_shape=shape, widths=(8,)
    )
    parent = trained[-1].stage.name if trained else None
    trained.append(_train(module, name, dim, parent))
  images = np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)
  labels = np.arange(64, dtype=np.int32) % 10
  data = registry.Dataset('small', 'test', images, labels, 'f')
  records = [
    {'stage': one.stage.name, 'epoch': 1, 'step': i, 'eval_mse': 0.1}
    for i, one in enumerate(trained)
  ]
  path = pathlib.Path('digits')
  return drawing.Loaded(path, trained, data, records=records)


digits = pytest.fixture(_make_digits, scope='module')


@pytest.fixture(scope='module')
def people():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
  labels = rng.choice([-1, 1], (8, 3)).astype(np.int8)
  data = registry.Dataset('faces', 'test', images, labels, 'f', NAMES)
  sizes = {'image_size': 8, 'first_width': 4, 'last_width': 4}
  module = autoencoders.FaceAutoencoder(3, 2, linear_factors=True, **sizes)
  names = ('teacher', 'student_d08')
  trained = [
    _train(module, name, 8, parent)
    for name, parent in zip(names, (None, 'teacher'))
  ]
  rates = dict(zip(NAMES, (0.0, 0.1, 0.2)))
  row = {'nuisance_dim': 8, 'mse': 0.1, 'attribute_flips': 0.5, 'strength': 2.0}
  row['attribute_flips_by_attribute'] = rates
  rows = [{**row, 'stage': name, 'model': name[:7]} for name in names]
  return drawing.Loaded(pathlib.Path('faces'), trained, data, rows)


@pytest.fixture(scope='module')
def faders(people):
  module = fader.FaderAutoencoder(
      3, 2, image_size=8, first_width=4, last_width=4, discriminator_width=4,
      discriminator_hidden=4,
  )  # fmt: skip
  row = {'stage': 'fader', 'model': 'fader', 'strength': 5.0}
  record = {'stage': 'fader', 'epoch': 1, 'step': 1, 'eval_mse': 0.1}
  record |= {'adversarial_weight': 0.1, 'reconstruction': 0.1}
  return drawing.Loaded(
    pathlib.Path('fader'),
    [_train(module, 'fader', 8)],
    people.data,
    [people.rows[0] | row],
    [{**record, 'discriminator_accuracy': 0.6}],
  )


def _list(own):
  return {one.name: one.draw for one in drawing.list_drawings(own)}


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
  folder = tmp_path / 'new'
  assert figures.draw([run], ['2'], folder=folder) == [folder / 'figure_2.png']


def test_models_that_are_missing_are_left_out(digits):
  alone = dataclasses.replace(digits, trained=digits.trained[:1])
  names = ('figure_1a', 'reconstructions', 'swaps_teacher')
  assert sorted(_list(alone)) == sorted(names)
  module = digits.trained[1].module
  names = ('student_no_jacobian_d01', 'student_from_scratch_d01')
  others = [_train(module, name, 1) for name in names]
  more = dataclasses.replace(digits, trained=[*digits.trained, *others])
  expected = {'figure_1c', 'figure_2_no_jacobian', 'figure_1b_from_scratch'}
  assert expected <= set(_list(more))


@pytest.mark.parametrize('num_factors', [1, 2])
def test_images_in_colour_give_figures_9_to_12(num_factors):
  found = _list(_make_digits(num_factors, channels=3))
  two = {'figure_9', 'figure_12'} if num_factors == 2 else set()
  assert set(found) == two | {
      'figure_10', 'figure_11', 'curves', 'reconstructions', 'swaps_teacher',
      'swaps_student',
  }  # fmt: skip
  for name in {'figure_11', 'figure_12'} & set(found):
    assert len(found[name]().axes) == 4


def test_runs_of_faces_and_of_fader_networks(people, faders):
  found = _list(people)
  assert set(found) == {
      'figure_4', 'figure_5_teacher', 'figure_5_student', 'figure_8_teacher',
      'figure_8_student', 'reconstructions', 'swaps_teacher', 'swaps_student',
  }  # fmt: skip
  # Names that look like formulas are drawn as they are, the best first.
  flips = found['figure_5_student']()
  flips.draw_without_rendering()
  texts = [text.get_text() for text in flips.axes[1].get_xticklabels()]
  assert texts == ['male', 'big \\$nose', 'bald']
  found['figure_8_student']()
  unmeasured = dataclasses.replace(people, rows=[])
  names = ('reconstructions', 'swaps_teacher', 'swaps_student')
  assert sorted(_list(unmeasured)) == sorted(names)
  # Fader Networks take their factors from the labels.
  found = _list(faders)
  assert 'curves_fader' in found
  for name in ('figure_5_fader', 'discriminator_fader'):
    found[name]()


def test_the_first_seed_and_its_given_teacher_are_drawn(
  digits, tmp_path, monkeypatch
):
  teacher, *students = digits.trained
  other = _train(students[0].module, 'student_d01_seed1', 1, 'teacher', 1)
  own = dataclasses.replace(digits, trained=[*students, other])
  run = _run(own, tmp_path, teacher_workdir='given')
  given = _run(dataclasses.replace(digits, trained=[teacher]), tmp_path)
  monkeypatch.setattr(figures.run_lib.Run, 'open', lambda *unused: given)
  assert figures.load(run).trained == [teacher, *students]


# Pixels.


def test_figure_2_varies_the_unit_that_each_student_found(digits):
  axes = _list(digits)['figure_2']().axes
  assert len(axes) == 3  # examples
  assert [t.get_text() for t in axes[0].get_yticklabels()] == ['d = 1', 'd = 2']
  # The second student's last unit in the first digit 7, from its 1 % quantile.
  model = digits.trained[2].model
  code = model.encode(digits.data.images)
  values = np.array(code.nuisance[7:8])
  values[0, 1] = np.quantile(code.nuisance[:, 1], 0.01)
  expected = model.decode(type(code)(code.factors[7:8], values))[0, ..., 0]
  shown = np.asarray(axes[0].images[0].get_array())[8:, :8]
  np.testing.assert_allclose(shown, np.clip(expected, 0, 1), atol=1e-5)


def test_figure_8_compares_two_models_at_their_own_strengths(people):
  ours, theirs = people.measured['teacher'], people.measured['student']
  pair = (ours[0], {**theirs[1], 'strength': 5.0})
  figure = drawing.draw_comparison(people, ours, pair)
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
  folder = tmp_path / 'ours' / 'figures'
  names = ('figure_4.png', 'figure_7.png', 'figure_8.png')
  assert figures.draw(runs) == [folder / name for name in names]
  data = dataclasses.replace(people.data, fingerprint='others')
  others = dataclasses.replace(people, data=data)
  with pytest.raises(errors.InputError, match='other are of other attributes'):
    figures.draw([runs[0], _run(others, tmp_path / 'other')])


def test_front_shows_digits_and_faces(digits, people, tmp_path):
  runs = [_run(own, tmp_path) for own in (digits, people)]
  [path] = figures.draw(runs, ['front'])
  assert path.name == 'front.png'
  unmeasured = dataclasses.replace(people, rows=[])
  for wrong in ([runs[0]] * 2, [_run(unmeasured, tmp_path)]):
    with pytest.raises(errors.InputError, match='front with .* complete run'):
      figures.draw(wrong, ['front'])


def test_mistakes_are_named(digits, tmp_path):
  run = _run(digits, tmp_path)
  with pytest.raises(errors.InputError, match='cannot give 5; accepted: 1, 2'):
    figures.draw([run], ['1', '5'])
  with pytest.raises(errors.InputError, match='output_dir=/proc/here cannot'):
    figures.draw([run], folder=pathlib.Path('/proc/here'))
  with pytest.raises(errors.InputError, match='cannot give 4'):
    figures.draw([run, run], ['4'])
  with pytest.raises(errors.InputError, match='--format is empty'):
    figures.FiguresConfig(format=())
