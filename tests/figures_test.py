"""Tests of jacsup_jax.figures."""

import base64
import io
import os
from xml.etree import ElementTree

import jax
from matplotlib import text as mpl_text
from matplotlib.backends import backend_agg
import numpy as np
from PIL import Image
import pytest

from jacsup_jax.figures import panels as figures


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


def _images(*shape):
  """Uniform in [-0.5, 1.5]: outside of [0, 1] as well."""
  return np.random.default_rng(0).uniform(-0.5, 1.5, shape)


def _example(name, channels=1):
  if name == 'factor_grid':
    images = _images(3, 4, 5, 6, channels)
    return figures.factor_grid(
        images, np.linspace(-2, 2, 4), np.linspace(-1, 1, 3), 'a title'
    )
  if name == 'traversals':
    images = _images(18, 3, 10, 5, 6, channels)
    labels = [f'd = {d}' for d in range(1, 19)]
    return figures.traversals(images, labels, xlabel='values', title='a title')
  if name == 'reconstructions':
    images = _images(10, 5, 6, channels)
    return figures.reconstructions(
        {'original': images, 'a long name\nin two lines': images}, 'a title'
    )
  return figures.training_curves(_records(), 'a title')


def _labels_not_drawn(figure):
  """Returns the labels of hidden axes, and of ticks beyond their axes."""
  hidden = []
  for axes in figure.axes:
    for axis in (axes.xaxis, axes.yaxis):
      low, high = sorted(axis.get_view_interval())
      for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels()):
        if not axis.get_visible() or not low <= place <= high:
          hidden.append(label)
  return hidden


NAMES = ('factor_grid', 'traversals', 'reconstructions', 'training_curves')


# Values: pixels and points land where they should.


@pytest.mark.parametrize('channels', [1, 3])
def test_factor_grid_rises_to_the_right_and_upwards(channels):
  images = _images(3, 4, 5, 6, channels)
  horizontal, vertical = np.array([0.0, 1, 2, 3]), np.array([10.0, 20, 30])
  figure = figures.factor_grid(images, horizontal, vertical)
  (axes,) = figure.axes
  (image,) = axes.images
  shown = np.asarray(image.get_array()).reshape(3 * 5, 4 * 6, channels)
  # The first value of the vertical factor is the lowest row; no image is
  # upside down.
  for i in range(3):
    for j in range(4):
      top = (2 - i) * 5
      np.testing.assert_array_equal(
          shown[top : top + 5, j * 6 : j * 6 + 6], np.clip(images[i, j], 0, 1)
      )
  assert image.get_clim() == (0, 1)
  # Labels stand at their tiles: extent is (left, right, bottom, top).
  assert image.get_extent() == [-0.5, 3.5, 2.5, -0.5]
  texts = dict(zip(axes.get_yticks(), axes.get_yticklabels()))
  assert [float(texts[y].get_text()) for y in (2, 1, 0)] == [10, 20, 30]
  texts = dict(zip(axes.get_xticks(), axes.get_xticklabels()))
  assert [float(texts[x].get_text()) for x in (0, 1, 2, 3)] == [0, 1, 2, 3]


def test_factor_grid_labels_are_short():
  values = np.array([-1.98, -0.99, -0.03, 0.99, 1.98])
  figure = figures.factor_grid(_images(5, 5, 4, 4, 1), values, values)
  texts = [text.get_text() for text in figure.axes[0].get_xticklabels()]
  minus = '\N{MINUS SIGN}'
  assert texts == [f'{minus}2.0', f'{minus}1.0', '0.0', '1.0', '2.0']


@pytest.mark.parametrize('channels', [1, 3])
def test_traversals_has_an_axes_per_block(channels):
  images = _images(2, 3, 4, 5, 6, channels)
  figure = figures.traversals(images, ['d = 1', 'd = 2'])
  assert len(figure.axes) == 3
  for block, axes in enumerate(figure.axes):
    (image,) = axes.images
    shown = np.asarray(image.get_array()).reshape(2, 5, 4, 6, channels)
    for row in range(2):
      for col in range(4):
        np.testing.assert_array_equal(
            shown[row, :, col], np.clip(images[row, block, col], 0, 1)
        )
  labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
  assert labels == ['d = 1', 'd = 2']


def test_reconstructions_has_a_row_per_name():
  original, ours = _images(4, 5, 6, 1), _images(4, 5, 6, 1)[::-1]
  figure = figures.reconstructions({'original': original, 'ours': ours})
  (axes,) = figure.axes
  shown = np.asarray(axes.images[0].get_array()).reshape(2, 5, 4, 6)
  np.testing.assert_array_equal(
      shown[0, :, 2], np.clip(original[2, ..., 0], 0, 1)
  )
  np.testing.assert_array_equal(shown[1, :, 3], np.clip(ours[3, ..., 0], 0, 1))
  labels = [text.get_text() for text in axes.get_yticklabels()]
  assert labels == ['original', 'ours']


def test_training_curves_counts_epochs_over_stages():
  # In the order of another chain's lines, as after a resumed run.
  figure = figures.training_curves(_records()[::-1])
  left, right = figure.axes
  swaps = next(line for line in left.lines if len(line.get_xdata()) > 2)
  bars = [line for line in left.lines if line is not swaps]
  (mse,) = right.lines
  for line in (swaps, mse):
    np.testing.assert_array_equal(line.get_xdata(), [2, 4, 6, 8, 10, 12])
  np.testing.assert_allclose(swaps.get_ydata(), [90, 90, 80, 80, 70, 70])
  np.testing.assert_allclose(mse.get_ydata(), 1 / np.arange(20, 121, 20))
  # The code grows at the start of the second and of the third stage.
  assert [bar.get_xdata()[0] for bar in bars] == [4, 8]
  assert len(figure.legends[0].get_texts()) == 3


