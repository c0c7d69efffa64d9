"""Tests of experiments.figures and drawing on models without training."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from experiments import drawing
from experiments import figures
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.figures import panels
from jacsup_jax.models import autoencoders
from jacsup_jax.training import steps

NAMES = ('Bald', 'Big_$Nose', 'Male')


def _train(module, name, dim, parent=None, seed=0):
  """Returns a model of random weights; nothing is compiled for them."""
  random = np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
  params = jax.tree.map(
    lambda x: random.normal(0, 0.3, x.shape).astype(x.dtype), shapes['params']
  )
  stats = jax.tree.map(
    lambda x: np.ones(x.shape, x.dtype), shapes['batch_stats']
  )
  state = steps.TrainState(np.int32(0), params, stats, ())
  kind, weights = name.split('_d0')[0], config.LossWeights()
  stage = config.Stage(name, kind, parent, dim, 1, weights, seed=seed)
  return steps.Trained(stage, module, state)


@pytest.fixture(scope='module')
def digits():
  """A run of digits: a teacher and two students."""
  shape, trained, records = (8, 8, 1), [], []
  for dim, name in enumerate(('teacher', 'student_d01', 'student_d02')):
    module = autoencoders.MlpAutoencoder(2, dim, image_shape=shape, widths=(8,))
    parent = trained[-1].stage.name if trained else None
    trained.append(_train(module, name, dim, parent))
    records.append({'stage': name, 'epoch': 1, 'step': dim, 'eval_mse': 0.1})
  images = np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)
  labels = np.arange(64, dtype=np.int32) % 10
  data = registry.Dataset('small', 'test', images, labels, 'f')
  return drawing.Loaded(pathlib.Path('digits'), trained, data, (), records)


@pytest.fixture(scope='module')
def people():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
  labels = rng.choice([-1, 1], (8, 3)).astype(np.int8)
  data = registry.Dataset('faces', 'test', images, labels, 'f', NAMES)
  sizes = {'image_size': 8, 'first_width': 4, 'last_width': 4}
  module = autoencoders.FaceAutoencoder(
    3, 2, factor_activation='linear', **sizes
  )
  trained = [_train(module, 'teacher', 8)]
  trained.append(_train(module, 'student_d08', 8, 'teacher'))
  row = {'nuisance_dim': 8, 'mse': 0.1, 'attribute_flips': 0.5}
  by_attribute = 'attribute_flips_balanced_by_attribute'
  row[by_attribute] = dict(zip(NAMES, (0.0, 0.1, 0.2)))
  row['edit_values_by_attribute'] = dict.fromkeys(NAMES, (-2.0, 2.0))
  rows = [
    row | {'stage': x.stage.name, 'model': x.stage.model} for x in trained
  ]
  return drawing.Loaded(pathlib.Path('faces'), trained, data, rows)


@pytest.fixture(scope='module')
def faders(people):
  row = {'stage': 'fader', 'model': 'fader'}
  record = {'stage': 'fader', 'epoch': 1, 'step': 1, 'eval_mse': 0.1}
  return dataclasses.replace(
    people,
    path=pathlib.Path('fader'),
    trained=[_train(people.trained[0].module, 'fader', 8)],
    rows=[people.rows[0] | row],
    records=[record],
  )


@pytest.fixture
def draw(monkeypatch, tmp_path):
  """Draws runs that are loaded already; returns the files' names."""
  monkeypatch.setattr(figures, 'load', lambda own, unused_data_dir: own)

  def draw_loaded(runs, *names, formats=('png',)):
    written = figures.draw(runs, names, None, tmp_path, formats)
    assert {*written} <= {*tmp_path.iterdir()}
    return [path.name for path in written]

  return draw_loaded


def _list(own):
  return {one.name: one.draw for one in drawing.list_drawings(own)}


def test_a_run_of_digits_is_drawn(digits, draw):
  assert set(_list(digits)) == {
      'figure_1a', 'figure_1b', 'figure_1d', 'figure_2', 'reconstructions',
      'swaps',
  }  # fmt: skip
  found = draw([digits], '2', formats=('png', 'svg'))
  assert found == ['figure_2.png', 'figure_2.svg']
  alone = dataclasses.replace(digits, trained=digits.trained[:1])
  assert set(_list(alone)) == {'figure_1a', 'reconstructions', 'swaps'}
  other = _train(digits.trained[1].module, 'student_no_jacobian_d01', 1)
  more = dataclasses.replace(digits, trained=[*digits.trained, other])
  assert {'figure_1c', 'figure_2_no_jacobian'} <= set(_list(more))


