"""Tests of jacsup_jax.training.distillation."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import augmentation
from jacsup_jax.data import batches
from jacsup_jax.models import model as models
from jacsup_jax.training import distillation
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

NAMES = ('patches', 'mixer')
IMAGES = np.kron(small_models.IMAGES, np.ones((1, 2, 2, 1), np.uint8))
# Brightness above and below the middle.
FACTORS = np.stack(
  [IMAGES[:, :4].mean((1, 2, 3)), IMAGES[:, 4:].mean((1, 2, 3))], axis=1
).astype(np.float32)
FACTORS = (FACTORS - FACTORS.mean(0)) / FACTORS.std(0)


def _plan(name, **changes):
  module = small_models.make_module(2, 0, True, shape=(8, 8, 1))
  stage = config.Stage(
    'teacher', 'teacher', None, 0, 1, config.LossWeights(), seed=3
  )
  teacher = steps.Trained(stage, module, None, 'abc')
  [plan] = distillation.plan(
    (name,), teacher, epochs=20, batch_size=8, dtype='float32'
  )
  return dataclasses.replace(plan, **changes)


@pytest.mark.parametrize('name', NAMES)
def test_distillation_learns_the_factors(name):
  losses = []
  network = _plan(name).distill(
    IMAGES, FACTORS, lambda *found: losses.append(found)
  )
  assert [row[:3] for row in losses] == [(name, i + 1, 20) for i in range(20)]
  # Factors of variance 1 that are guessed have an error of 1.
  assert losses[-1][3] < 0.5 * losses[0][3] and losses[-1][3] < 0.8
  assert network.loss == losses[-1][3] and len(network.sha256) == 64


def test_its_loss_is_that_of_augmented_images_and_factors_of_the_unchanged():
  # Of one step, before it: that of the network as it starts.
  plan = _plan('mixer', epochs=1, batch_size=40)
  network = plan.distill(IMAGES, FACTORS)
  start = jax.jit(plan.module.init)(jax.random.key(3), jnp.zeros((1, 8, 8, 1)))
  [rows] = batches.epoch_indices(3, 0, 40, 40)
  draws = distillation.draw(3, 0, 40, (8, 8, 1))
  images = jnp.asarray(IMAGES[rows] / np.float32(255))
  seen = jax.jit(plan.module.apply)(start, augmentation.augment(images, draws))
  expected = np.mean((seen - FACTORS[rows]) ** 2)
  np.testing.assert_allclose(network.loss, expected, rtol=1e-5)


def test_the_same_plan_gives_the_same_bits_and_another_seed_does_not():
  make = lambda **changes: _plan('patches', epochs=2, **changes).distill(
    IMAGES, FACTORS
  )
  first = make()
  assert make().sha256 == first.sha256 != make(seed=4).sha256


def test_a_description_is_json_and_has_what_a_network_depends_on():
  plan = _plan('patches')
  described = plan.describe()
  assert json.loads(json.dumps(described)) == described
  assert described['teacher_sha256'] == 'abc'
  assert {*described} == {
    *('name', 'module', 'teacher', 'teacher_sha256', 'seed', 'epochs'),
    *('batch_size', 'loss', 'sha256'),
  }
  assert models.make_module(described['module']) == plan.module


def test_factors_that_are_not_finite_end_it_with_a_line():
  with pytest.raises(errors.RunError, match='--checkers=mixer.*not finite'):
    _plan('mixer').distill(IMAGES, np.inf * FACTORS)


def test_images_are_shifted_by_a_fourteenth():
  draws = distillation.draw(0, 1, 500, (28, 28, 1))
  assert set(np.ravel(draws.shifts).tolist()) == {-2, -1, 0, 1, 2}
  images = jnp.ones((500, 28, 28, 1))
  checker = objectives.Checker({}, draws)
  identity = dataclasses.make_dataclass('Identity', [])
  identity.apply = lambda self, variables, x: x
  np.testing.assert_array_equal(checker.look(identity(), images), images)


def test_images_of_other_sizes_are_refused():
  module = small_models.make_module(2, 0, shape=(8, 10, 1))
  teacher = steps.Trained(None, module, None)
  with pytest.raises(errors.InputError, match='images of 8x10; accepted'):
    distillation.plan(
      ('mixer',), teacher, epochs=1, batch_size=8, dtype='float32'
    )
