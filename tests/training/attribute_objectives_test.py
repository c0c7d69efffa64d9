"""Tests of jacsup_jax.training.objectives, for facial attributes."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import losses
from jacsup_jax.data import augmentation
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.training import objectives

MODULE = autoencoders.FaceAutoencoder(
  num_factors=2, nuisance_channels=3, image_size=8, first_width=4, last_width=4
)
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
  return autoencoders.init_variables(MODULE, 0)


@pytest.fixture(scope='module')
def images():
  return jax.random.uniform(jax.random.key(1), (4, 8, 8, 3), minval=-1.0)


@pytest.fixture(scope='module')
def attributes():
  return jnp.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@functools.partial(jax.jit, static_argnames='method')
def _apply(variables, x, method):
  """A method in training mode, without new statistics."""
  y, _ = MODULE.apply(
    variables, x, train=True, method=method, mutable='batch_stats'
  )
  return y


@pytest.fixture(scope='module')
def own_outputs(variables, images):
  """A model's outputs as its own teacher, swaps by statistics of their own."""
  code = _apply(variables, images, 'encode')
  swapped = codes.swap_factors(code, PERMUTATION)
  changes = _apply(variables, swapped, 'decode') - _apply(
    variables, code, 'decode'
  )
  return objectives.TeacherOutputs(code.factors, changes[None])


@functools.partial(jax.jit, static_argnames=('name', 'weights'))
def _objective(variables, inputs, name='attribute', weights=WEIGHTS):
  function = getattr(objectives, f'{name}_objective')
  return function(
    variables['params'],
    variables['batch_stats'],
    inputs,
    module=MODULE,
    weights=weights,
  )


@pytest.fixture(scope='module')
def inputs(images, attributes):
  return objectives.Inputs(images, PERMUTATION[None], attributes=attributes)


def _grads(variables, inputs, name='attribute'):
  return jax.grad(
    lambda params: _objective({**variables, 'params': params}, inputs, name),
    has_aux=True,
  )(variables['params'])[0]


