"""Figures of faces: arrays in, a matplotlib figure out; `panels.save` writes.

Images are RGB in [0, 1], `[..., S, S, 3]`; what lies outside is clipped to it.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
import textwrap
from typing import Any, NamedTuple

import chex
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from jacsup_jax.figures import panels

# Of Okabe and Ito, told apart with any colour vision; markers differ as well.
_COLORS = (
    '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000'
)  # pyformat: disable
_MARKERS = 'os^DvPX'
_FILLINGS = ('full', 'none', 'left', 'top', 'right', 'bottom')
_GREY = '0.8'
_TITLES = {
    'teacher': 'teacher',
    'student': 'student',
    'student_no_jacobian': 'without Jacobian supervision',
    'student_cycle': 'student, cycle losses only',
    'student_from_scratch': 'student from scratch',
    'fader': 'Fader Networks',
    'random': 'random weights',
}


def attribute_flips(
    originals: np.ndarray,
    reconstructions: np.ndarray,
    flipped: np.ndarray,
    attribute_names: Sequence[str],
    title: str | None = None,
) -> mpl_figure.Figure:
  """Draws subjects with one attribute flipped at a time, Figure 5.

  Args:
    originals: `[rows, S, S, 3]`, a row per subject.
    reconstructions: `[rows, S, S, 3]`.
    flipped: `[rows, cols, S, S, 3]`, a column per attribute.
    attribute_names: one per column, as in the data.
    title: above the figure.

  Returns:
    A figure of two axes: the first two columns, and the flips.
  """
  chex.assert_rank([originals, reconstructions, flipped], [4, 4, 5])
  chex.assert_equal_shape([originals, reconstructions, flipped[:, 0]])
  rows, cols = flipped.shape[:2]
  _check_labels(attribute_names, cols, 'columns of images')
  pair = np.stack([originals, reconstructions], axis=1)
  # As wide as a page has room for, but no tile wider than a thumb.
  tile = min(0.8, (panels.DOUBLE_COLUMN - 0.2) / (cols + 2.2))
  labels = ['original', 'reconstruction']
  names = [readable(name) for name in attribute_names]
  # Labels stand upright, some 0.09 inches a letter.
  room = 0.09 * max(map(len, [*names, *labels])) + (0.3 if title else 0)
  figure = panels.new_figure((cols + 2.2) * tile, rows * tile + room - 0.4)
  left, right = figure.subplots(
      1, 2, width_ratios=(2, cols), gridspec_kw={'wspace': 0.02}
  )
  for axes, images, texts in (
      (left, pair, labels),
      (right, np.asarray(flipped), names),
  ):
    panels.show_tiles(axes, images)
    axes.set_xticks(
        range(images.shape[1]), texts, rotation=90, fontsize='small'
    )
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.tick_params(length=0)
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure


def sweeps(
    images: np.ndarray,
    values: np.ndarray,
    row_labels: Sequence[str] | None = None,
    *,
    xlabel: str | None = None,
    title: str | None = None,
) -> mpl_figure.Figure:
  """Draws images with a factor running over values, Figure 8.

  Args:
    images: `[rows, cols, S, S, 3]`, a row per subject or attribute.
    values: `[cols]`, of the factor, as -alpha to alpha.
    row_labels: one per row, names of attributes as in the data.
    xlabel: what varies along a row; the factor y_i by default.
    title: above the figure.

  Returns:
    A figure of one axes.
  """
  chex.assert_rank(images, 5)
  rows, cols = images.shape[:2]
  chex.assert_shape(values, (cols,))
  if row_labels is not None:
    _check_labels(row_labels, rows, 'rows of images')
  margin = 1.5 if row_labels is not None else 0.2
  tile = min(0.9, (panels.DOUBLE_COLUMN - margin) / cols)
  figure = panels.new_figure(cols * tile + margin, rows * tile + 0.1)
  axes = figure.add_subplot()
  panels.show_tiles(axes, np.asarray(images))
  texts = [f'{value:zg}'.replace('-', '\N{MINUS SIGN}') for value in
           np.round(np.asarray(values, float), 2)]  # pyformat: disable
  # Every second one where there is no room for all.
  every = 1 if max(map(len, texts)) * 0.09 < tile else 2
  columns = range(0, cols, every)
  axes.set_xticks(columns, [texts[i] for i in columns], fontsize='small')
  axes.set_xlabel(xlabel or 'value of the factor $y_i$', fontsize='small')
  axes.set_yticks(
      range(rows) if row_labels is not None else [],
      [readable(label) for label in row_labels or ()],
      fontsize='small',
  )
  axes.tick_params(length=0)
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def compared_sweeps(
    images: np.ndarray,
    values: np.ndarray,
    attribute_names: Sequence[str],
    model_names: Sequence[str],
    *,
    xlabel: str,
) -> mpl_figure.Figure:
  """Draws sweeps of several models below each other, Figure 8.

  Args:
    images: `[rows, models, cols, S, S, 3]`, a group of rows per attribute.
    values: `[cols]`, of the factor.
    attribute_names: one per group, as in the data.
    model_names: one per row of a group.
    xlabel: what varies along a row.

  Returns:
    A figure of one axes per attribute.
  """
  chex.assert_rank(images, 6)
  rows, models, cols = images.shape[:3]
  chex.assert_shape(values, (cols,))
  _check_labels(attribute_names, rows, 'groups of images')
  _check_labels(model_names, models, 'rows of a group')
  tile = min(0.6, (panels.DOUBLE_COLUMN - 3.2) / cols)
  figure = panels.new_figure(
      cols * tile + 3.2, rows * (models * tile + 0.08) + 0.1
  )
  figure.get_layout_engine().set(hspace=0.01)
  all_axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
  for axes, name, group in zip(all_axes, attribute_names, images):
    panels.show_tiles(axes, np.asarray(group))
    axes.set_xticks([])
    axes.set_yticks(range(models), model_names, fontsize='x-small')
    axes.set_ylabel(
        textwrap.fill(readable(name), 10),
        rotation=0,
        ha='right',
        va='center',
        fontsize='small',
    )
    axes.tick_params(length=0)
  ticks, texts = panels.value_ticks(np.asarray(values))
  all_axes[-1].set_xticks(ticks, texts, fontsize='small')
  all_axes[-1].set_xlabel(xlabel, fontsize='small')
  return figure


def has_tradeoff(rows: Sequence[Mapping[str, Any]]) -> bool:
  """Says whether any row has what `tradeoff` draws."""
  return bool(_find_drawn(rows))


def tradeoff(
    rows: Sequence[Mapping[str, Any]], title: str | None = None
) -> mpl_figure.Figure:
  """Draws flips against error, Figure 4: towards the top left is better.

  Args:
    rows: of results.json, with `model`, `nuisance_dim`, `mse` and
      `attribute_flips`; those without are not drawn. With a `source`, such as
      'paper' or a run, they are named so, and told apart by their filling.
    title: above the figure.

  Returns:
    A figure of one axes, its error logarithmic.

  Raises:
    ValueError: if no row has flips and an error above 0.
  """
  drawn = _find_drawn(rows)
  if not drawn:
    raise ValueError('no row has attribute_flips and mse: nothing to draw.')
  models = list(dict.fromkeys(row['model'] for row in drawn))
  figure = panels.new_figure(5.5, 3.9)
  axes = figure.add_subplot()
  series = list(
      dict.fromkeys((row.get('source'), row['model']) for row in drawn)
  )
  # Those without a source are full; else the first are.
  sources = list(dict.fromkeys(row.get('source') for row in drawn))
  sources.sort(key=lambda source: source is not None)
  for source, model in series:
    own = [
        row
        for row in drawn
        if (row.get('source'), row['model']) == (source, model)
    ]
    i = models.index(model)
    title_of = name_model(model)
    axes.plot(
        [row['mse'] for row in own],
        [100 * row['attribute_flips'] for row in own],
        marker=_MARKERS[i % len(_MARKERS)],
        markersize=7,
        linestyle='',
        color=_COLORS[i % len(_COLORS)],
        fillstyle=_FILLINGS[sources.index(source) % len(_FILLINGS)],
        label=(
            f'{title_of} ({panels.plain(source)})' if source else title_of
        ),
    )
  errors = np.array([row['mse'] for row in drawn])
  axes.set_xscale('log')
  axes.set_xlim(errors.min() / 1.4, errors.max() * 1.4)
  # A range within a decade may have no power of ten to label.
  narrow = errors.max() < 20 * errors.min()
  axes.xaxis.set_major_locator(
      ticker.LogLocator(subs=(1, 2, 5) if narrow else (1,))
  )
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(_format_error))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.set_ylim(0, 102)
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))
  axes.set_xlabel('reconstruction MSE, images in [\N{MINUS SIGN}1, 1]')
  axes.set_ylabel('attribute flips')
  axes.grid(color=_GREY, linewidth=0.6)
  axes.set_axisbelow(True)
  figure.legend(
      loc='outside upper center',
      # Names of runs may be long.
      ncols=min(len(series), 2 if any(sources) else 3),
      frameon=False,
      fontsize='small',
      title=title,
  )
  _label_points(axes, drawn)
  return figure


def training_curves(
    records: Sequence[Mapping[str, Any]], title: str | None = None
) -> mpl_figure.Figure:
  """Draws the error over the training of a teacher and its students.

  A grey bar marks where another phase, or another size of the code, begins.

  Args:
    records: lines of metrics.jsonl of one chain, with `stage`, `epoch` (within
      the stage) and `step` (over all), where a stage has phases also `phase`;
      those without `eval_mse` are not drawn.
    title: above the curve.

  Returns:
    A figure of one axes, over epochs since the first teacher's start.

  Raises:
    ValueError: if no record was evaluated.
  """
  parts = _collect_parts(records)
  if not any(part.epochs for part in parts):
    raise ValueError('no record has eval_mse: nothing to draw.')
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 2.8)
  axes = figure.add_subplot()
  for i, part in enumerate(parts):
    axes.plot(
        part.epochs,
        part.mse,
        color=_COLORS[i % len(_COLORS)],
        marker='o' if len(part.epochs) <= 20 else '',
        markersize=3,
        linewidth=1.5,
        label=part.name,
    )
    if i:
      axes.axvline(part.start, color=_GREY, linewidth=1.2, zorder=0)
  axes.set_xlim(0, 1.01 * parts[-1].end)
  axes.xaxis.set_major_locator(
      ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10])
  )
  axes.set_xlabel('epochs', fontsize='small')
  axes.set_yscale('log')
  errors = [x for part in parts for x in part.mse if 0 < x < math.inf]
  if errors:
    # Not so narrow that labels of two digits are the same.
    axes.set_ylim(min(errors) / 1.3, max(errors) * 1.3)
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(_format_error))
  axes.yaxis.set_minor_locator(ticker.NullLocator())
  axes.set_ylabel('reconstruction MSE', fontsize='small')
  axes.tick_params(labelsize='small')
  figure.legend(
      loc='outside upper center',
      ncols=min(len(parts), 3),
      frameon=False,
      fontsize='small',
      title=title,
      title_fontsize='small',
  )
  return figure


def adversarial_curves(
    records: Sequence[Mapping[str, Any]],
    commoner: float,
    title: str | None = None,
) -> mpl_figure.Figure:
  """Draws what a latent discriminator tells over training, and the error.

  Args:
    records: lines of metrics.jsonl of one stage, with `epoch`,
      `discriminator_accuracy`, `reconstruction` and `adversarial_weight`.
    commoner: share of right signs in [0, 1] by always saying the commoner one.
    title: above the figure.

  Returns:
    A figure of three axes below each other: accuracy on the batches of an
    epoch, weight of the adversarial term, error on the same batches.

  Raises:
    ValueError: if no record has a discriminator.
  """
  drawn = sorted(
      (r for r in records if 'discriminator_accuracy' in r),
      key=lambda record: record['epoch'],
  )
  if not drawn:
    raise ValueError('no record has discriminator_accuracy: nothing to draw.')
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 5.4)
  # Labels of two lines are wider than the layout takes them for.
  figure.get_layout_engine().set(w_pad=0.12)
  above, middle, below = figure.subplots(3, 1, sharex=True)
  epochs = [record['epoch'] for record in drawn]

  def plot(axes, name, label, color, scale=1):
    axes.plot(
        epochs,
        [scale * record[name] for record in drawn],
        color=color,
        marker='o' if len(epochs) <= 20 else '',
        markersize=3,
        linewidth=1.5,
    )
    axes.set_ylabel(label, fontsize='small')
    axes.tick_params(labelsize='small')

  plot(
      above, 'discriminator_accuracy', 'attributes told\nfrom the code',
      _COLORS[0], 100,
  )  # pyformat: disable
  above.axhline(100 * commoner, color='0.4', linewidth=1.2, linestyle='--')
  above.annotate(
      'always the commoner sign',
      (1, 100 * commoner),
      xycoords=('axes fraction', 'data'),
      xytext=(-3, 3),
      textcoords='offset points',
      ha='right',
      fontsize='x-small',
  )
  # Often of a range of a few per cent.
  above.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=1))
  above.yaxis.set_major_locator(ticker.MaxNLocator(5))
  plot(middle, 'adversarial_weight', 'adversarial\nweight', _COLORS[1])
  middle.yaxis.set_major_formatter(ticker.FuncFormatter(_format_error))
  middle.set_ylim(bottom=0)
  plot(below, 'reconstruction', 'reconstruction\nMSE', _COLORS[2])
  below.set_ylim(bottom=0)
  below.set_xlim(0, 1.01 * epochs[-1])
  below.xaxis.set_major_locator(
      ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10])
  )
  below.set_xlabel('epochs', fontsize='small')
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure


def name_model(model: str) -> str:
  """Returns a model's name for readers: 'fader' as 'Fader Networks'."""
  return _TITLES.get(model, panels.plain(model.replace('_', ' ')))


