"""Classifiers that judge decoded images; used in evaluation alone."""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import config
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


@model.register
class AttributeJudge(nn.Module):
  """A classifier of facial attributes, for evaluation.

  Images `[B, S, S, 3]` in [-1, 1] -> logits `[B, num_attributes]`: positive
  where an attribute is seen. Strided 4x4 convolutions with BatchNorm down to
  one pixel, a hidden layer, LeakyReLU between. S is a power of two, 8 or
  larger; each convolution doubles the channels, up to `last_width`.
  """

  num_attributes: int
  image_size: int
  first_width: int = 32
  last_width: int = 512
  hidden: int = 512

  image_range = (-1.0, 1.0)

  def __post_init__(self):
    config.check_image_size(self.image_size)
    super().__post_init__()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (self.image_size, self.image_size, 3)

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    chex.assert_shape(images, (None, *self.image_shape))
    x = images
    depth = self.image_size.bit_length() - 1
    widths = layers.doubled_widths(self.first_width, self.last_width, depth)
    for i, features in enumerate(widths):
      x = layers.DownBlock(features, name=f'down_{i}')(x, train)
    x = x.reshape(x.shape[0], -1)
    x = layers.dense(x.shape[-1], self.hidden, dtype=jnp.float32, name='dense')(
      x
    )
    x = layers.leaky_relu(x)
    return layers.dense(
      self.hidden, self.num_attributes, dtype=jnp.float32, name='logits'
    )(x)
