"""Tests of jacsup_jax.evaluation.unit_choice.

Oracle: a code of which two units are the digit's place, and a score that knows
it. Anti-oracle: a score that no choice changes.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.baselines import class_xcov
from jacsup_jax.baselines import gaussian
from jacsup_jax.core import config
from jacsup_jax.evaluation import unit_choice
from jacsup_jax.models import autoencoders
from jacsup_jax.models import latents
from jacsup_jax.models import model as models
from jacsup_jax.training import steps

SIZES = {'num_factors': 2, 'nuisance_dim': 2}
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)


def _init(network):
  module = network(**SIZES, image_shape=(4, 4, 1), widths=(6,))
  return models.Model(module, **autoencoders.init_variables(module, 0))


def _with_code(model, kernel, bias):
  """Returns a model with factors on the columns of its code's layer."""
  code = model.params['encoder']['code']
  new = {'kernel': code['kernel'] * kernel, 'bias': jnp.asarray(bias)}
  encoder = {**model.params['encoder'], 'code': new}
  return dataclasses.replace(model, params={**model.params, 'encoder': encoder})


def _trained(model, name='x', epochs=1):
  stage = config.Stage(name, name, None, 2, epochs, config.Weights())
  state = steps.TrainState(1, model.params, model.batch_stats, ())
  return steps.Trained(stage, model.module, state, 'sha')


def _order(model):
  return tuple(np.asarray(model.batch_stats['order']).tolist())


def test_own_units_have_the_largest_divergence():
  # Means of 0, 1, 3 and 2 and variances of 1, in all images.
  model = _with_code(
    _init(gaussian.GaussianAutoencoder), 0.0, [0, 1, 3, 2, 0, 0, 0, 0.0]
  )
  way, weigh = unit_choice.find_strengths(model)
  assert way == 'largest_divergence'
  found = weigh(model, IMAGES)
  np.testing.assert_allclose(found, [0, 0.5, 4.5, 2], atol=1e-6)
  assert unit_choice.choose_strongest(model, found) == (2, 3)


def test_own_units_of_others_have_the_largest_variance():
  model = _with_code(
    _init(latents.UnorderedAutoencoder),
    jnp.array([[3.0, 0.0, 9.0, 0.1]]),
    [0, 50, 0, 0.0],
  )
  way, weigh = unit_choice.find_strengths(model)
  assert way == 'largest_variance'
  found = np.asarray(weigh(model, IMAGES))
  units = np.asarray(model.encode(IMAGES).factors)
  np.testing.assert_allclose(found[:2], units.var(axis=0), rtol=1e-4, atol=1e-6)
  # A large mean is none, and choosing factors does not change the ranking.
  assert found[1] == pytest.approx(0, abs=1e-4)
  other = latents.choose_factors(model, (3, 1))
  np.testing.assert_allclose(weigh(other, IMAGES), found, rtol=1e-6)


def test_the_best_pair_is_what_a_score_says():
  model = _init(latents.UnorderedAutoencoder)
  right = lambda model: len({*_order(model)[:2]} & {1, 3}) / 2
  assert unit_choice.choose_best(model, right) == (1, 3)
  # Nothing can be said of a model without judged pairs: the first pair.
  assert unit_choice.choose_best(model, lambda model: None) == (0, 1)


def test_versions_of_models():
  free = _trained(_init(latents.UnorderedAutoencoder), 'free')
  random = _trained(free.model, 'random', 0)
  named = _trained(_init(class_xcov.ClassAutoencoder), 'named')
  score = lambda model: float(_order(model)[:2] == (0, 2))
  list_versions = lambda **options: [
    (own.stage.name, _order(own.model)[:2] if entries else None, entries)
    for own, entries in unit_choice.list_versions(
      [free, named, random], IMAGES, score, **options
    )
  ]
  first, second, *others = list_versions()
  assert first[2]['units'] == 'largest_variance'
  assert second == (
    'free', (0, 2), {'units': 'validation', 'factor_units': [0, 2]}
  )  # fmt: skip
  assert others == [('named', None, {}), ('random', None, {})]
  # Choices of a run hold, and others may be asked for.
  versions = list_versions(
    given=(3, 1), recorded={('free', 'validation'): [1, 2]}
  )
  assert [entries for _, _, entries in versions[1:3]] == [
    {'units': 'validation', 'factor_units': [1, 2]},
    {'units': 'given', 'factor_units': [3, 1]},
  ]
  assert versions[2][1] == (3, 1)
