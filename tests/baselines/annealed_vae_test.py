"""Tests of jacsup_jax.baselines.annealed_vae."""

import jax.numpy as jnp
import numpy as np
import tiny_codes

from jacsup_jax.baselines import annealed_vae
from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian

INPUTS = tiny_codes.make_inputs(noise=tiny_codes.noise(1))


def _objective(weights):
  args = None, weights, None, 8
  own = annealed_vae.AnnealedVaeSteps(*args, num_steps=100, num_examples=64)
  return own.objective


def test_capacity_rises_and_stays():
  weights = field.AnnealedVaeWeights(20.0, annealed_share=0.5)
  steps = jnp.array([0, 10, 50, 80, 100])
  found = annealed_vae.compute_capacity(steps, weights, 100)
  np.testing.assert_allclose(found, [0, 4, 20, 20, 20], rtol=1e-6)


def test_loss_is_the_distance_from_the_capacity_on_both_sides():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  likelihood = field.Likelihood(0.1)
  _, nats, terms = gaussian.lower_bound_terms(model, INPUTS, likelihood)
  divergence = float(terms['divergence'])
  for capacity in (0.5 * divergence, 2 * divergence):
    weights = field.AnnealedVaeWeights(capacity, 3.0, 0.5, likelihood)
    inputs = INPUTS._replace(step=jnp.int32(90))
    loss, metrics = _objective(weights)(model, inputs)
    wanted = nats + 3 * abs(divergence - capacity)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    np.testing.assert_allclose(metrics['capacity'], capacity, rtol=1e-6)
