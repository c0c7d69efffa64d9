"""Draw tiles of images and write figures: what all figures share.

Images are grey or RGB, `[..., H, W, C]` with C of 1 or 3, meant for [0, 1];
values outside, as a decoder's Tanh may give, are clipped. Figures are made
without pyplot, so neither a display nor the user's backend matters.
"""

from collections.abc import Mapping, Sequence
import contextlib
import os
import pathlib
from typing import BinaryIO

import chex
import matplotlib
from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
import numpy as np
from PIL import Image

from jacsup_jax.figures import pictures

# Widths in inches: one column of a two-column page, and the page.
SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0
# `save` writes PNG as pixels; PDF and SVG keep text as text.
FORMATS = ('png', 'pdf', 'svg')
# Dots per inch of PNG, and the most of an image within PDF and SVG.
DPI = 300
MINUS = '\N{MINUS SIGN}'
# Okabe and Ito's colours, which any colour vision can distinguish.
COLORS = (
    '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000'
)  # fmt: skip
GREY = '0.8'
# Publishers refuse the default's Type 3 fonts.
_STYLE = {'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'jacsup'}
# Without versions and dates, equal figures are equal files.
_METADATA = {
  'png': {'Software': None},
  'pdf': {'Creator': None, 'Producer': None, 'CreationDate': None},
  'svg': {'Creator': None, 'Date': None},
}


def reconstructions(
  rows: Mapping[str, np.ndarray], title: str | None = None
) -> mpl_figure.Figure:
  """Draws originals and their reconstructions, a row per model, Figure 7.

  Args:
    rows: name of a row -> `[n, H, W, C]`, all of the same shape.
    title: above the figure.
  """
  images = [np.asarray(row) for row in rows.values()]
  chex.assert_rank(images, 4)
  chex.assert_equal_shape(images)
  count, height, width, _ = images[0].shape
  tile = min(0.45, (DOUBLE_COLUMN - 2) / count)
  figure = new_figure(count * tile + 2.0, len(rows) * tile * height / width)
  axes = figure.add_subplot()
  show_tiles(axes, np.stack(images))
  label_tiles(axes, rows=rows)
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def swaps(
  donors: np.ndarray,
  recipients: np.ndarray,
  swapped: np.ndarray,
  title: str | None = None,
) -> mpl_figure.Figure:
  """Draws swaps of factors: donors along the top, recipients down the side.

  Args:
    donors: `[cols, H, W, C]`, images that give their factors.
    recipients: `[rows, H, W, C]`, images that keep their nuisance.
    swapped: `[rows, cols, H, W, C]`, decoded from the factors of a column's
      donor and the nuisance of a row's recipient.
    title: above the figure.
  """
  chex.assert_rank([donors, recipients, swapped], [4, 4, 5])
  chex.assert_equal_shape([donors, swapped[0]])
  chex.assert_equal_shape([recipients, swapped[:, 0]])
  rows, cols, height, width, _ = swapped.shape
  inner = np.concatenate([np.asarray(donors)[None], swapped])
  corner = np.ones_like(inner[:1, 0])
  side = np.concatenate([corner, recipients])
  tile = min(0.6, (DOUBLE_COLUMN - 0.6) / (cols + 1))
  figure = new_figure(
    (cols + 1) * tile + 0.6, (rows + 1) * tile * height / width
  )
  axes = figure.add_subplot()
  show_tiles(axes, np.concatenate([side[:, None], inner], axis=1))
  label_tiles(axes)
  axes.set_frame_on(False)
  axes.axhline(0.5, color='white', linewidth=3)
  axes.axvline(0.5, color='white', linewidth=3)
  # Labels stand at the middle of the donors and of the recipients.
  axes.set_xlabel(
    'donors of factors', x=(cols + 2) / (2 * cols + 2), fontsize='small'
  )
  axes.xaxis.set_label_position('top')
  axes.set_ylabel('recipients', y=rows / (2 * rows + 2), fontsize='small')
  if title:
    axes.set_title(title, fontsize='medium')
  return figure


def new_figure(width: float, height: float) -> mpl_figure.Figure:
  """Makes a figure of inches without axes, with room for a line of text.

  Args:
    width: of the whole figure.
    height: of its contents, without that line.
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
  tiled = np.clip(pictures.tile(images), 0, 1)
  axes.imshow(
    tiled[..., 0] if channels == 1 else tiled,
    cmap='gray',
    vmin=0,
    vmax=1,
    extent=(-0.5, cols - 0.5, rows - 0.5, -0.5),
    aspect=height / width,
  )


def label_tiles(
  axes: mpl_axes.Axes,
  *,
  rows: Sequence[str] | Mapping[str, object] = (),
  columns: Mapping[float, str] | None = None,
  size: str = 'small',
) -> None:
  """Labels rows and columns of tiles, without marks.

  Args:
    axes: of `show_tiles`.
    rows: text of each row from the top; none for no labels.
    columns: column -> text.
    size: of the rows' texts.
  """
  columns = columns or {}
  axes.set_xticks(list(columns), list(columns.values()), fontsize='small')
  axes.set_yticks(range(len(rows)), list(rows), fontsize=size)
  axes.tick_params(length=0)


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
  # The format's z avoids -0.0.
  texts = [f'{value:z.{decimals}f}' for value in values[indices]]
  return indices, [text.replace('-', MINUS) for text in texts]


def plain(text: str) -> str:
  """Returns text that is shown as it is, with no formula in it."""
  return text.replace('$', r'\$')


def check_labels(labels: Sequence[str], count: int, what: str) -> None:
  """Raises ValueError unless there are `count` labels."""
  if len(labels) != count:
    raise ValueError(f'{len(labels)} labels for {count} {what}.')


def save(
  figure: mpl_figure.Figure,
  path: str | os.PathLike[str],
  file_format: str = 'png',
  *,
  dpi: int = DPI,
  colors: int | None = None,
) -> None:
  """Writes a figure, whole or not at all; makes its folder.

  Args:
    figure: to write.
    path: of the file; an existing one is replaced.
    file_format: one of `FORMATS`.
    dpi: dots per inch, see `write`.
    colors: number of colours that a PNG is reduced to: 256 make it a third as
      large; None keeps all.
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

  In PDF and SVG, images keep their own pixels unless these are denser than
  `dpi`. `target` is a path, or a file opened for bytes; see `save`.
  """
  with matplotlib.rc_context(_STYLE), _own_pixels(figure, file_format, dpi):
    figure.savefig(
      target,
      format=file_format,
      dpi=dpi,
      # Tiles keep their shape, which leaves margins.
      bbox_inches='tight',
      pad_inches=0.05,
      metadata=_METADATA[file_format],
    )


@contextlib.contextmanager
def _own_pixels(figure, file_format, dpi):
  """Embeds images of PDF and SVG without resampling, if they are not large."""
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
