"""Tests of jacsup_jax.baselines.gaussian."""

import jax.numpy as jnp
import numpy as np
import tiny_codes

from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian
from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import codes
from jacsup_jax.models import model as models

INPUTS = tiny_codes.make_inputs(noise=tiny_codes.noise(1))


def test_divergence_is_that_of_each_unit():
  mean, log_variance = (
    jnp.array([[0.0, 2.0, 1.0]]),
    jnp.array([[0.0, 0.0, 1.0]]),
  )
  # 0; half of 2^2; (1 + e - 1 - 1) / 2.
  found = gaussian.divergence_by_unit(mean, log_variance)
  np.testing.assert_allclose(found, [[0, 2, (np.e - 1) / 2]], rtol=1e-6)
  # E_q[log q - log p] of N(1, 4), on a grid.
  x = np.linspace(-30, 30, 100_001)
  log = lambda mean, variance: (
    -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))
  )
  terms = np.exp(log(1, 4)) * (log(1, 4) - log(0, 1))
  found = gaussian.divergence_by_unit(jnp.ones(1), jnp.full(1, np.log(4)))
  np.testing.assert_allclose(found, [terms.sum() * (x[1] - x[0])], rtol=1e-5)


def test_codes_are_means_and_units_have_divergences():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  mean, log_variance = latent_steps.apply(model, 'infer', INPUTS.images)
  assert mean.shape == log_variance.shape == (8, 4)
  np.testing.assert_array_equal(codes.merge(model.encode(INPUTS.images)), mean)
  found = latent_steps.apply(model, 'unit_divergences', INPUTS.images)
  np.testing.assert_array_equal(
    found, gaussian.divergence_by_unit(mean, log_variance)
  )
  module = model.module
  assert models.make_module(models.describe_module(module)) == module


def test_terms_are_in_nats_of_a_gaussian_likelihood():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  sample, nats, terms = gaussian.lower_bound_terms(
    model, INPUTS, field.Likelihood(0.5)
  )
  deviation = np.exp(np.asarray(sample.log_variance) / 2)
  np.testing.assert_allclose(
    sample.units, sample.mean + deviation * INPUTS.noise, rtol=1e-5
  )
  decoded = latent_steps.apply(model, 'decode_units', sample.units)
  squares = np.square(decoded - INPUTS.images).sum(axis=(1, 2, 3))
  # Of variance 1/2: the squared error itself.
  np.testing.assert_allclose(nats, squares.mean(), rtol=1e-5)
  np.testing.assert_allclose(terms['reconstruction'], squares.mean() / 64)
