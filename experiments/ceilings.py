"""The ceiling of exact secant supervision by a run's first teacher."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import swap_ceiling
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages

_TITLES = {
    'class_swaps': 'class swaps',
    'by_image': 'by donor\'s image',
    'by_teacher_image': 'by teacher image',
}


def measure(
    teacher: stages.Trained,
    ensemble: judges.Judges,
    images: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Measures what students of this teacher could reach, if they met eq. (9).

  Args:
    teacher: the first one of a run.
    ensemble: of judges.
    images: `[M, H, W, C]` uint8.
    rows: of the run's models, measured on the same images: at the error of each
      student the ceiling is measured too.

  Returns:
    JSON values: `shares`, an entry for each of `swap_ceiling.SHARES`, and
    `students`, an entry for each student; see `swap_ceiling.summarize`.
  """
  [teacher_mse] = [
      row['mse'] for row in rows if row['stage'] == teacher.stage.name
  ]
  students = [row for row in rows if row['model'].startswith('student')]
  own = [
      swap_ceiling.share_of_error(row['mse'], teacher_mse) for row in students
  ]
  shares = sorted({*swap_ceiling.SHARES, *own} - {None}, reverse=True)
  counts = _measure(
      teacher.model,
      teacher.variables,
      ensemble.model,
      ensemble.params,
      jnp.asarray(images),
      jnp.array(shares),
  )
  entries = swap_ceiling.summarize(
      jax.device_get(counts), shares, teacher_mse
  )
  found = dict(zip(shares, entries))
  return {
      'teacher': teacher.stage.name,
      'teacher_mse': teacher_mse,
      'shares': [found[share] for share in swap_ceiling.SHARES],
      'students': [
          {
              **found.get(share, dict.fromkeys(entries[0])),
              'stage': row['stage'],
              'mse': row['mse'],
              'measured_class_swaps': row['class_swaps'],
          }
          for row, share in zip(students, own)
      ],
  }


def format_ceiling(ceiling: Mapping[str, Any]) -> str:
  """Formats what `measure` returns: lines of a table, and what they are."""
  lines = [
      'What exact secant supervision by the first teacher can reach, by the'
      ' residual share r that a student adds to it:',
      '  '.join([
          'student'.rjust(24), '    r', '    MSE', *_TITLES.values(), 'measured'
      ]),
  ]  # pyformat: disable
  for entry in (*ceiling['shares'], *ceiling['students']):
    cells = [
        entry.get('stage', '-').rjust(24),
        _show(entry['residual_share'], '.3f', 5),
        _show(entry['mse'], '.4f', 7),
        *(_show(entry[rule], '.1%', len(t)) for rule, t in _TITLES.items()),
        _show(entry.get('measured_class_swaps'), '.1%', 8),
    ]
    lines.append('  '.join(cells))
  if any(entry['residual_share'] is None for entry in ceiling['students']):
    lines.append('r is undefined (-) for a student with more error than that.')
  return '\n'.join(lines)


def _show(value, form, width):
  return ('-' if value is None else format(value, form)).rjust(width)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _measure(model, variables, judge_model, judge_params, images, shares):
  params, batch_stats = variables['params'], variables['batch_stats']
  return swap_ceiling.measure_ceiling(
      functools.partial(networks.make_encode(model, batch_stats), params),
      functools.partial(networks.make_decode(model, batch_stats), params),
      functools.partial(judges.classify, judge_model),
      judge_params,
      images,
      shares,
  )
