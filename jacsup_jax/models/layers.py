"""Building blocks of the networks.

Blocks import `convolutions` where they use them: perceptrons do without.
"""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

# Columns of the padded kernel: more than any code in the paper's digit runs.
_CODE_MULTIPLE = 32
# Random numbers drawn for a unit at initialisation, at least.
_LEAST_DRAWN = 256


def uniform_by_unit(fan_in: int) -> nn.initializers.Initializer:
  """Makes PyTorch's default initialiser: uniform in +-1/sqrt(fan_in).

  Every output unit (last axis) draws from a key of its own, so that the first
  units of a larger layer are those of a smaller one: growing twice by one unit
  gives the same weights as growing once by two. `fan_in` counts the inputs of
  an output unit of the layer, also for the bias.
  """

  def init(key, shape, dtype=jnp.float32):
    # The i-th number of a key is the same however many are drawn, so more are
    # drawn than needed, by a program that leaves of about this size share: to
    # compile a generator takes far longer than to run it, and a growing code
    # would need another one at every growth.
    count = math.prod(shape[:-1])
    padded = max(_LEAST_DRAWN, 1 << (count - 1).bit_length())
    num_units = shape[-1] + -shape[-1] % _CODE_MULTIPLE
    drawn = _draw_units(key, num_units, padded, dtype, fan_in**-0.5)
    return drawn[: shape[-1], :count].T.reshape(shape)

  return init


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_units(key, num_units, count, dtype, bound):
  """Draws `[num_units, count]` numbers, each unit's from a key of its own."""

  def draw(unit):
    unit_key = jax.random.fold_in(key, unit)
    return jax.random.uniform(unit_key, (count,), dtype, -bound, bound)

  return jax.vmap(draw)(jnp.arange(num_units))


def dense(
  fan_in: int, features: int, *, dtype: jnp.dtype, name: str | None = None
) -> nn.Dense:
  """Makes a layer `[B, fan_in]` -> `[B, features]`, initialised as PyTorch's.

  It computes in `dtype`; its parameters stay float32.
  """
  init = uniform_by_unit(fan_in)
  return nn.Dense(
    features, dtype=dtype, kernel_init=init, bias_init=init, name=name
  )


