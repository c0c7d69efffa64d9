"""Tests of jacsup_jax.baselines.beta_vae."""

import numpy as np
import tiny_codes

from jacsup_jax.baselines import beta_vae
from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian

INPUTS = tiny_codes.make_inputs(noise=tiny_codes.noise(1))


def test_loss_weighs_the_divergence_by_beta():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  likelihood = field.Likelihood(0.1)
  _, nats, terms = gaussian.lower_bound_terms(model, INPUTS, likelihood)
  for beta in (0.0, 4.0):
    loss, metrics = beta_vae.objective(
      model, INPUTS, field.BetaVaeWeights(beta, likelihood)
    )
    np.testing.assert_allclose(loss, nats + beta * terms['divergence'])
    assert metrics == {'loss': loss, **terms}


def test_all_parts_learn():
  model = tiny_codes.init(gaussian.GaussianAutoencoder)
  found = tiny_codes.gradients(
    beta_vae.objective, model, INPUTS, field.BetaVaeWeights()
  )
  assert {*found} == {'encoder', 'decoder'} and min(found.values()) > 0
