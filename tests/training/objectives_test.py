"""Tests of jacsup_jax.training.objectives, for digits."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import growth
from jacsup_jax.core import jacobian
from jacsup_jax.core import losses
from jacsup_jax.core import regularizers
from jacsup_jax.data import augmentation
from jacsup_jax.models import model as models
from jacsup_jax.training import objectives

IMAGES = jax.random.uniform(jax.random.key(0), (8, *small_models.SHAPE))
PERMUTATION = jnp.array([3, 0, 1, 2, 7, 4, 5, 6])
SWAPS = PERMUTATION[None]
WEIGHTS = config.LossWeights(0.5, 2.0, 10.0)


STUDENT = small_models.init(2, 1)
TEACHER = small_models.init(2, 0, seed=1)


@functools.partial(jax.jit, static_argnames='supervision')
def _outputs(teacher, swaps=SWAPS, supervision=config.Supervision()):
  return objectives.compute_teacher_outputs(
    teacher.encode, teacher.decode, IMAGES, swaps, supervision
  )


@functools.partial(
  jax.jit,
  static_argnames=('weights', 'module', 'teacher_module', 'checker_modules'),
)
def _student(
  params,
  inputs,
  weights=WEIGHTS,
  module=STUDENT.module,
  teacher_module=None,
  checker_modules=(),
):
  loss, (metrics, _) = objectives.student_objective(
    params,
    {},
    inputs,
    module=module,
    weights=weights,
    teacher_module=teacher_module,
    checker_modules=checker_modules,
  )
  return loss, metrics


def _supervised(params, teacher=TEACHER, swaps=SWAPS, weights=WEIGHTS):
  outputs = _outputs(teacher, swaps, weights.supervision)
  inputs = objectives.Inputs(IMAGES, swaps, outputs)
  return _student(params, inputs, weights)


def test_teacher_minimises_its_reconstruction_error():
  model = small_models.init(2, 0, True)
  loss, (metrics, stats) = objectives.teacher_objective(
    model.params,
    model.batch_stats,
    objectives.Inputs(IMAGES),
    module=model.module,
  )
  code, moved = models.apply_train(
    model.module, model.params, model.batch_stats, 'encode', IMAGES
  )
  expected = np.mean((IMAGES - model.decode(code)) ** 2)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert metrics == {'loss': loss, 'reconstruction': loss}
  jax.tree.map(np.testing.assert_array_equal, stats, moved)
  assert np.all(stats['encoder']['code_norm']['mean'] != 0)


def test_student_loss_is_the_weighted_sum_of_its_terms():
  outputs = _outputs(TEACHER)
  loss, metrics = _supervised(STUDENT.params)
  code = STUDENT.encode(IMAGES)
  images = STUDENT.decode(code)
  swapped = STUDENT.decode(codes.swap_factors(code, PERMUTATION))
  decoded = TEACHER.decode(TEACHER.encode(IMAGES))
  change = (swapped - images) - (decoded[PERMUTATION] - decoded)
  expected = {
    'factor_matching': np.mean((code.factors - outputs.factors) ** 2),
    'jacobian': np.mean(change**2),
    'reconstruction': np.mean((IMAGES - images) ** 2),
    'cross_covariance': losses.cross_covariance_loss(*code),
  }
  assert set(metrics) == {'loss', *expected}
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4)
  # (8) + 0.5 and 2 times the parts of (9) + 10 times (10).
  weights = (0.5, 2.0, 1.0, 10.0)
  total = sum(w * metrics[name] for w, name in zip(weights, expected))
  np.testing.assert_allclose(loss, total, rtol=1e-6)


def _checked(params, teacher, weights=WEIGHTS, networks=(), module=None):
  """Adds the swap check, with a weight of 3."""
  weights = dataclasses.replace(weights, lambda_check=3.0)
  outputs = _outputs(teacher, SWAPS, weights.supervision)
  outputs = outputs._replace(variables=teacher.variables)
  inputs = objectives.Inputs(IMAGES, SWAPS, outputs, checkers=networks)
  modules = tuple(Linear() for _ in networks)
  return _student(
    params, inputs, weights, teacher_module=module, checker_modules=modules
  )


class Linear(nn.Module):
  """A network that looks at swapped images."""

  @nn.compact
  def __call__(self, images):
    return nn.Dense(2)(images.reshape(images.shape[0], -1))


DRAWS = augmentation.Draws(jnp.array([[0, 0], [1, -1]] * 4))
NETWORKS = tuple(
  objectives.Checker(Linear().init(jax.random.key(i), IMAGES), DRAWS)
  for i in range(2)
)


@pytest.mark.parametrize('form', ['secant', 'tangent'])
def test_check_encodes_swapped_images_by_the_teacher(form):
  weights = dataclasses.replace(WEIGHTS, supervision=config.Supervision(form))
  teacher = small_models.init(2, 0, True, seed=1)
  loss, metrics = _checked(
    STUDENT.params, teacher, weights, module=teacher.module
  )
  without, _ = _supervised(STUDENT.params, teacher, weights=weights)
  np.testing.assert_allclose(
    loss - without, 3 * metrics['swap_check'], rtol=1e-4
  )
  code = STUDENT.encode(IMAGES)
  swapped = STUDENT.decode(codes.swap_factors(code, PERMUTATION))
  donors = teacher.encode(IMAGES).factors[PERMUTATION]
  np.testing.assert_allclose(
    metrics['swap_check'],
    np.mean((teacher.encode(swapped).factors - donors) ** 2),
    rtol=1e-5,
  )


@pytest.mark.parametrize('count', [1, 2])
@pytest.mark.parametrize('module', [TEACHER.module, None])
def test_check_is_the_sum_over_all_that_look(count, module):
  networks = NETWORKS[:count]
  loss, metrics = _checked(
    STUDENT.params, TEACHER, networks=networks, module=module
  )
  code = STUDENT.encode(IMAGES)
  swapped = STUDENT.decode(codes.swap_factors(code, PERMUTATION))
  changed = augmentation.shift(swapped, DRAWS.shifts).reshape(8, -1)
  seen = [TEACHER.encode(swapped).factors] if module else []
  for network in networks:
    dense = network.variables['params']['Dense_0']
    seen.append(changed @ dense['kernel'] + dense['bias'][None])
  donors = TEACHER.encode(IMAGES).factors[PERMUTATION]
  expected = sum(np.mean((own - donors) ** 2) for own in seen)
  np.testing.assert_allclose(metrics['swap_check'], expected, rtol=1e-5)
  without, _ = _supervised(STUDENT.params)
  np.testing.assert_allclose(loss - without, 3 * expected, rtol=1e-4)


def test_swapped_images_are_empty_where_both_sources_are():
  weights = dataclasses.replace(WEIGHTS, lambda_background=3.0)
  loss, metrics = _supervised(STUDENT.params, weights=weights)
  without, _ = _supervised(STUDENT.params)
  code = STUDENT.encode(IMAGES)
  swapped = STUDENT.decode(codes.swap_factors(code, PERMUTATION))
  expected = losses.background_loss(swapped, IMAGES, IMAGES[PERMUTATION])
  np.testing.assert_allclose(
    metrics['background'], np.mean(expected), rtol=1e-5
  )
  np.testing.assert_allclose(
    loss - without, 3 * metrics['background'], rtol=1e-4
  )
  assert 'swap_check' not in metrics


def test_teacher_of_neighbors_decodes_each_to_the_other():
  model, weights = (
    small_models.init(2, 0, True),
    config.NeighborWeights(3, 0.5, 2.0),
  )
  others = IMAGES[::-1]
  loss, (metrics, stats) = objectives.neighbor_teacher_objective(
    model.params,
    model.batch_stats,
    objectives.Inputs(IMAGES, neighbor_images=others),
    module=model.module,
    weights=weights,
  )
  both = jnp.concatenate([IMAGES, others])
  code, _ = models.apply_train(
    model.module, model.params, model.batch_stats, 'encode', both
  )
  targets = jnp.concatenate([others, IMAGES])
  np.testing.assert_allclose(
    metrics['neighbor_reconstruction'],
    np.mean((model.decode(code) - targets) ** 2),
    rtol=1e-5,
  )
  embedding = losses.neighbor_embedding_loss(
    code.factors[:8], code.factors[8:], scale=2.0
  )
  np.testing.assert_allclose(
    metrics['neighbor_embedding'], np.mean(embedding), rtol=1e-5
  )
  np.testing.assert_allclose(
    loss,
    metrics['neighbor_reconstruction'] + 0.5 * metrics['neighbor_embedding'],
    rtol=1e-6,
  )
  assert np.any(stats['encoder']['code_norm']['mean'] != 0)


def test_student_without_teacher_has_two_terms():
  inputs = objectives.Inputs(IMAGES)
  loss, metrics = _student(STUDENT.params, inputs)
  assert set(metrics) == {'loss', 'reconstruction', 'cross_covariance'}
  expected = metrics['reconstruction'] + 10.0 * metrics['cross_covariance']
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  # As in the paper, or its root as in the released code.
  norm = _student(STUDENT.params, inputs, config.LossWeights(xcov='norm'))[1]
  np.testing.assert_allclose(
    norm['cross_covariance'] ** 2, metrics['cross_covariance'], rtol=1e-5
  )


@pytest.mark.parametrize('form', config.JACOBIANS)
def test_jacobian_term_is_the_loss_of_its_name(form):
  student, teacher = small_models.init(1, 2), small_models.init(1, 1, seed=1)
  weights = dataclasses.replace(
    WEIGHTS, supervision=config.Supervision(form, jacobian_nodes=4)
  )
  outputs = _outputs(teacher, SWAPS, weights.supervision)
  _, metrics = _student(
    student.params,
    objectives.Inputs(IMAGES, SWAPS, outputs),
    weights,
    student.module,
  )
  sides = []
  for model in (student, teacher):
    sides += [model.decode, model.encode(IMAGES)]
  expected = {
    'secant': lambda: jacobian.secant_loss(*sides, PERMUTATION),
    'tangent': lambda: jacobian.tangent_loss(*sides, PERMUTATION),
    'path': lambda: jacobian.path_loss(*sides, PERMUTATION, nodes=4),
    'full': lambda: jacobian.full_loss(*sides),
  }[form]()
  np.testing.assert_allclose(metrics['jacobian'], np.mean(expected), rtol=1e-4)


def test_several_swaps_are_averaged():
  swaps = jnp.stack([PERMUTATION, PERMUTATION[::-1]])
  both = config.LossWeights(supervision=config.Supervision(num_swaps=2))
  _, metrics = _supervised(STUDENT.params, swaps=swaps, weights=both)
  alone = [
    _supervised(STUDENT.params, swaps=swap[None])[1]['jacobian']
    for swap in swaps
  ]
  np.testing.assert_allclose(metrics['jacobian'], np.mean(alone), rtol=1e-4)
  assert not np.isclose(*alone, rtol=1e-3)


def test_regularizers_are_added_with_their_weights():
  weights = dataclasses.replace(
    WEIGHTS,
    lambda_hsic=3.0,
    lambda_orthogonal=5.0,
    lambda_orthogonal_factors=7.0,
  )
  inputs = objectives.Inputs(IMAGES, scale=jnp.float32(0.5))
  loss, metrics = _student(STUDENT.params, inputs, weights)
  # All but reconstruction at half their weights.
  expected = metrics['reconstruction'] + 0.5 * (
    10.0 * metrics['cross_covariance']
    + 3.0 * metrics['hsic']
    + 5.0 * metrics['orthogonal']
    + 7.0 * metrics['orthogonal_factors']
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['hsic'], regularizers.hsic_loss(*STUDENT.encode(IMAGES)), rtol=1e-4
  )


@pytest.mark.parametrize(
  ('nuisance_dim', 'form'),
  [*((0, form) for form in config.JACOBIANS), (1, 'secant')],
)
def test_gradient_of_the_teacher_is_exactly_zero(nuisance_dim, form):
  teacher = small_models.init(2, nuisance_dim, seed=1)
  weights = dataclasses.replace(WEIGHTS, supervision=config.Supervision(form))

  def loss(teacher_params, params):
    moved = dataclasses.replace(teacher, params=teacher_params)
    return _supervised(params, moved, weights=weights)[0]

  grads, student_grads = jax.grad(loss, argnums=(0, 1))(
    teacher.params, STUDENT.params
  )
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  for leaf in jax.tree.leaves(student_grads):
    assert np.any(leaf != 0)


def test_check_moves_the_decoder_and_nothing_that_looks():
  def check(constants, params):
    teacher_params, variables = constants
    teacher = dataclasses.replace(TEACHER, params=teacher_params)
    networks = tuple(
      own._replace(variables=each) for own, each in zip(NETWORKS, variables)
    )
    return _checked(params, teacher, WEIGHTS, networks, teacher.module)[0]

  variables = [network.variables for network in NETWORKS]
  grads, student_grads = jax.grad(check, argnums=(0, 1))(
    (TEACHER.params, variables), STUDENT.params
  )
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  assert np.any(student_grads['decoder']['dense_0']['kernel'] != 0)


def test_preserving_student_starts_at_no_supervision_error():
  grown = growth.grow(
    TEACHER.params, STUDENT.params, position=2, initialization='preserving'
  )
  _, metrics = _supervised(grown)
  # Squared roundings of float32, of codes and images of size 1.
  assert metrics['factor_matching'] < 1e-13
  assert metrics['jacobian'] < 1e-13


@pytest.mark.parametrize('sizes', [(2, 0), (1, 1)])
def test_teacher_keeps_its_own_nuisance_in_a_swap(sizes):
  teacher = small_models.init(*sizes, seed=1)
  outputs = _outputs(teacher)
  code = teacher.encode(IMAGES)
  images = teacher.decode(code)
  swapped = teacher.decode(codes.swap_factors(code, PERMUTATION))
  np.testing.assert_allclose(outputs.changes[0], swapped - images, atol=1e-6)
  np.testing.assert_allclose(outputs.factors, code.factors, atol=1e-6)
  # Without nuisance it is the partner's image, and only then.
  is_partner = np.allclose(swapped, images[PERMUTATION], atol=1e-5)
  assert is_partner == (sizes == (2, 0))