class CodeDense(nn.Module):
  """A dense layer that a growing code comes from, otherwise as `dense`.

  Its product is taken over a number of columns that does not change while the
  code grows: how a matrix product is blocked, and so rounded, depends on its
  shape, and a student that starts from its teacher shall start with the same
  factors to the last bit.
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
    padding = -self.features % _CODE_MULTIPLE
    columns = x @ jnp.pad(kernel, ((0, 0), (0, padding)))
    return columns[:, : self.features] + bias[jnp.newaxis]


class DownBlock(nn.Module):
  """Halves a feature map: 4x4 convolution, BatchNorm, LeakyReLU of slope 0.2.

  `[B, H, W, C]` -> `[B, H / 2, W / 2, features]`. As in all blocks, `dtype` is
  that of the convolution, `axis_name` of the mapped axis that the batch is
  spread over, and parameters and statistics are float32. What comes after the
  convolution is computed in `output_dtype`, by default `dtype`.
  """

  features: int
  normalize: bool = True
  activate: bool = True
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32
  output_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    from jacsup_jax.models import convolutions

    channels = x.shape[-1]
    init = uniform_by_unit(16 * channels)
    kernel = self.param('kernel', init, (4, 4, channels, self.features))
    bias = self.param('bias', init, (self.features,))
    x = convolutions.down(x.astype(self.dtype), kernel.astype(self.dtype))
    x = x.astype(self.output_dtype or self.dtype)
    x += _by_channel(bias.astype(x.dtype))
    if self.normalize:
      x = convolutions.keep(x)
      x = BatchNorm(train, self.axis_name, name='norm')(x)
    return leaky_relu(x) if self.activate else x


class UpBlock(nn.Module):
  """Doubles a feature map: transposed 4x4 convolution, BatchNorm and ReLU.

  `[B, H, W, C]` and `[B, K]` factors -> `[B, 2H, 2W, features]`. The factors
  stand for K constant channels after those of the feature map; the kernel is
  that of all C + K. The last block has a Tanh instead of BatchNorm and ReLU,
  computed in float32.
  """

  features: int
  is_last: bool = False
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, factors: jax.Array, train: bool = False
  ) -> jax.Array:
    from jacsup_jax.models import convolutions

    # PyTorch counts the outputs of a transposed convolution.
    init = uniform_by_unit(16 * self.features)
    shape = (4, 4, x.shape[-1] + factors.shape[-1], self.features)
    kernel = self.param('kernel', init, shape).astype(self.dtype)
    x, factors = x.astype(self.dtype), factors.astype(self.dtype)
    x = convolutions.up_with_constants(x, factors, kernel)
    if self.is_last:
      # Read as it is convolved, of half the bytes in bfloat16, also where its
      # gradient is computed, rather than as what a Tanh makes of it.
      x = jax.lax.optimization_barrier(x)
      return jax.checkpoint(lambda x: jnp.tanh(widen(x)))(x)
    x = convolutions.keep(x)
    return nn.relu(BatchNorm(train, self.axis_name, name='norm')(x))


class BatchNorm(nn.Module):
  """PyTorch's BatchNorm of feature maps `[B, H, W, C]`, in one pass over them.

  Moments are those of the distance from the running mean, a constant here:
  E[x^2] - E[x]^2 cancels in float32 if the mean is far larger than the
  deviation, as that distance is not, and E[(x - E[x])^2] reads the map once
  more. Statistics are float32 at least; the running variance is the biased one.
  """

  train: bool  # Normalises with the statistics of the batch.
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1],)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    wide = widen(x) - _by_channel(jax.lax.stop_gradient(running_mean.value))
    if self.train:
      moments = jnp.stack(
        [
          jnp.mean(wide, axis=(0, 1, 2)),
          jnp.mean(jnp.square(wide), axis=(0, 1, 2)),
        ]
      )
      if self.axis_name is not None:
        moments = jax.lax.pmean(moments, self.axis_name)
      distance, square = moments
      var = jnp.maximum(square - jnp.square(distance), 0)
      if self.is_mutable_collection('batch_stats'):
        running_var.value += (1 - 0.9) * (var - running_var.value)
        running_mean.value += (1 - 0.9) * distance
      wide -= _by_channel(distance)
    else:
      var = running_var.value
    multiplier = scale * jax.lax.rsqrt(var + 1e-5)
    normalized = wide * _by_channel(multiplier) + _by_channel(bias)
    return normalized.astype(x.dtype)


class PoolBlock(nn.Module):
  """Halves a feature map: 3x3 convolution, ReLU, average pooling of 2x2.

  `[B, H, W, C]` -> `[B, H / 2, W / 2, features]`; or, if a growing code comes
  from it, `[B, features]`, the average over the whole map, in float32 at least.
  As in `CodeDense`, what is computed does not change its shape as it grows.
  """

  features: int
  is_code: bool = False
  activate: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    init = uniform_by_unit(9 * channels)
    kernel = self.param('kernel', init, (3, 3, channels, self.features))
    bias = self.param('bias', init, (self.features,))
    if self.is_code:
      padding = -self.features % _CODE_MULTIPLE
      kernel = jnp.pad(kernel, (*[(0, 0)] * 3, (0, padding)))
      bias = jnp.pad(bias, (0, padding))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    x = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    x += _by_channel(bias)
    x = nn.relu(x) if self.activate else x
    if self.is_code:
      return jnp.mean(widen(x), axis=(1, 2))[:, : self.features]
    return average_pool(x)


class UpConvolution(nn.Module):
  """Doubles a feature map: transposed 4x4 convolution with a bias.

  `[B, H, W, C]` -> `[B, 2H, 2W, features]`; or of `[B, C]`, which stands for
  constant channels of a map of `constant_size` (H, W).
  """

  features: int
  constant_size: tuple[int, int] | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    from jacsup_jax.models import convolutions

    init = uniform_by_unit(16 * self.features)
    kernel = self.param('kernel', init, (4, 4, x.shape[-1], self.features))
    bias = self.param('bias', init, (self.features,))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    if self.constant_size is None:
      x = convolutions.up(x, kernel)
    else:
      x = convolutions.up_constants(x, kernel, *self.constant_size)
    return x + _by_channel(bias)


def make_code_norm(axis_name: str | None, train: bool) -> nn.BatchNorm:
  """Makes the BatchNorm of flat codes, without scale and bias."""
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=0.9,
    # The other form, E[x^2] - E[x]^2, cancels in float32.
    use_fast_variance=False,
    use_scale=False,
    use_bias=False,
    axis_name=axis_name,
    name='code_norm',
  )


def widen(x: jax.Array) -> jax.Array:
  """Converts `[...]` narrower than float32, as bfloat16 is, to float32."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def leaky_relu(x: jax.Array) -> jax.Array:
  """Computes the activation `[...]` of encoders and judges, of slope 0.2."""
  return nn.leaky_relu(x, 0.2)


def average_pool(x: jax.Array) -> jax.Array:
  """Averages 2x2 pixels: `[B, H, W, C]` -> `[B, H / 2, W / 2, C]`."""
  batch, height, width, channels = x.shape
  blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return jnp.mean(blocks, axis=(2, 4))


def doubled_widths(first: int, last: int, depth: int) -> tuple[int, ...]:
  """Lists `depth` widths: each twice the one before, `last` at most."""
  return tuple(min(first * 2**i, last) for i in range(depth))


def _by_channel(x):
  """Adds the axes of a feature map before the channels."""
  return x[jnp.newaxis, jnp.newaxis, jnp.newaxis]
