"""Fader Networks, a baseline for faces: networks and weights.

Lample et al.: Fader Networks: Manipulating Images by Sliding Attributes. NIPS
2017. An autoencoder receives the labels as factors, and a discriminator keeps
them out of the nuisance. `fader_steps` trains both.
"""

import dataclasses

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.models import layers
from jacsup_jax.models import model as models


@dataclasses.dataclass(frozen=True)
class FaderLossWeights(config.Weights):
  """Weights of the terms of Fader Networks."""

  lambda_adversarial: float = config.option(
    1e-4,
    'lambda_E of Fader Networks: the adversarial weight at the end of its'
    ' ramp.',
    low=0,
  )
  adversarial_ramp_steps: int = config.option(
    500_000,
    'Steps over which the adversarial weight rises from 0; scale it with the'
    ' epochs. 0: no ramp.',
    low=0,
  )


class LatentDiscriminator(nn.Module):
  """Nuisance maps `[B, 2, 2, C]` -> logits `[B, num_attributes]`.

  A 4x4 convolution of stride 2 with BatchNorm down to one position, `width`
  channels; a dense layer of `hidden` units with dropout; LeakyReLU of slope 0.2
  after both. A logit is positive if its attribute is predicted to be present.
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
    """Returns the logits; dropped are units whose `uniform` number is low.

    `uniform` is `[B, hidden]` in [0, 1), None for no dropout; not drawn here,
    as a device has its part of a batch.
    """
    chex.assert_shape(nuisance, (None, 2, 2, None))
    x = layers.DownBlock(
      self.width, axis_name=self.axis_name, dtype=self.dtype, name='down_0'
    )(nuisance, train)
    x = x.reshape(x.shape[0], -1)
    x = layers.dense(x.shape[-1], self.hidden, dtype=self.dtype, name='dense')(
      x
    )
    x = layers.leaky_relu(x)
    if uniform is not None:
      chex.assert_equal_shape([uniform, x])
      kept = uniform >= self.dropout_rate
      x = jnp.where(kept, x / (1 - self.dropout_rate), 0.0)
    return layers.dense(
      self.hidden, self.num_attributes, dtype=self.dtype, name='logits'
    )(x)


@models.register
class FaderAutoencoder(autoencoders.FaceMethods):
  """A `autoencoders.FaceAutoencoder` whose factors are the labels.

  Its encoder has no channels for factors; the decoder receives the labels, -1
  or +1, at every layer. (The publication has two channels per attribute, one of
  which is 1.) The parameter tree has a third top key, `discriminator`.
  """

  discriminator_width: int = 512
  discriminator_hidden: int = 512

  def setup(self):
    """Makes the three parts."""
    parts = self.make_parts(self.nuisance_channels, linear_features=0)
    self.encoder, self.decoder = parts
    self.discriminator = LatentDiscriminator(
      self.num_factors,
      self.discriminator_width,
      self.discriminator_hidden,
      axis_name=self.axis_name,
      # As the code, which is not rounded below float32.
      dtype=jnp.promote_types(self.dtype, jnp.float32),
    )

  def encode(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> codes.Code:
    """Encodes images; `attributes` `[B, K]` are the factors of their codes."""
    chex.assert_shape(attributes, (images.shape[0], self.num_factors))
    nuisance = self.encoder(images, train)
    return codes.Code(attributes.astype(nuisance.dtype), nuisance)

  def discriminate(
    self,
    nuisance: jax.Array,
    uniform: jax.Array | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Returns the logits of `LatentDiscriminator`."""
    return self.discriminator(nuisance, uniform, train)

  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies all parts, with neither sign of any attribute."""
    code = self.encode(images, jnp.zeros((images.shape[0], self.num_factors)))
    return self.decode(code), self.discriminate(code.nuisance)
