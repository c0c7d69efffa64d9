"""What the models of a run are by their Jacobians, for experiments.evaluate.

A row of it gets the means; what they are means of goes to a file of its own,
with pictures beside it.
"""

from collections.abc import Sequence
import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import discovery_figures
from jacsup_jax.core import codes
from jacsup_jax.core import codes as latents
from jacsup_jax.evaluation import jacobian_agreement as jacobian_diagnostics
from jacsup_jax.figures import jacobian_figures
from jacsup_jax.figures import panels as figures
from jacsup_jax.figures import traversals
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

# Name of the first teacher's stage, of digits and of faces.
_FIRST = 'teacher'
_NUM_DIRECTIONS = 5
# Each takes a hundred passes through a decoder and more; of feature maps these
# are convolutions.
_FLAT_DIRECTION_IMAGES, _MAP_DIRECTION_IMAGES = 64, 4
_SHOWN_EXAMPLES = 3
_SHOWN_VALUES = 9


class Diagnosed(NamedTuple):
  """A model, its codes of the images, and what was found."""

  trained: stages.Trained
  code: codes.Code  # of M images
  entry: dict[str, Any]  # JSON values


def measure(
    models: Sequence[stages.Trained],
    codes: Sequence[codes.Code],
    factor_names: Sequence[str],
) -> list[Diagnosed]:
  """Measures the Jacobians of models.

  A student is compared with the stage that supervises it, or that it grew from
  where nothing does: on that one's whole code if codes are flat, as it is
  trained, and on its factors if the nuisance is a map. All but teachers are
  compared with the first teacher on its factors.

  Args:
    models: of a run, parents before their children.
    codes: of each, of the same M images.
    factor_names: of the first teacher's factors.

  Returns:
    What was found, in order.
  """
  pairs = {
      trained.stage.name: (trained, code)
      for trained, code in zip(models, codes)
  }
  diagnosed = []
  for trained, code in pairs.values():
    stage = trained.stage
    names, whole = list(factor_names), None
    if code.nuisance.ndim == 2:
      names += [f'z{i + 1}' for i in range(code.nuisance.shape[1])]
      whole = len(names)
    entry = {
        'stage': stage.name,
        'model': stage.model,
        'nuisance_dim': stage.nuisance_dim,
    }
    own = (trained, code)
    is_student = stage.model.startswith('student')
    supervisor = pairs.get(stage.supervisor) if is_student else None
    entry['supervisor'] = supervisor and _compare(own, supervisor, names)
    first = None if stage.model.startswith(_FIRST) else pairs.get(_FIRST)
    # The first teacher's whole code is its factors.
    entry['first_teacher'] = (
        entry['supervisor']
        if first is supervisor
        else first and _compare(own, first, list(factor_names))
    )
    entry['column_cosines'] = _compare_columns(
        *_split(trained, code, whole), names
    )
    entry['principal_directions'] = _find_directions(trained, code)
    diagnosed.append(Diagnosed(trained, code, entry))
  return diagnosed


def row_entries(diagnosed: Diagnosed) -> dict[str, float | None]:
  """Returns what the row of a model has of what was found."""
  row = {}
  for other, end in (('supervisor', ''), ('first_teacher', '_first_teacher')):
    for name in ('cosine', 'norm_error'):
      found = diagnosed.entry[other]
      row[f'jacobian_{name}{end}'] = found and found[name]
  return row


def write(
    rows_path: pathlib.Path,
    diagnosed: Sequence[Diagnosed],
    **described: Any,
) -> pathlib.Path:
  """Writes DATASET_SPLIT_diagnostics.json, and the pictures.

  DATASET_SPLIT_cosines_STAGE.png: how the columns of a model's Jacobian lie to
    each other.
  DATASET_SPLIT_directions_STAGE.png: images along the principal directions of
    the largest trained model of each kind that has a flat nuisance.

  Args:
    rows_path: of the rows, DATASET_SPLIT.json.
    diagnosed: the models.
    **described: what else the file says.

  Returns:
    The file.
  """
  name = functools.partial(_name_beside, rows_path)
  largest = {}
  for model in diagnosed:
    stage, found = model.trained.stage, model.entry['column_cosines']
    kind = stage.model.replace('_', ' ').replace('jacobian', 'Jacobian')
    title = f'{kind}, d = {stage.nuisance_dim}'
    path = name(f'cosines_{stage.name}.png')
    with workdirs.writing(path):
      figure = jacobian_figures.column_cosines(
          np.array(found['cosines'], float),
          np.array(found['examples']),
          found['names'],
          title,
      )
      figures.save(figure, path)
    is_flat = model.code.nuisance.ndim == 2 and model.code.nuisance.size
    # What an untrained model draws looks like nothing.
    if is_flat and stage.model != 'random':
      largest[stage.model] = model, title
  for model, title in largest.values():
    path = name(f'directions_{model.trained.stage.name}.png')
    with workdirs.writing(path):
      figures.save(_draw_directions(model, title), path)
  path = name('diagnostics.json')
  contents = {**described, 'models': [model.entry for model in diagnosed]}
  workdirs.write_whole(path, json.dumps(contents, indent=1))
  return path


