"""What a decoder's Jacobian shows: agreement, columns, principal directions.

The derivative itself is measured, exactly, for any pure function `decode(code)
-> [B, H, W, C]` that treats examples independently; codes are `[B, K]` factors
and nuisance of any shape. A column is the derivative with respect to a factor.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches

# Columns that are held at a time, unless those of one image are more.
_COLUMN_BYTES = 2**26
# The most for the columns of one image, or a block of directions.
_MOST_BYTES = 2**32
# Extra directions: orthogonal iteration converges by the ratio of the last
# singular value asked for to the first one left out.
_MORE_DIRECTIONS = 4


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

  Raises:
    InputError: if the two differ in examples, factors or image shape.
  """
  shapes = [
    (*code.factors.shape, *_check_decoder(decode, code, name))
    for name, decode, code in (
      ('student', student_decode, student_code),
      ('teacher', teacher_decode, teacher_code),
    )
  ]
  if shapes[0] != shapes[1]:
    raise errors.InputError(
      'the student has (examples, factors, H, W, C) ='
      f' {shapes[0]}, the teacher {shapes[1]}; accepted: the same.'
    )

  def multiply(codes):
    student = _linearize_factors(student_decode, codes[0])
    teacher = _linearize_factors(teacher_decode, codes[1])

    def multiply_column(direction):
      columns = student(direction), teacher(direction)
      return [
        jnp.sum(a * b) for a, b in (columns[:1] * 2, columns[1:] * 2, columns)
      ]

    units = _unit_vectors(codes[0])
    return ColumnProducts(*jax.lax.map(multiply_column, units))

  return jax.lax.map(
    multiply,
    (student_code, teacher_code),
    batch_size=batches.count_at_once(shapes[0][2:]),
  )


def compute_agreement(
  products: ColumnProducts, names: Sequence[str]
) -> dict[str, Any]:
  """Averages the agreement of two Jacobians over data.

  For every column the cosine (1 where the directions agree) and the relative
  error of its norm, | ||J_S|| - ||J_T|| | / ||J_T||, are averaged over the
  examples where they are defined: not where a column is zero.

  Returns:
    JSON values: `cosine` and `norm_error`, means over factors; `factors`, those
    of each by its name, with the numbers of examples left out,
    `undefined_cosines` and `undefined_norm_errors`. None is a mean of nothing.
  """
  student, teacher, both = (np.asarray(x, np.float64) for x in products)
  chex.assert_equal_shape([student, teacher, both])
  chex.assert_shape(student, (None, len(names)))
  nonzero = np.isfinite(teacher) & np.isfinite(student) & (teacher > 0)
  cosine = _divide(both, np.sqrt(student * teacher), nonzero & (student > 0))
  norm_error = abs(_divide(np.sqrt(student), np.sqrt(teacher), nonzero) - 1)
  factors = {
    name: {
      'cosine': _mean(cosine[:, i]),
      'norm_error': _mean(norm_error[:, i]),
      'undefined_cosines': int(np.sum(np.isnan(cosine[:, i]))),
      'undefined_norm_errors': int(np.sum(np.isnan(norm_error[:, i]))),
    }
    for i, name in enumerate(names)
  }
  over_factors = lambda key: _mean(
    np.array([f[key] for f in factors.values()], np.float64)
  )
  return {
    'cosine': over_factors('cosine'),
    'norm_error': over_factors('norm_error'),
    'factors': factors,
  }


