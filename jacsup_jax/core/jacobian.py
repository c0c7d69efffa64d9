"""Changes of a decoder's images with its factors, compared between decoders.

A decoder is a pure function `decode(code) -> images` of a `codes.Code` with
`[B, K]` factors, its parameters bound by the caller. Its changes come in four
forms, with J the derivative of the images by the factors::

  secant   D(y_j, z) - D(y, z), the paper's, eq. (9) of Lezama (2019);
  tangent  J(y, z) (y_j - y), the limit of the secant for small swaps;
  path     the average of J along the segment from y to y_j, times (y_j - y),
           by Gauss-Legendre quadrature: it converges to the secant;
  full     all columns of J(y, z): its squares are the expected squares of
           tangents along standard normal directions.

Changes are `[n, B, ...]`: one per entry of `targets` `[n, B, K]`, the factors
after a swap, or one per column of the Jacobian. Training and the losses below
use the same functions.

Example:
  >>> decode = lambda code: codes.merge(code) @ jnp.ones((3, 5))  # k = 2, d = 1
  >>> code = codes.Code(jnp.zeros((4, 2)), jnp.ones((4, 1)))
  >>> targets = make_targets(code.factors, jnp.array([1, 2, 3, 0]))
  >>> for form in ('secant', 'tangent', 'path', 'full'):
  ...   print(form, compute(decode, code, targets, form=form).changes.shape)
  secant (1, 4, 5)
  tangent (1, 4, 5)
  path (1, 4, 5)
  full (2, 4, 5)
"""

import functools
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import losses

# Limit for the full Jacobian of one decoder on one batch. A training step holds
# those of student and teacher, and what their gradients need.
MAX_FULL_BYTES = 2**28


class Changes(NamedTuple):
  """A decoder's images and how they change."""

  images: jax.Array  # [B, ...], D(y, z)
  changes: jax.Array  # [n, B, ...]


def compute(
  decode: codes.DecodeFn,
  code: codes.Code,
  targets: jax.Array,
  *,
  form: str = 'secant',
  nodes: int = 3,
  joint: bool = False,
  images: jax.Array | None = None,
) -> Changes:
  """Computes the changes of a decoder's images in one of the forms.

  Args:
    decode: `code -> [B, ...]`.
    code: `[B, K]` factors and nuisance of any shape.
    targets: `[n, B, K]`, factors after each swap; not used by 'full'.
    form: 'secant', 'tangent', 'path' or 'full'.
    nodes: of the quadrature of 'path'.
    joint: of `secant`.
    images: of `secant`.

  Raises:
    InputError: if the decoder does not return one image per code, or the full
      Jacobian is larger than `MAX_FULL_BYTES`.
  """
  match form:
    case 'tangent':
      return tangent(decode, code, targets)
    case 'path':
      return path(decode, code, targets, nodes=nodes)
    case 'full':
      return full(decode, code)
    case _:
      return secant(decode, code, targets, joint=joint, images=images)


def make_targets(
  factors: jax.Array,
  permutations: jax.Array,
  axis_name: str | None = None,
  edits: str = 'swap',
  conflicts: jax.Array | None = None,
  strengths: jax.Array | None = None,
) -> jax.Array:
  """Returns the factors after each edit, `[n, B, K]`.

  `permutations` are `[n, B]` partners, or `[B]` for one edit. A 'swap' takes
  all factors of the partner. For 'flip', rows are the numbers of the factors
  that are set to the opposite of their sign, -1 or +1; `conflicts` are those of
  `codes.edit_factor`. Factors that change are multiplied by the example's entry
  of the `[B]` strengths, if these are given.

  Example:
    >>> factors, rows = jnp.ones((2, 2)), jnp.array([0, 1])
    >>> strengths = jnp.array([1.0, 4.0])
    >>> make_targets(factors, rows, edits='flip', strengths=strengths).tolist()
    [[[-1.0, 1.0], [1.0, -4.0]]]
  """
  chex.assert_rank(factors, 2)
  rows = jnp.atleast_2d(permutations)
  if edits == 'flip':
    present = jnp.ones(factors.shape[1], factors.dtype)

    def flip(row):
      own = jnp.take_along_axis(factors, row[:, jnp.newaxis], axis=1)[:, 0]
      asked = jnp.where(own >= 0, -1, 1)
      edited = codes.edit_factor(
        codes.Code(factors, None), row, asked, -present, present, conflicts
      ).factors
      if strengths is None:
        return edited
      stronger = strengths[:, jnp.newaxis].astype(edited.dtype) * edited
      return jnp.where(edited == factors, factors, stronger)

    return jnp.stack([flip(row) for row in rows])
  return jnp.stack([codes.take_partners(factors, p, axis_name) for p in rows])


