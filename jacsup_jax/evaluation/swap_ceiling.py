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
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import reconstruction


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['teacher', 'share'],
  meta_fields=[],
)
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

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""
    return self.teacher.image_shape

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
  judges: Sequence[Any],
  images: np.ndarray,
  rows: Sequence[Mapping[str, Any]],
  teacher_stage: str = 'teacher',
) -> dict[str, dict[str, float | None]]:
  """Measures what the students in `rows` could reach if they met eq. (9).

  `rows` are those of the run's models of one seed, measured on the same images
  by the same judges, of `class_judges`. Returns the entries of each student's
  row, by its stage: `residual_share` r, and of the exact student with this
  share `class_swaps_ceiling`, the lowest of the families' means, and
  `class_swaps_ceiling_F` of each family F; None for a student with more error
  than its teacher.
  """
  [teacher_mse] = [row['mse'] for row in rows if row['stage'] == teacher_stage]
  names = ['class_swaps', *(f'class_swaps_{own.family}' for own in judges)]
  # Opinions are counted alone, so that true labels do not matter.
  labels = np.zeros(len(images), np.int32)
  found = {}
  for row in rows:
    if not row['model'].startswith('student'):
      continue
    share, rates = share_of_error(row['mse'], teacher_mse), {}
    if share is not None:
      student = ExactStudent(teacher, share)
      rates = class_swaps.measure(student, judges, images, labels)
    found[row['stage']] = {'residual_share': share} | {
      name.replace('class_swaps', 'class_swaps_ceiling'): rates.get(name)
      for name in names
    }
  return found


def share_of_error(mse: float, teacher_mse: float) -> float | None:
  """Returns the share r whose student has this error, None if there is none."""
  if not 0 <= mse <= teacher_mse or teacher_mse == 0:
    return None
  return 1 - float(np.sqrt(mse / teacher_mse))