def test_teacher_sums_its_weighted_terms(variables, images, attributes, inputs):
  loss, (metrics, _) = _objective(variables, inputs)
  code = _apply(variables, images, 'encode')
  decoded = _apply(variables, code, 'decode')
  expected = {
    'reconstruction': jnp.mean(jnp.square(images - decoded)),
    'attribute_hinge': jnp.mean(jnp.maximum(1 - code.factors * attributes, 0)),
    'cross_covariance': losses.cross_covariance_loss(*code),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
  total = sum(w * term for w, term in zip((2, 3, 5), expected.values()))
  np.testing.assert_allclose(loss, total, rtol=1e-5)
  assert set(metrics) == {'loss', *expected}


def test_bounded_factors_have_a_likelihood(images, attributes, inputs):
  module = MODULE.clone(factor_activation='tanh')
  variables = autoencoders.init_variables(module, 0)
  args = variables['params'], variables['batch_stats'], inputs
  _, (metrics, _) = jax.jit(
    functools.partial(
      objectives.attribute_objective, module=module, weights=WEIGHTS
    )
  )(*args)
  code = module.apply(
    variables, images, train=True, method='encode', mutable='batch_stats'
  )[0]
  expected = -jnp.mean(jnp.log((1 + code.factors * attributes) / 2))
  np.testing.assert_allclose(
    metrics['attribute_likelihood'], expected, rtol=1e-5
  )
  assert 'attribute_hinge' not in metrics


def test_student_adds_the_terms_of_its_teacher(variables, inputs, own_outputs):
  # A teacher whose factors are 1 less and whose change is 0.5 larger.
  teacher = objectives.TeacherOutputs(
    own_outputs.factors - 1, own_outputs.changes + 0.5
  )
  without, _ = _objective(variables, inputs)
  loss, (metrics, _) = _objective(variables, inputs._replace(teacher=teacher))
  np.testing.assert_allclose(metrics['factor_matching'], 1.0, rtol=1e-5)
  np.testing.assert_allclose(metrics['jacobian'], 0.25, rtol=1e-5)
  np.testing.assert_allclose(loss, without + 13 + 17 * 0.25, rtol=1e-5)


@pytest.mark.parametrize('form', ['tangent', 'full'])
def test_student_is_supervised_in_other_ways(
  variables, inputs, own_outputs, form
):
  supervision = config.Supervision(form)
  weights = dataclasses.replace(WEIGHTS, supervision=supervision)
  code = _apply(variables, inputs.images, 'encode')
  own = objectives.compute_changes(
    supervision,
    functools.partial(_apply, variables, method='decode'),
    code,
    code.factors[PERMUTATION][None],
  ).changes
  # A teacher whose factors are 1 less and whose every change is 0.5 larger.
  teacher = objectives.TeacherOutputs(own_outputs.factors - 1, own + 0.5)
  _, (metrics, _) = _objective(
    variables, inputs._replace(teacher=teacher), weights=weights
  )
  np.testing.assert_allclose(metrics['factor_matching'], 1.0, rtol=1e-5)
  # Summed over the factors of the full Jacobian.
  count = MODULE.num_factors if form == 'full' else 1
  np.testing.assert_allclose(metrics['jacobian'], 0.25 * count, rtol=1e-3)
  assert own.shape == (count, *inputs.images.shape)


def test_cycle_compares_codes_with_those_encoded_again(
  variables, images, inputs
):
  loss, (metrics, _) = _objective(variables, inputs, 'cycle')
  code = _apply(variables, images, 'encode')
  swapped = codes.swap_factors(code, PERMUTATION)
  cycled = _apply(variables, _apply(variables, swapped, 'decode'), 'encode')
  attribute_cycle = jnp.mean(
    jnp.maximum(1 - swapped.factors * cycled.factors, 0)
  )
  # Sum over the 2 x 2 x 3 units, mean over the 4 images.
  nuisance_cycle = jnp.sum(jnp.square(code.nuisance - cycled.nuisance)) / 4
  found = (metrics['attribute_cycle'], metrics['nuisance_cycle'], loss)
  expected = (attribute_cycle, nuisance_cycle)
  total = 7 * attribute_cycle + 11 * nuisance_cycle
  np.testing.assert_allclose(found, (*expected, total), rtol=1e-4)


def test_labels_are_decoded_and_flipped_in_the_place_of_factors(
  variables, images, attributes, inputs
):
  weights = dataclasses.replace(WEIGHTS, decode_labels=0.5, edits='flip')
  # The first two are decoded from their labels, the others from predictions.
  is_labelled = jnp.array([True, True, False, False])
  inputs = inputs._replace(
    permutations=jnp.array([[1, 0, 1, 0]]), labelled=is_labelled
  )
  _, (metrics, _) = _objective(variables, inputs, weights=weights)
  code = _apply(variables, images, 'encode')
  factors = jnp.where(is_labelled[:, None], attributes, code.factors)
  labelled = code._replace(factors=factors)
  decoded = _apply(variables, labelled, 'decode')
  np.testing.assert_allclose(
    metrics['reconstruction'], jnp.mean(jnp.square(images - decoded)), rtol=1e-5
  )
  opposite = jnp.where(factors >= 0, -1.0, 1.0)
  flips = jnp.array([[0, 1], [1, 0], [0, 1], [1, 0]], bool)
  flipped = jnp.where(flips, opposite, factors)
  _, (metrics, _) = _objective(variables, inputs, 'cycle', weights)
  edited = _apply(variables, labelled._replace(factors=flipped), 'decode')
  cycled = _apply(variables, edited, 'encode')
  np.testing.assert_allclose(
    metrics['attribute_cycle'],
    jnp.mean(jnp.maximum(1 - flipped * cycled.factors, 0)),
    rtol=1e-4,
  )


def test_a_model_of_labels_shows_strong_flips_of_them(
  variables, images, attributes, inputs
):
  class Labelled:
    """A model that is given labels."""

    def encode(self, images, labels):
      code = _apply(variables, images, 'encode')
      return code._replace(factors=labels)

    def decode(self, code):
      return _apply(variables, code, 'decode')

  strengths = jnp.array([1.0, 2.0, 4.0, 8.0])
  inputs = inputs._replace(
    permutations=jnp.array([[1, 0, 1, 0]]),
    labelled=jnp.ones(4, bool),
    strengths=strengths,
  )
  weights = dataclasses.replace(WEIGHTS, decode_labels=1.0, edits='flip')
  outputs = objectives.compute_attribute_outputs(Labelled(), inputs, weights)
  np.testing.assert_array_equal(outputs.factors, attributes)
  code = _apply(variables, images, 'encode')._replace(factors=attributes)
  flips = jnp.array([[0, 1], [1, 0], [0, 1], [1, 0]], bool)
  flipped = jnp.where(flips, -strengths[:, None] * attributes, attributes)
  edited = _apply(variables, code._replace(factors=flipped), 'decode')
  change = edited - _apply(variables, code, 'decode')
  np.testing.assert_allclose(outputs.changes, change[None], atol=1e-5)
  # Its twin, whose labels are decoded too, changes in the same way.
  same = inputs._replace(teacher=outputs)
  _, (metrics, _) = _objective(variables, same, weights=weights)
  np.testing.assert_allclose(metrics['jacobian'], 0.0, atol=1e-9)


def test_a_factor_that_is_not_decoded_follows_its_label_alone(
  variables, inputs
):
  only = dataclasses.replace(
    WEIGHTS, lambda_prediction=0.0, lambda_xcov=0.0, decode_labels=0.5
  )
  inputs = inputs._replace(labelled=jnp.array([True, False, True, False]))
  objective = lambda params: _objective(
    {**variables, 'params': params}, inputs, weights=only
  )[0]
  grads = jax.grad(objective)(variables['params'])['encoder']
  # The last channels of the encoder are the factors.
  [last] = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
    if 'down_1' in jax.tree_util.keystr(path) and leaf.ndim == 4
  ]
  np.testing.assert_array_equal(last[..., 3:], 0.0)
  assert np.any(last[..., :3] != 0)


