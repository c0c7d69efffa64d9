"""Tests of jacsup_jax.epochs."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.training import loop as epochs

ROWS = jnp.arange(7.0)


def _step(state, row):
  """Not linear, so that order and rounding show."""
  state = jnp.sin(state) * 1.1 + row * 0.37
  return state, {'loss': state.sum(), 'rows': jnp.array([row, 2 * row])}


def _compile(unroll=2):
  return jax.jit(
      lambda state, bounds: epochs.loop_steps(
          _step, state, ROWS, bounds, unroll=unroll
      )
  )


def _make_epoch(run=None, steps=7):
  run = run or _compile()
  return epochs.make_resident(
      steps, lambda state, epoch, bounds: run(state + epoch, bounds)
  )


STATE = jnp.linspace(0.1, 0.9, 5)


# Values.


@pytest.mark.parametrize('unroll', [1, 2])
def test_all_rows_are_those_of_a_scan(unroll):
  expected = jax.jit(lambda state: jax.lax.scan(_step, state, ROWS))(STATE)
  found = _compile(unroll)(STATE, epochs.make_bounds())
  # The loop's copies of a step are compiled by themselves.
  chex.assert_trees_all_close(found, expected, rtol=1e-6)
  of_none = jax.jit(lambda state: epochs.loop_steps(_step, state, ROWS, None))
  chex.assert_trees_all_close(of_none(STATE), expected, rtol=1e-6)
  assert found[1]['rows'].shape == (7, 2)


def test_steps_beyond_the_bounds_are_not_taken():
  state, metrics = _compile()(STATE, epochs.make_bounds(2, 5))
  expected = STATE
  for row in (2.0, 3.0, 4.0):
    expected, _ = _step(expected, row)
  np.testing.assert_allclose(state, expected, rtol=1e-6)
  np.testing.assert_array_equal(metrics['rows'][:, 0], [0, 0, 2, 3, 4, 0, 0])
  same, metrics = _compile()(STATE, epochs.make_bounds(3, 3))
  np.testing.assert_array_equal(same, STATE)
  assert not metrics['loss'].any()


def test_means_are_those_of_all_steps():
  taken = epochs.Taken()
  taken.add({'a': np.array([1.0, 2.0], np.float32), 'b': np.ones((2, 3))})
  taken.add({'a': np.array([6.0], np.float32), 'b': 4 * np.ones((1, 3))})
  means = taken.summarize()
  assert means['a'] == 3.0 and means['a'].dtype == np.float32
  np.testing.assert_array_equal(means['b'], [2.0, 2.0, 2.0])
  assert taken.count == 3


def test_pace_has_parts_of_some_seconds():
  pace = epochs.Pace(seconds=1.0)
  assert pace.choose(1000) == 4
  pace.tell(4, 40.0)  # With compiling.
  assert pace.choose(1000) == 2
  for _ in range(4):
    steps = pace.choose(1000)
    pace.tell(steps, steps * 0.01)
  assert pace.choose(1000) == 100
  # A last step is not left alone; the end may be odd.
  assert pace.choose(101) == 101 and pace.choose(99) == 99
  assert pace.choose(102) == 100
  pace.tell(100, 10.0)
  assert pace.choose(1000) == 10


# Invariants.


@pytest.mark.parametrize('parts', [(2, 4, 1), (6, 1), (4, 2, 1), (2, 2, 2, 1)])
def test_parts_are_the_whole_to_the_last_bit(parts):
  run = _compile()
  expected, whole = run(STATE, epochs.make_bounds())
  state, metrics = STATE, []
  for first, last in itertools.pairwise(np.cumsum((0, *parts))):
    state, found = run(state, epochs.make_bounds(first, last))
    metrics.append({k: v[first:last] for k, v in found.items()})
  chex.assert_trees_all_equal(state, expected)
  for name, values in whole.items():
    np.testing.assert_array_equal(
        np.concatenate([part[name] for part in metrics]), values
    )


def test_bounds_compile_nothing():
  run = _compile()
  for first, last in ((0, 7), (2, 4), (6, 7), (0, 0)):
    run(STATE, epochs.make_bounds(first, last))
  assert run._cache_size() == 1


def test_a_stopped_epoch_goes_on_to_the_same():
  epoch_fn = _make_epoch()
  whole = epochs.Taken()
  expected = epochs.run(epoch_fn, STATE, 3, whole)
  counts = iter([2, 2, 0])
  taken = epochs.Taken()
  # What an epoch adds to the state is added once a part here.
  epoch_fn = epochs.make_resident(
      7, lambda state, epoch, bounds: (
          _compile()(state + (epoch if bounds[0] == 0 else 0), bounds)
      )
  )  # pyformat: disable
  state = epochs.run(
      epoch_fn, STATE, 3, taken, choose=lambda most: next(counts)
  )
  assert taken.count == 4
  again = epochs.Taken.from_json(taken.to_json())
  assert again.count == 4
  state = epochs.run(epoch_fn, state, 3, again)
  chex.assert_trees_all_equal(state, expected)
  chex.assert_trees_all_equal(again.summarize(), whole.summarize())


def test_no_more_than_two_parts_are_at_the_devices():
  log = []

  def run(state, epoch, bounds):
    log.append('begun')
    return _compile()(state, bounds)

  epochs.run(
      epochs.make_resident(7, run), STATE, 0, epochs.Taken(),
      choose=lambda most: min(most, 2),
      tell=lambda steps, seconds: log.append('ended'),
  )  # pyformat: disable
  running = np.cumsum([1 if entry == 'begun' else -1 for entry in log])
  assert max(running) == 2 and running[-1] == 0


def test_every_part_is_checked_before_the_next_but_one():
  seen = []

  def check(first, metrics):
    seen.append((first, len(metrics['loss'])))
    if len(seen) == 2:
      raise FloatingPointError

  with pytest.raises(FloatingPointError):
    epochs.run(
        _make_epoch(), STATE, 0, epochs.Taken(),
        choose=lambda most: min(most, 2), check=check,
    )  # pyformat: disable
  assert seen == [(0, 2), (2, 2)]


def test_last_stops_an_epoch():
  taken = epochs.Taken()
  epochs.run(_make_epoch(), STATE, 0, taken, last=4)
  assert taken.count == 4
  assert epochs.run(_make_epoch(), STATE, 0, taken, last=4) is STATE


def test_chunks_are_read_from_the_first_step_on():
  asked = []

  def chunks(epoch, first):
    asked.append(first)
    for start in range(first // 3 * 3, 7, 3):
      rows = ROWS[start : start + 3]
      run = jax.jit(functools.partial(_run_rows, rows))
      yield epochs.Chunk(start, len(rows), run)

  epoch_fn = epochs.Epoch(7, chunks, is_fed=True)
  whole, parted = epochs.Taken(), epochs.Taken()
  expected = epochs.run(epoch_fn, STATE, 0, whole)
  state = epochs.run(epoch_fn, STATE, 0, parted, last=4)
  state = epochs.run(epoch_fn, state, 0, parted)
  assert asked == [0, 0, 4]
  chex.assert_trees_all_equal(state, expected)
  np.testing.assert_array_equal(
      np.concatenate(parted.metrics['rows'])[:, 0], ROWS
  )
  assert 0 <= whole.input_bound <= 1


def _run_rows(rows, state, bounds):
  return epochs.loop_steps(_step, state, rows, bounds)
