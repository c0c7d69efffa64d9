"""What a decoder's images change by when its factors change.

In one of four ways:

  secant   D(y_j, z) - D(y, z), the paper's, eq. (9);
  tangent  J(y, z) (y_j - y): the secant of an infinitely small swap;
  path     the average of J along the segment from y to y_j, times (y_j - y),
           by Gauss-Legendre nodes: it converges to the secant as they grow;
  full     all columns of J(y, z), whose squares are what those of tangents
           along standard normal directions are on average.

J is the derivative of the images by the factors. Changes are `[n, B, ...]`: one
an entry of `targets` `[n, B, K]`, where the factors go to, or one a column of
the Jacobian. Images are `[B, ...]` arrays of any rank.

Unlike `jacobian.decode_swapped`, nothing here puts codes of two kinds into one
batch: where a decoder normalises with the statistics of its batch, each kind
has its own, and derivatives are those of all the batch moving at once.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors

# Of one decoder's full Jacobian of a batch. A step of training holds it for
# student and teacher, and what is kept for their gradients besides.
MAX_FULL_BYTES = 2**28

# Images `[B, ...]`, and what they change by, `[n, B, ...]`.
Changes = tuple[jax.Array, jax.Array]


def compare(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the squared difference of two decoders' changes.

  Args:
    student: `[n, B, ...]`.
    teacher: `[n, B, ...]`, to be stopped by the caller.

  Returns:
    `[B]`, the sum over the changes of the means over pixels.

  Raises:
    InputError: if they differ in shape.
  """
  check_same_shape(student, teacher)
  squares = jnp.square(teacher - student)
  return jnp.sum(jnp.mean(squares, axis=range(2, squares.ndim)), axis=0)


def make_targets(
    factors: jax.Array,
    permutation: jax.Array,
    axis_name: str | None = None,
    blocks: Sequence[int] | None = None,
) -> jax.Array:
  """Returns the factors that swaps lead to.

  Args:
    factors: `[B, K]`.
    permutation: `[B]` int, the partner of each example; or `[n, B]`, n swaps.
    axis_name: of the mapped axis that the batch is spread over, if any.
    blocks: sizes of the groups of factors that are swapped one at a time, see
      `config.Supervision`.

  Returns:
    `[n, B, K]`, n = 1 for one swap; for m blocks `[m * n, B, K]`, the swaps of
    the first block first.
  """
  take = lambda one: codes.take_partners(factors, one, axis_name)
  if permutation.ndim == 1:
    partners = take(permutation)[None]
  else:
    partners = jnp.stack([take(one) for one in permutation])
  if blocks is None:
    return partners
  ends = np.cumsum(blocks)
  if ends[-1] != factors.shape[1]:
    raise errors.InputError(
        f'blocks of {tuple(blocks)} factors, {ends[-1]} together, with'
        f' {factors.shape[1]} factors; accepted: as many.'
    )
  units = np.arange(factors.shape[1])
  moved = [
      (units >= end - size) & (units < end) for size, end in zip(blocks, ends)
  ]
  return jnp.concatenate(
      [jnp.where(x[None, None], partners, factors[None]) for x in moved]
  )


def compute(
    supervision: config.Supervision,
    decode: codes.DecodeFn,
    code: codes.Code,
    targets: jax.Array,
) -> Changes:
  """Computes what a decoder's images change by, as `supervision` says.

  Args:
    supervision: how.
    decode: `code -> [B, ...]`.
    code: `[B, K]` factors and nuisance of any shape.
    targets: `[n, B, K]`, where the factors go to; not used by 'full'.

  Returns:
    Images, and `[n, B, ...]` changes, or `[K, B, ...]` of 'full'.

  Raises:
    InputError: if factors are not `[B, K]`, images are not one a code, or the
      full Jacobian is larger than `MAX_FULL_BYTES`.
  """
  match supervision.jacobian:
    case 'tangent':
      return tangent(decode, code, targets)
    case 'path':
      return path(decode, code, targets, nodes=supervision.nodes)
    case 'full':
      return full(decode, code)
    case _:
      return secant(decode, code, targets)


def secant(
    decode: codes.DecodeFn, code: codes.Code, targets: jax.Array
) -> Changes:
  """Computes D(target, z) - D(y, z); see `compute`."""
  decode_at = _bind_nuisance(decode, code)
  images = decode_at(code.factors)
  return images, _map_first(decode_at, targets) - images[None]


def tangent(
    decode: codes.DecodeFn, code: codes.Code, targets: jax.Array
) -> Changes:
  """Computes J(y, z) (target - y); see `compute`."""
  decode_at = _bind_nuisance(decode, code)
  directions = targets - code.factors[None]
  if len(directions) == 1:
    images, change = jax.jvp(decode_at, (code.factors,), (directions[0],))
    return images, change[None]
  images, push = jax.linearize(decode_at, code.factors)
  return images, jax.vmap(push)(directions)


