"""Tests of jacsup_jax.figures, but for sweeps."""

import jax
from matplotlib import text as mpl_text
from matplotlib.backends import backend_agg
import numpy as np
import pytest

from jacsup_jax.figures import curves
from jacsup_jax.figures import grids
from jacsup_jax.figures import panels

NAMES = ('5_o_Clock_Shadow', 'Mouth_Slightly_Open', 'Bald')


def _images(*shape):
  """Uniform in [-0.5, 1.5]: outside of [0, 1] as well."""
  return np.random.default_rng(0).uniform(-0.5, 1.5, shape)


def _faces(*shape):
  return _images(*shape, 4, 4, 3)


def _record(stage, epoch, step, **entries):
  return {'stage': stage, 'epoch': epoch, 'step': step, **entries}


# Two phases of a teacher and a student, each of two epochs.
PARTS = [('teacher', 'first', 1), ('teacher', 'first', 2),
         ('teacher', 'cycle', 3), ('teacher', 'cycle', 4),
         ('student_d32', None, 1), ('student_d32', None, 2)]  # fmt: skip
PHASES = [
  _record(stage, epoch, 10 * i, eval_mse=0.1 / i, phase=phase)
  for i, (stage, phase, epoch) in enumerate(PARTS, start=1)
]


def _row(model, dim, flips, mse):
  row = {'model': model, 'nuisance_dim': dim}
  return {**row, 'attribute_flips': flips, 'mse': mse}


# Table 2 of the paper.
ROWS = (
  _row('teacher', 2048, 0.731, 1.82e-3),
  _row('student', 8192, 0.722, 1.08e-3),
  _row('student_cycle', 8192, 0.427, 1.04e-3),
  _row('fader', 2048, 0.431, 3.08e-3),
  _row('fader', 8192, 0.442, 1.83e-3),
  _row('random', 2048, 0.202, 1.01e-1),
)
# Class swaps by perceptrons and by the lowest family.
SWAPPED = [
  {'model': model, 'nuisance_dim': dim, 'seed': seed, 'mse': mse,
   'class_swaps_mlp': swaps, 'class_swaps': swaps - low}
  for model, dim, seed, mse, swaps, low in [
    ('teacher', 0, 0, 0.04, 1.0, 0.0),
    ('student', 2, 0, 0.03, 0.8, 0.1),
    ('student', 1, 0, 0.035, 0.9, 0.001),
    ('student', 1, 1, 0.034, 0.85, 0.2),
  ]
] + [{'model': 'student', 'nuisance_dim': 14, 'mse': 0.014, 'source': 'paper',
      'class_swaps_mlp': 0.617}]  # fmt: skip
