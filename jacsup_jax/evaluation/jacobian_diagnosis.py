"""The Jacobians of a run's models, compared along its chain of stages."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.evaluation import jacobian_agreement
from jacsup_jax.models import model as models

_NUM_DIRECTIONS = 5
# Each takes a hundred passes through a decoder and more; of feature maps these
# are convolutions.
_FLAT_DIRECTION_IMAGES, _MAP_DIRECTION_IMAGES = 64, 4


@dataclasses.dataclass(frozen=True)
class _Member:
  stage: config.Stage
  model: models.Model
  code: codes.Code


def measure(
  stages: Sequence[config.Stage],
  stage_models: Sequence[models.Model],
  images: jax.Array,
  factor_names: Sequence[str],
  attributes: jax.Array | None = None,
) -> list[dict[str, Any]]:
  """Measures the Jacobians of the models of one run and seed.

  A student is compared with the stage that supervises it, or that it grew from
  if none does: on that one's whole code if codes are flat, as it is trained,
  and on its factors if the nuisance is a map. All but teachers are also
  compared with the first teacher on its factors.

  Images are `[M, H, W, C]` uint8, M of some 16 to 256; attributes `[M, K]` are
  for models whose factors are the labels. Returns JSON values per model:
  `stage`, `model`, `nuisance_dim`; `supervisor` and `first_teacher`, see
  `jacobian_agreement.compute_agreement`, and `principal_directions`, or None.
  """
  members = {
    stage.name: _Member(stage, model, _encode(model, images, attributes))
    for stage, model in zip(stages, stage_models, strict=True)
  }
  return [
    _measure_member(own, members, factor_names) for own in members.values()
  ]


def row_entries(diagnosed: dict[str, Any]) -> dict[str, float | None]:
  """Returns the entries of a row of results.json for one entry of `measure`."""
  row = {}
  for other, end in (('supervisor', ''), ('first_teacher', '_first_teacher')):
    found = diagnosed[other]
    for name in ('cosine', 'norm_error'):
      row[f'jacobian_{name}{end}'] = found and found[name]
  return row


def _measure_member(member, members, factor_names):
  stage, names = member.stage, list(factor_names)
  if member.code.nuisance.ndim == 2:
    names += [f'z{i + 1}' for i in range(member.code.nuisance.shape[1])]
  is_student = stage.model.startswith('student')
  supervisor = members.get(stage.supervisor) if is_student else None
  first = None
  if not _is_teacher(member):
    first = next(filter(_is_teacher, members.values()), None)
  against = supervisor and _compare(member, supervisor, names)
  return {
    'stage': stage.name,
    'model': stage.model,
    'nuisance_dim': stage.nuisance_dim,
    'supervisor': against,
    # The first teacher's whole code is its factors.
    'first_teacher': (
      against
      if first is supervisor
      else first and _compare(member, first, factor_names)
    ),
    'principal_directions': _find_directions(member),
  }


def _is_teacher(member):
  return member.stage.model.startswith('teacher')


def _compare(student, teacher, names):
  """Compares a student with a teacher on as many factors as it has names."""
  count = None
  if teacher.code.nuisance.ndim == 2:
    # All units of the teacher, unless fewer are named.
    count = min(len(names), sum(x.shape[1] for x in teacher.code))
  products = _multiply_columns(
    student.model, student.code, teacher.model, teacher.code, count
  )
  names = names[:count]
  found = jacobian_agreement.compute_agreement(products, names)
  return {'stage': teacher.stage.name, **found}


def _find_directions(member):
  """Finds the principal directions of a model's nuisance, if it has any."""
  dim = member.code.nuisance[0].size
  if not dim:
    return None
  flat = member.code.nuisance.ndim == 2
  most = _FLAT_DIRECTION_IMAGES if flat else _MAP_DIRECTION_IMAGES
  code = jax.tree.map(lambda x: x[:most], member.code)
  found = jax.device_get(
    _principal_directions(member.model, code, min(_NUM_DIRECTIONS, dim))
  )
  entry = {
    'images': len(code.factors),
    'singular_values': found.singular_values.tolist(),
    'residuals': found.residuals.tolist(),
  }
  if flat:
    entry['directions'] = found.directions.tolist()
  return entry


_encode = jax.jit(models.Model.encode)


@functools.partial(jax.jit, static_argnums=4)
def _multiply_columns(student, student_code, teacher, teacher_code, count):
  """Multiplies columns; of flat codes the first `count` units are factors."""
  args = []
  for model, code in ((student, student_code), (teacher, teacher_code)):
    if count is not None:
      flat = codes.merge(code)
      sizes = {'num_factors': count, 'nuisance_dim': flat.shape[1] - count}
      model = dataclasses.replace(model, module=model.module.clone(**sizes))
      code = codes.split(flat, count)
    args += [model.decode, code]
  return jacobian_agreement.multiply_columns(*args)


@functools.partial(jax.jit, static_argnums=2)
def _principal_directions(model, code, count):
  return jacobian_agreement.find_principal_directions(model.decode, code, count)
