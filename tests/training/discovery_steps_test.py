"""Tests of jacsup_jax.training.steps and discovery_steps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models

from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.training import discovery_steps
from jacsup_jax.training import loop
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

IMAGES, SHAPE = small_models.IMAGES, small_models.SHAPE
BATCH_SIZE = 16
WEIGHTS = config.LossWeights(0.5, 1.0, 0.1)
OPTIMIZATION = config.Optimization(learning_rate=1e-2, weight_decay=0.0)


TEACHER = small_models.init(2, 0, True, seed=1)
STUDENT = small_models.init(2, 1)
STEPS = discovery_steps.DiscoverySteps(
  STUDENT.module, TEACHER.module, WEIGHTS, OPTIMIZATION, BATCH_SIZE
)


def _data(teacher=None, seed=0, **kwargs):
  images = kwargs.pop('images', jnp.asarray(IMAGES))
  return discovery_steps.TrainingData(
    images, jnp.asarray(seed), teacher, **kwargs
  )


@functools.partial(jax.jit, static_argnames='program')
def _call(program, state, data, rows):
  return program(state, data, rows, loop.make_bounds())


STATE = steps.create_train_state(
  STUDENT.variables, steps.make_optimizer(OPTIMIZATION)
)


def _run_epoch(data, program, epoch=0):
  rows = batches.epoch_indices(data.seed, epoch, 40, BATCH_SIZE)
  state, metrics = _call(program, STATE, data, rows)
  return state, {name: np.mean(values) for name, values in metrics.items()}


@functools.partial(jax.jit, static_argnames='program')
def _read(data, program=STEPS, step=5):
  return program.read_inputs(step, data, jnp.arange(BATCH_SIZE) * 2)


def test_step_is_gradient_descent():
  # Loss (p - x)^2: the gradient at p = 1 and x = 3 is -4.
  def objective(params, batch_stats, inputs):
    loss = jnp.square(params - inputs)
    return loss, ({'loss': loss}, batch_stats)

  optimizer = optax.sgd(0.25)
  state = steps.create_train_state(
    {'params': jnp.array(1.0), 'batch_stats': {}}, optimizer
  )
  state, metrics = steps.train_step(
    state, jnp.array(3.0), objective=objective, optimizer=optimizer
  )
  assert state.params == 2.0  # 1 - 0.25 * -4.
  assert state.step == 1
  assert metrics['loss'] == 4.0  # Before the step.


def test_epoch_takes_the_batches_of_the_data_in_order():
  # The same steps one by one, without the loop.
  program = dataclasses.replace(STEPS, teacher_module=None)
  state, metrics = _run_epoch(_data(seed=3), program, epoch=2)
  optimizer, expected, found = steps.make_optimizer(OPTIMIZATION), STATE, []
  step = jax.jit(
    functools.partial(
      steps.train_step, objective=program.make_objective(), optimizer=optimizer
    )
  )
  # 40 examples: two steps of 16, 8 left out.
  for indices in batches.epoch_indices(3, 2, 40, BATCH_SIZE):
    images = IMAGES[indices] / np.float32(255)
    swaps = batches.step_permutations(3, expected.step, BATCH_SIZE, 1)
    inputs = objectives.Inputs(images, swaps)
    expected, step_metrics = step(expected, inputs)
    found.append(step_metrics)
  assert state.step == len(found) == 2
  # Adam's first steps are as large as the learning rate.
  chex.assert_trees_all_close(state.params, expected.params, atol=1e-5)
  for name, value in metrics.items():
    np.testing.assert_allclose(
      value, np.mean([m[name] for m in found]), rtol=1e-5, atol=1e-9
    )


def test_inputs_have_neighbors_of_the_images_of_a_batch():
  # Image i has the neighbours i + 1 and i + 2, known by its first pixel.
  images = jnp.zeros((32, *SHAPE), jnp.uint8)
  images = images.at[:, 0, 0, 0].set(jnp.arange(32, dtype=jnp.uint8))
  nearest = jnp.asarray((np.arange(32)[:, np.newaxis] + [1, 2]) % 32)
  program = dataclasses.replace(STEPS, weights=config.NeighborWeights())
  inputs = _read(_data(neighbors=nearest, images=images), program)
  read = lambda x: jnp.round(255 * x[:, 0, 0, 0])
  np.testing.assert_array_equal(read(inputs.images), np.arange(16) * 2)
  apart = (read(inputs.neighbor_images) - read(inputs.images)) % 32
  assert set(np.asarray(apart)) == {1.0, 2.0}


def test_ramp_counts_from_the_first_step_of_the_stage():
  weights = dataclasses.replace(WEIGHTS, ramp=config.Ramp('linear'))
  program = dataclasses.replace(STEPS, weights=weights, ramp_steps=4)
  assert _read(_data(first_step=10), program, 11).scale == 0.25


def test_teacher_of_the_data_gets_no_gradient():
  def loss(teacher, params):
    return STEPS.make_objective()(params, {}, _read(_data(teacher)))[0]

  grads, student = jax.jit(jax.grad(loss, argnums=(0, 1)))(
    TEACHER.variables, STUDENT.params
  )
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(student))


@pytest.mark.parametrize(
  ('form', 'swaps'), [('secant', 2), ('tangent', 1), ('path', 2), ('full', 1)]
)
def test_cached_teacher_is_the_computed_one(form, swaps):
  supervision = config.Supervision(form, 2, swaps)
  weights = dataclasses.replace(WEIGHTS, supervision=supervision)
  program = dataclasses.replace(STEPS, weights=weights)
  moved = jax.tree.map(lambda x: x + 0.1, TEACHER.batch_stats)
  teacher = {'params': TEACHER.params, 'batch_stats': moved}
  cache = discovery_steps.compute_teacher_cache(
    TEACHER.module, teacher, jnp.asarray(IMAGES), supervision
  )
  cached, computed = (
    _read(_data(cache), program),
    _read(_data(teacher), program),
  )
  # Rounding of float32.
  chex.assert_trees_all_close(cached, computed, atol=1e-5)
  assert np.max(np.abs(cached.teacher.changes)) > 1e-3
  assert len(cached.teacher.changes) == (2 if form == 'full' else swaps)
  if form != 'full':
    # A wrong partner would show: the swaps of another seed do.
    other = _read(_data(cache, seed=1), program)
    with pytest.raises(AssertionError):
      chex.assert_trees_all_close(other.teacher, cached.teacher, atol=1e-3)


def test_teacher_may_have_the_statistics_of_the_batch():
  data = _data(TEACHER.variables)
  program = dataclasses.replace(STEPS, teacher_statistics='batch')
  batch = _read(data, program).teacher.factors
  np.testing.assert_allclose(np.mean(batch, axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(np.std(batch, axis=0), 1, rtol=1e-2)
  running = _read(data).teacher.factors
  assert np.all(np.std(running, axis=0) < 0.7)


def test_traced_weights_replace_those_of_the_program():
  inputs = _read(_data(TEACHER.variables))
  expected = STEPS.make_objective()(STUDENT.params, {}, inputs)
  zero = jax.tree.map(lambda x: 0.0, WEIGHTS)
  program = dataclasses.replace(STEPS, weights=zero)

  @jax.jit
  def call(weights):
    inputs = _read(_data(TEACHER.variables, weights=weights), program)
    return program.make_objective(weights)(STUDENT.params, {}, inputs)

  chex.assert_trees_all_close(call(WEIGHTS), expected, atol=1e-5)


def test_epochs_and_seeds_differ_and_share_a_program():
  program = dataclasses.replace(STEPS, teacher_module=None)
  same = chex.assert_trees_all_equal
  run = lambda seed, epoch: _run_epoch(_data(seed=seed), program, epoch)
  first = run(0, 0)
  same(first, run(0, 0))
  size = _call._cache_size()
  for seed, epoch in ((0, 1), (1, 0)):
    with pytest.raises(AssertionError):
      same(first[0].params, run(seed, epoch)[0].params)
  assert _call._cache_size() == size
