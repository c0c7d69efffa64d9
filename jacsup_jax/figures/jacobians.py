"""Draw how the columns of a decoder's Jacobian relate."""

from collections.abc import Sequence

import chex
from matplotlib import cm
from matplotlib import colors
from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.figures import panels

# Any colour vision can distinguish blue and red through white.
_COLORS = 'RdBu_r'
_UNDEFINED = '0.6'
# With more names the cells have no room for numbers.
_MOST_NUMBERS = 20
_DARK = 0.6


def column_cosines(
  cosines: np.ndarray,
  count: np.ndarray,
  names: Sequence[str],
  title: str | None = None,
) -> mpl_figure.Figure:
  """Draws the cosines between a Jacobian's columns as a heat map.

  Args:
    cosines: `[K, K]` in [-1, 1].
    count: `[K, K]`, of examples that define each; grey where there are none.
    names: of the K factors, for readers.
    title: above the map.
  """
  size = len(names)
  chex.assert_shape([cosines, count], (size, size))
  # Names of 40 attributes at 7 points stand 0.2 inches apart.
  cell = 0.2 if size > _MOST_NUMBERS else 0.38
  width = size * cell
  margin = 0.075 * max(map(len, names))
  figure = panels.new_figure(max(width, 1.6) + margin + 0.9, width + margin)
  axes = figure.add_subplot()
  scale = colors.Normalize(-1, 1)
  palette = (
    cm.ScalarMappable(scale, _COLORS).get_cmap().with_extremes(bad=_UNDEFINED)
  )
  shown = np.ma.masked_where(np.asarray(count) == 0, cosines)
  image = axes.imshow(shown, cmap=palette, norm=scale)
  axes.set_xticks(range(size), names, rotation=90)
  axes.set_yticks(range(size), names)
  axes.tick_params(length=0, labelsize=7 if size > _MOST_NUMBERS else 8)
  # Lines between the cells guide the eye to a name.
  axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
  axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
  axes.grid(which='minor', color='white', linewidth=0.6)
  axes.tick_params(which='minor', length=0)
  if size <= _MOST_NUMBERS:
    # ndenumerate leaves out masked cells.
    for (i, j), value in np.ma.ndenumerate(shown):
      axes.text(
        j,
        i,
        f'{value:z.2f}'.replace('-', '\N{MINUS SIGN}'),
        ha='center',
        va='center',
        fontsize=6,
        color='white' if abs(value) > _DARK else 'black',
      )
  bar = figure.colorbar(
    image, ax=axes, ticks=[-1, -0.5, 0, 0.5, 1], shrink=0.8, pad=0.02
  )
  bar.set_label('cosine of the columns', fontsize='small')
  bar.ax.tick_params(labelsize=7)
  if title:
    figure.suptitle(title, fontsize='small')
  return figure
