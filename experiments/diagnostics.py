"""Files and pictures of what the models of a run are by their Jacobians.

`evaluation.jacobian_diagnosis` measures; experiments.evaluate writes the means
into rows, and what they are means of into a file of its own with pictures
beside it.
"""

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

  DATASET_SPLIT_cosines_STAGE.png: the angles between the columns of a model's
    Jacobian.
  DATASET_SPLIT_directions_STAGE.png: images along the principal directions of
    the largest trained model of each kind that has a flat nuisance.

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
  code = _encode(model, images, None)
  rows = [
      sweeps.vary_direction(
          jax.jit(model.decode),
          code,
          _SHOWN_EXAMPLES,
          np.array(direction, np.float32),
          _SHOWN_VALUES,
      )
      for direction in found['directions']
  ]
  return grids.traversals(
      np.stack(rows),
      [f'$\\sigma$ = {value:.2f}' for value in found['singular_values']],
      xlabel='principal directions of the nuisance, 1 % to 99 % quantile',
      title=title,
  )


_encode = jax.jit(model_lib.Model.encode)
