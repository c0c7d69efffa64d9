"""Figures of the paper: arrays in, a matplotlib figure out.

Images are grey or RGB, `[..., H, W, C]` with C of 1 or 3, meant for [0, 1];
what lies outside, as the decoder's Tanh may, is clipped to it.
"""

from collections.abc import Mapping, Sequence
import contextlib
import itertools
import os
import pathlib
from typing import Any, NamedTuple

import chex
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

# Of Okabe and Ito, told apart with any colour vision; the curves also differ in
# their line.
_BLUE = '#0072B2'
_VERMILION = '#D55E00'
_GREY = '0.8'
_DPI = 200
# Curves with at most this many points have a mark at each.
_MAX_MARKS = 40


def factor_grid(
    images: np.ndarray,
    horizontal: np.ndarray,
    vertical: np.ndarray,
    title: str | None = None,
    *,
    labels: tuple[str, str] = ('$y_1$', '$y_2$'),
) -> mpl_figure.Figure:
  """Draws images over a grid of two factors, Figure 1 (a, b, c).

  Both factors rise as in a scatter plot: to the right, and upwards.

  Args:
    images: `[rows, cols, H, W, C]`; row i is drawn at the height of
      `vertical[i]`.
    horizontal: `[cols]`, values of the factor along a row.
    vertical: `[rows]`, values of the factor down a column.
    title: above the grid.
    labels: names of the two factors.

  Returns:
    A figure of one axes.
  """
  chex.assert_rank(images, 5)
  rows, cols = images.shape[:2]
  chex.assert_shape(horizontal, (cols,))
  chex.assert_shape(vertical, (rows,))
  width = 4.5
  # Axes of tiles of the images' shape.
  figure = new_figure(
      width, width * rows * images.shape[2] / (cols * images.shape[3])
  )
  axes = figure.add_subplot()
  show_tiles(axes, np.asarray(images)[::-1])
  columns, texts = _value_ticks(np.asarray(horizontal))
  axes.set_xticks(columns, texts)
  heights, texts = _value_ticks(np.asarray(vertical))
  axes.set_yticks(rows - 1 - heights, texts)
  axes.tick_params(length=2.5)
  axes.set_xlabel(labels[0])
  axes.set_ylabel(labels[1])
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def training_curves(
    records: Sequence[Mapping[str, Any]], title: str | None = None
) -> mpl_figure.Figure:
  """Draws class swaps and error over the training of a chain, Figure 1 (d).

  A grey bar marks each growth of the code.

  Args:
    records: lines of metrics.jsonl of one chain, teacher first, with `stage`,
      `epoch` (within the stage) and `step` (over all); those without
      `eval_mse` are not drawn, an `eval_class_swaps` of None leaves a gap.
    title: above the curves.

  Returns:
    A figure of two axes that share x, epochs since the first teacher's start.

  Raises:
    ValueError: if no record was evaluated.
  """
  curves = _collect_curves(records)
  figure = new_figure(6.5, 3.2)
  left = figure.add_subplot()
  right = left.twinx()
  style = {
      'marker': 'o' if len(curves.epochs) <= _MAX_MARKS else '',
      'markersize': 3,
      'linewidth': 1.5,
  }
  shown = {}
  [shown['class swaps']] = left.plot(
      curves.epochs, curves.percent, color=_BLUE, **style
  )
  [shown['reconstruction MSE']] = right.plot(
      curves.epochs, curves.mse, color=_VERMILION, linestyle='--', **style
  )
  for growth in curves.growths:
    shown['code grown'] = left.axvline(
        growth, color=_GREY, linewidth=1.2, zorder=0
    )
  left.set_xlim(0, 1.01 * curves.last)
  left.xaxis.set_major_locator(
      ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10])
  )
  left.set_xlabel('epochs')
  left.set_ylim(0, 102)
  left.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))
  right.set_ylim(0, 1.1 * max(curves.mse))
  for axes, name, color in (
      (left, 'class swaps', _BLUE),
      (right, 'reconstruction MSE', _VERMILION),
  ):
    axes.set_ylabel(name, color=color)
    axes.tick_params(axis='y', colors=color)
  figure.legend(
      shown.values(),
      shown.keys(),
      loc='outside upper center',
      ncols=len(shown),
      frameon=False,
      fontsize='small',
      title=title,
  )
  return figure


