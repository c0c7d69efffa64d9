"""Jacobian supervision for any decoder.

A decoder is a function `decode(code) -> images`, pure, of a `codes.Code` with
`[B, K]` factors; its parameters are bound by the caller, so that `jax.grad` and
`jax.jvp` reach them with nothing in the way. Each loss compares what the images
of two decoders change by with the factors, in one of the ways of `changes`.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from jacsup_jax.core import changes
from jacsup_jax.core import codes
from jacsup_jax.core import losses


def decode_swapped(
    decode: codes.DecodeFn,
    code: codes.Code,
    permutation: jax.Array,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Decodes codes as they are and with their partners' factors.

  Both go through the decoder as one batch of twice the size, which is faster
  than two; `decode` must therefore treat examples independently.

  Args:
    decode: `code -> [B, H, W, C]`.
    code: `[B, K]` factors and nuisance of any shape.
    permutation: `[B]` int, the partner j of each example.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    `[B, H, W, C]` images D(y, z) and `[B, H, W, C]` swapped images D(y_j, z).

  Raises:
    InputError: if the factors are not `[B, K]`, or images are not one a code.
  """
  changes.check_factors(code)
  swapped = codes.swap_factors(code, permutation, axis_name)
  both = jax.tree.map(lambda *x: jnp.concatenate(x), code, swapped)
  decoded = changes.check_rows(decode(both), both)
  images, swapped_images = jnp.split(decoded, 2)
  return images, swapped_images


def secant_loss(
    student_decode: codes.DecodeFn,
    student_code: codes.Code,
    teacher_decode: codes.DecodeFn,
    teacher_code: codes.Code,
    permutation: jax.Array,
    axis_name: str | None = None,
) -> jax.Array:
  """Computes the difference of two decoders' Jacobians along a swap.

  The change of the image between an example's factors and its partner's is, to
  first order, the Jacobian in that direction; student and teacher are compared
  by it. Second part of eq. (9) of Lezama (2019). The teacher's side is stopped;
  both sides of the student are differentiated.

  Args:
    student_decode: `code -> [B, H, W, C]`.
    student_code: `[B, K]` factors and nuisance of any shape.
    teacher_decode: `code -> [B, H, W, C]`.
    teacher_code: `[B, K]` factors and nuisance of any shape.
    permutation: `[B]` int, the partner j of each example, shared by both.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    `[B]`, mean over pixels, in squared units of the images.

  Raises:
    InputError: if factors are not `[B, K]`, or images differ in shape.
  """
  student = decode_swapped(
      student_decode, student_code, permutation, axis_name
  )
  teacher = decode_swapped(
      teacher_decode, teacher_code, permutation, axis_name
  )
  changes.check_same_shape(student[0], teacher[0])
  return losses.jacobian_loss(*student, *jax.lax.stop_gradient(teacher))


def tangent_loss(
    student_decode: codes.DecodeFn,
    student_code: codes.Code,
    teacher_decode: codes.DecodeFn,
    teacher_code: codes.Code,
    permutation: jax.Array,
    axis_name: str | None = None,
) -> jax.Array:
  """Computes the difference of two decoders' derivatives towards a swap.

  ||J^T (y_j^T - y^T) - J^S (y_j^S - y^S)||^2, as the mean over pixels: what
  `secant_loss` tends to as the swap shrinks. The teacher's side is stopped; the
  student's point and direction are both differentiated.

  Args:
    student_decode: see `secant_loss`, as for all others.
    student_code: see `secant_loss`.
    teacher_decode: see `secant_loss`.
    teacher_code: see `secant_loss`.
    permutation: see `secant_loss`.
    axis_name: see `secant_loss`.

  Returns:
    `[B]`, mean over pixels, in squared units of the images.

  Raises:
    InputError: if factors are not `[B, K]`, or images differ in shape.
  """
  return _compare_targets(
      changes.tangent,
      student_decode,
      student_code,
      teacher_decode,
      teacher_code,
      permutation,
      axis_name,
  )


def path_loss(
    student_decode: codes.DecodeFn,
    student_code: codes.Code,
    teacher_decode: codes.DecodeFn,
    teacher_code: codes.Code,
    permutation: jax.Array,
    axis_name: str | None = None,
    *,
    nodes: int = 3,
) -> jax.Array:
  """Computes the difference of two decoders' mean Jacobians along a swap.

  As `tangent_loss`, of Jacobians that are averaged along the segment from y to
  y_j, and only then compared. The average times the segment is the secant, so
  the loss converges to `secant_loss` with the number of nodes.

  Args:
    student_decode: see `secant_loss`, as for all others but `nodes`.
    student_code: see `secant_loss`.
    teacher_decode: see `secant_loss`.
    teacher_code: see `secant_loss`.
    permutation: see `secant_loss`.
    axis_name: see `secant_loss`.
    nodes: of the Gauss-Legendre quadrature, 1 or more; 1 is the midpoint.

  Returns:
    `[B]`, mean over pixels, in squared units of the images.

  Raises:
    InputError: if factors are not `[B, K]`, or images differ in shape.
  """
  return _compare_targets(
      functools.partial(changes.path, nodes=nodes),
      student_decode,
      student_code,
      teacher_decode,
      teacher_code,
      permutation,
      axis_name,
  )


def full_loss(
    student_decode: codes.DecodeFn,
    student_code: codes.Code,
    teacher_decode: codes.DecodeFn,
    teacher_code: codes.Code,
    *,
    max_bytes: int = changes.MAX_FULL_BYTES,
) -> jax.Array:
  """Computes the squared Frobenius norm of the difference of two Jacobians.

  The mean over pixels of the sum over factors: the expectation of
  `tangent_loss` over standard normal directions. Both have as many factors. The
  teacher's side is stopped.

  Args:
    student_decode: see `secant_loss`, as for the codes.
    student_code: see `secant_loss`.
    teacher_decode: see `secant_loss`.
    teacher_code: see `secant_loss`.
    max_bytes: that a Jacobian may have.

  Returns:
    `[B]`, mean over pixels, in squared units of images by those of factors.

  Raises:
    InputError: if factors are not `[B, K]`, images or numbers of factors
      differ, or a Jacobian is larger than `max_bytes`.
  """
  _, student = changes.full(student_decode, student_code, max_bytes=max_bytes)
  _, teacher = changes.full(teacher_decode, teacher_code, max_bytes=max_bytes)
  return changes.compare(student, jax.lax.stop_gradient(teacher))


def _compare_targets(
    changes_fn: Callable[..., changes.Changes],
    student_decode,
    student_code,
    teacher_decode,
    teacher_code,
    permutation,
    axis_name,
):
  """Compares changes towards the swap's factors, the teacher's stopped."""

  def changes_of(decode, code):
    changes.check_factors(code)
    targets = changes.make_targets(code.factors, permutation, axis_name)
    return changes_fn(decode, code, targets)[1]

  teacher = jax.lax.stop_gradient(changes_of(teacher_decode, teacher_code))
  return changes.compare(changes_of(student_decode, student_code), teacher)
