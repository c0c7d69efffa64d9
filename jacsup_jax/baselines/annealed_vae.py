"""The annealed VAE, a baseline for Section 3: a capacity that rises.

Burgess et al.: Understanding disentangling in beta-VAE. arXiv:1804.03599, 2018.
"""

import jax
import jax.numpy as jnp

from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian
from jacsup_jax.training import steps


def compute_capacity(
  step: jax.Array, weights: field.AnnealedVaeWeights, num_steps: int
) -> jax.Array:
  """Returns the capacity `[]`, in nats, of a stage's step: from 0 up to C."""
  progress = step / (weights.annealed_share * num_steps)
  return weights.annealed_capacity * jnp.minimum(progress, 1.0)


class AnnealedVaeSteps(gaussian.GaussianSteps):
  """The steps of the baseline."""

  def objective(self, model, inputs):
    """Computes -E[log p(x | z)] + gamma |KL(q(z | x) || p(z)) - C|, eq. (8).

    The distance is that of the divergence's mean over the batch.
    """
    weights = self.weights
    _, nats, terms = gaussian.lower_bound_terms(
      model, inputs, weights.likelihood
    )
    capacity = compute_capacity(inputs.step, weights, self.num_steps)
    mean = steps.average_over(terms['divergence'], model.module.axis_name)
    loss = nats + weights.lambda_annealed * jnp.abs(mean - capacity)
    return loss, {'loss': loss, **terms, 'capacity': capacity}
