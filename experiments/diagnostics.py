"""What the models of a run are by their Jacobians, for experiments.evaluate.

The row of a model gets means; what they are means of goes into a file of its
own, with pictures beside it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import files
from jacsup_jax.evaluation import jacobian_agreement
from jacsup_jax.figures import digits
from jacsup_jax.figures import jacobians
from jacsup_jax.figures import panels
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.training import steps

_NUM_DIRECTIONS = 5
# Each takes a hundred passes through a decoder and more.
_FLAT_DIRECTION_IMAGES, _MAP_DIRECTION_IMAGES = 64, 4
_SHOWN_EXAMPLES, _SHOWN_VALUES = 3, 9


def measure(
    models: Sequence[steps.Trained],
    images: np.ndarray,
    labels: np.ndarray | None,
    factor_names: Sequence[str],
) -> list[dict[str, Any]]:
  """Measures the Jacobians of the models of one seed.

  A student is compared with the stage that supervises it, or that it grew from
  if none does: on that one's whole code if codes are flat, as it is trained,
  and on its factors if the nuisance is a map. All but teachers are compared
  with the first teacher on its factors.

  Args:
    models: parents before their children.
    images: `[M, H, W, C]` uint8.
    labels: `[M, K]` of faces.
    factor_names: of the first teacher's factors.

  Returns:
    JSON values for each model.
  """
  pairs = {
      trained.stage.name: (trained, _encode(trained.model, images, labels))
      for trained in models
  }
  [first] = [
      pair for pair in pairs.values() if pair[0].stage.model == 'teacher'
  ][:1] or [None]
  entries = []
  for trained, code in pairs.values():
    stage, names, whole = trained.stage, list(factor_names), None
    if code.nuisance.ndim == 2:
      names += [f'z{i + 1}' for i in range(code.nuisance.shape[1])]
      whole = len(names)
    own, supervisor, compared = (trained, code), None, None
    if stage.model.startswith('student'):
      supervisor = pairs.get(stage.supervisor)
    if supervisor is not None:
      compared = _compare(own, supervisor, names)
    compared_with_first = compared
    if first is not supervisor:
      compared_with_first = None
      if first is not None and not stage.model.startswith('teacher'):
        compared_with_first = _compare(own, first, list(factor_names))
    cosines, count = jax.device_get(
        _column_cosines(*_split(trained.model, code, whole))
    )
    entries.append({
        'stage': stage.name,
        'model': stage.model,
        'nuisance_dim': stage.nuisance_dim,
        'supervisor': compared,
        'first_teacher': compared_with_first,
        'column_cosines': {
            'names': names,
            # NaN is not JSON.
            'cosines': np.where(count, cosines, None).tolist(),
            'examples': count.tolist(),
        },
        'principal_directions': _find_directions(trained.model, code),
    })
  return entries


def row_entries(entry: Mapping[str, Any]) -> dict[str, float | None]:
  """Returns what the row of a model has of its entry."""
  return {
      f'jacobian_{name}{end}': entry[other] and entry[other][name]
      for other, end in (
          ('supervisor', ''), ('first_teacher', '_first_teacher')
      )  # fmt: skip
      for name in ('cosine', 'norm_error')
  }


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
    entries: from `measure`.
    images: `[M, H, W, C]` uint8.
    **described: more of the file.
  """
  def save(figure, end):
    path = rows_path.with_name(f'{rows_path.stem}_{end}.png')
    with files.writing(path):
      panels.save(figure, path)

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


def format_undefined(entries: Sequence[Mapping[str, Any]]) -> list[str]:
  """Lists the Jacobian columns that are zero, which no mean contains."""
  lines = []
  for entry in entries:
    for found in (entry['supervisor'], entry['first_teacher']):
      zero = [
          f'{name} ({factor["undefined_cosines"]} images)'
          for name, factor in (found or {'factors': {}})['factors'].items()
          if factor['undefined_cosines']
      ]
      if zero:
        lines.append(
            f'{entry["stage"]} against {found["stage"]}: the cosine of columns'
            f' that are zero is undefined: {", ".join(zero)}'
        )
  return list(dict.fromkeys(lines))


def _split(model, code, num_factors):
  """Returns a model and its code with that many units as factors."""
  if num_factors is None:
    return model, code
  flat = codes.merge(code)
  module = model.module.clone(
      num_factors=num_factors, nuisance_dim=flat.shape[1] - num_factors
  )
  return dataclasses.replace(model, module=module), codes.split(
      flat, num_factors
  )


def _compare(student, teacher, names):
  """Compares a student with a teacher on as many factors as it has names."""
  count = None
  if teacher[1].nuisance.ndim == 2:
    count = min(len(names), sum(x.shape[1] for x in teacher[1]))
  products = _multiply_columns(
      *_split(student[0].model, student[1], count),
      *_split(teacher[0].model, teacher[1], count),
  )
  found = jacobian_agreement.compute_agreement(products, names[:count])
  return {'stage': teacher[0].stage.name, **found}


def _find_directions(model, code):
  """Finds the principal directions of a model's nuisance, if it has any."""
  dim, flat = code.nuisance[0].size, code.nuisance.ndim == 2
  if not dim:
    return None
  most = _FLAT_DIRECTION_IMAGES if flat else _MAP_DIRECTION_IMAGES
  code = jax.tree.map(lambda x: x[:most], code)
  found = jax.device_get(
      _principal_directions(model, code, min(_NUM_DIRECTIONS, dim))
  )
  return {
      'images': len(code.factors),
      'singular_values': found.singular_values.tolist(),
      'residuals': found.residuals.tolist(),
      **({'directions': found.directions.tolist()} if flat else {}),
  }


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
  return digits.traversals(
      np.stack(rows),
      [f'$\\sigma$ = {value:.2f}' for value in found['singular_values']],
      xlabel='principal directions of the nuisance, 1 % to 99 % quantile',
      title=title,
  )


_encode = jax.jit(model_lib.Model.encode)


@jax.jit
def _multiply_columns(student, student_code, teacher, teacher_code):
  return jacobian_agreement.multiply_columns(
      student.decode, student_code, teacher.decode, teacher_code
  )


@jax.jit
def _column_cosines(model, code):
  return jacobian_agreement.compute_column_cosines(model.decode, code)


@functools.partial(jax.jit, static_argnums=2)
def _principal_directions(model, code, count):
  return jacobian_agreement.find_principal_directions(model.decode, code, count)