def test_the_check_compares_what_a_classifier_sees_with_what_was_asked(
  variables, images, attributes, inputs
):
  weights = dataclasses.replace(
    WEIGHTS,
    lambda_attribute_cycle=0.0,
    lambda_nuisance_cycle=0.0,
    lambda_edit_check=5.0,
    decode_labels=1.0,
    edits='flip',
  )
  checker = classifiers.AttributeJudge(2, 8, 4, 4, hidden=4)
  seen_by = autoencoders.init_variables(checker, 1)
  draws = augmentation.Draws(jnp.zeros((4, 2), jnp.int32), jnp.zeros(4, bool))
  inputs = inputs._replace(
    permutations=jnp.array([[1, 0, 1, 0]]),
    labelled=jnp.ones(4, bool),
    checkers=(objectives.Checker(seen_by, draws),),
  )

  def check(variables, inputs):
    params, stats = variables['params'], variables['batch_stats']
    return objectives.cycle_objective(
        params, stats, inputs,
        module=MODULE, weights=weights, checker_module=checker,
    )  # fmt: skip

  loss, (metrics, _) = jax.jit(check)(variables, inputs)
  assert set(metrics) == {'loss', 'edit_check'}
  code = _apply(variables, images, 'encode')
  flips = jnp.array([[1, -1], [-1, 1], [1, -1], [-1, 1]])
  asked = attributes * flips
  edited = _apply(variables, code._replace(factors=asked), 'decode')
  logits = checker.apply(seen_by, edited)
  expected = losses.edit_check_loss(logits, asked, attributes)
  np.testing.assert_allclose(metrics['edit_check'], expected.mean(), rtol=1e-5)
  np.testing.assert_allclose(loss, 5.0 * expected.mean(), rtol=1e-5)
  # Neither the encoder nor the classifier follows it.
  grads, of_inputs = jax.grad(
    lambda *args: check(*args)[0], argnums=(0, 1), allow_int=True
  )(variables, inputs)
  [of_checker] = of_inputs.checkers
  for leaf in jax.tree.leaves(
    (grads['params']['encoder'], of_checker.variables)
  ):
    np.testing.assert_array_equal(leaf, 0.0)
  for leaf in jax.tree.leaves(grads['params']['decoder']):
    assert np.any(leaf != 0)


def test_cycle_reaches_the_decoder_alone(variables, inputs):
  grads = _grads(variables, inputs, 'cycle')
  for leaf in jax.tree.leaves(grads['encoder']):
    np.testing.assert_array_equal(leaf, 0.0)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads['decoder']):
    assert np.any(leaf != 0), path


def test_student_reaches_all_of_its_parameters(variables, inputs, own_outputs):
  teacher = jax.tree.map(lambda x: x + 0.1, own_outputs)
  grads = _grads(variables, inputs._replace(teacher=teacher))
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


def test_student_equal_to_its_teacher_has_no_terms_of_it(
  variables, inputs, own_outputs
):
  inputs = inputs._replace(teacher=own_outputs)
  _, (metrics, _) = _objective(variables, inputs)
  np.testing.assert_allclose(metrics['factor_matching'], 0.0, atol=1e-10)
  np.testing.assert_allclose(metrics['jacobian'], 0.0, atol=1e-10)


def test_running_statistics_follow_real_images_alone(
  variables, inputs, own_outputs
):
  stats = lambda *args: _objective(variables, *args)[1][1]
  of_teacher = stats(inputs)
  of_student = stats(inputs._replace(teacher=own_outputs))
  chex.assert_trees_all_equal(of_student, of_teacher)
  chex.assert_trees_all_equal(stats(inputs, 'cycle'), variables['batch_stats'])
  differ = lambda new, old: np.any(new != old)
  moved = jax.tree.map(differ, of_teacher, variables['batch_stats'])
  assert all(jax.tree.leaves(moved))