# A value of each stage.
ONCE = [
  {**_record(stage, 1, i, eval_mse=mse), 'eval_class_swaps_mlp': swaps}
  for i, (stage, mse, swaps) in enumerate(
    [('teacher', 0.04, 0.975), ('student_d01', 0.0307, None),
     ('student_d02', np.nan, 0.25)])
]  # fmt: skip
EDITED = [
  {**row, 'edit_curve_area': 0.5, 'edit_curve': [
    {'deviations': 1.0, 'flips': 0.5, 'kept': 0.75},
    {'deviations': 2.0, 'flips': 0.75, 'kept': 0.5 + 0.1 * i},
  ]}
  for i, row in enumerate(ROWS[:2])
] + [{**ROWS[2], 'edit_curve': None}]  # fmt: skip
SWAPS = _images(4, 5, 5, 6, 1)
SWAPS[0, 0] = 1
PAIR = _faces(4, 2)
EXAMPLES = {
    'factor_grid': lambda: grids.factor_grid(
        _images(3, 4, 5, 6, 1), np.linspace(-2, 2, 4), jax.numpy.arange(3),
        'a title'),
    'traversals': lambda: grids.traversals(
        _images(18, 3, 10, 5, 6, 1), [f'd = {d}' for d in range(1, 19)],
        xlabel='values', title='a title'),
    'reconstructions': lambda: grids.reconstructions(
        dict(zip(('original', 'two\nlines'), _images(2, 10, 5, 6, 1)))),
    'swaps': lambda: grids.swaps(
        SWAPS[0, 1:], SWAPS[1:, 0],
        {'a title': SWAPS[1:, 1:], 'b': SWAPS[1:, 1:]}),
    'attribute_flips': lambda: grids.attribute_flips(
        PAIR[:, 0], PAIR[:, 1], _faces(4, 3), NAMES, 'a title',
        (1.0, 2.5, None)),
    'sweeps': lambda: grids.sweeps(
        _faces(3, 9), np.linspace(-40, 40, 9), NAMES, 'a title'),
    'compared_sweeps': lambda: grids.compared_sweeps(
        _faces(3, 2, 9), np.linspace(-1, 1, 9), NAMES,
        ['student', 'Fader Networks'], xlabel='value'),
    'swap_curves': lambda: curves.swap_curves(PHASES, 'a title'),
    'error_curves': lambda: curves.error_curves(PHASES),
    'tradeoff': lambda: curves.tradeoff(ROWS),
    'tradeoff of digits': lambda: curves.tradeoff(SWAPPED, curves.SWAPS),
    'swap bars': lambda: curves.swap_curves(ONCE, 'a title'),
    'error bars': lambda: curves.error_curves(ONCE[:2]),
    'edit_curves': lambda: curves.edit_curves(EDITED),
}  # fmt: skip
# Tiles of each axes. Donors of swaps are above, recipients on the left.
TILES = {
  'factor_grid': [_images(3, 4, 5, 6, 1)[::-1]],
  'traversals': _images(18, 3, 10, 5, 6, 1).swapaxes(0, 1),
  'reconstructions': [_images(2, 10, 5, 6, 1)],
  'swaps': [SWAPS, SWAPS],
  'attribute_flips': [PAIR, _faces(4, 3)],
  'sweeps': [_faces(3, 9)],
  'compared_sweeps': _faces(3, 2, 9),
}


def _texts(labels):
  return [label.get_text() for label in labels]


@pytest.mark.parametrize('name', TILES)
def test_images_are_at_their_tiles_clipped(name):
  for axes, images in zip(EXAMPLES[name]().axes, TILES[name], strict=True):
    rows, cols, height, width, channels = images.shape
    [image] = axes.images
    shown = np.asarray(image.get_array())
    shown = shown.reshape(rows, height, cols, width, channels).swapaxes(1, 2)
    np.testing.assert_array_equal(shown, np.clip(images, 0, 1))
    assert image.get_clim() == (0, 1)
    # Labels stand at their tiles: extent is (left, right, bottom, top).
    assert image.get_extent() == [-0.5, cols - 0.5, rows - 0.5, -0.5]


def test_edit_curves_are_flips_over_kept():
  [axes] = EXAMPLES['edit_curves']().axes
  lines = axes.get_lines()
  assert len(lines) == 2
  np.testing.assert_allclose(lines[1].get_xydata(), [[75, 50], [60, 75]])
  assert lines[0].get_label() == 'teacher, d = 2048 (area 0.50)'


def test_factors_rise_to_the_right_and_upwards():
  [axes] = EXAMPLES['factor_grid']().axes
  texts = dict(zip(axes.get_yticks(), _texts(axes.get_yticklabels())))
  assert [float(texts[y]) for y in (2, 1, 0)] == [0, 1, 2]
  assert axes.get_xticks().tolist() == [0, 1, 2, 3]
  assert _texts(axes.get_xticklabels()) == ['−2.0', '−0.7', '0.7', '2.0']


def test_swap_curves_count_epochs_over_stages():
  records = [{**record, 'eval_class_swaps_mlp': 0.9} for record in PHASES]
  records[1]['eval_class_swaps_mlp'] = None  # No pair was judged.
  # A record of an earlier version.
  records[0]['eval_class_swaps'] = records[0].pop('eval_class_swaps_mlp')
  records[-1]['eval_mse'] = np.nan  # Diverged.
  # Not evaluated; in another order, as lines of a resumed run may be.
  records.insert(0, _record('student_d32', 3, 70))
  left, right = curves.swap_curves(records[::-1]).axes
  percent, *bars = left.lines
  [mse] = right.lines
  np.testing.assert_array_equal(percent.get_xdata(), np.arange(1, 7))
  np.testing.assert_allclose(percent.get_ydata(), [90, np.nan, *[90] * 4])
  np.testing.assert_allclose(mse.get_ydata()[:5], 0.1 / np.arange(1, 6))
  assert np.isfinite(right.get_ylim()).all()
  assert [bar.get_xdata()[0] for bar in bars] == [2, 4]
  curves.error_curves(records)


