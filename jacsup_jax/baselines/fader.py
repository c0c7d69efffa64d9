"""Networks of Fader Networks, a baseline for faces.

Lample, Zeghidour, Usunier, Bordes, Denoyer and Ranzato: Fader Networks:
Manipulating Images by Sliding Attributes. NIPS 2017. An autoencoder is given
the labels in the place of factors, and a discriminator of its code keeps them
out of the rest.
"""

from collections.abc import Callable

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.models import layers


class LatentDiscriminator(nn.Module):
  """Nuisance maps `[B, 2, 2, C]` -> logits `[B, num_attributes]`.

  A 4x4 convolution of stride 2 with BatchNorm down to one position, a hidden
  layer with dropout, LeakyReLU of slope 0.2 after both. A logit is positive
  where the attribute is seen in the code.

  Attributes:
    num_attributes: k.
    width: channels of the convolution.
    hidden: units of the dense layer.
    dropout_rate: share of the hidden units that are dropped.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that it computes in.
  """

  num_attributes: int
  width: int = 512
  hidden: int = 512
  dropout_rate: float = 0.3
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
      self,
      nuisance: jax.Array,
      uniform: jax.Array | None = None,
      train: bool = False,
  ) -> jax.Array:
    """Judges codes.

    Args:
      nuisance: `[B, 2, 2, C]`.
      uniform: `[B, hidden]` numbers in [0, 1), which decide what is dropped;
        None drops nothing. Given, and not drawn here, as one device of many
        has a part of those of the whole batch.
      train: normalise with the statistics of the batch.

    Returns:
      `[B, num_attributes]`.
    """
    chex.assert_shape(nuisance, (None, 2, 2, None))
    x = layers.DownBlock(
        self.width, axis_name=self.axis_name, dtype=self.dtype, name='down_0'
    )(nuisance, train)
    x = x.reshape(x.shape[0], -1)
    x = layers.dense(
        x.shape[-1], self.hidden, dtype=self.dtype, name='dense'
    )(x)
    x = layers.leaky_relu(x)
    if uniform is not None:
      chex.assert_equal_shape([uniform, x])
      kept = uniform >= self.dropout_rate
      x = jnp.where(kept, x / (1 - self.dropout_rate), 0.0)
    return layers.dense(
        self.hidden, self.num_attributes, dtype=self.dtype, name='logits'
    )(x)


class FaderAutoencoder(nn.Module):
  """The autoencoder of `autoencoders.FaceAutoencoder` that is given the labels.

  Its encoder has no channels for factors; the labels stand in their place, as
  -1 and +1, at every layer of the decoder. (The publication has two channels an
  attribute, one of which is 1.) The parameter tree has the third top key
  `discriminator`.

  Attributes:
    num_factors: k, of the labels.
    nuisance_channels: of the 2x2 map; d is four times as many.
    image_size: see `autoencoders.FaceAutoencoder`, as the next two.
    first_width: of the encoder.
    last_width: of the encoder.
    discriminator_width: see `LatentDiscriminator`.
    discriminator_hidden: see `LatentDiscriminator`.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that the convolutions of the autoencoder are computed in.
  """

  num_factors: int
  nuisance_channels: int
  image_size: int = 256
  first_width: int = 16
  last_width: int = 512
  discriminator_width: int = 512
  discriminator_hidden: int = 512
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    config.check_image_size(self.image_size)
    super().__post_init__()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (self.image_size, self.image_size, 3)

  @property
  def nuisance_dim(self) -> int:
    return 4 * self.nuisance_channels

  def setup(self):
    depth = self.image_size.bit_length() - 3
    widths = layers.doubled_widths(self.first_width, self.last_width, depth)
    self.encoder = autoencoders.FaceEncoder(
        widths,
        self.nuisance_channels,
        0,
        self.image_shape,
        self.axis_name,
        self.dtype,
    )
    self.decoder = autoencoders.FaceDecoder(
        widths[::-1], self.axis_name, self.dtype
    )
    self.discriminator = LatentDiscriminator(
        self.num_factors,
        self.discriminator_width,
        self.discriminator_hidden,
        axis_name=self.axis_name,
        # As the code, which is not rounded to less.
        dtype=jnp.promote_types(self.dtype, jnp.float32),
    )

  def encode(
      self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> codes.Code:
    """Encodes images; `attributes` `[B, K]` are the factors of their codes."""
    chex.assert_shape(attributes, (images.shape[0], self.num_factors))
    nuisance = self.encoder(images, train)
    return codes.Code(attributes.astype(nuisance.dtype), nuisance)

  def decode(self, code: codes.Code, train: bool = False) -> jax.Array:
    chex.assert_shape(code.factors, (None, self.num_factors))
    chex.assert_shape(code.nuisance, (None, 2, 2, self.nuisance_channels))
    return self.decoder(code, train)

  def discriminate(
      self,
      nuisance: jax.Array,
      uniform: jax.Array | None = None,
      train: bool = False,
  ) -> jax.Array:
    """Gives the logits of `LatentDiscriminator`, which see."""
    return self.discriminator(nuisance, uniform, train)

  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Passes through all parts, with neither sign of any attribute."""
    code = self.encode(images, jnp.zeros((images.shape[0], self.num_factors)))
    return self.decode(code), self.discriminate(code.nuisance)


def make_labelled_encode(
    model: nn.Module, batch_stats: chex.ArrayTree
) -> Callable[[codes.Params, jax.Array, jax.Array], codes.Code]:
  """Makes `encode(params, images, attributes) -> Code` of any model of faces.

  Args:
    model: a `FaderAutoencoder`, whose factors are the labels, or a
      `autoencoders.FaceAutoencoder`, which predicts them and is not given any.
    batch_stats: its running statistics.

  Returns:
    A pure function of the parameters, `[B, S, S, 3]` images and `[B, K]`
    labels.
  """
  if not isinstance(model, FaderAutoencoder):
    encode = autoencoders.make_encode(model, batch_stats)
    return lambda params, images, unused_attributes: encode(params, images)

  def encode_with_labels(
      params: codes.Params, images: jax.Array, attributes: jax.Array
  ) -> codes.Code:
    variables = {'params': params, 'batch_stats': batch_stats}
    return model.apply(variables, images, attributes, method='encode')

  return encode_with_labels
