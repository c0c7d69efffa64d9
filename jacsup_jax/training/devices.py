"""Devices: the only module that asks what there are.

The same epoch runs on any number of them in two ways: `jit` over a mesh, where
the compiler spreads the batch, or `pmap`, where each device takes its share and
batch statistics are averaged by name. The batch size is that of all devices.

They may belong to several processes, as on several hosts, once `connect` has
joined these. All of them run the same steps on their devices; the first one
alone reads and writes the work directory, and measures.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import os
import time
from typing import Any, Literal, TypeVar

import chex
from flax import linen as nn
import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.training import hosts
from jacsup_jax.training import loop
from jacsup_jax.training import native_log
from jacsup_jax.training import steps

Mode = Literal['jit', 'pmap']
MODES = ('jit', 'pmap')
_AXIS = 'devices'
# Of JAX, after which it aborts the processes that are left. `hosts` knows of
# most ends before.
_HEARTBEAT_SECONDS = 45
# For `hosts` to hear of an end that a step has failed of.
_NEWS_SECONDS = 5
_LONGEST_ADDRESSES = 4096

# The processes of the run, where there are several.
_group: hosts.Group | None = None

_Value = TypeVar('_Value')
# (state, constants, rows, bounds, shard=...) -> (state, metrics).
ShardedFn = Callable[..., tuple[steps.TrainState, codes.Metrics]]


@dataclasses.dataclass(frozen=True)
class CompiledSteps:
  """Steps that are compiled for all devices.

  Attributes:
    place_rows: puts rows where they are read; what is there already stays.
    run: `(state, constants, rows, bounds) -> (state, metrics)`, of such rows.
  """

  place_rows: Callable[[chex.ArrayTree], chex.ArrayTree]
  run: Callable[..., tuple[steps.TrainState, codes.Metrics]]

  def __call__(
      self, state, constants, rows, bounds=loop.make_bounds()
  ) -> tuple[steps.TrainState, codes.Metrics]:
    """Takes all steps of the rows, or those of `bounds`; see `epochs`."""
    return self.run(state, constants, self.place_rows(rows), bounds)


def connect(
    coordinator: str | None,
    process_count: int | None,
    process_id: int | None,
    *,
    terms: Mapping[str, Any],
    seconds: float,
) -> None:
  """Joins this process to the others of its run.

  Before anything uses a device. From then on the end of one process ends all.

  Args:
    coordinator: HOST:PORT of the first process; with None the environment says
      it and what follows, as Slurm, Open MPI and the hosts of a TPU do.
    process_count: how many there are.
    process_id: which of them this is, from 0.
    terms: JSON values by name, which are to be the same on all.
    seconds: to wait for the others at most.

  Raises:
    InputError: if the others are not there or differ, or this one is not
      expected.
  """
  address = coordinator and hosts.parse_address('coordinator', coordinator)
  if process_count == 1:
    return
  native_log.start(
      f'JAX has ended this process ({{}}); {hosts.RESUMES}.',
      'the first process, at the address that the environment gives, did not'
      f' take this one in within --distributed_timeout={seconds:g} s ({{}}).',
  )
  # Where the host's processor is the device. Read when a backend starts.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # It would catch SIGTERM, and the process would go on.
  jax.config.update('jax_enable_preemption_service', False)
  initialize = functools.partial(
      jax.distributed.initialize,
      initialization_timeout=max(1, round(seconds)),
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
  )
  if coordinator is None:
    _connect_by_environment(initialize, terms, seconds)
  else:
    name = f'--coordinator={coordinator}'
    bound = _meet(address, name, process_count, process_id, seconds)
    check_same(terms)
    # On a port of its own: at the other they have met, and others may come.
    port = share(hosts.find_free_port(bound) if is_first() else None)
    initialize(
        hosts.join_address(address[0], port),
        process_count,
        process_id,
        # JAX's own service would listen on all addresses.
        coordinator_bind_address=bound and hosts.join_address(bound, port),
    )
  check_same({'devices of a process': jax.local_device_count()})


def disconnect() -> None:
  """Waits for the others at the end of a run, and parts from them."""
  global _group
  if _group is not None:
    _group.close()
    jax.distributed.shutdown()
    _group = None


def has_others() -> bool:
  """Returns whether the run has other processes."""
  return _group is not None


def is_first() -> bool:
  """Returns whether this process measures, and writes the work directory."""
  return _group is None or _group.is_first


def share(value: Any) -> Any:
  """Returns the first process's value, JSON, on all; the others wait for it."""
  return value if _group is None else _group.share(value)


