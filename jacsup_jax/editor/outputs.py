"""Render edits as pictures: single, side by side, a strip or a grid."""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from jacsup_jax.editor import editor
from jacsup_jax.editor import requests
from jacsup_jax.evaluation import unit_scales


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """What is made from each image."""

  strengths: np.ndarray  # [U], of all units of the editor
  # One for a strip, two for a grid (the first from left to right, the second
  # upwards), none for a single edit.
  sweeps: tuple[requests.Sweep, ...] = ()
  keep_detail: float = 0.0
  side_by_side: bool = False  # original, reconstruction and a single edit

  @property
  def shape(self) -> tuple[int, int]:
    """Rows and columns of the tiles."""
    counts = [len(sweep.values) for sweep in self.sweeps]
    if counts:
      return counts[1] if len(counts) == 2 else 1, counts[0]
    return 1, 3 if self.side_by_side else 1


def make_tiles(
  own: editor.Editor, image: np.ndarray, request: Request
) -> np.ndarray:
  """Edits `[H, W, C]` uint8: `[rows, cols, H, W, C]` uint8, row 0 on top."""
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


def describe(units: Sequence[unit_scales.Unit], request: Request) -> str:
  """Describes in one line which units are moved, and how far."""
  parts = [
    f'{unit.name} {strength:+g}'
    for unit, strength in zip(units, request.strengths)
    if strength
  ]
  for (unit, values), way in zip(
    request.sweeps, ('from left to right', 'upwards')
  ):
    text = ', '.join(f'{value:+.3g}' for value in values)
    parts.append(f'{units[unit].name} {text} {way}')
  return '; '.join(parts) or 'nothing is moved'


def name_outputs(names: Sequence[str]) -> list[str]:
  """Names the .png outputs for the files of a folder, all different.

  `a.png` for `a.jpg`, or `a.jpg.png` if two files differ only in their endings.
  """
  stems = [pathlib.PurePath(name).stem for name in names]
  # Some file systems do not distinguish A from a.
  if len({stem.lower() for stem in stems}) < len(stems):
    stems = names
  return [f'{stem}.png' for stem in stems]
