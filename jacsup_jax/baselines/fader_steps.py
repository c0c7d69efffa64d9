"""The training of Fader Networks: two objectives, one step of two updates.

The discriminator learns to predict the labels from the nuisance, then the
autoencoder to reconstruct, and to make it predict the opposite labels.
"""

import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.baselines import fader
from jacsup_jax.core import codes
from jacsup_jax.core import losses
from jacsup_jax.data import batches
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


def discriminator_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  nuisance: jax.Array,
  attributes: jax.Array,
  uniform: jax.Array,
  *,
  module: nn.Module,
) -> objectives.Result:
  """Computes the cross-entropy of the discriminator, eq. (2) of Lample et al.

  The nuisance of the images is a constant here.

  Returns:
    Scalar loss, and `discriminator` (the loss) and `discriminator_accuracy`
    (fraction of correct signs) with the discriminator's new batch statistics.
  """
  logits, batch_stats = models.apply_train(
    module,
    params,
    batch_stats,
    'discriminate',
    jax.lax.stop_gradient(nuisance),
    uniform,
  )
  loss = jnp.mean(losses.attribute_cross_entropy_loss(logits, attributes))
  right = (logits > 0) == (attributes > 0)
  metrics = {
    'discriminator': loss,
    'discriminator_accuracy': jnp.mean(right.astype(jnp.float32)),
  }
  return loss, (metrics, batch_stats)


def autoencoder_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  code: codes.Code,
  inputs: objectives.Inputs,
  weight: jax.Array,
  *,
  module: nn.Module,
) -> objectives.Result:
  """Computes the reconstruction error and the adversarial term.

  Eq. (3) of Lample et al. (2017), with `weight` at this step. The discriminator
  has no dropout here and normalises with the statistics of the batch. The
  encoder's gradient is derived from that with respect to the code.
  """
  apply = functools.partial(models.apply_train, module, params, batch_stats)
  reconstructions, batch_stats = apply('decode', code)
  logits, _ = apply('discriminate', code.nuisance, None)
  terms = {
    'reconstruction': jnp.mean(
      losses.reconstruction_loss(inputs.images, reconstructions)
    ),
    'adversarial': jnp.mean(
      losses.attribute_cross_entropy_loss(logits, -inputs.attributes)
    ),
  }
  loss = terms['reconstruction'] + weight * terms['adversarial']
  metrics = {'loss': loss, **terms, 'adversarial_weight': weight}
  return loss, (metrics, batch_stats)


def compute_adversarial_weight(
  step: jax.Array, weights: fader.FaderLossWeights
) -> jax.Array:
  """Returns the adversarial weight `[]` of a step `[]`, on a ramp from 0."""
  if not weights.adversarial_ramp_steps:
    return jnp.asarray(weights.lambda_adversarial)
  progress = jnp.minimum(step / weights.adversarial_ramp_steps, 1.0)
  return weights.lambda_adversarial * progress


def train_step(
  state: steps.TrainState,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: fader.FaderLossWeights,
  optimizer: optax.GradientTransformation,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: the discriminator's update, then the autoencoder's."""
  average = functools.partial(steps.average_over, axis_name=module.axis_name)
  bind = lambda **parts: {**state.params, **parts}

  def encode(encoder):
    return models.apply_train(
      module,
      bind(encoder=encoder),
      state.batch_stats,
      'encode',
      inputs.images,
      inputs.attributes,
    )

  # Once for both updates: the first leaves the encoder unchanged.
  code, pull_back, batch_stats = jax.vjp(
    encode, state.params['encoder'], has_aux=True
  )
  grads, (predicted, batch_stats) = jax.grad(
    lambda discriminator: discriminator_objective(
      bind(discriminator=discriminator),
      batch_stats,
      code.nuisance,
      inputs.attributes,
      inputs.uniform,
      module=module,
    ),
    has_aux=True,
  )(state.params['discriminator'])
  state = steps.apply_gradients(
    state, {'discriminator': average(grads)}, optimizer
  )
  weight = compute_adversarial_weight(state.step, weights)
  (decoder_grads, code_grads), (metrics, batch_stats) = jax.grad(
    lambda decoder, code: autoencoder_objective(
      {**state.params, 'decoder': decoder},
      batch_stats,
      code,
      inputs,
      weight,
      module=module,
    ),
    argnums=(0, 1),
    has_aux=True,
  )(state.params['decoder'], code)
  (encoder_grads,) = pull_back(code_grads)
  grads = {'encoder': encoder_grads, 'decoder': decoder_grads}
  state = steps.apply_gradients(state, average(grads), optimizer)
  state = state._replace(step=state.step + 1, batch_stats=batch_stats)
  return state, average({**metrics, **predicted})


class FaderSteps(attribute_steps.FaceSteps):
  """The steps of the baseline, of the same data as those of Section 4."""

  network = fader.FaderAutoencoder
  learning_rate, adam_b1 = 2e-4, 0.5
  train_step = staticmethod(train_step)

  def draw(self, step, inputs, constants, shard):
    """Adds the numbers that decide the dropout instead of swaps."""
    uniform = batches.step_dropout(
      constants.seed, step, self.batch_size, self.module.discriminator_hidden
    )
    return inputs._replace(uniform=shard(uniform))