def readable(name: str) -> str:
  """Returns an attribute's name for readers: 'Big_Nose' as 'big nose'."""
  text = name.replace('_', ' ').replace("5 o Clock", "5 o'clock").lower()
  return panels.plain(text)


def _find_drawn(rows):
  """Returns the rows with flips and an error that a logarithm can show."""
  return [
      row
      for row in rows
      if row.get('attribute_flips') is not None
      and math.isfinite(row['attribute_flips'])
      and 0 < (row.get('mse') or 0) < math.inf
  ]


class _Part(NamedTuple):
  name: str
  start: int  # epoch, since the first teacher's start
  end: int
  epochs: list[int]  # where evaluated
  mse: list[float]


def _collect_parts(records):
  """Reads the curve of every stage and phase out of lines of metrics.jsonl."""
  parts = []
  offset = last = 0
  in_order = sorted(records, key=lambda record: record['step'])
  for stage, lines in itertools.groupby(in_order, lambda r: r['stage']):
    for phase, lines_of_phase in itertools.groupby(
        lines, lambda record: record.get('phase')
    ):
      name = stage.replace('_', ' ')
      part = _Part(
          name if phase is None else f'{name}, {phase}', last, last, [], []
      )
      for record in lines_of_phase:
        last = offset + record['epoch']
        if record.get('eval_mse') is not None:
          part.epochs.append(last)
          part.mse.append(record['eval_mse'])
      parts.append(part._replace(end=last))
    offset = last
  return parts


