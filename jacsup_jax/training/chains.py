"""Parts that the chains of Sections 3 and 4 share: flags, seeds, epochs."""

from collections.abc import Callable, Sequence
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.training import devices
from jacsup_jax.training import loop

# Largest size of the images sent to the devices at once when they are fed.
_CHUNK_BYTES = 2**27


@dataclasses.dataclass(frozen=True)
class ChainConfig:
  """The flags that all chains of stages share."""

  seed: int = config.option(
    0,
    'Seed of initialisation, data order and swaps.',
    low=0,
    high=config.LARGEST_INTEGER,
  )
  seeds: int = config.option(
    1,
    'Number of seeds, from --seed on, trained one after the other; tables'
    ' show means and deviations, figures the first.',
    low=1,
    high=1000,
  )
  batch_size: int = config.option(
    128, 'Examples per step, over all devices.', low=1
  )
  teacher_workdir: str | None = config.option(
    None,
    'A run whose finished first teacher the students grow from; by default it'
    ' is trained here. With --distributed all processes read it.',
  )
  compute_dtype: str = config.option(
    'float32',
    'Type that matrix products are computed in; parameters are float32.',
    choices=config.COMPUTE_DTYPES,
    group='devices',
  )
  parallel: str = config.option(
    'jit',
    'How devices share a step: jit over a mesh, or pmap.',
    choices=config.MODES,
    group='devices',
  )

  def __post_init__(self):
    config.check(self)

  def spread(self, chain: Sequence[config.Stage]) -> list[config.Stage]:
    """Returns the stages of all seeds, given those of one, seed after seed.

    With several seeds their names end in `_seed0`, `_seed1`, ...
    """
    seeds, stages = range(self.seed, self.seed + self.seeds), []
    for seed in seeds:
      suffix = f'_seed{seed}' if len(seeds) > 1 else ''
      rename = lambda name, suffix=suffix: name and f'{name}{suffix}'
      for stage in chain:
        names = {
          key: rename(getattr(stage, key))
          for key in ('name', 'parent', 'teacher')
        }
        stages.append(dataclasses.replace(stage, seed=seed, **names))
    return stages


@dataclasses.dataclass(frozen=True)
class Order:
  """The order of the examples of a stage.

  Batches have the shape (B, H, W, C), over all devices.
  """

  seed: int
  num_examples: int
  batch_shape: tuple[int, ...]

  @property
  def steps(self) -> int:
    """Steps of an epoch."""
    return batches.count_steps(self.num_examples, self.batch_shape[0])

  def list_batches(self, epoch: int) -> jax.Array:
    """Returns `[steps, B]` indices of the examples of an epoch."""
    return _list_batches(
      self.seed, epoch, self.num_examples, self.batch_shape[0]
    )


_list_batches = jax.jit(batches.epoch_indices, static_argnums=(2, 3))


def make_resident_epoch(
  compiled: devices.CompiledSteps, constants: Any, order: Order, *others: Order
) -> loop.Epoch:
  """Makes the epochs of data that are on all devices.

  Rows are `[steps, B]` indices into the data; with the orders of further
  replicas `[N, steps, B]`.
  """

  def chunks(epoch, unused_first):
    rows = order.list_batches(epoch)
    if others:
      rows = [rows, *(other.list_batches(epoch) for other in others)]
      rows = jnp.stack(rows)
    rows = compiled.place_rows(rows)
    run = lambda state, bounds: compiled.run(state, constants, rows, bounds)
    yield loop.Chunk(0, order.steps, run)

  part_steps = loop.count_part_steps(order.batch_shape)
  return loop.Epoch(order.steps, chunks, part_steps)


def make_fed_epoch(
  compiled: devices.CompiledSteps,
  constants: Any,
  order: Order,
  dataset: registry.Dataset,
  pack: Callable[..., Any],
) -> loop.Epoch:
  """Makes the epochs of data that are read while training.

  `pack(images, labels)` makes rows of `[steps, B, ...]` arrays.
  """
  # Chunks as equal as possible: every other length compiles again.
  most = max(1, _CHUNK_BYTES // math.prod(order.batch_shape))
  num_chunks = math.ceil(order.steps / most)
  chunk_steps = math.ceil(order.steps / num_chunks)

  def chunks(epoch, first):
    # Whole chunks, so that resumed steps are those of the same program.
    start = first // chunk_steps * chunk_steps
    index, count = devices.process()
    for arrays in batches.iterate_chunks(
      dataset,
      np.asarray(order.list_batches(epoch))[start:],
      chunk_steps=chunk_steps,
      process_index=index,
      process_count=count,
    ):
      data, length = pack(*arrays), len(arrays[0])
      # Placed once, in however many parts it is taken.
      data = compiled.place_rows(data)
      run = lambda state, bounds, data=data: compiled.run(
        state, constants, data, bounds
      )
      yield loop.Chunk(start, length, run)
      start += length

  part_steps = loop.count_part_steps(order.batch_shape)
  return loop.Epoch(order.steps, chunks, part_steps, is_fed=True)
