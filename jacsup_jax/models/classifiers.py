"""Classifiers that judge decoded images; used in evaluation alone.

Those of faces import their blocks where they use them: perceptrons do without.
"""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import errors
from jacsup_jax.models import layers
from jacsup_jax.models import model


@model.register
class MlpJudge(nn.Module):
  """The released code's digit classifier: 784-256-256-10, dropout 0.2.

  Images `[B, H, W, C]` in [0, 1] -> logits `[B, num_classes]`.
  """

  num_classes: int
  widths: tuple[int, ...] = (256, 256)
  dropout_rate: float = 0.2
  image_shape: tuple[int, int, int] = (28, 28, 1)

  image_range = (0.0, 1.0)

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = images.reshape(images.shape[0], -1)
    for i, features in enumerate(self.widths):
      x = layers.dense(
        x.shape[-1], features, dtype=jnp.float32, name=f'dense_{i}'
      )(x)
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.relu(x))
    return layers.dense(
      x.shape[-1], self.num_classes, dtype=jnp.float32, name='logits'
    )(x)


class CnnJudge(nn.Module):
  """A convolutional judge of classes: two strided convolutions, a dense layer.

  Images `[B, H, W, C]` in [0, 1] -> logits `[B, num_classes]`. Sides are filled
  up to multiples of four by repeating the border. `features` are the `[B,
  hidden]` inputs of the last layer.
  """

  num_classes: int
  image_shape: tuple[int, int, int] = (28, 28, 1)
  widths: tuple[int, int] = (16, 32)
  hidden: int = 128

  image_range = (0.0, 1.0)

  def setup(self):
    # The first is not normalized: a fifth of the time, and no better.
    first, second = self.widths
    self.down = [layers.DownBlock(first, False), layers.DownBlock(second)]
    height, width, _ = self.image_shape
    inputs = -(-height // 4) * -(-width // 4) * second
    self.dense = layers.dense(inputs, self.hidden, dtype=jnp.float32)
    self.logits = layers.dense(self.hidden, self.num_classes, dtype=jnp.float32)

  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    chex.assert_shape(images, (None, *self.image_shape))
    missing = [(0, -size % 4) for size in self.image_shape[:2]]
    x = jnp.pad(images, [(0, 0), *missing, (0, 0)], 'edge')
    for block in self.down:
      x = block(x, train)
    return layers.leaky_relu(self.dense(x.reshape(x.shape[0], -1)))

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return self.logits(self.features(images, train))


class _FaceJudge(nn.Module):
  """A classifier of facial attributes, for evaluation.

  Images `[B, S, S, 3]` in [-1, 1] -> logits `[B, num_attributes]`: positive
  where an attribute is seen. S is a power of two, 8 or larger. `features` are
  the `[B, F]` inputs of the last layer, `logits`.
  """

  num_attributes: int
  image_size: int
  first_width: int = 32
  last_width: int = 512

  image_range = (-1.0, 1.0)

  def __post_init__(self):
    errors.check_image_size(self.image_size)
    super().__post_init__()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (self.image_size, self.image_size, 3)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    chex.assert_shape(images, (None, *self.image_shape))
    return self.logits(self.features(images, train))

  def _list_widths(self, depth):
    """Lists the channels of the feature maps."""
    return layers.doubled_widths(self.first_width, self.last_width, depth)

  def _make_logits(self, features):
    return layers.dense(features, self.num_attributes, dtype=jnp.float32)


@model.register
class AttributeJudge(_FaceJudge):
  """The strided judge: 4x4 convolutions with BatchNorm down to one pixel.

  Then a hidden layer of F = `hidden` units, LeakyReLU between. Each
  convolution doubles the channels, up to `last_width`.
  """

  hidden: int = 512

  def setup(self):
    widths = self._list_widths(self.image_size.bit_length() - 1)
    self.down = [layers.DownBlock(width) for width in widths]
    self.dense = layers.dense(widths[-1], self.hidden, dtype=jnp.float32)
    self.logits = self._make_logits(self.hidden)

  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = images
    for block in self.down:
      x = block(x, train)
    return layers.leaky_relu(self.dense(x.reshape(x.shape[0], -1)))


@model.register
class ResidualAttributeJudge(_FaceJudge):
  """The residual judge: 3x3 convolutions and average pooling.

  Squares of 2x2 pixels become channels. A convolution, then a residual block
  for each size from S / 4 to 4, one at least, and the average over the map.
  Each has twice the channels, up to `last_width`; F is the last number.
  """

  def setup(self):
    depth = max(2, self.image_size.bit_length() - 3)
    first, *widths = self._list_widths(depth)
    from jacsup_jax.models import residual

    self.stem = residual.NormConvolution(first)
    self.blocks = [residual.ResidualBlock(width) for width in widths]
    self.logits = self._make_logits(widths[-1])

  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    half = self.image_size // 2
    squares = images.reshape(-1, half, 2, half, 2, 3).swapaxes(2, 3)
    x = nn.relu(self.stem(squares.reshape(-1, half, half, 12), train))
    for block in self.blocks:
      x = block(x, train)
    return jnp.mean(x, axis=(1, 2))
