"""Tests of jacsup_jax.training.attribute_steps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.data import augmentation
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import loop
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

MODULE = autoencoders.FaceAutoencoder(
  num_factors=2, nuisance_channels=2, image_size=8, first_width=4, last_width=4
)
PHASE_1 = config.AttributeLossWeights(1.0, 1.0, 1.0)
PHASE_2 = dataclasses.replace(
  PHASE_1, lambda_attribute_cycle=1.0, lambda_nuisance_cycle=1.0
)
STUDENT = config.AttributeLossWeights(lambda_y=1.0, lambda_diff=1.0)
# With weight decay: it moves a stopped encoder, unless the optimizer freezes
# it too.
OPTIMIZATION = config.Optimization(
  learning_rate=1e-2, adam_b1=0.5, weight_decay=0.1
)
OPTIMIZER = steps.make_optimizer(OPTIMIZATION)
STEPS = attribute_steps.FaceSteps(MODULE, MODULE, PHASE_2, OPTIMIZATION, 4)


@pytest.fixture(scope='module')
def state():
  create = lambda v: attribute_steps.create_train_state(v, OPTIMIZER)
  return jax.jit(create)(autoencoders.init_variables(MODULE, 0))


@pytest.fixture(scope='module')
def inputs():
  random = np.random.default_rng(0)
  return objectives.Inputs(
    images=jnp.asarray(random.uniform(-1, 1, (4, 8, 8, 3)), jnp.float32),
    permutations=jnp.array([[1, 2, 3, 0]]),
    attributes=jnp.asarray(random.choice([-1.0, 1.0], (4, 2))),
  )


@pytest.fixture(scope='module')
def data():
  random = np.random.default_rng(1)
  return attribute_steps.FaceData(
    jnp.asarray(random.integers(0, 256, (6, 8, 8, 3), np.uint8)),
    jnp.asarray(random.choice([-1, 1], (6, 2)).astype(np.int8)),
  )


@functools.partial(jax.jit, static_argnames=('weights', 'num_steps'))
def _step(state, inputs, weights, num_steps=None):
  return attribute_steps.train_step(
      state, inputs, module=MODULE, weights=weights, optimizer=OPTIMIZER,
      num_steps=num_steps,
  )  # fmt: skip


@jax.jit
def _cycle_gradients(state, inputs):
  """Value and gradients by the decoder of the second objective."""

  def cycle(decoder):
    loss, _ = objectives.cycle_objective(
      {**state.params, 'decoder': decoder},
      state.batch_stats,
      inputs,
      module=MODULE,
      weights=PHASE_2,
    )
    return loss

  return jax.value_and_grad(cycle)(state.params['decoder'])


_apply_cycle = jax.jit(
  lambda state, grads: steps.apply_gradients(
    state, {'decoder': grads}, OPTIMIZER
  )
)


def _all_differ(tree, other):
  return all(
    np.any(np.asarray(a) != np.asarray(b))
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other))
  )


def test_second_update_is_at_the_updated_parameters(state, inputs):
  both, metrics = _step(state, inputs, PHASE_2)
  first, _ = _step(state, inputs, PHASE_1)
  loss, grads = _cycle_gradients(first, inputs)
  expected = _apply_cycle(first, grads)
  # Adam divides by small gradients: programs round differently.
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


def test_second_update_leaves_encoder_and_its_moments(state, inputs):
  before, _ = _step(state, inputs, PHASE_1)
  _, grads = _cycle_gradients(before, inputs)
  after = _apply_cycle(before, grads)
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


def test_teacher_is_a_constant_of_a_students_step(state, data):
  program = dataclasses.replace(STEPS, weights=STUDENT)
  batch = jax.tree.map(lambda x: x[:4], data)

  def loss(teacher_params, params):
    teacher = {'params': teacher_params, 'batch_stats': state.batch_stats}
    constants = attribute_steps.FaceConstants(0, teacher, None)
    inputs = program.make_inputs(state.step, batch, constants)
    return objectives.attribute_objective(
      params, state.batch_stats, inputs, module=MODULE, weights=STUDENT
    )[0]

  teacher = autoencoders.init_variables(MODULE, 1)['params']
  grads, own = jax.jit(jax.grad(loss, argnums=(0, 1)))(teacher, state.params)
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, 0.0)
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(own))


def test_steps_mirror_and_swap_by_seed_and_step(state, data):
  rows = jnp.array([[0, 1, 2, 3], [5, 4, 3, 2]])
  constants = attribute_steps.FaceConstants(jnp.int32(3), None, data)
  call = jax.jit(lambda *args: STEPS(*args, loop.make_bounds()))
  found, _ = call(state, constants, rows)
  expected = state
  for row in rows:
    step = expected.step
    images = augmentation.mirror(
      batches.to_signed_float(data.images[row]), batches.step_mirror(3, step, 4)
    )
    inputs = objectives.Inputs(
      images,
      batches.step_permutations(3, step, 4, 1),
      attributes=data.attributes[row].astype(jnp.float32),
    )
    expected, _ = _step(expected, inputs, PHASE_2)
  # Two programs; Adam's first steps are of the size of the learning rate.
  chex.assert_trees_all_close(found.params, expected.params, atol=2e-4)
  assert found.step == 2


def test_the_learning_rate_falls_to_nothing(state, inputs):
  change = lambda after: jax.tree.map(jnp.subtract, after.params, state.params)
  middle = state._replace(step=jnp.int32(5))
  whole = change(_step(middle, inputs, PHASE_1)[0])
  half = change(_step(middle, inputs, PHASE_1, 10)[0])
  chex.assert_trees_all_close(
    half, jax.tree.map(lambda x: x / 2, whole), atol=1e-5
  )
  last = _step(middle, inputs, PHASE_1, 5)[0]
  chex.assert_trees_all_close(last.params, state.params, atol=1e-7)
  assert last.step == 6


def test_edits_are_drawn_as_the_weights_ask(state, data):
  weights = dataclasses.replace(
    PHASE_1,
    edits='flip',
    decode_labels=0.5,
    lambda_edit_check=1.0,
    largest_flip=8.0,
  )
  checker = classifiers.AttributeJudge(2, 8, 4, 4, hidden=4)
  program = dataclasses.replace(STEPS, weights=weights, checker_module=checker)
  seen_by = autoencoders.init_variables(checker, 1)
  conflicts = jnp.array([[False, True], [True, False]])
  batch = jax.tree.map(lambda x: x[:4], data)
  constants = attribute_steps.FaceConstants(3, None, None, conflicts, seen_by)
  inputs = program.make_inputs(state.step, batch, constants)
  place = 3, state.step, 4
  chex.assert_trees_all_equal(
    inputs._replace(images=None, attributes=None),
    objectives.Inputs(
      None,
      batches.step_flips(*place, 1, 2),
      labelled=batches.step_labelled(*place, 0.5),
      conflicts=conflicts,
      strengths=jnp.geomspace(1.0, 8.0, 4),
      # Images of 8 pixels are not shifted.
      checkers=(
        objectives.Checker(
          seen_by,
          augmentation.Draws(
            jnp.zeros((4, 2), jnp.int32), batches.step_blur(*place)
          ),
        ),
      ),
    ),
  )
  constants = constants._replace(data=data)
  call = jax.jit(lambda *args: program(*args, loop.make_bounds()))
  _, metrics = call(state, constants, jnp.array([[0, 1, 2, 3]]))
  assert metrics['edit_check'] > 0 and 'attribute_cycle' not in metrics