def _label_points(axes, rows):
  """Writes d beside every point, where no other point or label is."""
  axes.figure.draw_without_rendering()
  points = axes.transData.transform(
      [(row['mse'], 100 * row['attribute_flips']) for row in rows]
  )
  # Pixels to the right of and above a point, in order of preference.
  scale = axes.figure.dpi / 100
  width, height, gap = 58 * scale, 12 * scale, 9 * scale
  places = [
      (gap, -height / 2), (-gap - width, -height / 2), (gap, gap / 2),
      (gap, -height - gap / 2), (-gap - width, gap / 2),
      (-gap - width, -height - gap / 2), (-width / 2, gap),
      (-width / 2, -height - gap),
  ]  # pyformat: disable
  bounds = axes.bbox
  taken = [(x - gap / 2, y - gap / 2, x + gap / 2, y + gap / 2)
           for x, y in points]  # pyformat: disable

  def cost(box):
    outside = (
        box[0] < bounds.x0
        or box[2] > bounds.x1
        or box[1] < bounds.y0
        or box[3] > bounds.y1
    )
    return 100 * outside + sum(_overlap(box, other) for other in taken)

  for (x, y), row in zip(points, rows):
    boxes = [(x + dx, y + dy, x + dx + width, y + dy + height)
             for dx, dy in places]  # pyformat: disable
    best = min(range(len(boxes)), key=lambda i: (cost(boxes[i]), i))
    taken.append(boxes[best])
    left, bottom, right, top = boxes[best]
    to_right, to_left = left > x, right < x
    axes.annotate(
        f'd = {row["nuisance_dim"]}',
        (row['mse'], 100 * row['attribute_flips']),
        xytext=(
            (left if to_right else right if to_left else (left + right) / 2)
            / axes.figure.dpi * 72 - x / axes.figure.dpi * 72,
            ((bottom + top) / 2 - y) / axes.figure.dpi * 72,
        ),
        textcoords='offset points',
        ha='left' if to_right else 'right' if to_left else 'center',
        va='center',
        fontsize='x-small',
    )  # pyformat: disable


def _overlap(box, other):
  """Says whether two boxes (x0, y0, x1, y1) meet."""
  return (
      box[0] < other[2]
      and other[0] < box[2]
      and box[1] < other[3]
      and other[1] < box[3]
  )


def _format_error(value, unused_position):
  """Shows 0.0005 as 5e-4, 0.052 as 5.2e-2, and 0 as 0."""
  if not value:
    return '0'
  mantissa, exponent = f'{value:.1e}'.split('e')
  text = f'{mantissa.removesuffix(".0")}e{int(exponent)}'
  return text.replace('-', '\N{MINUS SIGN}')


def _check_labels(labels, count, what):
  if len(labels) != count:
    raise ValueError(f'{len(labels)} labels for {count} {what}.')
