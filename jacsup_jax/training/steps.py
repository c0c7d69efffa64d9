"""The state of training, one step, a trained model, and recipes."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import growth
from jacsup_jax.models import model as models
from jacsup_jax.training import loop

# (params, batch_stats, inputs) -> (loss, (metrics, batch_stats)).
Objective = Callable[
  [codes.Params, chex.ArrayTree, Any],
  tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]],
]


class TrainState(NamedTuple):
  """What a step changes."""

  step: jax.Array  # [] int32, counted from the first teacher on
  params: codes.Params
  batch_stats: chex.ArrayTree
  opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model at the end of its stage, with the first teacher's factors.

  The state, of the last step, is on the host; see `core.codes.hash_tree`.
  """

  stage: config.Stage
  module: nn.Module
  state: TrainState
  sha256: str = ''

  @property
  def model(self) -> models.Model:
    """The model, bound."""
    return models.Model(self.module, self.state.params, self.state.batch_stats)

  @property
  def variables(self) -> codes.Variables:
    """What the module's `apply` takes."""
    return self.model.variables


class Recipe(Protocol):
  """How stages begin, given those trained by name, and their epochs."""

  batch_size: int  # Over all devices.
  steps_per_epoch: int

  def create(
    self, stage: config.Stage, trained: Mapping[str, Trained]
  ) -> tuple[nn.Module, TrainState]:
    """Returns a stage's module and its state before the first step."""

  def make_epoch(
    self, stage: config.Stage, module: nn.Module, trained: Mapping[str, Trained]
  ) -> loop.Epoch:
    """Makes the epoch of a stage; epochs count from the first teacher on."""


def create_train_state(
  variables: codes.Variables, optimizer: optax.GradientTransformation
) -> TrainState:
  """Creates the state of step 0 from initialised variables."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(variables['params']),
  )


def grow_state(
  state: TrainState, fresh: TrainState, *, keep_moments: bool, **options: Any
) -> TrainState:
  """Grows a state to the shapes of a fresh one, see `growth.grow`.

  Its step stays: no two stages see the data in the same order.
  """
  grow = functools.partial(growth.grow, **options)
  opt_state = fresh.opt_state
  if keep_moments:
    opt_state = grow(state.opt_state, opt_state)
  params = grow(state.params, fresh.params)
  batch_stats = grow(state.batch_stats, fresh.batch_stats)
  return TrainState(state.step, params, batch_stats, opt_state)


def average_over(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
  """Averages over a mapped axis, if there is one."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def train_step(
  state: TrainState,
  inputs: Any,
  *,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  axis_name: str | None = None,
) -> tuple[TrainState, codes.Metrics]:
  """Takes one optimizer step; metrics are scalars, from before it."""
  grads, (metrics, batch_stats) = jax.grad(objective, has_aux=True)(
    state.params, state.batch_stats, inputs
  )
  grads, metrics = average_over((grads, metrics), axis_name)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  state = TrainState(state.step + 1, params, batch_stats, opt_state)
  return state, metrics


def apply_gradients(
  state: TrainState,
  grads: Mapping[str, codes.Params],
  optimizer: optax.GradientTransformation,
  scale: float | jax.Array = 1.0,
) -> TrainState:
  """Updates the parts of the parameters for which gradients are given.

  All others are frozen, moments and weight decay included: neither their
  parameters nor their optimizer state change by a bit. `opt_state` is a dict by
  part. `scale` is a factor of the learning rate, apart from the optimizer's
  state, which phases and growths keep.
  """
  params, opt_state = dict(state.params), dict(state.opt_state)
  for part, part_grads in grads.items():
    updates, opt_state[part] = optimizer.update(
      part_grads, opt_state[part], params[part]
    )
    updates = jax.tree.map(lambda x: scale * x, updates)
    params[part] = optax.apply_updates(params[part], updates)
  return state._replace(params=params, opt_state=opt_state)


def make_optimizer(
  optimization: config.Optimization, num_steps: int | None = None
) -> optax.GradientTransformation:
  """Makes Adam, or Muon, with weight decay as L2 in the gradient.

  Adam is PyTorch's `Adam(weight_decay=...)`, which the paper used; not AdamW.
  Muon (Jordan et al., 2024) makes the update of every matrix orthogonal; all
  other parameters are left to Adam with Nesterov momentum, at a tenth of the
  learning rate. A cosine schedule falls to 0 over `num_steps`.
  """
  peak, b1 = optimization.learning_rate, optimization.adam_b1
  decay = optax.add_decayed_weights(optimization.weight_decay)
  if optimization.optimizer == 'muon':
    tenth = dataclasses.replace(optimization, learning_rate=peak / 10)
    # At Muon's usual 2e-2, Adam moves biases at twice its usual 1e-3.
    muon = optax.contrib.muon(
      make_rate(optimization, num_steps),
      adam_b1=b1,
      adam_learning_rate=make_rate(tenth, num_steps),
    )
    return optax.chain(decay, muon)
  scale = optax.scale_by_learning_rate(make_rate(optimization, num_steps))
  return optax.chain(decay, optax.scale_by_adam(b1=b1), scale)


def make_rate(
  optimization: config.Optimization, num_steps: int | None
) -> float | optax.Schedule:
  """Makes the learning rate: constant, or falling over `num_steps` to 0."""
  peak = optimization.learning_rate
  if optimization.learning_rate_schedule == 'constant':
    return peak
  return optax.cosine_decay_schedule(peak, num_steps)


def make_ramp(
  ramp: config.Ramp, num_steps: int
) -> Callable[[jax.Array], jax.Array] | None:
  """Makes the factor of a student's weights at each step of its stage.

  It rises from `ramp_start` to 1 at `num_steps`; None if it is always 1.
  """
  if ramp.ramp == 'constant':
    return None
  if ramp.ramp == 'linear':
    return optax.linear_schedule(ramp.ramp_start, 1.0, num_steps)
  decay = optax.cosine_decay_schedule(1.0 - ramp.ramp_start, num_steps)
  return lambda step: 1.0 - decay(step)
