"""What a decoder's Jacobian shows: agreement, and principal directions.

Derivatives are exact, of any pure `decode(code) -> [B, H, W, C]` that treats
examples independently; a column is the derivative with respect to a factor.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches

# Iteration converges by the ratio of the last value asked for to the first one
# left out.
_MORE_DIRECTIONS = 4
_MOST_ITERATIONS = 200


class ColumnProducts(NamedTuple):
  """Inner products, over pixels, of two Jacobians' columns; per example."""

  student: jax.Array  # [B, K], squared norms
  teacher: jax.Array  # [B, K], squared norms
  both: jax.Array  # [B, K], student's with teacher's


class PrincipalDirections(NamedTuple):
  """Directions of the nuisance, by the change of the image along them."""

  singular_values: jax.Array  # [n], falling
  directions: jax.Array  # [n, D] or [n, h, w, c], orthonormal
  residuals: jax.Array  # [n], relative to the largest eigenvalue


def multiply_columns(
  student_decode: codes.DecodeFn,
  student_code: codes.Code,
  teacher_decode: codes.DecodeFn,
  teacher_code: codes.Code,
) -> ColumnProducts:
  """Multiplies a student's columns by its teacher's, factor by factor.

  Both sides of eq. (1) of Lezama (2019), each at its own model's code, in
  squared units of the images over those of the factors.
  """
  image = jax.eval_shape(student_decode, student_code)
  teacher_image = jax.eval_shape(teacher_decode, teacher_code)
  chex.assert_equal_shape([student_code.factors, teacher_code.factors])
  chex.assert_equal_shape([image, teacher_image])
  chex.assert_rank(image, 4)

  def multiply(codes):
    student = _linearize_factors(student_decode, codes[0])
    teacher = _linearize_factors(teacher_decode, codes[1])

    def multiply_column(direction):
      a, b = student(direction), teacher(direction)
      return jnp.sum(a * a), jnp.sum(b * b), jnp.sum(a * b)

    units = jnp.eye(codes[0].factors.size)
    return ColumnProducts(*jax.lax.map(multiply_column, units))

  return jax.lax.map(
    multiply,
    (student_code, teacher_code),
    batch_size=batches.count_at_once(image.shape[1:]),
  )


def compute_agreement(
  products: ColumnProducts, names: Sequence[str]
) -> dict[str, Any]:
  """Averages the agreement of two Jacobians over data, as JSON values.

  For every column the cosine (1 where the directions agree) and the relative
  error of its norm, | ||J_S|| - ||J_T|| | / ||J_T||, are averaged over the
  examples where they are defined: not where a column is zero. Returns `cosine`
  and `norm_error`, means over factors, and `factors`, those of each by its
  name, with the number of examples left out. None is a mean of nothing.
  """
  student, teacher, both = (np.asarray(x, np.float64) for x in products)
  nonzero = np.isfinite(teacher) & np.isfinite(student) & (teacher > 0)
  # Divided by NaN where there is no column to compare with.
  teacher = np.where(nonzero, teacher, np.nan)
  norm_error = abs(np.sqrt(student) / np.sqrt(teacher) - 1)
  cosine = both / np.sqrt(np.where(student > 0, student, np.nan) * teacher)
  factors = {
    name: {
      'cosine': _mean(cosines),
      'norm_error': _mean(norm_errors),
      'undefined_cosines': int(np.sum(np.isnan(cosines))),
      'undefined_norm_errors': int(np.sum(np.isnan(norm_errors))),
    }
    for name, cosines, norm_errors in zip(
      names, cosine.T, norm_error.T, strict=True
    )
  }
  means = {
    key: _mean(np.array([f[key] for f in factors.values()], np.float64))
    for key in ('cosine', 'norm_error')
  }
  return {**means, 'factors': factors}


def find_principal_directions(
  decode: codes.DecodeFn,
  code: codes.Code,
  count: int,
  *,
  tolerance: float = 1e-4,
) -> PrincipalDirections:
  """Finds the directions of the nuisance that change images most.

  The first eigenvectors of G = J^T J, averaged over the examples, where J is
  the Jacobian with respect to the nuisance, by orthogonal iteration: J is
  never formed. It ends where the largest ||G v - s^2 v|| of the `count`
  directions asked for is below the tolerance times the largest eigenvalue.
  Singular values are the root mean square, over examples, of the image's change
  per unit along the direction, whose largest element is positive.
  """
  shape = code.nuisance.shape[1:]
  dim = math.prod(shape)
  size = min(dim, count + _MORE_DIRECTIONS)
  block, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (dim, size)))
  apply = _make_gram(decode, code)
  vectors, values, residuals = _iterate(apply, block, count, tolerance)
  vectors = vectors[:count]
  largest = jnp.argmax(jnp.abs(vectors), axis=1, keepdims=True)
  signs = jnp.sign(jnp.take_along_axis(vectors, largest, axis=1))
  return PrincipalDirections(
    # Rounding may put an eigenvalue of 0 below it.
    jnp.sqrt(jnp.maximum(values[:count], 0.0)),
    (vectors * signs).reshape(count, *shape),
    residuals[:count],
  )


def _iterate(apply, block, count, tolerance):
  """Returns `[n, D]` eigenvectors of `apply`, eigenvalues and residuals."""

  def improve(carry):
    block, _, _, iteration = carry
    applied = jax.lax.map(apply, block.T).T
    # Within the block the eigenvectors are exact (Rayleigh and Ritz).
    projected = block.T @ applied
    values, rotation = jnp.linalg.eigh((projected + projected.T) / 2)
    values, rotation = values[::-1], rotation[:, ::-1]
    vectors, applied = block @ rotation, applied @ rotation
    residuals = jnp.linalg.norm(applied - vectors * values[None], axis=0)
    largest = jnp.where(values[0] > 0, values[0], 1.0)
    following, _ = jnp.linalg.qr(applied)
    found = vectors.T, values, residuals / largest
    return following, found, jnp.max(found[2][:count]), iteration + 1

  def is_unfinished(carry):
    _, _, error, iteration = carry
    return (error > tolerance) & (iteration < _MOST_ITERATIONS)

  first = improve((block, None, jnp.inf, 0))
  return jax.lax.while_loop(is_unfinished, improve, first)[1]


def _make_gram(decode, code):
  """Makes the product of the averaged J^T J with a flat direction."""
  decode_nuisance = lambda nuisance: decode(code._replace(nuisance=nuisance))
  _, push = jax.linearize(decode_nuisance, code.nuisance)
  pull = jax.linear_transpose(push, code.nuisance)

  def apply(direction):
    direction = direction.reshape(code.nuisance.shape[1:])
    [gradient] = pull(push(jnp.broadcast_to(direction, code.nuisance.shape)))
    return jnp.mean(gradient.reshape(len(gradient), -1), axis=0)

  return apply


def _linearize_factors(decode, code):
  """Returns the derivative of one example's image, of its factors."""
  decode_one = lambda x: decode(codes.Code(x[None], code.nuisance[None]))[0]
  return jax.linearize(decode_one, code.factors)[1]


def _mean(values):
  """Returns the mean of all but NaN, None of nothing."""
  values = values[~np.isnan(values)]
  return float(np.mean(values)) if values.size else None
