"""Tests of jacsup_jax.figures: panels, digits, faces, curves, jacobians."""

import base64
import io
import os
import subprocess
import sys
from xml.etree import ElementTree

import jax
from matplotlib import text as mpl_text
from matplotlib.backends import backend_agg
import numpy as np
from PIL import Image
import pytest

from jacsup_jax.figures import curves
from jacsup_jax.figures import digits
from jacsup_jax.figures import faces
from jacsup_jax.figures import jacobians
from jacsup_jax.figures import panels

MINUS = '\N{MINUS SIGN}'
NAMES = ('5_o_Clock_Shadow', 'Mouth_Slightly_Open', 'Bald')
COSINES = np.array([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 0]])
COUNT = np.array([[4, 4, 0], [4, 4, 0], [0, 0, 0]])


def _images(*shape):
  """Uniform in [-0.5, 1.5]: outside of [0, 1] as well."""
  return np.random.default_rng(0).uniform(-0.5, 1.5, shape)


def _faces(*shape):
  return _images(*shape, 4, 4, 3)


def _records(stages=3, epochs=4, every=2):
  """Lines of metrics.jsonl: MSE 1 / step, swaps 0.9, 0.8, ...."""
  records, step = [], 0
  for stage in range(stages):
    for epoch in range(1, epochs + 1):
      step += 10
      record = {'stage': f's{stage}', 'epoch': epoch, 'step': step, 'loss': 1.0}
      if epoch % every == 0:
        swaps = 0.9 - 0.1 * stage
        record.update(eval_mse=1 / step, eval_class_swaps=swaps)
      records.append(record)
  return records


def _phases():
  """Two phases of a teacher, 4 epochs, and a student, 2: MSE 1 / step."""
  lines = [('teacher', 'first', 1), ('teacher', 'first', 2),
           ('teacher', 'cycle', 3), ('teacher', 'cycle', 4),
           ('student_d32', None, 1), ('student_d32', None, 2)]  # fmt: skip
  return [
    {'stage': stage, 'epoch': epoch, 'step': 10 * i, 'eval_mse': 0.1 / i}
    | ({'phase': phase} if phase else {})
    for i, (stage, phase, epoch) in enumerate(lines, start=1)
  ]


def _row(model, dim, flips, mse):
  return {
      'model': model, 'nuisance_dim': dim, 'attribute_flips': flips, 'mse': mse
  }  # fmt: skip


# Table 2 of the paper.
ROWS = (
  _row('teacher', 2048, 0.731, 1.82e-3),
  _row('student', 8192, 0.722, 1.08e-3),
  _row('student_cycle', 8192, 0.427, 1.04e-3),
  _row('fader', 2048, 0.431, 3.08e-3),
  _row('fader', 8192, 0.442, 1.83e-3),
  _row('random', 2048, 0.202, 1.01e-1),
)
ADVERSARIAL = [
    {
        'stage': 'fader', 'epoch': epoch, 'step': 10 * epoch,
        'discriminator_accuracy': 0.8 - 0.1 * epoch,
        'adversarial_weight': 1e-4 * epoch, 'reconstruction': 0.1 / epoch,
    }
    for epoch in (1, 2, 3)
]  # fmt: skip
EXAMPLES = {
    'factor_grid': lambda c=1: digits.factor_grid(
        _images(3, 4, 5, 6, c), np.linspace(-2, 2, 4), np.arange(3), 'a title'
    ),
    'traversals': lambda c=1: digits.traversals(
        _images(18, 3, 10, 5, 6, c), [f'd = {d}' for d in range(1, 19)],
        xlabel='values', title='a title',
    ),
    'reconstructions': lambda c=1: panels.reconstructions(
        {'original': _images(10, 5, 6, c), 'two\nlines': _images(10, 5, 6, c)},
        'a title',
    ),
    'swaps': lambda c=1: panels.swaps(
        _images(4, 5, 6, c), _images(3, 5, 6, c), _images(3, 4, 5, 6, c),
        'a title',
    ),
    'attribute_flips': lambda: faces.attribute_flips(
        _faces(4), _faces(4), _faces(4, 3), NAMES, 'a title'
    ),
    'sweeps': lambda: faces.sweeps(
        _faces(3, 9), np.linspace(-40, 40, 9), NAMES, title='a title'
    ),
    'compared_sweeps': lambda: faces.compared_sweeps(
        _faces(3, 2, 9), np.linspace(-1, 1, 9), NAMES,
        ['student', 'Fader Networks'], xlabel='value',
    ),
    'front': lambda: faces.front(
        [('teacher, d = 0', _images(3, 3, 5, 6, 1))], _faces(3), _faces(3, 5),
        NAMES,
    ),
    'swap_curves': lambda: curves.swap_curves(_records(), 'a title'),
    'error_curves': lambda: curves.error_curves(_phases(), 'a title'),
    'adversarial_curves': lambda: curves.adversarial_curves(
        ADVERSARIAL, 0.7, 'a title'
    ),
    'tradeoff': lambda: curves.tradeoff(ROWS, 'a title'),
    'column_cosines': lambda: jacobians.column_cosines(
        COSINES, COUNT, ('y1', 'y2', 'z1'), 'a title'
    ),
}  # fmt: skip


