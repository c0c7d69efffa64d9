"""Parts that the chains of Sections 3 and 4 share: flags, seeds, epochs."""

from collections.abc import Sequence
import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.training import devices
from jacsup_jax.training import loop

# Largest size of the images sent to the devices at once when they are fed.
_CHUNK_BYTES = 2**27


@dataclasses.dataclass(frozen=True)
class ChainConfig(config.Options):
  """The flags that all chains of stages share."""

  seed: int = config.option(
    0,
    'Seed of initialization, data order and swaps.',
    low=0,
    high=config.LARGEST_INTEGER,
  )
  seeds: int = config.option(
    1,
    'Number of seeds to train one after the other, starting at --seed; tables'
    ' show means and standard deviations, figures the first seed.',
    low=1,
    high=1000,
  )
  batch_size: int = config.option(
    128, 'Examples per step, over all devices.', low=1
  )
  teacher_workdir: pathlib.Path | None = config.option(
    None,
    'A run whose finished first teacher the students grow from; by default'
    ' this run trains its own. With --distributed all processes read it.',
  )
  compute_dtype: str = config.option(
    'float32',
    'Type in which matrix products are computed; parameters are float32.',
    choices=config.COMPUTE_DTYPES,
    group='devices',
  )
  parallel: str = config.option(
    'jit',
    'How devices share a step: jit over a mesh, or pmap.',
    choices=config.MODES,
    group='devices',
  )

  def spread(self, chain: Sequence[config.Stage]) -> list[config.Stage]:
    """Returns the stages of all seeds, given those of one, seed after seed.

    With several seeds their names end in `_seed0`, `_seed1`, ...
    """
    seeds, stages = range(self.seed, self.seed + self.seeds), []
    for seed in seeds:
      suffix = f'_seed{seed}' if len(seeds) > 1 else ''
      rename = lambda name, suffix=suffix: name and f'{name}{suffix}'
      for stage in chain:
        names = (rename(n) for n in (stage.name, stage.parent, stage.teacher))
        names = dict(zip(('name', 'parent', 'teacher'), names))
        stages.append(dataclasses.replace(stage, seed=seed, **names))
    return stages


_list_batches = jax.jit(batches.epoch_indices, static_argnums=(2, 3))


def make_epoch(
  compiled: devices.CompiledSteps,
  constants: Any,
  seed: int,
  num_examples: int,
  batch_shape: tuple[int, ...],
  fed: registry.Dataset | None = None,
) -> loop.Epoch:
  """Makes the epochs of a stage, in an order that its seed decides.

  Batches have the shape (B, H, W, C), over all devices. Rows are `[steps, B]`
  indices into data on all devices; or `[steps, B, ...]` images and attributes
  of a data set, read while training by each process for its devices.
  """
  num_steps = batches.count_steps(num_examples, batch_shape[0])
  list_batches = lambda epoch: _list_batches(
    seed, epoch, num_examples, batch_shape[0]
  )

  def resident_chunks(epoch, unused_first):
    rows = compiled.place_rows(list_batches(epoch))
    yield loop.Chunk(0, num_steps, rows)

  # Chunks as equal as possible: every other length compiles again.
  most = max(1, _CHUNK_BYTES // math.prod(batch_shape))
  chunk_steps = math.ceil(num_steps / math.ceil(num_steps / most))

  def fed_chunks(epoch, first):
    # Whole chunks, so that resumed steps are those of the same program.
    start = first // chunk_steps * chunk_steps
    indices = np.asarray(list_batches(epoch))[start:]
    chunks = batches.iterate_chunks(
      fed, indices, chunk_steps=chunk_steps, **devices.process()
    )
    for rows in chunks:
      length = len(rows[0])
      # Placed once, in however many parts it is taken.
      yield loop.Chunk(start, length, compiled.place_rows(rows))
      start += length

  return loop.Epoch(
    num_steps,
    compiled.run,
    constants,
    resident_chunks if fed is None else fed_chunks,
    loop.count_part_steps(batch_shape),
    is_fed=fed is not None,
  )
