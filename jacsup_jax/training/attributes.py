"""Section 4 of Lezama (2019): a model that edits facial attributes.

A teacher is trained in two phases, the second with cycle losses; students grow
from it by channels of their nuisance and keep its factors, which are the
attributes. What a stage minimises is said by its weights alone.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import growth
from jacsup_jax.data import batches
from jacsup_jax.data import faces
from jacsup_jax.data import feeding
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import numerics
from jacsup_jax.training import steps

# nuisance_dim -> face autoencoder.
MakeModel = Callable[[int], nn.Module]
# (state, teacher, rows, *, read, shard) -> (state, metrics).
TrainStepsFn = Callable[..., tuple[steps.TrainState, codes.Metrics]]

# Of images that are sent to the devices at a time where they are fed.
_CHUNK_BYTES = 2**27


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all stages of a run share.

  Attributes:
    seed: of initialisation, data order, mirroring and swaps.
    batch_size: of all devices together.
    learning_rate: of Adam.
    adam_b1: of Adam.
    weight_decay: as L2 in the gradient.
    mode: how devices are used, see `parallel`.
    growth: initialisation of new channels, see `growth.grow`.
    keep_moments: optimizer state goes on through a growth; else it starts at
      zero. Without a growth, between the phases of a teacher, it always goes
      on.
    on_device: the training set is held by every device; else it is fed.
  """

  seed: int = 0
  batch_size: int = 128
  learning_rate: float = 2e-3
  adam_b1: float = 0.5
  weight_decay: float = 0.0
  mode: devices.Mode = 'jit'
  growth: str = 'random'
  keep_moments: bool = True
  on_device: bool = True


