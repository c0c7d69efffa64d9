"""Draw faces whose attributes are flipped or swept, Figures 5 and 8.

Images are RGB in [0, 1], `[..., S, S, 3]`; values outside are clipped.
Names of attributes are those of the data.
"""

from collections.abc import Sequence
import textwrap

import chex
from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.figures import panels

_TITLES = {
  'student_no_jacobian': 'without Jacobian supervision',
  'student_cycle': 'student, cycle losses only',
  'student_from_scratch': 'student from scratch',
  'fader': 'Fader Networks',
  'random': 'random weights',
}


def attribute_flips(
  originals: np.ndarray,
  reconstructions: np.ndarray,
  flipped: np.ndarray,
  attribute_names: Sequence[str],
  title: str | None = None,
) -> mpl_figure.Figure:
  """Draws subjects with one attribute flipped at a time, Figure 5.

  Args:
    originals: `[rows, S, S, 3]`, a row per subject.
    reconstructions: `[rows, S, S, 3]`.
    flipped: `[rows, cols, S, S, 3]`, a column per attribute.
    attribute_names: one per column.
    title: above the figure.
  """
  chex.assert_rank([originals, reconstructions, flipped], [4, 4, 5])
  chex.assert_equal_shape([originals, reconstructions, flipped[:, 0]])
  rows, cols = flipped.shape[:2]
  panels.check_labels(attribute_names, cols, 'columns of images')
  pair = np.stack([originals, reconstructions], axis=1)
  # As wide as a page, but no tile wider than a thumb.
  tile = min(0.8, (panels.DOUBLE_COLUMN - 0.2) / (cols + 2.2))
  labels = ['original', 'reconstruction']
  names = [readable(name) for name in attribute_names]
  # Upright labels need some 0.09 inches a letter.
  room = 0.09 * max(map(len, [*names, *labels])) + (0.3 if title else 0)
  figure = panels.new_figure((cols + 2.2) * tile, rows * tile + room - 0.4)
  all_axes = figure.subplots(
    1, 2, width_ratios=(2, cols), gridspec_kw={'wspace': 0.02}
  )
  for axes, images, texts in zip(all_axes, (pair, flipped), (labels, names)):
    panels.show_tiles(axes, np.asarray(images))
    panels.label_tiles(axes, columns=dict(enumerate(texts)))
    axes.xaxis.tick_top()
    axes.tick_params(axis='x', length=0, rotation=90)
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure


def sweeps(
  images: np.ndarray,
  values: np.ndarray,
  row_labels: Sequence[str],
  *,
  title: str | None = None,
) -> mpl_figure.Figure:
  """Draws images with a factor running over values, Figure 8.

  Args:
    images: `[rows, cols, S, S, 3]`, a row per attribute.
    values: `[cols]`, values of the factor, such as -alpha to alpha.
    row_labels: names of attributes, one per row.
    title: above the figure.
  """
  chex.assert_rank(images, 5)
  rows, cols = images.shape[:2]
  chex.assert_shape(values, (cols,))
  panels.check_labels(row_labels, rows, 'rows of images')
  tile = min(0.9, (panels.DOUBLE_COLUMN - 1.5) / cols)
  figure = panels.new_figure(cols * tile + 1.5, rows * tile + 0.1)
  axes = figure.add_subplot()
  panels.show_tiles(axes, np.asarray(images))
  rounded = np.round(np.asarray(values, float), 2)
  texts = [f'{value:zg}'.replace('-', panels.MINUS) for value in rounded]
  # Where not all have room, every second one is labelled.
  every = 1 if max(map(len, texts)) * 0.09 < tile else 2
  columns = {i: texts[i] for i in range(0, cols, every)}
  names = [readable(label) for label in row_labels]
  panels.label_tiles(axes, rows=names, columns=columns)
  axes.set_xlabel('value of the factor $y_i$', fontsize='small')
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def compared_sweeps(
  images: np.ndarray,
  values: np.ndarray,
  attribute_names: Sequence[str],
  model_names: Sequence[str],
  *,
  xlabel: str,
) -> mpl_figure.Figure:
  """Draws sweeps of several models below each other, Figure 8.

  Args:
    images: `[rows, models, cols, S, S, 3]`, a group of rows per attribute.
    values: `[cols]`, values of the factor.
    attribute_names: one per group.
    model_names: one per row of a group.
    xlabel: what varies along a row.
  """
  chex.assert_rank(images, 6)
  rows, models, cols = images.shape[:3]
  chex.assert_shape(values, (cols,))
  panels.check_labels(attribute_names, rows, 'groups of images')
  panels.check_labels(model_names, models, 'rows of a group')
  tile = min(0.6, (panels.DOUBLE_COLUMN - 3.2) / cols)
  figure = panels.new_figure(
    cols * tile + 3.2, rows * (models * tile + 0.08) + 0.1
  )
  figure.get_layout_engine().set(hspace=0.01)
  all_axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
  for axes, name, group in zip(all_axes, attribute_names, images):
    panels.show_tiles(axes, np.asarray(group))
    panels.label_tiles(axes, rows=model_names, size='x-small')
    axes.set_ylabel(
        textwrap.fill(readable(name), 10), rotation=0, ha='right', va='center',
        fontsize='small',
    )  # fmt: skip
  ticks, texts = panels.value_ticks(np.asarray(values))
  all_axes[-1].set_xticks(ticks, texts, fontsize='small')
  all_axes[-1].set_xlabel(xlabel, fontsize='small')
  return figure


def front(
  grids: Sequence[tuple[str, np.ndarray]],
  originals: np.ndarray | None = None,
  swept: np.ndarray | None = None,
  attribute_names: Sequence[str] = (),
) -> mpl_figure.Figure:
  """Draws grids of factors with faces beside them, the picture of the README.

  Args:
    grids: pairs of a title and `[rows, cols, H, W, C]` images, whose first row
      is the lowest.
    originals: `[rows, S, S, 3]`, faces, if any.
    swept: `[rows, cols, S, S, 3]`, the same with an attribute varied.
    attribute_names: one per row of faces.

  Raises:
    ValueError: if there is nothing to draw.
  """
  if not grids and swept is None:
    raise ValueError('neither grids nor faces: nothing to draw.')
  shown = [(title, np.asarray(images)[::-1]) for title, images in grids]
  if swept is not None:
    shown.append((None, np.concatenate([originals[:, None], swept], axis=1)))
  height = 2.35
  widths = [height * images.shape[1] * images.shape[3]
            / (images.shape[0] * images.shape[2])
            for _, images in shown]  # fmt: skip
  # Names stand on the left of the faces.
  margin = 0.4 if swept is None else 1.4
  figure = panels.new_figure(sum(widths) + margin, height)
  all_axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)
  for axes, (title, images) in zip(all_axes[0], shown):
    panels.show_tiles(axes, images)
    panels.label_tiles(axes)
    axes.set_title(title or '', fontsize='small')
  if swept is not None:
    names = [readable(name) for name in attribute_names]
    columns = {0: 'original', (swept.shape[1] + 1) / 2: 'one attribute varied'}
    panels.label_tiles(axes, rows=names, columns=columns)
    axes.axvline(0.5, color='white', linewidth=3)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
  return figure


def name_model(model: str) -> str:
  """Returns a model's name for readers: 'fader' as 'Fader Networks'."""
  return _TITLES.get(model, panels.plain(model.replace('_', ' ')))


def readable(name: str) -> str:
  """Returns an attribute's name for readers: 'Big_Nose' as 'big nose'."""
  text = name.replace('_', ' ').replace('5 o Clock', "5 o'clock").lower()
  return panels.plain(text)
