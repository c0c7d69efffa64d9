"""Tests of jacsup_jax.attribute_objectives."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import codes as latents
from jacsup_jax.core import config
from jacsup_jax.core import losses
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import attribute_objectives
from jacsup_jax.training import objectives

MODEL = networks.FaceAutoencoder(
    num_factors=2, nuisance_channels=3, image_size=8, first_width=4,
    last_width=4,
)  # pyformat: disable
WEIGHTS = config.AttributeLossWeights(
    lambda_reconstruction=2.0,
    lambda_prediction=3.0,
    lambda_xcov=5.0,
    lambda_attribute_cycle=7.0,
    lambda_nuisance_cycle=11.0,
    lambda_y=13.0,
    lambda_diff=17.0,
)
PERMUTATION = jnp.array([3, 0, 1, 2])


@pytest.fixture(scope='module')
def variables():
  return networks.init_variables(MODEL, 0, MODEL.image_shape)


@pytest.fixture(scope='module')
def images():
  return jax.random.uniform(jax.random.key(1), (4, 8, 8, 3), minval=-1.0)


@pytest.fixture(scope='module')
def attributes():
  return jnp.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@functools.partial(jax.jit, static_argnames='method')
def _apply(variables, x, method):
  """A method in training mode, without new statistics."""
  y, _ = MODEL.apply(
      variables, x, train=True, method=method, mutable='batch_stats'
  )
  return y


@pytest.fixture(scope='module')
def own_outputs(variables, images):
  """What a model makes of images and their swap, each by its own statistics."""
  code = _apply(variables, images, 'encode')
  swapped = latents.swap_factors(code, PERMUTATION)
  return codes.TeacherOutputs(
      code.factors,
      _apply(variables, code, 'decode'),
      _apply(variables, swapped, 'decode'),
  )


@functools.cache
def _objective(name):
  function = getattr(attribute_objectives, name)
  return jax.jit(functools.partial(function, model=MODEL, weights=WEIGHTS))


# Values.


def test_teacher_sums_its_weighted_terms(variables, images, attributes):
  loss, (metrics, _) = _objective('teacher_objective')(
      variables['params'], variables['batch_stats'], images, attributes
  )
  code = _apply(variables, images, 'encode')
  decoded = _apply(variables, code, 'decode')
  expected = {
      'reconstruction': jnp.mean(jnp.square(images - decoded)),
      'attribute_hinge': jnp.mean(
          jnp.maximum(1 - code.factors * attributes, 0)
      ),
      'cross_covariance': losses.cross_covariance_loss(*code),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
  np.testing.assert_allclose(
      loss,
      2 * expected['reconstruction']
      + 3 * expected['attribute_hinge']
      + 5 * expected['cross_covariance'],
      rtol=1e-5,
  )
  assert set(metrics) == {'loss', *expected}


def test_student_adds_the_terms_of_its_teacher(
    variables, images, attributes, own_outputs
):
  # A teacher whose factors are 1 less and whose change is 0.5 larger.
  teacher = codes.TeacherOutputs(
      own_outputs.factors - 1,
      own_outputs.images,
      own_outputs.swapped_images + 0.5,
  )
  args = (variables['params'], variables['batch_stats'], images, attributes)
  without, _ = _objective('teacher_objective')(*args)
  loss, (metrics, _) = _objective('student_objective')(
      *args, teacher, PERMUTATION
  )
  np.testing.assert_allclose(metrics['factor_matching'], 1.0, rtol=1e-5)
  np.testing.assert_allclose(metrics['jacobian'], 0.25, rtol=1e-5)
  np.testing.assert_allclose(loss, without + 13 + 17 * 0.25, rtol=1e-5)


@pytest.mark.parametrize('name', ['tangent', 'path', 'full'])
def test_student_is_supervised_in_other_ways(
    variables, images, attributes, own_outputs, name
):
  supervision = config.Supervision(name, nodes=2)
  weights = dataclasses.replace(WEIGHTS, supervision=supervision)
  code = own_outputs.factors, _apply(variables, images, 'encode').nuisance
  _, own = objectives.compute_changes(
      functools.partial(_apply, variables, method='decode'),
      codes.Code(*code),
      PERMUTATION,
      supervision,
  )
  # A teacher whose factors are 1 less and whose every change is 0.5 larger.
  teacher = codes.TeacherOutputs(own_outputs.factors - 1, None, None, own + 0.5)
  _, (metrics, _) = jax.jit(
      functools.partial(
          attribute_objectives.student_objective, model=MODEL, weights=weights
      )
  )(
      variables['params'],
      variables['batch_stats'],
      images,
      attributes,
      teacher,
      PERMUTATION,
  )
  np.testing.assert_allclose(metrics['factor_matching'], 1.0, rtol=1e-5)
  # Once a factor.
  count = MODEL.num_factors if name == 'full' else 1
  np.testing.assert_allclose(metrics['jacobian'], 0.25 * count, rtol=1e-3)
  assert own.shape == (count, *images.shape)


def test_cycle_compares_codes_with_those_found_again(variables, images):
  loss, (metrics, _) = _objective('cycle_objective')(
      variables['params'], variables['batch_stats'], images, PERMUTATION
  )
  code = _apply(variables, images, 'encode')
  swapped = latents.swap_factors(code, PERMUTATION)
  cycled = _apply(variables, _apply(variables, swapped, 'decode'), 'encode')
  attribute_cycle = jnp.mean(
      jnp.maximum(1 - swapped.factors * cycled.factors, 0)
  )
  # Sum over the 2 x 2 x 3 units, mean over the 4 images.
  nuisance_cycle = jnp.sum(jnp.square(code.nuisance - cycled.nuisance)) / 4
  np.testing.assert_allclose(
      metrics['attribute_cycle'], attribute_cycle, rtol=1e-4
  )
  np.testing.assert_allclose(
      metrics['nuisance_cycle'], nuisance_cycle, rtol=1e-4
  )
  np.testing.assert_allclose(
      loss, 7 * attribute_cycle + 11 * nuisance_cycle, rtol=1e-4
  )


# Gradients.


def test_cycle_reaches_the_decoder_alone(variables, images):
  grads, _ = jax.grad(_objective('cycle_objective'), has_aux=True)(
      variables['params'], variables['batch_stats'], images, PERMUTATION
  )
  for leaf in jax.tree.leaves(grads['encoder']):
    np.testing.assert_array_equal(leaf, 0.0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads['decoder']):
    assert np.any(leaf != 0), path


def test_student_reaches_all_of_its_parameters(
    variables, images, attributes, own_outputs
):
  teacher = jax.tree.map(lambda x: x + 0.1, own_outputs)
  grads, _ = jax.grad(_objective('student_objective'), has_aux=True)(
      variables['params'],
      variables['batch_stats'],
      images,
      attributes,
      teacher,
      PERMUTATION,
  )
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


# Invariants.


def test_student_equal_to_its_teacher_has_no_terms_of_it(
    variables, images, attributes, own_outputs
):
  _, (metrics, _) = _objective('student_objective')(
      variables['params'],
      variables['batch_stats'],
      images,
      attributes,
      own_outputs,
      PERMUTATION,
  )
  np.testing.assert_allclose(metrics['factor_matching'], 0.0, atol=1e-10)
  np.testing.assert_allclose(metrics['jacobian'], 0.0, atol=1e-10)


def test_running_statistics_follow_real_images_alone(
    variables, images, attributes, own_outputs
):
  args = (variables['params'], variables['batch_stats'], images)
  _, (_, of_teacher) = _objective('teacher_objective')(*args, attributes)
  _, (_, of_student) = _objective('student_objective')(
      *args, attributes, own_outputs, PERMUTATION
  )
  _, (_, of_cycle) = _objective('cycle_objective')(*args, PERMUTATION)
  chex.assert_trees_all_equal(of_student, of_teacher)
  chex.assert_trees_all_equal(of_cycle, variables['batch_stats'])
  # Of both parts.
  for part in ('encoder', 'decoder'):
    for new, old in zip(
        jax.tree.leaves(of_teacher[part]),
        jax.tree.leaves(variables['batch_stats'][part]),
    ):
      assert np.any(new != old)