def traversals(
    images: np.ndarray,
    row_labels: Sequence[str],
    *,
    xlabel: str | None = None,
    title: str | None = None,
) -> mpl_figure.Figure:
  """Draws rows of images with one unit varied, Figure 2.

  Args:
    images: `[rows, blocks, cols, H, W, C]`: a row per unit, a block per
      example, a column per value.
    row_labels: one per row.
    xlabel: what varies along a row.
    title: above the figure.

  Returns:
    A figure of one axes per block.
  """
  chex.assert_rank(images, 6)
  images = np.asarray(images)
  rows, blocks, cols, height, width, _ = images.shape
  if len(row_labels) != rows:
    raise ValueError(f'{len(row_labels)} labels for {rows} rows of images.')
  tile = max(0.22, 6.6 / (blocks * cols))
  figure = new_figure(
      blocks * cols * tile + 0.7, rows * tile * height / width + 0.2
  )
  all_axes = figure.subplots(1, blocks, squeeze=False)[0]
  # A label of the whole figure would keep its distance from short rows.
  all_axes[blocks // 2].set_xlabel(xlabel or '', fontsize='small')
  for block, axes in enumerate(all_axes):
    show_tiles(axes, images[:, block])
    axes.set_xticks([])
    axes.set_yticks(range(rows), row_labels if block == 0 else [''] * rows)
    axes.tick_params(length=0)
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure


def reconstructions(
    rows: Mapping[str, np.ndarray], title: str | None = None
) -> mpl_figure.Figure:
  """Draws the same images in rows: the originals and what models make of them.

  Args:
    rows: name of a row -> `[n, H, W, C]`, all of the same shape.
    title: above the figure.

  Returns:
    A figure of one axes.
  """
  images = [np.asarray(row) for row in rows.values()]
  chex.assert_rank(images, 4)
  chex.assert_equal_shape(images)
  count, height, width, _ = images[0].shape
  tile = 0.45
  figure = new_figure(count * tile + 2.0, len(rows) * tile * height / width)
  axes = figure.add_subplot()
  show_tiles(axes, np.stack(images))
  axes.set_xticks([])
  axes.set_yticks(range(len(rows)), rows, fontsize='small')
  axes.tick_params(length=0)
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def save(figure: mpl_figure.Figure, path: str | os.PathLike[str]) -> None:
  """Writes a figure as PNG, whole or not at all; folders are made.

  Args:
    figure: to write.
    path: of the file; one that is there is replaced.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    # Without the version of matplotlib, equal figures are equal files.
    figure.savefig(
        temporary,
        format='png',
        dpi=_DPI,
        # Images keep their shape, so that margins are left over.
        bbox_inches='tight',
        pad_inches=0.05,
        metadata={'Software': None},
    )
    os.replace(temporary, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      temporary.unlink()


def new_figure(width: float, height: float) -> mpl_figure.Figure:
  """Makes a figure of inches, with room for a line of text around.

  Args:
    width: of the whole.
    height: of what is drawn, without that line.

  Returns:
    A figure without axes.
  """
  figure = mpl_figure.Figure(
      figsize=(width, height + 0.5), layout='constrained'
  )
  figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)
  return figure


def show_tiles(axes: mpl_axes.Axes, images: np.ndarray) -> None:
  """Shows images as tiles without gaps; tile (i, j) is at (x, y) = (j, i).

  Args:
    axes: to show them in.
    images: `[rows, cols, H, W, C]`, row 0 on top.
  """
  rows, cols, height, width, channels = images.shape
  tiled = images.transpose(0, 2, 1, 3, 4).reshape(
      rows * height, cols * width, channels
  )
  tiled = np.clip(tiled, 0, 1)
  axes.imshow(
      tiled[..., 0] if channels == 1 else tiled,
      cmap='gray',
      vmin=0,
      vmax=1,
      extent=(-0.5, cols - 0.5, rows - 0.5, -0.5),
      aspect=height / width,
  )


class _Curves(NamedTuple):
  epochs: list[int]  # since the first teacher's start, where evaluated
  mse: list[float]
  percent: np.ndarray  # class swaps, nan for a gap
  growths: list[int]  # epochs at which the code grew
  last: int  # epoch, evaluated or not


def _collect_curves(records):
  """Reads the curves of a chain out of its lines of metrics.jsonl."""
  epochs, mse, swaps, starts = [], [], [], []
  offset = last = 0
  in_order = sorted(records, key=lambda record: record['step'])
  by_stage = itertools.groupby(in_order, key=lambda record: record['stage'])
  for _, stage in by_stage:
    starts.append(offset)
    for record in stage:
      last = offset + record['epoch']
      if record.get('eval_mse') is not None:
        epochs.append(last)
        mse.append(record['eval_mse'])
        swaps.append(record.get('eval_class_swaps'))
    offset = last
  if not epochs:
    raise ValueError('no record has eval_mse: nothing to draw.')
  percent = 100 * np.array(swaps, dtype=float)
  # The first start is not a growth.
  return _Curves(epochs, mse, percent, starts[1:], last)


def _value_ticks(values: np.ndarray, count: int = 5):
  """Returns indices to label, evenly spread with both ends, and their texts."""
  indices = np.linspace(0, values.size - 1, count).round().astype(int)
  indices = np.unique(indices)
  spacing = np.ptp(values) / max(indices.size - 1, 1)
  decimals = 1
  if spacing > 0:
    decimals = int(np.clip(np.floor(1.5 - np.log10(spacing)), 0, 6))
  # z: never -0.0.
  texts = [f'{value:z.{decimals}f}' for value in values[indices]]
  return indices, [text.replace('-', '\N{MINUS SIGN}') for text in texts]
