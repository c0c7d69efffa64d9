"""An epoch as parts of a fixed number of steps, between which it may stop.

One compiled program takes any number of steps: how many is data, not shape.
The steps are the same to the last bit wherever an epoch is interrupted.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import math
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors

# (state, row) -> (state, metrics).
StepFn = Callable[[Any, Any], tuple[Any, codes.Metrics]]

# A part reads about so many bytes of images, and takes at most so many steps:
# long enough to keep the devices busy, short enough to stop soon.
_PART_BYTES = 2**24
_LONGEST_PART = 128
_ALL = 2**31 - 1


class NonFiniteError(errors.RunError):
  """A step, counted in its epoch, with metrics that are not finite.

  Without `terms` only the state after the last step shows it.
  """

  def __init__(self, step: int, terms: tuple[str, ...] = ()):
    found = ' and '.join(terms) or 'the state after the step'
    verb = 'are' if len(terms) > 1 else 'is'
    super().__init__(f'{found} {verb} not finite')
    self.step = step
    self.terms = terms


def loop_steps(
  step: StepFn,
  state: chex.ArrayTree,
  rows: chex.ArrayTree,
  bounds: jax.Array | np.ndarray,
  *,
  unroll: int = 1,
) -> tuple[chex.ArrayTree, codes.Metrics]:
  """Takes a step per row of `[n, ...]` arrays within bounds.

  `bounds` are `[2]` int, the first row and the one after the last. With
  `unroll` of 2 an iteration takes two steps, and bounds must be even except at
  the end of the rows: then a given step is always the same copy of the body,
  and the same to the last bit. Metrics are `[n, ...]`, 0 out of bounds.
  """
  # Traced once for its three copies, and inlined.
  step = jax.jit(step, inline=True)
  count = jax.tree.leaves(rows)[0].shape[0]
  take = lambda i: jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), rows
  )
  _, shapes = jax.eval_shape(step, state, take(0))
  zeros = lambda x: jnp.zeros((count, *x.shape), x.dtype)
  metrics = jax.tree.map(zeros, shapes)

  def body(i, carry):
    state, new = step(carry[0], take(i))
    put = functools.partial(
      jax.lax.dynamic_update_index_in_dim, index=i, axis=0
    )
    return state, jax.tree.map(put, carry[1], new)

  first, last = bounds[0], jnp.minimum(bounds[1], count)
  carry = (state, metrics)
  if unroll == 2:
    pairs, start = (last - first) // 2, first
    pair = lambda j, c: body(start + 2 * j + 1, body(start + 2 * j, c))
    carry = jax.lax.fori_loop(0, pairs, pair, carry)
    first += 2 * pairs
  return jax.lax.fori_loop(first, last, body, carry)


def make_bounds(first: int = 0, last: int = _ALL) -> np.ndarray:
  """Returns `[2]` int32 for `loop_steps`; all rows by default."""
  return np.array([first, last], np.int32)


def count_part_steps(batch_shape: tuple[int, ...]) -> int:
  """Counts the steps of a part, for uint8 batches of this shape; it is even."""
  steps = _PART_BYTES // math.prod(batch_shape)
  return max(2, min(_LONGEST_PART, steps) // 2 * 2)


class Chunk(NamedTuple):
  """Steps of an epoch whose data are read together."""

  first: int
  count: int
  rows: Any


@dataclasses.dataclass(frozen=True)
class Epoch:
  """The epochs of a stage."""

  steps: int  # Per epoch.
  # (state, constants, rows of a chunk, bounds in it) -> (state, metrics); may
  # donate the state.
  run: Callable[[Any, Any, Any, np.ndarray], tuple[Any, codes.Metrics]]
  constants: Any
  # (epoch, first) -> chunks, from the one that contains step `first`.
  chunks: Callable[[int, int], Iterator[Chunk]]
  part_steps: int = _LONGEST_PART  # At most between two polls; even.
  is_fed: bool = False  # Data are read during training.

  def __call__(self, state: Any, epoch: int) -> tuple[Any, codes.Metrics]:
    """Takes all steps of an epoch, and returns the means of their metrics."""
    taken = Taken()
    state = run(self, state, epoch, taken)
    return state, taken.summarize()


@dataclasses.dataclass
class Taken:
  """The steps of an epoch taken so far."""

  count: int = 0
  # By name, `[n, ...]` of consecutive steps.
  metrics: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  waited: float = 0.0  # Seconds of these with nothing to compute.

  def add(self, metrics: Mapping[str, np.ndarray]) -> None:
    """Adds metrics `[n, ...]` of the steps that follow."""
    for name, values in metrics.items():
      self.metrics.setdefault(name, []).append(values)
      count = len(values)
    self.count += count

  @property
  def input_bound(self) -> float:
    """Upper bound of the fraction of time spent waiting for data."""
    return self.waited / max(self.seconds, 1e-9)

  def summarize(self) -> dict[str, np.ndarray]:
    """Returns the means of the metrics."""
    means = {}
    for name, parts in self.metrics.items():
      # In float64, so that the mean does not depend on the parts.
      mean = np.mean(np.concatenate(parts), axis=0, dtype=np.float64)
      means[name] = mean.astype(parts[0].dtype)
    return means

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values from which `from_json` makes an equal object."""
    metrics = {}
    for name, parts in self.metrics.items():
      values = np.concatenate(parts)
      metrics[name] = {'dtype': str(values.dtype), 'values': values.tolist()}
    return {**vars(self), 'metrics': metrics}

  @classmethod
  def from_json(cls, entries: Mapping[str, Any]) -> 'Taken':
    """Makes it from what `to_json` returned."""
    metrics = {
      name: [np.array(entry['values'], entry['dtype'])]
      for name, entry in entries['metrics'].items()
    }
    return cls(**{**entries, 'metrics': metrics})


