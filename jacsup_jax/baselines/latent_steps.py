"""The steps that the baselines of Section 3 share: data in, updates out."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import ClassVar, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import latents
from jacsup_jax.models import model as models
from jacsup_jax.training import loop
from jacsup_jax.training import steps


class LatentData(NamedTuple):
  """Constants of a stage, whole on every device."""

  images: jax.Array  # [M, H, W, C] uint8
  labels: jax.Array  # [M] int32
  seed: jax.Array  # [] int32, of all that is drawn


class Inputs(NamedTuple):
  """One batch, with what is drawn for it; each method uses what it needs."""

  images: jax.Array  # [B, H, W, C] in [0, 1]
  labels: jax.Array  # [B] int32
  step: jax.Array  # [], of the stage
  noise: jax.Array | None = None  # [B, U], standard normal
  others: jax.Array | None = None  # [B, H, W, C], a second batch
  other_noise: jax.Array | None = None  # [B, U]
  permutations: jax.Array | None = None  # [n, B], partners
  mask: jax.Array | None = None  # [B, n] bool


# (model, inputs) -> (loss, metrics).
Objective = Callable[[models.Model, Inputs], tuple[jax.Array, codes.Metrics]]


@dataclasses.dataclass(frozen=True)
class LatentSteps:
  """The steps of a stage of data that are on the devices.

  Hashable: equal stages share one compiled program, whatever their seeds.
  `module.axis_name` is the axis that a batch is spread over, if any. A method
  gives `network` and `objective`, and `draw` or `train_step` where it needs its
  own.
  """

  network: ClassVar[type[latents.RivalAutoencoder]]
  # Fields of the network that weights decide: field -> weight.
  network_options: ClassVar[Mapping[str, str]] = {}

  module: nn.Module
  weights: config.Weights
  optimization: config.Optimization
  batch_size: int  # Over all devices.
  num_steps: int  # Length of the stage.
  num_examples: int  # M.

  def __call__(
    self,
    state: steps.TrainState,
    data: LatentData,
    rows: jax.Array,
    bounds: jax.Array,
    *,
    shard: Callable[[jax.Array], jax.Array] = lambda x: x,
  ) -> tuple[steps.TrainState, codes.Metrics]:
    """Takes a step per row within bounds, see `loop.loop_steps`.

    Rows are `[steps, B]` indices into the data; `shard` keeps this device's
    part of `[B]` arrays, or lays them out.
    """

    def take_step(state, indices):
      inputs = self.read_inputs(state.step, data, indices, shard)
      return self.train_step(state, inputs)

    return loop.loop_steps(take_step, state, rows, bounds)

  def read_inputs(self, step, data, indices, shard=lambda x: x) -> Inputs:
    """Reads one batch, and draws what the method needs beside it."""
    rows = shard(indices)
    images = batches.to_float(jnp.take(data.images, rows, axis=0))
    labels = jnp.take(data.labels, rows, axis=0)
    return self.draw(Inputs(images, labels, step), data, shard)

  def draw(self, inputs, data, shard) -> Inputs:
    """Adds noise, partners or a second batch to the inputs; by default none."""
    del data, shard
    return inputs

  def objective(
    self, model: models.Model, inputs: Inputs
  ) -> tuple[jax.Array, codes.Metrics]:
    """Computes the loss of a model and its terms by name."""
    raise NotImplementedError

  def train_step(
    self, state: steps.TrainState, inputs: Inputs
  ) -> tuple[steps.TrainState, codes.Metrics]:
    """Takes one step: an update of all parts; metrics are from before it."""
    model = self.bind(state)
    grads, metrics = differentiate(
      self.objective, model, inputs, list(state.params)
    )
    return self.update(state, grads, metrics)

  def bind(self, state: steps.TrainState) -> models.Model:
    """Returns the model of a state."""
    return models.Model(self.module, state.params, state.batch_stats)

  def update(
    self,
    state: steps.TrainState,
    grads: dict[str, codes.Params],
    metrics: codes.Metrics,
  ) -> tuple[steps.TrainState, codes.Metrics]:
    """Applies the gradients of parts, averaged over all devices."""
    grads, metrics = steps.average_over((grads, metrics), self.module.axis_name)
    for part, own in grads.items():
      optimizer = self.make_optimizer(part)
      state = steps.apply_gradients(state, {part: own}, optimizer)
    return state._replace(step=state.step + 1), metrics

  def make_optimizer(self, part: str) -> optax.GradientTransformation:
    """Makes the optimizer of a top key of the parameters: Adam."""
    del part
    return steps.make_optimizer(self.optimization, self.num_steps)

  def create_train_state(self, variables: codes.Variables) -> steps.TrainState:
    """Creates the state of step 0, its `opt_state` a dict by part."""
    params, stats = variables['params'], variables['batch_stats']
    opt_state = {
      part: self.make_optimizer(part).init(own) for part, own in params.items()
    }
    return steps.TrainState(jnp.zeros((), jnp.int32), params, stats, opt_state)


def differentiate(
  objective: Objective,
  model: models.Model,
  inputs: Inputs,
  parts: Sequence[str],
) -> tuple[dict[str, codes.Params], codes.Metrics]:
  """Computes gradients with respect to some parts of the parameters."""

  def of_parts(own):
    bound = dataclasses.replace(model, params={**model.params, **own})
    return objective(bound, inputs)

  own = {part: model.params[part] for part in parts}
  return jax.grad(of_parts, has_aux=True)(own)


def apply(model: models.Model, method: str, *args: jax.Array):
  """Calls a method of a model's module."""
  return model.module.apply(model.variables, *args, method=method)


def average(value: jax.Array, axis_name: str | None) -> jax.Array:
  """Averages `[B]` over the batch of all devices."""
  return steps.average_over(jnp.mean(value), axis_name)
