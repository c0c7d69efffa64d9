"""Tests of jacsup_jax.objectives."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import growth as surgery
from jacsup_jax.core import jacobian
from jacsup_jax.core import losses
from jacsup_jax.core import regularizers as constraints
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import objectives

SHAPE = (4, 4, 1)
IMAGES = jax.random.uniform(jax.random.key(0), (8, *SHAPE))
PERMUTATION = jnp.array([3, 0, 1, 2, 7, 4, 5, 6])
WEIGHTS = config.LossWeights(0.5, 2.0, 10.0)


def _model(num_factors, nuisance_dim, normalize_code=False):
  return networks.MlpAutoencoder(
      num_factors,
      nuisance_dim,
      normalize_code,
      image_shape=SHAPE,
      widths=(8, 6),
  )


def _init(model, seed=0):
  return networks.init_variables(model, seed, SHAPE)


def _teacher_outputs(
    variables,
    model,
    permutation=PERMUTATION,
    supervision=config.Supervision(),
):
  params, stats = variables['params'], variables['batch_stats']
  return objectives.compute_teacher_outputs(
      functools.partial(networks.make_encode(model, stats), params),
      functools.partial(networks.make_decode(model, stats), params),
      IMAGES,
      permutation,
      supervision=supervision,
  )


def _student(params, teacher, permutation=PERMUTATION, weights=WEIGHTS):
  return objectives.student_objective(
      params,
      {},
      IMAGES,
      teacher,
      permutation,
      model=_model(2, 1),
      weights=weights,
  )


# Values.


def test_teacher_minimises_its_reconstruction_error():
  model = _model(2, 0, True)
  variables = _init(model)
  loss, (metrics, stats) = objectives.teacher_objective(
      variables['params'], variables['batch_stats'], IMAGES, model=model
  )
  code = model.apply(
      variables, IMAGES, train=True, method='encode', mutable='batch_stats'
  )[0]
  decoded = networks.make_decode(model)(variables['params'], code)
  np.testing.assert_allclose(loss, np.mean((IMAGES - decoded) ** 2), rtol=1e-6)
  assert set(metrics) == {'loss', 'reconstruction'}
  assert metrics['loss'] == metrics['reconstruction'] == loss
  # The statistics have moved a tenth of the way.
  moved = stats['encoder']['code_norm']['mean']
  assert np.all(moved != 0)


def test_student_loss_is_the_weighted_sum_of_its_terms():
  params = _init(_model(2, 1))['params']
  teacher = _teacher_outputs(_init(_model(2, 0), 1), _model(2, 0))
  loss, (metrics, _) = _student(params, teacher)
  assert set(metrics) == {
      'loss', 'reconstruction', 'factor_matching', 'jacobian',
      'cross_covariance',
  }  # pyformat: disable
  # (8) + 0.5 and 2 times the parts of (9) + 10 times (10).
  expected = (
      metrics['reconstruction']
      + 0.5 * metrics['factor_matching']
      + 2.0 * metrics['jacobian']
      + 10.0 * metrics['cross_covariance']
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert metrics['loss'] == loss
  code = networks.make_encode(_model(2, 1))(params, IMAGES)
  decode = functools.partial(networks.make_decode(_model(2, 1)), params)
  images, swapped = decode(code), decode(
      code._replace(factors=code.factors[PERMUTATION])
  )
  np.testing.assert_allclose(
      metrics['factor_matching'],
      np.mean((code.factors - teacher.factors) ** 2),
      rtol=1e-5,
  )
  change = (swapped - images) - (teacher.swapped_images - teacher.images)
  np.testing.assert_allclose(
      metrics['jacobian'], np.mean(change**2), rtol=1e-4
  )
  np.testing.assert_allclose(
      metrics['reconstruction'], np.mean((IMAGES - images) ** 2), rtol=1e-6
  )
  np.testing.assert_allclose(
      metrics['cross_covariance'],
      losses.cross_covariance_loss(*code),
      rtol=1e-5,
  )


def _looking_teacher(variables, model):
  """Returns what a teacher contributes that looks at swapped images."""
  teacher = _teacher_outputs(variables, model)
  return teacher._replace(
      partner_factors=teacher.factors[PERMUTATION], variables=variables
  )


def _checked(params, teacher, teacher_model, **weights):
  weights = dataclasses.replace(WEIGHTS, lambda_check=3.0, **weights)
  return objectives.student_objective(
      params,
      {},
      IMAGES,
      teacher,
      PERMUTATION,
      model=_model(2, 1),
      weights=weights,
      teacher_model=teacher_model,
  )


def test_check_is_what_the_teacher_sees_of_swapped_images():
  teacher_model = _model(2, 0, True)
  variables, params = _init(teacher_model, 1), _init(_model(2, 1))['params']
  teacher = _looking_teacher(variables, teacher_model)
  loss, (metrics, _) = _checked(params, teacher, teacher_model)
  without, _ = _student(params, teacher._replace(variables=None))
  np.testing.assert_allclose(
      loss - without, 3 * metrics['swap_check'], rtol=1e-4
  )
  code = networks.make_encode(_model(2, 1))(params, IMAGES)
  swapped = networks.make_decode(_model(2, 1))(
      params, code._replace(factors=code.factors[PERMUTATION])
  )
  seen = teacher_model.apply(variables, swapped, method='encode').factors
  np.testing.assert_allclose(
      metrics['swap_check'],
      np.mean((seen - teacher.factors[PERMUTATION]) ** 2),
      rtol=1e-5,
  )


def test_teacher_of_neighbors_decodes_each_to_the_other():
  model, weights = _model(2, 0, True), config.NeighborWeights(3, 0.5, 2.0)
  variables, others = _init(model), IMAGES[::-1]
  loss, (metrics, stats) = objectives.neighbor_teacher_objective(
      variables['params'],
      variables['batch_stats'],
      IMAGES,
      others,
      model=model,
      weights=weights,
  )
  both = jnp.concatenate([IMAGES, others])
  code, _ = model.apply(
      variables, both, train=True, method='encode', mutable='batch_stats'
  )
  images = model.apply(variables, code, method='decode')
  np.testing.assert_allclose(
      metrics['neighbor_reconstruction'],
      np.mean((images - jnp.concatenate([others, IMAGES])) ** 2),
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
  params = _init(_model(2, 1))['params']
  loss, (metrics, _) = _student(params, None)
  assert set(metrics) == {'loss', 'reconstruction', 'cross_covariance'}
  np.testing.assert_allclose(
      loss,
      metrics['reconstruction'] + 10.0 * metrics['cross_covariance'],
      rtol=1e-6,
  )


def test_cross_covariance_convention_is_that_of_the_weights():
  params = _init(_model(2, 1))['params']
  squared = _student(params, None)[1][0]['cross_covariance']
  norm = _student(
      params, None, weights=config.LossWeights(squared_xcov=False)
  )[1][0]['cross_covariance']
  np.testing.assert_allclose(norm**2, squared, rtol=1e-5)
  assert not np.isclose(norm, squared)


@pytest.mark.parametrize('name', ['tangent', 'path', 'full'])
def test_jacobian_term_is_the_loss_of_its_name(name):
  student_model, teacher_model = _model(1, 2), _model(1, 1)
  student, teacher = _init(student_model), _init(teacher_model, 1)
  supervision = config.Supervision(name, nodes=4)
  outputs = _teacher_outputs(teacher, teacher_model, supervision=supervision)
  assert outputs.images is None and outputs.swapped_images is None
  weights = dataclasses.replace(WEIGHTS, supervision=supervision)
  loss, (metrics, _) = objectives.student_objective(
      student['params'],
      {},
      IMAGES,
      outputs,
      PERMUTATION,
      model=student_model,
      weights=weights,
  )
  sides = []
  for model, variables in (
      (student_model, student), (teacher_model, teacher)
  ):  # pyformat: disable
    params = variables['params']
    sides.append(functools.partial(networks.make_decode(model), params))
    sides.append(networks.make_encode(model)(params, IMAGES))
  expected = {
      'tangent': lambda: jacobian.tangent_loss(*sides, PERMUTATION),
      'path': lambda: jacobian.path_loss(*sides, PERMUTATION, nodes=4),
      'full': lambda: jacobian.full_loss(*sides),
  }[name]()
  np.testing.assert_allclose(
      metrics['jacobian'], np.mean(expected), rtol=1e-4
  )
  # The other terms are those of any student.
  _, (others, _) = objectives.student_objective(
      student['params'],
      {},
      IMAGES,
      _teacher_outputs(teacher, teacher_model),
      PERMUTATION,
      model=student_model,
      weights=WEIGHTS,
  )
  for term in ('reconstruction', 'factor_matching', 'cross_covariance'):
    np.testing.assert_allclose(metrics[term], others[term], rtol=1e-5)
  expected = others['loss'] + 2.0 * (metrics['jacobian'] - others['jacobian'])
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_several_swaps_are_averaged():
  teacher_model, params = _model(2, 0), _init(_model(2, 1))['params']
  permutations = jnp.stack([PERMUTATION, PERMUTATION[::-1]])
  supervision = config.Supervision(num_swaps=2)
  teacher = _teacher_outputs(
      _init(teacher_model, 1), teacher_model, permutations, supervision
  )
  _, (metrics, _) = _student(
      params,
      teacher,
      permutations,
      dataclasses.replace(WEIGHTS, supervision=supervision),
  )
  alone = []
  for one in permutations:
    teacher = _teacher_outputs(_init(teacher_model, 1), teacher_model, one)
    alone.append(_student(params, teacher, one)[1][0]['jacobian'])
  np.testing.assert_allclose(metrics['jacobian'], np.mean(alone), rtol=1e-4)
  assert not np.isclose(*alone, rtol=1e-3)


def test_constraints_are_added_with_their_weights():
  params = _init(_model(2, 1))['params']
  weights = dataclasses.replace(
      WEIGHTS,
      lambda_hsic=3.0,
      lambda_orthogonal=5.0,
      lambda_orthogonal_factors=7.0,
  )
  loss, (metrics, _) = objectives.student_objective(
      params,
      {},
      IMAGES,
      None,
      PERMUTATION,
      jnp.float32(0.5),
      model=_model(2, 1),
      weights=weights,
  )
  # All but reconstruction at half their strength.
  expected = metrics['reconstruction'] + 0.5 * (
      10.0 * metrics['cross_covariance']
      + 3.0 * metrics['hsic']
      + 5.0 * metrics['orthogonal']
      + 7.0 * metrics['orthogonal_factors']
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  code = networks.make_encode(_model(2, 1))(params, IMAGES)
  np.testing.assert_allclose(
      metrics['hsic'], constraints.hsic_loss(*code), rtol=1e-4
  )


# Gradients.


@pytest.mark.parametrize(
    ('nuisance_dim', 'name'),
    [(0, name) for name in config.JACOBIANS] + [(1, 'secant'), (1, 'tangent')],
)
def test_gradient_of_the_teacher_is_exactly_zero(nuisance_dim, name):
  teacher_model = _model(2, nuisance_dim)
  params = _init(_model(2, 1))['params']
  supervision = config.Supervision(name)
  weights = dataclasses.replace(WEIGHTS, supervision=supervision)

  def loss(teacher_params, student_params):
    variables = {'params': teacher_params, 'batch_stats': {}}
    teacher = _teacher_outputs(
        variables, teacher_model, supervision=supervision
    )
    return _student(student_params, teacher, weights=weights)[0]

  grads, student_grads = jax.grad(loss, argnums=(0, 1))(
      _init(teacher_model, 1)['params'], params
  )
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  for leaf in jax.tree.leaves(student_grads):
    assert np.any(leaf != 0)


def test_teacher_that_looks_is_not_moved_but_moves_the_decoder():
  teacher_model, params = _model(2, 0), _init(_model(2, 1))['params']

  def check(teacher_params, student_params):
    variables = {'params': teacher_params, 'batch_stats': {}}
    teacher = _looking_teacher(variables, teacher_model)
    return _checked(student_params, teacher, teacher_model)[1][0]['swap_check']

  grads, student_grads = jax.grad(check, argnums=(0, 1))(
      _init(teacher_model, 1)['params'], params
  )
  # What it is compared with are factors of donors, stopped where it is applied.
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  assert np.any(student_grads['decoder']['dense_0']['kernel'] != 0)


def test_gradient_of_the_jacobian_term_reaches_the_encoder():
  # Both sides of the student are differentiated, down to its factors.
  teacher = _teacher_outputs(_init(_model(2, 0), 1), _model(2, 0))
  grads = jax.grad(
      lambda p: _student(p, teacher)[1][0]['jacobian']
  )(_init(_model(2, 1))['params'])
  assert np.any(grads['encoder']['code']['kernel'][:, :2] != 0)
  assert np.any(grads['decoder']['dense_0']['kernel'] != 0)


# Invariants.


def test_identity_permutation_leaves_no_jacobian_term():
  params = _init(_model(2, 1))['params']
  identity = jnp.arange(8)
  teacher = _teacher_outputs(_init(_model(2, 0), 1), _model(2, 0), identity)
  assert _student(params, teacher, identity)[1][0]['jacobian'] == 0.0
  assert _student(params, _teacher_outputs(
      _init(_model(2, 0), 1), _model(2, 0)
  ))[1][0]['jacobian'] > 0.0


def test_preserving_student_starts_at_no_supervision_error():
  variables = _init(_model(2, 0), 1)
  grown = surgery.grow(
      variables['params'],
      _init(_model(2, 1))['params'],
      position=2,
      initialization='preserving',
  )
  _, (metrics, _) = _student(grown, _teacher_outputs(variables, _model(2, 0)))
  # Squared roundings of float32, of codes and images of size 1.
  assert metrics['factor_matching'] < 1e-13
  assert metrics['jacobian'] < 1e-13


def test_teacher_without_nuisance_needs_no_second_pass():
  model = _model(2, 0)
  variables = _init(model)
  params = variables['params']
  outputs = _teacher_outputs(variables, model)
  code = networks.make_encode(model)(params, IMAGES)
  images, swapped = jacobian.decode_swapped(
      functools.partial(networks.make_decode(model), params), code, PERMUTATION
  )
  np.testing.assert_allclose(outputs.images, images, atol=1e-6)
  np.testing.assert_allclose(outputs.swapped_images, swapped, atol=1e-6)
  chex.assert_trees_all_close(outputs.factors, code.factors, atol=1e-6)
  assert not np.allclose(images, swapped, atol=1e-4)


def test_teacher_keeps_its_own_nuisance_in_a_swap():
  model = _model(1, 1)
  variables = _init(model)
  outputs = _teacher_outputs(variables, model)
  code = networks.make_encode(model)(variables['params'], IMAGES)
  expected = networks.make_decode(model)(
      variables['params'],
      codes.Code(code.factors[PERMUTATION], code.nuisance),
  )
  np.testing.assert_allclose(outputs.swapped_images, expected, atol=1e-6)
  # Not the partner's image.
  assert not np.allclose(
      outputs.swapped_images, outputs.images[PERMUTATION], atol=1e-5
  )
