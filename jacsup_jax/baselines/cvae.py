"""A conditional VAE, a baseline for faces: networks, objective and step.

Yan et al.: Attribute2Image: Conditional Image Generation from Visual
Attributes. ECCV 2016; its model of one layer, "CVAE". An encoder q(z | x, y)
and a decoder p(x | z, y) are given the labels y, and z has a Gaussian prior.
"""

import dataclasses
import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.baselines import gaussian
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import losses
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.models import layers
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


@dataclasses.dataclass(frozen=True)
class CvaeLossWeights(config.Weights):
  """Weights of the terms of the conditional VAE."""

  cvae_beta: float = config.option(
    1.0,
    'Weight of the divergence from the prior in the conditional VAE, for'
    ' pixels in [-1, 1] with variance 1; another variance amounts to another'
    ' weight.',
    low=0,
  )


@models.register
class CvaeAutoencoder(autoencoders.FaceMethods):
  """A `autoencoders.FaceAutoencoder` whose nuisance is a Gaussian given y.

  Its factors are the labels, -1 or +1. As released, the labels join the
  features of the image before the last layer of the encoder, here a 1x1
  convolution; its parameters are the third top key, `posterior`. The code of an
  image has the mean of its posterior as nuisance.
  """

  def setup(self):
    """Makes the three parts."""
    channels = self.nuisance_channels
    self.encoder, self.decoder = self.make_parts(channels, linear_features=0)
    self.posterior = layers.dense(
      channels + self.num_factors,
      2 * channels,
      # As the code, which is not rounded below float32.
      dtype=jnp.promote_types(self.dtype, jnp.float32),
    )

  def infer(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """Returns mean and log variance of q(z | x, y), both `[B, 2, 2, C]`."""
    chex.assert_shape(attributes, (images.shape[0], self.num_factors))
    features = self.encoder(images, train)
    labels = jnp.broadcast_to(
      attributes[:, None, None].astype(features.dtype),
      (*features.shape[:3], self.num_factors),
    )
    both = self.posterior(jnp.concatenate([features, labels], axis=-1))
    mean, log_variance = jnp.split(both, 2, axis=-1)
    return mean, log_variance

  def encode(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> codes.Code:
    """Encodes images; `attributes` `[B, K]` are the factors of their codes."""
    mean, _ = self.infer(images, attributes, train)
    return codes.Code(attributes.astype(mean.dtype), mean)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Reconstructs images with neither sign of any attribute."""
    labels = jnp.zeros((images.shape[0], self.num_factors))
    return self.decode(self.encode(images, labels))


def objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: CvaeLossWeights,
) -> objectives.Result:
  """Computes the negative lower bound on log p(x | y), with one sample of z.

  In nats per image but for the Gaussian's constant: half the squared error,
  summed over pixels, plus beta times the divergence. (The released code learns
  the variance of each pixel.)
  """
  apply = functools.partial(models.apply_train, module, params)
  (mean, log_variance), batch_stats = apply(
    batch_stats, 'infer', inputs.images, inputs.attributes
  )
  nuisance = mean + jnp.exp(0.5 * log_variance) * inputs.noise
  reconstructions, batch_stats = apply(
    batch_stats, 'decode', codes.Code(inputs.attributes, nuisance)
  )
  divergence = gaussian.divergence_by_unit(mean, log_variance)
  terms = {
    'reconstruction': jnp.mean(
      losses.reconstruction_loss(inputs.images, reconstructions)
    ),
    'divergence': jnp.mean(jnp.sum(divergence, axis=(1, 2, 3))),
  }
  num_values = inputs.images[0].size
  loss = 0.5 * num_values * terms['reconstruction']
  loss += weights.cvae_beta * terms['divergence']
  return loss, ({'loss': loss, **terms}, batch_stats)


def train_step(
  state: steps.TrainState,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: CvaeLossWeights,
  optimizer: optax.GradientTransformation,
  num_steps: int | None = None,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: an update of all parts; metrics are from before it.

  With `num_steps` the learning rate falls to 0 over them by a cosine.
  """
  grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(
    state.params, state.batch_stats, inputs, module=module, weights=weights
  )
  grads, metrics = steps.average_over((grads, metrics), module.axis_name)
  scale = attribute_steps.make_scale(state.step, num_steps)
  state = steps.apply_gradients(state, grads, optimizer, scale)
  state = state._replace(step=state.step + 1, batch_stats=batch_stats)
  return state, metrics


class CvaeSteps(attribute_steps.FaceSteps):
  """The steps of the baseline, of the same data as those of Section 4."""

  network = CvaeAutoencoder
  # Those of the released code.
  learning_rate, adam_b1 = 3e-4, 0.9
  train_step = staticmethod(train_step)

  def draw(self, step, inputs, constants, shard):
    """Adds the noise of the posterior's samples instead of swaps."""
    shape = (self.batch_size, 2, 2, self.module.nuisance_channels)
    noise = batches.step_noise(constants.seed, step, shape)
    return inputs._replace(noise=shard(noise))
