"""The picture on top of the README: arrays in, a matplotlib figure out."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.figures import face_figures
from jacsup_jax.figures import panels

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
    A figure of one axes per grid, and one for the faces.

  Raises:
    ValueError: if there is nothing to draw.
  """
  if not grids and sweeps is None:
    raise ValueError('neither grids nor sweeps: nothing to draw.')
  widths = [_WIDTH * g.shape[1] * g.shape[3] / (g.shape[0] * g.shape[2])
            for _, g in grids]  # pyformat: disable
  if sweeps is not None:
    rows, cols = sweeps.images.shape[:2]
    widths.append((cols + 1) * _HEIGHT / rows)
  # Names stand on the left of the faces.
  figure = panels.new_figure(
      sum(widths) + (0.4 if sweeps is None else 1.4), _HEIGHT
  )
  all_axes = figure.subplots(
      1, len(widths), width_ratios=widths, squeeze=False
  )[0]
  for axes, (title, images) in zip(all_axes, grids):
    _show(axes, images[::-1])
    axes.set_title(title, fontsize='small')
  if sweeps is not None:
    axes = all_axes[-1]
    _show(axes, np.concatenate([sweeps.originals[:, None], sweeps.images], 1))
    axes.axvline(0.5, color='white', linewidth=3)
    names = [face_figures.readable(name) for name in sweeps.attribute_names]
    axes.set_yticks(range(rows), names, fontsize='small')
    axes.set_xticks(
        [0, (cols + 1) / 2],
        ['original', 'one attribute varied'],
        fontsize='small',
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
  return figure


def _show(axes, images):
  panels.show_tiles(axes, np.asarray(images))
  axes.set_xticks([])
  axes.set_yticks([])
