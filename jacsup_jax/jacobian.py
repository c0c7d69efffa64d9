"""Jacobian supervision for any decoder.

A decoder is a function `decode(code) -> images`, pure, of a `types.Code` with
`[B, K]` factors; its parameters are bound by the caller, so that `jax.grad` and
`jax.jvp` reach them with nothing in the way.
"""

import jax
import jax.numpy as jnp

from jacsup_jax import latents
from jacsup_jax import losses
from jacsup_jax import types


def decode_swapped(
    decode: types.DecodeFn,
    code: types.Code,
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
  """
  swapped = latents.swap_factors(code, permutation, axis_name)
  both = jax.tree.map(lambda *x: jnp.concatenate(x), code, swapped)
  images, swapped_images = jnp.split(decode(both), 2)
  return images, swapped_images


def secant_loss(
    student_decode: types.DecodeFn,
    student_code: types.Code,
    teacher_decode: types.DecodeFn,
    teacher_code: types.Code,
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
  """
  student = decode_swapped(
      student_decode, student_code, permutation, axis_name
  )
  teacher = decode_swapped(
      teacher_decode, teacher_code, permutation, axis_name
  )
  return losses.jacobian_loss(*student, *jax.lax.stop_gradient(teacher))
