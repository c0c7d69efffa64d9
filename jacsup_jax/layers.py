"""Building blocks of the networks."""

import functools
import math

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

# Of columns: more than the codes of the paper's experiments on digits have.
_CODE_MULTIPLE = 32
# Of the numbers that are drawn for a unit at initialisation.
_LEAST_DRAWN = 256
# Of convolutions: batch, height, width, channels, also out; kernels [size,
# size, in, out].
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


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


class DownBlock(nn.Module):
  """Halves a feature map: 4x4 convolution, BatchNorm, LeakyReLU of slope 0.2.

  `[B, H, W, C]` -> `[B, H / 2, W / 2, features]`.

  Attributes:
    features: channels of its output.
    normalize: whether it has the BatchNorm.
    activate: whether it has the LeakyReLU.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that it convolves in; parameters and statistics stay float32.
    output_dtype: of what comes after the convolution; None for `dtype`.
  """

  features: int
  normalize: bool = True
  activate: bool = True
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32
  output_dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    channels = x.shape[-1]
    init = uniform_by_unit(16 * channels)
    kernel = self.param('kernel', init, (4, 4, channels, self.features))
    bias = self.param('bias', init, (self.features,))
    x = down(x.astype(self.dtype), kernel.astype(self.dtype))
    x = x.astype(self.output_dtype or self.dtype)
    x += bias.astype(x.dtype)[jnp.newaxis, jnp.newaxis, jnp.newaxis]
    if self.normalize:
      x = _batch_norm(x.dtype, self.axis_name, train)(x)
    return leaky_relu(x) if self.activate else x


class UpBlock(nn.Module):
  """Doubles a feature map: transposed 4x4 convolution, BatchNorm and ReLU.

  `[B, H, W, C]` and `[B, K]` factors -> `[B, 2H, 2W, features]`. The factors
  stand for K constant channels after those of the feature map, and the kernel
  is that of all C + K; they are computed as a bias, which is the same and less
  work.

  Attributes:
    features: channels of its output.
    is_last: instead of BatchNorm and ReLU it has a Tanh, computed in float32.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that it convolves in; parameters and statistics stay float32.
  """

  features: int
  is_last: bool = False
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self, x: jax.Array, factors: jax.Array, train: bool = False
  ) -> jax.Array:
    channels = x.shape[-1]
    # PyTorch counts the outputs of a transposed convolution.
    init = uniform_by_unit(16 * self.features)
    shape = (4, 4, channels + factors.shape[-1], self.features)
    kernel = self.param('kernel', init, shape).astype(self.dtype)
    x, factors = x.astype(self.dtype), factors.astype(self.dtype)
    constants = up_constants(factors, kernel[:, :, channels:], *x.shape[1:3])
    x = up(x, kernel[:, :, :channels]) + constants
    if self.is_last:
      return jnp.tanh(x.astype(jnp.promote_types(self.dtype, jnp.float32)))
    return nn.relu(_batch_norm(self.dtype, self.axis_name, train)(x))


