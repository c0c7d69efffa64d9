"""Tests of jacsup_jax.core.config, options and errors."""

import dataclasses

import jax
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.core import errors


def _numbers(cls):
  fields = dataclasses.fields(cls)
  return [(cls, f.name) for f in fields if f.type in (float, float | None)]


# Values.


def test_weights_default_to_the_papers():
  weights = config.LossWeights()
  # Section 3 and appendix A.1 of Lezama (2019).
  assert (weights.lambda_y, weights.lambda_diff) == (0.25, 0.1)
  assert (weights.lambda_xcov, weights.xcov) == (1e-3, 'squared')


@pytest.mark.parametrize(
  ('cls', 'name'),
  [
    *_numbers(config.LossWeights),
    *_numbers(config.AttributeLossWeights),
    *_numbers(config.NeighborWeights),
    *_numbers(config.Optimization),
  ],
)
@pytest.mark.parametrize('value', [-1e-3, float('nan'), float('inf')])
def test_bad_numbers_are_refused_by_name(cls, name, value):
  with pytest.raises(errors.InputError, match=f'--{name}={value}; accepted: '):
    cls(**{name: value})


@pytest.mark.parametrize(
  ('cls', 'changes', 'message'),
  [
    (config.Supervision, {'jacobian': 'chord'}, '--jacobian=chord'),
    (config.Supervision, {'jacobian_nodes': 0}, '--jacobian_nodes=0'),
    (config.Supervision, {'num_swaps': 0}, '--num_swaps=0'),
    (
      config.Supervision,
      {'jacobian': 'full', 'num_swaps': 2},
      '--num_swaps=2 with --jacobian=full',
    ),
    (config.Ramp, {'ramp': 'steep'}, '--ramp=steep'),
    (config.Ramp, {'ramp_start': 1.5}, '--ramp_start=1.5'),
    (config.Ramp, {'ramp_epochs': 0}, '--ramp_epochs=0'),
    (config.LossWeights, {'hsic_bandwidth': 0.0}, '--hsic_bandwidth=0'),
    (config.Optimization, {'adam_b1': 1.0}, '--adam_b1=1.0'),
    (config.Optimization, {'optimizer': 'sgd'}, '--optimizer=sgd'),
  ],
)
def test_bad_values_are_refused(cls, changes, message):
  with pytest.raises(errors.InputError, match=f'{message}.*accepted'):
    cls(**changes)


def test_lists_of_choices_are_refused_by_entry_and_repetition():
  @dataclasses.dataclass(frozen=True)
  class Flags:
    names: tuple[str, ...] = config.option(('a',), 'Names.', choices=('a', 'b'))

    def __post_init__(self):
      config.check(self)

  assert Flags(('b', 'a')).names == ('b', 'a')
  for wrong in (('c',), ('a', 'a')):
    with pytest.raises(errors.InputError, match='--names=.*a, b, each at most'):
      Flags(wrong)


@pytest.mark.parametrize(
  ('weights', 'expected'),
  [
    ((0.25, 0.0), True),
    ((0.0, 0.1), True),
    ((0.0, 0.0), False),
    ((np.array([0.0, 1.0]), 0.0), True),
  ],
)
def test_teacher_is_needed_for_either_term(weights, expected):
  assert config.LossWeights(*weights).needs_teacher is expected
  assert config.LossWeights(0.0, 0.0, lambda_check=0.1).needs_teacher


@pytest.mark.parametrize('size', [0, 4, 48, 8192])
def test_sizes_of_faces_are_powers_of_two(size):
  config.check_image_size(64)
  with pytest.raises(errors.InputError, match=f'--image_size={size}'):
    config.check_image_size(size)


# Invariants.


@pytest.mark.parametrize(
  'weights',
  [
    config.LossWeights(
      supervision=config.Supervision('path', 5), ramp=config.Ramp('linear')
    ),
    config.AttributeLossWeights(lambda_y=1.0),
    config.LossWeights(np.array([0.0, 0.5])),
  ],
)
def test_stages_survive_json(weights):
  stage = config.Stage('a', 'student', 'b', 3, 2, weights, 'c', seed=4)
  again = config.Stage.from_json(stage.to_json())
  assert dataclasses.replace(again, weights=None) == dataclasses.replace(
    stage, weights=None
  )
  assert type(again.weights) is type(weights)
  jax.tree.map(np.testing.assert_array_equal, again.weights, weights)


def test_stages_of_other_entries_are_refused():
  entries = config.Stage('a', 'b', None, 0, 1, config.LossWeights()).to_json()
  no_kind = entries | {'weights': {'kind': 'None'}}
  for wrong in ({}, no_kind, entries | {'x': 1}):
    with pytest.raises(errors.InputError, match='stage of a manifest'):
      config.Stage.from_json(wrong)


def test_messages_are_one_safe_line():
  error = errors.InputError('two\nlines and \x1b[31m' + 'x' * 5000)
  assert '\n' not in str(error) and '\x1b' not in str(error)
  assert len(str(error)) < 2100
  assert issubclass(errors.InputError, ValueError)
