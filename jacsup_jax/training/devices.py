"""Devices and processes: the only module that asks which there are.

Steps run by `jit` over a mesh, where the compiler spreads the batch, or by
`pmap`, where each device takes its share and statistics are averaged by name.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import chex
import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.training import loop

_AXIS = 'devices'
_GPU_FLAG = '--xla_gpu_deterministic_ops=true'
# What makes JAX find a device, by a part of its platform's name.
_INSTALL = {
  'cuda': "pip install -U 'jax[cuda12]' for an NVIDIA GPU",
  'gpu': "pip install -U 'jax[cuda12]' for an NVIDIA GPU",
  'tpu': "pip install -U 'jax[tpu]' on a TPU host",
  'rocm': 'the ROCm plugins of docs.jax.dev for an AMD GPU',
}
# (state, constants, rows, bounds, shard=...) -> (state, metrics).
StepsFn = Callable[..., tuple[Any, codes.Metrics]]


@dataclasses.dataclass(frozen=True)
class CompiledSteps:
  """Steps compiled for all devices."""

  # Moves rows to the devices, where rows already there stay.
  place_rows: Callable[[chex.ArrayTree], chex.ArrayTree]
  # (state, constants, placed rows, bounds) -> (state, metrics).
  run: Callable[..., tuple[Any, codes.Metrics]]

  def __call__(self, state, constants, rows) -> tuple[Any, codes.Metrics]:
    """Takes all steps of the rows."""
    rows = self.place_rows(rows)
    return self.run(state, constants, rows, loop.make_bounds())


def expand_cache_dir() -> None:
  """Expands JAX_COMPILATION_CACHE_DIR; JAX would make a folder of the name ~.

  InputError if it is an address.
  """
  path = files.expand_variable('JAX_COMPILATION_CACHE_DIR')
  if path is not None:
    jax.config.update('jax_compilation_cache_dir', str(path))


def set_up(
  deterministic: bool | None = None, cache: pathlib.Path | None = None
) -> None:
  """Applies what flags say of programs, before any device is used.

  Args:
    deterministic: whether GPUs give the same bits each time.
    cache: directory in which compiled programs are kept; InputError if it
      cannot be written to.
  """
  if deterministic:
    found = os.environ.get('XLA_FLAGS', '').split()
    os.environ['XLA_FLAGS'] = ' '.join([*found, _GPU_FLAG])
  expand_cache_dir()
  if cache is not None:
    files.check_writable(f'--compilation_cache={cache}', cache)
    jax.config.update('jax_compilation_cache_dir', str(cache))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def check_available() -> None:
  """Raises InputError unless devices start that the environment asks for."""
  names = ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME')
  asked = {name: os.environ[name] for name in names if os.environ.get(name)}
  try:
    if asked:
      jax.devices()
  # JAX has an assertion where no platform of several starts.
  except (RuntimeError, AssertionError) as error:
    given = ' '.join(f'{name}={value}' for name, value in asked.items())
    wanted = ' '.join(asked.values()).lower()
    install = next(
      (f', or {how}' for name, how in _INSTALL.items() if name in wanted), ''
    )
    reason = errors.one_line(str(error)).partition(' (set JAX')[0][:160]
    if 'list of known backends' in reason:  # Its name may be another one.
      reason = ''
    raise errors.InputError(
      f'{given}: no such device starts{reason and f" ({reason})"}; this machine'
      f' has {_list_platforms()}. Accepted: one of these, or'
      f' {" and ".join(asked)} unset{install}.'
    ) from error


def _list_platforms():
  """Lists the platforms that start; in another process, as JAX tries once."""
  command = 'import jax; print(*{d.platform for d in jax.devices()})'
  names = ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME')
  env = {k: v for k, v in os.environ.items() if k not in names}
  try:
    found = subprocess.run(
        [sys.executable, '-c', command], env=env, capture_output=True,
        text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
  except (OSError, subprocess.SubprocessError):
    found = []
  # Every JAX has the processor.
  return ', '.join(sorted({*found, 'cpu'}))


def connect(
  coordinator: str | None = None,
  process_count: int | None = None,
  process_id: int | None = None,
  *,
  seconds: int = 300,
) -> None:
  """Joins this process to the others of its run, before any device is used.

  Without arguments the environment provides them, as on hosts of a TPU, under
  Slurm and Open MPI. Raises InputError if it does not, or the others do not
  answer within `seconds`. If a process ends, JAX ends the others in minutes.
  """
  if coordinator is not None and not re.fullmatch(r'.+:\d+', coordinator):
    raise errors.InputError(
      f'--coordinator={coordinator} has no port; accepted: HOST:PORT, such as'
      ' 10.0.0.2:1234.'
    )
  # For devices that are the host's processor; read when a backend starts.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  # It would catch SIGTERM and continue.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
      coordinator, process_count, process_id, initialization_timeout=seconds
    )
  except (ValueError, RuntimeError) as error:
    raise errors.InputError(
      f'--distributed: the processes do not connect ({error}); accepted:'
      ' hosts of a TPU, Slurm or Open MPI, or the same --coordinator and'
      ' --process_count and a --process_id each.'
    ) from error


def disconnect() -> None:
  """Waits for the other processes at the end of a run, and leaves them."""
  if jax.distributed.is_initialized():
    jax.distributed.shutdown()


def has_others() -> bool:
  """Returns whether the run has other processes."""
  return jax.process_count() > 1


def is_first() -> bool:
  """Returns whether this process measures and writes the work directory."""
  return jax.process_index() == 0


def process() -> dict[str, int]:
  """Returns `process_index`, and of how many (`process_count`)."""
  index, count = jax.process_index(), jax.process_count()
  return {'process_index': index, 'process_count': count}


def share(value: Any) -> Any:
  """Returns the first process's value, of JSON, in all processes."""
  if not has_others():
    return value
  content = json.dumps(value).encode()
  # Padded, as every length is a program of its own.
  content = content.ljust(math.ceil(len(content) / 4096) * 4096)
  content = np.frombuffer(content, np.uint8)
  size = int(share_tree(np.array(len(content), np.int32)))
  # The value of the other processes counts by its shape alone.
  content = share_tree(content if is_first() else np.zeros(size, np.uint8))
  return json.loads(np.asarray(content).astype(np.uint8).tobytes())


