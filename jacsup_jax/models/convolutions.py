"""Convolutions whose derivatives are fast on each platform.

`same` is a 3x3 convolution of stride 1. Strided 4x4 ones are primitives:
`down` has stride 2 and padding 1; `up` is its adjoint. With the gradient of
their kernel they are the three derivatives of <down(x, kernel), y>: the
derivative of any of them is another one. Differentiating one form is slow: XLA
reverses whole maps on TPU, and takes 15 times as long for the kernel on CPUs.
"""

import functools

import chex
import jax
from jax.extend import core
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir
import jax.numpy as jnp

# Axes of maps and kernels.
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# The larger of a layer's two maps has at most so many pixels a side if the CPU
# computes it as products of matrices.
_SMALL = 8
_FEW_CHANNELS = 4  # of images


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

  The adjoint of `down`, except for the order of the kernel's axes.

  Args:
    x: `[B, H, W, C]`.
    kernel: `[4, 4, C, out]`, as in `nn.ConvTranspose`: PyTorch's
      `weight.transpose(2, 3, 0, 1)` with its first two axes reversed.

  Returns:
    `[B, 2H, 2W, out]`, in the type of `x`.
  """
  _check_convolution(x, kernel)
  return _adjoint_p.bind(x, kernel, reverse=True)


def up_with_constants(
  x: jax.Array, factors: jax.Array, kernel: jax.Array
) -> jax.Array:
  """Computes `up` of a map that has constant channels after its own.

  Of `[B, H, W, C]`, `[B, K]` values of the constant channels, and a kernel
  `[4, 4, C + K, out]`.
  """
  batch, height, width, channels = x.shape
  if 2 * max(height, width) > _SMALL:
    # A step that concatenates here too takes 1.4 times as long.
    constants = up_constants(factors, kernel[:, :, channels:], height, width)
    return up(x, kernel[:, :, :channels]) + constants
  # The kernel is larger than the maps: slicing it costs more than it saves.
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
    height: H of the channels that the factors stand for.
    width: W of them.

  Returns:
    `[B, 2H, 2W, out]`, in the type of `factors`.
  """
  chex.assert_rank([factors, kernel], [2, 4])
  chex.assert_shape(kernel, (4, 4, factors.shape[-1], None))
  # The rows of the kernel that each kind sums, from the last to the first:
  # those of PyTorch's are 1; 0 and 2; 1 and 3; 2.
  kinds = jnp.array(
    [[0, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]], kernel.dtype
  )
  sums = jnp.einsum('ai,bj,ijko->kabo', kinds, kinds, kernel)
  pattern = jnp.tensordot(factors, sums, 1)
  return _spread(_spread(pattern, 2, width), 1, height)


def _spread(pattern, axis, count):
  """Repeats kinds of rows along an axis: first, even and odd ones, last."""
  # Without a concatenation, so that XLA adds them in the pass that makes them.
  shape = (*pattern.shape[:axis], 2 * count, *pattern.shape[axis + 1 :])
  first, even, odd, last = (
    jnp.broadcast_to(kind, shape) for kind in jnp.split(pattern, 4, axis)
  )
  index = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
  # The row after the first is of the second kind.
  inner = jnp.where(index % 2 == 1, even, odd)
  last = jnp.where(index == 2 * count - 1, last, inner)
  return jnp.where(index == 0, first, last)


def keep(x: jax.Array) -> jax.Array:
  """Returns `[...]` floats unchanged, written to memory once, as is a gradient.

  XLA recomputes cheap arithmetic for each of its readers on the CPU. That is
  slow where one reads in the order of a transposed map: without this a step
  takes 1.2 times as long.
  """
  return _keep_p.bind(x)


def reverse_kernel(kernel: jax.Array) -> jax.Array:
  """Converts a kernel of `up` to that of the `down` it is the adjoint of.

  `[4, 4, in, out]` -> `[4, 4, out, in]`; the inverse is the same.
  """
  return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


