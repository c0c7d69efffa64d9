"""Tests of jacsup_jax.evaluation.predicted_labels."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.baselines import fader
from jacsup_jax.core import config
from jacsup_jax.evaluation import predicted_labels
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

SIZES = {'image_size': 8, 'first_width': 4, 'last_width': 4}


def _init(module, seed):
  return models.Model(module, **autoencoders.init_variables(module, seed))


def _trained(model, kind, seed=0, decode_labels=0.0):
  weights = config.AttributeLossWeights(decode_labels=decode_labels)
  stage = types.SimpleNamespace(model=kind, seed=seed, weights=weights)
  return types.SimpleNamespace(model=model, stage=stage)


def test_labels_are_what_the_predictor_says_by_its_thresholds():
  own = autoencoders.FaceAutoencoder(3, 2, factor_activation='tanh', **SIZES)
  predictor = _init(own, 0)
  rival = _init(fader.FaderAutoencoder(3, 2, **SIZES), 1)
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (9, 8, 8, 3)) * random.random((9, 1, 1, 3))
  images = images.astype(np.uint8)
  thresholds = jnp.array([0.0, 0.01, -2.0])  # All are above the last.
  version = predicted_labels.PredictedLabels(rival, predictor, thresholds)
  assert version.factors_are_labels and version.module is rival.module

  @jax.jit
  def compute(version, predictor):
    code = version.encode(images)
    return code, version.decode(code), predictor.encode(images).factors

  code, decoded, factors = compute(version, predictor)
  signs = np.where(factors >= thresholds[None], 1, -1)
  assert np.all(signs[:, 2] == 1)
  assert len(np.unique(signs, axis=0)) > 1
  np.testing.assert_array_equal(code.factors, signs)
  given = jax.jit(rival.encode)(images, jnp.asarray(signs))
  np.testing.assert_allclose(decoded, jax.jit(rival.decode)(given), atol=1e-6)


def test_a_model_that_predicts_factors_decodes_given_labels():
  own = autoencoders.FaceAutoencoder(3, 2, factor_activation='tanh', **SIZES)
  model = _init(own, 0)
  version = predicted_labels.GivenLabels(model)
  assert version.factors_are_labels and version.image_range == (-1.0, 1.0)
  images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
  labels = np.where(np.arange(12).reshape(4, 3) % 2, 1, -1)
  code = jax.jit(lambda own: own.encode(images, jnp.asarray(labels)))(version)
  np.testing.assert_array_equal(code.factors, labels)
  nuisance = jax.jit(model.encode)(images).nuisance
  np.testing.assert_allclose(code.nuisance, nuisance, atol=1e-6)


def test_versions_of_models_by_seed():
  model = _init(autoencoders.FaceAutoencoder(3, 2, **SIZES), 0)
  rival = _init(fader.FaderAutoencoder(3, 2, **SIZES), 0)
  models = [
    _trained(rival, 'fader'),
    _trained(model, 'teacher'),
    _trained(model, 'student', decode_labels=0.5),
    _trained(model, 'random', decode_labels=0.5),
    _trained(rival, 'fader', 1),
    _trained(model, 'random', 1),
  ]
  asked = []

  def find_thresholds(predictor):
    asked.append(predictor)
    return np.array([0.5, -1, 0], np.float32)

  models.insert(1, _trained(rival, 'attgan'))
  found = [*predicted_labels.list_versions(models, find_thresholds)]
  assert len(asked) == 1 and asked[0] is models[2]  # The teacher, once.
  named = [
    (each.stage.model, each.stage.seed, labels) for each, labels, _ in found
  ]
  assert named == [
      ('fader', 0, 'given'), ('fader', 0, 'predicted'),
      ('attgan', 0, 'given'), ('attgan', 0, 'predicted'),
      ('teacher', 0, 'predicted'), ('student', 0, 'predicted'),
      # Trained to decode labels as well.
      ('student', 0, 'given'), ('random', 0, 'predicted'),
      # A random model predicts nothing.
      ('fader', 1, 'given'), ('random', 1, 'predicted'),
  ]  # fmt: skip
  assert found[1][2].predictor is model and found[0][2] is rival
  np.testing.assert_array_equal(found[3][2].thresholds, [0.5, -1, 0])