def _tiles(axes, rows, cols):
  """Returns `[rows, cols, H, W, C]` of the image that axes show."""
  shown = np.asarray(axes.images[0].get_array())
  shown = shown.reshape(*shown.shape[:2], -1)
  height, width = shown.shape[0] // rows, shown.shape[1] // cols
  return shown.reshape(rows, height, cols, width, -1).swapaxes(1, 2)


def _texts(labels):
  return [label.get_text() for label in labels]


# Values: pixels and points land where they should.


@pytest.mark.parametrize('channels', [1, 3])
def test_factor_grid_rises_to_the_right_and_upwards(channels):
  images = _images(3, 4, 5, 6, channels)
  figure = digits.factor_grid(images, np.arange(4.0), np.array([10.0, 20, 30]))
  (axes,) = figure.axes
  # The first value of the vertical factor is the lowest row; no image is upside
  # down.
  np.testing.assert_array_equal(_tiles(axes, 3, 4), np.clip(images[::-1], 0, 1))
  (image,) = axes.images
  assert image.get_clim() == (0, 1)
  # Labels stand at their tiles: extent is (left, right, bottom, top).
  assert image.get_extent() == [-0.5, 3.5, 2.5, -0.5]
  texts = dict(zip(axes.get_yticks(), axes.get_yticklabels()))
  assert [float(texts[y].get_text()) for y in (2, 1, 0)] == [10, 20, 30]
  texts = dict(zip(axes.get_xticks(), axes.get_xticklabels()))
  assert [float(texts[x].get_text()) for x in (0, 1, 2, 3)] == [0, 1, 2, 3]


def test_labels_of_values_are_short():
  _, texts = panels.value_ticks(np.array([-1.98, -0.99, -0.03, 0.99, 1.98]))
  assert texts == [f'{MINUS}2.0', f'{MINUS}1.0', '0.0', '1.0', '2.0']


@pytest.mark.parametrize('channels', [1, 3])
def test_traversals_has_an_axes_per_block(channels):
  images = _images(2, 3, 4, 5, 6, channels)
  figure = digits.traversals(images, ['d = 1', 'd = 2'])
  assert len(figure.axes) == 3
  for block, axes in enumerate(figure.axes):
    np.testing.assert_array_equal(
      _tiles(axes, 2, 4), np.clip(images[:, block], 0, 1)
    )
  assert _texts(figure.axes[0].get_yticklabels()) == ['d = 1', 'd = 2']


def test_reconstructions_has_a_row_per_name():
  images = _images(2, 4, 5, 6, 1)
  figure = panels.reconstructions({'original': images[0], 'ours': images[1]})
  (axes,) = figure.axes
  np.testing.assert_array_equal(_tiles(axes, 2, 4), np.clip(images, 0, 1))
  assert _texts(axes.get_yticklabels()) == ['original', 'ours']


def test_swaps_have_donors_above_and_recipients_on_the_side():
  donors, recipients = _images(4, 5, 6, 1), _images(2, 5, 6, 1)[::-1]
  swapped = _images(2, 4, 5, 6, 1)
  (axes,) = panels.swaps(donors, recipients, swapped).axes
  tiles = _tiles(axes, 3, 5)
  np.testing.assert_array_equal(tiles[0, 1:], np.clip(donors, 0, 1))
  np.testing.assert_array_equal(tiles[1:, 0], np.clip(recipients, 0, 1))
  np.testing.assert_array_equal(tiles[1:, 1:], np.clip(swapped, 0, 1))


