"""Decode codes whose units vary, are swapped or flipped, for figures.

A unit is an index into flat codes, factors first. Where the nuisance is a
feature map, only factors can vary. `K` factors, `D` nuisance units, `B`
examples; `decode` is a model's `Code -> [B, H, W, C]` images.
"""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes

# Models are applied to batches of one size: one program encodes, one decodes.
_BATCH_SIZE = 32


def encode(model: Any, *arrays: np.ndarray) -> codes.Code:
  """Encodes whole arrays, what `model.encode` takes, in batches of 32."""
  return _in_batches(_encode, model, *arrays)


def decode(
  model: Any,
  code: codes.Code,
  sweep: Callable[..., jax.Array] = lambda decode, code: decode(code),
  *args: Any,
) -> np.ndarray:
  """Decodes a code, or what a function below makes of it, to [0, 1].

  In batches of 32, also where the function varies more.
  """
  flat = np.asarray(jax.jit(sweep, static_argnums=0)(_flatten, code, *args))
  decode_flat = functools.partial(_decode_flat, code.nuisance.shape[1:])
  images = _in_batches(decode_flat, model, flat.reshape(-1, flat.shape[-1]))
  low, high = model.image_range
  images = (images - low) / (high - low)
  return images.reshape(*flat.shape[:-1], *images.shape[1:])


def take(code: codes.Code, index: int) -> codes.Code:
  """Returns one example of a code, B = 1."""
  return jax.tree.map(lambda x: x[index : index + 1], code)


def quantile_values(code: codes.Code, unit: int, count: int) -> jax.Array:
  """Returns `[count]` evenly spaced values of a unit, which rise.

  From its 1 % to its 99 % quantile over the code, so that single outliers do
  not set the range; the nuisance is flat.
  """
  return _range(codes.merge(code)[:, unit], count)


def vary_factors(
  decode: codes.DecodeFn,
  code: codes.Code,
  units: tuple[int, int] | jax.Array,
  horizontal: jax.Array,
  vertical: jax.Array,
) -> jax.Array:
  """Decodes one code, B = 1, with two units running over a grid, Figure 1.

  The first unit runs over `[cols]` horizontal values along a row, the second
  over `[rows]` vertical ones down a column: `[rows, cols, H, W, C]`.
  """
  rows, cols = vertical.size, horizontal.size
  varied = jax.tree.map(lambda x: jnp.repeat(x, rows * cols, axis=0), code)
  varied = _set_unit(varied, units[0], jnp.tile(horizontal, rows))
  varied = _set_unit(varied, units[1], jnp.repeat(vertical, cols))
  images = decode(varied)
  return images.reshape(rows, cols, *images.shape[1:])


def vary_unit(
  decode: codes.DecodeFn, code: codes.Code, unit: int, values: jax.Array
) -> jax.Array:
  """Decodes codes with one unit running over values, Figures 2 and 8.

  Images are `[B, count, H, W, C]` for `[count]` values.
  """
  return _map(lambda value: decode(_set_unit(code, unit, value)), values)


def vary_direction(
  decode: codes.DecodeFn,
  code: codes.Code,
  count: int,
  direction: jax.Array,
  num_values: int,
) -> jax.Array:
  """Decodes codes with their nuisance moved along a direction.

  The component along the `[D]` direction, of length 1, runs from its 1 % to its
  99 % quantile over the code; the factors and the orthogonal part of the
  nuisance stay. Images are `[count, num_values, H, W, C]`, of the first `count`
  examples.
  """
  components = code.nuisance @ direction
  shown = jax.tree.map(lambda x: x[:count], code)

  def decode_at(value):
    steps = value - components[:count, None]
    nuisance = shown.nuisance + steps * direction[None]
    return decode(shown._replace(nuisance=nuisance))

  return _map(decode_at, _range(components, num_values))


def swap_all_factors(decode: codes.DecodeFn, code: codes.Code) -> jax.Array:
  """Decodes codes with the factors of each other, as a class swap does.

  Images are `[B, B, H, W, C]`: row i has the factors of example i, column j the
  nuisance of example j; the diagonal holds the reconstructions.
  """

  def decode_with(factors):
    factors = jnp.broadcast_to(factors[None], code.factors.shape)
    return decode(code._replace(factors=factors))

  return jax.lax.map(decode_with, code.factors)


def flip_factors(
  decode: codes.DecodeFn,
  code: codes.Code,
  indices: jax.Array,
  targets: jax.Array,
  conflicts: jax.Array | None = None,
  thresholds: jax.Array | float = 0.0,
) -> jax.Array:
  """Decodes codes with one factor flipped at a time, Figure 5.

  A factor is set to the second of its `[K, 2]` targets where it is below its
  threshold, `[K]` or one, and to the first elsewhere; `conflicts` are those of
  `codes.edit_factor`. Images are `[B, count, H, W, C]` for `[count]` indices of
  factors.
  """
  absent, present = jnp.asarray(targets).T
  thresholds = jnp.broadcast_to(thresholds, absent.shape)

  def decode_flipped(index):
    asked = jnp.where(code.factors[:, index] >= thresholds[index], -1, 1)
    args = index, asked, absent, present, conflicts, thresholds
    return decode(codes.edit_factor(code, *args))

  return _map(decode_flipped, indices)


def _set_unit(code, unit, value):
  """Sets a unit of all codes to a value, or to one each."""
  value = jnp.asarray(value, code.factors.dtype)
  if code.nuisance.ndim > 2:
    return code._replace(factors=code.factors.at[:, unit].set(value))
  flat = codes.merge(code).at[:, unit].set(value)
  return codes.split(flat, code.factors.shape[1])


def _range(values, count):
  first, last = jnp.quantile(values, jnp.array([0.01, 0.99]))
  return jnp.linspace(first, last, count)


def _map(decode_at, values):
  """Decodes at one value at a time: all faces would not fit in memory."""
  return jnp.swapaxes(jax.lax.map(decode_at, values), 0, 1)


def _in_batches(function, model, *arrays):
  """Applies a function of a model and batches to whole arrays."""
  found, count = [], len(arrays[0])
  for start in range(0, count, _BATCH_SIZE):
    batch = (x[start : start + _BATCH_SIZE] for x in arrays)
    # The last batch is filled up with its own examples.
    full = (np.resize(x, (_BATCH_SIZE, *x.shape[1:])) for x in batch)
    found.append(jax.device_get(function(model, *full)))
  return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


_encode = jax.jit(lambda model, *arrays: model.encode(*arrays))


@functools.partial(jax.jit, static_argnums=0)
def _decode_flat(nuisance_shape, model, flat):
  factors, nuisance = jnp.split(flat, [model.num_factors], axis=1)
  nuisance = nuisance.reshape(len(flat), *nuisance_shape)
  return model.decode(codes.Code(factors, nuisance))


def _flatten(code):
  """Merges a code whose nuisance may be a feature map: `[B, K + D]`."""
  shape = code.nuisance.shape
  nuisance = code.nuisance.reshape(shape[0], math.prod(shape[1:]))
  return jnp.concatenate([code.factors, nuisance], axis=1)
