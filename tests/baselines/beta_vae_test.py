"""Tests of jacsup_jax.baselines.beta_vae."""

import numpy as np
import tiny_codes

from jacsup_jax.baselines import beta_vae
from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian

INPUTS = tiny_codes.make_inputs(noise=tiny_codes.noise(1))


def _objective(weights):
  return beta_vae.BetaVaeSteps(None, weights, None, 8, 100, 64).objective


def test_loss_weighs_the_divergence_by_beta():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  likelihood = field.Likelihood(0.1)
  _, nats, terms = gaussian.lower_bound_terms(model, INPUTS, likelihood)
  for beta in (0.0, 4.0):
    objective = _objective(field.BetaVaeWeights(beta, likelihood))
    loss, metrics = objective(model, INPUTS)
    np.testing.assert_allclose(loss, nats + beta * terms['divergence'])
    assert metrics == {'loss': loss, **terms}


def test_all_parts_learn():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  objective = _objective(field.BetaVaeWeights())
  found = tiny_codes.gradients(objective, model, INPUTS)
  assert {*found} == {'encoder', 'decoder'} and min(found.values()) > 0
