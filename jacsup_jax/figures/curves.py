"""Draw curves over training, and class swaps or flips against error.

Records are lines of metrics.jsonl of one chain, teacher first, with `stage`,
`epoch` (within the stage), `step` (over all) and maybe `phase`; those without
`eval_mse` are not drawn. Rows are those of results.json.
"""

from collections.abc import Mapping, Sequence
import math
import re
import textwrap
from typing import Any

import numpy as np

from jacsup_jax.figures import panels

Records = Sequence[Mapping[str, Any]]

_MARKERS = 'os^DvPX'
_FILLINGS = ('full', 'none', 'left', 'top', 'right', 'bottom')
# Points of a trade-off, and of errors over training, that are labelled each.
_MOST_LABELS = 20
_FEW_POINTS = 8
_NUMBER = re.compile(r'\d+(\.\d+)?(e[+-]\d+)?')
SWAPS = 'class_swaps_mlp'  # The paper's judges are perceptrons.
_SWAPS_LABEL = 'class swaps by perceptrons'
_ERROR_LABEL = 'reconstruction MSE'


@panels.in_own_style
def swap_curves(records: Records, title: str = '') -> panels.Figure:
  """Draws class swaps and error over the training of a chain, Figure 1 (d).

  Swaps are those by perceptrons, the paper's judges. A grey bar marks each
  growth of the code; an `eval_class_swaps_mlp` of None leaves a gap. Where few
  stages have one value each, they are bars.
  """
  parts, last = _collect_parts(records)
  if _are_few(parts):
    return _draw_bars(parts, {_SWAPS_LABEL: 2, _ERROR_LABEL: 1}, title)
  epochs, mse, percent = np.hstack([points for _, _, points in parts])
  blue, vermilion = panels.COLORS[:2]
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 3.0)
  left = figure.add_subplot()
  right = left.twinx()
  style = _line_style(epochs, most_marks=40)
  shown = {}
  [shown[_SWAPS_LABEL]] = left.plot(epochs, percent, color=blue, **style)
  [shown[_ERROR_LABEL]] = right.plot(
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
  Where few of them have one value each, they are bars.
  """
  parts, last = _collect_parts(records)
  if _are_few(parts):
    return _draw_bars(parts, {_ERROR_LABEL: 1})
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 2.8)
  axes = figure.add_subplot()
  for i, (name, start, (epochs, mse, _)) in enumerate(parts):
    color = panels.COLORS[i % len(panels.COLORS)]
    axes.plot(epochs, mse, color=color, label=name, **_line_style(epochs))
    if i:
      _mark_start(axes, start)
  _show_epochs(axes, last)
  epochs, errors, _ = np.hstack([points for _, _, points in parts])
  _scale_errors(axes, 'y', errors, 1.15)
  if len(errors) <= _FEW_POINTS:
    axes.set_xlim(right=1.04 * last)
    for epoch, error, after in zip(epochs, errors, [*errors[1:], 0]):
      if not math.isfinite(error):
        continue
      # The line to the next point would cross a text above a minimum.
      place = 0, 5 if after < error else -11
      axes.annotate(
          _format_value(error), (epoch, error), place,
          ha='center', textcoords='offset points', fontsize='x-small',
      )  # fmt: skip
  axes.set_ylabel(_ERROR_LABEL, fontsize='small')
  axes.tick_params(labelsize='small')
  _add_legend(figure, *axes.get_legend_handles_labels(), min(len(parts), 3))
  return figure


def has_tradeoff(rows: Records, rate: str = 'attribute_flips') -> bool:
  """Returns whether `tradeoff` can draw any of the rows."""
  return bool(_find_drawn(rows, rate))


@panels.in_own_style
def tradeoff(rows: Records, rate: str = 'attribute_flips') -> panels.Figure:
  """Draws a rate against error, Figure 4: towards the top left is better.

  Rows without `mse` or the rate (`attribute_flips` of faces, `SWAPS` of
  digits, in [0, 1]) are not drawn. A `source`, such as 'paper' or the name of a
  run, is added to the label of a `model`, and each source has its own filling.
  Models of one seed that differ in size, or in strength (`NAME_xSTRENGTH`), are
  joined by a line. Class swaps by perceptrons have a grey line down to those by
  the lowest family of judges.
  """
  drawn = _find_drawn(rows, rate)
  figure = panels.new_figure(5.5, 3.9)
  axes = figure.add_subplot()
  series = {}
  for row in drawn:
    model, strength = _split_strength(row['model'])
    # Choices of units of one model are joined, unless there is a sweep to join.
    units = None if strength is None else row.get('units')
    key = row.get('source'), model, row.get('seed'), units
    series.setdefault(key, []).append(row)
  models = list(dict.fromkeys(model for _, model, *_ in series))
  # Rows without a source come first and are filled.
  sources = sorted(dict.fromkeys(source for source, *_ in series), key=bool)
  shown = {}
  for (source, model, *_), own in series.items():
    i = models.index(model)
    label = panels.name_model(model)
    if source:
      label = f'{label} ({panels.plain(source)})'
    own.sort(key=_get_order)
    [shown[label]] = axes.plot(
      [row['mse'] for row in own],
      [100 * row[rate] for row in own],
      # Another one for a color that is used again.
      marker=_MARKERS[(i + i // len(panels.COLORS)) % len(_MARKERS)],
      markersize=7 if len(drawn) <= _MOST_LABELS else 4.5,
      linewidth=0.8,
      color=panels.COLORS[i % len(panels.COLORS)],
      fillstyle=_FILLINGS[sources.index(source) % len(_FILLINGS)],
      label=label,
    )
  if lines := _draw_lowest(axes, drawn, rate):
    shown['down to the lowest family of judges'] = lines
  _scale_errors(axes, 'x', np.array([row['mse'] for row in drawn]), 1.3)
  _show_percents(axes)
  low = f'{panels.MINUS}1' if rate == 'attribute_flips' else '0'
  axes.set_xlabel(f'reconstruction MSE, images in [{low}, 1]')
  axes.set_ylabel(
    _SWAPS_LABEL if rate == SWAPS else panels.plain(rate.replace('_', ' '))
  )
  axes.grid()
  _add_legend(figure, shown.values(), shown, _count_columns(shown))
  labelled = drawn
  if len(drawn) > _MOST_LABELS:
    # Only the largest d or strength of a model, on the line of its first seed.
    lines = [(key, own) for key, own in series.items() if len(own) > 1]
    labelled = {(*k[:2], k[3]): own[-1] for k, own in reversed(lines)}.values()
  _label_points(axes, [x for x in labelled if x['nuisance_dim']], drawn, rate)
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
    axis.set_major_formatter(panels.ticker.PercentFormatter(decimals=0))
  axes.set_xlabel('other attributes kept')
  axes.set_ylabel('balanced attribute flips')
  axes.grid()
  handles, labels = axes.get_legend_handles_labels()
  _add_legend(figure, handles, labels, _count_columns(labels))
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


def _split_strength(model):
  """Splits the name of a model of a sweep; others have no strength."""
  name, _, text = model.rpartition('_x')
  return (name, float(text)) if _NUMBER.fullmatch(text) else (model, None)


def _get_order(row):
  return _split_strength(row['model'])[1] or 0, row['nuisance_dim']


def _draw_lowest(axes, drawn, rate):
  """Draws lines from class swaps by perceptrons to lower ones, if there are."""
  low = [
    row
    for row in _find_drawn(drawn, 'class_swaps')
    if rate == SWAPS and row['class_swaps'] < row[rate] - 0.005
  ]
  if not low:
    return None
  mse, *ends = np.transpose(
    [(row['mse'], 100 * row['class_swaps'], 100 * row[rate]) for row in low]
  )
  return axes.vlines(mse, *ends, color='0.6', linewidth=1.2, zorder=1)


def _are_few(parts):
  """Returns whether stages have one value each, and few enough for bars."""
  counts = [points.shape[1] for _, _, points in parts]
  return max(counts) <= 1 and sum(counts) <= _FEW_POINTS


def _draw_bars(parts, shown, title=''):
  """Draws a bar with its value for each stage.

  `shown` maps the label of a panel to the row of the points.
  """
  parts = [(name, points[:, 0]) for name, _, points in parts if points.size]
  names = [textwrap.fill(name, 10) for name, _ in parts]
  figure = panels.new_figure(panels.DOUBLE_COLUMN, 2.8, title)
  all_axes = figure.subplots(1, len(shown), squeeze=False)[0]
  for axes, (label, row), color in zip(all_axes, shown.items(), panels.COLORS):
    values = np.array([points[row] for _, points in parts])
    heights = np.where(np.isfinite(values), values, 0)
    bars = axes.bar(range(len(names)), heights, width=0.6, color=color)
    is_rate = label == _SWAPS_LABEL
    show = '{:.1f}%'.format if is_rate else _format_value
    texts = [show(x) if math.isfinite(x) else '-' for x in values]
    axes.bar_label(bars, texts, padding=2, fontsize='x-small')
    axes.set_xticks(range(len(names)), names, fontsize='x-small')
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel(label, fontsize='small')
    if is_rate:
      _show_percents(axes, 110)
    else:
      axes.set_ylim(0, 1.15 * max(heights, default=1) or 1)
    axes.tick_params(axis='y', labelsize='small')
  return figure


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


def _show_percents(axes, most=102):
  axes.set_ylim(0, most)
  axes.yaxis.set_major_formatter(panels.ticker.PercentFormatter(decimals=0))


def _scale_errors(axes, name, errors, room):
  """Makes the axis of errors logarithmic, with two ticks or more."""
  errors = errors[(errors > 0) & (errors < math.inf)]
  low, high = 0.1, 1.0
  if errors.size:
    low, high = errors.min() / room, errors.max() * room
  decades = 10.0 ** np.arange(math.floor(math.log10(low)), math.log10(high))
  even = panels.ticker.MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=4)
  choices = [
    np.outer(decades, digits).ravel()
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
  ] + [even.tick_values(low, high)]
  for ticks in choices:
    ticks = ticks[(low <= ticks) & (ticks <= high)]
    if len(ticks) > 2:
      break
  axes.set(**{f'{name}scale': 'log', f'{name}lim': (low, high)})
  axis = getattr(axes, f'{name}axis')
  axis.set_ticks(ticks, [_format_error(tick) for tick in ticks])
  axis.set_minor_locator(panels.ticker.NullLocator())


def _format_error(value):
  """Shows 0.0005 as 5e-4, and 0.052 as 5.2e-2."""
  mantissa, exponent = f'{value:.4e}'.split('e')
  mantissa = mantissa.rstrip('0').removesuffix('.')
  return panels.minus(f'{mantissa}e{int(exponent)}')


def _format_value(value):
  """Shows a measured error with three digits."""
  return _format_error(float(f'{value:.3g}')) if value else '0'


def _count_columns(labels):
  """Returns how many columns of a legend fit above a trade-off."""
  return min(len(labels), 1 if max(map(len, labels)) > 40 else 2)


def _add_legend(figure, handles, labels, columns, title=''):
  figure.legend(
      handles, labels, loc='outside upper center', ncols=columns, title=title,
      frameon=False, fontsize='small', title_fontsize='small',
  )  # fmt: skip


def _label_points(axes, labelled, drawn, rate):
  """Writes d or the strength beside points, clear of points and labels."""
  axes.figure.draw_without_rendering()
  find = lambda rows: axes.transData.transform(
    np.reshape([(row['mse'], 100 * row[rate]) for row in rows], (-1, 2))
  )
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

  taken = [make_box(point, gap, gap) for point in find(drawn)]
  for point, row in zip(find(labelled), labelled):
    boxes = [make_box(point + offset, width, height) for offset in offsets]
    best = int(np.argmin([count_hidden(box) for box in boxes]))
    taken.append(boxes[best])
    dx, dy = offsets[best]
    # The text starts or ends at the edge of its box that is nearer the point.
    shift = np.array([np.sign(dx) * gap, dy]) * 72 / axes.figure.dpi
    strength = _split_strength(row['model'])[1]
    size = f'd = {row["nuisance_dim"]}'
    axes.annotate(
        size if strength is None else f'x{strength:g}',
        (row['mse'], 100 * row[rate]), shift,
        textcoords='offset points', ha='left' if dx > 0 else 'right',
        va='center', fontsize='x-small',
    )  # fmt: skip
