"""Residual blocks of 3x3 convolutions."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.models import convolutions
from jacsup_jax.models import layers


@jax.custom_vjp
def same(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves `[B, H, W, C]` with `[3, 3, C, out]`, stride 1 and padding 1.

  The gradient of the kernel is a product of matrices: in a scan on a CPU,
  XLA takes 50 times as long for that of its own convolution. Has no jvp.
  """
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _differentiate_same(inputs, grad):
  x, kernel = inputs
  height, width = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  taps = [
    padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
  ]
  windows = jnp.concatenate(taps, axis=-1)
  kernel_grad = jnp.einsum('bhwi,bhwo->io', windows, grad)
  kernel_grad = kernel_grad.reshape(kernel.shape)
  return same(grad, convolutions.reverse_kernel(kernel)), kernel_grad


same.defvjp(
  lambda x, kernel: (same(x, kernel), (x, kernel)), _differentiate_same
)


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