class PoolBlock(nn.Module):
  """Halves a feature map: 3x3 convolution, ReLU, average pooling of 2x2.

  `[B, H, W, C]` -> `[B, H / 2, W / 2, features]`.

  Attributes:
    features: channels of its output.
    is_code: a growing code comes from it: `[B, features]`, the average over the
      whole map, in float32 at least. As in `CodeDense`, what is computed does
      not change its shape while the code grows.
    activate: whether it has the ReLU.
    dtype: that it convolves in; parameters stay float32.
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
      padding = count_code_columns(self.features) - self.features
      kernel = jnp.pad(kernel, (*[(0, 0)] * 3, (0, padding)))
      bias = jnp.pad(bias, (0, padding))
    x = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
    x += bias.astype(self.dtype)[jnp.newaxis, jnp.newaxis, jnp.newaxis]
    x = nn.relu(x) if self.activate else x
    if self.is_code:
      x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
      return jnp.mean(x, axis=(1, 2))[:, : self.features]
    return pool(x)


class UpConvolution(nn.Module):
  """Doubles a feature map: transposed 4x4 convolution with a bias.

  `[B, H, W, C]` -> `[B, 2H, 2W, features]`; or `[B, C]`, which stands for
  constant channels of a map of `constant_size`.

  Attributes:
    features: channels of its output.
    constant_size: (H, W) of constant channels, None for a feature map.
    dtype: that it convolves in; parameters stay float32.
  """

  features: int
  constant_size: tuple[int, int] | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # PyTorch counts the outputs of a transposed convolution.
    init = uniform_by_unit(16 * self.features)
    kernel = self.param('kernel', init, (4, 4, x.shape[-1], self.features))
    bias = self.param('bias', init, (self.features,))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    if self.constant_size is None:
      x = up(x, kernel)
    else:
      x = up_constants(x, kernel, *self.constant_size)
    return x + bias[jnp.newaxis, jnp.newaxis, jnp.newaxis]


def leaky_relu(x: jax.Array) -> jax.Array:
  """Computes the activation of encoders and judges, of any shape: slope 0.2."""
  return nn.leaky_relu(x, 0.2)


def down(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves with a 4x4 kernel, stride 2 and padding 1.

  Args:
    x: `[B, H, W, C]`, H and W even.
    kernel: `[4, 4, C, out]`, PyTorch's `weight.transpose(2, 3, 1, 0)`.

  Returns:
    `[B, H / 2, W / 2, out]`, in the type of `x`.
  """
  _check_convolution(x, kernel)
  chex.assert_is_divisible(x.shape[1], 2)
  chex.assert_is_divisible(x.shape[2], 2)
  return jax.lax.platform_dependent(
      x, kernel, cpu=down_by_products, default=down_natively
  )


def up(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves with a 4x4 kernel, transposed: stride 2 and padding 1.

  The adjoint of `down`, but for the order of the kernel's axes.

  Args:
    x: `[B, H, W, C]`.
    kernel: `[4, 4, C, out]`, as of `nn.ConvTranspose`: PyTorch's
      `weight.transpose(2, 3, 0, 1)`, its first two axes reversed.

  Returns:
    `[B, 2H, 2W, out]`, in the type of `x`.
  """
  _check_convolution(x, kernel)
  return jax.lax.platform_dependent(
      x, kernel, cpu=up_by_products, default=up_natively
  )


def up_constants(
    factors: jax.Array, kernel: jax.Array, height: int, width: int
) -> jax.Array:
  """Computes `up` of constant channels, without making them.

  An output row is the sum of one or two rows of the kernel, and away from the
  border every second row is of the same two. So there are four kinds of rows:
  the first, odd and even ones in turn, and the last; and four of columns.

  Args:
    factors: `[B, K]`, the value of each channel.
    kernel: `[4, 4, K, out]`, see `up`.
    height: of the channels that the factors stand for.
    width: of them.

  Returns:
    `[B, 2 * height, 2 * width, out]`, in the type of `factors`.
  """
  chex.assert_rank([factors, kernel], [2, 4])
  chex.assert_shape(kernel, (4, 4, factors.shape[-1], None))
  # Which rows of the kernel each kind sums: from the last to the first, those
  # of PyTorch's are 1; 0 and 2; 1 and 3; 2.
  kinds = jnp.array(
      [[0, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]], kernel.dtype
  )
  sums = jnp.einsum('ai,bj,ijko->kabo', kinds, kinds, kernel)
  pattern = jnp.tensordot(factors, sums, 1)
  return _repeat_inner(_repeat_inner(pattern, 1, height), 2, width)


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves with a 3x3 kernel, stride 1 and zero padding of 1.

  Args:
    x: `[B, H, W, C]`.
    kernel: `[3, 3, C, out]`, PyTorch's `weight.transpose(2, 3, 1, 0)`.

  Returns:
    `[B, H, W, out]`, in the type of `x`.
  """
  _check_convolution(x, kernel, 3)
  return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
  )


def pool(x: jax.Array) -> jax.Array:
  """Averages blocks of 2x2 pixels.

  Args:
    x: `[B, H, W, C]`, H and W even.

  Returns:
    `[B, H / 2, W / 2, C]`, in the type of `x`.
  """
  chex.assert_rank(x, 4)
  batch, height, width, channels = x.shape
  chex.assert_is_divisible(height, 2)
  chex.assert_is_divisible(width, 2)
  blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return jnp.mean(blocks, axis=(2, 4))


