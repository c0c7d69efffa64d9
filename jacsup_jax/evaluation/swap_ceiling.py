"""What exact secant supervision by a teacher can reach, before any training.

A student that meets eq. (9) of Lezama (2019) exactly changes its image under a
swap as its teacher does, and adds what it knows beyond its teacher; so a better
student carries more of the recipient's image into the swapped one.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import reconstruction

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)


@dataclasses.dataclass(frozen=True)
class ExactStudent:
  """The student that meets eq. (9) exactly; its images are not clipped.

  D_S(y_j, z_i) = D_T(y_j) + r (x_i - D_T(y_i)): its nuisance is its teacher's
  and the share r, in [0, 1], of the teacher's residual image. Its error is
  (1 - r)^2 of the teacher's, whose images are in [0, 1].
  """

  teacher: reconstruction.Autoencoder
  share: float | jax.Array
  image_range = (0.0, 1.0)

  def encode(self, images: jax.Array) -> codes.Code:
    """Encodes `[B, H, W, C]` floats in [0, 1]."""
    code = self.teacher.encode(images)
    residual = self.share * (images - self.teacher.decode(code))
    return code._replace(nuisance=(code.nuisance, residual))

  def decode(self, code: codes.Code) -> jax.Array:
    """Decodes to images that may leave [0, 1]."""
    nuisance, residual = code.nuisance
    return self.teacher.decode(code._replace(nuisance=nuisance)) + residual


def measure(
  teacher: reconstruction.Autoencoder,
  judges: class_swaps.Ensemble,
  images: jax.Array,
  rows: Sequence[Mapping[str, Any]],
  teacher_stage: str = 'teacher',
) -> dict[str, Any]:
  """Measures what students of this teacher could reach if they met eq. (9).

  `rows` are those of the run's models of one seed, measured on the same images;
  the ceiling is also measured at the error of each student.

  Returns:
    JSON values: `teacher`, `teacher_mse`; `shares`, an entry for each of
    `SHARES`, and `students`, an entry for each student: `residual_share`,
    `mse`, and `class_swaps` as `class_swaps` counts them.
  """
  [teacher_mse] = [row['mse'] for row in rows if row['stage'] == teacher_stage]
  students = [row for row in rows if row['model'].startswith('student')]
  own = [share_of_error(row['mse'], teacher_mse) for row in students]
  shares = sorted({*SHARES, *own} - {None}, reverse=True)
  rates = measure_rates(teacher, judges, jnp.asarray(images), shares)
  found = {
    share: {
      'residual_share': share,
      'mse': (1 - share) ** 2 * teacher_mse,
      'class_swaps': rate,
    }
    for share, rate in zip(shares, rates)
  }
  # A student with more error than its teacher.
  found[None] = {'residual_share': None, 'class_swaps': None}
  entries = []
  for row, share in zip(students, own):
    about = {'stage': row['stage'], 'mse': row['mse']}
    measured = {'measured_class_swaps': row['class_swaps']}
    entries.append(found[share] | about | measured)
  return {
    'teacher': teacher_stage,
    'teacher_mse': teacher_mse,
    'shares': [found[share] for share in SHARES],
    'students': entries,
  }


def share_of_error(mse: float, teacher_mse: float) -> float | None:
  """Returns the share r whose student has this error, None if there is none."""
  if not 0 <= mse <= teacher_mse or teacher_mse == 0:
    return None
  return 1 - float(np.sqrt(mse / teacher_mse))


def measure_rates(
  teacher: reconstruction.Autoencoder,
  judges: class_swaps.Ensemble,
  images: jax.Array,
  shares: Sequence[float],
) -> list[float | None]:
  """Measures class swaps of exact students, None where a judge has no pairs."""
  counts = _count(
    teacher, judges.module, judges.params, images, jnp.array(shares)
  )
  followed, pairs = map(np.asarray, counts)
  return [
    float(np.mean(own / all_pairs)) if np.all(all_pairs) else None
    for own, all_pairs in zip(followed, pairs)
  ]


def format_ceiling(ceiling: Mapping[str, Any]) -> str:
  """Formats what `measure` returns as the lines of a table."""
  columns = {'stage': ('student', 24, ''), 'residual_share': ('r', 5, '.3f')}
  columns['mse'] = ('MSE', 7, '.4f')
  columns['class_swaps'] = ('class swaps', 11, '.1%')
  columns['measured_class_swaps'] = ('measured', 8, '.1%')
  lines = [
    'What exact secant supervision by the first teacher can reach, by the'
    ' residual share r that a student adds to it (-: it has more error):',
    '  '.join(title.rjust(width) for title, width, _ in columns.values()),
  ]
  for entry in (*ceiling['shares'], *ceiling['students']):
    cells = []
    for name, (_, width, form) in columns.items():
      value = entry.get(name)
      shown = '-' if value is None else format(value, form)
      cells.append(shown.rjust(width))
    lines.append('  '.join(cells))
  return '\n'.join(lines)


@functools.partial(jax.jit, static_argnames='module')
def _count(teacher, module, params, images, shares):
  """Counts swaps and pairs `[R, N]`, of shares `[R]` by N stacked judges."""
  # Opinions are counted alone, so that true labels do not matter.
  labels = jnp.zeros(len(images), jnp.int32)

  def count(share):
    student = ExactStudent(teacher, share)

    def by_one(own):
      judge = functools.partial(class_swaps.classify, module, own)
      counts = class_swaps.count_class_swaps(student, judge, images, labels)
      return [count[0] for count in counts]

    return jax.vmap(by_one)(params)

  return jax.lax.map(count, shares)
