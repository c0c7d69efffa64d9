"""Programs of training steps that `accelerator_steps` measures.

A maker compiles a program, which takes steps, and describes it. Ours returns
metrics before they are computed, PyTorch's returns when its steps are done.
"""

from collections.abc import Callable
import functools
import gc
import importlib
import importlib.util
import sys
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import counts
from benchmarks import problems
from jacsup_jax.models import convolutions
from jacsup_jax.training import devices
from jacsup_jax.training import loop
from jacsup_jax.training import steps

Program = Callable[[], Any]
Maker = Callable[[], tuple[dict[str, Any], Program]]
# Replicas share the number of the step.
_STATE_AXES = steps.TrainState(None, 0, 0, 0)


def make_ours(
  problem: problems.Problem, num_steps: int, precision: str = 'default'
) -> tuple[dict[str, Any], Program]:
  """Compiles our step, as an epoch takes it; describes the program."""
  size, there = problem.step.batch_size, jax.devices()
  rows = np.arange(num_steps * size, dtype=np.int32) % len(problem.images)
  rows = rows.reshape(num_steps, size)
  start = time.perf_counter()
  with jax.default_matmul_precision(precision):
    compiled = devices.compile_for(
      there, problem.step, problem.state, problem.constants, rows
    )
  seconds = time.perf_counter() - start
  described = counts.describe_program(compiled, size)
  args = problem.state, problem.constants, rows, loop.make_bounds()
  program = problems.repeat(compiled, *devices.replicate(args))
  return {'compile seconds': seconds, **described}, program


def make_as_channels(make: Maker) -> tuple[dict[str, Any], Program]:
  """Makes our step with factors repeated over maps and concatenated."""

  def up(x, factors, kernel):
    shape = (*x.shape[:3], factors.shape[-1])
    constants = jnp.broadcast_to(factors[:, jnp.newaxis, jnp.newaxis], shape)
    return convolutions.up(jnp.concatenate([x, constants], -1), kernel)

  with mock.patch.object(convolutions, 'up_with_constants', up):
    return make()


def make_seeds(
  problem: problems.Problem, num_steps: int, count: int
) -> tuple[dict[str, Any], Program]:
  """Compiles the steps of several seeds, each with its own batches and swaps.

  They start from equal parameters, which does not change what is computed.
  """
  size = problem.step.batch_size

  def take_steps(state, constants, rows, bounds):
    one = lambda state, seed, rows: problem.step(
      state, constants._replace(seed=seed), rows, bounds
    )
    return jax.vmap(
      one, in_axes=(_STATE_AXES, 0, 0), out_axes=(_STATE_AXES, 0)
    )(state, jnp.arange(count), rows)

  rng = np.random.default_rng(0)
  total = num_steps * size
  rows = np.stack([rng.permutation(total) for _ in range(count)])
  rows = rows.reshape(count, num_steps, size).astype(np.int32)
  stack = lambda x: jnp.broadcast_to(x, (count, *x.shape))
  step = problem.state.step
  state = jax.tree.map(stack, problem.state)._replace(step=step)
  args = problem.constants, rows, loop.make_bounds()
  start = time.perf_counter()
  compiled = jax.jit(take_steps, donate_argnums=0).lower(state, *args).compile()
  seconds = time.perf_counter() - start
  program = problems.repeat(compiled, state, *args)
  return {'compile seconds': seconds}, program


def list_rungs(
  problem: problems.Problem,
  num_steps: int,
  precision: str = 'bfloat16',
  is_first: bool = True,
) -> dict[str, Maker]:
  """Lists the makers of PyTorch's programs; none where PyTorch is missing."""
  device = 'cuda' if jax.devices()[0].platform == 'gpu' else 'cpu'
  if importlib.util.find_spec('torch') is None:
    return {}
  torch_steps = importlib.import_module('benchmarks.torch_steps')
  rungs = torch_steps.RUNGS
  if device == 'cpu':
    rungs = rungs[:2]  # It has no CUDA graphs, and compiling takes minutes.
  if precision != 'bfloat16':
    rungs = rungs[:1]
  elif not is_first:
    rungs = rungs[1:2]  # Compiling each would take all of the time.
  kinds = [(rung, False) for rung in rungs]
  if is_first and problem.attributes is not None:
    kinds.append((rungs[-1], True))
  makers = {}
  for rung, as_bias in kinds:
    suffix = ', factors as a bias' if as_bias else ''
    makers[f'PyTorch {rung.name}{suffix}'] = functools.partial(
      _make_theirs, torch_steps, problem, num_steps, rung, device, as_bias
    )
  return makers


def _make_theirs(torch_steps, *args):
  """Makes PyTorch's program, and says whether it may use TF32."""
  torch = torch_steps.torch
  described = {
    'TF32 in convolutions': torch.backends.cudnn.allow_tf32,
    'TF32 in products': torch.backends.cuda.matmul.allow_tf32,
  }
  return described, torch_steps.make_program(*args)


def free_memory() -> None:
  """Gives back what PyTorch keeps of the GPU's memory."""
  torch = sys.modules.get('torch')
  if torch is not None and torch.cuda.is_available():
    gc.collect()
    torch.cuda.empty_cache()