class Editing:
  """The recipe of a chain of face autoencoders.

  Attributes:
    settings: that all stages share.
    optimizer: of each part of a model.
    batch_size: of all devices together.
    steps_per_epoch: the same in all stages.
  """

  def __init__(
      self,
      settings: Settings,
      make_model: MakeModel,
      dataset: faces.FaceDataset,
  ):
    """Makes the recipe.

    Args:
      settings: that all stages share.
      make_model: of the size of a nuisance; all with the same factors.
      dataset: the training set.

    Raises:
      InputError: if a batch is larger than the training set.
    """
    self.settings = settings
    self._make_model = make_model
    self._dataset = dataset
    self.optimizer = steps.make_optimizer(
        settings.learning_rate, settings.weight_decay, settings.adam_b1
    )
    self._resident = None
    if settings.on_device:
      self._resident = attribute_steps.FaceData(
          jnp.asarray(dataset.images), jnp.asarray(dataset.attributes)
      )
    self.batch_size = settings.batch_size
    self.steps_per_epoch = batches.count_steps(
        len(dataset), settings.batch_size
    )

  def create(
      self, stage: config.Stage, trained: Mapping[str, stages.Trained]
  ) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's model and its state before the first step."""
    return self._create(stage, trained, self.settings.seed)

  def _create(self, stage, trained, seed):
    model = self._make_model(stage.nuisance_dim)
    fresh = attribute_steps.create_train_state(
        autoencoders.init_variables(model, seed, model.image_shape),
        self.optimizer,
    )
    parent = trained.get(stage.parent)
    if parent is None:
      return model, fresh
    return model, grow_state(parent, model, fresh, self.settings)

  def make_epoch(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> loop.Epoch:
    """Makes the epoch of a stage, of resident data or chunks that are fed."""
    train_steps, teacher = self.bind_train_steps(stage, model, trained)
    if self._resident is not None:
      epoch_fn = self._make_resident_epoch(train_steps, teacher)
    else:
      epoch_fn = self._make_fed_epoch(train_steps, teacher)
    compiled = numerics.compile_examination(
        self.bind_examine_step(stage, model, trained)
    )

    def examine(state, epoch, step):
      rows = np.asarray(self._epoch_indices(epoch))[step]
      data = attribute_steps.FaceData(*self._dataset.read(rows))
      return compiled(state, data, teacher)

    return dataclasses.replace(epoch_fn, examine=examine)

  def bind_train_steps(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> tuple[TrainStepsFn, codes.Variables | None]:
    """Returns the steps of a stage, and its teacher, which they are given."""
    settings = self.settings
    name = devices.axis_name(settings.mode)
    teacher = teacher_model = None
    if stage.weights.needs_teacher:
      supervisor = trained[stage.supervisor]
      teacher = supervisor.variables
      teacher_model = supervisor.model.clone(axis_name=name)
    train_steps = functools.partial(
        attribute_steps.train_steps,
        model=model.clone(axis_name=name),
        teacher_model=teacher_model,
        weights=stage.weights,
        optimizer=self.optimizer,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )
    return train_steps, teacher

  def bind_examine_step(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> Callable[..., dict[str, jax.Array]]:
    """Returns what examines a step: `(state, batch, teacher) -> bools`."""
    teacher_model = None
    if stage.weights.needs_teacher:
      teacher_model = trained[stage.supervisor].model
    return functools.partial(
        attribute_steps.examine_step,
        model=model,
        teacher_model=teacher_model,
        weights=stage.weights,
        seed=self.settings.seed,
        batch_size=self.settings.batch_size,
    )

  def _make_resident_epoch(self, train_steps, teacher):
    def epoch_fn(state, constants, indices, bounds, shard):
      data, teacher = constants
      read = lambda row: jax.tree.map(
          lambda x: jnp.take(x, shard(row), axis=0), data
      )
      return train_steps(
          state, teacher, indices, bounds, read=read, shard=shard
      )

    compiled = devices.compile_epoch(
        self.settings.mode, self.batch_size, epoch_fn
    )
    constants = devices.replicate((self._resident, teacher))

    def chunks(epoch, unused_first):
      indices = self._epoch_indices(epoch)
      yield loop.Chunk(
          0,
          self.steps_per_epoch,
          lambda state, bounds: compiled(state, constants, indices, bounds),
      )

    return loop.Epoch(self.steps_per_epoch, chunks)

  def _make_fed_epoch(self, train_steps, teacher):
    def chunk_fn(state, teacher, chunk, bounds, shard):
      read = lambda row: row
      return train_steps(
          state, teacher, chunk, bounds, read=read, shard=shard
      )

    compiled = devices.compile_epoch(
        self.settings.mode, self.batch_size, chunk_fn, fed=True
    )
    teacher = devices.replicate(teacher)

    def chunks(epoch, first):
      for start, data in self._iterate_chunks(epoch, first):
        count = len(data.images)
        # Once, in however many parts it is taken.
        data = compiled.place_rows(data)
        run = lambda state, bounds, data=data: compiled.run(
            state, teacher, data, bounds
        )
        yield loop.Chunk(start, count, run)

    return loop.Epoch(self.steps_per_epoch, chunks, is_fed=True)

  def _epoch_indices(self, epoch, seed=None):
    if seed is None:
      seed = self.settings.seed
    return batches.epoch_indices(
        seed, epoch, len(self._dataset), self.batch_size
    )

  def _iterate_chunks(
      self, epoch: int, first: int
  ) -> Iterator[tuple[int, attribute_steps.FaceData]]:
    """Yields chunks of an epoch, from that on which has a step.

    A chunk is its first step, and `[steps, B of this host, ...]` arrays.
    """
    size = self._dataset.image_size
    batch_bytes = self.batch_size * size * size * 3
    most = max(1, _CHUNK_BYTES // batch_bytes)
    # Chunks as equal as they can be: another length compiles again.
    num_chunks = math.ceil(self.steps_per_epoch / most)
    chunk_steps = math.ceil(self.steps_per_epoch / num_chunks)
    # Whole chunks: the steps of an epoch that goes on are those of the same
    # program as without a stop.
    start = first // chunk_steps * chunk_steps
    process_index, process_count = devices.process()
    for chunk in feeding.iterate_chunks(
        self._dataset,
        np.asarray(self._epoch_indices(epoch))[start:],
        chunk_steps=chunk_steps,
        process_index=process_index,
        process_count=process_count,
    ):
      yield start, attribute_steps.FaceData(*chunk)
      start += chunk_steps


def grow_state(
    parent: stages.Trained,
    model: nn.Module,
    fresh: steps.TrainState,
    settings: Settings,
) -> steps.TrainState:
  """Makes the state that a stage begins with from that of its parent.

  Args:
    parent: that it grows from, or goes on with.
    model: of the stage.
    fresh: state of that model, freshly initialised.
    settings: of the chain.

  Returns:
    State of the parent's step.
  """
  grown = model.nuisance_dim != parent.model.nuisance_dim
  grow = functools.partial(
      growth.grow,
      # Channels of a code are (nuisance, factors): new ones come between.
      position=parent.model.nuisance_channels,
      initialization=settings.growth,
  )
  return steps.TrainState(
      # Goes on, so that no two stages see the data in the same order.
      step=parent.state.step,
      params=grow(parent.state.params, fresh.params),
      batch_stats=grow(parent.state.batch_stats, fresh.batch_stats),
      opt_state=grow(parent.state.opt_state, fresh.opt_state)
      if settings.keep_moments or not grown
      else fresh.opt_state,
  )