def test_error_curves_have_a_line_per_phase():
  [axes] = curves.error_curves(PHASES[::-1]).axes
  lines = {line.get_label(): line for line in axes.lines}
  names = ('teacher, first', 'teacher, cycle', 'student d32')
  for name, epochs in zip(names, ([1, 2], [3, 4], [5, 6])):
    line = lines.pop(name)
    np.testing.assert_array_equal(line.get_xdata(), epochs)
    np.testing.assert_allclose(line.get_ydata(), 0.1 / np.array(epochs))
  assert [bar.get_xdata()[0] for bar in lines.values()] == [2, 4]


def test_few_values_are_bars_with_labels():
  swaps, errors = EXAMPLES['swap bars']().axes
  names = ['teacher', 'student\nd01', 'student\nd02']
  for axes, heights, texts in (
    (swaps, [97.5, 0, 25], ['97.5%', '-', '25.0%']),
    (errors, [0.04, 0.0307, 0], ['4e−2', '3.07e−2', '-']),
  ):
    assert [bar.get_height() for bar in axes.patches] == heights
    assert _texts(axes.texts) == texts
    assert _texts(axes.get_xticklabels()) == names
  # A second value of any stage makes a curve, and so do many stages.
  more = [*ONCE, _record('student_d02', 2, 3, eval_mse=0.02)]
  many = [_record(f's_d{i}', 1, i, eval_mse=0.1) for i in range(9)]
  for records in (more, many):
    assert not curves.error_curves(records).axes[0].patches
    assert not curves.swap_curves(records).axes[0].patches


def test_few_points_of_a_curve_have_their_values():
  [axes] = curves.error_curves(PHASES).axes
  assert _texts(axes.texts)[:3] == ['1e−1', '5e−2', '3.33e−2']
  [axes] = curves.error_curves([*PHASES, *ONCE[:2], *PHASES]).axes
  assert not axes.texts


@pytest.mark.parametrize('low', [1e-4, 1.1e-3, 0.0153, 0.0612, 0.9])
@pytest.mark.parametrize('ratio', [1, 1.05, 1.3, 2.5, 9, 500])
def test_axes_of_errors_have_ticks_that_read_differently(low, ratio):
  rows = [_row('student', 8, 0.5, low), _row('student', 9, 0.5, low * ratio)]
  records = [
    _record('teacher', i, i, eval_mse=error)
    for i, error in ((1, low), (2, low * ratio))
  ]
  axes, other = curves.tradeoff(rows).axes[0], curves.error_curves(records)
  for axis, limits in (
    (axes.xaxis, axes.get_xlim()),
    (other.axes[0].yaxis, other.axes[0].get_ylim()),
  ):
    ticks, texts = axis.get_ticklocs(), _texts(axis.get_ticklabels())
    assert 2 < len(ticks) == len({*texts}) < 9
    assert limits[0] <= min(ticks) and max(ticks) <= limits[1]
    values = [float(text.replace('−', '-')) for text in texts]
    np.testing.assert_allclose(values, ticks, rtol=1e-6)


def test_tradeoff_of_digits_joins_sizes_of_a_seed():
  [axes] = EXAMPLES['tradeoff of digits']().axes
  lines = [line.get_xydata() for line in axes.lines]
  np.testing.assert_allclose(
      np.concatenate(lines),
      [[0.04, 100], [0.035, 90], [0.03, 80], [0.034, 85], [0.014, 61.7]],
  )  # fmt: skip
  assert [len(line) for line in lines] == [1, 2, 1, 1]
  # From the lowest family of judges to perceptrons, if they differ.
  [low] = axes.collections
  np.testing.assert_allclose(
    low.get_segments(), [[[0.03, 70], [0.03, 80]], [[0.034, 65], [0.034, 85]]]
  )
  [legend] = axes.figure.legends
  assert _texts(legend.get_texts()) == [
      'teacher', 'with Jacobian supervision',
      'with Jacobian supervision (paper)',
      'down to the lowest family of judges',
  ]  # fmt: skip
  # A teacher has no d to name.
  assert sorted(_texts(axes.texts)) == ['d = 1', 'd = 1', 'd = 14', 'd = 2']
  assert curves.tradeoff(SWAPPED[:1], curves.SWAPS).axes


