"""The steps that train a judge, of classes or of attributes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes

# Called after every epoch with the epoch, from 1, the number of epochs, and the
# means of the epoch by name, such as 'loss'.
Report = Callable[[int, int, dict[str, float]], None]

_LEARNING_RATE = 1e-3


class TrainState(NamedTuple):
  """State of a training; of an ensemble the arrays are stacked."""

  step: jax.Array  # [] int32
  params: codes.Params
  batch_stats: chex.ArrayTree
  opt_state: optax.OptState


def make_optimizer(num_steps: int) -> optax.GradientTransformation:
  """Makes the optimizer of a judge: Adam with a cosine schedule."""
  return optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))


def take_steps(
  objective: Callable[..., Any],
  optimizer: optax.GradientTransformation,
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  indices: jax.Array,
) -> tuple[TrainState, jax.Array]:
  """Takes a step per row of `[steps, B]` indices into `[M, ...]` arrays.

  `objective` is `(params, batch_stats, step, images, labels) -> (loss,
  batch_stats)` on a batch. Returns the state, and the losses `[steps]`.
  """

  def step(state, rows):
    (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(
      state.params,
      state.batch_stats,
      state.step,
      jnp.take(images, rows, axis=0),
      jnp.take(labels, rows, axis=0),
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), loss

  return jax.lax.scan(step, state, indices)