def test_swap_curves_count_epochs_over_stages():
  # In another order, as lines of a resumed run may be.
  left, right = (figure := curves.swap_curves(_records()[::-1])).axes
  swaps = next(line for line in left.lines if len(line.get_xdata()) > 2)
  (mse,) = right.lines
  for line in (swaps, mse):
    np.testing.assert_array_equal(line.get_xdata(), [2, 4, 6, 8, 10, 12])
  np.testing.assert_allclose(swaps.get_ydata(), [90, 90, 80, 80, 70, 70])
  np.testing.assert_allclose(mse.get_ydata(), 1 / np.arange(20, 121, 20))
  # The code grows at the start of the second and of the third stage.
  bars = [line for line in left.lines if line is not swaps]
  assert [bar.get_xdata()[0] for bar in bars] == [4, 8]
  assert len(figure.legends[0].get_texts()) == 3


def test_swap_curves_leave_a_gap_where_no_pair_was_judged():
  records = _records(stages=1)
  records[1]['eval_class_swaps'] = None
  left, _ = curves.swap_curves(records).axes
  np.testing.assert_array_equal(
    np.isnan(left.lines[0].get_ydata()), [True, False]
  )


def test_curves_of_a_training_that_diverged():
  records = _records()
  records[-1]['eval_mse'] = float('nan')
  _, right = curves.swap_curves(records).axes
  assert np.isfinite(right.get_ylim()).all()
  curves.error_curves(records)


def test_error_curves_have_a_line_per_phase():
  (axes,) = curves.error_curves(_phases()[::-1]).axes
  lines = [line for line in axes.lines if line.get_label()[0] != '_']
  assert [line.get_label() for line in lines] == [
      'teacher, first', 'teacher, cycle', 'student d32'
  ]  # fmt: skip
  for line, epochs in zip(lines, ([1, 2], [3, 4], [5, 6])):
    np.testing.assert_array_equal(line.get_xdata(), epochs)
    np.testing.assert_allclose(line.get_ydata(), 0.1 / np.array(epochs))
  bars = [line.get_xdata()[0] for line in axes.lines if line not in lines]
  assert bars == [2, 4]


def test_adversarial_curves_are_over_epochs():
  above, middle, below = curves.adversarial_curves(ADVERSARIAL[::-1], 0.7).axes
  for axes, expected in (
    (above, [70, 60, 50]),
    (middle, [1e-4, 2e-4, 3e-4]),
    (below, [0.1, 0.05, 0.1 / 3]),
  ):
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)
  np.testing.assert_allclose(above.lines[1].get_ydata(), 70)


def test_tradeoff_has_percents_over_errors():
  rows = [*ROWS, _row('x', 8, None, 1)]
  (axes,) = curves.tradeoff(rows).axes
  found = {line.get_label(): line.get_xydata() for line in axes.lines}
  assert len(found) == 5
  np.testing.assert_allclose(
    found['Fader Networks'], [[3.08e-3, 43.1], [1.83e-3, 44.2]]
  )
  assert axes.get_xscale() == 'log'
  texts = sorted(text.get_text() for text in axes.texts)
  assert texts == sorted(f'd = {row["nuisance_dim"]}' for row in ROWS)


def test_tradeoff_distinguishes_runs_by_their_filling():
  rows = [{**row, 'source': source} for source in 'ab' for row in ROWS[:2]]
  (axes,) = curves.tradeoff(rows).axes
  found = {line.get_label(): line.get_fillstyle() for line in axes.lines}
  assert found == {
      'teacher (a)': 'full', 'student (a)': 'full', 'teacher (b)': 'none',
      'student (b)': 'none',
  }  # fmt: skip


def test_attribute_flips_has_originals_first():
  originals, ours, flipped = _faces(2), _faces(2)[::-1], _faces(2, 3)
  left, right = faces.attribute_flips(originals, ours, flipped, NAMES).axes
  pair = _tiles(left, 2, 2)
  np.testing.assert_array_equal(pair[:, 0], np.clip(originals, 0, 1))
  np.testing.assert_array_equal(pair[:, 1], np.clip(ours, 0, 1))
  np.testing.assert_array_equal(_tiles(right, 2, 3), np.clip(flipped, 0, 1))
  assert _texts(right.get_xticklabels()) == [
      "5 o'clock shadow", 'mouth slightly open', 'bald'
  ]  # fmt: skip


def test_sweeps_name_rows_and_values():
  images = _faces(2, 3)
  (axes,) = faces.sweeps(images, np.array([-5, 0, 5]), NAMES[1:]).axes
  np.testing.assert_array_equal(_tiles(axes, 2, 3), np.clip(images, 0, 1))
  assert _texts(axes.get_xticklabels()) == [f'{MINUS}5', '0', '5']
  assert _texts(axes.get_yticklabels()) == ['mouth slightly open', 'bald']


