"""Figures of the paper: arrays in, a matplotlib figure out.

Images are grey or RGB, `[..., H, W, C]` with C of 1 or 3, meant for [0, 1];
what lies outside, as the decoder's Tanh may, is clipped to it.
"""

from collections.abc import Mapping, Sequence
import contextlib
import itertools
import math
import os
import pathlib
import textwrap
from typing import Any, BinaryIO, NamedTuple

import chex
import matplotlib
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np
from PIL import Image

# Inches: of a column of two, and of a page.
SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0
# What `save` writes: pictures, or drawings whose text stays text.
FORMATS = ('png', 'pdf', 'svg')
# Of Okabe and Ito, told apart with any colour vision; the curves also differ in
# their line.
_BLUE = '#0072B2'
_VERMILION = '#D55E00'
_GREY = '0.8'
# Of pictures, and of images in drawings where they have more.
DPI = 300
# Curves with at most this many points have a mark at each.
_MAX_MARKS = 40
# Text as text: publishers refuse the default's Type 3 fonts.
_STYLE = {'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'jacsup'}
# Without versions and dates, equal figures are equal files.
_METADATA = {
    'png': {'Software': None},
    'pdf': {'Creator': None, 'Producer': None, 'CreationDate': None},
    'svg': {'Creator': None, 'Date': None},
}


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
  width = SINGLE_COLUMN
  # Axes of tiles of the images' shape.
  figure = new_figure(
      width, width * rows * images.shape[2] / (cols * images.shape[3])
  )
  axes = figure.add_subplot()
  show_tiles(axes, np.asarray(images)[::-1])
  columns, texts = value_ticks(np.asarray(horizontal))
  axes.set_xticks(columns, texts)
  heights, texts = value_ticks(np.asarray(vertical))
  axes.set_yticks(rows - 1 - heights, texts)
  axes.tick_params(length=2.5, labelsize='small')
  axes.set_xlabel(labels[0])
  axes.set_ylabel(labels[1])
  if title:
    axes.set_title(textwrap.fill(title, 48), fontsize='small')
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
  figure = new_figure(DOUBLE_COLUMN, 3.0)
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
  left.set_xlabel('epochs', fontsize='small')
  left.set_ylim(0, 102)
  left.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))
  # Of a training that diverged the rest is drawn.
  right.set_ylim(0, 1.1 * max(filter(math.isfinite, curves.mse), default=1))
  for axes, name, color in (
      (left, 'class swaps', _BLUE),
      (right, 'reconstruction MSE', _VERMILION),
  ):
    axes.set_ylabel(name, color=color, fontsize='small')
    axes.tick_params(axis='y', colors=color, labelsize='small')
  left.tick_params(axis='x', labelsize='small')
  figure.legend(
      shown.values(),
      shown.keys(),
      loc='outside upper center',
      ncols=len(shown),
      frameon=False,
      fontsize='small',
      title=title,
      title_fontsize='small',
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
  tile = (DOUBLE_COLUMN - 0.6) / (blocks * cols)
  figure = new_figure(DOUBLE_COLUMN, rows * tile * height / width + 0.2)
  all_axes = figure.subplots(1, blocks, squeeze=False)[0]
  # A label of the whole figure would keep its distance from short rows.
  middle = 0.5 if blocks % 2 else 0  # Of the axes, or between two.
  all_axes[blocks // 2].set_xlabel(xlabel or '', x=middle, fontsize='small')
  for block, axes in enumerate(all_axes):
    show_tiles(axes, images[:, block])
    axes.set_xticks([])
    axes.set_yticks(
        range(rows),
        row_labels if block == 0 else [''] * rows,
        fontsize='small',
    )
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
  tile = min(0.45, (DOUBLE_COLUMN - 2) / count)
  figure = new_figure(count * tile + 2.0, len(rows) * tile * height / width)
  axes = figure.add_subplot()
  show_tiles(axes, np.stack(images))
  axes.set_xticks([])
  axes.set_yticks(range(len(rows)), rows, fontsize='small')
  axes.tick_params(length=0)
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def save(
    figure: mpl_figure.Figure,
    path: str | os.PathLike[str],
    file_format: str = 'png',
    *,
    dpi: int = DPI,
    colors: int | None = None,
) -> None:
  """Writes a figure, whole or not at all; folders are made.

  Args:
    figure: to write.
    path: of the file; one that is there is replaced.
    file_format: of `FORMATS`.
    dpi: dots per inch, see `write`.
    colors: of a PNG, to which it is reduced: a third of the size for 256.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    write(figure, temporary, file_format, dpi=dpi)
    if colors is not None and file_format == 'png':
      with Image.open(temporary) as image:
        image.convert('RGB').quantize(colors).save(
            temporary, 'PNG', optimize=True
        )
    os.replace(temporary, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      temporary.unlink()


def write(
    figure: mpl_figure.Figure,
    target: str | os.PathLike[str] | BinaryIO,
    file_format: str,
    *,
    dpi: int = DPI,
) -> None:
  """Writes a figure to a file; equal figures are equal bytes.

  In drawings, images keep their own pixels, unless these are more than `dpi`.

  Args:
    figure: to write.
    target: path, or a file that is open for bytes.
    file_format: of `FORMATS`.
    dpi: dots per inch.
  """
  with matplotlib.rc_context(_STYLE), _own_pixels(figure, file_format, dpi):
    figure.savefig(
        target,
        format=file_format,
        dpi=dpi,
        # Images keep their shape, so that margins are left over.
        bbox_inches='tight',
        pad_inches=0.05,
        metadata=_METADATA[file_format],
    )


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


def value_ticks(
    values: np.ndarray, count: int = 5
) -> tuple[np.ndarray, list[str]]:
  """Returns indices to label, evenly spread with both ends, and their texts.

  Args:
    values: `[n]`, evenly spaced.
    count: of labels at most.
  """
  indices = np.linspace(0, values.size - 1, count).round().astype(int)
  indices = np.unique(indices)
  spacing = np.ptp(values) / max(indices.size - 1, 1)
  decimals = 1
  if spacing > 0:
    decimals = int(np.clip(np.floor(1.5 - np.log10(spacing)), 0, 6))
  # z: never -0.0.
  texts = [f'{value:z.{decimals}f}' for value in values[indices]]
  return indices, [text.replace('-', '\N{MINUS SIGN}') for text in texts]


def plain(text: str) -> str:
  """Returns text that is shown as it is, with no formula in it."""
  return text.replace('$', r'\$')


@contextlib.contextmanager
def _own_pixels(figure, file_format, dpi):
  """Has a drawing hold the pixels of its images, if they are not too many."""
  changed = []
  if file_format != 'png':
    figure.draw_without_rendering()
    for axes in figure.axes:
      width = axes.get_window_extent().width / figure.dpi
      for image in axes.images:
        if image.get_array().shape[1] <= dpi * width:
          changed.append((image, image.get_interpolation()))
          image.set_interpolation('none')
  try:
    yield
  finally:
    for image, interpolation in changed:
      image.set_interpolation(interpolation)


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
