"""Draw curves over training, and attribute flips against error.

Records are lines of metrics.jsonl of one chain, teacher first, with `stage`,
`epoch` (within the stage), `step` (over all) and maybe `phase`. Those without
`eval_mse` are not drawn. Rows are those of results.json.
"""

from collections.abc import Mapping, Sequence
import itertools
import math
from typing import Any, NamedTuple

from matplotlib import figure as mpl_figure
from matplotlib import ticker
from matplotlib import transforms
import numpy as np

from jacsup_jax.figures import faces
from jacsup_jax.figures import panels

Records = Sequence[Mapping[str, Any]]

_MARKERS = 'os^DvPX'
_FILLINGS = ('full', 'none', 'left', 'top', 'right', 'bottom')


def swap_curves(
  records: Records, title: str | None = None
) -> mpl_figure.Figure:
  """Draws class swaps and error over the training of a chain, Figure 1 (d).

  Over epochs since the first teacher's start. A grey bar marks each growth of
  the code; an `eval_class_swaps` of None leaves a gap.

  Raises:
    ValueError: if no record was evaluated.
  """
  parts = _collect_parts(records)
  epochs, mse, percent = (
    list(itertools.chain(*values))
    for values in zip(*((p.epochs, p.mse, p.percent) for p in parts))
  )
  blue, vermilion = panels.COLORS[:2]
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 3.0)
  left = figure.add_subplot()
  right = left.twinx()
  style = _line_style(epochs, most_marks=40)
  shown = {}
  [shown['class swaps']] = left.plot(epochs, percent, color=blue, **style)
  [shown['reconstruction MSE']] = right.plot(
    epochs, mse, color=vermilion, linestyle='--', **style
  )
  for part in parts[1:]:
    shown['code grown'] = _mark_start(left, part)
  _show_epochs(left, parts[-1].end)
  _show_percents(left)
  # The finite part of a training that diverged is drawn.
  right.set_ylim(0, 1.1 * max(filter(math.isfinite, mse), default=1))
  for axes, color, name in zip((left, right), (blue, vermilion), shown):
    axes.set_ylabel(name, color=color, fontsize='small')
    axes.tick_params(axis='y', colors=color, labelsize='small')
  _add_legend(figure, shown.values(), shown, len(shown), title)
  return figure


def error_curves(
  records: Records, title: str | None = None
) -> mpl_figure.Figure:
  """Draws the error over the training of a teacher and its students.

  Over epochs since the first teacher's start. A grey bar marks where another
  phase, or another size of the code, begins.

  Raises:
    ValueError: if no record was evaluated.
  """
  parts = _collect_parts(records)
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 2.8)
  axes = figure.add_subplot()
  for i, part in enumerate(parts):
    color = panels.COLORS[i % len(panels.COLORS)]
    style = _line_style(part.epochs)
    axes.plot(part.epochs, part.mse, color=color, label=part.name, **style)
    if i:
      _mark_start(axes, part)
  _show_epochs(axes, parts[-1].end)
  axes.set_yscale('log')
  errors = [x for part in parts for x in part.mse if 0 < x < math.inf]
  if errors:
    # A narrower range would give neighbouring ticks the same label.
    axes.set_ylim(min(errors) / 1.3, max(errors) * 1.3)
  _label_errors(axes.yaxis, (1, 2, 5))
  axes.set_ylabel('reconstruction MSE', fontsize='small')
  axes.tick_params(labelsize='small')
  handles, labels = axes.get_legend_handles_labels()
  _add_legend(figure, handles, labels, min(len(parts), 3), title)
  return figure


