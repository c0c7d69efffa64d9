"""Tests of jacsup_jax.baselines.cvae."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import short_runs
import small_rivals

from jacsup_jax.baselines import cvae
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import model as models
from jacsup_jax.training import steps

MODULE = cvae.CvaeAutoencoder(2, 3, 8, 8)


@pytest.fixture(scope='module')
def run():
  return small_rivals.Run(
    MODULE, cvae.CvaeSteps, cvae.CvaeLossWeights(0.5), small_rivals.draw(64, 8)
  )


@pytest.fixture(scope='module')
def model(run):
  return run.bind(run.train(12)[0])


@jax.jit
def _apply(params, stats, inputs):
  """Returns mean and log variance, and what is decoded from a sample."""
  apply = functools.partial(models.apply_train, MODULE, params, stats)
  (mean, log_variance), _ = apply('infer', inputs.images, inputs.attributes)
  sample = mean + jnp.sqrt(jnp.exp(log_variance)) * inputs.noise
  decoded, _ = apply('decode', codes.Code(inputs.attributes, sample))
  return mean, log_variance, decoded


def test_step_descends_the_lower_bound_with_drawn_noise(run):
  inputs, before = run.first_inputs(), run.state
  noise = batches.step_noise(0, 0, (16, 2, 2, 3))
  np.testing.assert_array_equal(inputs.noise, noise)
  after, metrics = run.take(1)
  outputs = _apply(before.params, before.batch_stats, inputs)
  mean, log_variance, decoded = map(np.asarray, outputs)
  terms = mean**2 + np.exp(log_variance) - 1 - log_variance
  divergence = terms.sum(axis=(1, 2, 3)) / 2
  squares = np.square(decoded - inputs.images).sum(axis=(1, 2, 3))
  for name, values in {
    'divergence': divergence,
    'reconstruction': squares / (8 * 8 * 3),
    'loss': squares / 2 + 0.5 * divergence,
  }.items():
    np.testing.assert_allclose(metrics[name], np.mean(values), rtol=1e-4)
  changed = short_runs.differing_parts(before, after)
  assert changed == {'encoder', 'decoder', 'posterior'}


def test_learning_rate_falls_to_zero_at_the_end(run):
  state = run.state._replace(step=jnp.int32(7))
  step = functools.partial(
    cvae.train_step,
    module=MODULE,
    weights=cvae.CvaeLossWeights(),
    optimizer=steps.make_optimizer(config.Optimization()),
  )
  for num_steps, moving in ((7, set()), (14, set(state.params))):
    after, _ = jax.jit(functools.partial(step, num_steps=num_steps))(
      state, run.first_inputs()
    )
    assert short_runs.differing_parts(state, after) == moving


def test_factors_are_labels_that_the_decoder_follows(run, model):
  code = jax.jit(models.Model.encode)(
    model, run.dataset.images, run.dataset.labels
  )
  np.testing.assert_array_equal(code.factors, run.dataset.labels)
  chex.assert_shape(code.nuisance, (64, 2, 2, 3))
  assert models.make_module(models.describe_module(MODULE)) == MODULE
  once, twice = small_rivals.change(model, run.dataset)
  assert np.all(once > 0.05) and np.all(twice > once)


def test_other_numbers_of_attributes_are_refused(run, model):
  with pytest.raises(AssertionError, match='shape'):
    model.encode(run.dataset.images[:2], jnp.ones((2, 3)))