def test_compared_sweeps_are_below_each_other():
  images = _faces(3, 2, 5)
  figure = faces.compared_sweeps(
    images, np.linspace(-1, 1, 5), NAMES, ['a', 'b'], xlabel='x'
  )
  for axes, expected in zip(figure.axes, images, strict=True):
    np.testing.assert_array_equal(_tiles(axes, 2, 5), np.clip(expected, 0, 1))
  assert _texts(figure.axes[0].get_yticklabels()) == ['a', 'b']


def test_cosines_are_written_unless_undefined():
  axes = EXAMPLES['column_cosines']().axes[0]
  assert _texts(axes.texts) == ['1.00', f'{MINUS}0.50', f'{MINUS}0.50', '1.00']
  image = axes.images[0]
  assert image.get_array().mask.sum() == 5
  assert image.get_clim() == (-1, 1)
  # White in the middle, blue below and red above.
  blue, white, red = image.cmap([0.0, 0.5, 1.0])[:, :3]
  assert blue[2] > blue[0] and red[0] > red[2] and min(white) > 0.9


def test_forty_names_of_factors_do_not_overlap():
  names = [f'a long attribute {i}' for i in range(40)]
  figure = jacobians.column_cosines(np.eye(40), np.ones((40, 40)), names)
  figure.canvas.draw()
  labels = figure.axes[0].get_yticklabels()
  assert _texts(labels) == names
  boxes = [label.get_window_extent() for label in labels]
  assert all(b.y1 <= a.y0 + 0.5 for a, b in zip(boxes, boxes[1:]))
  assert not figure.axes[0].texts


def test_rows_and_names_may_hold_anything():
  rows = [
      _row('$\\frac', 8, 0.5, 1e-3), _row('x', 8, 0.5, None),
      _row('x', 8, float('nan'), 1e-3), _row('x', 8, 0.5, float('inf')),
  ]  # fmt: skip
  assert not curves.has_tradeoff(rows[1:])
  assert curves.has_tradeoff([_row('x', 8, 0.0, 1e-3)])
  figure = curves.tradeoff(rows)
  figure.draw_without_rendering()
  assert len(figure.axes[0].lines) == 1


def test_wrong_input_raises():
  images = _images(3, 4, 5, 6, 1)
  with pytest.raises(AssertionError):
    digits.factor_grid(images, np.arange(3), np.arange(4))
  with pytest.raises(ValueError, match='1 labels for 2 rows'):
    digits.traversals(_images(2, 3, 4, 5, 6, 1), ['d = 1'])
  with pytest.raises(AssertionError):
    panels.reconstructions({'a': images[0], 'b': images[0, :2]})
  with pytest.raises(AssertionError):
    panels.swaps(images[0], images[:2, 0], images)
  with pytest.raises(ValueError, match='2 labels for 3 columns'):
    faces.attribute_flips(_faces(2), _faces(2), _faces(2, 3), NAMES[:2])
  with pytest.raises(AssertionError):
    faces.attribute_flips(_faces(3), _faces(3), _faces(2, 3), NAMES)
  with pytest.raises(AssertionError):
    faces.sweeps(_faces(2, 3), np.arange(2), NAMES[:2])
  for draw in (curves.swap_curves, curves.error_curves):
    with pytest.raises(ValueError, match='eval_mse'):
      draw([{'stage': 's', 'epoch': 1, 'step': 1}])
  with pytest.raises(ValueError, match='discriminator_accuracy'):
    curves.adversarial_curves([{'stage': 's', 'epoch': 1}], 0.5)
  with pytest.raises(ValueError, match='attribute_flips'):
    curves.tradeoff([{'model': 'teacher', 'class_swaps': 1.0}])
  with pytest.raises(ValueError, match='nothing to draw'):
    faces.front([])
  with pytest.raises(AssertionError):
    jacobians.column_cosines(COSINES, COUNT, ('y1', 'y2'))


def test_device_arrays_are_drawn_too():
  images = jax.numpy.ones((2, 2, 4, 4, 1))
  values = jax.numpy.arange(2.0)
  figure = digits.factor_grid(images, values, values)
  assert np.all(figure.axes[0].images[0].get_array() == 1)


# Invariants of all figures.


