"""Strengths of a student's terms over the steps of its stage."""

from collections.abc import Callable

import jax
import optax

from jacsup_jax.core import config

# step, counted from the first teacher on -> what all weights are multiplied by.
Schedule = Callable[[jax.Array], jax.Array]


def make_schedule(
    ramp: config.Ramp, *, first_step: int, steps_per_epoch: int, epochs: int
) -> Schedule | None:
  """Makes the schedule of a stage.

  Args:
    ramp: its form.
    first_step: of the stage, counted from the first teacher on.
    steps_per_epoch: of the data.
    epochs: of the stage, over which it rises if the ramp does not say.

  Returns:
    `step -> factor`, from `ramp.start` to 1; None if it is 1 at all steps.
  """
  if ramp.shape == 'constant':
    return None
  steps = (ramp.epochs or epochs) * steps_per_epoch
  if ramp.shape == 'linear':
    rise = optax.linear_schedule(ramp.start, 1.0, steps)
  else:
    decay = optax.cosine_decay_schedule(1.0 - ramp.start, steps)
    rise = lambda step: 1.0 - decay(step)
  return lambda step: rise(step - first_step)
