"""Tests of jacsup_jax.face_figures."""

from matplotlib import text as mpl_text
from matplotlib.backends import backend_agg
import numpy as np
from PIL import Image
import pytest

from jacsup_jax.figures import face_figures
from jacsup_jax.figures import panels as figures

NAMES = ('5_o_Clock_Shadow', 'Mouth_Slightly_Open', 'Bald')


def _images(*shape):
  """Uniform in [-0.5, 1.5]: outside of [0, 1] as well."""
  return np.random.default_rng(0).uniform(-0.5, 1.5, (*shape, 4, 4, 3))


def _row(model, dim, flips, mse):
  return {
      'model': model, 'nuisance_dim': dim, 'attribute_flips': flips, 'mse': mse
  }  # pyformat: disable


# Table 2 of the paper.
ROWS = (
    _row('teacher', 2048, 0.731, 1.82e-3),
    _row('student', 8192, 0.722, 1.08e-3),
    _row('student_cycle', 8192, 0.427, 1.04e-3),
    _row('fader', 2048, 0.431, 3.08e-3),
    _row('fader', 8192, 0.442, 1.83e-3),
    _row('random', 2048, 0.202, 1.01e-1),
)


def _records():
  """Two phases of a teacher, 4 epochs, and a student, 2: MSE 1 / step."""
  lines = [('teacher', 'first', 1), ('teacher', 'first', 2),
           ('teacher', 'cycle', 3), ('teacher', 'cycle', 4),
           ('student_d32', None, 1),
           ('student_d32', None, 2)]  # pyformat: disable
  records = []
  for i, (stage, phase, epoch) in enumerate(lines):
    step = 10 * (i + 1)
    record = {'stage': stage, 'epoch': epoch, 'step': step}
    if phase is not None:
      record['phase'] = phase
    records.append({**record, 'eval_mse': 1 / step})
  return records


def _example(name):
  if name == 'attribute_flips':
    return face_figures.attribute_flips(
        _images(4), _images(4), _images(4, 3), NAMES, 'a title'
    )
  if name == 'sweeps':
    return face_figures.sweeps(
        _images(3, 9), np.linspace(-40, 40, 9), NAMES, title='a title'
    )
  if name == 'compared_sweeps':
    return face_figures.compared_sweeps(
        np.stack([_images(3, 9)] * 2, axis=1), np.linspace(-1, 1, 9), NAMES,
        ['student', 'Fader Networks'], xlabel='value',
    )  # pyformat: disable
  if name == 'tradeoff':
    return face_figures.tradeoff(ROWS)
  if name == 'adversarial_curves':
    return _adversarial_curves()
  return face_figures.training_curves(_records(), 'a title')


ALL = (
    'attribute_flips', 'sweeps', 'compared_sweeps', 'tradeoff',
    'training_curves', 'adversarial_curves',
)  # pyformat: disable


def _tiles(axes, rows, cols):
  shown = np.asarray(axes.images[0].get_array())
  return shown.reshape(rows, 4, cols, 4, 3).swapaxes(1, 2)


# Values: pixels and points land where they should.


def test_attribute_flips_has_originals_first():
  originals, ours, flipped = _images(2), _images(2)[::-1], _images(2, 3)
  figure = face_figures.attribute_flips(originals, ours, flipped, NAMES)
  left, right = figure.axes
  pair = _tiles(left, 2, 2)
  np.testing.assert_array_equal(pair[:, 0], np.clip(originals, 0, 1))
  np.testing.assert_array_equal(pair[:, 1], np.clip(ours, 0, 1))
  np.testing.assert_array_equal(_tiles(right, 2, 3), np.clip(flipped, 0, 1))
  texts = [text.get_text() for text in right.get_xticklabels()]
  assert texts == ["5 o'clock shadow", 'mouth slightly open', 'bald']


def test_sweeps_names_rows_and_values():
  images = _images(2, 3)
  (axes,) = face_figures.sweeps(images, np.array([-5, 0, 5]), NAMES[1:]).axes
  np.testing.assert_array_equal(_tiles(axes, 2, 3), np.clip(images, 0, 1))
  texts = [text.get_text() for text in axes.get_xticklabels()]
  assert texts == ['\N{MINUS SIGN}5', '0', '5']
  texts = [text.get_text() for text in axes.get_yticklabels()]
  assert texts == ['mouth slightly open', 'bald']
  (axes,) = face_figures.sweeps(images, np.arange(3)).axes
  assert not axes.get_yticklabels()


def test_tradeoff_has_percents_over_errors():
  rows = [*ROWS, {'model': 'x', 'attribute_flips': None, 'mse': 1}]
  figure = face_figures.tradeoff(rows)
  (axes,) = figure.axes
  points = {line.get_label(): line.get_xydata() for line in axes.lines}
  np.testing.assert_allclose(points['teacher'], [[1.82e-3, 73.1]])
  np.testing.assert_allclose(
      points['Fader Networks'], [[3.08e-3, 43.1], [1.83e-3, 44.2]]
  )
  assert len(points) == len({line.get_color() for line in axes.lines}) == 5
  assert len({line.get_marker() for line in axes.lines}) == 5
  labels = [text.get_text() for text in axes.texts]
  assert labels == [f'd = {row["nuisance_dim"]}' for row in ROWS]