# Forms of the three derivatives: of x `[B, 2H, 2W, C]`, y `[B, H, W, out]` and
# the kernel `[4, 4, C, out]` of `down`. With `reverse` kernels are in the order
# of `up`, so that large ones need not be copied to the other order.
#
# Other forms than the native convolution are kept where a whole training step
# without them takes 1.15 times as long or more, measured with 8 faces of
# 256x256 pixels (k = 40, d = 2048) on two cores. Those by products: 1.3 to 1.5.
# `down_by_blocks` is kept for 1.03 to 1.09, and for its rounding: the runs on
# faces in results/ are reproduced to the bit.


def down_natively(x, kernel, reverse=False):
  """Computes `down` as one convolution."""
  kernel = reverse_kernel(kernel) if reverse else kernel
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS
  )


def down_by_blocks(x, kernel, reverse=False):
  """Computes `down` as a 2x2 convolution of blocks of 2x2 pixels."""
  kernel = reverse_kernel(kernel) if reverse else kernel
  channels, features = kernel.shape[2:]
  # Rows and columns split into the block, and the pixel in the block.
  kernel = kernel.reshape(2, 2, 2, 2, channels, features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  batch, height, width, _ = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return jax.lax.conv_general_dilated(
    x.reshape(batch, height // 2, width // 2, 4 * channels),
    kernel.reshape(2, 2, 4 * channels, features),
    (1, 1),
    'VALID',
    dimension_numbers=_DIMENSIONS,
  )


def down_by_products(x, kernel, reverse=False):
  """Computes `down` as products of matrices."""
  windows = _take_windows(x)
  if not reverse:
    return jnp.concatenate(windows, -1) @ kernel.reshape(-1, kernel.shape[-1])
  taps = _list_taps(kernel)[::-1]
  return sum(window @ tap.T for window, tap in zip(windows, taps))


def adjoint_natively(y, kernel, reverse=False):
  """Computes the adjoint of `down` as one convolution."""
  return jax.lax.conv_general_dilated(
    y,
    kernel if reverse else reverse_kernel(kernel),
    (1, 1),
    ((2, 2), (2, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=_DIMENSIONS,
  )


def adjoint_by_blocks(y, kernel, reverse=False):
  """Computes the adjoint as a 2x2 convolution that gives blocks of 2x2 pixels.

  Three times as fast on the CPU as a convolution of a dilated map.
  """
  kernel = kernel if reverse else reverse_kernel(kernel)
  features, channels = kernel.shape[2:]
  # Blocks begin one pixel outside the image. Each comes from 2x2 pixels of `y`,
  # the later of which meet later rows of the kernel.
  kernel = kernel.reshape(2, 2, 2, 2, features, channels)[:, ::-1, :, ::-1]
  kernel = kernel.transpose(0, 2, 4, 1, 3, 5)
  blocks = jax.lax.conv_general_dilated(
    y,
    kernel.reshape(2, 2, features, 4 * channels),
    (1, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=_DIMENSIONS,
  )
  batch, height, width, _ = blocks.shape
  blocks = blocks.reshape(batch, height, width, 2, 2, channels)
  blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
  x = blocks.reshape(batch, 2 * height, 2 * width, channels)
  return x[:, 1:-1, 1:-1]


def adjoint_by_products(y, kernel, reverse=False):
  """Computes the adjoint as products of matrices, summed where they overlap."""
  if reverse:
    windows = [y @ tap for tap in _list_taps(kernel)[::-1]]
  else:
    flat = kernel.reshape(-1, kernel.shape[-1])
    windows = jnp.split(y @ flat.T, 16, -1)
  batch, height, width, channels = windows[0].shape
  x = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, channels), y.dtype)
  return jax.linear_transpose(_take_windows, x)(windows)[0]


def kernel_gradient_natively(x, y, reverse=False):
  """Computes the derivative of <down(x, kernel), y> by the kernel."""
  # Channels take the place of examples, as the batch is summed over.
  kernel = jax.lax.conv_general_dilated(
    x,
    y,
    (1, 1),
    ((1, 1), (1, 1)),
    rhs_dilation=(2, 2),
    dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
  )
  return reverse_kernel(kernel) if reverse else kernel


def kernel_gradient_transposed(x, y, reverse=False):
  """Computes the same convolution of maps that are transposed before.

  In a loop XLA does not transpose them on the CPU: a step without this form
  takes 15 times as long.
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


def kernel_gradient_by_products(x, y, reverse=False):
  """Computes the derivative by the kernel as products of matrices."""
  windows, axes = _take_windows(x), ((0, 1, 2), (0, 1, 2))
  channels, features = x.shape[-1], y.shape[-1]
  if not reverse:
    kernel = jnp.tensordot(jnp.concatenate(windows, -1), y, axes)
    return kernel.reshape(4, 4, channels, features)
  taps = [jnp.tensordot(y, window, axes) for window in windows[::-1]]
  return jnp.stack(taps).reshape(4, 4, features, channels)


def _take_windows(x):
  """Lists the 16 maps `[B, H, W, C]` that the taps of a kernel multiply."""
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  height, width = x.shape[1:3]
  return [
    x[:, i : height - 3 + i : 2, j : width - 3 + j : 2]
    for i in range(4)
    for j in range(4)
  ]


def _list_taps(kernel):
  """Lists the 16 matrices of a kernel, in the order of the windows."""
  return list(kernel.reshape(16, *kernel.shape[2:]))


def _down_on_cpu(x, kernel, *, reverse):
  if _is_small(x):
    return down_by_products(x, kernel, reverse)
  few = x.shape[-1] <= _FEW_CHANNELS
  return (down_by_blocks if few else down_natively)(x, kernel, reverse)


def _adjoint_on_cpu(y, kernel, *, reverse):
  form = adjoint_by_products if _is_small(y, 2) else adjoint_by_blocks
  return form(y, kernel, reverse)


def _kernel_gradient_on_cpu(x, y, *, reverse):
  if _is_small(x):
    return kernel_gradient_by_products(x, y, reverse)
  return kernel_gradient_transposed(x, y, reverse)


def _is_small(x, scale=1):
  return scale * max(x.shape[1:3]) <= _SMALL


def _keep_on_cpu(x):
  # XLA computes a division by a whole array only once.
  return x / (0 * x + 1)


def _make_primitive(name, natively, on_cpu, by_example=False):
  """Makes a primitive, without derivatives, that is linear in each operand."""
  primitive = core.Primitive(name)
  # Outside of jit it runs as one program too.
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
    # Examples of the first operand, `[B, ...]`, are independent of each other.
    if by_example and all(axis is None for axis in axes[1:]):
      x = jnp.moveaxis(x, axes[0], 0)
      out = primitive.bind(x.reshape(-1, *x.shape[2:]), *others, **params)
      return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    # Several kernels, say: no step has them, so one form is enough.
    mapped = jax.vmap(functools.partial(natively, **params), in_axes=axes)
    return mapped(*args), 0

  primitive.def_abstract_eval(abstract_eval)
  batching.primitive_batchers[primitive] = batch
  lower = lambda fun: mlir.lower_fun(fun, multiple_results=False)
  mlir.register_lowering(primitive, lower(natively))
  mlir.register_lowering(primitive, lower(on_cpu), platform='cpu')
  return primitive


_down_p = _make_primitive('down', down_natively, _down_on_cpu, by_example=True)
_adjoint_p = _make_primitive(
  'down_adjoint', adjoint_natively, _adjoint_on_cpu, by_example=True
)
_kernel_gradient_p = _make_primitive(
  'down_kernel_gradient', kernel_gradient_natively, _kernel_gradient_on_cpu
)
# The derivatives of <down(x, kernel), y> by the two operands of each primitive,
# given a cotangent of its result.
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

_keep_p = _make_primitive('keep', lambda x: x, _keep_on_cpu)
ad.deflinear2(_keep_p, lambda y, _: [_keep_p.bind(y)])


def _check_convolution(x, kernel):
  chex.assert_rank([x, kernel], 4)
  chex.assert_shape(kernel, (4, 4, x.shape[-1], None))
