"""Strided 4x4 convolutions, each computed by the fastest form of its platform.

`down` has stride 2 and padding 1; `up` is its adjoint. With the gradient of
their kernel they are the three derivatives of one form, <down(x, kernel), y>:
the derivative of any of them is another one. So they are primitives of JAX,
differentiated forward and backward to any order, and each platform has a form
for each of the three. Differentiating one form instead gives slow ones: XLA's
gradient of a dilated convolution reverses whole feature maps on TPU, and the
kernel's gradient takes 15 times as long on the CPU.
"""

import functools

import chex
import jax
from jax.extend import core
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir
import jax.numpy as jnp

from jacsup_jax.models import convolution_forms as forms

# The larger of a layer's two maps has at most so many pixels a side if the CPU
# computes it as products of matrices.
_SMALL = 8
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

  Args:
    x: `[B, H, W, C]`.
    factors: `[B, K]`, the value of each constant channel.
    kernel: `[4, 4, C + K, out]`, see `up`.

  Returns:
    `[B, 2H, 2W, out]`, in the type of `x`.
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


def keep(x: jax.Array) -> jax.Array:
  """Returns `x`, written to memory once, as is its gradient.

  XLA recomputes cheap arithmetic for each of its readers on the CPU. That is
  slow where one reads in the order of a transposed map: without this a step
  takes 1.2 times as long.

  Args:
    x: floats of any shape.
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
    x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=forms.DIMENSIONS
  )


def _down_on_cpu(x, kernel, *, reverse):
  if _is_small(x):
    return forms.down_by_products(x, kernel, reverse)
  if x.shape[-1] <= _FEW_CHANNELS:
    return forms.down_by_blocks(x, kernel, reverse)
  return forms.down_natively(x, kernel, reverse)


def _adjoint_on_cpu(y, kernel, *, reverse):
  if _is_small(y, 2):
    return forms.adjoint_by_products(y, kernel, reverse)
  return forms.adjoint_by_blocks(y, kernel, reverse)


def _kernel_gradient_on_cpu(x, y, *, reverse):
  if _is_small(x):
    return forms.kernel_gradient_by_products(x, y, reverse)
  return forms.kernel_gradient_transposed(x, y, reverse)


def _is_small(x, scale=1):
  return scale * max(x.shape[1:3]) <= _SMALL


def _spread(pattern, axis, count):
  """Repeats four kinds of rows along an axis: first, even and odd ones, last.

  Without a concatenation, so that XLA adds them in the pass that makes them.
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


def _keep_on_cpu(x):
  # XLA computes a division by a whole array only once.
  return x / (0 * x + 1)


def _make_primitive(name, natively, on_cpu, by_example=False):
  """Makes a primitive of a function that is linear in each operand.

  Args:
    name: of the primitive.
    natively: computes it on all other platforms.
    on_cpu: computes it on the CPU.
    by_example: whether each example of the first operand, `[B, ...]`, is
      computed by itself.

  Returns:
    The primitive, without its derivatives.
  """
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


_down_p = _make_primitive(
  'down', forms.down_natively, _down_on_cpu, by_example=True
)
_adjoint_p = _make_primitive(
  'down_adjoint', forms.adjoint_natively, _adjoint_on_cpu, by_example=True
)
_kernel_gradient_p = _make_primitive(
  'down_kernel_gradient',
  forms.kernel_gradient_natively,
  _kernel_gradient_on_cpu,
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


def _check_convolution(x, kernel, size=4):
  chex.assert_rank([x, kernel], 4)
  chex.assert_shape(kernel, (size, size, x.shape[-1], None))
