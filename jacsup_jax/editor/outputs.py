"""Edits as pictures: alone, side by side, as a strip, a grid, an animation."""

from collections.abc import Sequence
import dataclasses
import pathlib

from matplotlib import figure as mpl_figure
import numpy as np

from experiments import edit_requests
from jacsup_jax.editor import editor
from jacsup_jax.figures import panels as figures
from jacsup_jax.figures import pictures
from jacsup_jax.runs import preemption
from jacsup_jax.runs import workdir as workdirs

_MOST_TICKS = 9


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """What is made of each image.

  Attributes:
    strengths: `[U]`, of all units of the editor.
    sweeps: one for a strip, two for a grid, the first of them from left to
      right and the second upwards; none for a single edit.
    keep_detail: see `editor.Editor.edit`.
    side_by_side: a single edit has the original and its reconstruction on its
      left.
    labels: strips and grids are drawn as a figure that tells the strengths.
  """

  strengths: np.ndarray
  sweeps: tuple[edit_requests.Sweep, ...] = ()
  keep_detail: float = 0.0
  side_by_side: bool = False
  labels: bool = False

  @property
  def shape(self) -> tuple[int, int]:
    """Returns rows and columns of the tiles."""
    if self.sweeps:
      counts = [len(sweep.values) for sweep in self.sweeps]
      return (1, *counts) if len(counts) == 1 else (counts[1], counts[0])
    return 1, 3 if self.side_by_side else 1


def make_tiles(
    own: editor.Editor, image: np.ndarray, request: Request
) -> np.ndarray:
  """Makes the edits of an image.

  Args:
    own: the model.
    image: `[H, W, C]` uint8.
    request: what is asked for.

  Returns:
    `[rows, cols, H, W, C]` uint8, row 0 on top.
  """
  encoded = own.encode(image[None])
  if not request.sweeps:
    edit = own.edit(encoded, request.strengths, request.keep_detail)
    if not request.side_by_side:
      return edit[None]
    return np.stack([image[None], own.reconstruct(encoded), edit], axis=1)
  # The last runs fastest: along a row.
  strengths = editor.sweep(request.strengths, request.sweeps[::-1])
  edits = own.edit_in_turn(encoded, strengths, request.keep_detail)[0]
  tiles = edits.reshape(*request.shape, *image.shape)
  return tiles[::-1]


def write_still(
    path: pathlib.Path,
    tiles: np.ndarray,
    units: tuple[editor.Unit, ...],
    request: Request,
) -> None:
  """Writes tiles as one picture, whole or not at all.

  Args:
    path: of the file; one that is there is replaced.
    tiles: see `make_tiles`.
    units: of the editor.
    request: that they are of.

  Raises:
    StorageError: if it cannot be written.
  """
  with preemption.deferred():
    if request.labels:
      with workdirs.writing(path):
        figures.save(_draw(tiles, units, request.sweeps), path)
    else:
      content = pictures.encode(pictures.tile(tiles), path.suffix.lower())
      workdirs.write_whole(path, content)


def write_moving(path: pathlib.Path, tiles: np.ndarray) -> None:
  """Writes a strip as an animation there and back, whole or not at all.

  Args:
    path: of the file; one that is there is replaced.
    tiles: `[1, cols, H, W, C]` uint8.

  Raises:
    StorageError: if it cannot be written.
  """
  frames = pictures.there_and_back(tiles[0])
  content = pictures.encode_moving(frames, path.suffix.lower())
  with preemption.deferred():
    workdirs.write_whole(path, content)


def describe(units: tuple[editor.Unit, ...], request: Request) -> str:
  """Says in a line what is moved, and to which strengths."""
  held = [
      f'{unit.name} {strength:+g}'
      for unit, strength in zip(units, request.strengths)
      if strength
  ]
  ways = ('from left to right', 'upwards')
  swept = [
      f'{units[unit].name} {", ".join(f"{value:+.3g}" for value in values)}'
      f' {way}'
      for (unit, values), way in zip(request.sweeps, ways)
  ]
  return '; '.join([*held, *swept]) or 'nothing is moved'


def name_outputs(names: Sequence[str]) -> list[str]:
  """Names the outputs of the files of a folder: as they are, but .png.

  Args:
    names: of the files. Where two differ in their endings alone, as a.jpg and
      a.webp, all outputs have the whole name first: a.jpg.png.

  Returns:
    As many, all different.
  """
  stems = [pathlib.PurePath(name).stem for name in names]
  # Folders may not tell A from a.
  if len({stem.lower() for stem in stems}) < len(stems):
    stems = names
  return [f'{stem}.png' for stem in stems]


def _draw(tiles, units, sweeps) -> mpl_figure.Figure:
  images = tiles / 255
  labels = [
      f'{units[sweep.unit].name} (standard deviations)' for sweep in sweeps
  ]
  if len(sweeps) == 2:
    return figures.factor_grid(
        images[::-1], sweeps[0].values, sweeps[1].values, labels=tuple(labels)
    )
  count = tiles.shape[1]
  tile = max(0.22, 6.6 / count)
  figure = figures.new_figure(
      count * tile, tile * tiles.shape[2] / tiles.shape[3]
  )
  axes = figure.add_subplot()
  figures.show_tiles(axes, images)
  ticks = np.linspace(0, count - 1, min(count, _MOST_TICKS)).round().astype(int)
  texts = [f'{value:+.3g}' for value in sweeps[0].values[ticks]]
  axes.set_xticks(
      ticks, [text.replace('-', '\N{MINUS SIGN}') for text in texts]
  )
  axes.set_yticks([])
  axes.tick_params(length=2.5)
  axes.set_xlabel(labels[0])
  return figure