def test_flips_name_their_strengths():
  texts = _texts(EXAMPLES['attribute_flips']().axes[1].get_xticklabels())
  assert texts == ["5 o'clock shadow ±1", 'mouth slightly open ±2.5', 'bald']


def test_many_models_look_different_and_only_lines_are_labelled():
  names = [f'method_{i}' for i in range(2 * len(panels.COLORS))]
  rows = [
    {
      'model': name,
      'nuisance_dim': 14,
      'mse': 0.01 + 0.001 * i,
      curves.SWAPS: 1,
    }
    for i, name in enumerate(names)
  ]
  size = {'model': 'student', curves.SWAPS: 0.5}
  sizes = [
    {**size, 'seed': seed, 'nuisance_dim': d, 'mse': 0.1 / d}
    for seed in (0, 1)
    for d in range(1, 9)
  ]
  [axes] = curves.tradeoff([*rows, *sizes], curves.SWAPS).axes
  styles = {(line.get_color(), line.get_marker()) for line in axes.lines}
  assert len(styles) == len(names) + 1
  # Lines of several seeds end at nearly the same place.
  assert [text.get_text() for text in axes.texts] == ['d = 8']


def test_tradeoff_joins_the_strengths_of_a_sweep():
  def make(strength, units, swaps):
    model = f'beta_vae_x{strength}'
    size = {'nuisance_dim': 14, 'mse': 0.01 + strength / 100, 'units': units}
    return {'model': model, **size, curves.SWAPS: swaps}

  rows = [
    make(strength, units, swaps)
    for strength in (4, 0, 1)
    for units, swaps in (('largest_divergence', 0.1), ('validation', 0.2))
  ]
  [axes] = curves.tradeoff(rows, curves.SWAPS).axes
  assert {line.get_label() for line in axes.lines} == {'beta-VAE'}
  for line, swaps in zip(axes.lines, (10, 20), strict=True):
    expected = [(0.01, swaps), (0.02, swaps), (0.05, swaps)]
    np.testing.assert_allclose(line.get_xydata(), expected)
  labels = sorted(text.get_text() for text in axes.texts)
  assert labels == ['x0', 'x0', 'x1', 'x1', 'x4', 'x4']


def test_tradeoff_has_percents_over_errors():
  # Rows that were not measured, or have no place in the figure, are left out.
  entries = (None, 1), (0.5, None), (np.nan, 1e-3), (0.5, np.inf)
  unusable = [{'model': 'x'}, *(_row('x', 8, *entry) for entry in entries)]
  assert not curves.has_tradeoff(unusable)
  [axes] = curves.tradeoff([*ROWS, *unusable]).axes
  found = {line.get_label(): line.get_xydata() for line in axes.lines}
  assert len(found) == 5
  np.testing.assert_allclose(
    found['Fader Networks'], [[3.08e-3, 43.1], [1.83e-3, 44.2]]
  )
  texts = sorted(_texts(axes.texts))
  assert texts == sorted(f'd = {row["nuisance_dim"]}' for row in ROWS)
  # A name of a run is never taken for a formula.
  curves.tradeoff([{**ROWS[0], 'source': '$\\frac'}]).draw_without_rendering()


@pytest.mark.parametrize('name', EXAMPLES)
def test_no_text_leaves_the_canvas_or_meets_another(name):
  figure = EXAMPLES[name]()
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  hidden = []
  axes = [axes for own in figure.axes for axes in (own.xaxis, own.yaxis)]
  for axis in axes:
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
  for i, box in enumerate(boxes):
    assert box.x0 >= 0 and box.y0 >= 0, texts[i]
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, texts[i]
    assert not any(map(box.overlaps, boxes[:i])), texts[i]
  # The page is as wide.
  assert figure.get_figwidth() < panels.DOUBLE_COLUMN + 0.01


@pytest.mark.parametrize('ending', panels.FORMATS)
def test_equal_figures_are_equal_files(ending):
  first, again = EXAMPLES['factor_grid'](), EXAMPLES['factor_grid']()
  content = panels.encode(first, ending)
  assert content == panels.encode(again, ending)
  # Publishers take embedded TrueType fonts alone.
  assert b'/Type3' not in content
  assert ending != 'pdf' or b'/FontFile2' in content
