"""Forms of the derivatives of <down(x, kernel), y>, see `convolutions`.

Natively each is one convolution. Other forms are kept where a whole training
step without them takes 1.15 times as long or more; the figure stands beside
each, measured with 8 faces of 256x256 pixels (k = 40, d = 2048) on two cores.

With `reverse` kernels are in the order of `up`, so that large ones need not be
copied to the other order.
"""

import jax
import jax.numpy as jnp

# Axes of maps and kernels.
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def reverse_kernel(kernel: jax.Array) -> jax.Array:
  """Converts a kernel of `up` to that of the `down` it is the adjoint of.

  Args:
    kernel: `[4, 4, in, out]`.

  Returns:
    `[4, 4, out, in]`, its first two axes reversed; the inverse is the same.
  """
  return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


def down_natively(
  x: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes `down` as one convolution."""
  kernel = reverse_kernel(kernel) if reverse else kernel
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS
  )


def down_by_blocks(
  x: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes `down` as a 2x2 convolution of blocks of 2x2 pixels.

  As fast as natively. Kept for its rounding: the published runs on faces are
  reproduced to the bit.
  """
  kernel = reverse_kernel(kernel) if reverse else kernel
  channels, features = kernel.shape[2:]
  # Rows and columns split into the block, and the pixel in the block.
  kernel = kernel.reshape(2, 2, 2, 2, channels, features)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  return jax.lax.conv_general_dilated(
    _split_blocks(_pad(x)),
    kernel.reshape(2, 2, 4 * channels, features),
    (1, 1),
    'VALID',
    dimension_numbers=DIMENSIONS,
  )


def down_by_products(
  x: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes `down` as products of matrices.

  A step without the three forms by products takes 1.3 to 1.5 times as long.
  """
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
    kernel: `[4, 4, C, out]` of `down`, or `[4, 4, out, C]` of `up`.
    reverse: whether the kernel is that of `up`.

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
    dimension_numbers=DIMENSIONS,
  )


def adjoint_by_blocks(
  y: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the adjoint as a 2x2 convolution that gives blocks of pixels.

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
    dimension_numbers=DIMENSIONS,
  )
  return _join_blocks(blocks)[:, 1:-1, 1:-1]


def adjoint_by_products(
  y: jax.Array, kernel: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the adjoint as products of matrices, summed where they overlap."""
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
  """Computes the derivative of <down(x, kernel), y> with respect to the kernel.

  Args:
    x: `[B, 2H, 2W, C]`.
    y: `[B, H, W, out]`.
    reverse: whether the kernel is that of `up`.

  Returns:
    `[4, 4, C, out]`, or `[4, 4, out, C]` if reversed.
  """
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


def kernel_gradient_transposed(
  x: jax.Array, y: jax.Array, reverse: bool = False
) -> jax.Array:
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
    dimension_numbers=DIMENSIONS,
  )
  kernel = kernel.transpose(1, 2, 0, 3)
  return reverse_kernel(kernel) if reverse else kernel


def kernel_gradient_by_products(
  x: jax.Array, y: jax.Array, reverse: bool = False
) -> jax.Array:
  """Computes the derivative by the kernel as products of matrices."""
  windows, axes = _take_windows(x), ((0, 1, 2), (0, 1, 2))
  channels, features = x.shape[-1], y.shape[-1]
  if not reverse:
    kernel = jnp.tensordot(jnp.concatenate(windows, -1), y, axes)
    return kernel.reshape(4, 4, channels, features)
  taps = [jnp.tensordot(y, window, axes) for window in windows[::-1]]
  return jnp.stack(taps).reshape(4, 4, features, channels)


def _pad(x):
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _split_blocks(x):
  """Moves blocks of 2x2 pixels to channels: `[B, H/2, W/2, 4C]`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, height // 2, width // 2, 4 * channels)


def _join_blocks(x):
  """Moves channels to blocks of 2x2 pixels, the inverse of `_split_blocks`."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height, width, 2, 2, channels // 4)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, 2 * height, 2 * width, channels // 4)


def _take_windows(x):
  """Lists the 16 maps `[B, H, W, C]` that the taps of a kernel multiply."""
  x = _pad(x)
  height, width = x.shape[1:3]
  return [
    x[:, i : height - 3 + i : 2, j : width - 3 + j : 2]
    for i in range(4)
    for j in range(4)
  ]


def _list_taps(kernel):
  """Lists the 16 matrices of a kernel, in the order of the windows."""
  return list(kernel.reshape(16, *kernel.shape[2:]))
