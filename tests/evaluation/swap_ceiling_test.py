"""Tests of evaluation.swap_ceiling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_pixels

from jacsup_jax.core import codes
from jacsup_jax.evaluation import judges as judges_lib
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.evaluation import swap_ceiling

SHARES = (1.0, 0.5, 0.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Teacher:
  """Draws the class with a contrast, 0 being nothing, and a grey style."""

  contrast: float | jax.Array
  image_range = (0, 1)
  image_shape = two_pixels.SHAPE

  def encode(self, images):
    return codes.Code(images[:, 0, 0], jnp.zeros((len(images), 0)))

  def decode(self, code):
    drawn = self.contrast * code.factors
    return jnp.stack([drawn, jnp.full_like(drawn, 0.5)], axis=1)[:, None]


@pytest.fixture(scope='module')
def images():
  random = np.random.default_rng(0)
  # Even classes: the middle of two is another one, or no class.
  labels = 2 * random.integers(0, 5, 2 * judges_lib.BATCH_SIZE)
  values = np.stack([20 * labels, random.integers(0, 256, len(labels))], axis=1)
  return values.reshape(-1, 1, 2, 1).astype(np.uint8)


def _see_even(images):
  """Confuses a class with the one before, if that is even."""
  return two_pixels.see(images) // 2 * 2


JUDGES = [two_pixels.make_judge('mlp'), two_pixels.make_judge('svm', _see_even)]


def _measure(contrast, images):
  """Measures the ceilings by the first family, of students of all shares."""
  rows = [{'stage': 'teacher', 'model': 'teacher', 'mse': 1.0}]
  for share in SHARES:
    name = f'share {share}'
    rows.append({'stage': name, 'model': 'student', 'mse': (1 - share) ** 2})
  found = swap_ceiling.measure(Teacher(contrast), JUDGES[:1], images, rows)
  return [row['class_swaps_ceiling'] for row in found.values()]


def test_exact_student_by_hand():
  # Teacher draws half of the first pixel, and 0.5: residuals (0.4, -0.3) and
  # (0.1, 0.5). Half of them stays with the recipient.
  images = jnp.array([[0.8, 0.2], [0.2, 1.0]]).reshape(2, 1, 2, 1)
  student = swap_ceiling.ExactStudent(Teacher(0.5), 0.5)
  code = student.encode(images)
  np.testing.assert_allclose(
    student.decode(code).reshape(2, 2), [[0.6, 0.35], [0.15, 0.75]], rtol=1e-6
  )
  swapped = student.decode(codes.swap_factors(code, jnp.array([1, 0])))
  np.testing.assert_allclose(
    swapped.reshape(2, 2), [[0.3, 0.35], [0.45, 0.75]], rtol=1e-6
  )


def test_share_of_an_error():
  # (1 - 0.5)^2 is a quarter.
  for mse, share in ((0.01, 0.5), (0.04, 0), (0.0, 1), (0.05, None)):
    assert swap_ceiling.share_of_error(mse, 0.04) == share
  assert swap_ceiling.share_of_error(0.0, 0.0) is None


def test_error_falls_with_the_share(images):
  teacher = Teacher(0.5)
  mse = reconstruction.compute_mse(teacher, images)
  found = jax.lax.map(
    lambda share: reconstruction.compute_mse(
      swap_ceiling.ExactStudent(teacher, share), images
    ),
    jnp.array(SHARES),
  )
  # (1 - r)^2 of the teacher's.
  np.testing.assert_allclose(found, [0, mse / 4, mse], rtol=1e-5, atol=1e-12)


def test_the_ceiling_falls_with_what_the_teacher_knows(images):
  # A teacher of the class has no ceiling.
  assert _measure(1.0, images) == [1, 1, 1]
  # The residual of half a class hides the donor.
  perfect, half, nothing = _measure(0.5, images)
  # In the middle between two classes.
  assert perfect == 0 and half < 1
  # Without a residual a swap exchanges all that there is.
  assert nothing == 1
  # A teacher of nothing moves nothing.
  perfect, _, nothing = _measure(0.0, images)
  assert perfect == 0
  # One class everywhere: no pairs, and no rate.
  assert nothing is None


def test_ceilings_are_of_the_students_of_a_run(images):
  rows = [
    {'stage': 'teacher', 'model': 'teacher', 'mse': 0.04},
    {'stage': 'student_d01', 'model': 'student', 'mse': 0.0},
    {'stage': 'student_d02', 'model': 'student', 'mse': 0.01},
    {'stage': 'student_d03', 'model': 'student', 'mse': 0.05},
  ]
  found = swap_ceiling.measure(Teacher(0.5), JUDGES, images, rows)
  assert list(found) == [row['stage'] for row in rows[1:]]
  perfect = found['student_d01']
  assert perfect['residual_share'] == 1 and perfect['class_swaps_ceiling'] == 0
  for own in found.values():
    by_family = [own[f'class_swaps_ceiling_{x}'] for x in ('mlp', 'svm')]
    known = [rate for rate in by_family if rate is not None]
    assert own['class_swaps_ceiling'] == min(known, default=None)
  # (1 - 0.5)^2 of the teacher's error.
  assert found['student_d02']['residual_share'] == 0.5
  assert {*found['student_d03'].values()} == {None}
