"""Tests of jacsup_jax.baselines.stargan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_gans

from jacsup_jax.baselines import stargan
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

MODULE = stargan.StarGan(2, 4, 8, 8, 16, residual_blocks=1)
# lambda_rec, lambda_cls and lambda_gp of the publication.
WEIGHTS = stargan.StarGanLossWeights(10.0, 1.0, 10.0)


@pytest.fixture(scope='module')
def run():
  return tiny_gans.begin(MODULE, stargan.StarGanSteps, WEIGHTS)


def test_objectives_are_those_of_numpy():
  terms = tiny_gans.compute_terms()
  for name in ('classification', 'edit_classification'):
    terms[name] *= 2  # Summed over attributes.
  tiny_gans.check_objectives(
    stargan,
    stargan.StarGanLossWeights(3.0, 5.0, 7.0),
    terms,
    {'cycle': 3, 'edit_classification': 5, 'adversarial': 1},
    {'classification': 5, 'gradient_penalty': 7, 'edit_score': 1},
  )


def test_description_and_defaults():
  assert stargan.StarGanLossWeights() == WEIGHTS
  assert models.make_module(models.describe_module(MODULE)) == MODULE
  shapes = jax.eval_shape(lambda: autoencoders.init_variables(MODULE, 0))
  # The encoder has no parameters, and nothing depends on the rest of a batch.
  assert {*shapes['params']} == {'decoder', 'discriminator'}
  assert shapes['batch_stats'] == {}


def test_other_numbers_of_attributes_are_refused():
  tiny_gans.check_refusals(MODULE, jnp.zeros((2, 8, 8, 3)))


@pytest.mark.slow  # AttGAN's are the same lines.
def test_steps_train_in_turn_and_depend_on_their_number_alone(run):
  tiny_gans.check_steps(run)


@pytest.mark.slow
def test_edits_show_the_sign_that_was_asked_for(run):
  state, _ = run.train(10)
  # InstanceNorm leaves little of a strength: more is not always stronger.
  images, code, *_ = tiny_gans.check_edits(MODULE, state)
  np.testing.assert_array_equal(code.nuisance, images)
  assert MODULE.nuisance_dim == images[0].size
