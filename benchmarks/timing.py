"""Measures programs in turn, and formats the measurements.

Measure on an idle machine: another program that holds up one of PyTorch's
threads makes its step tens of times as long, and any ratio meaningless.
"""

from collections.abc import Callable, Mapping, Sequence
import importlib
import os
import statistics
import sys
import time
import types
from typing import Any

from absl import app
from absl import flags
import jax

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.training import devices as devices_lib


def measure(
  programs: Mapping[str, Callable[[], Any]], repeats: int, num_steps: int
) -> dict[str, list[float]]:
  """Measures programs in turn, so that a slow minute is slow for all.

  Each is called once before, to compile.

  Returns:
    Milliseconds a step by the names of the programs, one a measurement.
  """
  times = {name: [] for name in programs}
  for program in programs.values():
    jax.block_until_ready(program())
  for _ in range(repeats):
    for name, program in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(program())
      times[name].append(1e3 * (time.perf_counter() - start) / num_steps)
  return times


def format_table(times: Mapping[str, Sequence[float]], batch_size: int) -> str:
  """Formats medians of `measure`, and median ratios to the first program."""
  first = next(iter(times.values()))
  lines = [
    f'{"":20} {"ms/step":>8} {"fastest":>8} {"images/s":>9} {"ratio":>6}'
  ]
  for name, values in times.items():
    median = statistics.median(values)
    ratio = statistics.median(a / b for a, b in zip(values, first))
    lines.append(
      f'{name:20} {median:8.2f} {min(values):8.2f}'
      f' {1e3 * batch_size / median:9.0f} {ratio:6.2f}'
    )
  return '\n'.join(lines)


def describe_machine() -> str:
  """Returns the devices, threads and load of this machine, for a heading."""
  devices = jax.devices()
  return (
    f'{len(devices)} x {devices[0].device_kind}, {count_threads()} CPU'
    f' threads, load average {os.getloadavg()[0]:.1f} before'
  )


def count_threads() -> int:
  """Counts the CPUs of this process; XLA makes a thread for each."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def import_torch_steps() -> types.ModuleType:
  """Imports `torch_steps`; raises InputError if it cannot be compared with."""
  platform = jax.devices()[0].platform
  if platform != 'cpu':
    raise errors.InputError(
      '--against=torch measures PyTorch on the CPU, but JAX is on'
      f' {platform}; accepted: JAX_PLATFORMS=cpu in the environment.'
    )
  try:
    return importlib.import_module('benchmarks.torch_steps')
  except ModuleNotFoundError as error:
    if error.name != 'torch':
      raise
    raise errors.InputError(
      '--against=torch needs PyTorch, which is not installed; to install it:'
      ' pip install torch'
    ) from error


def run(main: Callable[[], str], define_flags: Callable[[], None]) -> None:
  """Runs a benchmark and prints its table; a user's mistake is one line.

  Its flags are removed at the end: a notebook's process may run another one.
  """

  def print_table(unused_argv):
    try:
      devices_lib.expand_cache_dir()
      devices_lib.check_available()
      files.say(main())
    except errors.InputError as error:
      files.say(f'error: {error}', 'stderr')
      sys.exit(2)

  before = {*flags.FLAGS}
  define_flags()
  own = {*flags.FLAGS} - before
  try:
    app.run(print_table)
  finally:
    for name in own:
      delattr(flags.FLAGS, name)
    files.flush_streams()
