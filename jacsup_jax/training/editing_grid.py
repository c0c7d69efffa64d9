"""Seeds of Section 4 of Lezama (2019) at once, as one `vmap`.

As `grid` for faces: the states of N members, which differ in their seeds alone,
are stacked on a first axis. Each reads its own batches of the one training set
that the devices hold, and ends in the parameters of its solo run up to
rounding.
"""

from collections.abc import Mapping, Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.data import faces
from jacsup_jax.runs import stages
from jacsup_jax.training import attributes
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import replicas
from jacsup_jax.training import steps


class EditingGrid(attributes.Editing):
  """The recipe of `attributes.Editing` for several seeds at once."""

  def __init__(
      self,
      settings: attributes.Settings,
      make_model: attributes.MakeModel,
      dataset: faces.FaceDataset,
      seeds: Sequence[int],
  ):
    """Makes the recipe.

    Args:
      settings: that all members share; its seed is not used. The training set
        is held by the devices.
      make_model: of the size of a nuisance; all with the same factors.
      dataset: the training set.
      seeds: of the members, in their order; no two the same.

    Raises:
      InputError: if a batch is larger than the training set.
      ValueError: if the training set would be fed.
    """
    if not settings.on_device:
      raise ValueError('a stack reads data that its devices hold.')
    super().__init__(settings, make_model, dataset)
    self._seeds = tuple(seeds)

  def create(
      self, stage: config.Stage, trained: Mapping[str, stages.Trained]
  ) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's model and its stacked state before the first step."""
    states, model = [], None
    for i, seed in enumerate(self._seeds):
      own = {}
      if stage.parent is not None:
        own[stage.parent] = replicas.take_member(trained[stage.parent], i)
      model, state = self._create(stage, own, seed)
      states.append(state)
    return model, replicas.stack_states(states)

  def make_epoch(
      self,
      stage: config.Stage,
      model: nn.Module,
      trained: Mapping[str, stages.Trained],
  ) -> loop.Epoch:
    """Makes the compiled epoch of a stage of all members."""
    train_steps, teachers = self.bind_train_steps(stage, model, trained)
    seeds = np.array(self._seeds, np.int32)

    def epoch_fn(state, constants, indices, bounds, shard):
      data, teachers, seeds = constants

      def train_member(state, teacher, indices, seed):
        read = lambda row: jax.tree.map(
            lambda x: jnp.take(x, shard(row), axis=0), data
        )
        return train_steps(
            state,
            teacher,
            indices,
            bounds,
            read=read,
            shard=shard,
            seed=seed,
        )

      return replicas.map_members(
          train_member,
          len(self._seeds),
          in_axes=(replicas.BY_MEMBER, 0, 0, 0),
          # Metrics are `[steps, N]`.
          out_axes=(replicas.BY_MEMBER, 1),
      )(state, teachers, indices, seeds)

    constants = devices.replicate((self._resident, teachers, seeds))
    compiled = devices.compile_epoch(
        self.settings.mode, self.batch_size, epoch_fn
    )

    def chunks(epoch, unused_first):
      indices = np.stack([
          np.asarray(self._epoch_indices(epoch, seed)) for seed in self._seeds
      ])
      yield loop.Chunk(
          0,
          self.steps_per_epoch,
          lambda state, bounds: compiled(state, constants, indices, bounds),
      )

    return loop.Epoch(self.steps_per_epoch, chunks)
