"""beta-TCVAE, a baseline for Section 3: a penalty on the total correlation.

Chen et al.: Isolating Sources of Disentanglement in Variational Autoencoders.
NeurIPS 2018.
"""

import math

import chex
import jax
import jax.numpy as jnp

from jacsup_jax.baselines import gaussian


def total_correlation(
  sample: gaussian.Sample, num_examples: int, axis_name: str | None = None
) -> jax.Array:
  """Estimates log q(z) - sum_u log q(z_u) at the samples of a batch, in nats.

  By minibatch weighted sampling, Section 4.1 of Chen et al.: log q(z) is the
  log of the sum of q(z | x_j) over the batch, over M times its size B; the same
  for each unit.

  Args:
    sample: of the batch.
    num_examples: M of the training set. It shifts the estimate by a constant.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    `[B]`; its mean is the total correlation.
  """
  chex.assert_rank(list(sample), 2)
  mean, log_variance = sample.mean, sample.log_variance
  if axis_name is not None:
    gather = lambda x: jax.lax.all_gather(x, axis_name, tiled=True)
    mean, log_variance = gather(mean), gather(log_variance)
  # log q(z_iu | x_j), `[i, j, u]`.
  distance = sample.units[:, None] - mean[None]
  densities = -0.5 * (
    jnp.square(distance) * jnp.exp(-log_variance)[None]
    + log_variance[None]
    + math.log(2 * math.pi)
  )
  log_count = math.log(num_examples * mean.shape[0])
  joint = jax.nn.logsumexp(jnp.sum(densities, axis=2), axis=1) - log_count
  each = jax.nn.logsumexp(densities, axis=1) - log_count
  return joint - jnp.sum(each, axis=1)


class TcVaeSteps(gaussian.GaussianSteps):
  """The steps of the baseline."""

  def objective(self, model, inputs):
    """Computes the negative lower bound plus (beta - 1) total correlations.

    Eq. (4) of Chen et al. with alpha = gamma = 1: its three parts of the
    divergence add up to it, which is computed in closed form.
    """
    sample, nats, terms = gaussian.lower_bound_terms(
      model, inputs, self.weights.likelihood
    )
    correlation = jnp.mean(
      total_correlation(sample, self.num_examples, model.module.axis_name)
    )
    loss = nats + terms['divergence']
    loss += (self.weights.lambda_tcvae - 1.0) * correlation
    return loss, {'loss': loss, **terms, 'total_correlation': correlation}