def compute_column_cosines(
  decode: codes.DecodeFn, code: codes.Code
) -> tuple[jax.Array, jax.Array]:
  """Computes the cosines between the columns of one decoder's Jacobian.

  Factors may move the image together (1), against each other (-1), or
  independently (0); averaged over the examples where both columns are not zero.
  Returns `[K, K]` cosines, 0 where no example defines one, and `[K, K]` int,
  the number of examples that do.

  Raises:
    InputError: if the columns of one image take too much memory.
  """
  image_shape = _check_decoder(decode, code)
  needed = 4 * code.factors.shape[1] * math.prod(image_shape)
  _check_memory(
    f'the {code.factors.shape[1]} columns of images of {image_shape}', needed
  )

  def compare(code):
    columns = jax.lax.map(_linearize_factors(decode, code), _unit_vectors(code))
    columns = columns.reshape(columns.shape[0], -1)
    norms = jnp.linalg.norm(columns, axis=1, keepdims=True)
    # Scaled first: squares of small ones would not be numbers any more.
    units = columns / jnp.where(norms > 0, norms, 1.0)
    defined = (norms > 0) & (norms > 0).T
    return units @ units.T, defined

  cosines, defined = jax.lax.map(
    compare, code, batch_size=max(1, _COLUMN_BYTES // needed)
  )
  count = jnp.sum(defined, axis=0)
  total = jnp.sum(jnp.where(defined, cosines, 0.0), axis=0)
  return jnp.clip(total / jnp.maximum(count, 1), -1.0, 1.0), count


def find_principal_directions(
  decode: codes.DecodeFn,
  code: codes.Code,
  count: int,
  *,
  seed: int = 0,
  tolerance: float = 1e-4,
  most_iterations: int = 200,
) -> PrincipalDirections:
  """Finds the directions of the nuisance that change images most.

  The first eigenvectors of G = J^T J, averaged over the examples, where J is
  the Jacobian with respect to the nuisance; for one example these are its right
  singular vectors. Orthogonal iteration of a block: each step takes a product
  with J and one with J^T for every direction, and J itself is never formed.

  The iteration ends where the largest ||G v - s^2 v|| of the `count` directions
  asked for, relative to the largest eigenvalue, is below the tolerance.

  Returns:
    PrincipalDirections. Singular values are the root mean square, over
    examples, of the change of the whole image per unit along the direction.
    A direction's largest element is positive.

  Raises:
    InputError: if there are fewer units than directions, or these take too
      much memory.
  """
  _check_decoder(decode, code)
  shape = code.nuisance.shape[1:]
  dim = math.prod(shape)
  if not 1 <= count <= dim:
    raise errors.InputError(
      f'{count} principal directions of a nuisance of {dim} units; accepted:'
      f' from 1 to {dim}.'
    )
  size = min(dim, count + _MORE_DIRECTIONS)
  _check_memory(f'{size} directions of {dim} units', 4 * size * dim)
  block, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (dim, size)))
  vectors, values, residuals = _iterate(
    _make_gram(decode, code), block, count, tolerance, most_iterations
  )
  vectors = vectors[:count]
  largest = jnp.argmax(jnp.abs(vectors), axis=1, keepdims=True)
  signs = jnp.sign(jnp.take_along_axis(vectors, largest, axis=1))
  return PrincipalDirections(
    # Rounding may put an eigenvalue of 0 below it.
    jnp.sqrt(jnp.maximum(values[:count], 0.0)),
    (vectors * signs).reshape(count, *shape),
    residuals[:count],
  )


def _check_decoder(
  decode: codes.DecodeFn, code: codes.Code, name: str = 'decoder'
) -> tuple[int, int, int]:
  """Returns the (H, W, C) that are decoded; InputError if codes do not fit."""
  factors, nuisance = (jnp.shape(x) for x in code)
  if len(factors) != 2 or 0 in factors or nuisance[:1] != factors[:1]:
    raise errors.InputError(
      f'the code of the {name} has factors of the shape {factors} and'
      f' nuisance of {nuisance}; accepted: (examples, factors) and as many'
      ' examples.'
    )
  images = jax.eval_shape(decode, code).shape
  if len(images) != 4 or images[0] != factors[0]:
    raise errors.InputError(
      f'the {name} decodes {factors[0]} examples to {images}; accepted:'
      ' (examples, H, W, C).'
    )
  return images[1:]


def _iterate(apply, block, count, tolerance, most_iterations):
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
    return (error > tolerance) & (iteration < most_iterations)

  first = improve((block, None, jnp.inf, 0))
  return jax.lax.while_loop(is_unfinished, improve, first)[1]


def _make_gram(decode, code):
  """Makes the product of the averaged J^T J with a flat direction."""
  _, push = jax.linearize(
    lambda nuisance: decode(code._replace(nuisance=nuisance)), code.nuisance
  )
  pull = jax.linear_transpose(push, code.nuisance)

  def apply(direction):
    tangent = direction.reshape(1, *code.nuisance.shape[1:])
    tangent = jnp.broadcast_to(
      tangent.astype(code.nuisance.dtype), code.nuisance.shape
    )
    [gradient] = pull(push(tangent))
    return jnp.mean(gradient.reshape(len(gradient), -1), axis=0)

  return apply


def _linearize_factors(decode, code):
  """Returns the derivative of one example's image, of its factors."""
  nuisance = code.nuisance[None]
  _, push = jax.linearize(
    lambda factors: decode(codes.Code(factors[None], nuisance))[0], code.factors
  )
  return push


def _unit_vectors(code):
  return jnp.eye(code.factors.shape[-1], dtype=code.factors.dtype)


def _check_memory(what, needed):
  if needed > _MOST_BYTES:
    raise errors.InputError(
      f'{what} need {needed / 2**30:.1f} GiB; accepted: up to'
      f' {_MOST_BYTES / 2**30:.0f} GiB.'
    )


def _divide(numerator, denominator, defined):
  """Divides where it is defined; NaN elsewhere."""
  return np.divide(
    numerator, denominator, out=np.full(numerator.shape, np.nan), where=defined
  )


def _mean(values):
  """Returns the mean of all but NaN, None of nothing."""
  values = values[~np.isnan(values)]
  return float(np.mean(values)) if values.size else None
