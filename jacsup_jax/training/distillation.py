"""Checkers: frozen networks that look at swapped or edited images.

Those of Section 3 are distilled: they learn a teacher's factors from real
images that are changed at random, without labels (Hinton et al., 2015).
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, Self

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import losses
from jacsup_jax.data import augmentation
from jacsup_jax.data import batches
from jacsup_jax.models import checkers
from jacsup_jax.models import model as models
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

_LEARNING_RATE = 2e-3

# Called after every epoch with the name of a network, the epoch, from 1, the
# number of epochs, and the mean loss.
Report = Callable[[str, int, int, float], None]


@dataclasses.dataclass(frozen=True)
class Distilled:
  """A network that learns a teacher's factors; without `params`, its plan."""

  name: str
  module: nn.Module
  teacher: str  # the stage
  teacher_sha256: str
  seed: int
  epochs: int
  batch_size: int
  # Mean squared error in the last epoch, in squared units of the factors.
  loss: float | None = None
  sha256: str = ''  # of the parameters
  params: codes.Params = dataclasses.field(default_factory=dict)

  @property
  def variables(self) -> codes.Variables:
    """What the module's `apply` takes."""
    return {'params': self.params}

  def describe(self) -> dict[str, Any]:
    """Returns all but the parameters, as JSON values."""
    names = [x.name for x in dataclasses.fields(self) if x.name != 'params']
    found = {name: getattr(self, name) for name in names}
    return found | {'module': models.describe_module(self.module)}

  def distill(
    self,
    images: jax.Array,
    factors: jax.Array,
    report: Report = lambda *_: None,
  ) -> Self:
    """Trains a network to see a teacher's factors, and returns it.

    Squared error, Adam with a learning rate that falls from 2e-3 to 0 by a
    cosine. Images are changed by `draw`; the factors are those of the unchanged
    ones.

    Args:
      images: `[M, H, W, C]` uint8.
      factors: `[M, K]`, the teacher's.
      report: called after every epoch.

    Raises:
      RunError: if the loss is not finite.
    """
    num_steps = self.epochs * batches.count_steps(len(images), self.batch_size)
    init, take_epoch = _make_programs(self.module, num_steps, self.batch_size)
    state = init(self.seed, images[:1])
    for epoch in range(self.epochs):
      state, loss = take_epoch(state, self.seed, epoch, images, factors)
      loss = float(loss)
      if not jnp.isfinite(loss):
        raise errors.RunError(
          f'--checkers={self.name}, epoch {epoch + 1}: the loss is not finite,'
          f' as factors of {self.teacher} may be too large.'
        )
      report(self.name, epoch + 1, self.epochs, loss)
    params = jax.device_get(state[1])
    return dataclasses.replace(
      self, loss=loss, sha256=codes.hash_tree(params), params=params
    )


def plan(
  names: Sequence[str],
  teacher: steps.Trained,
  *,
  epochs: int,
  batch_size: int,
  dtype: str,
) -> list[Distilled]:
  """Returns the networks of a teacher, not trained.

  InputError if its images are not of 4n x 4m pixels.
  """
  height, width, _ = teacher.module.image_shape
  if min(height, width) < 8 or height % 4 or width % 4:
    raise errors.InputError(
      f'--checkers={",".join(names)} with images of {height}x{width};'
      ' accepted: multiples of 4 from 8 on.'
    )
  num_factors, stage = teacher.module.code_dim, teacher.stage
  make = lambda name: checkers.CHECKERS[name](num_factors, jnp.dtype(dtype))
  return [
    Distilled(
      name,
      make(name),
      stage.name,
      teacher.sha256,
      stage.seed,
      epochs,
      batch_size,
    )
    for name in names
  ]


def draw(
  seed: batches.Int,
  step: batches.Int,
  batch_size: int,
  image_shape: tuple[int, int, int],
) -> augmentation.Draws:
  """Draws how images are changed before a network looks at them.

  They are shifted by a fourteenth of their height at most.
  """
  limit = image_shape[0] // 14
  return augmentation.Draws(batches.step_shifts(seed, step, batch_size, limit))


@functools.lru_cache(maxsize=8)
def _make_programs(module, num_steps, batch_size):
  optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, num_steps))

  def init(seed, images):
    variables = module.init(jax.random.key(seed), batches.to_float(images))
    params = variables['params']
    return jnp.zeros((), jnp.int32), params, optimizer.init(params)

  def take_epoch(state, seed, epoch, images, factors):
    indices = batches.epoch_indices(seed, epoch, len(images), batch_size)

    def compute_loss(params, step, rows):
      draws = draw(seed, step, batch_size, images.shape[1:])
      checker = objectives.Checker({'params': params}, draws)
      seen = checker.look(module, batches.to_float(images[rows]))
      return jnp.mean(losses.swap_check_loss(seen, factors[rows]))

    def take_step(state, rows):
      step, params, opt_state = state
      loss, grads = jax.value_and_grad(compute_loss)(params, step, rows)
      updates, opt_state = optimizer.update(grads, opt_state, params)
      params = optax.apply_updates(params, updates)
      return (step + 1, params, opt_state), loss

    state, loss = jax.lax.scan(take_step, state, indices)
    return state, jnp.mean(loss)

  return jax.jit(init), jax.jit(take_epoch, donate_argnums=0)
