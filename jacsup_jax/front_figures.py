"""The picture on top of the README: arrays in, a matplotlib figure out."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax import face_figures
from jacsup_jax import figures

_WIDTH, _HEIGHT = 2.35, 2.35


class Sweeps(NamedTuple):
  """Faces whose attributes vary.

  Attributes:
    images: `[rows, cols, S, S, 3]` in [0, 1], a row per attribute.
    originals: `[rows, S, S, 3]` in [0, 1].
    attribute_names: one per row, as in the data.
  """

  images: np.ndarray
  originals: np.ndarray
  attribute_names: Sequence[str]


def front(
    grids: Sequence[tuple[str, np.ndarray]], sweeps: Sweeps | None
) -> mpl_figure.Figure:
  """Draws grids of factors, and faces beside them.

  Args:
    grids: pairs of a title and `[rows, cols, H, W, C]` images, whose first row
      is the lowest.
    sweeps: of faces, if any.

  Returns:
    A figure of one axes per grid, and two for the faces.

  Raises:
    ValueError: if there is nothing to draw.
  """
  if not grids and sweeps is None:
    raise ValueError('neither grids nor sweeps: nothing to draw.')
  widths = [_WIDTH * g.shape[1] * g.shape[3] / (g.shape[0] * g.shape[2])
            for _, g in grids]  # pyformat: disable
  if sweeps is not None:
    rows, cols = sweeps.images.shape[:2]
    tile = _HEIGHT / rows
    # Names stand on the left.
    widths += [tile + 0.9, cols * tile]
  figure = figures.new_figure(sum(widths) + 0.3, _HEIGHT)
  all_axes = figure.subplots(
      1, len(widths), width_ratios=widths, squeeze=False
  )[0]
  for axes, (title, images) in zip(all_axes, grids):
    _show(axes, images[::-1], title)
  if sweeps is not None:
    left, right = all_axes[-2:]
    _show(left, sweeps.originals[:, None], 'original')
    names = [face_figures.readable(name) for name in sweeps.attribute_names]
    left.set_yticks(range(rows), names, fontsize='small')
    _show(right, sweeps.images, 'one attribute varied')
  return figure


def _show(axes, images, title):
  figures.show_tiles(axes, np.asarray(images))
  axes.set_xticks([])
  axes.set_yticks([])
  axes.tick_params(length=0)
  axes.set_title(title, fontsize='small')
