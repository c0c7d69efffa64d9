"""Draw images decoded from codes that vary, are swapped or are flipped.

Images are those of `panels`; names of attributes are those of the data.
"""

from collections.abc import Mapping, Sequence
import textwrap

import numpy as np

from jacsup_jax.figures import panels

# Grids of swaps in a line.
_MOST_BESIDE = 4
SWEPT = 'strength of the edit: -1 without the attribute, 1 with it'


@panels.in_own_style
def factor_grid(
  images: np.ndarray,
  horizontal: np.ndarray,
  vertical: np.ndarray,
  title: str = '',
) -> panels.Figure:
  """Draws images over a grid of two factors, Figure 1 (a, b, c).

  Both factors rise as in a scatter plot: to the right over the `[cols]`
  horizontal values of the first factor, and upwards over the `[rows]` vertical
  ones of the second. Images are `[rows, cols, H, W, C]`.
  """
  rows, cols, height, width, _ = images.shape
  side = panels.SINGLE_COLUMN
  axes = _draw(side, side * rows * height / (cols * width), images[::-1])
  columns = panels.value_ticks(np.asarray(horizontal))
  axes.set_xticks(list(columns), columns.values())
  heights = panels.value_ticks(np.asarray(vertical))
  axes.set_yticks([rows - 1 - i for i in heights], heights.values())
  axes.tick_params(length=2.5, labelsize='small')
  axes.set_xlabel('$y_1$')
  axes.set_ylabel('$y_2$')
  axes.set_title(textwrap.fill(title, 48), fontsize='small')
  return axes.figure


