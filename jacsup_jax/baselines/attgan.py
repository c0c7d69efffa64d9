"""AttGAN, a baseline for faces: networks, objectives and steps.

He et al.: AttGAN: Facial Attribute Editing by Only Changing What You Want. IEEE
Transactions on Image Processing, 2019. An autoencoder receives the labels as
factors; a discriminator asks of its edits that they look real and show the
attributes that they were given. `wasserstein` has what is common.
"""

import dataclasses
import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.baselines import wasserstein
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import losses
from jacsup_jax.models import layers
from jacsup_jax.models import model as models
from jacsup_jax.training import objectives


@dataclasses.dataclass(frozen=True)
class AttGanLossWeights(config.Weights):
  """Weights of the terms of AttGAN."""

  lambda_attgan_reconstruction: float = config.option(
    100.0, 'lambda_1 of AttGAN: weight of reconstruction.', low=0
  )
  lambda_attgan_attributes: float = config.option(
    10.0, 'lambda_2 of AttGAN: weight of the attributes of edits.', low=0
  )
  lambda_attgan_classification: float = config.option(
    1.0, 'lambda_3 of AttGAN: weight of the attributes of images.', low=0
  )
  lambda_attgan_penalty: float = config.option(
    10.0, 'Weight of the gradient penalty of AttGAN.', low=0
  )


class AttGanEncoder(nn.Module):
  """Images `[B, S, S, 3]` -> nuisance `[B, D]`.

  D(first)-...-D(last)-D(features), each a `layers.DownBlock`. The nuisance is
  the last map, 2x2, and the one before it, 4x4, both flattened.
  """

  widths: tuple[int, ...]
  features: int
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the nuisance, in float32 at least."""
    maps = [images]
    for i, features in enumerate((*self.widths, self.features)):
      block = layers.DownBlock(
        features, axis_name=self.axis_name, dtype=self.dtype, name=f'down_{i}'
      )
      maps.append(block(maps[-1], train))
    flat = [layers.widen(x).reshape(x.shape[0], -1) for x in maps]
    return jnp.concatenate([flat[-1], flat[-2]], axis=1)


class AttGanDecoder(nn.Module):
  """Codes `[B, K]`, `[B, D]` -> images `[B, S, S, 3]` in [-1, 1].

  The encoder's 4x4 map joins the output of the first layer. Every layer is
  given the factors; in the publication, only the first ones.
  """

  widths: tuple[int, ...]
  features: int
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, code: codes.Code, train: bool = False) -> jax.Array:
    """Returns the images, in float32 at least."""
    x, shortcut = jnp.split(code.nuisance, [4 * self.features], axis=1)
    x = x.reshape(-1, 2, 2, self.features)
    shortcut = shortcut.reshape(-1, 4, 4, self.widths[0])
    block = functools.partial(
      layers.UpBlock, axis_name=self.axis_name, dtype=self.dtype
    )
    for i, features in enumerate(self.widths):
      x = block(features, name=f'up_{i}')(x, code.factors, train)
      if i == 0:
        x = jnp.concatenate([x, shortcut.astype(x.dtype)], axis=-1)
    last = block(3, is_last=True, name=f'up_{len(self.widths)}')
    return last(x, code.factors, train)


class AttGanDiscriminator(nn.Module):
  """Images `[B, S, S, 3]` -> scores `[B]` and logits `[B, num_attributes]`.

  4x4 convolutions of stride 2 down to 2x2, with LayerNorm; for each output a
  dense layer of `hidden` units. LeakyReLU of slope 0.2 after all. A logit is
  positive if its attribute is predicted to be present.
  """

  num_attributes: int
  widths: tuple[int, ...]
  hidden: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns scores and logits; examples do not affect each other."""
    x = images
    for i, features in enumerate(self.widths):
      x = layers.DownBlock(
        features,
        normalize=False,
        activate=False,
        dtype=self.dtype,
        name=f'down_{i}',
      )(x)
      # One group: over positions and channels.
      x = nn.GroupNorm(1, use_fast_variance=False, name=f'norm_{i}')(x)
      x = layers.leaky_relu(x)
    x = x.reshape(x.shape[0], -1)

    def head(name, features):
      dense = functools.partial(layers.dense, dtype=self.dtype)
      hidden = dense(x.shape[1], self.hidden, name=f'{name}_hidden')(x)
      hidden = layers.leaky_relu(hidden)
      return dense(self.hidden, features, name=name)(hidden)

    return head('score', 1)[:, 0], head('logits', self.num_attributes)


