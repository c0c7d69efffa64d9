"""Codes that vary in one or two units, decoded: Figures 1, 2, 5 and 8.

A unit is an index into flat codes: 0 to K - 1 are the first teacher's factors,
K + d - 1 is the unit that was found at stage d.
"""

import chex
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes


def quantile_values(
    codes: codes.Code, unit: int, count: int, *, low: float = 0.01
) -> jax.Array:
  """Returns evenly spaced values over the range of a unit on a data set.

  The ends are quantiles, so that single outliers do not set the range.

  Args:
    codes: of M examples, with flat nuisance.
    unit: index in flat order.
    count: of values.
    low: the first value is this quantile and the last the one at 1 - `low`.

  Returns:
    `[count]`, rising.
  """
  values = codes.merge(codes)[:, unit]
  first, last = jnp.quantile(values, jnp.array([low, 1 - low]))
  return jnp.linspace(first, last, count)


def vary_factors(
    decode: codes.DecodeFn,
    code: codes.Code,
    first: int,
    second: int,
    values_first: jax.Array,
    values_second: jax.Array,
) -> jax.Array:
  """Decodes one code with two of its factors running over a grid.

  The nuisance and all other factors stay as they are.

  Args:
    decode: `Code -> [B, H, W, C]`.
    code: of one example, B = 1; nuisance of any shape.
    first: index of the factor that runs along a row.
    second: index of the factor that runs down a column.
    values_first: `[cols]`.
    values_second: `[rows]`.

  Returns:
    `[rows, cols, H, W, C]`.
  """
  chex.assert_rank([values_first, values_second], 1)
  chex.assert_shape(code.factors, (1, None))
  rows, cols = values_second.size, values_first.size
  repeated = jax.tree.map(lambda x: jnp.repeat(x, rows * cols, axis=0), code)
  factors = repeated.factors.at[:, first].set(jnp.tile(values_first, rows))
  factors = factors.at[:, second].set(jnp.repeat(values_second, cols))
  images = decode(repeated._replace(factors=factors))
  return images.reshape(rows, cols, *images.shape[1:])


def vary_unit(
    decode: codes.DecodeFn, code: codes.Code, unit: int, values: jax.Array
) -> jax.Array:
  """Decodes codes with one unit running over values, all others fixed.

  Args:
    decode: `Code -> [B, H, W, C]`.
    code: `[B, K]` factors and `[B, D]` nuisance units.
    unit: index in flat order, a factor or a nuisance unit.
    values: `[count]`.

  Returns:
    `[B, count, H, W, C]`.
  """
  chex.assert_rank(values, 1)
  batch_size, num_factors = code.factors.shape
  flat = jnp.repeat(codes.merge(code), values.size, axis=0)
  flat = flat.at[:, unit].set(jnp.tile(values, batch_size))
  images = decode(codes.split(flat, num_factors))
  return images.reshape(batch_size, values.size, *images.shape[1:])


def vary_direction(
    decode: codes.DecodeFn,
    codes: codes.Code,
    count: int,
    direction: jax.Array,
    num_values: int,
    *,
    low: float = 0.01,
) -> jax.Array:
  """Decodes codes with their nuisance moved along a direction.

  To evenly spaced values of its component over its range on a data set; the
  part of the nuisance that is orthogonal to it, and the factors, stay.

  Args:
    decode: `Code -> [B, H, W, C]`.
    codes: of M examples, `[M, K]` factors and `[M, D]` nuisance units.
    count: of first examples that are decoded, B.
    direction: `[D]`, of length 1.
    num_values: of the component.
    low: the first value is this quantile and the last the one at 1 - `low`.

  Returns:
    `[B, num_values, H, W, C]`.
  """
  chex.assert_rank([codes.nuisance, direction], [2, 1])
  components = codes.nuisance @ direction
  first, last = jnp.quantile(components, jnp.array([low, 1 - low]))
  values = jnp.linspace(first, last, num_values)
  steps = values[None] - components[:count, None]
  nuisance = codes.nuisance[:count, None] + steps[..., None] * direction[
      None, None
  ]
  images = decode(
      codes.Code(
          jnp.repeat(codes.factors[:count], num_values, axis=0),
          nuisance.reshape(-1, direction.size),
      )
  )
  return images.reshape(count, num_values, *images.shape[1:])


def sweep_factor(
    decode: codes.DecodeFn,
    code: codes.Code,
    index: int | jax.Array,
    values: jax.Array,
) -> jax.Array:
  """Decodes codes with one factor running over values, all else fixed.

  Figure 8 of Lezama (2019): from -alpha to alpha.

  Args:
    decode: `Code -> [B, H, W, C]`.
    code: `[B, K]` factors and nuisance of any shape, as a feature map.
    index: of the factor; may be traced.
    values: `[count]`.

  Returns:
    `[B, count, H, W, C]`.
  """
  chex.assert_rank([code.factors, values], [2, 1])

  def at(value):
    factors = code.factors.at[:, index].set(value.astype(code.factors.dtype))
    return decode(code._replace(factors=factors))

  # One value at a time: faces of all values at once would not fit.
  return jnp.swapaxes(jax.lax.map(at, values), 0, 1)


def swap_all_factors(
    decode: codes.DecodeFn, code: codes.Code
) -> jax.Array:
  """Decodes codes with the factors of each other, as a class swap does.

  Args:
    decode: `Code -> [B, H, W, C]`.
    code: `[B, K]` factors and nuisance of any shape.

  Returns:
    `[B, B, H, W, C]`: row i has the factors of example i, column j the nuisance
    of example j; the diagonal are the reconstructions.
  """
  chex.assert_rank(code.factors, 2)

  def with_factors_of(factors):
    own = jnp.broadcast_to(factors[None], code.factors.shape)
    return decode(code._replace(factors=own))

  return jax.lax.map(with_factors_of, code.factors)


def flip_factors(
    decode: codes.DecodeFn,
    code: codes.Code,
    indices: jax.Array,
    strength: float | jax.Array,
) -> jax.Array:
  """Decodes codes with one factor flipped at a time, Figure 5.

  Args:
    decode: `Code -> [B, H, W, C]`.
    code: `[B, K]` factors and nuisance of any shape.
    indices: `[count]` int, the factors to flip.
    strength: alpha, see `codes.flip_factor`.

  Returns:
    `[B, count, H, W, C]`, the order of `indices`.
  """
  chex.assert_rank(indices, 1)
  flip = lambda index: decode(codes.flip_factor(code, index, strength))
  return jnp.swapaxes(jax.lax.map(flip, indices), 0, 1)