def path(
    decode: codes.DecodeFn,
    code: codes.Code,
    targets: jax.Array,
    *,
    nodes: int,
) -> Changes:
  """Computes the mean of J from y to target, times (target - y).

  See `compute`.

  Args:
    decode: `code -> [B, ...]`.
    code: `[B, K]` factors and nuisance of any shape.
    targets: `[n, B, K]`.
    nodes: of the quadrature, 1 or more.

  Returns:
    Images, and `[n, B, ...]` changes.
  """
  decode_at = _bind_nuisance(decode, code)
  points, weights = _gauss_legendre(nodes)

  def change(target):
    direction = target - code.factors
    derivative = lambda t: jax.jvp(
        decode_at, (code.factors + t * direction,), (direction,)
    )[1]
    at_points = _map_first(derivative, points.astype(direction.dtype))
    return jnp.tensordot(weights.astype(at_points.dtype), at_points, axes=1)

  return decode_at(code.factors), _map_first(change, targets)


def full(
    decode: codes.DecodeFn,
    code: codes.Code,
    *,
    max_bytes: int = MAX_FULL_BYTES,
) -> Changes:
  """Computes all columns of J(y, z).

  Args:
    decode: `code -> [B, ...]`.
    code: `[B, K]` factors and nuisance of any shape.
    max_bytes: that the columns may have.

  Returns:
    Images, and the Jacobian as `[K, B, ...]`.

  Raises:
    InputError: if it is larger than `max_bytes`, or as `compute`.
  """
  factors = code.factors
  decode_at = _bind_nuisance(decode, code)
  shape = jax.eval_shape(decode_at, factors)
  check_full_size(shape.shape, factors.shape[1], shape.dtype, max_bytes)
  images, push = jax.linearize(decode_at, factors)
  columns = jnp.eye(factors.shape[1], dtype=factors.dtype)
  along = lambda column: push(jnp.broadcast_to(column, factors.shape))
  return images, jax.vmap(along)(columns)


def check_full_size(
    image_shape: tuple[int, ...],
    num_factors: int,
    dtype: jnp.dtype = jnp.float32,
    max_bytes: int = MAX_FULL_BYTES,
    name: str = '--jacobian=full',
) -> None:
  """Checks that a full Jacobian is small enough to be computed.

  Args:
    image_shape: (B, H, W, C), of a batch.
    num_factors: K.
    dtype: of the images.
    max_bytes: that it may have.
    name: what asks for it.

  Raises:
    InputError: if it is larger.
  """
  needed = num_factors * math.prod(image_shape) * jnp.dtype(dtype).itemsize
  if needed > max_bytes:
    raise errors.InputError(
        f'{name}: the full Jacobian of images {tuple(image_shape)} by'
        f' {num_factors} units of the code needs {needed} bytes'
        f' ({needed / 2**20:.0f} MiB) for each decoder; accepted: {max_bytes}'
        ' bytes at most, by a smaller batch, image or code, or without it'
        ' (--jacobian=secant, tangent or path have no such limit).'
    )


def _bind_nuisance(decode, code):
  """Returns the decoder as a function of the factors, `[B, K] -> [B, ...]`."""
  check_factors(code)

  def decode_at(factors):
    moved = codes.Code(factors, code.nuisance)
    return check_rows(decode(moved), moved)

  return decode_at


def _map_first(function, values):
  """Maps a function over the first axis of an array.

  A single entry is not batched: products of a batch of one are rounded in
  another way.
  """
  if len(values) == 1:
    return function(values[0])[None]
  return jax.vmap(function)(values)


def _gauss_legendre(nodes):
  """Returns points in [0, 1] and weights that sum to 1, NumPy arrays."""
  points, weights = np.polynomial.legendre.leggauss(nodes)
  return (points + 1) / 2, weights / 2


def check_factors(code: codes.Code) -> None:
  """Raises InputError unless factors are `[B, K]`."""
  if code.factors.ndim != 2:
    raise errors.InputError(
        f'factors of shape {code.factors.shape}; accepted: [B, K], of rank 2.'
    )


def check_rows(images: jax.Array, code: codes.Code) -> jax.Array:
  """Returns images, and raises InputError unless they are one a code."""
  if images.ndim < 2 or images.shape[0] != code.factors.shape[0]:
    raise errors.InputError(
        f'the decoder made images of shape {images.shape} of factors of shape'
        f' {code.factors.shape}; accepted: [B, ...], an image for each of the'
        f' {code.factors.shape[0]} codes, of one shape for all codes.'
    )
  return images


def check_same_shape(student: jax.Array, teacher: jax.Array) -> None:
  """Raises InputError unless images, or changes, are of one shape."""
  if student.shape != teacher.shape:
    raise errors.InputError(
        f'the images of the student, or their changes, are of shape'
        f' {student.shape}, those of the teacher of shape {teacher.shape};'
        ' accepted: the same of both, for all codes.'
    )
