"""Optimizers with weight decay as L2 in the gradient, and ramps of weights."""

from collections.abc import Callable

import jax
import optax

from jacsup_jax.core import config


def make_optimizer(
  optimization: config.Optimization, num_steps: int | None = None
) -> optax.GradientTransformation:
  """Makes Adam, or Muon, with weight decay as L2 in the gradient.

  Adam is PyTorch's `Adam(weight_decay=...)`, which the paper used; not AdamW.
  Muon (Jordan et al., 2024) makes the update of every matrix orthogonal; all
  other parameters are left to Adam with Nesterov momentum, at a tenth of the
  learning rate. A cosine schedule falls to 0 over `num_steps`.
  """
  is_cosine = optimization.learning_rate_schedule == 'cosine'

  def rate(peak):
    if not is_cosine:
      return peak
    return optax.cosine_decay_schedule(peak, num_steps)

  learning_rate, b1 = optimization.learning_rate, optimization.adam_b1
  decay = optax.add_decayed_weights(optimization.weight_decay)
  if optimization.optimizer == 'muon':
    # At Muon's usual 2e-2 for matrices, Adam moves biases at twice its usual
    # 1e-3.
    muon = optax.contrib.muon(
      rate(learning_rate),
      adam_b1=b1,
      adam_learning_rate=rate(learning_rate / 10),
    )
    return optax.chain(decay, muon)
  adam = optax.scale_by_adam(b1=b1)
  if not is_cosine:
    return optax.chain(decay, adam, optax.scale(-learning_rate))
  return optax.chain(
    decay, adam, optax.scale_by_learning_rate(rate(learning_rate))
  )


def make_ramp(
  ramp: config.Ramp, num_steps: int
) -> Callable[[jax.Array], jax.Array] | None:
  """Makes the factor of a student's weights at each step of its stage.

  It rises from `ramp_start` to 1 at `num_steps`; None if it is 1 at all steps.
  """
  if ramp.ramp == 'constant':
    return None
  if ramp.ramp == 'linear':
    return optax.linear_schedule(ramp.ramp_start, 1.0, num_steps)
  decay = optax.cosine_decay_schedule(1.0 - ramp.ramp_start, num_steps)
  return lambda step: 1.0 - decay(step)
