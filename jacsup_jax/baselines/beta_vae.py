"""beta-VAE, a baseline for Section 3: a heavier divergence from the prior.

Higgins et al.: beta-VAE: Learning Basic Visual Concepts with a Constrained
Variational Framework. ICLR 2017.
"""

import jax

from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian
from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import codes
from jacsup_jax.models import model as models


def objective(
  model: models.Model,
  inputs: latent_steps.Inputs,
  weights: field.BetaVaeWeights,
) -> tuple[jax.Array, codes.Metrics]:
  """Computes -E[log p(x | z)] + beta KL(q(z | x) || p(z)), eq. (4)."""
  _, nats, terms = gaussian.lower_bound_terms(model, inputs, weights.likelihood)
  loss = nats + weights.lambda_beta_vae * terms['divergence']
  return loss, {'loss': loss, **terms}


class BetaVaeSteps(gaussian.GaussianSteps):
  """The steps of the baseline."""

  def objective(self, model, inputs):
    """Computes `objective` with the weights of the stage."""
    return objective(model, inputs, self.weights)
