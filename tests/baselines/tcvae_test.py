"""Tests of jacsup_jax.baselines.tcvae."""

import jax.numpy as jnp
import numpy as np
from scipy import stats
import tiny_codes

from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian
from jacsup_jax.baselines import tcvae

INPUTS = tiny_codes.make_inputs(noise=tiny_codes.noise(1))


def _objective(weights):
  args = None, weights, None, 8
  own = tcvae.TcVaeSteps(*args, num_steps=100, num_examples=64)
  return own.objective


def _sample(mean, log_variance, units):
  return gaussian.Sample(*map(jnp.asarray, (mean, log_variance, units)))


def test_total_correlation_by_its_definition():
  rng = np.random.default_rng(0)
  mean, log_variance, units = rng.normal(size=(3, 5, 2)).astype(np.float32)
  found = tcvae.total_correlation(_sample(mean, log_variance, units), 100)
  deviation, wanted = np.exp(log_variance / 2), []
  for z in units:
    # [j, u], of each posterior of the batch.
    densities = stats.norm.pdf(z, mean, deviation)
    joint = densities.prod(axis=1).sum() / (100 * 5)
    each = densities.sum(axis=0) / (100 * 5)
    wanted.append(np.log(joint) - np.log(each).sum())
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_dependent_units_have_more_than_independent_ones():
  rng = np.random.default_rng(0)
  independent = rng.normal(size=(400, 2))
  dependent = np.repeat(independent[:, :1], 2, axis=1)
  narrow = np.full((400, 2), 2 * np.log(0.1))
  # Of a training set that is the batch, the estimate has no constant.
  measure = lambda mean: np.mean(
    tcvae.total_correlation(_sample(mean, narrow, mean), 1)
  )
  assert measure(dependent) > measure(independent) + 0.5


def test_loss_adds_the_rest_of_beta():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  likelihood = field.Likelihood(0.1)
  sample, nats, terms = gaussian.lower_bound_terms(model, INPUTS, likelihood)
  correlation = np.mean(tcvae.total_correlation(sample, 64))
  for beta in (1.0, 6.0):
    objective = _objective(field.TcVaeWeights(beta, likelihood))
    loss, _ = objective(model, INPUTS)
    wanted = nats + terms['divergence'] + (beta - 1) * correlation
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
