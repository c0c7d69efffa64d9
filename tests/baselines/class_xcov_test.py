"""Tests of jacsup_jax.baselines.class_xcov."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny_codes

from jacsup_jax.baselines import class_xcov
from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps

INPUTS = tiny_codes.make_inputs()


def _objective(weights):
  return class_xcov.ClassXcovSteps(None, weights, None, 8, 100, 64).objective


def test_factors_are_probabilities_of_classes():
  model = tiny_codes.init(class_xcov.ClassAutoencoder)
  assert not model.has_free_units and not model.factors_are_labels
  logits, nuisance = latent_steps.apply(model, 'infer', INPUTS.images)
  code = model.encode(INPUTS.images)
  np.testing.assert_allclose(code.factors, jax.nn.softmax(logits), rtol=1e-6)
  np.testing.assert_allclose(code.factors.sum(axis=1), 1, rtol=1e-6)
  np.testing.assert_array_equal(code.nuisance, nuisance)


def test_loss_by_its_terms():
  model = tiny_codes.init(class_xcov.ClassAutoencoder)
  code = model.encode(INPUTS.images)
  squares = np.square(model.decode(code) - INPUTS.images).sum(axis=(1, 2, 3))
  right = np.asarray(code.factors)[np.arange(8), INPUTS.labels]
  centred = [x - x.mean(axis=0) for x in map(np.asarray, code)]
  covariance = np.square(centred[0].T @ centred[1] / 8).sum()
  objective = _objective(field.ClassXcovWeights(4.0, 3.0))
  loss, metrics = objective(model, INPUTS)
  wanted = squares.mean() - 3 * np.log(right).mean() + 4 * 0.5 * covariance
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['class_cross_entropy'], -np.log(right).mean(), rtol=1e-5
  )
  assert jnp.isfinite(loss)


def test_classes_are_learnt():
  run = tiny_codes.Run(field.ClassXcovWeights(), 20)
  state, _ = run.train(20)
  code = run.bind(state).encode(run.dataset.images)
  assert np.mean(code.factors.argmax(axis=1) == run.dataset.labels) > 0.9
