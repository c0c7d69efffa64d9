"""Residual blocks of 3x3 convolutions."""

from flax import linen as nn
import jax

from jacsup_jax.models import convolutions
from jacsup_jax.models import layers


@jax.custom_vjp
def same(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves `[B, H, W, C]` with `[s, s, C, out]`, s odd, to `[B, H, W, out]`.

  With zero padding. In a loop on a CPU, XLA takes 20 to 50 times as long for
  its own gradient of the kernel as for the one here. Has no jvp.
  """
  return _convolve(x, kernel)


def _convolve(x, kernel, padding='SAME'):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _kernel_gradient_on_cpu(x, kernel, y):
  # XLA does not transpose these maps in a loop.
  x, y = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3)
  padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
  return _convolve(x, y, padding).transpose(1, 2, 0, 3)


def _kernel_gradient(x, kernel, y):
  return jax.vjp(lambda kernel: _convolve(x, kernel), kernel)[1](y)[0]


def _pull_back(operands, y):
  kernel_gradient = jax.lax.platform_dependent(
    *operands, y, cpu=_kernel_gradient_on_cpu, default=_kernel_gradient
  )
  kernel = convolutions.reverse_kernel(operands[1])
  return _convolve(y, kernel), kernel_gradient


same.defvjp(lambda *args: (_convolve(*args), args), _pull_back)


class NormConvolution(nn.Module):
  """A 3x3 convolution, then BatchNorm.

  `[B, H, W, C]` -> `[B, H, W, features]`.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    init = layers.uniform_by_unit(9 * x.shape[-1])
    kernel = self.param('kernel', init, (3, 3, x.shape[-1], self.features))
    x = same(x, kernel)
    return layers.BatchNorm(train, name='norm')(x)


class ResidualBlock(nn.Module):
  """Halves a feature map: average pooling of 2x2, then two 3x3 convolutions.

  `[B, H, W, C]` -> `[B, H / 2, W / 2, features]`, with BatchNorm and ReLU; a
  linear map of the pooled channels is added before the last ReLU.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    x = layers.average_pool(x)
    shortcut = layers.dense(
      x.shape[-1], self.features, dtype=x.dtype, name='shortcut'
    )
    y = nn.relu(NormConvolution(self.features, name='first')(x, train))
    y = NormConvolution(self.features, name='second')(y, train)
    return nn.relu(shortcut(x) + y)
