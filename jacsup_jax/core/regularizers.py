"""Alternatives to the cross-covariance, eq. (10), that separate factors.

None is from the paper. Weights are left to the caller.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import jacobian


def hsic_loss(
  factors: jax.Array,
  nuisance: jax.Array,
  *,
  bandwidth: float | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """Computes HSIC, a kernel measure of dependence of factors and nuisance.

  The Hilbert-Schmidt independence criterion of Gretton et al. (2005), tr(K H L
  H) / (M - 1)^2 over a batch of M, with Gaussian kernels exp(-d^2 / 2 s^2) of
  the whole of either side. Unlike the cross-covariance it sees dependence of
  any form. The estimator is biased: independent batches are above 0 by the
  order of 1 / M.

  Args:
    factors: `[B, K]`.
    nuisance: `[B, ...]`, flattened to `[B, D]`; D may be 0, then the loss is 0.
    bandwidth: s of both kernels; by default, for each side, the root of the
      median squared distance within the batch, not differentiated.
    axis_name: of the mapped axis that the batch is spread over, if any; pairs
      are then those of the whole batch.

  Returns:
    Scalar: a statistic of the batch, not a mean over examples.

  Raises:
    InputError: if the batch has no two examples.

  Example:
    >>> x = jnp.array([[0.0], [1.0], [2.0], [3.0]])
    >>> bool(hsic_loss(x, x) > hsic_loss(x, jnp.zeros((4, 1))))
    True
  """
  chex.assert_rank(factors, 2)
  nuisance = nuisance.reshape(nuisance.shape[0], -1)
  chex.assert_equal_shape_prefix([factors, nuisance], 1)
  if axis_name is not None:
    factors, nuisance = jax.lax.all_gather(
      (factors, nuisance), axis_name, tiled=True
    )
  count = factors.shape[0]
  if count < 2:
    raise errors.InputError(
      f'HSIC of a batch of {count}; accepted: 2 examples or more.'
    )
  center = lambda x: (
    x
    - jnp.mean(x, axis=0, keepdims=True)
    - jnp.mean(x, axis=1, keepdims=True)
    + jnp.mean(x)
  )
  kernels = [_gaussian_kernel(x, bandwidth) for x in (factors, nuisance)]
  # tr(K H L H) = tr((H K H) L), a sum over all pairs.
  return jnp.sum(center(kernels[0]) * kernels[1]) / (count - 1) ** 2


def column_losses(
  decode: codes.DecodeFn, code: codes.Code
) -> tuple[jax.Array, jax.Array]:
  """Computes squared cosines between columns of a decoder's Jacobian.

  0 if two units of the code change the image in orthogonal directions, 1 if in
  the same. Scale-free: a weaker effect does not lower it. A unit without any
  effect counts as orthogonal.

  Returns:
    `[B]` in [0, 1], mean over pairs of a factor and a nuisance unit, and `[B]`,
    mean over pairs of factors; 0 where there are no such pairs.

  Raises:
    InputError: as `jacobian.compute`.

  Example:
    >>> decode = lambda code: codes.merge(code) @ jnp.eye(3)
    >>> code = codes.Code(jnp.ones((1, 2)), jnp.ones((1, 1)))
    >>> [loss.tolist() for loss in column_losses(decode, code)]
    [[0.0], [0.0]]
  """
  chex.assert_rank(code.factors, 2)
  count = code.factors.shape[1]
  flat = code.nuisance.reshape(code.nuisance.shape[0], -1)
  units = jnp.concatenate([code.factors, flat], axis=1)

  def decode_units(moved):
    factors, nuisance = jnp.split(moved.factors, [count], axis=1)
    return decode(codes.Code(factors, nuisance.reshape(code.nuisance.shape)))

  columns = jacobian.full(decode_units, codes.Code(units, units[:, :0])).changes
  columns = columns.reshape(*columns.shape[:2], -1)
  products = jnp.einsum('ibp,jbp->bij', columns[:count], columns)
  squares = jnp.sum(jnp.square(columns), axis=-1).T
  scales = squares[:, :count, None] * squares[:, None, :]
  # A unit that has just grown may have no effect.
  has_effect = scales > jnp.finfo(scales.dtype).tiny
  cosines = jnp.where(
    has_effect, jnp.square(products) / jnp.where(has_effect, scales, 1.0), 0.0
  )
  # The cosine of a factor with itself is 1.
  others = 1 - jnp.eye(count, dtype=cosines.dtype)
  between = cosines[:, :, :count] * others[None]
  mean = lambda x, pairs: jnp.sum(x, axis=(1, 2)) / max(1, pairs)
  nuisance = cosines[:, :, count:]
  return (
    mean(nuisance, count * nuisance.shape[2]),
    mean(between, count * (count - 1)),
  )


def _gaussian_kernel(values, bandwidth):
  """Returns `[M, M]` similarities of `[M, D]` values."""
  differences = values[:, None] - values[None]
  distances = jnp.sum(jnp.square(differences), axis=-1)
  if bandwidth is not None:
    return jnp.exp(-distances / (2 * bandwidth**2))
  pairs = np.triu_indices(len(values), 1)
  median = jax.lax.stop_gradient(jnp.median(distances[pairs]))
  # If most values are equal the median is 0: use a bandwidth of 1.
  return jnp.exp(-distances / (2 * jnp.where(median > 0, median, 1.0)))
