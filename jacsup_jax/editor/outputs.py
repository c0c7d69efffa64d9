"""Render edits as pictures: single, side by side, a strip, a grid, animated."""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from jacsup_jax.data import files
from jacsup_jax.editor import editor
from jacsup_jax.editor import requests
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.figures import pictures


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """What is made from each image.

  Attributes:
    strengths: `[U]`, of all units of the editor.
    sweeps: one for a strip, two for a grid (the first from left to right, the
      second upwards), none for a single edit.
    keep_detail: see `editor.Editor.edit`.
    side_by_side: whether a single edit has the original and its reconstruction
      on its left.
  """

  strengths: np.ndarray
  sweeps: tuple[requests.Sweep, ...] = ()
  keep_detail: float = 0.0
  side_by_side: bool = False

  @property
  def shape(self) -> tuple[int, int]:
    """Rows and columns of the tiles."""
    if self.sweeps:
      counts = [len(sweep.values) for sweep in self.sweeps]
      return (1, *counts) if len(counts) == 1 else (counts[1], counts[0])
    return 1, 3 if self.side_by_side else 1


def make_tiles(
  own: editor.Editor, image: np.ndarray, request: Request
) -> np.ndarray:
  """Makes the edits of an image.

  Args:
    own: the editor.
    image: `[H, W, C]` uint8.
    request: the edits.

  Returns:
    `[rows, cols, H, W, C]` uint8, row 0 on top.
  """
  encoded = own.encode(image[None])
  if not request.sweeps:
    edit = own.edit(encoded, request.strengths, request.keep_detail)
    if not request.side_by_side:
      return edit[None]
    return np.stack([image[None], own.reconstruct(encoded), edit], axis=1)
  # The last sweep runs fastest, along a row.
  strengths = requests.sweep(request.strengths, request.sweeps[::-1])
  edits = own.edit_in_turn(encoded, strengths, request.keep_detail)[0]
  return edits.reshape(*request.shape, *image.shape)[::-1]


def write_still(path: pathlib.Path, tiles: np.ndarray) -> None:
  """Writes tiles as one picture, whole or not at all.

  Args:
    path: the file; an existing one is replaced.
    tiles: `[rows, cols, H, W, C]` uint8.

  Raises:
    StorageError: if it cannot be written.
  """
  content = pictures.encode(pictures.tile(tiles), path.suffix.lower())
  files.write_whole(path, content)


def write_moving(path: pathlib.Path, tiles: np.ndarray) -> None:
  """Writes a strip as an animation, forth and back, whole or not at all.

  Args:
    path: the file; an existing one is replaced.
    tiles: `[1, cols, H, W, C]` uint8.

  Raises:
    StorageError: if it cannot be written.
  """
  content = pictures.encode_moving(tiles[0], path.suffix.lower())
  files.write_whole(path, content)


def describe(units: Sequence[unit_scales.Unit], request: Request) -> str:
  """Describes in one line which units are moved, and how far."""
  held = [
    f'{unit.name} {strength:+g}'
    for unit, strength in zip(units, request.strengths)
    if strength
  ]
  ways = ('from left to right', 'upwards')
  swept = [
    f'{units[unit].name} {", ".join(f"{value:+.3g}" for value in values)} {way}'
    for (unit, values), way in zip(request.sweeps, ways)
  ]
  return '; '.join([*held, *swept]) or 'nothing is moved'


def name_outputs(names: Sequence[str]) -> list[str]:
  """Names the .png outputs for the files of a folder.

  Args:
    names: of the files.

  Returns:
    As many names, all different: `a.png` for `a.jpg`, and `a.jpg.png` if two
    files differ only in their endings.
  """
  stems = [pathlib.PurePath(name).stem for name in names]
  # Some file systems do not distinguish A from a.
  if len({stem.lower() for stem in stems}) < len(stems):
    stems = names
  return [f'{stem}.png' for stem in stems]
