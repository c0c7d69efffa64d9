"""Draw how the columns of a decoder's Jacobian relate."""

from collections.abc import Sequence

import chex
from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.figures import panels


def column_cosines(
  cosines: np.ndarray,
  count: np.ndarray,
  names: Sequence[str],
  title: str = '',
) -> mpl_figure.Figure:
  """Draws `[K, K]` cosines between a Jacobian's columns as a heat map.

  Those that no example defines, by their `[K, K]` count, are grey.
  """
  size = len(names)
  chex.assert_shape([cosines, count], (size, size))
  # Names of 40 attributes at 7 points stand 0.2 inches apart; such cells have
  # no room for numbers.
  with_numbers = size <= 20
  cell, font = (0.38, 8) if with_numbers else (0.2, 7)
  width, margin = size * cell, 0.075 * max(map(len, names))
  figure = panels.new_figure(max(width, 1.6) + margin + 0.9, width + margin)
  axes = figure.add_subplot()
  axes.set_facecolor('0.6')
  shown = np.ma.masked_where(np.asarray(count) == 0, cosines)
  # Any colour vision can distinguish blue and red through white.
  image = axes.imshow(shown, cmap='RdBu_r', vmin=-1, vmax=1)
  axes.set_xticks(range(size), names, rotation=90)
  axes.set_yticks(range(size), names)
  axes.tick_params(length=0, labelsize=font)
  # Lines between the cells guide the eye to a name.
  axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
  axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
  axes.grid(which='minor', color='white', linewidth=0.6)
  axes.tick_params(which='minor', length=0)
  if with_numbers:
    # ndenumerate leaves out masked cells.
    for (i, j), value in np.ma.ndenumerate(shown):
      text = panels.minus(f'{value:z.2f}')
      color = 'white' if abs(value) > 0.6 else 'black'
      axes.text(j, i, text, ha='center', va='center', size=6, color=color)
  bar = figure.colorbar(
    image, ax=axes, ticks=[-1, -0.5, 0, 0.5, 1], shrink=0.8, pad=0.02
  )
  bar.set_label('cosine of the columns', fontsize='small')
  bar.ax.tick_params(labelsize=7)
  if title:
    figure.suptitle(title, fontsize='small')
  return figure