def test_swaps_against_error_of_digits_stand_beside_the_paper(digits, draw):
  rows = [
    {'model': own.stage.model, 'nuisance_dim': d, 'mse': 0.1 - d / 100,
     'class_swaps_mlp': 0.5}
    for d, own in enumerate(digits.trained)
  ]  # fmt: skip
  rows.append({**rows[0], 'model': 'random', 'mse': 0.2})
  own = dataclasses.replace(digits, rows=rows)
  find = lambda runs: [
    line.get_label() for line in drawing.draw_tradeoff(runs).axes[0].lines
  ]
  ours = ['teacher', 'with Jacobian supervision']
  assert draw([own], 'tradeoff') == ['tradeoff.png']
  assert find([own]) == ours  # Of data that the paper does not have.
  data = dataclasses.replace(digits.data, name='mnist_embedded')
  of_paper = [f'{name} (paper)' for name in ours]
  of_paper.append('without Jacobian supervision (paper)')
  assert find([dataclasses.replace(own, data=data)]) == ours + of_paper
  other = dataclasses.replace(own, path=own.path / 'other')
  assert find([own, other]) == [
    f'{name} ({run})' for run in ('digits', 'other') for name in ours
  ]
  assert draw([own, other]) == ['swaps.png', 'tradeoff.png']


def test_images_in_colour_give_figures_9_to_12(digits):
  data = registry.Dataset(
    'small', 'test', np.zeros((64, 8, 8, 3), np.uint8), digits.data.labels
  )
  assert set(_list(dataclasses.replace(digits, data=data))) == {
      'figure_9', 'figure_10', 'figure_11', 'figure_12', 'curves',
      'reconstructions', 'swaps',
  }  # fmt: skip


def test_swaps_of_students_stand_side_by_side(digits, draw, monkeypatch):
  assert [axes.get_title() for axes in _list(digits)['swaps']().axes] == [
    'teacher, d\xa0=\xa00',
    'student with Jacobian\nsupervision, d\xa0=\xa02',
  ]
  other = _train(digits.trained[1].module, 'student_no_jacobian_d01', 1)
  other = dataclasses.replace(
    digits, path=digits.path / 'other', trained=[digits.trained[0], other]
  )
  shown = []
  monkeypatch.setattr(
    drawing,
    'draw_swaps',
    lambda own, models: shown.append(models) or panels.new_figure(1, 1),
  )
  assert draw([digits, other]) == ['swaps.png']
  [models] = shown
  assert [title.partition(':')[0] for title in models] == [
    digits.path.name,
    'other',
  ]
  assert [one.stage.model for one in models.values()] == [
    'student',
    'student_no_jacobian',
  ]


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
  assert {'figure_5_fader', 'curves_fader'} <= {*_list(faders)}


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
  wider = {'edit_values_by_attribute': dict.fromkeys(NAMES, (-5.0, 5.0))}
  pair = (ours[0], theirs[1] | wider)
  figure = drawing.draw_comparison(people, ours, pair)
  # The same models, which differ in strength except in the middle.
  shown = np.asarray(figure.axes[0].images[0].get_array())
  differences = np.abs(shown[:8] - shown[8:])
  np.testing.assert_allclose(differences[:, 4 * 8 : 5 * 8], 0, atol=1e-5)
  assert differences[:, :8].max() > 1e-4


def test_runs_of_faces_together(people, faders, draw):
  found = draw([people, faders])
  assert found == ['figure_4.png', 'figure_7.png', 'figure_8.png']
  data = dataclasses.replace(people.data, fingerprint='others')
  others = dataclasses.replace(people, data=data)
  with pytest.raises(errors.InputError, match='are of other attributes'):
    draw([people, others])


def test_mistakes_are_named(digits, draw):
  with pytest.raises(errors.InputError, match='cannot give 5; accepted: 1, 2'):
    draw([digits], '1', '5')
  with pytest.raises(errors.InputError, match='--format is empty'):
    figures.FiguresConfig(format=())
