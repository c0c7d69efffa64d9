"""Strided convolutions, lowered for each platform; the only place that does.

`down` convolves with a 4x4 kernel, stride 2 and padding 1; `up` is its adjoint.
Together with the gradient of their kernel they are the three derivatives of one
form, <down(x, kernel), y>: the derivative of any of them is another one. So
they are primitives of JAX, differentiated forward and backward to any order,
and each of the three is computed as is fastest on its platform, which
differentiating one computation does not give: XLA's gradient of a dilated
convolution reverses whole feature maps on TPU.

Native forms are single convolutions. On the CPU products of matrices are faster
for small maps, and convolutions of blocks of 2x2 pixels for large ones of few
channels.
"""

import functools

import chex
import jax
from jax.extend import core
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir
import jax.numpy as jnp

# Of convolutions: batch, height, width, channels, also out; kernels [size,
# size, in, out].
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# Measured on a CPU with 8 images of 256x256 pixels: pixels a side of the larger
# of a layer's two maps up to which products are faster.
_SMALL = 8
# Of a map whose blocks are convolved.
_FEW_CHANNELS = 4


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
  return _down_p.bind(x, kernel, reverse=False)


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
  return _adjoint_p.bind(x, kernel, reverse=True)


def up_with_constants(
    x: jax.Array, factors: jax.Array, kernel: jax.Array
) -> jax.Array:
  """Computes `up` of a map that has constant channels after its own.

  Args:
    x: `[B, H, W, C]`.
    factors: `[B, K]`, the value of each constant channel.
    kernel: `[4, 4, C + K, out]`, see `up`.

  Returns:
    `[B, 2H, 2W, out]`, in the type of `x`.
  """
  batch, height, width, channels = x.shape
  if 2 * max(height, width) > _SMALL:
    constants = up_constants(factors, kernel[:, :, channels:], height, width)
    return up(x, kernel[:, :, :channels]) + constants
  # The kernel is larger than the maps, and what takes it apart takes longer.
  shape = (batch, height, width, factors.shape[-1])
  constants = jnp.broadcast_to(factors[:, jnp.newaxis, jnp.newaxis], shape)
  return up(jnp.concatenate([x, constants], -1), kernel)


def up_constants(
    factors: jax.Array, kernel: jax.Array, height: int, width: int
) -> jax.Array:
  """Computes `up` of constant channels, without making them.

  An output row is the sum of one or two rows of the kernel, and away from the
  border every second row is of the same two. So there are four kinds of rows:
  the first, even and odd ones in turn, and the last; and four of columns.

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
  columns = _spread_p.bind(pattern, axis=2, count=width)
  return _spread_p.bind(columns, axis=1, count=height)


def keep(x: jax.Array) -> jax.Array:
  """Returns `x`, kept in memory for all that need it, as is its gradient.

  On the CPU XLA computes cheap arithmetic again for each, which takes several
  times as long where it is read in the order of a transposed map.

  Args:
    x: an array of floats.
  """
  return _keep_p.bind(x)


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


def reverse_kernel(kernel: jax.Array) -> jax.Array:
  """Converts a kernel of `up` to that of the `down` it is the adjoint of.

  Args:
    kernel: `[4, 4, in, out]`.

  Returns:
    `[4, 4, out, in]`, its first two axes reversed; the inverse is the same.
  """
  return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


# Forms of the three derivatives. With `reverse` their kernels are in the order
# of `up`: large ones are not copied to another order where it can be avoided.


def down_natively(
    x: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes `down` as one convolution."""
  kernel = reverse_kernel(kernel) if reverse else kernel
  return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
  )


