"""Tests of jacsup_jax.baselines.icgan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import short_runs
import small_rivals

from jacsup_jax.baselines import icgan
from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.models import model as models

# Of 16 pixels: below, the discriminator has no layer that sees both its inputs.
MODULE = icgan.IcganAutoencoder(2, 3, 16, 4, 8)


@pytest.fixture(scope='module')
def run():
  return small_rivals.Run(
    MODULE,
    icgan.IcganSteps,
    icgan.IcganLossWeights(0.25),
    small_rivals.draw(64, 16),
  )


@pytest.fixture(scope='module')
def model(run):
  return run.bind(run.train(12)[0])


def test_losses_are_cross_entropies():
  logits = np.array([[2.0, -1.0], [0.5, 3.0], [-4.0, 1.0]])
  real, wrong, generated = 1 / (1 + np.exp(-logits))
  found = icgan.discriminator_loss(*logits, np.array([0.25, 0]), 0.75)
  expected = -np.log(real) - 0.75 * np.log(1 - generated)
  expected -= [0.25, 0] * np.log(1 - wrong)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  found = icgan.generator_loss(logits[2])
  np.testing.assert_allclose(found, -np.log(generated), rtol=1e-5)
  # It does not saturate where the discriminator is sure.
  assert jax.grad(icgan.generator_loss)(-100.0) == -1


@jax.jit
def _apply(params, stats, inputs):
  """Returns what the losses of a step are computed from."""
  apply = lambda *args: models.apply_train(MODULE, params, stats, *args)[0]
  images, labels = inputs.images, inputs.attributes
  generated = apply('decode', codes.Code(labels, inputs.noise))
  wrong = labels[inputs.permutations[0]]
  pairs = (images, labels), (images, wrong), (generated, labels)
  logits = [apply('discriminate', *pair) for pair in pairs]
  nuisance = apply('encode_nuisance', generated)
  return *logits, nuisance, apply('encode_factors', images)


def test_metrics_are_those_of_numpy(run):
  inputs = run.first_inputs()
  noise = batches.step_noise(0, 0, (16, 2, 2, 3))
  [partners] = batches.step_permutations(0, 0, 16, 1)
  after, metrics = run.take(1)
  params, stats = run.state.params, run.state.batch_stats
  real, wrong, generated, nuisance, factors = _apply(params, stats, inputs)
  labels, softplus = inputs.attributes, lambda x: np.log1p(np.exp(x))
  differs = np.any(labels[partners] != labels, axis=1)
  assert 0 < differs.mean() < 1
  pairs = softplus(-real) + 0.25 * differs * softplus(wrong)
  # The generator meets the updated discriminator.
  params = {**params, 'discriminator': after.params['discriminator']}
  fooled = _apply(params, stats, inputs)[2]
  for name, values in {
    'discriminator': pairs + 0.75 * softplus(generated),
    'generator': softplus(-fooled),
    'nuisance_error': (noise - nuisance) ** 2,
    'factor_error': (labels - factors) ** 2,
  }.items():
    np.testing.assert_allclose(metrics[name], np.mean(values), rtol=1e-4)
  assert np.abs(fooled - generated).max() > 1e-3


def test_parts_reach_only_those_trained_on_them(run):
  expected, _ = run.take(1)
  for opt_state in expected.opt_state.values():  # Each is updated once.
    assert [s.count for s in opt_state if hasattr(s, 'mu')] == [1]
  reached = {'discriminator': {'decoder'}}
  reached['decoder'] = {'discriminator', 'encoder'}
  for part, params in run.state.params.items():
    params = {**run.state.params, part: jax.tree.map(lambda x: 1.1 * x, params)}
    found, _ = run.take(1, run.state._replace(params=params))
    differ = short_runs.differing_parts(found, expected)
    assert differ == {part} | reached.get(part, set())


def test_decoder_follows_factors_that_the_encoder_predicts(run, model):
  assert models.make_module(models.describe_module(MODULE)) == MODULE
  # Of the first attribute: the generator follows the second one later.
  once, twice = small_rivals.change(model, run.dataset)[:, 0]
  assert 0.1 < once < twice


def test_other_numbers_of_attributes_are_refused(model):
  labels = jnp.ones((2, 3))
  for method, *args in (
    ('discriminate', jnp.zeros((2, 16, 16, 3)), labels),
    ('decode', codes.Code(labels, jnp.zeros((2, 2, 2, 3)))),
  ):
    with pytest.raises(AssertionError, match='shape'):
      MODULE.apply(model.variables, *args, method=method)