@pytest.mark.parametrize('name', EXAMPLES)
def test_no_text_leaves_the_canvas_or_meets_another(name):
  figure = EXAMPLES[name]()
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  hidden = []
  for axes in figure.axes:
    for axis in (axes.xaxis, axes.yaxis):
      low, high = sorted(axis.get_view_interval())
      for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels()):
        if not axis.get_visible() or not low <= place <= high:
          hidden.append(label)
  texts = [
    text
    for text in figure.findobj(mpl_text.Text)
    if text.get_text() and text.get_visible() and text not in hidden
  ]
  assert texts
  boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
  for i, (text, box) in enumerate(zip(texts, boxes)):
    assert box.x0 >= 0 and box.y0 >= 0, text
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for j in range(i):
      assert not box.overlaps(boxes[j]), (texts[i], texts[j])


@pytest.mark.parametrize('name', EXAMPLES)
def test_save_writes_a_png_no_wider_than_its_place(tmp_path, name):
  path = tmp_path / 'new' / 'figure.png'
  panels.save(EXAMPLES[name](), path)
  assert os.listdir(path.parent) == ['figure.png']
  column = name == 'factor_grid'
  widest = panels.SINGLE_COLUMN if column else panels.DOUBLE_COLUMN
  with Image.open(path) as image:
    image.load()
    assert min(image.size) > 200
    # The tight box adds a margin; the front picture is for a screen.
    if name != 'front':
      assert image.size[0] / image.info['dpi'][0] < widest + 0.11


def test_save_is_whole_or_not(tmp_path, monkeypatch):
  path = tmp_path / 'figure.png'
  path.write_bytes(b'older')
  figure = EXAMPLES['swap_curves']()

  def fail(target, **unused_kwargs):
    with open(target, 'wb') as file:
      file.write(b'half')
    raise OSError('no space left')

  monkeypatch.setattr(figure, 'savefig', fail)
  with pytest.raises(OSError, match='no space left'):
    panels.save(figure, path)
  assert path.read_bytes() == b'older'
  assert os.listdir(tmp_path) == ['figure.png']


@pytest.mark.parametrize('ending', panels.FORMATS)
def test_equal_figures_are_equal_files(tmp_path, ending):
  for name in ('a', 'b'):
    panels.save(EXAMPLES['factor_grid'](), tmp_path / name, ending)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_text_of_a_pdf_has_embedded_fonts_that_publishers_take(tmp_path):
  panels.save(EXAMPLES['factor_grid'](), tmp_path / 'a.pdf', 'pdf')
  content = (tmp_path / 'a.pdf').read_bytes()
  assert content.startswith(b'%PDF')
  assert b'/Type3' not in content
  assert b'/FontFile2' in content  # TrueType, which is Type 42.


def test_text_of_an_svg_is_text_and_its_image_is_inside(tmp_path):
  figure = EXAMPLES['factor_grid'](3)
  panels.save(figure, tmp_path / 'before.png')
  panels.save(figure, tmp_path / 'a.svg', 'svg')
  root = ElementTree.parse(tmp_path / 'a.svg').getroot()
  texts = [x.text for x in root.iter('{http://www.w3.org/2000/svg}text')]
  assert 'a title' in texts
  [image] = root.iter('{http://www.w3.org/2000/svg}image')
  link = image.get('{http://www.w3.org/1999/xlink}href')
  kind, content = link.split(',')
  assert kind == 'data:image/png;base64'
  with Image.open(io.BytesIO(base64.b64decode(content))) as pixels:
    # As they were decoded: 3 x 4 tiles of 5 x 6.
    assert pixels.size == (24, 15)
  # The figure itself is unchanged.
  panels.save(figure, tmp_path / 'after.png')
  before, after = (tmp_path / f'{x}.png' for x in ('before', 'after'))
  assert before.read_bytes() == after.read_bytes()


def test_colors_of_a_png_can_be_reduced(tmp_path):
  panels.save(EXAMPLES['swap_curves'](), tmp_path / 'a.png', colors=16)
  with Image.open(tmp_path / 'a.png') as image:
    assert len(image.convert('RGB').getcolors()) <= 16


def test_the_users_backend_does_not_matter(tmp_path):
  code = """if True:
      import sys
      import numpy as np
      from jacsup_jax.figures import panels
      panels.save(panels.reconstructions({'a': np.ones((2, 4, 4, 1))}), 'a.png')
      assert 'matplotlib.pyplot' not in sys.modules
  """
  env = {**os.environ, 'MPLBACKEND': 'module://not_there', 'DISPLAY': ''}
  env['PYTHONPATH'] = os.getcwd()
  subprocess.run(
    [sys.executable, '-c', code], cwd=tmp_path, env=env, check=True
  )
  assert (tmp_path / 'a.png').exists()
