"""Tests of jacsup_jax.types."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors


# Values.


def test_weights_default_to_the_papers():
  weights = config.LossWeights()
  # Section 3 and appendix A.1 of Lezama (2019).
  assert (weights.lambda_y, weights.lambda_diff) == (0.25, 0.1)
  assert weights.lambda_xcov == 1e-3
  assert weights.squared_xcov


@pytest.mark.parametrize(
    'name',
    [
        'lambda_y', 'lambda_diff', 'lambda_xcov', 'lambda_hsic',
        'lambda_orthogonal', 'lambda_orthogonal_factors', 'hsic_bandwidth',
    ],
)  # pyformat: disable
@pytest.mark.parametrize('value', [-1e-3, float('nan'), float('inf')])
def test_bad_weights_are_refused_by_name(name, value):
  with pytest.raises(errors.InputError, match=f'--{name} is {value}.*accepted'):
    config.LossWeights(**{name: value})


@pytest.mark.parametrize(
    'name',
    [
        field.name
        for field in dataclasses.fields(config.AttributeLossWeights)
        if field.name not in ('squared_xcov', 'supervision')
    ],
)
@pytest.mark.parametrize('value', [-1e-3, float('nan'), float('inf')])
def test_bad_weights_of_faces_are_refused_by_name(name, value):
  with pytest.raises(errors.InputError, match=f'--{name} is {value}.*accepted'):
    config.AttributeLossWeights(**{name: value})


def test_zero_weights_are_accepted():
  config.LossWeights(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ('lambda_y', 'lambda_diff', 'expected'),
    [(0.25, 0.0, True), (0.0, 0.1, True), (0.0, 0.0, False)],
)
def test_teacher_is_needed_for_either_term(lambda_y, lambda_diff, expected):
  assert config.LossWeights(lambda_y, lambda_diff).needs_teacher is expected


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'jacobian': 'chord'}, '--jacobian=chord'),
        ({'nodes': 0}, '--jacobian_nodes=0'),
        ({'num_swaps': 0}, '--num_swaps=0'),
        ({'jacobian': 'full', 'num_swaps': 2}, '--num_swaps=2'),
    ],
)
def test_bad_supervision_is_refused(changes, message):
  with pytest.raises(errors.InputError, match=f'{message}.*accepted'):
    config.Supervision(**changes)


def test_the_papers_supervision_is_one_swap():
  assert config.Supervision().is_one_swap
  # Nodes are of a path alone.
  assert config.Supervision(nodes=7).is_one_swap
  for changes in ({'jacobian': 'path'}, {'num_swaps': 2}, {'history': True}):
    assert not config.Supervision(**changes).is_one_swap


def test_replaced_weights_are_checked_too():
  with pytest.raises(errors.InputError):
    dataclasses.replace(config.LossWeights(), lambda_y=-1.0)


# Invariants.


def test_input_errors_are_value_errors():
  assert issubclass(errors.InputError, ValueError)


def test_codes_and_batches_are_pytrees():
  code = codes.Code(jnp.ones((2, 1)), jnp.ones((2, 3)))
  doubled = jax.tree.map(lambda x: 2 * x, code)
  assert isinstance(doubled, codes.Code)
  assert len(jax.tree.leaves(codes.Batch(code.factors, code.nuisance))) == 2


def test_config_is_frozen():
  stage = config.Stage('a', 'teacher', None, 0, 1, config.LossWeights())
  with pytest.raises(dataclasses.FrozenInstanceError):
    stage.epochs = 2
  # Static arguments of jit must hash.
  assert hash(stage) == hash(dataclasses.replace(stage))
