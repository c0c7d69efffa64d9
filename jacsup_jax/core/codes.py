"""Latent codes as arrays: split, merge, swap and flip.

The flat order of a code is (factors, nuisance), as in the paper; the released
code has it the other way round. No other module depends on it.
"""

from collections.abc import Callable, Mapping
import hashlib
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

Params = chex.ArrayTree
# What a linen module's `apply` takes: {'params': ..., 'batch_stats': ...}.
Variables = Mapping[str, chex.ArrayTree]
Metrics = dict[str, jax.Array]


class Code(NamedTuple):
  """Factors and the rest of what an image is made from."""

  factors: jax.Array  # [B, K]
  nuisance: jax.Array  # [B, D], or a feature map [B, h, w, c]


EncodeFn = Callable[[jax.Array], Code]
DecodeFn = Callable[[Code], jax.Array]


def split(flat: jax.Array, num_factors: int) -> Code:
  """Splits `[B, K + D]` codes into `[B, K]` factors and `[B, D]` nuisance.

  Example:
    >>> code = split(jnp.arange(8.0).reshape(2, 4), num_factors=1)
    >>> code.factors.shape, code.nuisance.shape
    ((2, 1), (2, 3))
  """
  chex.assert_rank(flat, 2)
  return Code(flat[:, :num_factors], flat[:, num_factors:])


def merge(code: Code) -> jax.Array:
  """Concatenates a code to `[B, K + D]`, the inverse of `split`.

  Example:
    >>> merge(Code(jnp.array([[1.0, 2.0]]), jnp.array([[3.0]]))).tolist()
    [[1.0, 2.0, 3.0]]
  """
  chex.assert_rank([code.factors, code.nuisance], 2)
  return jnp.concatenate([code.factors, code.nuisance], axis=1)


def take_partners(
  values: jax.Array, permutation: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Returns `values[permutation]`, the rows of every example's partner.

  Args:
    values: `[B, ...]`.
    permutation: `[B]` int, the partner of each example; not checked to be one.
      With `axis_name` it counts over the examples of all devices.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Example:
    >>> take_partners(jnp.array([10, 20, 30]), jnp.array([2, 0, 1])).tolist()
    [30, 10, 20]
  """
  if axis_name is not None:
    values = jax.lax.all_gather(values, axis_name, tiled=True)
  return jnp.take(values, permutation, axis=0)


def swap_factors(
  code: Code, permutation: jax.Array, axis_name: str | None = None
) -> Code:
  """Gives every example the factors of its partner: (y, z) -> (y_j, z).

  The arguments are those of `take_partners`; the shapes stay.

  Example:
    >>> code = Code(jnp.array([[1.0], [2.0]]), jnp.array([[7.0], [8.0]]))
    >>> merge(swap_factors(code, jnp.array([1, 0]))).tolist()
    [[2.0, 7.0], [1.0, 8.0]]
  """
  chex.assert_rank([code.factors, permutation], [2, 1])
  factors = take_partners(code.factors, permutation, axis_name)
  return Code(factors, code.nuisance)


def flip_factor(
  code: Code, index: int | jax.Array, strength: float | jax.Array
) -> Code:
  """Sets factor i to `strength` times its opposite sign: -alpha sign(y_i).

  Section 4.3 of Lezama (2019). A factor of exactly 0 counts as positive, so
  that every factor is flipped.

  Example:
    >>> code = Code(jnp.array([[0.3, 5.0], [-0.1, 5.0]]), jnp.zeros((2, 1)))
    >>> flip_factor(code, 0, strength=2.0).factors.tolist()
    [[-2.0, 5.0], [2.0, 5.0]]
  """
  chex.assert_rank(code.factors, 2)
  value = code.factors[:, index]
  flipped = jnp.where(value >= 0, -strength, strength).astype(value.dtype)
  return code._replace(factors=code.factors.at[:, index].set(flipped))


def edit_factor(
  code: Code,
  index: int | jax.Array,
  asked: jax.Array,
  absent: jax.Array,
  present: jax.Array,
  conflicts: jax.Array | None = None,
  thresholds: jax.Array | float = 0.0,
) -> Code:
  """Sets a factor to the value asked for, and those that it excludes absent.

  Args:
    code: `[B, K]` factors.
    index: of the factor; one, or `[B]`.
    asked: `[B]`, positive for present.
    absent: `[K]` values of absent attributes.
    present: `[K]` values of present ones.
    conflicts: `[K, K]` bool, whether the presence of an attribute (row)
      excludes that of another. Where present is asked, factors of excluded
      attributes that reach their thresholds become absent: black hair replaces
      blond.
    thresholds: of present attributes, `[K]` or one.

  Example:
    >>> code = Code(jnp.zeros((2, 1)), jnp.zeros((2, 0)))
    >>> asked, limit = jnp.array([1, -1]), jnp.ones(1)
    >>> edit_factor(code, 0, asked, -limit, limit).factors.tolist()
    [[1.0], [-1.0]]
  """
  chex.assert_rank([code.factors, asked], [2, 1])
  factors = code.factors
  if conflicts is not None:
    excluded = jnp.broadcast_to(conflicts[index], factors.shape)
    levels = jnp.broadcast_to(thresholds, factors.shape)
    excluded &= (asked > 0)[:, jnp.newaxis] & (factors >= levels)
    values = jnp.broadcast_to(absent, factors.shape).astype(factors.dtype)
    factors = jnp.where(excluded, values, factors)
  value = jnp.where(asked > 0, present[index], absent[index])
  rows = jnp.arange(factors.shape[0])
  factors = factors.at[rows, index].set(value.astype(factors.dtype))
  return code._replace(factors=factors)


def hash_tree(tree: chex.ArrayTree) -> str:
  """Returns the sha256 of a tree's paths, shapes, types and bytes, as hex.

  Example:
    >>> hash_tree({'a': jnp.zeros(2)}) == hash_tree({'a': jnp.ones(2)})
    False
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
    array = np.asarray(leaf)
    name = jax.tree_util.keystr(path)
    digest.update(f'{name} {array.shape} {array.dtype}'.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()
