"""Devices: the only module that asks what there are.

The same epoch runs on any number of them in two ways: `jit` over a mesh, where
the compiler spreads the batch, or `pmap`, where each device takes its share and
batch statistics are averaged by name. The batch size is that of all devices.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Literal

import chex
from flax import linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from jacsup_jax import training
from jacsup_jax import types

Mode = Literal['jit', 'pmap']
MODES = ('jit', 'pmap')
_AXIS = 'devices'

# (state, constants, rows, shard=...) -> (state, metrics).
ShardedFn = Callable[..., tuple[training.TrainState, types.Metrics]]
EpochFn = Callable[
    [training.TrainState, training.TrainingData, int],
    tuple[training.TrainState, types.Metrics],
]


def describe_devices() -> list[str]:
  """Returns one line per device, for the manifest."""
  return [f'{d.platform}:{d.id} {d.device_kind}' for d in jax.devices()]


def process() -> tuple[int, int]:
  """Returns this host's index, and how many there are."""
  return jax.process_index(), jax.process_count()


def check_batch_size(batch_size: int) -> None:
  """Raises InputError unless the devices divide the batch."""
  count = jax.device_count()
  if batch_size % count:
    raise types.InputError(
        f'--batch_size={batch_size} is not divisible by the {count} devices;'
        f' accepted: a multiple of {count}.'
    )


def axis_name(mode: Mode) -> str | None:
  """Returns the mapped axis that a model must average its statistics over."""
  return _AXIS if mode == 'pmap' else None


def make_epoch_fn(
    mode: Mode,
    batch_size: int,
    make_objective: Callable[[nn.Module], training.Objective],
    model: nn.Module,
    teacher_model: nn.Module | None = None,
    **epoch_kwargs,
) -> EpochFn:
  """Makes a compiled `train_epoch` on all devices.

  Args:
    mode: 'jit' or 'pmap'.
    batch_size: of all devices together.
    make_objective: of a model whose `axis_name` is that of the mode.
    model: to train.
    teacher_model: see `training.train_epoch`.
    **epoch_kwargs: the other keyword arguments of `training.train_epoch`.

  Returns:
    `(state, data, epoch) -> (state, metrics)`; the state given is donated under
    jit. It compiles once for all epochs.
  """
  name = axis_name(mode)
  epoch_fn = functools.partial(
      training.train_epoch,
      objective=make_objective(model.clone(axis_name=name)),
      teacher_model=teacher_model and teacher_model.clone(axis_name=name),
      batch_size=batch_size,
      axis_name=name,
      **epoch_kwargs,
  )
  return compile_epoch(mode, batch_size, epoch_fn)


def replicate(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Places a tree on all devices, so that no epoch copies it there again."""
  return jax.device_put(tree, NamedSharding(_make_mesh(), PartitionSpec()))


def compile_epoch(
    mode: Mode, batch_size: int, epoch_fn: ShardedFn, *, fed: bool = False
) -> Callable[..., tuple[training.TrainState, types.Metrics]]:
  """Compiles a number of steps for all devices.

  Args:
    mode: 'jit' or 'pmap'.
    batch_size: of all devices together.
    epoch_fn: `(state, constants, rows, shard=...) -> (state, metrics)`, whose
      models have the `axis_name` of the mode. `shard` keeps of `[B, ...]`
      arrays what is a device's, or lays them out.
    fed: `rows` are `[steps, B, ...]` arrays of which a device is given its
      part of each batch; else all of it goes to all devices.

  Returns:
    `(state, constants, rows) -> (state, metrics)`; the state given is donated
    under jit.

  Raises:
    InputError: if the devices do not divide the batch.
  """
  check_batch_size(batch_size)
  mesh = _make_mesh()
  replicated = NamedSharding(mesh, PartitionSpec())
  if mode == 'pmap':
    local_size = batch_size // jax.device_count()
    compiled = _pmap_epoch(epoch_fn, local_size, fed)
    split = functools.partial(_split_rows, local_size=local_size)
    place_rows = lambda rows: jax.tree.map(split, rows) if fed else rows
  else:
    rows_spec = PartitionSpec(None, _AXIS) if fed else PartitionSpec()
    rows_sharding = NamedSharding(mesh, rows_spec)
    compiled = _jit_epoch(epoch_fn, mesh, rows_sharding)
    place = functools.partial(
        jax.make_array_from_process_local_data, rows_sharding
    )
    place_rows = lambda rows: jax.tree.map(place, rows) if fed else rows

  def placed(state, constants, rows):
    # Arrays that are not yet committed to their place compile a second time.
    state, constants = jax.device_put((state, constants), replicated)
    return compiled(state, constants, place_rows(rows))

  return placed


def compile_for(
    devices: Sequence[jax.Device],
    steps_fn: ShardedFn,
    state: chex.ArrayTree,
    constants: chex.ArrayTree,
    data: chex.ArrayTree,
) -> jax.stages.Compiled:
  """Compiles steps for devices that need not be here.

  Args:
    devices: that the batch is spread over, of this machine or of a topology.
    steps_fn: `(state, constants, data, shard=...) -> (state, metrics)`.
    state: shapes of the state.
    constants: shapes of what all devices are given.
    data: shapes of a batch, `[B, ...]`, of all devices.

  Returns:
    The compiled program.
  """
  mesh = Mesh(np.array(devices), (_AXIS,))
  by_example = NamedSharding(mesh, PartitionSpec(_AXIS))
  return _jit_epoch(steps_fn, mesh, by_example).lower(
      state, constants, data
  ).compile()


def _make_mesh():
  return Mesh(np.array(jax.devices()), (_AXIS,))


def _jit_epoch(epoch_fn, mesh, rows_sharding):
  """Compiles an epoch whose batches are spread over a mesh."""
  replicated = NamedSharding(mesh, PartitionSpec())
  by_example = NamedSharding(mesh, PartitionSpec(_AXIS))
  return jax.jit(
      functools.partial(
          epoch_fn,
          shard=lambda x: jax.lax.with_sharding_constraint(x, by_example),
      ),
      in_shardings=(replicated, replicated, rows_sharding),
      out_shardings=replicated,
      donate_argnums=0,
  )


def _pmap_epoch(epoch_fn, local_size, fed):
  """Compiles an epoch of which each device takes `local_size` of a batch."""

  def take_local(x):
    start = jax.lax.axis_index(_AXIS) * local_size
    return jax.lax.dynamic_slice_in_dim(x, start, local_size)

  mapped = jax.pmap(
      lambda unused_device, *args: epoch_fn(*args, shard=take_local),
      axis_name=_AXIS,
      # pmap wants one argument with a mapped axis.
      in_axes=(0, None, None, 1 if fed else None),
      # Averaged gradients and statistics keep the state equal everywhere.
      out_axes=None,
  )
  return functools.partial(mapped, np.arange(jax.local_device_count()))


def _split_rows(x, local_size):
  """`[steps, B, ...]` of this host -> `[steps, devices, B / devices, ...]`."""
  return x.reshape(x.shape[0], -1, local_size, *x.shape[2:])