def secant(
  decode: codes.DecodeFn,
  code: codes.Code,
  targets: jax.Array,
  *,
  joint: bool = False,
  images: jax.Array | None = None,
) -> Changes:
  """Computes D(target, z) - D(y, z); see `compute`.

  With `joint` all codes are decoded as one batch, which is faster. The decoder
  must then treat examples independently: not normalise with batch statistics.
  Otherwise `images` may hold D(y, z), if it is known already.
  """
  if joint:
    images, swapped = _decode_jointly(decode, code, targets)
  else:
    decode_at = _bind_nuisance(decode, code)
    images = decode_at(code.factors) if images is None else images
    swapped = _map_first(decode_at, targets)
  return Changes(images, swapped - images[None])


def tangent(
  decode: codes.DecodeFn, code: codes.Code, targets: jax.Array
) -> Changes:
  """Computes J(y, z) (target - y); see `compute`."""
  decode_at = _bind_nuisance(decode, code)
  directions = targets - code.factors[None]
  if len(directions) == 1:
    images, change = jax.jvp(decode_at, (code.factors,), (directions[0],))
    return Changes(images, change[None])
  images, push = jax.linearize(decode_at, code.factors)
  return Changes(images, jax.vmap(push)(directions))


def path(
  decode: codes.DecodeFn, code: codes.Code, targets: jax.Array, *, nodes: int
) -> Changes:
  """Computes the mean of J from y to target, times (target - y).

  `targets` are `[n, B, K]`, changes `[n, B, ...]`; see `compute`.
  """
  decode_at = _bind_nuisance(decode, code)
  points, weights = np.polynomial.legendre.leggauss(nodes)
  points, weights = (points + 1) / 2, weights / 2  # From [-1, 1] to [0, 1].

  def change(target):
    direction = target - code.factors
    derivative = lambda t: jax.jvp(
      decode_at, (code.factors + t * direction,), (direction,)
    )[1]
    at_points = _map_first(derivative, points.astype(direction.dtype))
    return jnp.tensordot(weights.astype(at_points.dtype), at_points, axes=1)

  return Changes(decode_at(code.factors), _map_first(change, targets))


def full(decode: codes.DecodeFn, code: codes.Code) -> Changes:
  """Computes all columns of J(y, z), `[K, B, ...]`; see `compute`."""
  factors = code.factors
  decode_at = _bind_nuisance(decode, code)
  shape = jax.eval_shape(decode_at, factors)
  check_full_size(shape.shape, factors.shape[1], shape.dtype)
  images, push = jax.linearize(decode_at, factors)
  columns = jnp.eye(factors.shape[1], dtype=factors.dtype)
  along = lambda column: push(jnp.broadcast_to(column, factors.shape))
  return Changes(images, jax.vmap(along)(columns))


def check_full_size(
  image_shape: tuple[int, ...],
  num_factors: int,
  dtype: jnp.dtype = jnp.float32,
  name: str = '--jacobian=full',
) -> None:
  """Raises InputError if a full Jacobian of a batch is too large."""
  needed = num_factors * math.prod(image_shape) * jnp.dtype(dtype).itemsize
  if needed > MAX_FULL_BYTES:
    raise errors.InputError(
      f'{name}: the full Jacobian of images {tuple(image_shape)} by'
      f' {num_factors} units of the code needs {needed} bytes per decoder;'
      f' accepted: up to {MAX_FULL_BYTES} (a smaller batch, image or code, or'
      ' --jacobian=secant, tangent or path).'
    )