def read(rows_path: pathlib.Path) -> dict[str, Any]:
  """Reads the file that `write` wrote beside the rows."""
  return json.loads(_name_beside(rows_path, 'diagnostics.json').read_text())


def format_undefined(diagnostics: dict[str, Any]) -> str:
  """Says which columns of Jacobians are zero, so that no mean has them.

  Args:
    diagnostics: what `read` returns.

  Returns:
    Lines, none where there is no such column.
  """
  lines = []
  for model in diagnostics['models']:
    for other in ('supervisor', 'first_teacher'):
      found = model[other]
      if found is None:
        continue
      zero = [
          f'{name} ({factor["undefined_cosines"]})'
          for name, factor in found['factors'].items()
          if factor['undefined_cosines']
      ]
      if zero:
        lines.append(
            f'{model["stage"]} against {found["stage"]}: the Jacobian\'s cosine'
            f' is undefined, as a column is zero, on so many of'
            f' {diagnostics["images"]} images: {", ".join(zero)}\n'
        )
  return ''.join(lines)


def _name_beside(rows_path, end):
  return rows_path.with_name(f'{rows_path.stem}_{end}')


def _split(trained, code, num_factors):
  """Returns a model, its variables and code with so many units as factors."""
  if num_factors is None:
    return trained.model, trained.variables, code
  flat = latents.merge(code)
  model = trained.model.clone(
      num_factors=num_factors, nuisance_dim=flat.shape[1] - num_factors
  )
  return model, trained.variables, latents.split(flat, num_factors)


def _compare(student, teacher, names):
  """Compares a student with a teacher on as many factors as it has names."""
  count = None
  if teacher[1].nuisance.ndim == 2:
    # The first so many: all of the teacher's, unless fewer are named.
    count = min(len(names), sum(x.shape[1] for x in teacher[1]))
  products = _multiply_columns(
      *_split(*student, count), *_split(*teacher, count)
  )
  found = jacobian_diagnostics.compute_agreement(products, names[:count])
  return {'stage': teacher[0].stage.name, **found}


def _compare_columns(model, variables, code, names):
  cosines, count = jax.device_get(_column_cosines(model, variables, code))
  return {
      'names': names,
      'cosines': [
          # NaN is not JSON.
          [float(c) if n else None for c, n in zip(*row)]
          for row in zip(cosines, count)
      ],
      'examples': count.tolist(),
  }


def _find_directions(trained, code):
  """Finds the principal directions of a model's nuisance, if it has any."""
  dim = code.nuisance[0].size
  if not dim:
    return None
  flat = code.nuisance.ndim == 2
  most = _FLAT_DIRECTION_IMAGES if flat else _MAP_DIRECTION_IMAGES
  code = jax.tree.map(lambda x: x[:most], code)
  found = jax.device_get(
      _principal_directions(
          trained.model, trained.variables, code, min(_NUM_DIRECTIONS, dim)
      )
  )
  entry = {
      'images': len(code.factors),
      'singular_values': found.singular_values.tolist(),
      'residuals': found.residuals.tolist(),
  }
  if flat:
    entry['directions'] = found.directions.tolist()
  return entry


def _draw_directions(model, title):
  found = model.entry['principal_directions']
  rows = [
      traversals.vary_direction(
          functools.partial(discovery_figures.decode, model.trained),
          model.code,
          _SHOWN_EXAMPLES,
          np.array(direction, np.float32),
          _SHOWN_VALUES,
      )
      for direction in found['directions']
  ]
  return figures.traversals(
      np.stack(rows),
      [f'$\\sigma$ = {value:.2f}' for value in found['singular_values']],
      xlabel=(
          'principal directions of the nuisance, from the 1 % to the 99 %'
          ' quantile'
      ),
      title=title,
  )


def _bind(model, variables):
  return functools.partial(
      networks.make_decode(model, variables['batch_stats']),
      variables['params'],
  )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _multiply_columns(
    student, student_variables, student_code, teacher, variables, code
):
  return jacobian_diagnostics.multiply_columns(
      _bind(student, student_variables),
      student_code,
      _bind(teacher, variables),
      code,
  )


@functools.partial(jax.jit, static_argnums=0)
def _column_cosines(model, variables, code):
  return jacobian_diagnostics.compute_column_cosines(
      _bind(model, variables), code
  )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _principal_directions(model, variables, code, count):
  return jacobian_diagnostics.find_principal_directions(
      _bind(model, variables), code, count
  )
