"""StarGAN, a baseline for faces: networks, objectives and steps.

Choi et al.: StarGAN: Unified Generative Adversarial Networks for Multi-Domain
Image-to-Image Translation. CVPR 2018. A generator gives an image other labels,
and from the result, with the old ones, the image again; see `wasserstein`.
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
from jacsup_jax.models import residual
from jacsup_jax.training import objectives


@dataclasses.dataclass(frozen=True)
class StarGanLossWeights(config.Weights):
  """Weights of the terms of StarGAN."""

  lambda_stargan_cycle: float = config.option(
    10.0, 'lambda_rec of StarGAN: weight of the cycle.', low=0
  )
  lambda_stargan_classification: float = config.option(
    1.0, 'lambda_cls of StarGAN: weight of the attributes.', low=0
  )
  lambda_stargan_penalty: float = config.option(
    10.0, 'lambda_gp of StarGAN: weight of the gradient penalty.', low=0
  )


def _convolution(x, features, size, name, dtype):
  """Applies a convolution of stride 1 that keeps a map's size, without bias."""
  return nn.Conv(
    features,
    (size, size),
    use_bias=False,
    dtype=dtype,
    kernel_init=layers.uniform_by_unit(size**2 * x.shape[-1]),
    conv_general_dilated=lambda x, kernel, *_, **__: residual.same(x, kernel),
    name=name,
  )(x)


class StarGanGenerator(nn.Module):
  """Images `[B, S, S, 3]`, labels `[B, K]` -> images `[B, S, S, 3]` in [-1, 1].

  A 7x7 convolution of `width` features, two layers that halve the map and
  double its features, residual blocks, two layers that do the reverse, and a
  7x7 convolution with Tanh. InstanceNorm and ReLU between. The labels are
  constant channels of the input.
  """

  width: int
  residual_blocks: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array, factors: jax.Array) -> jax.Array:
    """Returns the images, in float32 at least."""
    dtype, width = self.dtype, self.width
    normalize = lambda x, name: nn.InstanceNorm(
      epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=f'norm_{name}'
    )(x)
    activate = lambda x, name: nn.relu(normalize(x, name))
    shape = (*images.shape[:3], factors.shape[1])
    constants = factors[:, jnp.newaxis, jnp.newaxis]
    x = jnp.concatenate([images, jnp.broadcast_to(constants, shape)], axis=-1)
    x = activate(_convolution(x, width, 7, 'first', dtype), 'first')
    for name, features in (('down_0', 2 * width), ('down_1', 4 * width)):
      block = layers.DownBlock(
        features, normalize=False, activate=False, dtype=dtype, name=name
      )
      x = activate(block(x), name)
    for i in range(self.residual_blocks):
      names = f'residual_{i}_0', f'residual_{i}_1'
      change = _convolution(x, 4 * width, 3, names[0], dtype)
      change = activate(change, names[0])
      change = _convolution(change, 4 * width, 3, names[1], dtype)
      x += normalize(change, names[1])
    for name, features in (('up_0', 2 * width), ('up_1', width)):
      block = layers.UpConvolution(features, dtype=dtype, name=name)
      x = activate(block(x), name)
    return jnp.tanh(layers.widen(_convolution(x, 3, 7, 'last', dtype)))


class StarGanDiscriminator(nn.Module):
  """Images `[B, S, S, 3]` -> scores `[B, 2, 2]`, logits `[B, num_attributes]`.

  4x4 convolutions of stride 2 with LeakyReLU of slope 0.01 down to 2x2. Scores
  are those of patches; a logit is positive if an attribute is predicted.
  """

  num_attributes: int
  widths: tuple[int, ...]
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
      x = nn.leaky_relu(x, 0.01)
    scores = _convolution(x, 1, 3, 'score', self.dtype)[..., 0]
    x = x.reshape(x.shape[0], -1)
    logits = nn.Dense(
      self.num_attributes,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=layers.uniform_by_unit(x.shape[1]),
      name='logits',
    )
    return scores, logits(x)