@panels.in_own_style
def traversals(
  images: np.ndarray,
  row_labels: Sequence[str],
  *,
  xlabel: str = '',
  title: str = '',
) -> panels.Figure:
  """Draws rows of images with one unit varied, Figure 2.

  Images are `[rows, blocks, cols, H, W, C]`: a row per unit, a block per
  example, a column per value. `xlabel` says what varies along a row.
  """
  rows, blocks, cols, height, width, _ = images.shape
  tile = (panels.DOUBLE_COLUMN - 0.6) / (blocks * cols)
  figure = panels.new_figure(
    panels.DOUBLE_COLUMN, rows * tile * height / width + 0.2, title
  )
  all_axes = figure.subplots(1, blocks, squeeze=False)[0]
  for block, axes in enumerate(all_axes):
    labels = [''] * rows if block else row_labels
    panels.show_tiles(axes, images[:, block], rows=labels)
  # A label of the whole figure would stand too far from short rows. With an
  # even number of blocks it is centred between the two in the middle.
  middle = 0.5 if blocks % 2 else 0
  all_axes[blocks // 2].set_xlabel(xlabel, x=middle, fontsize='small')
  return figure


@panels.in_own_style
def reconstructions(rows: Mapping[str, np.ndarray]) -> panels.Figure:
  """Draws originals and their reconstructions, a row per model, Figure 7.

  `rows` maps the name of a row to its `[n, H, W, C]` images.
  """
  images = np.stack(list(rows.values()))
  count, height, width, _ = images.shape[1:]
  tile = min(0.45, (panels.DOUBLE_COLUMN - 2) / count)
  room = count * tile + 2.0, len(rows) * tile * height / width
  return _draw(*room, images, rows=rows).figure


@panels.in_own_style
def swaps(
  donors: np.ndarray,
  recipients: np.ndarray,
  swapped: Mapping[str, np.ndarray],
) -> panels.Figure:
  """Draws swaps of factors: donors along the top, recipients down the side.

  `[cols, H, W, C]` donors give their factors, `[rows, H, W, C]` recipients keep
  their nuisance, and `[rows, cols, H, W, C]` swapped images show both. Models
  stand side by side, four in a line; `swapped` maps the title of each to its
  images.
  """
  rows, cols, height, width, _ = next(iter(swapped.values())).shape
  side = np.concatenate([np.ones_like(recipients[:1]), recipients])[:, None]
  lines = -(-len(swapped) // _MOST_BESIDE)
  across = -(-len(swapped) // lines)
  room = (panels.DOUBLE_COLUMN - 0.4) / across - 0.2
  tile = min(0.6, room / (cols + 1))
  figure = panels.new_figure(
    across * ((cols + 1) * tile + 0.2) + 0.4,
    # Titles have two lines.
    lines * ((rows + 1) * tile * height / width + 0.3),
  )
  all_axes = figure.subplots(lines, across, squeeze=False)
  for axes in all_axes.flat[len(swapped) :]:
    axes.set_axis_off()
  # Labels stand at the middle of the donors and of the recipients.
  middle = (cols + 2) / (2 * cols + 2), rows / (2 * rows + 2)
  for axes, (title, images) in zip(all_axes.flat, swapped.items()):
    inner = np.concatenate([np.asarray(donors)[None], images])
    panels.show_tiles(axes, np.concatenate([side, inner], axis=1))
    axes.set_frame_on(False)
    axes.axhline(0.5, color='white', linewidth=3)
    axes.axvline(0.5, color='white', linewidth=3)
    axes.set_title(textwrap.fill(title, 30), fontsize='small')
    axes.set_xlabel('donors of factors', x=middle[0], fontsize='small')
    axes.xaxis.set_label_position('top')
  for axes in all_axes[:, 0]:
    axes.set_ylabel('recipients', y=middle[1], fontsize='small')
  return figure


@panels.in_own_style
def attribute_flips(
  originals: np.ndarray,
  reconstructions: np.ndarray,
  flipped: np.ndarray,
  attribute_names: Sequence[str],
  title: str = '',
  strengths: Sequence[float | None] = (),
) -> panels.Figure:
  """Draws faces with one attribute flipped at a time, Figure 5.

  Beside the `[rows, S, S, 3]` originals and reconstructions stand the `[rows,
  cols, S, S, 3]` flipped ones, a column per attribute. `strengths`, of each
  attribute, are added to the names of those that have one.
  """
  rows, cols = flipped.shape[:2]
  # As wide as a page, but no tile wider than a thumb.
  tile = min(0.8, (panels.DOUBLE_COLUMN - 0.2) / (cols + 2.2))
  labels = ['original', 'reconstruction']
  names = list(map(panels.name_attribute, attribute_names))
  for i, strength in enumerate(strengths):
    names[i] += '' if strength is None else f' ±{strength:g}'
  # Upright labels need some 0.09 inches a letter.
  room = 0.09 * max(map(len, [*names, *labels])) + (0.3 if title else 0)
  height = rows * tile + room - 0.4
  figure = panels.new_figure((cols + 2.2) * tile, height, title)
  left, right = figure.subplots(
    1, 2, width_ratios=(2, cols), gridspec_kw={'wspace': 0.02}
  )
  pair = np.stack([originals, reconstructions], axis=1)
  for axes, images, texts in ((left, pair, labels), (right, flipped, names)):
    columns = dict(zip(range(images.shape[1]), texts, strict=True))
    panels.show_tiles(axes, images, columns=columns)
    axes.xaxis.tick_top()
    axes.tick_params(axis='x', length=0, rotation=90)
  return figure


@panels.in_own_style
def sweeps(
  images: np.ndarray,
  values: np.ndarray,
  attribute_names: Sequence[str],
  title: str = '',
) -> panels.Figure:
  """Draws images with a factor running over `[cols]` strengths, Figure 8.

  Images are `[rows, cols, S, S, 3]`, a row per attribute.
  """
  rows, cols = images.shape[:2]
  tile = min(0.9, (panels.DOUBLE_COLUMN - 1.5) / cols)
  texts = [panels.minus(f'{x:zg}') for x in np.round(values, 2).tolist()]
  # Where not all have room, every second one is labelled.
  every = 1 if max(map(len, texts)) * 0.09 < tile else 2
  columns = {i: texts[i] for i in range(0, cols, every)}
  names = map(panels.name_attribute, attribute_names)
  room = cols * tile + 1.5, rows * tile + 0.1
  axes = _draw(*room, images, title, rows=names, columns=columns)
  axes.set_xlabel(SWEPT, fontsize='small')
  return axes.figure


@panels.in_own_style
def compared_sweeps(
  images: np.ndarray,
  values: np.ndarray,
  attribute_names: Sequence[str],
  model_names: Sequence[str],
  *,
  xlabel: str,
) -> panels.Figure:
  """Draws sweeps of several models below each other, Figure 8.

  Images are `[rows, models, cols, S, S, 3]`: a group of rows per attribute, and
  in it a row per model over the `[cols]` values.
  """
  rows, models, cols = images.shape[:3]
  tile = min(0.6, (panels.DOUBLE_COLUMN - 3.2) / cols)
  height = rows * (models * tile + 0.08) + 0.1
  figure = panels.new_figure(cols * tile + 3.2, height)
  figure.get_layout_engine().set(hspace=0.01)
  all_axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
  ticks = panels.value_ticks(np.asarray(values))
  for axes, name, group in zip(all_axes, attribute_names, images, strict=True):
    columns = ticks if axes is all_axes[-1] else {}
    panels.show_tiles(
      axes, group, rows=model_names, columns=columns, size='x-small'
    )
    label = textwrap.fill(panels.name_attribute(name), 10)
    axes.set_ylabel(label, rotation=0, ha='right', va='center', size='small')
  axes.set_xlabel(xlabel, fontsize='small')
  return figure


def _draw(width, height, images, title='', **labels):
  """Returns the axes of a new figure of tiles, of inches for its contents."""
  axes = panels.new_figure(width, height).add_subplot()
  panels.show_tiles(axes, images, **labels)
  axes.set_title(title, fontsize='medium')
  return axes