@models.register
class AttGan(wasserstein.WassersteinAutoencoder):
  """The networks of AttGAN, with the labels, -1 or +1, as factors.

  The depth is that of `autoencoders.FaceAutoencoder`, to a 2x2 map of
  `nuisance_channels`: at 64x64 pixels the published five layers. The published
  widths are 64 to 1024, for all three networks. The released code trains with
  -1/2 and +1/2 and edits with -1 and +1: a strength of 2 here.
  """

  discriminator_hidden: int = 1024

  @property
  def _widths(self) -> tuple[int, ...]:
    """Widths of the discriminator; the encoder has one less."""
    depth = self.image_size.bit_length() - 2
    return layers.doubled_widths(self.first_width, self.last_width, depth)

  @property
  def nuisance_dim(self) -> int:
    """Size of the last map and of the shortcut."""
    return 4 * self.nuisance_channels + 16 * self._widths[-2]

  def setup(self):
    """Makes the three parts."""
    *widths, _ = self._widths
    options = (self.nuisance_channels, self.axis_name, self.dtype)
    self.encoder = AttGanEncoder(tuple(widths), *options)
    self.decoder = AttGanDecoder(tuple(widths[::-1]), *options)
    self.discriminator = AttGanDiscriminator(
      self.num_factors,
      self._widths,
      self.discriminator_hidden,
      # The gradient penalty differentiates twice.
      dtype=jnp.promote_types(self.dtype, jnp.float32),
    )

  def encode(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> codes.Code:
    """Encodes images; `attributes` `[B, K]` are the factors of their codes."""
    chex.assert_shape(images, (None, *self.image_shape))
    chex.assert_shape(attributes, (images.shape[0], self.num_factors))
    nuisance = self.encoder(images, train)
    return codes.Code(jnp.asarray(attributes, nuisance.dtype), nuisance)

  def decode(self, code: codes.Code, train: bool = False) -> jax.Array:
    """Decodes to images; factors beyond -1 and +1 edit more strongly."""
    chex.assert_shape(code.factors, (None, self.num_factors))
    chex.assert_shape(code.nuisance, (None, self.nuisance_dim))
    return self.decoder(code, train)


def discriminator_objective(
  params: codes.Params,
  inputs: objectives.Inputs,
  edited: jax.Array,
  *,
  module: nn.Module,
  weights: AttGanLossWeights,
) -> tuple[jax.Array, codes.Metrics]:
  """Computes the discriminator's whole objective of He et al. (2019).

  The publication sums over the attributes; its weights belong to their mean, as
  in the released code.

  Returns:
    Scalar loss, and `discriminator` (the loss) with the terms.
  """
  terms = wasserstein.discriminator_terms(params, inputs, edited, module=module)
  terms['classification'] /= module.num_factors
  loss = (
    terms['edit_score']
    + weights.lambda_attgan_penalty * terms['gradient_penalty']
    + weights.lambda_attgan_classification * terms['classification']
  )
  return loss, {'discriminator': loss, **terms}


def autoencoder_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: AttGanLossWeights,
) -> objectives.Result:
  """Computes the autoencoder's whole objective of He et al. (2019).

  The reconstruction error is absolute, here as the mean over pixels.
  """
  code, swapped, edited, batch_stats = wasserstein.edit(
    params, batch_stats, inputs, module
  )
  reconstructions, batch_stats = models.apply_train(
    module, params, batch_stats, 'decode', code
  )
  scores, logits = module.apply(
    {'params': params}, edited, method='discriminate'
  )
  wrong = losses.attribute_cross_entropy_loss(logits, swapped.factors)
  terms = {
    'reconstruction': jnp.mean(jnp.abs(inputs.images - reconstructions)),
    'edit_classification': jnp.mean(wrong) / module.num_factors,
    'adversarial': -jnp.mean(scores),
  }
  loss = (
    weights.lambda_attgan_reconstruction * terms['reconstruction']
    + weights.lambda_attgan_attributes * terms['edit_classification']
    + terms['adversarial']
  )
  return loss, ({'loss': loss, **terms}, batch_stats)


class AttGanSteps(wasserstein.WassersteinSteps):
  """The steps of AttGAN.

  The released code gives the autoencoder's update a batch of its own; here it
  has the last of the discriminator's five.
  """

  network = AttGan
  learning_rate, adam_b1 = 2e-4, 0.5
  train_step = staticmethod(
    functools.partial(
      wasserstein.train_step,
      discriminator_objective=discriminator_objective,
      autoencoder_objective=autoencoder_objective,
    )
  )
