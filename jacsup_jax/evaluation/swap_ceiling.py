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
from jacsup_jax.evaluation import judges as judges_lib
from jacsup_jax.evaluation import reconstruction


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
  judges: judges_lib.Judges,
  images: jax.Array,
  rows: Sequence[Mapping[str, Any]],
  teacher_stage: str = 'teacher',
) -> dict[str, dict[str, float | None]]:
  """Measures what the students in `rows` could reach if they met eq. (9).

  `rows` are those of the run's models of one seed, measured on the same images.
  Returns the entries of each student's row, by its stage: `residual_share` r
  and the `class_swaps_ceiling` of the exact student with this share, None for a
  student with more error than its teacher.
  """
  [teacher_mse] = [row['mse'] for row in rows if row['stage'] == teacher_stage]
  shares = {
    row['stage']: share_of_error(row['mse'], teacher_mse)
    for row in rows
    if row['model'].startswith('student')
  }
  known = [share for share in shares.values() if share is not None]
  rates = measure_rates(teacher, judges, jnp.asarray(images), known)
  ceilings = {None: None, **dict(zip(known, rates))}
  return {
    stage: {'residual_share': share, 'class_swaps_ceiling': ceilings[share]}
    for stage, share in shares.items()
  }


def share_of_error(mse: float, teacher_mse: float) -> float | None:
  """Returns the share r whose student has this error, None if there is none."""
  if not 0 <= mse <= teacher_mse or teacher_mse == 0:
    return None
  return 1 - float(np.sqrt(mse / teacher_mse))


def measure_rates(
  teacher: reconstruction.Autoencoder,
  judges: judges_lib.Judges,
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


@functools.partial(jax.jit, static_argnames='module')
def _count(teacher, module, params, images, shares):
  """Counts swaps and pairs `[R, N]`, of shares `[R]` by N stacked judges."""
  # Opinions are counted alone, so that true labels do not matter.
  labels = jnp.zeros(len(images), jnp.int32)

  def count(share):
    student = ExactStudent(teacher, share)

    def by_one(own):
      judge = functools.partial(judges_lib.classify, module, own)
      counts = class_swaps.count_class_swaps(student, judge, images, labels)
      return [count[0] for count in counts]

    return jax.vmap(by_one)(params)

  return jax.lax.map(count, shares)
