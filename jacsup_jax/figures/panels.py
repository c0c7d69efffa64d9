"""Show images as tiles and encode figures: what all figures share.

Images are grey or RGB, `[..., H, W, C]`, meant for [0, 1]; values outside are
clipped. All of this package that draws takes matplotlib from here: figures do
not depend on the user's settings, and without pyplot on no display either.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import functools
import io
import os
import pathlib
import sys
import tempfile
from typing import ParamSpec, TypeVar

import numpy as np

# MPLBACKEND may name a backend that is not installed here, as in a notebook's
# shell, and a matplotlibrc may have bytes that are no text.
try:
  import matplotlib
except ValueError:
  os.environ.pop('MPLBACKEND', None)
  for name in [*sys.modules]:  # Half of them are imported.
    if name.startswith('matplotlib.'):
      del sys.modules[name]
  with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    pathlib.Path('matplotlibrc').touch()  # The first that is looked for.
    import matplotlib

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker  # noqa: F401
from matplotlib import transforms  # noqa: F401

from jacsup_jax.figures import pictures

Axes, Figure = mpl_axes.Axes, mpl_figure.Figure
_P, _T = ParamSpec('_P'), TypeVar('_T')

# Widths in inches: one column of a two-column page, and the page.
SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0
# PNG is pixels; PDF and SVG keep text as text.
FORMATS = ('png', 'pdf', 'svg')
# Dots per inch of PNG, and the most of an image within PDF and SVG.
DPI = 300
MINUS = '\N{MINUS SIGN}'
# Okabe and Ito's colours, which any colour vision can distinguish.
COLORS = (
    '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000'
)  # fmt: skip
GREY = '0.8'
_NAMES = {
  'student': 'with Jacobian supervision',
  'student_no_jacobian': 'without Jacobian supervision',
  'student_cycle': 'student, cycle losses only',
  'student_from_scratch': 'student from scratch',
  'fader': 'Fader Networks',
  'attgan': 'AttGAN',
  'stargan': 'StarGAN',
  'icgan': 'IcGAN',
  'cvae': 'conditional VAE',
  'beta_vae': 'beta-VAE',
  'annealed_vae': 'annealed VAE',
  'tcvae': 'beta-TCVAE',
  'factor_vae': 'FactorVAE',
  'qlae': 'QLAE',
  'xcov': 'class output and cross-covariance',
  'mixing': 'mixing autoencoder',
  'random': 'random weights',
}
# matplotlib's settings, without those of windows; publishers refuse its Type 3
# fonts.
_SETTINGS = {
  name: value
  for name, value in matplotlib.rcParamsDefault.items()
  if name not in ('backend', 'backend_fallback', 'interactive', 'toolbar')
} | {
  'pdf.fonttype': 42,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'jacsup',
  'axes.axisbelow': True,  # Grids below points.
  'grid.color': GREY,
  'grid.linewidth': 0.6,
}
# Without versions and dates, equal figures are equal files.
_METADATA = {
  'png': {'Software': None},
  'pdf': {'Creator': None, 'Producer': None, 'CreationDate': None},
  'svg': {'Creator': None, 'Date': None},
}


def in_own_style(draw: Callable[_P, _T]) -> Callable[_P, _T]:
  """Makes a function draw with matplotlib's defaults and what differs here."""

  @functools.wraps(draw)
  def styled(*args: _P.args, **options: _P.kwargs) -> _T:
    with matplotlib.rc_context(_SETTINGS):
      return draw(*args, **options)

  return styled


@in_own_style
def new_figure(width: float, height: float, title: str = '') -> Figure:
  """Makes a figure of inches without axes, with room for a line of text."""
  figure = Figure(figsize=(width, height + 0.5), layout='constrained')
  figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)
  if title:
    figure.suptitle(title, fontsize='medium')
  return figure


def show_tiles(
  axes: Axes,
  images: np.ndarray,
  *,
  rows: Iterable[str] = (),
  columns: Mapping[float, str] | None = None,
  size: str = 'small',
) -> None:
  """Shows `[rows, cols, H, W, C]` images as tiles without gaps, row 0 on top.

  Tile (i, j) is at (x, y) = (j, i). Either all `rows` have a text, of `size`,
  or none; `columns` maps the places of texts below the tiles to the texts.
  """
  images = np.asarray(images)
  num_rows, num_columns, height, width, channels = images.shape
  tiled = np.clip(pictures.tile(images), 0, 1)
  axes.imshow(
    tiled[..., 0] if channels == 1 else tiled,
    cmap='gray',
    vmin=0,
    vmax=1,
    extent=(-0.5, num_columns - 0.5, num_rows - 0.5, -0.5),
    aspect=height / width,
  )
  rows, columns = list(rows), columns or {}
  axes.set_xticks(list(columns), list(columns.values()), fontsize='small')
  axes.set_yticks(range(num_rows if rows else 0), rows, fontsize=size)
  axes.tick_params(length=0)


def value_ticks(values: np.ndarray) -> dict[int, str]:
  """Returns index -> text of up to five of `[n]` evenly spaced values."""
  indices = np.unique(np.linspace(0, values.size - 1, 5).round().astype(int))
  spacing = np.ptp(values) / max(indices.size - 1, 1)
  decimals = 1
  if spacing > 0:
    decimals = int(np.clip(np.floor(1.5 - np.log10(spacing)), 0, 6))
  # The format's z avoids -0.0.
  return {int(i): minus(f'{values[i]:z.{decimals}f}') for i in indices}


def minus(text: str) -> str:
  """Returns the text of a number with a minus sign instead of a hyphen."""
  return text.replace('-', MINUS)


def plain(text: str) -> str:
  """Returns text that is shown as it is, with no formula in it."""
  return text.replace('$', r'\$')


def name_model(model: str) -> str:
  """Returns a model's name for readers: 'fader' as 'Fader Networks'."""
  return _NAMES.get(model, plain(model.replace('_', ' ')))


def name_attribute(name: str) -> str:
  """Returns an attribute's name for readers: 'Big_Nose' as 'big nose'."""
  text = name.replace('_', ' ').replace('5 o Clock', "5 o'clock").lower()
  return plain(text)


@in_own_style
def encode(figure: Figure, file_format: str = 'png') -> bytes:
  """Encodes a figure as a file of `FORMATS`; equal figures are equal bytes.

  In PDF and SVG, images keep their own pixels unless these are denser.
  """
  if file_format != 'png':
    figure.draw_without_rendering()
  for axes in figure.axes:
    most = DPI * axes.get_window_extent().width / figure.dpi
    for image in axes.images:
      own_pixels = file_format != 'png' and image.get_array().shape[1] <= most
      image.set_interpolation('none' if own_pixels else None)
  file = io.BytesIO()
  figure.savefig(
    file,
    format=file_format,
    dpi=DPI,
    # Tiles keep their shape, which leaves margins.
    bbox_inches='tight',
    pad_inches=0.05,
    metadata=_METADATA[file_format],
  )
  return file.getvalue()
