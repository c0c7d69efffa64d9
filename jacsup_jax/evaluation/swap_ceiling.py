"""What exact secant supervision by a teacher can reach, before any training.

A student that meets eq. (9) of Lezama (2019) exactly changes its image under a
swap as its teacher does, and adds what it knows beyond its teacher; so a better
student carries more of the recipient's image into the swapped one.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import reconstruction

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
# Which class a swap should bring: a judge's opinion of the donor's
# reconstruction (as class swaps are counted), image, or teacher's image.
RULES = ('class_swaps', 'by_image', 'by_teacher_image')
_TITLES = ('class swaps', "by donor's image", 'by teacher image')


class CeilingCounts(NamedTuple):
  """Judged pairs and those that followed, each `[..., 3]` int, by `RULES`."""

  followed: jax.Array
  pairs: jax.Array


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
    `SHARES`, and `students`, an entry for each student; see `summarize`.
  """
  [teacher_mse] = [row['mse'] for row in rows if row['stage'] == teacher_stage]
  students = [row for row in rows if row['model'].startswith('student')]
  own = [share_of_error(row['mse'], teacher_mse) for row in students]
  shares = sorted({*SHARES, *own} - {None}, reverse=True)
  counts = _count(
      teacher, judges.module, judges.params, jnp.asarray(images),
      jnp.array(shares),
  )  # fmt: skip
  found = dict(zip(shares, summarize(counts, shares, teacher_mse)))
  # Of a student with more error than its teacher.
  found[None] = dict.fromkeys(('residual_share', *RULES))
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


def count_ceiling_swaps(
  teacher: reconstruction.Autoencoder,
  classify: class_swaps.ClassifyFn,
  images: jax.Array,
  share: float | jax.Array,
) -> CeilingCounts:
  """Counts the swaps of the exact student that keeps this share, by a judge."""
  at_once = batches.count_at_once(images.shape[1:])
  student = ExactStudent(teacher, share)

  def count(transform):
    see = lambda image: classify(
      transform(batches.to_float(image[None])), None
    )[0]
    # A judge's opinions serve as the true labels.
    opinions = jax.lax.map(see, images, batch_size=at_once)
    return class_swaps.count_class_swaps(student, classify, images, opinions)

  by_image = count(lambda x: x)
  by_teacher_image = count(lambda x: teacher.decode(teacher.encode(x)))
  own = class_swaps.PROTOCOLS.index('class_swaps')
  labels = class_swaps.PROTOCOLS.index('class_swaps_true_labels')
  return CeilingCounts(
    *(
      jnp.stack([first[own], first[labels], second[labels]])
      for first, second in zip(by_image, by_teacher_image)
    )
  )


def share_of_error(mse: float, teacher_mse: float) -> float | None:
  """Returns the share r whose student has this error, None if there is none."""
  if not 0 <= mse <= teacher_mse or teacher_mse == 0:
    return None
  return 1 - float(np.sqrt(mse / teacher_mse))


def summarize(
  counts: CeilingCounts, shares: Sequence[float], teacher_mse: float
) -> list[dict[str, Any]]:
  """Turns counts `[R, N, 3]` of N judges into JSON values for each share.

  Entries have `residual_share`, `mse` and, by `RULES`, the mean over judges,
  None where a judge is left without pairs.
  """
  entries = []
  for share, followed, pairs in zip(shares, *map(np.asarray, counts)):
    entry = {'residual_share': share, 'mse': (1 - share) ** 2 * teacher_mse}
    for rule, own, all_pairs in zip(RULES, followed.T, pairs.T):
      has_pairs = np.all(all_pairs)
      entry[rule] = float(np.mean(own / all_pairs)) if has_pairs else None
    entries.append(entry)
  return entries


def format_ceiling(ceiling: Mapping[str, Any]) -> str:
  """Formats what `measure` returns as the lines of a table."""
  columns = {'stage': ('student', 24, ''), 'residual_share': ('r', 5, '.3f')}
  columns['mse'] = ('MSE', 7, '.4f')
  for rule, title in zip(RULES, _TITLES):
    columns[rule] = (title, len(title), '.1%')
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
  """Counts for shares `[R]` by N stacked judges: `[R, N, 3]`."""

  def count(share):
    by_one = lambda params: count_ceiling_swaps(
      teacher,
      functools.partial(class_swaps.classify, module, params),
      images,
      share,
    )
    return jax.vmap(by_one)(params)

  return jax.lax.map(count, shares)
