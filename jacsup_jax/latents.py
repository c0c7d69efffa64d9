"""Latent codes as arrays: split, merge, swap and flip.

The flat order of a code is (factors, nuisance), as in the paper; the released
code has it the other way round. No other module depends on it.
"""

import chex
import jax
import jax.numpy as jnp

from jacsup_jax import types


def split(flat: jax.Array, num_factors: int) -> types.Code:
  """Splits flat codes into factors and nuisance.

  Args:
    flat: `[B, K + D]`.
    num_factors: K.

  Returns:
    Code of `[B, K]` factors and `[B, D]` nuisance units (D may be 0).
  """
  chex.assert_rank(flat, 2)
  return types.Code(flat[:, :num_factors], flat[:, num_factors:])


def merge(code: types.Code) -> jax.Array:
  """Concatenates a code, the inverse of `split`.

  Args:
    code: `[B, K]` factors and `[B, D]` nuisance units.

  Returns:
    `[B, K + D]`.
  """
  chex.assert_rank([code.factors, code.nuisance], 2)
  return jnp.concatenate([code.factors, code.nuisance], axis=1)


def take_partners(
    values: jax.Array, permutation: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Returns the row of every example's partner.

  Args:
    values: `[B, ...]`.
    permutation: `[B]` int, the partner of each example; not checked to be one.
      With `axis_name` it counts over the examples of all devices.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    `[B, ...]`, `values[permutation]`.
  """
  if axis_name is not None:
    values = jax.lax.all_gather(values, axis_name, tiled=True)
  return jnp.take(values, permutation, axis=0)


def swap_factors(
    code: types.Code, permutation: jax.Array, axis_name: str | None = None
) -> types.Code:
  """Gives every example the factors of its partner: (y, z) -> (y_j, z).

  Args:
    code: `[B, K]` factors and nuisance of any shape.
    permutation: `[B]` int, the partner j of each example.
    axis_name: see `take_partners`.

  Returns:
    Code of the same shapes.
  """
  chex.assert_rank([code.factors, permutation], [2, 1])
  factors = take_partners(code.factors, permutation, axis_name)
  return types.Code(factors, code.nuisance)


def flip_factor(
    code: types.Code, index: int | jax.Array, strength: float | jax.Array
) -> types.Code:
  """Sets one factor to `strength` times its opposite sign.

  y_i -> -alpha sign(y_i). Section 4.3 of Lezama (2019). A factor of exactly 0
  counts as positive, so that every factor is flipped.

  Args:
    code: `[B, K]` factors and nuisance of any shape.
    index: i, which factor.
    strength: alpha, in units of the factor.

  Returns:
    Code of the same shapes.
  """
  chex.assert_rank(code.factors, 2)
  value = code.factors[:, index]
  flipped = jnp.where(value >= 0, -strength, strength).astype(value.dtype)
  return code._replace(factors=code.factors.at[:, index].set(flipped))
