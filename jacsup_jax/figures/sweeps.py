"""Decode codes whose units vary, are swapped or flipped, for figures.

A unit is an index into flat codes: 0 to K - 1 are the first teacher's factors,
K + d - 1 is the unit found at stage d. Where the nuisance is a feature map,
only factors can vary. `K` factors, `D` nuisance units, `B` examples; `decode`
is `Code -> [B, H, W, C]` images.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes


def quantile_values(
  code: codes.Code, unit: int, count: int, *, low: float = 0.01
) -> jax.Array:
  """Returns evenly spaced values over the range of a unit on a data set.

  The ends are quantiles, so that single outliers do not set the range.

  Args:
    code: of M examples, with flat nuisance.
    unit: index in flat order.
    count: number of values.
    low: the values, which rise, run from this quantile to the one at 1 - `low`.
  """
  return _range(codes.merge(code)[:, unit], count, low)


def vary_factors(
  decode: codes.DecodeFn,
  code: codes.Code,
  units: Sequence[int],
  horizontal: jax.Array,
  vertical: jax.Array,
) -> jax.Array:
  """Decodes one code with two of its units running over a grid, Figure 1.

  Args:
    decode: of a model.
    code: one example, B = 1.
    units: the unit that varies along a row, and the one down a column.
    horizontal: `[cols]`, values of the first unit.
    vertical: `[rows]`, values of the second unit.

  Returns:
    `[rows, cols, H, W, C]`.
  """
  chex.assert_rank([horizontal, vertical], 1)
  chex.assert_shape(code.factors, (1, None))
  rows, cols = vertical.size, horizontal.size
  varied = jax.tree.map(lambda x: jnp.repeat(x, rows * cols, axis=0), code)
  varied = _set_unit(varied, units[0], jnp.tile(horizontal, rows))
  varied = _set_unit(varied, units[1], jnp.repeat(vertical, cols))
  images = decode(varied)
  return images.reshape(rows, cols, *images.shape[1:])


def vary_unit(
  decode: codes.DecodeFn,
  code: codes.Code,
  unit: int | jax.Array,
  values: jax.Array,
) -> jax.Array:
  """Decodes codes with one unit running over values, Figures 2 and 8.

  Args:
    decode: of a model.
    code: `[B, K]` factors and nuisance of any shape, as a feature map.
    unit: index in flat order; may be traced.
    values: `[count]`.

  Returns:
    `[B, count, H, W, C]`.
  """
  chex.assert_rank([code.factors, values], [2, 1])
  # One value at a time: faces of all values at once would not fit in memory.
  images = jax.lax.map(
    lambda value: decode(_set_unit(code, unit, value)), values
  )
  return jnp.swapaxes(images, 0, 1)


def vary_direction(
  decode: codes.DecodeFn,
  code: codes.Code,
  count: int,
  direction: jax.Array,
  num_values: int,
  *,
  low: float = 0.01,
) -> jax.Array:
  """Decodes codes with their nuisance moved along a direction.

  The component along the direction runs over its range on the data set; the
  factors and the orthogonal part of the nuisance stay.

  Args:
    decode: of a model.
    code: of M examples, `[M, K]` factors and `[M, D]` nuisance units.
    count: number of first examples that are decoded, B.
    direction: `[D]`, of length 1.
    num_values: number of values of the component.
    low: the first value is this quantile and the last the one at 1 - `low`.

  Returns:
    `[B, num_values, H, W, C]`.
  """
  chex.assert_rank([code.nuisance, direction], [2, 1])
  components = code.nuisance @ direction
  values = _range(components, num_values, low)
  shown = jax.tree.map(lambda x: x[:count], code)

  def decode_at(value):
    steps = value - components[:count, None]
    nuisance = shown.nuisance + steps * direction[None]
    return decode(shown._replace(nuisance=nuisance))

  return jnp.swapaxes(jax.lax.map(decode_at, values), 0, 1)


def swap_all_factors(decode: codes.DecodeFn, code: codes.Code) -> jax.Array:
  """Decodes codes with the factors of each other, as a class swap does.

  Args:
    decode: of a model.
    code: `[B, K]` factors and nuisance of any shape.

  Returns:
    `[B, B, H, W, C]`: row i has the factors of example i, column j the nuisance
    of example j; the diagonal holds the reconstructions.
  """
  chex.assert_rank(code.factors, 2)

  def decode_with(factors):
    factors = jnp.broadcast_to(factors[None], code.factors.shape)
    return decode(code._replace(factors=factors))

  return jax.lax.map(decode_with, code.factors)


def flip_factors(
  decode: codes.DecodeFn,
  code: codes.Code,
  indices: jax.Array,
  strength: float | jax.Array,
) -> jax.Array:
  """Decodes codes with one factor flipped at a time, Figure 5.

  Args:
    decode: of a model.
    code: `[B, K]` factors and nuisance of any shape.
    indices: `[count]` int, the factors to flip.
    strength: alpha, see `codes.flip_factor`.

  Returns:
    `[B, count, H, W, C]`, in the order of `indices`.
  """
  chex.assert_rank(indices, 1)
  flip = lambda index: decode(codes.flip_factor(code, index, strength))
  return jnp.swapaxes(jax.lax.map(flip, indices), 0, 1)


def _set_unit(code, unit, value):
  """Sets a unit of all codes to a value, or to one each."""
  value = jnp.asarray(value, code.factors.dtype)
  if code.nuisance.ndim > 2:
    return code._replace(factors=code.factors.at[:, unit].set(value))
  flat = codes.merge(code).at[:, unit].set(value)
  return codes.split(flat, code.factors.shape[1])


def _range(values, count, low):
  first, last = jnp.quantile(values, jnp.array([low, 1 - low]))
  return jnp.linspace(first, last, count)
