"""Building blocks of the networks."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

# Of columns: more than the codes of the paper's experiments on digits have.
_CODE_MULTIPLE = 32


def uniform_by_unit(fan_in: int) -> nn.initializers.Initializer:
  """Makes PyTorch's default initialiser: uniform in +-1/sqrt(fan_in).

  Every output unit (last axis) draws from a key of its own, so that the first
  units of a larger layer are those of a smaller one: growing twice by one unit
  gives the same weights as growing once by two.

  Args:
    fan_in: inputs of one output unit, of the layer also when it initialises
      the bias.

  Returns:
    A function of (key, shape, dtype).
  """
  bound = fan_in**-0.5

  def init(key, shape, dtype=jnp.float32):
    return _draw_by_unit(key, shape, dtype, bound)

  return init


def dense(
    fan_in: int, features: int, *, dtype: jnp.dtype, name: str | None = None
) -> nn.Dense:
  """Makes a dense layer with PyTorch's default initialisation.

  Args:
    fan_in: size of its input `[B, fan_in]`.
    features: size of its output `[B, features]`.
    dtype: that it computes in; parameters stay float32.
    name: of its parameters.

  Returns:
    A linen module.
  """
  init = uniform_by_unit(fan_in)
  return nn.Dense(
      features, dtype=dtype, kernel_init=init, bias_init=init, name=name
  )


def count_code_columns(features: int) -> int:
  """Returns how many columns `CodeDense` computes for `[B, features]`."""
  return features + -features % _CODE_MULTIPLE


class CodeDense(nn.Module):
  """A dense layer that a growing code comes from.

  Its product is taken over a number of columns that does not change while the
  code grows: how a matrix product is blocked, and so rounded, depends on its
  shape, and a student that starts from its teacher shall start with the same
  factors to the last bit.

  Attributes:
    fan_in: size of its input `[B, fan_in]`.
    features: size of its output `[B, features]`.
    dtype: that it computes in; parameters stay float32.
  """

  fan_in: int
  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = uniform_by_unit(self.fan_in)
    kernel = self.param('kernel', init, (self.fan_in, self.features))
    bias = self.param('bias', init, (self.features,))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    padding = count_code_columns(self.features) - self.features
    columns = x @ jnp.pad(kernel, ((0, 0), (0, padding)))
    return columns[:, : self.features] + bias[jnp.newaxis]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw_by_unit(key, shape, dtype, bound):
  """Draws a leaf; a program of its own, compiled once for all models."""

  def draw(unit):
    unit_key = jax.random.fold_in(key, unit)
    return jax.random.uniform(unit_key, shape[:-1], dtype, -bound, bound)

  return jax.vmap(draw, out_axes=-1)(jnp.arange(shape[-1]))
