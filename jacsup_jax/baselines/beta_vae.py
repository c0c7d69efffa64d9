"""beta-VAE, a baseline for Section 3: a heavier divergence from the prior.

Higgins et al.: beta-VAE: Learning Basic Visual Concepts with a Constrained
Variational Framework. ICLR 2017.
"""

from jacsup_jax.baselines import gaussian


class BetaVaeSteps(gaussian.GaussianSteps):
  """The steps of the baseline."""

  def objective(self, model, inputs):
    """Computes -E[log p(x | z)] + beta KL(q(z | x) || p(z)), eq. (4)."""
    _, nats, terms = gaussian.lower_bound_terms(
      model, inputs, self.weights.likelihood
    )
    loss = nats + self.weights.lambda_beta_vae * terms['divergence']
    return loss, {'loss': loss, **terms}
