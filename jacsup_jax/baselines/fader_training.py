"""Training of Fader Networks, a baseline for faces; see `fader_networks`.

Every step has two updates: the discriminator learns to tell the labels from the
code, then the autoencoder learns to reconstruct, and to have the opposite
labels told from its code. Every part has an optimizer state of its own.
"""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

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
from jacsup_jax.runs import stages
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import attributes
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import numerics
from jacsup_jax.training import steps


class StepInputs(NamedTuple):
  images: jax.Array  # [B, S, S, 3] in [-1, 1]
  attributes: jax.Array  # [B, K] in {-1, +1}
  uniform: jax.Array  # [B, hidden], see `LatentDiscriminator`


class FaderEditing(attributes.Editing):
  """The recipe of Fader Networks: the data's way is that of `Editing`."""

  def bind_train_steps(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> tuple[attributes.TrainStepsFn, None]:
    """See `Editing`; there is no teacher."""
    del trained
    bound = functools.partial(
        train_steps,
        model=model.clone(axis_name=devices.axis_name(self.settings.mode)),
        weights=stage.weights,
        optimizer=self.optimizer,
        seed=self.settings.seed,
        batch_size=self.settings.batch_size,
    )
    return bound, None


  def bind_examine_step(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> Callable[..., dict[str, jax.Array]]:
    """See `Editing`."""
    del trained
    return functools.partial(
        examine_step,
        model=model,
        weights=stage.weights,
        seed=self.settings.seed,
        batch_size=self.settings.batch_size,
    )


def discriminator_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    nuisance: jax.Array,
    inputs: StepInputs,
    *,
    model: nn.Module,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes how badly the labels are told from codes.

  Eq. (2) of Lample et al. (2017).

  Args:
    params: of the model.
    batch_stats: its running statistics.
    nuisance: `[B, 2, 2, C]`, of the images; a constant here.
    inputs: `[B, ...]` arrays of one batch.
    model: a `FaderAutoencoder`.

  Returns:
    Scalar loss, and `discriminator` (the loss) and `discriminator_accuracy`
    (share of right signs) with the batch statistics, of which those of the
    discriminator are new.
  """
  logits, updated = autoencoders.apply_in_training(
      model,
      params,
      batch_stats,
      'discriminate',
      jax.lax.stop_gradient(nuisance),
      inputs.uniform,
  )
  loss = jnp.mean(
      losses.attribute_cross_entropy_loss(logits, inputs.attributes)
  )
  right = (logits > 0) == (inputs.attributes > 0)
  metrics = {
      'discriminator': loss,
      'discriminator_accuracy': jnp.mean(right.astype(jnp.float32)),
  }
  return loss, (metrics, updated)


def autoencoder_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    code: codes.Code,
    inputs: StepInputs,
    adversarial_weight: jax.Array,
    *,
    model: nn.Module,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes the error, and how badly the opposite labels are told from codes.

  Eq. (3) of Lample et al. (2017). The discriminator drops nothing here and
  normalises with the statistics of the batch.

  Args:
    params: of the model.
    batch_stats: its running statistics.
    code: of the images, with labels for factors; the encoder learns by the
      gradient with respect to it.
    inputs: `[B, ...]` arrays of one batch.
    adversarial_weight: scalar, of this step.
    model: a `FaderAutoencoder`.

  Returns:
    Scalar loss, and the terms with the batch statistics, of which those of the
    decoder are new.
  """
  reconstructions, updated = autoencoders.apply_in_training(
      model, params, batch_stats, 'decode', code
  )
  logits, _ = autoencoders.apply_in_training(
      model, params, batch_stats, 'discriminate', code.nuisance, None
  )
  terms = {
      'reconstruction': jnp.mean(
          losses.reconstruction_loss(inputs.images, reconstructions)
      ),
      'adversarial': jnp.mean(
          losses.attribute_cross_entropy_loss(logits, -inputs.attributes)
      ),
  }
  loss = terms['reconstruction'] + adversarial_weight * terms['adversarial']
  metrics = {
      'loss': loss, **terms, 'adversarial_weight': adversarial_weight
  }  # pyformat: disable
  return loss, (metrics, updated)


def compute_adversarial_weight(
    step: jax.Array, weights: config.FaderLossWeights
) -> jax.Array:
  """Computes the weight of a step: a ramp from 0, if there is one.

  Args:
    step: scalar, counted from 0.
    weights: with the ramp.

  Returns:
    Scalar, from 0 to `lambda_adversarial`.
  """
  if not weights.ramp_steps:
    return jnp.asarray(weights.lambda_adversarial)
  part = jnp.minimum(step / weights.ramp_steps, 1.0)
  return weights.lambda_adversarial * part


def train_step(
    state: steps.TrainState,
    inputs: StepInputs,
    *,
    model: nn.Module,
    weights: config.FaderLossWeights,
    optimizer: optax.GradientTransformation,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: the discriminator's update, then the autoencoder's.

  Args:
    state: before the step.
    inputs: `[B, ...]` arrays of one batch.
    model: a `FaderAutoencoder`; its `axis_name` is that of the mapped axis that
      the batch is spread over, if any.
    weights: of the adversarial term.
    optimizer: of each part.

  Returns:
    The state after the step, and scalar metrics, each before its update.
  """
  axis_name = model.axis_name
  average = lambda x: x if axis_name is None else jax.lax.pmean(x, axis_name)

  def encode(encoder):
    return autoencoders.apply_in_training(
        model,
        {**state.params, 'encoder': encoder},
        state.batch_stats,
        'encode',
        inputs.images,
        inputs.attributes,
    )

  # Once for both updates: the first leaves the encoder as it is.
  code, pull_back, batch_stats = jax.vjp(
      encode, state.params['encoder'], has_aux=True
  )

  def first(discriminator):
    return discriminator_objective(
        {**state.params, 'discriminator': discriminator},
        batch_stats,
        code.nuisance,
        inputs,
        model=model,
    )

  grads, (told, batch_stats) = jax.grad(first, has_aux=True)(
      state.params['discriminator']
  )
  state = attribute_steps.apply_gradients(
      state, {'discriminator': average(grads)}, optimizer
  )
  weight = compute_adversarial_weight(state.step, weights)

  def second(decoder, code):
    return autoencoder_objective(
        {**state.params, 'decoder': decoder},
        batch_stats,
        code,
        inputs,
        weight,
        model=model,
    )

  (decoder_grads, code_grads), (metrics, batch_stats) = jax.grad(
      second, argnums=(0, 1), has_aux=True
  )(state.params['decoder'], code)
  (encoder_grads,) = pull_back(code_grads)
  grads = {'encoder': encoder_grads, 'decoder': decoder_grads}
  state = attribute_steps.apply_gradients(state, average(grads), optimizer)
  state = state._replace(step=state.step + 1, batch_stats=batch_stats)
  return state, average({**metrics, **told})


def train_steps(
    state: steps.TrainState,
    unused_teacher: None,
    rows: chex.ArrayTree,
    bounds: jax.Array | None = None,
    *,
    read: Callable[[chex.ArrayTree], attribute_steps.FaceData],
    model: nn.Module,
    weights: config.FaderLossWeights,
    optimizer: optax.GradientTransformation,
    seed: int,
    batch_size: int,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes a step per row, as one loop.

  Args:
    state: before the first step.
    unused_teacher: None, as of `attribute_steps.train_steps`.
    rows: `[steps, ...]` arrays, which say what the batches are.
    bounds: `[2]`, of the rows to take; None takes all. See `epochs`.
    read: row -> the examples of a batch that are this device's.
    model: see `train_step`.
    weights: see `train_step`.
    optimizer: see `train_step`.
    seed: of mirroring and dropout.
    batch_size: B, of all devices together.
    shard: keeps of `[B, ...]` arrays what is this device's, or lays them out.

  Returns:
    The state after the last step, and the metrics of each step, `[steps]`.
  """

  def step(state, row):
    inputs = _make_inputs(state, read(row), model, seed, batch_size, shard)
    return train_step(
        state, inputs, model=model, weights=weights, optimizer=optimizer
    )

  return loop.loop_steps(step, state, rows, bounds)


def examine_step(
    state: steps.TrainState,
    data: attribute_steps.FaceData,
    unused_teacher: None,
    *,
    model: nn.Module,
    weights: config.FaderLossWeights,
    seed: int,
    batch_size: int,
) -> dict[str, jax.Array]:
  """Tells what is finite of the step that `train_steps` would take next.

  Args:
    state: before the step.
    data: `[B, ...]` arrays of its batch.
    unused_teacher: None, as of `attribute_steps.examine_step`.
    model: see `train_steps`, as for all that follow.
    weights: see `train_steps`.
    seed: see `train_steps`.
    batch_size: see `train_steps`.

  Returns:
    Scalar bools, see `numerics.examine`. Both updates are those of the
    parameters before the step.
  """
  inputs = _make_inputs(state, data, model, seed, batch_size, lambda x: x)
  weight = compute_adversarial_weight(state.step, weights)

  def encode(params):
    return autoencoders.apply_in_training(
        model,
        params,
        state.batch_stats,
        'encode',
        inputs.images,
        inputs.attributes,
    )

  def first(params):
    code, batch_stats = encode(params)
    return discriminator_objective(
        params, batch_stats, code.nuisance, inputs, model=model
    )

  def second(params):
    code, batch_stats = encode(params)
    return autoencoder_objective(
        params, batch_stats, code, inputs, weight, model=model
    )

  return numerics.examine(
      state.params,
      {
          'the statistics of BatchNorm': state.batch_stats,
          'the images': inputs.images,
          'the attributes': inputs.attributes,
      },
      [first, second],
  )


def _make_inputs(state, data, model, seed, batch_size, shard):
  """Makes what a step is given of a batch."""
  mirrored = shard(batches.step_mirror(seed, state.step, batch_size))
  uniform = shard(
      batches.step_dropout(
          seed, state.step, batch_size, model.discriminator_hidden
      )
  )
  images = batches.mirror(batches.to_signed_float(data.images), mirrored)
  return StepInputs(images, data.attributes.astype(jnp.float32), uniform)
