"""Draw curves over training, and attribute flips against error.

Records are lines of metrics.jsonl of one chain, teacher first, with `stage`,
`epoch` (within the stage), `step` (over all) and maybe `phase`; those without
`eval_mse` are not drawn. Rows are those of results.json.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from jacsup_jax.figures import panels

Records = Sequence[Mapping[str, Any]]

_MARKERS = 'os^DvPX'
_FILLINGS = ('full', 'none', 'left', 'top', 'right', 'bottom')
# Points of a trade-off that are labelled each.
_MOST_LABELS = 20
_SWAPS = 'class swaps by perceptrons'


@panels.in_own_style
def swap_curves(records: Records, title: str = '') -> panels.Figure:
  """Draws class swaps and error over the training of a chain, Figure 1 (d).

  Swaps are those by perceptrons, the paper's judges. A grey bar marks each
  growth of the code; an `eval_class_swaps_mlp` of None leaves a gap.
  """
  parts, last = _collect_parts(records)
  epochs, mse, percent = np.hstack([points for _, _, points in parts])
  blue, vermilion = panels.COLORS[:2]
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 3.0)
  left = figure.add_subplot()
  right = left.twinx()
  style = _line_style(epochs, most_marks=40)
  shown = {}
  [shown[_SWAPS]] = left.plot(epochs, percent, color=blue, **style)
  [shown['reconstruction MSE']] = right.plot(
    epochs, mse, color=vermilion, linestyle='--', **style
  )
  for _, start, _ in parts[1:]:
    shown['code grown'] = _mark_start(left, start)
  _show_epochs(left, last)
  _show_percents(left)
  # The finite part of a training that diverged is drawn.
  right.set_ylim(0, 1.1 * max(filter(math.isfinite, mse), default=1))
  for axes, color, name in zip((left, right), (blue, vermilion), shown):
    axes.set_ylabel(name, color=color, fontsize='small')
    axes.tick_params(axis='y', colors=color, labelsize='small')
  _add_legend(figure, shown.values(), shown, len(shown), title)
  return figure


@panels.in_own_style
def error_curves(records: Records) -> panels.Figure:
  """Draws the error over the training of a teacher and its students.

  A grey bar marks where another phase, or another size of the code, begins.
  """
  parts, last = _collect_parts(records)
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 2.8)
  axes = figure.add_subplot()
  for i, (name, start, (epochs, mse, _)) in enumerate(parts):
    color = panels.COLORS[i % len(panels.COLORS)]
    axes.plot(epochs, mse, color=color, label=name, **_line_style(epochs))
    if i:
      _mark_start(axes, start)
  _show_epochs(axes, last)
  axes.set_yscale('log')
  errors = np.hstack([points[1] for _, _, points in parts])
  errors = errors[(errors > 0) & (errors < math.inf)]
  if errors.size:
    # A narrower range would give neighbouring ticks the same label.
    axes.set_ylim(errors.min() / 1.3, errors.max() * 1.3)
  _label_errors(axes.yaxis, (1, 2, 5))
  axes.set_ylabel('reconstruction MSE', fontsize='small')
  axes.tick_params(labelsize='small')
  _add_legend(figure, *axes.get_legend_handles_labels(), min(len(parts), 3))
  return figure


def has_tradeoff(rows: Records) -> bool:
  """Returns whether `tradeoff` can draw flips of any of the rows."""
  return bool(_find_drawn(rows, 'attribute_flips'))


@panels.in_own_style
def tradeoff(rows: Records, rate: str = 'attribute_flips') -> panels.Figure:
  """Draws a rate against error, Figure 4: towards the top left is better.

  Rows without `mse` or the rate (`attribute_flips` of faces, `class_swaps_mlp`
  of digits, in [0, 1]) are not drawn. A `source`, such as
  'paper' or the name of a run, is added to the label of a `model`, and each
  source has its own filling.
  """
  drawn = _find_drawn(rows, rate)
  figure = panels.new_figure(5.5, 3.9)
  axes = figure.add_subplot()
  series = {}
  for row in drawn:
    points = series.setdefault((row.get('source'), row['model']), [])
    points.append((row['mse'], 100 * row[rate]))
  models = list(dict.fromkeys(model for _, model in series))
  # Rows without a source come first and are filled.
  sources = sorted(dict.fromkeys(source for source, _ in series), key=bool)
  for (source, model), points in series.items():
    i = models.index(model)
    label = panels.name_model(model)
    axes.plot(
      *np.transpose(points),
      marker=_MARKERS[i % len(_MARKERS)],
      markersize=7 if len(drawn) <= _MOST_LABELS else 4.5,
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
  low = f'{panels.MINUS}1' if rate == 'attribute_flips' else '0'
  axes.set_xlabel(f'reconstruction MSE, images in [{low}, 1]')
  axes.set_ylabel('attribute flips' if rate == 'attribute_flips' else _SWAPS)
  axes.grid(color=panels.GREY, linewidth=0.6)
  axes.set_axisbelow(True)
  # Names of runs may be long.
  columns = min(len(series), 2 if any(sources) else 3)
  _add_legend(figure, *axes.get_legend_handles_labels(), columns)
  if len(drawn) > _MOST_LABELS:  # The largest d of each series alone.
    drawn = [
      *{(row.get('source'), row['model']): row for row in drawn}.values()
    ]
  _label_points(axes, drawn, rate)
  return figure


@panels.in_own_style
def edit_curves(rows: Records) -> panels.Figure:
  """Draws balanced flips against what is kept, a line over strengths a row.

  Towards the top right is better. Rows without an `edit_curve` are not drawn;
  the area is that of `attribute_flips.compute_area`.
  """
  drawn = [row for row in rows if row.get('edit_curve')]
  figure = panels.new_figure(5.5, 3.9)
  axes = figure.add_subplot()
  for i, row in enumerate(drawn):
    points = [(100 * p['kept'], 100 * p['flips']) for p in row['edit_curve']]
    label = f'{panels.name_model(row["model"])}, d = {row["nuisance_dim"]}'
    if row.get('labels') == 'given':
      label += ', labels given'
    axes.plot(
      *np.transpose(points),
      marker=_MARKERS[i % len(_MARKERS)],
      markersize=5,
      color=panels.COLORS[i % len(panels.COLORS)],
      fillstyle=_FILLINGS[i // len(panels.COLORS) % len(_FILLINGS)],
      label=f'{label} (area {row["edit_curve_area"]:.2f})',
    )
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(panels.ticker.PercentFormatter())
  axes.set_xlabel('other attributes kept')
  axes.set_ylabel('balanced attribute flips')
  axes.grid(color=panels.GREY, linewidth=0.6)
  axes.set_axisbelow(True)
  _add_legend(figure, *axes.get_legend_handles_labels(), 2)
  return figure


def _collect_parts(records):
  """Returns name, start and points of each stage and phase; the last epoch.

  Epochs count from the first teacher's start. Points are `[3, n]`: epochs,
  errors, and class swaps in per cent, NaN for a gap.
  """
  parts, stage, offset, last = {}, None, 0, 0
  for record in sorted(records, key=lambda record: record['step']):
    if record['stage'] != stage:
      stage, offset = record['stage'], last
    phase = record.get('phase')
    name = stage.replace('_', ' ') + (f', {phase}' if phase else '')
    _, points = parts.setdefault(name, (last, []))
    last = offset + record['epoch']
    if record.get('eval_mse') is not None:
      # Records of earlier versions do not name the family of the judges.
      swaps = record.get('eval_class_swaps')
      swaps = record.get('eval_class_swaps_mlp', swaps)
      percent = math.nan if swaps is None else 100 * swaps
      points.append((last, record['eval_mse'], percent))
  return [
    (name, start, np.array(points, float).reshape(-1, 3).T)
    for name, (start, points) in parts.items()
  ], last


def _find_drawn(rows, rate):
  """Returns the rows with a rate and an error that a logarithm can show."""
  return [
    row
    for row in rows
    if np.isfinite(np.array(row.get(rate), float))
    and 0 < (row.get('mse') or 0) < math.inf
  ]


def _line_style(epochs, most_marks=20):
  marker = 'o' if len(epochs) <= most_marks else ''
  return {'marker': marker, 'markersize': 3, 'linewidth': 1.5}


def _mark_start(axes, start):
  return axes.axvline(start, color=panels.GREY, linewidth=1.2, zorder=0)


def _show_epochs(axes, last):
  locator = panels.ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10])
  axes.set_xlim(0, 1.01 * last)
  axes.xaxis.set_major_locator(locator)
  axes.set_xlabel('epochs', fontsize='small')
  axes.tick_params(axis='x', labelsize='small')


def _show_percents(axes):
  axes.set_ylim(0, 102)
  axes.yaxis.set_major_formatter(panels.ticker.PercentFormatter())


def _label_errors(axis, digits):
  axis.set_major_locator(panels.ticker.LogLocator(subs=digits))
  axis.set_major_formatter(panels.ticker.FuncFormatter(_format_error))
  axis.set_minor_locator(panels.ticker.NullLocator())


def _format_error(value, unused_position):
  """Shows 0.0005 as 5e-4, 0.052 as 5.2e-2, and 0 as 0."""
  if not value:
    return '0'
  mantissa, exponent = f'{value:.1e}'.split('e')
  return panels.minus(f'{mantissa.removesuffix(".0")}e{int(exponent)}')


def _add_legend(figure, handles, labels, columns, title=''):
  figure.legend(
      handles, labels, loc='outside upper center', ncols=columns, title=title,
      frameon=False, fontsize='small', title_fontsize='small',
  )  # fmt: skip


def _label_points(axes, rows, rate):
  """Writes d beside every point, clear of other points and labels."""
  axes.figure.draw_without_rendering()
  places = [(row['mse'], 100 * row[rate]) for row in rows]
  points = axes.transData.transform(places)
  width, height, gap = np.array([58, 12, 9]) * axes.figure.dpi / 100
  # Offsets of a label's centre in pixels, in order of preference.
  beside, above = gap + width / 2, height / 2 + gap / 2
  offsets = [(x, y) for y in (0, above, -above) for x in (beside, -beside)]

  def make_box(centre, *size):
    half = np.array(size) / 2
    return panels.transforms.Bbox([centre - half, centre + half])

  def count_hidden(box):
    inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
    return box.count_overlaps(taken) + (0 if inside else 100)

  taken = [make_box(point, gap, gap) for point in points]
  for point, place, row in zip(points, places, rows):
    boxes = [make_box(point + offset, width, height) for offset in offsets]
    best = int(np.argmin([count_hidden(box) for box in boxes]))
    taken.append(boxes[best])
    dx, dy = offsets[best]
    # The text starts or ends at the edge of its box that is nearer the point.
    shift = np.array([np.sign(dx) * gap, dy]) * 72 / axes.figure.dpi
    axes.annotate(
        f'd = {row["nuisance_dim"]}', place, shift, textcoords='offset points',
        ha='left' if dx > 0 else 'right', va='center', fontsize='x-small',
    )  # fmt: skip
