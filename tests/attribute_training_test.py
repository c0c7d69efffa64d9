"""Tests of jacsup_jax.attribute_training."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import attribute_objectives
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import steps as training

MODEL = networks.FaceAutoencoder(
    num_factors=2, nuisance_channels=2, image_size=8, first_width=4,
    last_width=4,
)  # pyformat: disable
PHASE_1 = config.AttributeLossWeights(1.0, 1.0, 1.0)
PHASE_2 = dataclasses.replace(
    PHASE_1, lambda_attribute_cycle=1.0, lambda_nuisance_cycle=1.0
)
# With weight decay: it moves a stopped encoder, unless the optimizer freezes
# it too.
OPTIMIZER = training.make_optimizer(1e-2, 0.1, 0.5)


@pytest.fixture(scope='module')
def state():
  variables = networks.init_variables(MODEL, 0, MODEL.image_shape)
  return attribute_training.create_train_state(variables, OPTIMIZER)


@pytest.fixture(scope='module')
def inputs():
  random = np.random.default_rng(0)
  return attribute_training.StepInputs(
      images=jnp.asarray(random.uniform(-1, 1, (4, 8, 8, 3)), jnp.float32),
      attributes=jnp.asarray(random.choice([-1.0, 1.0], (4, 2))),
      teacher=None,
      permutation=jnp.array([1, 2, 3, 0]),
  )


@functools.partial(jax.jit, static_argnames='weights')
def _step(state, inputs, weights):
  return attribute_training.train_step(
      state, inputs, model=MODEL, weights=weights, optimizer=OPTIMIZER
  )


def _all_differ(tree, other):
  return all(
      np.any(np.asarray(a) != np.asarray(b))
      for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other))
  )


# Values.


def test_parts_without_gradients_stay_to_the_last_bit(state):
  grads = {'decoder': jax.tree.map(jnp.ones_like, state.params['decoder'])}
  after = attribute_training.apply_gradients(state, grads, OPTIMIZER)
  chex.assert_trees_all_equal(after.params['encoder'], state.params['encoder'])
  chex.assert_trees_all_equal(
      after.opt_state['encoder'], state.opt_state['encoder']
  )
  assert _all_differ(after.params['decoder'], state.params['decoder'])


def test_second_update_is_at_the_updated_parameters(state, inputs):
  both, metrics = _step(state, inputs, PHASE_2)
  first, _ = _step(state, inputs, PHASE_1)

  def cycle(decoder):
    loss, _ = attribute_objectives.cycle_objective(
        {**first.params, 'decoder': decoder},
        first.batch_stats,
        inputs.images,
        inputs.permutation,
        model=MODEL,
        weights=PHASE_2,
    )
    return loss

  loss, grads = jax.jit(jax.value_and_grad(cycle))(first.params['decoder'])
  expected = attribute_training.apply_gradients(
      first, {'decoder': grads}, OPTIMIZER
  )
  # Adam divides by small gradients: programs round apart.
  chex.assert_trees_all_close(both.params, expected.params, atol=1e-4)
  np.testing.assert_allclose(
      metrics['attribute_cycle'] + metrics['nuisance_cycle'], loss, rtol=1e-4
  )
  assert both.step == 1


def test_step_has_the_metrics_of_its_weights(state, inputs):
  _, metrics = _step(state, inputs, PHASE_1)
  assert not {'attribute_cycle', 'nuisance_cycle', 'jacobian'} & set(metrics)
  _, metrics = _step(state, inputs, PHASE_2)
  terms = [value for name, value in metrics.items() if name != 'loss']
  assert len(terms) == 5
  # All weights are 1.
  np.testing.assert_allclose(metrics['loss'], sum(terms), rtol=1e-5)


# Gradients.


def test_second_update_leaves_encoder_and_its_moments(state, inputs):
  before, _ = _step(state, inputs, PHASE_1)

  def second(decoder):
    loss, _ = attribute_objectives.cycle_objective(
        {**before.params, 'decoder': decoder},
        before.batch_stats,
        inputs.images,
        inputs.permutation,
        model=MODEL,
        weights=PHASE_2,
    )
    return loss

  grads = jax.jit(jax.grad(second))(before.params['decoder'])
  after = attribute_training.apply_gradients(
      before, {'decoder': grads}, OPTIMIZER
  )
  for part in ('params', 'opt_state'):
    chex.assert_trees_all_equal(
        getattr(after, part)['encoder'], getattr(before, part)['encoder']
    )
  assert _all_differ(after.params['decoder'], before.params['decoder'])
  # One Adam state for the decoder, stepped twice; as in the released code.
  counts = lambda part: [
      s.count for s in after.opt_state[part] if hasattr(s, 'mu')
  ]
  assert counts('encoder') == [1] and counts('decoder') == [2]


def test_teacher_is_a_constant_of_a_students_steps(state):
  weights = config.AttributeLossWeights(lambda_y=1.0, lambda_diff=1.0)
  random = np.random.default_rng(0)
  data = attribute_training.FaceData(
      jnp.asarray(random.integers(0, 256, (4, 8, 8, 3), np.uint8)),
      jnp.ones((4, 2), jnp.int8),
  )

  def loss_after(teacher_params):
    teacher = {'params': teacher_params, 'batch_stats': state.batch_stats}
    _, metrics = attribute_training.train_steps(
        state,
        teacher,
        jnp.arange(4)[None],
        read=lambda row: jax.tree.map(lambda x: jnp.take(x, row, 0), data),
        model=MODEL,
        teacher_model=MODEL,
        weights=weights,
        optimizer=OPTIMIZER,
        seed=0,
        batch_size=4,
    )
    return metrics['loss'].mean()

  for leaf in jax.tree.leaves(jax.jit(jax.grad(loss_after))(state.params)):
    np.testing.assert_array_equal(leaf, 0.0)


# Invariants.


def test_steps_mirror_and_swap_by_seed_and_step(state):
  random = np.random.default_rng(1)
  data = attribute_training.FaceData(
      jnp.asarray(random.integers(0, 256, (6, 8, 8, 3), np.uint8)),
      jnp.asarray(random.choice([-1, 1], (6, 2)).astype(np.int8)),
  )
  indices = jnp.array([[0, 1, 2, 3], [5, 4, 3, 2]])
  found, _ = jax.jit(
      functools.partial(
          attribute_training.train_steps,
          read=lambda row: jax.tree.map(lambda x: jnp.take(x, row, 0), data),
          model=MODEL,
          teacher_model=None,
          weights=PHASE_2,
          optimizer=OPTIMIZER,
          seed=3,
          batch_size=4,
      )
  )(state, None, indices)
  expected = state
  for row in indices:
    step = expected.step
    images = batches.mirror(
        batches.to_signed_float(data.images[row]),
        batches.step_mirror(3, step, 4),
    )
    inputs = attribute_training.StepInputs(
        images,
        data.attributes[row].astype(jnp.float32),
        None,
        batches.step_permutation(3, step, 4),
    )
    expected, _ = _step(expected, inputs, PHASE_2)
  # Two programs; Adam's first steps are of the size of the learning rate.
  chex.assert_trees_all_close(found.params, expected.params, atol=2e-4)
  assert found.step == 2
