"""Wasserstein GANs that edit attributes: what such baselines share.

Arjovsky et al.: Wasserstein GAN. ICML 2017. Gulrajani et al.: Improved Training
of Wasserstein GANs. NIPS 2017. A discriminator scores images and predicts their
attributes; the autoencoder gives images the attributes of others of the batch.
"""

from collections.abc import Callable
import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import losses
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

# Updates of the discriminator for one of the autoencoder.
PERIOD = 5


class WassersteinAutoencoder(autoencoders.FaceMethods):
  """An autoencoder with a discriminator, which sees images alone."""

  def discriminate(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the scores and logits `[B, K]` of images."""
    return self.discriminator(images)

  def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
    """Applies all parts, with neither sign of any attribute."""
    code = self.encode(images, jnp.zeros((images.shape[0], self.num_factors)))
    return self.decode(code), *self.discriminate(images)


def gradient_penalty(
  score: Callable[[jax.Array], jax.Array],
  images: jax.Array,
  edited: jax.Array,
  uniform: jax.Array,
) -> jax.Array:
  """Computes (||grad score(x)|| - 1)^2 between images and edits.

  Eq. (3) of Gulrajani et al. (2017), without its weight.

  Args:
    score: `[B, H, W, C]` -> `[B, ...]`, of each image on its own; several
      scores of an image are summed.
    images: `[B, H, W, C]`.
    edited: `[B, H, W, C]`.
    uniform: `[B, 1]` in [0, 1), the share of the image in x.

  Returns:
    `[B]`.
  """
  chex.assert_equal_shape([images, edited])
  chex.assert_shape(uniform, (images.shape[0], 1))
  share = uniform[:, :, jnp.newaxis, jnp.newaxis]
  points = share * images + (1 - share) * edited
  slopes = jax.grad(lambda x: jnp.sum(score(x)))(points)
  # A norm whose gradient at 0 is 0.
  norms = optax.safe_norm(slopes.reshape(slopes.shape[0], -1), 0.0, axis=1)
  return jnp.square(norms - 1)


def edit(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: objectives.Inputs,
  module: nn.Module,
) -> tuple[codes.Code, codes.Code, jax.Array, chex.ArrayTree]:
  """Gives images their partners' attributes, in training mode.

  Returns:
    The codes of the images and of the edits, with factors `[B, K]`, the edited
    images `[B, H, W, C]`, and the statistics after encoding: those of edits are
    dropped.
  """
  apply = functools.partial(models.apply_train, module, params)
  code, batch_stats = apply(
    batch_stats, 'encode', inputs.images, inputs.attributes
  )
  # The factors are the labels.
  swapped = codes.swap_factors(code, inputs.permutations[0], module.axis_name)
  edited, _ = apply(batch_stats, 'decode', swapped)
  return code, swapped, edited, batch_stats


def discriminator_terms(
  params: codes.Params,
  inputs: objectives.Inputs,
  edited: jax.Array,
  *,
  module: nn.Module,
) -> codes.Metrics:
  """Computes the terms of a discriminator; the edited images are constants.

  Returns:
    Scalars: `edit_score`, how much higher it scores edits than images;
    `gradient_penalty`; `classification`, the cross-entropy of the labels of
    images, summed over attributes.
  """
  edited = jax.lax.stop_gradient(edited)
  discriminate = functools.partial(
    module.apply, {'params': params}, method='discriminate'
  )
  scores, logits = discriminate(inputs.images)
  penalty = gradient_penalty(
    lambda x: discriminate(x)[0], inputs.images, edited, inputs.uniform
  )
  classification = losses.attribute_cross_entropy_loss(
    logits, inputs.attributes
  )
  return {
    'edit_score': jnp.mean(discriminate(edited)[0]) - jnp.mean(scores),
    'gradient_penalty': jnp.mean(penalty),
    'classification': jnp.mean(classification),
  }


def train_step(
  state: steps.TrainState,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: config.Weights,
  optimizer: optax.GradientTransformation,
  discriminator_objective: Callable,
  autoencoder_objective: Callable,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: the discriminator's update, in turn the autoencoder's.

  That is every fifth step, of the same batch, against the updated
  discriminator. Its metrics are 0 in between and five times as large then, so
  that means over whole periods are those of its turns.
  """
  average = functools.partial(steps.average_over, axis_name=module.axis_name)
  options = {'module': module, 'weights': weights}
  _, _, edited, _ = edit(state.params, state.batch_stats, inputs, module)
  grads, predicted = jax.grad(
    lambda discriminator: discriminator_objective(
      {**state.params, 'discriminator': discriminator},
      inputs,
      edited,
      **options,
    ),
    has_aux=True,
  )(state.params['discriminator'])
  state = steps.apply_gradients(
    state, {'discriminator': average(grads)}, optimizer
  )

  def update(state):
    rest = dict(state.params)
    fixed = {'discriminator': rest.pop('discriminator')}
    grads, (metrics, batch_stats) = jax.grad(
      lambda rest: autoencoder_objective(
        {**rest, **fixed}, state.batch_stats, inputs, **options
      ),
      has_aux=True,
    )(rest)
    state = steps.apply_gradients(state, average(grads), optimizer)
    metrics = jax.tree.map(lambda x: PERIOD * x, metrics)
    return state._replace(batch_stats=batch_stats), metrics

  _, shapes = jax.eval_shape(update, state)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  is_turn = state.step % PERIOD == PERIOD - 1
  wait = lambda state: (state, zeros)
  state, metrics = jax.lax.cond(is_turn, update, wait, state)
  state = state._replace(step=state.step + 1)
  return state, average({**metrics, **predicted})


class WassersteinSteps(attribute_steps.FaceSteps):
  """The steps of a baseline, of the same data as those of Section 4."""

  def draw(self, step, inputs, constants, shard):
    """Adds whose attributes edits get, and the points of the penalty."""
    args = (constants.seed, step, self.batch_size)
    [permutation] = batches.step_permutations(*args, 1)
    uniform = shard(batches.step_dropout(*args, 1))
    permutations = shard(permutation)[jnp.newaxis]
    return inputs._replace(permutations=permutations, uniform=uniform)
