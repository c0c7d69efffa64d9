"""The figures of a run by their numbers, drawn when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import pathlib
from typing import NamedTuple

from matplotlib import figure as mpl_figure

from jacsup_jax.figures import panels as figures

# Numbers in the paper, then what it does not have.
NUMBERS = ('1', '2', '4', '5', '7', '8', '9', '10', '11', '12')
CURVES, RECONSTRUCTIONS, SWEEPS = 'curves', 'reconstructions', 'sweeps'
NAMES = (*NUMBERS, CURVES, RECONSTRUCTIONS, SWEEPS)


class Drawing(NamedTuple):
  """A file of a figure.

  Attributes:
    draw: makes it.
    caption: what it shows, a sentence.
    is_curve: lines in the place of images.
    dpi: of pictures, dots per inch.
    colors: of PNG pictures, None for all.
  """

  draw: Callable[[], mpl_figure.Figure]
  caption: str
  is_curve: bool = False
  dpi: int = figures.DPI
  colors: int | None = None


# Of `NAMES`: the names of its files, without their endings.
Drawings = Mapping[str, Mapping[str, Drawing]]


def save(
    folder: pathlib.Path,
    drawings: Drawings,
    formats: Sequence[str] = ('png',),
) -> Iterator[tuple[str, Drawing, mpl_figure.Figure]]:
  """Draws and writes figures, one after the other.

  Args:
    folder: of the files.
    drawings: all are drawn.
    formats: of `figures.FORMATS`.

  Yields:
    Name of a file without its ending, drawing, and figure, which is written.
  """
  for files in drawings.values():
    for name, drawing in files.items():
      figure = drawing.draw()
      for ending in formats:
        figures.save(
            figure,
            folder / f'{name}.{ending}',
            ending,
            dpi=drawing.dpi,
            colors=drawing.colors,
        )
      yield name, drawing, figure


def save_all(folder: pathlib.Path, drawings: Drawings) -> None:
  """Draws all figures of a run and writes them as PNG."""
  for _ in save(folder, drawings):
    pass
