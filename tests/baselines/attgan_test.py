"""Tests of jacsup_jax.baselines.attgan."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_gans

from jacsup_jax.baselines import attgan
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

MODULE = attgan.AttGan(2, 4, 8, 8, 8, discriminator_hidden=16)
# lambda_1 to lambda_3 of the publication, and the penalty's.
WEIGHTS = attgan.AttGanLossWeights(100.0, 10.0, 1.0, 10.0)


@pytest.fixture(scope='module')
def run():
  return tiny_gans.begin(MODULE, attgan.AttGanSteps, WEIGHTS)


def test_objectives_are_those_of_numpy():
  terms = tiny_gans.compute_terms()
  terms['reconstruction'] = terms['error']
  tiny_gans.check_objectives(
    attgan,
    attgan.AttGanLossWeights(3.0, 5.0, 7.0, 11.0),
    terms,
    {'reconstruction': 3, 'edit_classification': 5, 'adversarial': 1},
    {'classification': 7, 'gradient_penalty': 11, 'edit_score': 1},
  )


def test_description_and_defaults():
  assert attgan.AttGanLossWeights() == WEIGHTS
  assert models.make_module(models.describe_module(MODULE)) == MODULE
  shapes = jax.eval_shape(lambda: autoencoders.init_variables(MODULE, 0))
  assert {*shapes['params']} == {'encoder', 'decoder', 'discriminator'}
  # Nothing of the discriminator depends on the rest of a batch.
  assert 'discriminator' not in shapes['batch_stats']


def test_other_numbers_of_attributes_are_refused():
  tiny_gans.check_refusals(MODULE, jnp.zeros((2, MODULE.nuisance_dim)))


def test_steps_train_in_turn_and_depend_on_their_number_alone(run):
  tiny_gans.check_steps(run)


@pytest.mark.slow
def test_edits_show_the_sign_that_was_asked_for(run):
  state, _ = run.train(10)
  images, code, reconstructions, (one, three) = tiny_gans.check_edits(
    MODULE, state
  )
  assert one < three  # The change, by strength.
  # The last map, and the one before it.
  chex.assert_shape(code.nuisance, (64, 2 * 2 * 4 + 4 * 4 * 8))
  assert MODULE.nuisance_dim == code.nuisance.shape[1]
  assert np.mean(np.square(images - reconstructions)) < 0.1
