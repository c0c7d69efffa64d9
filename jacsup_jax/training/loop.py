"""An epoch in parts, between which a run may stop and later go on.

One program takes any number of steps: how many is not of its shape, so that
stopping anywhere compiles nothing. The steps are the same to the last bit,
wherever an epoch is parted.
"""

from collections.abc import Callable, Iterator
import dataclasses
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes

# (state, row) -> (state, metrics).
StepFn = Callable[[Any, Any], tuple[Any, codes.Metrics]]
# (steps that a part may have at most) -> how many; 0 stops the epoch.
ChooseFn = Callable[[int], int]
# (step of the epoch, metrics of steps from there on `[n, ...]`) -> None.
CheckFn = Callable[[int, dict[str, np.ndarray]], None]

# Steps that are told one from another by nothing but their place in a pair.
_UNROLL = 2
# Of a part. Two may have to end before a run stops.
_PART_SECONDS = 1.5
_FIRST_STEPS = 4
_GROWTH = 8
# A bound of programs that is no bound.
_ALL = 2**31 - 1


def loop_steps(
    step: StepFn,
    state: chex.ArrayTree,
    rows: chex.ArrayTree,
    bounds: jax.Array | None,
    *,
    unroll: int = 1,
) -> tuple[chex.ArrayTree, codes.Metrics]:
  """Takes a step per row, of all rows or of those within bounds.

  Args:
    step: `(state, row) -> (state, metrics)`.
    state: before the first step.
    rows: `[n, ...]` arrays.
    bounds: `[2]` int, the first row and the one after the last; what is beyond
      the rows is left out. None takes all, as one `lax.scan`.
    unroll: steps in the loop's body, 1 or 2. With 2 bounds are to be even,
      but for the end: then a step is always the same copy of the body, and
      the same to the last bit.

  Returns:
    The state after the last step, and metrics `[n, ...]`; those of rows that
    no step was taken for are 0.
  """
  if bounds is None:
    return jax.lax.scan(step, state, rows, unroll=unroll)
  # Traced once for its three copies, and in their place.
  step = jax.jit(step, inline=True)
  count = jax.tree.leaves(rows)[0].shape[0]
  take = lambda i: jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), rows
  )
  _, shapes = jax.eval_shape(step, state, take(0))
  metrics = jax.tree.map(
      lambda x: jnp.zeros((count, *x.shape), x.dtype), shapes
  )

  def body(i, carry):
    state, metrics = carry
    state, new = step(state, take(i))
    put = lambda all_steps, one: jax.lax.dynamic_update_index_in_dim(
        all_steps, one, i, 0
    )
    return state, jax.tree.map(put, metrics, new)

  first, last = bounds[0], jnp.minimum(bounds[1], count)
  carry = (state, metrics)
  if unroll == 2:
    pairs = (last - first) // 2
    carry = jax.lax.fori_loop(
        0,
        pairs,
        lambda j, c: body(first + 2 * j + 1, body(first + 2 * j, c)),
        carry,
    )
    first += 2 * pairs
  return jax.lax.fori_loop(first, last, body, carry)


def make_bounds(first: int = 0, last: int = _ALL) -> np.ndarray:
  """Returns `[2]` int32 of `loop_steps`; all rows by default."""
  return np.array([first, last], np.int32)


class Chunk(NamedTuple):
  """Steps of an epoch whose data are read together.

  Attributes:
    first: step of the epoch, of its first row.
    count: of rows.
    run: `(state, bounds) -> (state, metrics)`, compiled; bounds count from the
      first row of the chunk. It may take its state's memory.
  """

  first: int
  count: int
  run: Callable[[Any, np.ndarray], tuple[Any, codes.Metrics]]


@dataclasses.dataclass(frozen=True)
class Epoch:
  """What an epoch of a stage does.

  Attributes:
    steps: how many it has.
    chunks: `(epoch, first) -> chunks`, from that on which has the step `first`.
    is_fed: data come while it runs; else they are at the devices.
    examine: `(state, epoch, step) -> {name: whether it is finite}`, of what
      the next step of a state uses and finds; see `numerics`. None if that is
      not known.
  """

  steps: int
  chunks: Callable[[int, int], Iterator[Chunk]]
  is_fed: bool = False
  examine: Callable[[Any, int, int], dict[str, bool]] | None = None

  def __call__(self, state: Any, epoch: int) -> tuple[Any, codes.Metrics]:
    """Takes all steps of an epoch, and returns the means of their metrics."""
    taken = Taken()
    state = run(self, state, epoch, taken)
    bound = {'input_bound': taken.input_bound} if self.is_fed else {}
    return state, {**taken.summarize(), **bound}


def make_resident(
    steps: int,
    run_epoch: Callable[
        [Any, int, np.ndarray], tuple[Any, codes.Metrics]
    ],
    examine: Callable[[Any, int, int], dict[str, bool]] | None = None,
) -> Epoch:
  """Makes an epoch whose data are all at the devices: one chunk.

  Args:
    steps: of the epoch.
    run_epoch: `(state, epoch, bounds) -> (state, metrics)`, compiled.
    examine: see `Epoch`.
  """

  def chunks(epoch, unused_first):
    yield Chunk(0, steps, lambda state, bounds: run_epoch(state, epoch, bounds))

  return Epoch(steps, chunks, examine=examine)


