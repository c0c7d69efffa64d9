"""What exact secant supervision by a teacher can reach, before any training.

A student that meets eq. (9) of Lezama (2019) exactly changes its image under a
swap as its teacher does: D_S(y_j, z_i) = D_T(y_j) + (D_S(y_i, z_i) - D_T(y_i)).
It adds what it knows beyond its teacher to whatever the factors draw, so a
better student carries more of the recipient's image into the swapped one. The
student here keeps a share r of its teacher's residual x_i - D_T(y_i); its error
is (1 - r)^2 of the teacher's. Images and seeds are those of `class_swaps`.
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
  """Judged pairs and those that followed, each `[3]` int, by `RULES`."""

  followed: jax.Array
  pairs: jax.Array


@dataclasses.dataclass(frozen=True)
class ExactStudent:
  """The student that meets eq. (9) exactly; its images are not clipped.

  Its nuisance is its teacher's together with the residual image.

  Attributes:
    teacher: of images in [0, 1].
    share: r in [0, 1], of the teacher's residual that it keeps.
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

  Args:
    teacher: the first one of a run.
    judges: of its classes.
    images: that the rows were measured on.
    rows: of the run's models of one seed; the ceiling is also measured at the
      error of each student.
    teacher_stage: of the teacher's row.

  Returns:
    JSON values: `teacher`, `teacher_mse`; `shares`, an entry for each of
    `SHARES`, and `students`, an entry for each student; see `summarize`.
  """
  [teacher_mse] = [row['mse'] for row in rows if row['stage'] == teacher_stage]
  students = [row for row in rows if row['model'].startswith('student')]
  own = [share_of_error(row['mse'], teacher_mse) for row in students]
  shares = sorted({*SHARES, *own} - {None}, reverse=True)
  counts = _measure(
      teacher, judges.module, judges.params, jnp.asarray(images),
      jnp.array(shares),
  )  # fmt: skip
  found = dict(zip(shares, summarize(counts, shares, teacher_mse)))
  unknown = dict.fromkeys(('residual_share', *RULES))
  return {
    'teacher': teacher_stage,
    'teacher_mse': teacher_mse,
    'shares': [found[share] for share in SHARES],
    'students': [
      {
        **found.get(share, unknown),
        'stage': row['stage'],
        'mse': row['mse'],
        'measured_class_swaps': row['class_swaps'],
      }
      for row, share in zip(students, own)
    ],
  }


def count_ceiling_swaps(
  teacher: reconstruction.Autoencoder,
  classify: class_swaps.ClassifyFn,
  images: jax.Array,
  share: float | jax.Array,
  *,
  seed: int = 0,
) -> CeilingCounts:
  """Counts the swaps of the exact student that keeps this share, by a judge."""

  def see(transform):
    judge = lambda image: classify(
      transform(batches.to_float(image[None])), None
    )[0]
    at_once = batches.count_at_once(images.shape[1:])
    return jax.lax.map(judge, images, batch_size=at_once)

  student = ExactStudent(teacher, share)
  # A judge's opinions serve as the true labels.
  by_image, by_teacher_image = (
      class_swaps.count_class_swaps(
          student, classify, images, see(transform), seed=seed
      )
      for transform in (
          lambda x: x, lambda x: teacher.decode(teacher.encode(x))
      )
  )  # fmt: skip
  own, labels = (
    class_swaps.PROTOCOLS.index(name)
    for name in ('class_swaps', 'class_swaps_true_labels')
  )
  return CeilingCounts(*(
      jnp.stack([of_image[own], of_image[labels], of_teacher_image[labels]])
      for of_image, of_teacher_image in zip(by_image, by_teacher_image)
  ))  # fmt: skip


def measure_ceiling(
  teacher: reconstruction.Autoencoder,
  judge: class_swaps.JudgeFn,
  judge_params: codes.Params,
  images: jax.Array,
  shares: jax.Array,
  *,
  seed: int = 0,
) -> CeilingCounts:
  """Counts for shares `[R]` by N stacked judges: `[R, N, 3]`. May be jitted."""
  count = lambda share: jax.vmap(
    lambda params: count_ceiling_swaps(
      teacher, functools.partial(judge, params), images, share, seed=seed
    )
  )(judge_params)
  return jax.lax.map(count, shares)


def share_of_error(mse: float, teacher_mse: float) -> float | None:
  """Returns the share r whose student has this error, None if there is none."""
  if not 0 <= mse <= teacher_mse or teacher_mse == 0:
    return None
  return 1 - float(np.sqrt(mse / teacher_mse))


def summarize(
  counts: CeilingCounts, shares: Sequence[float], teacher_mse: float
) -> list[dict[str, Any]]:
  """Turns counts `[R, N, 3]` into JSON values, an entry for each share.

  Entries have `residual_share`, `mse` and, by `RULES`, the mean over judges,
  None where a judge is left without pairs.
  """
  entries = []
  for share, followed, pairs in zip(shares, *map(np.asarray, counts)):
    rates = {
      rule: float(np.mean(followed[:, i] / pairs[:, i]))
      if np.all(pairs[:, i])
      else None
      for i, rule in enumerate(RULES)
    }
    mse = (1 - share) ** 2 * teacher_mse
    entries.append({'residual_share': share, 'mse': mse, **rates})
  return entries


def format_ceiling(ceiling: Mapping[str, Any]) -> str:
  """Formats what `measure` returns as the lines of a table."""
  show = lambda value, form, width: (
    '-' if value is None else format(value, form)
  ).rjust(width)
  lines = [
    'What exact secant supervision by the first teacher can reach, by the'
    ' residual share r that a student adds to it:',
    '  '.join(['student'.rjust(24), '    r', '    MSE', *_TITLES, 'measured']),
  ]
  for entry in (*ceiling['shares'], *ceiling['students']):
    cells = [
      entry.get('stage', '-').rjust(24),
      show(entry['residual_share'], '.3f', 5),
      show(entry['mse'], '.4f', 7),
      *(show(entry[r], '.1%', len(t)) for r, t in zip(RULES, _TITLES)),
      show(entry.get('measured_class_swaps'), '.1%', 8),
    ]
    lines.append('  '.join(cells))
  if any(entry['residual_share'] is None for entry in ceiling['students']):
    lines.append('r is undefined (-) for a student with more error than that.')
  return '\n'.join(lines)


@functools.partial(jax.jit, static_argnames='module')
def _measure(teacher, module, params, images, shares):
  judge = functools.partial(class_swaps.classify, module)
  return measure_ceiling(teacher, judge, params, images, shares)
