"""Tests of jacsup_jax.training.steps and discovery_steps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.training import discovery_steps
from jacsup_jax.training import loop
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
BATCH_SIZE = 16
WEIGHTS = config.LossWeights(0.5, 1.0, 0.1)
OPTIMIZATION = config.Optimization(learning_rate=1e-2, weight_decay=0.0)


def _module(num_factors, nuisance_dim, normalize_code=False):
  return autoencoders.MlpAutoencoder(
    num_factors, nuisance_dim, normalize_code, image_shape=SHAPE, widths=(8, 6)
  )


TEACHER = _module(2, 0, True)
STEPS = discovery_steps.DiscoverySteps(
  _module(2, 1), TEACHER, WEIGHTS, OPTIMIZATION, BATCH_SIZE
)


def _init(module, seed=0):
  return autoencoders.init_variables(module, seed)


def _data(teacher=None, seed=0, **kwargs):
  images = jnp.asarray(IMAGES)
  return discovery_steps.TrainingData(
    images, jnp.asarray(seed), teacher, **kwargs
  )


@functools.partial(jax.jit, static_argnames='program')
def _call(program, state, data, rows):
  return program(state, data, rows, loop.make_bounds())


def _run_epoch(data, program=STEPS, epoch=0):
  state = steps.create_train_state(
    _init(program.module), steps.make_optimizer(OPTIMIZATION)
  )
  rows = batches.epoch_indices(data.seed, epoch, 40, BATCH_SIZE)
  state, metrics = _call(program, state, data, rows)
  return state, {name: np.mean(values) for name, values in metrics.items()}


# Values.


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
  optimizer = steps.make_optimizer(OPTIMIZATION)
  expected = steps.create_train_state(_init(program.module), optimizer)
  found = []
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
  data = _data(neighbors=nearest)._replace(images=images)
  inputs = program.read_inputs(jnp.int32(0), data, jnp.arange(16) * 2)
  read = lambda x: jnp.round(255 * x[:, 0, 0, 0])
  np.testing.assert_array_equal(read(inputs.images), np.arange(16) * 2)
  apart = (read(inputs.neighbor_images) - read(inputs.images)) % 32
  assert set(np.asarray(apart)) == {1.0, 2.0}


def test_ramp_counts_from_the_first_step_of_the_stage():
  weights = dataclasses.replace(WEIGHTS, ramp=config.Ramp('linear'))
  program = dataclasses.replace(STEPS, weights=weights, ramp_steps=4)
  data = _data(first_step=jnp.int32(10))
  inputs = program.read_inputs(jnp.int32(11), data, jnp.arange(16))
  assert inputs.scale == 0.25


# Gradients.


def test_teacher_of_the_data_gets_no_gradient():
  def loss(teacher, params):
    data = _data(teacher)
    inputs = STEPS.read_inputs(jnp.int32(0), data, jnp.arange(16))
    return STEPS.make_objective()(params, {}, inputs)[0]

  grads, student = jax.jit(jax.grad(loss, argnums=(0, 1)))(
    _init(TEACHER, 1), _init(STEPS.module)['params']
  )
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(student))


# Invariants.


@pytest.mark.parametrize('swaps', [1, 2])
@pytest.mark.parametrize('form', config.JACOBIANS)
def test_cached_teacher_is_the_computed_one(form, swaps):
  if form == 'full' and swaps > 1:
    return
  supervision = config.Supervision(form, 2, swaps)
  weights = dataclasses.replace(
    WEIGHTS, supervision=supervision, lambda_check=0.1
  )
  program = dataclasses.replace(STEPS, weights=weights)
  teacher = _init(TEACHER, 1)
  teacher['batch_stats'] = jax.tree.map(
    lambda x: x + 0.1, teacher['batch_stats']
  )
  cache = discovery_steps.compute_teacher_cache(
    TEACHER, teacher, jnp.asarray(IMAGES), supervision, check=True
  )
  read = jax.jit(
    lambda data: program.read_inputs(jnp.int32(5), data, jnp.arange(16) * 2)
  )
  cached, computed = read(_data(cache)), read(_data(teacher))
  # Rounding of float32.
  chex.assert_trees_all_close(cached, computed, atol=1e-5)
  assert np.max(np.abs(cached.teacher.changes)) > 1e-3
  assert len(cached.teacher.changes) == (2 if form == 'full' else swaps)
  if form != 'full':
    # A wrong partner would show: the swaps of another seed do.
    other = read(_data(cache, seed=1))
    with pytest.raises(AssertionError):
      chex.assert_trees_all_close(other.teacher, cached.teacher, atol=1e-3)


def test_teacher_may_have_the_statistics_of_the_batch():
  data = _data(_init(TEACHER, 1))
  batch = dataclasses.replace(STEPS, teacher_statistics='batch')
  # Factors of variance 1 are farther from the student's than the raw ones.
  assert (
    _run_epoch(data, batch)[1]['factor_matching']
    > 3 * _run_epoch(data)[1]['factor_matching']
  )


def test_traced_weights_replace_those_of_the_program():
  cache = discovery_steps.compute_teacher_cache(
    TEACHER, _init(TEACHER, 1), jnp.asarray(IMAGES)
  )
  expected = _run_epoch(_data(cache))
  zero = jax.tree.map(lambda x: 0.0, WEIGHTS)
  traced = jax.tree.map(jnp.float32, WEIGHTS)
  program = dataclasses.replace(STEPS, weights=zero)
  found = _run_epoch(_data(cache, weights=traced), program)
  chex.assert_trees_all_close(found, expected, atol=1e-5)


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
