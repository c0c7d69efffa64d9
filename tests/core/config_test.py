"""Tests of jacsup_jax.core.config, options and errors."""

import dataclasses

import jax
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.core import errors


def test_weights_default_to_the_papers():
  weights = config.LossWeights()
  # Section 3 and appendix A.1 of Lezama (2019).
  assert (weights.lambda_y, weights.lambda_diff) == (0.25, 0.1)
  assert (weights.lambda_xcov, weights.xcov) == (1e-3, 'squared')


@pytest.mark.parametrize(
  ('cls', 'name'),
  [
    (cls, field.name)
    for cls in (*config.Weights.__subclasses__(), config.Optimization)
    for field in dataclasses.fields(cls)
    if field.type in (float, float | None)
  ],
)
def test_bad_numbers_are_refused_by_name(cls, name):
  for value in (-1e-3, float('nan'), float('inf')):
    with pytest.raises(errors.InputError, match=f'--{name}={value}; accepted'):
      cls(**{name: value})


@pytest.mark.parametrize(
  ('cls', 'changes'),
  [
    (config.Supervision, {'jacobian': 'chord'}),
    (config.Supervision, {'jacobian_nodes': 0}),
    (config.Supervision, {'num_swaps': 2, 'jacobian': 'full'}),
    (config.Ramp, {'ramp_start': 1.5}),
    (config.Ramp, {'ramp_epochs': 0}),
    (config.LossWeights, {'hsic_bandwidth': 0}),
    (config.Optimization, {'adam_b1': 1.0}),
  ],
)
def test_bad_values_are_refused(cls, changes):
  name, value = next(iter(changes.items()))
  with pytest.raises(errors.InputError, match=f'--{name}={value}.*accepted'):
    cls(**changes)


def test_lists_of_choices_are_refused_by_entry_and_repetition():
  @dataclasses.dataclass(frozen=True)
  class Flags(config.Options):
    names: tuple[str, ...] = config.option(('a',), 'Names.', choices=('a', 'b'))

  assert Flags(('b', 'a')).names == ('b', 'a')
  for wrong in (('c',), ('a', 'a')):
    with pytest.raises(errors.InputError, match='--names=.*a, b, each at most'):
      Flags(wrong)


def test_teacher_is_needed_for_either_term():
  for weights in ((0.25, 0.0), (0.0, 0.1), (np.array([0.0, 1.0]), 0.0)):
    assert config.LossWeights(*weights).needs_teacher
  assert config.LossWeights(0.0, 0.0, lambda_check=0.1).needs_teacher
  assert not config.LossWeights(0.0, 0.0).needs_teacher


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


def test_stages_of_older_runs_get_defaults():
  weights = config.AttributeLossWeights(lambda_y=1.0)
  stage = config.Stage('a', 'b', None, 0, 1, weights)
  entries = stage.to_json()
  del entries['weights']['lambda_edit_check']
  assert config.Stage.from_json(entries) == stage


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
