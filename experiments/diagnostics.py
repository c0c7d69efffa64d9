"""The Jacobians of a run's models beside its rows, and their directions."""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

import jax
import numpy as np

from experiments import versions
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.evaluation import jacobian_diagnosis
from jacsup_jax.figures import grids
from jacsup_jax.figures import panels
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.runs import run as run_lib
from jacsup_jax.training import steps

_SHOWN_EXAMPLES, _SHOWN_VALUES = 3, 9


def add(
  run: run_lib.Run,
  models: Sequence[steps.Trained],
  rows: Sequence[dict[str, Any]],
  data: registry.Dataset,
  count: int | None,
  path: pathlib.Path,
) -> None:
  """Adds the agreement of Jacobians to the rows; writes details of one seed.

  Args:
    run: of the models.
    models: one for each row.
    rows: of results; entries are added.
    data: to measure on.
    count: images; None for 256 of classes, 16 of faces; 0 for nothing.
    path: of the rows; files are written beside it.
  """
  faces = data.attribute_names is not None
  if count is None:
    count = 16 if faces else 256
  if not count:
    return
  count = min(count, len(data))
  images, labels = data.read(range(count))
  first = None
  for seed in dict.fromkeys(row['seed'] for row in rows):
    own = [
      i
      for i, row in enumerate(rows)
      if row['seed'] == seed and not versions.is_rival(models[i])
    ]
    if not own:
      continue
    of_seed = [models[i] for i in own]
    entries = jacobian_diagnosis.measure(
      [model.stage for model in of_seed],
      [model.model for model in of_seed],
      images,
      run.factor_names,
      labels if faces else None,
    )
    for i, entry in zip(own, entries, strict=True):
      rows[i].update(jacobian_diagnosis.row_entries(entry))
    first = first or (of_seed, entries)
  if first:
    _write(path, *first, images)


def _write(rows_path, models, entries, images):
  """Writes the diagnosis of models, and pictures of principal directions.

  Directions are those of the largest trained model of each kind with a flat
  nuisance.
  """
  largest = {}
  for trained, entry in zip(models, entries, strict=True):
    stage = trained.stage
    kind = stage.model.replace('_', ' ').replace('jacobian', 'Jacobian')
    title = f'{kind}, d = {stage.nuisance_dim}'
    directions = entry['principal_directions'] or {}
    if 'directions' in directions and stage.model != 'random':
      largest[stage.model] = trained, directions, title
  for trained, directions, title in largest.values():
    figure = _draw_directions(trained.model, images, directions, title)
    name = f'{rows_path.stem}_directions_{trained.stage.name}.png'
    files.write_whole(rows_path.with_name(name), panels.encode(figure))
  files.write_whole(
    rows_path.with_name(f'{rows_path.stem}_diagnostics.json'),
    json.dumps({'images_measured': len(images), 'models': entries}, indent=1),
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