def test_training_curves_leaves_a_gap_where_no_pair_was_judged():
  records = _records(stages=1)
  records[1]['eval_class_swaps'] = None
  left, _ = figures.training_curves(records).axes
  assert np.isnan(left.lines[0].get_ydata()[0])
  assert not np.isnan(left.lines[0].get_ydata()[1])


def test_wrong_input_raises():
  images = _images(3, 4, 5, 6, 1)
  with pytest.raises(AssertionError):
    figures.factor_grid(images, np.arange(3), np.arange(4))
  with pytest.raises(ValueError, match='1 labels for 2 rows'):
    figures.traversals(_images(2, 3, 4, 5, 6, 1), ['d = 1'])
  with pytest.raises(AssertionError):
    figures.reconstructions({'a': images[0], 'b': images[0, :2]})
  with pytest.raises(ValueError, match='eval_mse'):
    figures.training_curves([{'stage': 's', 'epoch': 1, 'step': 1}])


def test_device_arrays_are_drawn_too():
  images = jax.numpy.ones((2, 2, 4, 4, 1))
  values = jax.numpy.arange(2.0)
  figure = figures.factor_grid(images, values, values)
  assert np.all(figure.axes[0].images[0].get_array() == 1)


# Invariants of all figures.


@pytest.mark.parametrize('name', NAMES)
def test_no_text_leaves_the_canvas_or_meets_another(name):
  figure = _example(name)
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  renderer = canvas.get_renderer()
  texts = [
      text
      for text in figure.findobj(mpl_text.Text)
      if text.get_text()
      and text.get_visible()
      and text not in _labels_not_drawn(figure)
  ]
  assert texts
  boxes = [text.get_window_extent(renderer) for text in texts]
  for text, box in zip(texts, boxes):
    inside = (
        box.x0 >= 0
        and box.y0 >= 0
        and box.x1 <= figure.bbox.x1
        and box.y1 <= figure.bbox.y1
    )
    assert inside, f'{text.get_text()!r} at {box} leaves {figure.bbox}'
  for i, box in enumerate(boxes):
    for j in range(i):
      assert not box.overlaps(boxes[j]), (texts[i], texts[j])


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', NAMES)
def test_save_writes_a_png(tmp_path, name, channels):
  path = tmp_path / 'new' / 'figure.png'
  figures.save(_example(name, channels), path)
  with Image.open(path) as image:
    image.load()
    assert image.format == 'PNG'
    assert min(image.size) > 200
  assert [p.name for p in path.parent.iterdir()] == ['figure.png']


def test_equal_figures_are_equal_files(tmp_path):
  for name in ('a', 'b'):
    figures.save(_example('training_curves'), tmp_path / name)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_save_is_whole_or_not(tmp_path, monkeypatch):
  path = tmp_path / 'figure.png'
  path.write_bytes(b'older')
  figure = _example('training_curves')

  def fail(target, **kwargs):
    del kwargs
    with open(target, 'wb') as file:
      file.write(b'half')
    raise OSError('no space left')

  monkeypatch.setattr(figure, 'savefig', fail)
  with pytest.raises(OSError, match='no space left'):
    figures.save(figure, path)
  assert path.read_bytes() == b'older'
  assert os.listdir(tmp_path) == ['figure.png']


# Drawings.


def test_text_of_a_pdf_has_embedded_fonts_that_publishers_take(tmp_path):
  figures.save(_example('factor_grid'), tmp_path / 'a.pdf', 'pdf')
  content = (tmp_path / 'a.pdf').read_bytes()
  assert content.startswith(b'%PDF')
  assert b'/Type3' not in content
  assert b'/FontFile2' in content  # Of TrueType: Type 42.


def test_text_of_an_svg_is_text_and_its_image_is_inside(tmp_path):
  figures.save(_example('factor_grid', 3), tmp_path / 'a.svg', 'svg')
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


@pytest.mark.parametrize('ending', figures.FORMATS)
def test_equal_figures_are_equal_files_in_all_formats(tmp_path, ending):
  for name in ('a', 'b'):
    figures.save(_example('traversals'), tmp_path / name, ending)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_figure_is_the_same_after_it_was_a_drawing(tmp_path):
  figure = _example('reconstructions')
  figures.save(figure, tmp_path / 'before.png')
  figures.save(figure, tmp_path / 'a.svg', 'svg')
  figures.save(figure, tmp_path / 'after.png')
  before, after = (tmp_path / f'{x}.png' for x in ('before', 'after'))
  assert before.read_bytes() == after.read_bytes()


@pytest.mark.parametrize('name', NAMES)
def test_figures_are_as_wide_as_a_column_or_a_page_at_most(tmp_path, name):
  figures.save(_example(name), tmp_path / 'a.png')
  column = name == 'factor_grid'
  widest = figures.SINGLE_COLUMN if column else figures.DOUBLE_COLUMN
  with Image.open(tmp_path / 'a.png') as image:
    # And the margin of a tight box.
    assert image.size[0] / image.info['dpi'][0] < widest + 0.11


def test_curves_of_a_training_that_diverged():
  records = _records()
  records[-1]['eval_mse'] = float('nan')
  _, right = figures.training_curves(records).axes
  assert np.isfinite(right.get_ylim()).all()


def test_a_formula_in_a_name_is_text():
  figure = figures.new_figure(2, 1)
  figure.add_subplot().set_title(figures.plain('$\\frac'))
  figure.draw_without_rendering()
