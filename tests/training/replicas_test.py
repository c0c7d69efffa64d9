"""Tests of jacsup_jax.training.replicas against runs alone."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.training import discovery
from jacsup_jax.training import replicas

FLAGS = discovery.DiscoveryConfig(
  batch_size=32, epochs=1, nuisance_dim=2, seed=3
)
WEIGHTS = (
  config.LossWeights(0.25, 0.1, 1e-3),
  config.LossWeights(0.0, 0.0, 1e-1),
)
STACKED = replicas.stack_weights(WEIGHTS)
TEACHER, *STUDENTS = discovery.make_stages(FLAGS)
STUDENTS = [dataclasses.replace(s, weights=STACKED) for s in STUDENTS]


@pytest.fixture(scope='module')
def images():
  # Digits, not noise: BatchNorm of the code of noise enlarges all rounding.
  return jnp.asarray(
    registry.load('mnist_embedded', 'test').images[:100, ::4, ::4]
  )


def _make_module(*sizes):
  return small_models.make_module(*sizes, shape=(7, 7, 1))


@pytest.fixture(scope='module')
def trained(images):
  """A teacher alone, and two sizes of students with two weights."""
  recipe = replicas.Replicas(FLAGS, _make_module, images)
  return small_models.train(recipe, [TEACHER, *STUDENTS])


def _assert_close(found, expected, tolerance):
  """Compares leaves by their largest entry."""
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert np.max(np.abs(a - b)) < tolerance * np.max(np.abs(b))


def test_one_replica_has_its_own_weights(trained):
  stack = trained[0]['student_d02']
  replica = replicas.take_replica(stack, 1)
  assert replica.stage.weights == WEIGHTS[1] and len(replica.sha256) == 64
  for leaf, stacked in zip(
    jax.tree.leaves(replica.variables), jax.tree.leaves(stack.variables)
  ):
    np.testing.assert_array_equal(leaf, stacked[1])
  chex.assert_trees_all_equal(
    replicas.take_model(stack.model, 1).params, replica.model.params
  )
  assert replicas.count_replicas(stack.stage) == 2
  assert replicas.count_replicas(TEACHER) is None


def test_metrics_have_a_value_for_each_replica(trained):
  assert trained[1]['student_d02']['loss'].shape == (2,)


@pytest.mark.parametrize(
  'weights', [(), (WEIGHTS[0], config.LossWeights(xcov='norm'))]
)
def test_weights_that_decide_what_is_computed_are_refused(weights):
  with pytest.raises(errors.InputError, match='replicas.*accepted'):
    replicas.stack_weights(weights)


def test_networks_that_look_at_swaps_are_refused(images):
  flags = dataclasses.replace(
    FLAGS,
    weights=config.LossWeights(lambda_check=1.0),
    checkers=('teacher', 'mixer'),
  )
  with pytest.raises(errors.InputError, match='--checkers=teacher,mixer.*once'):
    replicas.Replicas(flags, _make_module, images)


def test_a_replica_is_not_moved_by_the_others(trained, images):
  """Equal to the bit: no gradient of one reaches another."""
  others = (WEIGHTS[0], config.LossWeights(9.0, 9.0, 9.0))
  stage = dataclasses.replace(
    STUDENTS[0], weights=replicas.stack_weights(others)
  )
  recipe = replicas.Replicas(FLAGS, _make_module, images)
  changed, _ = small_models.train(recipe, [stage], [trained[0]['teacher']])
  for i, equal in enumerate((True, False)):
    a, b = (
      replicas.take_replica(each['student_d01'], i).sha256
      for each in (trained[0], changed)
    )
    assert (a == b) is equal


@pytest.mark.parametrize(('size', 'index'), [(0, 0), (0, 1), (1, 0)])
def test_replicas_equal_runs_alone(trained, images, size, index):
  parent = trained[0][('teacher', 'student_d01')[size]]
  if size:
    parent = replicas.take_replica(parent, index)
  stage = dataclasses.replace(STUDENTS[size], weights=WEIGHTS[index])
  alone = discovery.Discovery(FLAGS, _make_module, images)
  solo, _ = small_models.train(alone, [stage], [parent])
  own = replicas.take_replica(trained[0][stage.name], index)
  # Rounding of batched products, which training amplifies.
  _assert_close(own.variables, solo[stage.name].variables, 1e-4)


def test_teachers_of_each_step_or_cached_are_the_same(
  trained, images, monkeypatch
):
  monkeypatch.setattr(replicas, '_MAX_CACHE_BYTES', 0)
  recipe = replicas.Replicas(FLAGS, _make_module, images)
  in_step, _ = small_models.train(
    recipe, STUDENTS[1:], [trained[0]['student_d01']]
  )
  _assert_close(
    in_step['student_d02'].variables,
    trained[0]['student_d02'].variables,
    1e-4,
  )
