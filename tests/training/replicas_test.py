"""Tests of jacsup_jax.training.replicas against runs alone."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.training import discovery
from jacsup_jax.training import loop
from jacsup_jax.training import replicas
from jacsup_jax.training import steps

FLAGS = discovery.DiscoveryConfig(
  batch_size=32, epochs=1, nuisance_dim=2, seed=3
)
WEIGHTS = (
  config.LossWeights(0.25, 0.1, 1e-3),
  config.LossWeights(0.0, 0.0, 1e-1),
  config.LossWeights(1.0, 1.0, 1e-3),
)
STACKED = replicas.stack_weights(WEIGHTS)
TEACHER, *STUDENTS = discovery.make_stages(FLAGS)
STUDENTS = [dataclasses.replace(s, weights=STACKED) for s in STUDENTS]


@pytest.fixture(scope='module')
def images():
  # Digits, not noise: BatchNorm of the code of noise enlarges all rounding.
  return jnp.asarray(registry.load('mnist_embedded', 'test').images[:330])


def _make_module(num_factors, nuisance_dim, is_first):
  return autoencoders.MlpAutoencoder(
    num_factors, nuisance_dim, is_first, widths=(64, 32)
  )


def _train(recipe, stages, given=()):
  """Trains stages in memory; returns them by name, and the last metrics."""
  trained = {each.stage.name: each for each in given}
  for stage in stages:
    module, state = recipe.create(stage, trained)
    epoch_fn, taken = recipe.make_epoch(stage, module, trained), loop.Taken()
    epoch = int(state.step) // recipe.steps_per_epoch
    state = loop.run(epoch_fn, state, epoch, taken)
    trained[stage.name] = steps.Trained(stage, module, jax.device_get(state))
  return trained, taken.metrics


@pytest.fixture(scope='module')
def trained(images):
  """A teacher alone, and two sizes of students with three weights."""
  recipe = replicas.Replicas(FLAGS, _make_module, images)
  return _train(recipe, [TEACHER, *STUDENTS])


def _assert_close(found, expected, tolerance):
  """Compares leaves by their largest entry."""
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert np.max(np.abs(a - b)) < tolerance * np.max(np.abs(b))


# Values.


def test_one_replica_has_its_own_weights(trained):
  stack = trained[0]['student_d02']
  replica = replicas.take_replica(stack, 2)
  assert replica.stage.weights == WEIGHTS[2] and len(replica.sha256) == 64
  for leaf, stacked in zip(
    jax.tree.leaves(replica.variables), jax.tree.leaves(stack.variables)
  ):
    np.testing.assert_array_equal(leaf, stacked[2])
  chex.assert_trees_all_equal(
    replicas.take_model(stack.model, 2).params, replica.model.params
  )
  assert replicas.count_replicas(stack.stage) == 3
  assert replicas.count_replicas(TEACHER) is None


def test_metrics_have_a_value_for_each_replica(trained):
  assert trained[1]['loss'][0].shape == (10, 3)


@pytest.mark.parametrize(
  'weights', [(), (WEIGHTS[0], config.LossWeights(xcov='norm'))]
)
def test_weights_that_decide_what_is_computed_are_refused(weights):
  with pytest.raises(errors.InputError, match='replicas.*accepted'):
    replicas.stack_weights(weights)


# Gradients.


def test_a_replica_is_not_moved_by_the_others(trained, images):
  """Equal to the bit: no gradient of one reaches another."""
  others = (WEIGHTS[0], config.LossWeights(9.0, 9.0, 9.0), WEIGHTS[2])
  stage = dataclasses.replace(
    STUDENTS[0], weights=replicas.stack_weights(others)
  )
  recipe = replicas.Replicas(FLAGS, _make_module, images)
  changed, _ = _train(recipe, [stage], [trained[0]['teacher']])
  for i, equal in enumerate((True, False, True)):
    a, b = (
      replicas.take_replica(each['student_d01'], i).sha256
      for each in (trained[0], changed)
    )
    assert (a == b) is equal


# Invariants.


def test_replicas_equal_runs_alone(trained, images):
  alone = discovery.Discovery(FLAGS, _make_module, images)
  for i, weights in enumerate(WEIGHTS):
    own = {
      name: replicas.take_replica(each, i) if name != 'teacher' else each
      for name, each in trained[0].items()
    }
    for stage, parent in zip(STUDENTS, ('teacher', 'student_d01')):
      stage = dataclasses.replace(stage, weights=weights)
      solo, _ = _train(alone, [stage], [own[parent]])
      # Rounding of batched products, which training amplifies.
      _assert_close(own[stage.name].variables, solo[stage.name].variables, 1e-4)


@pytest.mark.slow
def test_replicas_may_have_their_own_seeds(images):
  stage = dataclasses.replace(
    TEACHER, weights=replicas.stack_weights([WEIGHTS[0]] * 2)
  )
  student = dataclasses.replace(STUDENTS[0], weights=stage.weights)
  recipe = replicas.Replicas(FLAGS, _make_module, images, seeds=(3, 5))
  found, _ = _train(recipe, [stage, student])
  alone = discovery.Discovery(FLAGS, _make_module, images)
  for i, seed in enumerate((3, 5)):
    chain = [dataclasses.replace(s, seed=seed) for s in (TEACHER, STUDENTS[0])]
    chain = [dataclasses.replace(s, weights=WEIGHTS[0]) for s in chain]
    solo, _ = _train(alone, chain)
    own = replicas.take_replica(found['student_d01'], i)
    flatten = lambda tree: np.concatenate(
      [np.ravel(leaf) for leaf in jax.tree.leaves(tree.state.params)]
    )
    a, b = flatten(own), flatten(solo['student_d01'])
    # Adam enlarges the rounding of biases before BatchNorm, which have no
    # gradient; other seeds are as far apart as their initialisation.
    assert np.linalg.norm(a - b) < 1e-2 * np.linalg.norm(b)
    assert np.linalg.norm(
      flatten(replicas.take_replica(found['student_d01'], 1 - i)) - b
    ) > 0.5 * np.linalg.norm(b)


def test_teachers_of_each_step_or_cached_are_the_same(
  trained, images, monkeypatch
):
  monkeypatch.setattr(replicas, '_MAX_CACHE_BYTES', 0)
  recipe = replicas.Replicas(FLAGS, _make_module, images)
  in_step, _ = _train(recipe, STUDENTS[1:], [trained[0]['student_d01']])
  _assert_close(
    in_step['student_d02'].variables,
    trained[0]['student_d02'].variables,
    1e-4,
  )  # pyformat: disable