def share_tree(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Returns the first process's arrays, of equal shapes in all processes."""
  if not has_others():
    return tree
  return multihost_utils.broadcast_one_to_all(tree, is_source=is_first())


def is_any(flag: bool) -> bool:
  """Returns, in all processes, whether the flag of any process is true."""
  if not has_others():
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def in_turn(function: Callable[[], Any]) -> Any:
  """Calls a function in the first process, then in the others."""
  found = function() if is_first() else None
  share(None)
  return found if is_first() else function()


def to_host(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Returns arrays, equal on all devices, that this process can use alone."""
  # With one process too: arrays on a mesh would have programs of their own.
  return jax.device_get(tree)


def describe_devices() -> list[str]:
  """Returns one line per device, for the manifest."""
  return [f'{d.platform}:{d.id} {d.device_kind}' for d in jax.devices()]


def check_batch_size(batch_size: int) -> None:
  """Raises InputError unless the devices divide the batch."""
  count = jax.device_count()
  if batch_size % count:
    raise errors.InputError(
      f'--batch_size={batch_size} is not divisible by the {count} devices'
      f' of {jax.process_count()} process(es); accepted: multiples of {count}.'
    )


def axis_name(mode: str) -> str | None:
  """Returns the mapped axis that a module must average its statistics over."""
  return _AXIS if mode == 'pmap' else None


def replicate(tree: chex.ArrayTree) -> chex.ArrayTree:
  """Places a tree on all devices, so that no epoch copies it there again."""
  return _place(tree, NamedSharding(_make_mesh(), PartitionSpec()))


@functools.lru_cache(maxsize=128)
def compile_epoch(
  mode: str, batch_size: int, steps_fn: StepsFn, *, fed: bool = False
) -> CompiledSteps:
  """Compiles steps for all devices; equal arguments share one program.

  The state is donated under jit.

  Args:
    mode: 'jit' or 'pmap'.
    batch_size: over all devices, which must divide it.
    steps_fn: `(state, constants, rows, bounds, shard=...) -> (state, metrics)`,
      hashable, whose modules have the `axis_name` of the mode. `shard` keeps
      the part of `[B, ...]` arrays that belongs to a device, or lays them out.
    fed: `rows` are `[steps, B, ...]` arrays of which each device receives its
      part of each batch; otherwise every device receives all of them.
  """
  check_batch_size(batch_size)
  mesh = _make_mesh()
  replicated = NamedSharding(mesh, PartitionSpec())
  if mode == 'pmap':
    local_size = batch_size // jax.device_count()
    compiled = _pmap_steps(steps_fn, local_size, fed)
    # [steps, B, ...] of this host -> [steps, devices, B / devices, ...].
    split = lambda x: x.reshape(len(x), -1, local_size, *x.shape[2:])
    place_rows = lambda rows: jax.tree.map(split, rows) if fed else rows
  else:
    compiled, rows_sharding = _jit_steps(steps_fn, mesh, fed)
    place = lambda x: jax.make_array_from_process_local_data(rows_sharding, x)
    place_rows = functools.partial(jax.tree.map, place) if fed else replicate

  def placed(state, constants, rows, bounds):
    # Arrays not committed to these devices would compile a second time.
    state, constants = _place((state, constants), replicated, mode)
    if has_others() and mode == 'jit':
      bounds = replicate(bounds)
    return compiled(state, constants, rows, bounds)

  return CompiledSteps(place_rows, placed)


def compile_for(
  devices: Sequence[jax.Device],
  steps_fn: StepsFn,
  state: chex.ArrayTree,
  constants: chex.ArrayTree,
  rows: chex.ArrayTree,
  *,
  fed: bool = False,
) -> jax.stages.Compiled:
  """Compiles steps, of shapes, for devices that need not be present."""
  compiled, _ = _jit_steps(steps_fn, Mesh(np.array(devices), (_AXIS,)), fed)
  return compiled.lower(state, constants, rows, loop.make_bounds()).compile()


def _make_mesh():
  # Consecutive parts of a batch belong to one process.
  by_process = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  # jax.make_mesh would make explicit axes, which a Dense's gradient refuses.
  return Mesh(np.array(by_process), (_AXIS,))


def _place(tree, replicated, mode='jit'):
  """Places a tree on all devices; arrays already there stay."""
  if not has_others():
    return jax.device_put(tree, replicated)

  def is_there(x):
    if x.sharding.is_equivalent_to(replicated, x.ndim):
      return True
    # A result of pmap is on the devices of this process, and so on all.
    is_on_all = len(x.addressable_shards) == jax.local_device_count()
    return mode == 'pmap' and x.is_fully_replicated and is_on_all

  def place(x):
    if isinstance(x, jax.Array) and is_there(x):
      return x
    x = np.asarray(x)
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    # device_put would compare the values of all processes.
    return jax.make_array_from_process_local_data(replicated, x)

  return jax.tree.map(place, tree)


def _jit_steps(steps_fn, mesh, fed):
  """Compiles steps over a mesh; also returns the sharding of their rows."""
  replicated = NamedSharding(mesh, PartitionSpec())
  by_example = NamedSharding(mesh, PartitionSpec(_AXIS))
  rows = NamedSharding(mesh, PartitionSpec(None, _AXIS)) if fed else replicated
  shard = lambda x: jax.lax.with_sharding_constraint(x, by_example)
  compiled = jax.jit(
    functools.partial(steps_fn, shard=shard),
    in_shardings=(replicated, replicated, rows, replicated),
    out_shardings=replicated,
    donate_argnums=0,
  )
  return compiled, rows


def _pmap_steps(steps_fn, local_size, fed):
  """Compiles steps of which each device takes `local_size` of a batch."""

  def take_local(x):
    start = jax.lax.axis_index(_AXIS) * local_size
    return jax.lax.dynamic_slice_in_dim(x, start, local_size)

  mapped = jax.pmap(
    lambda unused_device, *args: steps_fn(*args, shard=take_local),
    axis_name=_AXIS,
    # pmap requires one argument with a mapped axis.
    in_axes=(0, None, None, 1 if fed else None, None),
    # Averaged gradients and statistics keep the state equal on all devices.
    out_axes=None,
  )
  return functools.partial(mapped, np.arange(jax.local_device_count()))