def test_training_curves_counts_epochs_over_phases_and_stages():
  (axes,) = face_figures.training_curves(_records()[::-1]).axes
  curves = [line for line in axes.lines if len(line.get_xdata()) == 2
            and line.get_label()[0] != '_']  # pyformat: disable
  assert [line.get_label() for line in curves] == [
      'teacher, first', 'teacher, cycle', 'student d32'
  ]  # pyformat: disable
  for line, epochs in zip(curves, ([1, 2], [3, 4], [5, 6])):
    np.testing.assert_array_equal(line.get_xdata(), epochs)
    np.testing.assert_allclose(line.get_ydata(), 0.1 / np.array(epochs))
  bars = [line.get_xdata()[0] for line in axes.lines if line not in curves]
  assert bars == [2, 4]


def _adversarial_records():
  return [
      {
          'stage': 'fader', 'epoch': epoch, 'step': 10 * epoch,
          'discriminator_accuracy': 0.8 - 0.1 * epoch,
          'adversarial_weight': 1e-4 * epoch, 'reconstruction': 0.1 / epoch,
      }
      for epoch in (1, 2, 3)
  ]  # pyformat: disable


def _adversarial_curves():
  return face_figures.adversarial_curves(_adversarial_records(), 0.7, 'a title')


def test_adversarial_curves_are_over_epochs():
  figure = face_figures.adversarial_curves(_adversarial_records()[::-1], 0.7)
  above, middle, below = figure.axes
  for axes, expected in (
      (above, [70, 60, 50]),
      (middle, [1e-4, 2e-4, 3e-4]),
      (below, [0.1, 0.05, 0.1 / 3]),
  ):
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)
  np.testing.assert_allclose(above.lines[1].get_ydata(), 70)


def test_wrong_input_raises():
  with pytest.raises(ValueError, match='2 labels for 3 columns'):
    face_figures.attribute_flips(
        _images(2), _images(2), _images(2, 3), NAMES[:2]
    )
  with pytest.raises(AssertionError):
    face_figures.attribute_flips(_images(3), _images(3), _images(2, 3), NAMES)
  with pytest.raises(ValueError, match='1 labels for 2 rows'):
    face_figures.sweeps(_images(2, 3), np.arange(3), ['a'])
  with pytest.raises(AssertionError):
    face_figures.sweeps(_images(2, 3), np.arange(2))
  with pytest.raises(ValueError, match='attribute_flips'):
    face_figures.tradeoff([{'model': 'teacher', 'class_swaps': 1.0}])
  with pytest.raises(ValueError, match='eval_mse'):
    face_figures.training_curves([{'stage': 's', 'epoch': 1, 'step': 1}])
  with pytest.raises(ValueError, match='discriminator_accuracy'):
    face_figures.adversarial_curves([{'stage': 's', 'epoch': 1}], 0.5)


# Invariants of all figures.


def test_compared_sweeps_are_below_each_other():
  images = np.stack([_images(3, 5), 1 - _images(3, 5)], axis=1)
  figure = face_figures.compared_sweeps(
      images, np.linspace(-1, 1, 5), NAMES, ['a', 'b'], xlabel='x'
  )
  assert len(figure.axes) == 3
  shown = np.asarray(figure.axes[1].images[0].get_array())
  np.testing.assert_array_equal(
      shown[4:8, 8:12], np.clip(images[1, 1, 2], 0, 1)
  )
  assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
      'a', 'b'
  ]  # pyformat: disable


def test_tradeoff_tells_runs_apart_by_their_filling():
  rows = [{**row, 'source': source} for source in 'ab' for row in ROWS[:2]]
  (axes,) = face_figures.tradeoff(rows).axes
  found = {line.get_label(): line.get_fillstyle() for line in axes.lines}
  assert found == {
      'teacher (a)': 'full', 'student (a)': 'full', 'teacher (b)': 'none',
      'student (b)': 'none',
  }  # pyformat: disable


def test_rows_and_names_may_hold_anything():
  rows = [
      _row('$\\frac', 8, 0.5, 1e-3), _row('x', 8, 0.5, None),
      _row('x', 8, float('nan'), 1e-3), _row('x', 8, 0.5, float('inf')),
  ]  # pyformat: disable
  assert face_figures.has_tradeoff(rows)
  assert not face_figures.has_tradeoff(rows[1:])
  figure = face_figures.tradeoff(rows)
  figure.draw_without_rendering()
  assert len(figure.axes[0].lines) == 1


@pytest.mark.parametrize('name', ALL)
def test_no_text_leaves_the_canvas_or_meets_another(name):
  figure = _example(name)
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  renderer = canvas.get_renderer()
  hidden = []
  for axes in figure.axes:
    for axis in (axes.xaxis, axes.yaxis):
      low, high = sorted(axis.get_view_interval())
      for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels()):
        if not low <= place <= high:
          hidden.append(label)
  texts = [
      text
      for text in figure.findobj(mpl_text.Text)
      if text.get_text() and text.get_visible() and text not in hidden
  ]
  assert texts
  # Of upright labels next to each other, the boxes are those of their letters.
  boxes = [text.get_window_extent(renderer) for text in texts]
  for i, (text, box) in enumerate(zip(texts, boxes)):
    assert box.x0 >= 0 and box.y0 >= 0, text
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for j in range(i):
      assert not box.overlaps(boxes[j]), (texts[i], texts[j])


@pytest.mark.parametrize('name', ALL)
def test_save_writes_a_png(tmp_path, name):
  figures.save(_example(name), tmp_path / 'figure.png')
  with Image.open(tmp_path / 'figure.png') as image:
    image.load()
    assert min(image.size) > 200