def check_same(terms: Mapping[str, Any]) -> None:
  """Raises InputError unless all processes have these JSON values, by name."""
  if _group is not None:
    _group.check_same(terms)


def in_turn(function: Callable[[], _Value]) -> _Value:
  """Calls a function in the first process, then in the others.

  Args:
    function: such as one that prepares data where none are.

  Returns:
    What it returned in this process.
  """
  found = function() if is_first() else None
  share(None)
  return found if is_first() else function()


def share_tree(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Returns the first process's arrays on all; of others only the shapes count.

  Args:
    tree: of the same structure, shapes and types everywhere.
  """
  if _group is None:
    return tree
  return multihost_utils.broadcast_one_to_all(tree, is_source=is_first())


def to_host(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Returns arrays that this process can compute with alone.

  Args:
    tree: of arrays that are the same on all devices.
  """
  return tree if _group is None else jax.device_get(tree)


def await_news(error: BaseException) -> None:
  """Lets the news come first that another process has ended, which ends this.

  Args:
    error: of this process, which may come of that.
  """
  if isinstance(error, jax.errors.JaxRuntimeError):
    time.sleep(_NEWS_SECONDS)


def ask_to_stop(number: int) -> None:
  """Asks the first process to end the run; of the others.

  Args:
    number: of the signal that this process was sent.
  """
  _group.ask_to_stop(number)


def fail(line: str, status: int) -> None:
  """Ends all processes of a run that has several; else does nothing.

  Args:
    line: that says why.
    status: of their exit.
  """
  if _group is not None:
    _group.fail(line, status)
  if jax.distributed.is_initialized():
    # At an ordinary end JAX would wait for the others.
    hosts.say(f'error: {line}')
    hosts.leave(status)


def describe_devices() -> list[str]:
  """Returns one line per device, for the manifest."""
  return [f'{d.platform}:{d.id} {d.device_kind}' for d in jax.devices()]


def device_memory() -> int | None:
  """Returns the bytes of the smallest device of this process, None if unknown.

  Where the host's processor is the device, its devices share what it has.
  """
  devices = jax.local_devices()
  limits = [(d.memory_stats() or {}).get('bytes_limit') for d in devices]
  if all(limits):
    return min(limits)
  if devices[0].platform != 'cpu':
    return None
  try:
    pages, size = os.sysconf('SC_PHYS_PAGES'), os.sysconf('SC_PAGE_SIZE')
  except (ValueError, OSError):  # Not of this system.
    return None
  return pages * size // len(devices)


def describe_bfloat16() -> str | None:
  """Returns what is computed in its place where devices have no bfloat16.

  None where they have: TPUs, GPUs from compute capability 8.0 on, CPUs with
  AVX-512 BF16 or AMX.
  """
  device = jax.local_devices()[0]
  if device.platform == 'gpu':
    capability = getattr(device, 'compute_capability', '8.0')
    if float(capability) >= 8.0:
      return None
  elif device.platform == 'cpu':
    try:
      with open('/proc/cpuinfo', encoding='ascii', errors='ignore') as file:
        text = file.read()
    except OSError:
      text = ''  # Not Linux: nothing is known.
    if 'avx512_bf16' in text or 'amx_bf16' in text:
      return None
  else:
    return None
  return (
      f'{device.device_kind} has no arithmetic in bfloat16: XLA computes in'
      ' float32 and rounds what it keeps, which is not faster.'
  )


def device_count() -> int:
  """Returns how many devices share a batch, those of all processes."""
  return jax.device_count()


def process() -> tuple[int, int]:
  """Returns this host's index, and how many there are."""
  return jax.process_index(), jax.process_count()


def check_batch_size(batch_size: int) -> None:
  """Raises InputError unless the devices divide the batch."""
  count = jax.device_count()
  if batch_size % count:
    hosts_of = ''
    if jax.process_count() > 1:
      hosts_of = (
          f' ({jax.process_count()} processes of {jax.local_device_count()})'
      )
    raise errors.InputError(
        f'--batch_size={batch_size} is not divisible by the {count} devices'
        f'{hosts_of}; accepted: a multiple of {count}.'
    )


def axis_name(mode: Mode) -> str | None:
  """Returns the mapped axis that a model must average its statistics over."""
  return _AXIS if mode == 'pmap' else None


def make_epoch_fn(
    mode: Mode,
    batch_size: int,
    make_objective: Callable[[nn.Module], steps.Objective],
    model: nn.Module,
    teacher_model: nn.Module | None = None,
    **epoch_kwargs,
) -> CompiledSteps:
  """Makes a compiled `train_epoch` on all devices.

  Args:
    mode: 'jit' or 'pmap'.
    batch_size: of all devices together.
    make_objective: of a model whose `axis_name` is that of the mode.
    model: to train.
    teacher_model: see `steps.train_epoch`.
    **epoch_kwargs: the other keyword arguments of `steps.train_epoch`.

  Returns:
    `(state, data, epoch, bounds=...) -> (state, metrics)`, the metrics of each
    step, `[steps]`; the state given is donated under jit. It compiles once for
    all epochs and all bounds, which are `[2]`, see `loop.loop_steps`.
  """
  name = axis_name(mode)
  epoch_fn = functools.partial(
      steps.train_epoch,
      objective=make_objective(model.clone(axis_name=name)),
      teacher_model=teacher_model and teacher_model.clone(axis_name=name),
      batch_size=batch_size,
      axis_name=name,
      **epoch_kwargs,
  )
  return compile_epoch(mode, batch_size, epoch_fn)


def replicate(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Places a tree on all devices, so that no epoch copies it there again."""
  return _place(tree, NamedSharding(_make_mesh(), PartitionSpec()))


def compile_epoch(
    mode: Mode, batch_size: int, epoch_fn: ShardedFn, *, fed: bool = False
) -> CompiledSteps:
  """Compiles a number of steps for all devices.

  Args:
    mode: 'jit' or 'pmap'.
    batch_size: of all devices together.
    epoch_fn: `(state, constants, rows, bounds, shard=...) -> (state, metrics)`,
      whose models have the `axis_name` of the mode. `shard` keeps of
      `[B, ...]` arrays what is a device's, or lays them out.
    fed: `rows` are `[steps, B, ...]` arrays of which a device is given its
      part of each batch; else all of it goes to all devices.

  Returns:
    `(state, constants, rows, bounds=...) -> (state, metrics)`; the state given
    is donated under jit. By default all steps are taken.

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
    if _group is not None and not fed:
      place_rows = replicate

  def placed(state, constants, rows, bounds):
    # Arrays that are not yet committed to their place compile a second time.
    state, constants = _place((state, constants), replicated, mode)
    if _group is not None and mode == 'jit':
      bounds = replicate(bounds)
    return compiled(state, constants, rows, bounds)

  return CompiledSteps(place_rows, placed)


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
  # All steps, of which the loop knows how many there are.
  compiled = lambda state, constants, data, unused_bounds, shard: steps_fn(
      state, constants, data, shard=shard
  )
  return _jit_epoch(compiled, mesh, by_example).lower(
      state, constants, data, loop.make_bounds()
  ).compile()


def _meet(address, name, count, index, seconds):
  """Meets the others where the flags say; the first returns its address."""
  global _group
  if index != 0:
    _group = hosts.join([address], index, count, name, seconds)
    return None
  try:
    server = hosts.open_server(*address)
  except (OSError, UnicodeError) as error:  # The latter of what is no name.
    reason = getattr(error, 'strerror', None) or error
    raise errors.InputError(
        f'{name} is not to be had by process 0 ({reason}); accepted: an address'
        ' of its machine and a free port. Where the others know it by another'
        ' address, as behind NAT, 0.0.0.0:PORT of process 0 alone listens on'
        ' all it has.'
    ) from error
  bound = server.getsockname()[0]
  if bound != address[0]:
    # A name that is the loopback address here is not to be reached from afar.
    name = f'{name} (listening at {bound})'
  _group = hosts.host(server, count, name, seconds)
  return bound


def _connect_by_environment(initialize, terms, seconds):
  """Starts JAX's connection, then ours where it says that the first one is."""
  global _group
  try:
    initialize()
  except (ValueError, RuntimeError) as error:
    raise errors.InputError(
        '--distributed: the environment says nothing of other processes'
        f' ({" ".join(str(error).split())}); accepted: hosts of a TPU, Slurm,'
        ' Open MPI, or --coordinator, --process_count and --process_id.'
    ) from error
  index, count = process()
  if count == 1:
    return
  text = np.zeros(_LONGEST_ADDRESSES, np.uint8)
  if index == 0:
    # The environment said it: nothing here knows by which address they come.
    server = hosts.open_server(None, 0)
    port = server.getsockname()[1]
    written = json.dumps(hosts.find_own_addresses(port)).encode()
    text[: len(written)] = np.frombuffer(written, np.uint8)
  text = multihost_utils.broadcast_one_to_all(text, is_source=index == 0)
  # A sum over processes, of a wider type.
  text = np.asarray(text).astype(np.uint8).tobytes().rstrip(b'\0')
  addresses = [tuple(address) for address in json.loads(text)]
  name = ' or '.join(f'{host}:{port}' for host, port in addresses)
  if index == 0:
    _group = hosts.host(server, count, name, seconds)
  else:
    _group = hosts.join(addresses, index, count, name, seconds)
  check_same(terms)


def _make_mesh():
  # The parts of a batch that a process is given follow one another.
  by_process = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(by_process), (_AXIS,))


def _place(tree, replicated, mode='jit'):
  """Places a tree on all devices; what is there already stays."""
  if _group is None:
    return jax.device_put(tree, replicated)

  def is_there(x):
    if x.sharding.is_equivalent_to(replicated, x.ndim):
      return True
    # What pmap returned: it is on the devices of this process, and so on all.
    return (
        mode == 'pmap'
        and x.is_fully_replicated
        and len(x.addressable_shards) == jax.local_device_count()
    )

  def place(x):
    if isinstance(x, jax.Array) and is_there(x):
      return x
    x = np.asarray(x)
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    # device_put would compare the values of all processes.
    return jax.make_array_from_process_local_data(replicated, x)

  return jax.tree.map(place, tree)


def _jit_epoch(epoch_fn, mesh, rows_sharding):
  """Compiles an epoch whose batches are spread over a mesh."""
  replicated = NamedSharding(mesh, PartitionSpec())
  by_example = NamedSharding(mesh, PartitionSpec(_AXIS))
  return jax.jit(
      functools.partial(
          epoch_fn,
          shard=lambda x: jax.lax.with_sharding_constraint(x, by_example),
      ),
      in_shardings=(replicated, replicated, rows_sharding, replicated),
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
      in_axes=(0, None, None, 1 if fed else None, None),
      # Averaged gradients and statistics keep the state equal everywhere.
      out_axes=None,
  )
  return functools.partial(mapped, np.arange(jax.local_device_count()))


def _split_rows(x, local_size):
  """`[steps, B, ...]` of this host -> `[steps, devices, B / devices, ...]`."""
  return x.reshape(x.shape[0], -1, local_size, *x.shape[2:])