def secant_loss(
  student_decode: codes.DecodeFn,
  student_code: codes.Code,
  teacher_decode: codes.DecodeFn,
  teacher_code: codes.Code,
  permutation: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """Computes the squared difference of two decoders' changes under a swap.

  The change of the image between an example's factors and its partner's is, to
  first order, the Jacobian in that direction. Second part of eq. (9) of Lezama
  (2019). The teacher is stopped; the student is differentiated on both sides
  of the swap.

  Args:
    student_decode: `code -> [B, H, W, C]`, which treats examples independently.
    student_code: `[B, K]` factors and nuisance of any shape.
    teacher_decode: `code -> [B, H, W, C]`, as the student's.
    teacher_code: `[B, K]` factors and nuisance of any shape.
    permutation: `[B]` int, the partner j of each example, shared by both; or
      `[n, B]` for the sum over n swaps.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    `[B]`, mean over pixels, in squared units of the images.

  Example:
    >>> kernel = jnp.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    >>> student = lambda code: codes.merge(code) @ kernel  # k = 2, d = 1
    >>> teacher = lambda code: code.factors @ (2 * kernel[:2])  # d = 0
    >>> factors = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> code = codes.Code(factors, jnp.ones((2, 1)))
    >>> models = student, code, teacher, codes.split(factors, 2)
    >>> secant_loss(*models, jnp.array([1, 0])).tolist()
    [1.0, 1.0]
  """
  return _compare_targets(
    functools.partial(secant, joint=True),
    (student_decode, student_code),
    (teacher_decode, teacher_code),
    permutation,
    axis_name,
  )


def tangent_loss(
  student_decode: codes.DecodeFn,
  student_code: codes.Code,
  teacher_decode: codes.DecodeFn,
  teacher_code: codes.Code,
  permutation: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """Computes the squared difference of two directional derivatives to a swap.

  ||J^T (y_j^T - y^T) - J^S (y_j^S - y^S)||^2, as the mean over pixels: the
  limit of `secant_loss`, with its arguments, for small swaps. The student's
  point and direction are both differentiated.
  """
  return _compare_targets(
    tangent,
    (student_decode, student_code),
    (teacher_decode, teacher_code),
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
  """Computes the squared difference of two mean Jacobians along a swap.

  As `tangent_loss`, with the Jacobians averaged along the segment from y to
  y_j. That average times the segment is the secant: the loss converges to
  `secant_loss`, with its arguments, with the number of nodes.
  """
  return _compare_targets(
    functools.partial(path, nodes=nodes),
    (student_decode, student_code),
    (teacher_decode, teacher_code),
    permutation,
    axis_name,
  )


def full_loss(
  student_decode: codes.DecodeFn,
  student_code: codes.Code,
  teacher_decode: codes.DecodeFn,
  teacher_code: codes.Code,
) -> jax.Array:
  """Computes the squared Frobenius norm of the difference of two Jacobians.

  Mean over pixels, summed over factors: the expectation of `tangent_loss` over
  standard normal directions: `[B]`, in squared units of images per squared unit
  of factors. The teacher is stopped.
  """
  student = full(student_decode, student_code).changes
  teacher = full(teacher_decode, teacher_code).changes
  return losses.jacobian_loss(student, jax.lax.stop_gradient(teacher))


def _compare_targets(changes_fn, student, teacher, permutation, axis_name):
  def changes_of(decode, code):
    targets = make_targets(code.factors, permutation, axis_name)
    return changes_fn(decode, code, targets).changes

  return losses.jacobian_loss(
    changes_of(*student), jax.lax.stop_gradient(changes_of(*teacher))
  )


def _decode_jointly(decode, code, targets):
  """Decodes y and all targets as one batch: `[B, ...]` and `[n, B, ...]`."""
  count = len(targets)
  nuisance = jnp.concatenate([code.nuisance] * (count + 1))
  every = codes.Code(jnp.concatenate([code.factors, *targets]), nuisance)
  images, *swapped = jnp.split(_check_rows(decode(every), every), count + 1)
  return images, jnp.stack(swapped)


def _bind_nuisance(decode, code):
  """Returns the decoder as a function of the factors, `[B, K] -> [B, ...]`."""
  chex.assert_rank(code.factors, 2)

  def decode_at(factors):
    moved = codes.Code(factors, code.nuisance)
    return _check_rows(decode(moved), moved)

  return decode_at


def _map_first(function, values):
  """Maps a function over the first axis of an array.

  A single entry is not batched, as batched products round differently.
  """
  if len(values) == 1:
    return function(values[0])[None]
  return jax.vmap(function)(values)


def _check_rows(images, code):
  if images.ndim < 2 or images.shape[0] != code.factors.shape[0]:
    raise errors.InputError(
      f'the decoder returned images of shape {images.shape} for factors of'
      f' shape {code.factors.shape}; accepted: [B, ...], one image per code.'
    )
  return images