@models.register
class StarGan(wasserstein.WassersteinAutoencoder):
  """The networks of StarGAN, with the labels, -1 or +1, as factors.

  The nuisance is the image itself: the encoder has no parameters, the decoder
  is the generator, and `nuisance_channels` has no effect. The published width
  is 64, for both networks, labels are 0 and 1, and images are 128x128, of
  which the discriminator has six layers. `last_width` is the discriminator's.

  As published, an image decoded with its own labels is tied to the image only
  by the cycle, and of labels InstanceNorm keeps only what the zeros around a
  constant channel make of it.
  """

  residual_blocks: int = 6

  @property
  def nuisance_dim(self) -> int:
    """Size of an image."""
    return 3 * self.image_size**2

  def setup(self):
    """Makes the two parts."""
    self.decoder = StarGanGenerator(
      self.first_width, self.residual_blocks, self.dtype
    )
    depth = self.image_size.bit_length() - 2
    self.discriminator = StarGanDiscriminator(
      self.num_factors,
      layers.doubled_widths(self.first_width, self.last_width, depth),
      # The gradient penalty differentiates twice.
      dtype=jnp.promote_types(self.dtype, jnp.float32),
    )

  def encode(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> codes.Code:
    """Returns images as nuisance, with `attributes` `[B, K]` as factors."""
    chex.assert_shape(attributes, (images.shape[0], self.num_factors))
    return codes.Code(jnp.asarray(attributes, images.dtype), images)

  def decode(self, code: codes.Code, train: bool = False) -> jax.Array:
    """Generates images; factors beyond -1 and +1 edit more strongly."""
    chex.assert_shape(code.factors, (None, self.num_factors))
    chex.assert_shape(code.nuisance, (None, *self.image_shape))
    return self.decoder(code.nuisance, code.factors)


def discriminator_objective(
  params: codes.Params,
  inputs: objectives.Inputs,
  edited: jax.Array,
  *,
  module: nn.Module,
  weights: StarGanLossWeights,
) -> tuple[jax.Array, codes.Metrics]:
  """Computes the discriminator's objective, eqs. (5) and (8) of Choi et al.

  Returns a scalar, and `discriminator` (the same) with the terms.
  """
  terms = wasserstein.discriminator_terms(params, inputs, edited, module=module)
  loss = (
    terms['edit_score']
    + weights.lambda_stargan_penalty * terms['gradient_penalty']
    + weights.lambda_stargan_classification * terms['classification']
  )
  return loss, {'discriminator': loss, **terms}


def autoencoder_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: StarGanLossWeights,
) -> objectives.Result:
  """Computes the generator's objective, eq. (6) of Choi et al. (2018).

  The error of the cycle is absolute, here as the mean over pixels; the
  cross-entropy is summed over attributes, as in the released code.
  """
  code, swapped, edited, _ = wasserstein.edit(
    params, batch_stats, inputs, module
  )
  cycled = module.apply(
    {'params': params}, codes.Code(code.factors, edited), method='decode'
  )
  scores, logits = module.apply(
    {'params': params}, edited, method='discriminate'
  )
  wrong = losses.attribute_cross_entropy_loss(logits, swapped.factors)
  terms = {
    'cycle': jnp.mean(jnp.abs(inputs.images - cycled)),
    'edit_classification': jnp.mean(wrong),
    'adversarial': -jnp.mean(scores),
  }
  loss = (
    weights.lambda_stargan_cycle * terms['cycle']
    + weights.lambda_stargan_classification * terms['edit_classification']
    + terms['adversarial']
  )
  return loss, ({'loss': loss, **terms}, batch_stats)


class StarGanSteps(wasserstein.WassersteinSteps):
  """The steps of StarGAN."""

  network = StarGan
  learning_rate, adam_b1 = 1e-4, 0.5
  train_step = staticmethod(
    functools.partial(
      wasserstein.train_step,
      discriminator_objective=discriminator_objective,
      autoencoder_objective=autoencoder_objective,
    )
  )
