"""Draw units of a code that vary over images of classes, Figures 1 and 2."""

from collections.abc import Sequence
import textwrap

import chex
from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.figures import panels


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
    title: above the figure.
    labels: names of the two factors.
  """
  chex.assert_rank(images, 5)
  rows, cols = images.shape[:2]
  chex.assert_shape(horizontal, (cols,))
  chex.assert_shape(vertical, (rows,))
  width = panels.SINGLE_COLUMN
  figure = panels.new_figure(
    width, width * rows * images.shape[2] / (cols * images.shape[3])
  )
  axes = figure.add_subplot()
  panels.show_tiles(axes, np.asarray(images)[::-1])
  columns, texts = panels.value_ticks(np.asarray(horizontal))
  axes.set_xticks(columns, texts)
  heights, texts = panels.value_ticks(np.asarray(vertical))
  axes.set_yticks(rows - 1 - heights, texts)
  axes.tick_params(length=2.5, labelsize='small')
  axes.set_xlabel(labels[0])
  axes.set_ylabel(labels[1])
  if title:
    axes.set_title(textwrap.fill(title, 48), fontsize='small')
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
  """
  chex.assert_rank(images, 6)
  images = np.asarray(images)
  rows, blocks, cols, height, width, _ = images.shape
  panels.check_labels(row_labels, rows, 'rows of images')
  tile = (panels.DOUBLE_COLUMN - 0.6) / (blocks * cols)
  figure = panels.new_figure(
    panels.DOUBLE_COLUMN, rows * tile * height / width + 0.2
  )
  all_axes = figure.subplots(1, blocks, squeeze=False)[0]
  # A label of the whole figure would stand too far from short rows. With an
  # even number of blocks it is centred between the two in the middle.
  middle = 0.5 if blocks % 2 else 0
  for block, axes in enumerate(all_axes):
    panels.show_tiles(axes, images[:, block])
    panels.label_tiles(axes, rows=[''] * rows if block else row_labels)
  all_axes[blocks // 2].set_xlabel(xlabel or '', x=middle, fontsize='small')
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure
