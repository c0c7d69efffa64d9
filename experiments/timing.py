"""Measures programs in turn, and formats what was measured.

Measure on an idle machine, or a ratio means nothing: where another program
holds up one of PyTorch's threads, its step takes tens of times as long.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import importlib
import math
import os
import statistics
import time
import types as python_types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.training import devices as parallel


class Product(NamedTuple):
  """A matrix product, with its operands as the step has them in memory."""

  left: tuple[int, int]  # shape
  right: tuple[int, int]  # shape
  contract: tuple[int, int]  # the axis of each that is summed over

  @property
  def flops(self) -> int:
    """Multiplications and additions."""
    summed = self.left[self.contract[0]]
    return 2 * math.prod(self.left) * math.prod(self.right) // summed


class Row(NamedTuple):
  """A line of the table; times are milliseconds a step, one a measurement."""

  name: str
  times: Sequence[float]
  flops: int | None = None  # of a step's products
  limit_times: Sequence[float] | None = None  # of these products alone


def make_products_fn(
    products: Sequence[Product], num_steps: int
) -> Callable[[], list[jax.Array]]:
  """Makes a program of `num_steps` times these products and nothing else."""
  rng = np.random.default_rng(0)
  draw = lambda shape: jnp.asarray(rng.standard_normal(shape, np.float32))
  operands = [(draw(p.left), draw(p.right)) for p in products]

  # In a loop of the compiler's, equal products would be computed once for all.
  # Calls that hand on their results' memory run one after the other.
  @functools.partial(jax.jit, donate_argnums=1, keep_unused=True)
  def multiply(operands, memory):
    del memory
    results = []
    for p, (left, right) in zip(products, operands):
      axes = ((p.contract[0],), (p.contract[1],))
      results.append(jax.lax.dot_general(left, right, (axes, ((), ()))))
    return results

  results = jax.eval_shape(multiply, operands, None)

  def program():
    memory = [jnp.zeros(x.shape, x.dtype) for x in results]
    for _ in range(num_steps):
      memory = multiply(operands, memory)
    return memory

  return program


def measure(
    programs: Mapping[str, Callable[[], Any]], repeats: int, num_steps: int
) -> dict[str, list[float]]:
  """Measures programs in turn, so that a slow minute is slow for all.

  Args:
    programs: each called once before, to compile. What they return is waited
      for.
    repeats: measurements of each.
    num_steps: that a program takes when it is called.

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


def compare(times: Sequence[float], with_times: Sequence[float]) -> float:
  """Returns the median over the repeats of `times / with_times`."""
  pairs = zip(times, with_times, strict=True)
  return statistics.median(a / b for a, b in pairs)


def format_table(rows: Sequence[Row], batch_size: int) -> str:
  """Formats measurements as a table of fixed width.

  Args:
    rows: one a program; what has no limit shows '-'.
    batch_size: examples of a step.

  Returns:
    Lines: a heading and one a row. Times are medians, `share` is the median of
    limit / step.
  """
  lines = [
      f'{"":20} {"ms/step":>8} {"fastest":>8} {"images/s":>9} {"GFLOP":>6}'
      f' {"limit ms":>8} {"share":>5}'
  ]
  for row in rows:
    median = statistics.median(row.times)
    flops, limit, share = '-', '-', '-'
    if row.limit_times is not None:
      flops = f'{row.flops / 1e9:.3f}'
      limit = f'{statistics.median(row.limit_times):.2f}'
      share = f'{compare(row.limit_times, row.times):.2f}'
    lines.append(
        f'{row.name:20} {median:8.2f} {min(row.times):8.2f}'
        f' {1e3 * batch_size / median:9.0f} {flops:>6} {limit:>8} {share:>5}'
    )
  return '\n'.join(lines)


def import_torch_module(name: str) -> python_types.ModuleType:
  """Imports one of the modules that need PyTorch.

  Args:
    name: of a module of this package.

  Returns:
    The module.

  Raises:
    InputError: if PyTorch is missing, or JAX is not on the CPU as it is.
  """
  device = parallel.describe_devices()[0]
  if not device.startswith('cpu:'):
    raise errors.InputError(
        '--against=torch measures PyTorch on the CPU, but JAX is on'
        f' {device}; accepted: JAX_PLATFORMS=cpu in the environment.'
    )
  try:
    return importlib.import_module(f'experiments.{name}')
  except ModuleNotFoundError as error:
    if error.name != 'torch':
      raise
    raise errors.InputError(
        '--against=torch needs PyTorch, which is not installed; to install it:'
        ' pip install torch'
    ) from error


def describe_machine() -> str:
  """Returns the devices, threads and load of this machine, for a heading."""
  devices = parallel.describe_devices()
  return (
      f'{len(devices)} device(s) like {devices[0]}, {count_threads()} CPU'
      f' threads, load average {os.getloadavg()[0]:.1f} before'
  )


def count_threads():
  """Returns the CPUs of this process, of which XLA makes a thread each."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()
