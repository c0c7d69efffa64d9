"""Tests of jacsup_jax.training.loop."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.training import loop

ROWS = jnp.arange(7.0)
STATE = jnp.linspace(0.1, 0.9, 5)


def _step(state, row):
  """A step that is not linear, so that order and rounding show."""
  state = jnp.sin(state) * 1.1 + row * 0.37
  return state, {'loss': state.sum(), 'rows': jnp.array([row, 2 * row])}


def _compile(unroll):
  return jax.jit(
    lambda state, rows, bounds: loop.loop_steps(
      _step, state, rows, bounds, unroll=unroll
    )
  )


COMPILED = {unroll: _compile(unroll) for unroll in (1, 2)}


def _run(state, bounds, unroll=2):
  return COMPILED[unroll](state, ROWS, bounds)


def _make_epoch(run=_run, part_steps=2):
  def chunks(epoch, unused_first):
    yield loop.Chunk(0, 7, ROWS)

  take = lambda state, constants, rows, bounds: run(state, bounds)
  return loop.Epoch(7, take, None, chunks, part_steps)


@pytest.mark.parametrize('unroll', [1, 2])
def test_all_rows_are_those_of_a_scan(unroll):
  expected = jax.jit(lambda state: jax.lax.scan(_step, state, ROWS))(STATE)
  found = _run(STATE, loop.make_bounds(), unroll=unroll)
  # The loop's copies of a step are compiled separately.
  chex.assert_trees_all_close(found, expected, rtol=1e-6)
  assert found[1]['rows'].shape == (7, 2)


def test_steps_beyond_the_bounds_are_not_taken():
  state, metrics = _run(STATE, loop.make_bounds(2, 5))
  expected = STATE
  for row in (2.0, 3.0, 4.0):
    expected, _ = _step(expected, row)
  np.testing.assert_allclose(state, expected, rtol=1e-6)
  np.testing.assert_array_equal(metrics['rows'][:, 0], [0, 0, 2, 3, 4, 0, 0])
  same, metrics = _run(STATE, loop.make_bounds(3, 3))
  np.testing.assert_array_equal(same, STATE)
  assert not metrics['loss'].any()


def test_means_are_those_of_all_steps():
  taken = loop.Taken()
  taken.add({'a': np.array([1.0, 2.0], np.float32), 'b': np.ones((2, 3))})
  taken.add({'a': np.array([6.0], np.float32), 'b': 4 * np.ones((1, 3))})
  means = taken.summarize()
  assert means['a'] == 3.0 and means['a'].dtype == np.float32
  np.testing.assert_array_equal(means['b'], [2.0, 2.0, 2.0])
  assert taken.count == 3


@pytest.mark.parametrize(
  ('bad', 'step', 'terms', 'message'),
  [
    ({'a': 2}, 12, ('a',), 'a is not finite'),
    ({'a': 1, 'b': 1, 'loss': 1}, 11, ('a', 'b'), 'a and b are not finite'),
    ({'b': 3, 'loss': 2}, 12, ('loss',), 'loss is not finite'),
  ],
)
def test_first_bad_step_and_its_terms_are_named(bad, step, terms, message):
  metrics = {name: np.ones((5, 2)) for name in ('loss', 'a', 'b')}
  loop.check_finite(10, metrics)
  for i, (name, row) in enumerate(bad.items()):
    metrics[name][row, i % 2] = np.nan if i else np.inf
  with pytest.raises(loop.NonFiniteError, match=message) as error:
    loop.check_finite(10, metrics)
  assert (error.value.step, error.value.terms) == (step, terms)
  assert isinstance(error.value, errors.RunError)


def test_state_after_the_last_step_is_checked():
  def run(state, bounds):
    state, metrics = _run(state, bounds)
    return jnp.where(bounds[1] == 7, jnp.nan, state), metrics

  with pytest.raises(loop.NonFiniteError, match='the state after') as error:
    loop.run(_make_epoch(run), STATE, 0, loop.Taken())
  assert error.value.step == 7
  assert loop.is_finite({'a': jnp.ones(2), 'b': jnp.arange(3)})
  assert loop.is_finite({}) and not loop.is_finite([jnp.array([1, np.inf])])


@pytest.mark.parametrize('parts', [(2, 4, 1), (6, 1), (2, 2, 2, 1)])
def test_parts_are_the_whole_to_the_last_bit(parts):
  expected, whole = _run(STATE, loop.make_bounds())
  state, metrics = STATE, []
  for first, last in itertools.pairwise(np.cumsum((0, *parts))):
    state, found = _run(state, loop.make_bounds(first, last))
    metrics.append({k: v[first:last] for k, v in found.items()})
  chex.assert_trees_all_equal(state, expected)
  for name, values in whole.items():
    np.testing.assert_array_equal(
      np.concatenate([part[name] for part in metrics]), values
    )
  # How many steps is data, not shape.
  size = COMPILED[2]._cache_size()
  _run(STATE, loop.make_bounds(1, 4))
  assert COMPILED[2]._cache_size() == size


def test_an_interrupted_epoch_continues_to_the_same():
  whole = loop.Taken()
  expected = loop.run(_make_epoch(), STATE, 3, whole)
  polls = iter([False, False, True])
  taken = loop.Taken()
  state = loop.run(
    _make_epoch(), STATE, 3, taken, should_stop=lambda: next(polls)
  )
  assert taken.count == 4
  again = loop.Taken.from_json(taken.to_json())
  assert again.count == 4
  state = loop.run(_make_epoch(), state, 3, again)
  chex.assert_trees_all_equal(state, expected)
  chex.assert_trees_all_equal(again.summarize(), whole.summarize())
  # The same means without a stop.
  state, means = _make_epoch()(STATE, 3)
  chex.assert_trees_all_equal((state, means), (expected, whole.summarize()))


def test_every_part_is_checked_before_the_next_but_one():
  begun = []

  def run(state, bounds):
    begun.append(int(bounds[0]))
    state, metrics = _run(state, bounds)
    return state, {**metrics, 'loss': metrics['loss'].at[2].set(jnp.nan)}

  with pytest.raises(loop.NonFiniteError) as error:
    loop.run(_make_epoch(run), STATE, 0, loop.Taken())
  # Two parts are queued, and no more.
  assert error.value.step == 2 and begun == [0, 2, 4]


def test_chunks_are_read_from_the_first_step_on():
  asked = []

  def chunks(epoch, first):
    asked.append(first)
    for start in range(first // 3 * 3, 7, 3):
      rows = ROWS[start : start + 3]
      yield loop.Chunk(start, len(rows), rows)

  def run(state, constants, rows, bounds):
    assert constants == 'constants'
    return COMPILED[1](state, rows, bounds)

  epoch_fn = loop.Epoch(7, run, 'constants', chunks, 2, is_fed=True)
  whole, parted = loop.Taken(), loop.Taken()
  expected = loop.run(epoch_fn, STATE, 0, whole)
  polls = iter([False] * 3 + [True])
  state = loop.run(epoch_fn, STATE, 0, parted, should_stop=lambda: next(polls))
  assert parted.count == 5
  state = loop.run(epoch_fn, state, 0, parted)
  assert asked == [0, 0, 5]
  chex.assert_trees_all_equal(state, expected)
  np.testing.assert_array_equal(
    np.concatenate(parted.metrics['rows'])[:, 0], ROWS
  )
  assert 0 <= whole.input_bound <= 1