def check_finite(first: int, metrics: Mapping[str, np.ndarray]) -> None:
  """Raises NonFiniteError at the first step with a metric that is not finite.

  `metrics` are `[n]`, or `[n, N]` for N replicas, of the steps from `first` on.
  """
  finite = {
    name: np.isfinite(values).reshape(len(values), -1).all(axis=1)
    for name, values in metrics.items()
  }
  bad = np.flatnonzero(~np.all([*finite.values()], axis=0))
  if not len(bad):
    return
  broken = [name for name, flags in finite.items() if not flags[bad[0]]]
  # The total, only if it alone is not finite.
  terms = [name for name in broken if name != 'loss']
  raise NonFiniteError(first + int(bad[0]), tuple(terms or broken))


@jax.jit
def is_finite(tree: chex.ArrayTree) -> jax.Array:
  """Returns whether all floating-point numbers of a tree are finite."""
  checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
  return jnp.all(jnp.array(checks, bool))


def run(
  epoch_fn: Epoch,
  state: Any,
  epoch: int,
  taken: Taken,
  should_stop: Callable[[], bool] = lambda: False,
) -> Any:
  """Takes the steps of an epoch after those taken, part by part.

  While a part is computed the next one is queued on the devices, and the
  metrics of the previous one are read. The state's memory may be donated;
  `should_stop` is polled before each part.

  Raises NonFiniteError for metrics, or a state at the end, that are not finite.
  """
  begun = time.perf_counter()
  before, waited_before = taken.seconds, taken.waited
  waited, running = 0.0, []

  def finish():
    position, rows, metrics = running.pop(0)
    metrics = {k: v[rows] for k, v in jax.device_get(metrics).items()}
    taken.add(metrics)
    taken.seconds = before + time.perf_counter() - begun
    taken.waited = waited_before + waited
    check_finite(position, metrics)

  position, stopped = taken.count, False
  chunks = epoch_fn.chunks(epoch, position)
  while position < epoch_fn.steps and not stopped:
    asked = time.perf_counter()
    chunk = next(chunks)
    # Nothing was left to compute when the data arrived.
    if epoch_fn.is_fed and (
      not running or jax.tree.leaves(running[-1][2])[0].is_ready()
    ):
      waited += time.perf_counter() - asked
    end = chunk.first + chunk.count
    while position < end and not (stopped := should_stop()):
      count = min(epoch_fn.part_steps, end - position)
      bounds = make_bounds(position - chunk.first)
      bounds[1] = bounds[0] + count
      state, metrics = epoch_fn.run(
        state, epoch_fn.constants, chunk.rows, bounds
      )
      running.append((position, slice(*bounds), metrics))
      position += count
      if len(running) > 1:
        finish()
  while running:
    finish()
  chunks.close()
  # A gradient of the last step shows in no metric.
  if position == epoch_fn.steps and not np.asarray(is_finite(state)):
    raise NonFiniteError(position)
  return state
