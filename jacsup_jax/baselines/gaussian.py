"""The Gaussian VAE on our encoder and decoder, which four baselines share.

Kingma & Welling: Auto-Encoding Variational Bayes. ICLR 2014.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import codes
from jacsup_jax.core import losses
from jacsup_jax.data import batches
from jacsup_jax.models import latents
from jacsup_jax.models import model as models


@models.register
class GaussianAutoencoder(latents.UnorderedAutoencoder):
  """An autoencoder with a posterior N(mean, variance) for each unit.

  The encoder gives all means, then all log variances; the code of an image are
  the means.
  """

  outputs_per_unit = 2

  def infer(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and log variance of q(z | x), both `[B, code_dim]`."""
    mean, log_variance = jnp.split(self.encoder(images), 2, axis=1)
    return mean, log_variance

  def units(self, images: jax.Array) -> jax.Array:
    """Returns the means, in the order of training."""
    return self.infer(images)[0]

  def unit_divergences(self, images: jax.Array) -> jax.Array:
    """Computes the divergence of each unit from the prior, `[B, code_dim]`."""
    return divergence_by_unit(*self.infer(images))


class Sample(NamedTuple):
  """A batch of posteriors, with a sample of each."""

  mean: jax.Array  # [B, U]
  log_variance: jax.Array  # [B, U]
  units: jax.Array  # [B, U]


class GaussianSteps(latent_steps.LatentSteps):
  """Steps with the noise of the posteriors' samples."""

  network = GaussianAutoencoder

  def draw(self, inputs, data, shard):
    """Adds standard normal noise for each unit."""
    shape = (self.batch_size, self.module.code_dim)
    noise = batches.step_noise(data.seed, inputs.step, shape)
    return inputs._replace(noise=shard(noise))


def divergence_by_unit(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  """Computes KL(q || N(0, 1)) of each unit of a diagonal Gaussian, in nats.

  `[B, ...]` mean and log variance -> `[B, ...]`. Appendix B of Kingma & Welling
  (2014).
  """
  chex.assert_equal_shape([mean, log_variance])
  square = jnp.square(mean) + jnp.exp(log_variance)
  return 0.5 * (square - 1.0 - log_variance)


def draw_sample(
  model: models.Model, images: jax.Array, noise: jax.Array
) -> Sample:
  """Encodes images `[B, H, W, C]` and samples their posteriors."""
  mean, log_variance = latent_steps.apply(model, 'infer', images)
  units = mean + jnp.exp(0.5 * log_variance) * noise
  return Sample(mean, log_variance, units)


def lower_bound_terms(
  model: models.Model,
  inputs: latent_steps.Inputs,
  likelihood: field.Likelihood,
) -> tuple[Sample, jax.Array, codes.Metrics]:
  """Computes both terms of the negative lower bound, with one sample of z.

  Returns the sample; the error in nats but for a constant, half the squared
  error over the variance of a pixel, summed over pixels, a mean over the batch;
  and the terms `reconstruction`, the mean squared error, and `divergence`, in
  nats.
  """
  sample = draw_sample(model, inputs.images, inputs.noise)
  decoded = latent_steps.apply(model, 'decode_units', sample.units)
  error = jnp.mean(losses.reconstruction_loss(inputs.images, decoded))
  divergence = jnp.sum(
    divergence_by_unit(sample.mean, sample.log_variance), axis=1
  )
  terms = {'reconstruction': error, 'divergence': jnp.mean(divergence)}
  num_values = inputs.images[0].size
  nats = 0.5 * num_values / likelihood.pixel_variance * error
  return sample, nats, terms