@dataclasses.dataclass
class Taken:
  """What is known of the steps of an epoch that were taken.

  Attributes:
    count: of steps, from the first on.
    metrics: by name, a list of `[n, ...]` of consecutive steps.
    seconds: that they took, if they were taken by several runs by all.
    waited: of these, with nothing to compute until data came.
  """

  count: int = 0
  metrics: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  waited: float = 0.0

  def add(self, metrics: dict[str, np.ndarray]) -> None:
    """Adds metrics `[n, ...]` of the steps that follow."""
    for name, values in metrics.items():
      self.metrics.setdefault(name, []).append(values)
      count = len(values)
    self.count += count

  @property
  def input_bound(self) -> float:
    """At most the share of the time in which nothing was left to compute."""
    return self.waited / max(self.seconds, 1e-9)

  def summarize(self) -> dict[str, np.ndarray]:
    """Returns the means of the metrics."""
    return {
        # In float64, so that it does not hang on how the epoch was parted.
        name: np.mean(np.concatenate(parts), axis=0, dtype=np.float64).astype(
            parts[0].dtype
        )
        for name, parts in self.metrics.items()
    }

  def to_json(self) -> dict[str, Any]:
    """Returns what JSON has, from which `from_json` makes the same."""
    return {
        'count': self.count,
        'seconds': self.seconds,
        'waited': self.waited,
        'metrics': {
            name: {
                'dtype': str(parts[0].dtype),
                'values': np.concatenate(parts).tolist(),
            }
            for name, parts in self.metrics.items()
        },
    }

  @classmethod
  def from_json(cls, entries: dict[str, Any]) -> 'Taken':
    """Makes it from what `to_json` returned."""
    return cls(
        count=entries['count'],
        seconds=entries['seconds'],
        waited=entries['waited'],
        metrics={
            name: [np.array(entry['values'], entry['dtype'])]
            for name, entry in entries['metrics'].items()
        },
    )


class Pace:
  """Chooses parts that take some seconds, by those before.

  Devices are slow or fast, and so is what else they do.
  """

  def __init__(self, seconds: float = _PART_SECONDS):
    self._seconds = seconds
    self._steps = _FIRST_STEPS

  def choose(self, most: int) -> int:
    """Returns how many steps to take, at most so many."""
    # Even, but at the end: see loop_steps.
    return most if most <= self._steps + 1 else self._steps

  def tell(self, steps: int, seconds: float) -> None:
    """Takes note of the time of a part."""
    asked = steps * self._seconds / max(seconds, 1e-6)
    steps = min(asked, _GROWTH * self._steps, _ALL // 4)
    self._steps = max(2, int(steps) // 2 * 2)


def run(
    epoch_fn: Epoch,
    state: Any,
    epoch: int,
    taken: Taken,
    *,
    choose: ChooseFn = lambda most: most,
    last: int | None = None,
    check: CheckFn = lambda first, metrics: None,
    tell: Callable[[int, float], None] = lambda steps, seconds: None,
) -> Any:
  """Takes the steps of an epoch that are left, part by part.

  While a part is computed the next one is at the devices already, and what the
  one before it found is read.

  Args:
    epoch_fn: what an epoch does.
    state: after the steps that were taken; it may be taken over.
    epoch: which one.
    taken: of it; it grows.
    choose: says how many steps the next part has; 0 stops.
    last: step of the epoch to stop before; None takes all.
    check: is given the metrics of every part; it may raise.
    tell: is given the steps and seconds of parts that have ended.

  Returns:
    The state after the last step that was taken.
  """
  begun = ended = time.perf_counter()
  before, waited_before = taken.seconds, taken.waited
  waited, running = 0.0, []

  def finish():
    nonlocal ended
    position, rows, metrics = running.pop(0)
    # The devices are not kept waiting: they have the next part.
    metrics = {k: v[rows] for k, v in jax.device_get(metrics).items()}
    count = rows.stop - rows.start
    now = time.perf_counter()
    tell(count, now - ended)
    ended = now
    taken.add(metrics)
    taken.seconds = before + now - begun
    taken.waited = waited_before + waited
    check(position, metrics)

  position = taken.count
  last = epoch_fn.steps if last is None else last
  chunks = epoch_fn.chunks(epoch, position)
  stopped = False
  while position < last and not stopped:
    asked = time.perf_counter()
    chunk = next(chunks)
    if epoch_fn.is_fed and (
        # Nothing was left to compute when it came, or there was nothing yet.
        not running
        or jax.tree.leaves(running[-1][2])[0].is_ready()
    ):
      waited += time.perf_counter() - asked
    end = min(last, chunk.first + chunk.count)
    while position < end:
      count = choose(end - position)
      if not count:
        stopped = True
        break
      first = position - chunk.first
      state, metrics = chunk.run(state, make_bounds(first, first + count))
      running.append((position, slice(first, first + count), metrics))
      position += count
      # One is computed, and one is at the devices already. More would only take
      # memory, and time when it is to stop.
      if len(running) > 1:
        finish()
  while running:
    finish()
  chunks.close()
  return state