def adversarial_curves(
  records: Records, commoner: float, title: str | None = None
) -> mpl_figure.Figure:
  """Draws accuracy and weight of a latent discriminator, and the error.

  Args:
    records: of one stage, with `discriminator_accuracy`, `reconstruction` and
      `adversarial_weight`, means over an epoch's batches.
    commoner: accuracy in [0, 1] of always predicting the commoner sign.
    title: above the figure.

  Raises:
    ValueError: if no record has a discriminator.
  """
  drawn = [r for r in records if 'discriminator_accuracy' in r]
  drawn.sort(key=lambda record: record['epoch'])
  if not drawn:
    raise ValueError('no record has discriminator_accuracy: nothing to draw.')
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 5.4)
  # The layout underestimates labels of two lines.
  figure.get_layout_engine().set(w_pad=0.12)
  above, middle, below = all_axes = figure.subplots(3, 1, sharex=True)
  epochs = [record['epoch'] for record in drawn]
  series = (
    ('discriminator_accuracy', 'accuracy of the\ndiscriminator', 100),
    ('adversarial_weight', 'adversarial\nweight', 1),
    ('reconstruction', 'reconstruction\nMSE', 1),
  )
  for axes, color, (key, label, scale) in zip(all_axes, panels.COLORS, series):
    values = [scale * record[key] for record in drawn]
    axes.plot(epochs, values, color=color, **_line_style(epochs))
    axes.set_ylabel(label, fontsize='small')
    axes.tick_params(labelsize='small')
  above.axhline(100 * commoner, color='0.4', linewidth=1.2, linestyle='--')
  above.annotate(
      'always the commoner sign', (1, 100 * commoner), (-3, 3),
      xycoords=('axes fraction', 'data'), textcoords='offset points',
      ha='right', fontsize='x-small',
  )  # fmt: skip
  # The range is often a few per cent; the line's text needs room above it.
  above.margins(y=0.15)
  above.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=1))
  above.yaxis.set_major_locator(ticker.MaxNLocator(5))
  middle.yaxis.set_major_formatter(ticker.FuncFormatter(_format_error))
  middle.set_ylim(bottom=0)
  below.set_ylim(bottom=0)
  _show_epochs(below, epochs[-1])
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure


def has_tradeoff(rows: Records) -> bool:
  """Returns whether `tradeoff` can draw any of the rows."""
  return bool(_find_drawn(rows))


def tradeoff(rows: Records, title: str | None = None) -> mpl_figure.Figure:
  """Draws flips against error, Figure 4: towards the top left is better.

  Args:
    rows: with `model`, `nuisance_dim`, `mse` and `attribute_flips`; others are
      not drawn. A `source`, such as 'paper' or the name of a run, is added to
      the label, and each source has its own filling.
    title: above the figure.

  Raises:
    ValueError: if no row has flips and an error above 0.
  """
  drawn = _find_drawn(rows)
  if not drawn:
    raise ValueError('no row has attribute_flips and mse: nothing to draw.')
  figure = panels.new_figure(5.5, 3.9)
  axes = figure.add_subplot()
  series = {}
  for row in drawn:
    series.setdefault((row.get('source'), row['model']), []).append(row)
  models = list(dict.fromkeys(model for _, model in series))
  # Rows without a source come first and are filled.
  sources = sorted(dict.fromkeys(source for source, _ in series), key=bool)
  for (source, model), own in series.items():
    i = models.index(model)
    label = faces.name_model(model)
    axes.plot(
      [row['mse'] for row in own],
      [100 * row['attribute_flips'] for row in own],
      marker=_MARKERS[i % len(_MARKERS)],
      markersize=7,
      linestyle='',
      color=panels.COLORS[i % len(panels.COLORS)],
      fillstyle=_FILLINGS[sources.index(source) % len(_FILLINGS)],
      label=f'{label} ({panels.plain(source)})' if source else label,
    )
  errors = np.array([row['mse'] for row in drawn])
  axes.set_xscale('log')
  axes.set_xlim(errors.min() / 1.4, errors.max() * 1.4)
  # A range within a decade may have no power of ten to label.
  narrow = errors.max() < 20 * errors.min()
  _label_errors(axes.xaxis, (1, 2, 5) if narrow else (1,))
  _show_percents(axes)
  axes.set_xlabel(f'reconstruction MSE, images in [{panels.MINUS}1, 1]')
  axes.set_ylabel('attribute flips')
  axes.grid(color=panels.GREY, linewidth=0.6)
  axes.set_axisbelow(True)
  # Names of runs may be long.
  columns = min(len(series), 2 if any(sources) else 3)
  _add_legend(figure, *axes.get_legend_handles_labels(), columns, title)
  _label_points(axes, drawn)
  return figure


class _Part(NamedTuple):
  name: str
  start: int  # epoch since the first teacher's start
  end: int
  epochs: list[int]  # evaluated ones
  mse: list[float]
  percent: list[float]  # class swaps, NaN for a gap