def down_natively(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `down` as one convolution; for accelerators."""
  return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
  )


def down_by_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `down` as a matrix product; for the CPU.

  XLA's convolutions there are slow, and their gradients far slower.
  """
  blocks = _split_blocks(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
  # A window is two by two blocks.
  patches = jnp.concatenate(_shift(blocks), axis=-1)
  return patches @ _kernel_by_blocks(kernel)


def up_natively(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `up` as one convolution; for accelerators."""
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      ((2, 2), (2, 2)),
      lhs_dilation=(2, 2),
      dimension_numbers=_DIMENSIONS,
  )


def up_by_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes `up` as a matrix product; for the CPU, see `down_by_products`."""
  # Blocks of two by two outputs, one pixel off: each comes from two by two
  # inputs.
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  patches = jnp.concatenate(_shift(padded), axis=-1)
  # Inputs that are further on meet earlier outputs at later kernel rows.
  channels, features = kernel.shape[2:]
  kernel = kernel.reshape(2, 2, 2, 2, channels, features)[:, ::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5)
  blocks = patches @ kernel.reshape(4 * channels, 4 * features)
  return _join_blocks(blocks)[:, 1:-1, 1:-1]


def _draw_by_unit(key, shape, dtype, bound):
  """Draws a leaf, by a program that leaves of about its size share.

  The i-th number of a key is the same however many are drawn, so more are
  drawn than needed: to compile a generator takes far longer than to run it, and
  a growing code would need another one at every growth.
  """
  count = math.prod(shape[:-1])
  padded = max(_LEAST_DRAWN, 1 << (count - 1).bit_length())
  num_units = shape[-1] + -shape[-1] % _CODE_MULTIPLE
  drawn = _draw_units(key, num_units, padded, dtype, bound)
  return drawn[: shape[-1], :count].T.reshape(shape)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw_units(key, num_units, count, dtype, bound):
  """Draws `[num_units, count]` numbers, each unit's from a key of its own."""

  def draw(unit):
    unit_key = jax.random.fold_in(key, unit)
    return jax.random.uniform(unit_key, (count,), dtype, -bound, bound)

  return jax.vmap(draw)(jnp.arange(num_units))


def _batch_norm(dtype, axis_name, train):
  """Makes PyTorch's BatchNorm; statistics are float32 in any case."""
  return nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      # The other form, E[x^2] - E[x]^2, cancels in float32.
      use_fast_variance=False,
      axis_name=axis_name,
      dtype=dtype,
      name='norm',
  )


def _check_convolution(x, kernel, size=4):
  chex.assert_rank([x, kernel], 4)
  chex.assert_shape(kernel, (size, size, x.shape[-1], None))


def _split_blocks(x):
  """Moves blocks of 2x2 pixels to channels: `[B, H/2, W/2, 4C]`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, height // 2, width // 2, 4 * channels)


def _join_blocks(x):
  """Inverts `_split_blocks`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, 2, 2, channels // 4)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def _shift(x):
  """Returns the four windows `[B, H-1, W-1, C]` of an `[B, H, W, C]` map."""
  return [
      x[:, i : x.shape[1] - 1 + i, j : x.shape[2] - 1 + j]
      for i in range(2)
      for j in range(2)
  ]


def _kernel_by_blocks(kernel):
  """Orders a kernel as four windows of split blocks: `[16C, out]`."""
  channels, features = kernel.shape[2:]
  kernel = kernel.reshape(2, 2, 2, 2, channels, features)
  # Of rows and columns: the block in the window, and the pixel in the block.
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  return kernel.reshape(16 * channels, features)


def _repeat_inner(pattern, axis, count):
  """Repeats the middle two of four entries `count - 1` times on an axis."""
  first, inner, last = jnp.split(pattern, [1, 3], axis)
  # As one broadcast, whose gradient is one sum.
  shape = (*inner.shape[:axis], count - 1, *inner.shape[axis:])
  inner = jnp.broadcast_to(jnp.expand_dims(inner, axis), shape)
  inner = inner.reshape(
      *pattern.shape[:axis], 2 * (count - 1), *pattern.shape[axis + 1 :]
  )
  return jnp.concatenate([first, inner, last], axis)
