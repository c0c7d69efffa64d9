"""Files and pictures of what the models of a run are by their Jacobians."""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

import jax
import numpy as np

from jacsup_jax.data import files
from jacsup_jax.figures import grids
from jacsup_jax.figures import jacobians
from jacsup_jax.figures import panels
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.training import steps

_SHOWN_EXAMPLES, _SHOWN_VALUES = 3, 9


def write(
  rows_path: pathlib.Path,
  models: Sequence[steps.Trained],
  entries: Sequence[dict[str, Any]],
  images: np.ndarray,
  **described: Any,
) -> None:
  """Writes DATASET_SPLIT_diagnostics.json and pictures beside the rows.

  DATASET_SPLIT_cosines_STAGE.png shows the angles between the columns of a
  model's Jacobian; DATASET_SPLIT_directions_STAGE.png images along the
  principal directions of the largest trained model of each kind that has a flat
  nuisance.

  Args:
    rows_path: DATASET_SPLIT.json.
    models: in the order of the entries.
    entries: from `jacobian_diagnosis.measure`.
    images: `[M, H, W, C]` uint8.
    **described: more of the file.
  """

  def save(figure, end):
    path = rows_path.with_name(f'{rows_path.stem}_{end}.png')
    files.write_whole(path, panels.encode(figure))

  largest = {}
  for trained, entry in zip(models, entries, strict=True):
    found, stage = entry['column_cosines'], trained.stage
    kind = stage.model.replace('_', ' ').replace('jacobian', 'Jacobian')
    title = f'{kind}, d = {stage.nuisance_dim}'
    figure = jacobians.column_cosines(
      np.array(found['cosines'], float),
      np.array(found['examples']),
      found['names'],
      title,
    )
    save(figure, f'cosines_{stage.name}')
    directions = entry['principal_directions'] or {}
    if 'directions' in directions and stage.model != 'random':
      largest[stage.model] = trained, directions, title
  for trained, directions, title in largest.values():
    figure = _draw_directions(trained.model, images, directions, title)
    save(figure, f'directions_{trained.stage.name}')
  files.write_whole(
    rows_path.with_name(f'{rows_path.stem}_diagnostics.json'),
    json.dumps({**described, 'models': entries}, indent=1),
  )


def _draw_directions(model, images, found, title):
  """Draws a row of images for each principal direction."""
  code = jax.jit(model_lib.Model.encode)(model, images)
  decode = jax.jit(model.decode)
  rows = [
    sweeps.vary_direction(
      decode, code, _SHOWN_EXAMPLES, np.float32(direction), _SHOWN_VALUES
    )
    for direction in found['directions']
  ]
  return grids.traversals(
    np.stack(rows),
    [f'$\\sigma$ = {value:.2f}' for value in found['singular_values']],
    xlabel='principal directions of the nuisance, 1 % to 99 % quantile',
    title=title,
  )