def _collect_parts(records):
  """Collects the curves of every stage and phase of a chain."""
  parts = []
  offset = last = 0
  in_order = sorted(records, key=lambda record: record['step'])
  for stage, lines in itertools.groupby(in_order, lambda r: r['stage']):
    for phase, own in itertools.groupby(lines, lambda r: r.get('phase')):
      name = stage.replace('_', ' ') + (f', {phase}' if phase else '')
      part = _Part(name, last, last, [], [], [])
      for record in own:
        last = offset + record['epoch']
        if record.get('eval_mse') is not None:
          swaps = record.get('eval_class_swaps')
          part.epochs.append(last)
          part.mse.append(record['eval_mse'])
          part.percent.append(math.nan if swaps is None else 100 * swaps)
      parts.append(part._replace(end=last))
    offset = last
  if not any(part.epochs for part in parts):
    raise ValueError('no record has eval_mse: nothing to draw.')
  return parts


def _find_drawn(rows):
  """Returns the rows with flips and an error that a logarithm can show."""
  return [
    row
    for row in rows
    if row.get('attribute_flips') is not None
    and math.isfinite(row['attribute_flips'])
    and 0 < (row.get('mse') or 0) < math.inf
  ]


def _line_style(epochs, most_marks=20):
  marker = 'o' if len(epochs) <= most_marks else ''
  return {'marker': marker, 'markersize': 3, 'linewidth': 1.5}


def _mark_start(axes, part):
  return axes.axvline(part.start, color=panels.GREY, linewidth=1.2, zorder=0)


def _show_epochs(axes, last):
  locator = ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10])
  axes.set_xlim(0, 1.01 * last)
  axes.xaxis.set_major_locator(locator)
  axes.set_xlabel('epochs', fontsize='small')
  axes.tick_params(axis='x', labelsize='small')


def _show_percents(axes):
  axes.set_ylim(0, 102)
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))


def _label_errors(axis, digits):
  axis.set_major_locator(ticker.LogLocator(subs=digits))
  axis.set_major_formatter(ticker.FuncFormatter(_format_error))
  axis.set_minor_locator(ticker.NullLocator())


def _format_error(value, unused_position):
  """Shows 0.0005 as 5e-4, 0.052 as 5.2e-2, and 0 as 0."""
  if not value:
    return '0'
  mantissa, exponent = f'{value:.1e}'.split('e')
  text = f'{mantissa.removesuffix(".0")}e{int(exponent)}'
  return text.replace('-', panels.MINUS)


def _add_legend(figure, handles, labels, columns, title):
  figure.legend(
      handles, labels, loc='outside upper center', ncols=columns, title=title,
      frameon=False, fontsize='small', title_fontsize='small',
  )  # fmt: skip


def _label_points(axes, rows):
  """Writes d beside every point, clear of other points and labels."""
  axes.figure.draw_without_rendering()
  places = [(row['mse'], 100 * row['attribute_flips']) for row in rows]
  points = axes.transData.transform(places)
  width, height, gap = np.array([58, 12, 9]) * axes.figure.dpi / 100
  # Offsets of a label's centre in pixels, in order of preference.
  beside, above = gap + width / 2, gap + height / 2
  higher = above - gap / 2
  offsets = [
      (beside, 0), (-beside, 0), (beside, higher), (beside, -higher),
      (-beside, higher), (-beside, -higher), (0, above), (0, -above),
  ]  # fmt: skip

  def make_box(centre, *size):
    return transforms.Bbox([centre - np.array(size) / 2,
                            centre + np.array(size) / 2])  # fmt: skip

  taken = [make_box(point, gap, gap) for point in points]
  for point, place, row in zip(points, places, rows):
    boxes = [make_box(point + offset, width, height) for offset in offsets]
    costs = [
        box.count_overlaps(taken)
        + 100 * (not (axes.bbox.contains(*box.min)
                      and axes.bbox.contains(*box.max)))
        for box in boxes
    ]  # fmt: skip
    best = costs.index(min(costs))
    taken.append(boxes[best])
    dx, dy = offsets[best]
    side = np.sign(dx)
    # The text starts or ends at the edge of its box that is nearer the point.
    shift = np.array([dx - side * width / 2, dy]) * 72 / axes.figure.dpi
    axes.annotate(
        f'd = {row["nuisance_dim"]}', place, shift, textcoords='offset points',
        ha={1: 'left', -1: 'right', 0: 'center'}[side], va='center',
        fontsize='x-small',
    )  # fmt: skip