def down_by_blocks(
    x: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes `down` as a 2x2 convolution of blocks of 2x2 pixels."""
  kernel = reverse_kernel(kernel) if reverse else kernel
  channels, features = kernel.shape[2:]
  # Of rows and columns: the block, and the pixel in the block.
  kernel = kernel.reshape(2, 2, 2, 2, channels, features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  return jax.lax.conv_general_dilated(
      _split_blocks(_pad(x)),
      kernel.reshape(2, 2, 4 * channels, features),
      (1, 1),
      'VALID',
      dimension_numbers=_DIMENSIONS,
  )


def down_by_products(
    x: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes `down` as products with the kernel as it is."""
  windows = _take_windows(x)
  if not reverse:
    return jnp.concatenate(windows, -1) @ kernel.reshape(-1, kernel.shape[-1])
  taps = _list_taps(kernel)[::-1]
  return sum(window @ tap.T for window, tap in zip(windows, taps))


def adjoint_natively(
    y: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the adjoint of `down` as one convolution.

  Args:
    y: `[B, H, W, out]`.
    kernel: `[4, 4, C, out]`, of `down`; `[4, 4, out, C]` of `up` if reversed.
    reverse: it is.

  Returns:
    `[B, 2H, 2W, C]`.
  """
  kernel = kernel if reverse else reverse_kernel(kernel)
  return jax.lax.conv_general_dilated(
      y,
      kernel,
      (1, 1),
      ((2, 2), (2, 2)),
      lhs_dilation=(2, 2),
      dimension_numbers=_DIMENSIONS,
  )


def adjoint_by_blocks(
    y: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the adjoint as a 2x2 convolution that gives blocks of pixels."""
  kernel = kernel if reverse else reverse_kernel(kernel)
  features, channels = kernel.shape[2:]
  # Blocks that begin one pixel off the image: each comes from 2x2 of `y`, of
  # which those further on meet later rows of the kernel.
  kernel = kernel.reshape(2, 2, 2, 2, features, channels)[:, ::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5)
  blocks = jax.lax.conv_general_dilated(
      y,
      kernel.reshape(2, 2, features, 4 * channels),
      (1, 1),
      ((1, 1), (1, 1)),
      dimension_numbers=_DIMENSIONS,
  )
  return _join_blocks(blocks)[:, 1:-1, 1:-1]


def adjoint_by_products(
    y: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the adjoint as products, whose windows are then summed."""
  if reverse:
    windows = [y @ tap for tap in _list_taps(kernel)[::-1]]
  else:
    flat = kernel.reshape(-1, kernel.shape[-1])
    windows = jnp.split(y @ flat.T, 16, -1)
  batch, height, width, channels = windows[0].shape
  x = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, channels), y.dtype)
  return jax.linear_transpose(_take_windows, x)(windows)[0]


def kernel_gradient_natively(
    x: jax.Array, y: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the derivative of <down(x, kernel), y> by the kernel.

  As one convolution, of the whole maps.

  Args:
    x: `[B, 2H, 2W, C]`.
    y: `[B, H, W, out]`.
    reverse: the kernel is that of `up`.

  Returns:
    `[4, 4, C, out]`, or `[4, 4, out, C]` if reversed.
  """
  is_large = 16 * x.shape[-1] * y.shape[-1] > x.size
  if reverse and is_large:
    # Maps that are reversed give a kernel that is, of which it is the larger.
    x, y = x[:, ::-1, ::-1], y[:, ::-1, ::-1]
  # Channels are what is independent here; the batch is summed over.
  kernel = jax.lax.conv_general_dilated(
      x,
      y,
      (1, 1),
      ((1, 1), (1, 1)),
      rhs_dilation=(2, 2),
      dimension_numbers=(
          'CHWN', 'IHWO', 'HWCN' if reverse and is_large else 'HWNC'
      ),  # pyformat: disable
  )
  return reverse_kernel(kernel) if reverse and not is_large else kernel


def kernel_gradient_transposed(
    x: jax.Array, y: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the same convolution of maps that are transposed before.

  In a loop XLA does not do so for the CPU, and is twenty times slower.
  """
  kernel = jax.lax.conv_general_dilated(
      x.transpose(3, 1, 2, 0),
      y.transpose(1, 2, 0, 3),
      (1, 1),
      ((1, 1), (1, 1)),
      rhs_dilation=(2, 2),
      dimension_numbers=_DIMENSIONS,
  )
  kernel = kernel.transpose(1, 2, 0, 3)
  return reverse_kernel(kernel) if reverse else kernel


def kernel_gradient_by_products(
    x: jax.Array, y: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the derivative by the kernel as products."""
  windows, axes = _take_windows(x), ((0, 1, 2), (0, 1, 2))
  channels, features = x.shape[-1], y.shape[-1]
  if not reverse:
    kernel = jnp.tensordot(jnp.concatenate(windows, -1), y, axes)
    return kernel.reshape(4, 4, channels, features)
  taps = [jnp.tensordot(y, window, axes) for window in windows[::-1]]
  return jnp.stack(taps).reshape(4, 4, features, channels)


def _down_on_cpu(x, kernel, *, reverse):
  if _is_small(x):
    return down_by_products(x, kernel, reverse)
  if x.shape[-1] <= _FEW_CHANNELS:
    return down_by_blocks(x, kernel, reverse)
  return down_natively(x, kernel, reverse)


def _adjoint_on_cpu(y, kernel, *, reverse):
  if _is_small(y, 2):
    return adjoint_by_products(y, kernel, reverse)
  return adjoint_by_blocks(y, kernel, reverse)


def _kernel_gradient_on_cpu(x, y, *, reverse):
  if _is_small(x):
    return kernel_gradient_by_products(x, y, reverse)
  return kernel_gradient_transposed(x, y, reverse)


def _is_small(x, scale=1):
  return scale * max(x.shape[1:3]) <= _SMALL


def _spread(pattern, *, axis, count):
  """Spreads four kinds of rows, on an axis, over `2 * count` of them.

  Without a concatenation: a compiler adds it to what comes before it in the
  same pass.
  """
  shape = (*pattern.shape[:axis], 2 * count, *pattern.shape[axis + 1 :])
  first, even, odd, last = (
      jnp.broadcast_to(kind, shape) for kind in jnp.split(pattern, 4, axis)
  )
  index = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
  # The row after the first is of the second kind.
  inner = jnp.where(index % 2 == 1, even, odd)
  last = jnp.where(index == 2 * count - 1, last, inner)
  return jnp.where(index == 0, first, last)


def _collect(y, *, axis, count):
  """Sums the rows of each kind: the adjoint of `_spread`."""
  # Of masked rows: a compiler makes both sums in one pass, and reads bfloat16
  # without writing it with more digits first.
  wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
  index = jax.lax.broadcasted_iota(jnp.int32, y.shape, axis)
  inside = (index > 0) & (index < 2 * count - 1)
  is_odd = index % 2 == 1
  total = lambda mask: jnp.sum(
      jnp.where(mask, wide, 0), axis, keepdims=True
  ).astype(y.dtype)
  take = lambda i: jax.lax.slice_in_dim(y, i, i + 1, axis=axis)
  kinds = [
      take(0),
      total(inside & is_odd),
      total(inside & ~is_odd),
      take(2 * count - 1),
  ]
  return jnp.concatenate(kinds, axis)


def _keep_on_cpu(x):
  # XLA takes a division by a whole array for too much to be done twice.
  return x / (0 * x + 1)


def _make_primitive(name, natively, on_cpu=None, by_example=False):
  """Makes a primitive of a function that is linear in each operand.

  Args:
    name: of it.
    natively: computes it, on all platforms but those that follow.
    on_cpu: computes it on the CPU.
    by_example: of the first operand's examples, `[B, ...]`, each by itself.

  Returns:
    The primitive, without its derivatives.
  """
  primitive = core.Primitive(name)
  # Without jit, as one program all the same.
  primitive.def_impl(
      lambda *args, **params: jax.jit(
          functools.partial(primitive.bind, **params)
      )(*args)
  )

  def abstract_eval(*args, **params):
    out = jax.eval_shape(functools.partial(natively, **params), *args)
    return args[0].update(shape=out.shape, dtype=out.dtype, weak_type=False)

  def batch(args, axes, **params):
    x, *others = args
    if by_example and all(axis is None for axis in axes[1:]):
      x = jnp.moveaxis(x, axes[0], 0)
      out = primitive.bind(x.reshape(-1, *x.shape[2:]), *others, **params)
      return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    # Of several kernels, say, as no step has them: one form is enough.
    mapped = jax.vmap(functools.partial(natively, **params), in_axes=axes)
    return mapped(*args), 0

  primitive.def_abstract_eval(abstract_eval)
  batching.primitive_batchers[primitive] = batch
  lower = lambda fun: mlir.lower_fun(fun, multiple_results=False)
  mlir.register_lowering(primitive, lower(natively))
  if on_cpu is not None:
    mlir.register_lowering(primitive, lower(on_cpu), platform='cpu')
  return primitive


_down_p = _make_primitive('down', down_natively, _down_on_cpu, by_example=True)
_adjoint_p = _make_primitive(
    'down_adjoint', adjoint_natively, _adjoint_on_cpu, by_example=True
)
_kernel_gradient_p = _make_primitive(
    'down_kernel_gradient',
    kernel_gradient_natively,
    _kernel_gradient_on_cpu,
)
# <down(x, kernel), y>: given a cotangent in the place of what a primitive
# gives, the derivatives by its two operands.
ad.defbilinear(
    _down_p,
    lambda y, x, kernel, **order: _adjoint_p.bind(y, kernel, **order),
    lambda y, x, kernel, **order: _kernel_gradient_p.bind(x, y, **order),
)
ad.defbilinear(
    _adjoint_p,
    lambda x, y, kernel, **order: _down_p.bind(x, kernel, **order),
    lambda x, y, kernel, **order: _kernel_gradient_p.bind(x, y, **order),
)
ad.defbilinear(
    _kernel_gradient_p,
    lambda kernel, x, y, **order: _adjoint_p.bind(y, kernel, **order),
    lambda kernel, x, y, **order: _down_p.bind(x, kernel, **order),
)

_spread_p = _make_primitive('spread', _spread)
_collect_p = _make_primitive('collect', _collect)
_keep_p = _make_primitive('keep', lambda x: x, _keep_on_cpu)
ad.deflinear2(_keep_p, lambda y, _: [_keep_p.bind(y)])
ad.deflinear2(_spread_p, lambda y, _, **params: [_collect_p.bind(y, **params)])
ad.deflinear2(_collect_p, lambda x, _, **params: [_spread_p.bind(x, **params)])


def _check_convolution(x, kernel, size=4):
  chex.assert_rank([x, kernel], 4)
  chex.assert_shape(kernel, (size, size, x.shape[-1], None))


def _pad(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


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


def _take_windows(x):
  """Returns what each of the 16 numbers of a kernel sees: `[B, H, W, C]`."""
  x = _pad(x)
  height, width = x.shape[1:3]
  return [
      x[:, i : height - 3 + i : 2, j : width - 3 + j : 2]
      for i in range(4)
      for j in range(4)
  ]


def _list_taps(kernel):
  """Returns the 16 matrices of a kernel, in the order of the windows."""
  return list(kernel.reshape(16, *kernel.shape[2:]))
