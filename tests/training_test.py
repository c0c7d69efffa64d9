"""Tests of jacsup_jax.training."""

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
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import steps as training

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
BATCH_SIZE = 16
WEIGHTS = config.LossWeights(0.5, 1.0, 0.1)


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


def _run_epoch(data, optimizer, *, weights=WEIGHTS, seed=0, epoch=0, **kwargs):
  model = _model(2, 1)
  run = jax.jit(
      functools.partial(
          training.train_epoch,
          objective=training.make_student_objective(model, weights),
          optimizer=optimizer,
          seed=seed,
          batch_size=BATCH_SIZE,
          **kwargs,
      )
  )
  state, metrics = run(
      training.create_train_state(_init(model), optimizer), data, epoch
  )
  return state, {name: np.mean(values) for name, values in metrics.items()}


# Values.


def test_weight_decay_is_l2_in_the_gradient():
  # PyTorch's Adam(weight_decay=...) by hand, in numpy; AdamW differs.
  decay, rate, b1, b2 = 0.1, 0.01, 0.9, 0.999
  params, grads = np.array([1.0, -2.0]), np.array([0.5, 0.1])
  optimizer = training.make_optimizer(rate, decay)
  found = jnp.asarray(params, jnp.float32)
  state = optimizer.init(found)
  m, v = np.zeros(2), np.zeros(2)
  for step in (1, 2, 3):
    updates, state = optimizer.update(
        jnp.asarray(grads, jnp.float32), state, found
    )
    found = optax.apply_updates(found, updates)
    decayed = grads + decay * params
    m = b1 * m + (1 - b1) * decayed
    v = b2 * v + (1 - b2) * decayed**2
    corrected = (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + 1e-8)
    params = params - rate * corrected
    # Float32 against float64.
    np.testing.assert_allclose(found, params, rtol=1e-6)
  # The second gradient has the sign of the decay, not its own: -2 has grown.
  assert found[1] > -2.0


@pytest.mark.parametrize('name', training.OPTIMIZERS)
def test_learning_rate_falls_as_a_cosine_to_zero(name):
  make = functools.partial(training.make_optimizer, 0.1, 0.0, name=name)
  falling, steady = make(decay_steps=4), make()
  params, grads = jnp.ones((2, 3)), jnp.arange(6.0).reshape(2, 3) - 2
  states = falling.init(params), steady.init(params)
  shares = []
  for _ in range(5):
    moved, state = falling.update(grads, states[0], params)
    usual, other = steady.update(grads, states[1], params)
    states = state, other
    shares.append(np.linalg.norm(moved) / np.linalg.norm(usual))
  # (1 + cos(pi t / 4)) / 2.
  expected = [1.0, 0.8535534, 0.5, 0.1464466, 0.0]
  np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_muon_turns_matrices_and_leaves_biases_to_adam():
  optimizer = training.make_optimizer(0.1, 0.0, name='muon')
  params = {'kernel': jnp.zeros((4, 4)), 'bias': jnp.zeros(4)}
  scales = jnp.array([1.0, 0.5, 0.2, 0.1])
  grads = {'kernel': jnp.diag(scales), 'bias': scales}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  # Five steps of Newton and Schulz bring all singular values near to 1.
  values = np.linalg.svd(updates['kernel'], compute_uv=False) / 0.1
  assert np.all((values > 0.6) & (values < 1.3))
  # Adam's first step with Nesterov's momentum, at a tenth of the rate: a sign,
  # times 0.9 * 0.1 / (1 - 0.9^2) + 0.1 / (1 - 0.9).
  np.testing.assert_allclose(
      updates['bias'], np.full(4, -0.0147368), rtol=1e-4
  )


def test_first_state_is_step_zero():
  variables = _init(_model(2, 0, True))
  state = training.create_train_state(
      variables, training.make_optimizer(1e-3, 0.0)
  )
  assert state.step == 0 and state.step.shape == ()
  chex.assert_trees_all_equal(state.params, variables['params'])
  chex.assert_trees_all_equal(state.batch_stats, variables['batch_stats'])


def test_step_is_gradient_descent():
  # Loss (p - x)^2: the gradient at p = 1 and x = 3 is -4.
  def objective(params, batch_stats, inputs):
    loss = jnp.square(params - inputs)
    return loss, ({'loss': loss}, batch_stats)

  optimizer = optax.sgd(0.25)
  state = training.create_train_state(
      {'params': jnp.array(1.0), 'batch_stats': {}}, optimizer
  )
  state, metrics = training.train_step(
      state, jnp.array(3.0), objective=objective, optimizer=optimizer
  )
  assert state.params == 2.0  # 1 - 0.25 * -4.
  assert state.step == 1
  assert metrics['loss'] == 4.0  # Before the step.


def test_epoch_takes_the_batches_of_the_data_in_order():
  # The same steps one by one, without the scan.
  optimizer = optax.sgd(0.5)
  model = _model(2, 1)
  state, metrics = _run_epoch(
      training.TrainingData(IMAGES, None), optimizer,
      teacher_model=None, seed=3, epoch=2,
  )  # pyformat: disable
  expected = training.create_train_state(_init(model), optimizer)
  found = []
  # 40 examples: two steps of 16, 8 left out.
  for indices in batches.epoch_indices(3, 2, 40, BATCH_SIZE):
    inputs = training.StepInputs(
        IMAGES[indices] / np.float32(255),
        None,
        batches.step_permutation(3, expected.step, BATCH_SIZE),
    )
    expected, step_metrics = training.train_step(
        expected,
        inputs,
        objective=training.make_student_objective(model, WEIGHTS),
        optimizer=optimizer,
    )
    found.append(step_metrics)
  assert state.step == len(found) == 2
  # Rounding of float32 under another fusion.
  chex.assert_trees_all_close(state.params, expected.params, atol=1e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(
        value, np.mean([m[name] for m in found]), rtol=1e-5, atol=1e-9
    )


def test_epoch_reads_neighbors_of_the_images_of_each_batch():
  # Of two neighbours each; both are known from the image by its first pixel.
  images = np.zeros((32, *SHAPE), np.uint8)
  images[:, 0, 0, 0] = np.arange(32)
  nearest = (np.arange(32)[:, np.newaxis] + [1, 2]) % 32

  def objective(params, batch_stats, inputs):
    read = lambda x: jnp.round(255 * x[:, 0, 0, 0])
    apart = (read(inputs.neighbor_images) - read(inputs.images)) % 32
    metrics = {
        'loss': params,
        'first': jnp.sum(apart == 1),
        'second': jnp.sum(apart == 2),
    }
    return params, (metrics, batch_stats)

  optimizer = optax.sgd(0.1)
  state = training.TrainState(
      jnp.zeros((), jnp.int32), jnp.zeros(()), {}, optimizer.init(jnp.zeros(()))
  )
  data = training.TrainingData(
      jnp.asarray(images), None, jnp.asarray(nearest, jnp.int32)
  )
  _, metrics = training.train_epoch(
      state,
      data,
      0,
      objective=objective,
      optimizer=optimizer,
      teacher_model=None,
      seed=0,
      batch_size=BATCH_SIZE,
  )
  first, second = metrics['first'], metrics['second']
  np.testing.assert_array_equal(first + second, [BATCH_SIZE] * 2)
  assert np.all(first > 0) and np.all(second > 0)


# Gradients.


def test_teacher_of_the_data_gets_no_gradient():
  teacher_model = _model(2, 0)
  model = _model(2, 1)

  def loss(teacher, params):
    data = training.TrainingData(IMAGES, teacher)
    # The loss that the scanned step reports, of parameters that stay.
    optimizer = optax.set_to_zero()
    state = training.TrainState(
        jnp.zeros((), jnp.int32), params, {}, optimizer.init(params)
    )
    _, metrics = training.train_epoch(
        state,
        data,
        0,
        objective=training.make_student_objective(model, WEIGHTS),
        optimizer=optimizer,
        teacher_model=teacher_model,
        seed=0,
        batch_size=BATCH_SIZE,
    )
    return metrics['loss'].mean()

  grads, student = jax.jit(jax.grad(loss, argnums=(0, 1)))(
      _init(teacher_model, 1), _init(model)['params']
  )
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(student))


# Invariants.


@pytest.mark.parametrize('name', config.JACOBIANS)
def test_cached_teacher_is_the_computed_one(name):
  supervision = config.Supervision(name, nodes=2)
  teacher_model = _model(2, 0, True)
  teacher = _init(teacher_model, 1)
  teacher['batch_stats'] = jax.tree.map(
      lambda x: x + 0.1, teacher['batch_stats']
  )
  cache = training.compute_teacher_cache(
      teacher_model, teacher, IMAGES, supervision
  )
  optimizer = optax.sgd(0.5)
  run = functools.partial(
      _run_epoch,
      optimizer=optimizer,
      teacher_model=teacher_model,
      weights=dataclasses.replace(WEIGHTS, supervision=supervision),
      supervision=supervision,
  )
  cached = run(training.TrainingData(IMAGES, cache))
  computed = run(training.TrainingData(IMAGES, teacher))
  # Rounding of float32.
  chex.assert_trees_all_close(cached, computed, atol=1e-6, rtol=1e-5)
  # Far above the rounding of a square, about 1e-14.
  assert cached[1]['jacobian'] > 1e-7
  if name == 'full':
    return
  # A wrong partner would show: the swaps of another seed do.
  other = run(training.TrainingData(IMAGES, cache), seed=1)
  assert not np.isclose(other[1]['jacobian'], cached[1]['jacobian'], rtol=1e-3)


def test_teacher_in_training_mode_has_the_statistics_of_the_batch():
  teacher_model = _model(2, 0, True)
  data = training.TrainingData(IMAGES, _init(teacher_model, 1))
  run = functools.partial(
      _run_epoch, data, optax.sgd(0.5), teacher_model=teacher_model
  )
  # Factors of variance 1 are farther from the student's than the raw ones.
  assert (
      run(teacher_train_mode=True)[1]['factor_matching']
      > 3 * run(teacher_train_mode=False)[1]['factor_matching']
  )


def test_cache_has_a_row_per_image():
  teacher_model = _model(2, 0)
  teacher = _init(teacher_model)
  cache = training.compute_teacher_cache(teacher_model, teacher, IMAGES)
  encode = networks.make_encode(teacher_model)
  decode = networks.make_decode(teacher_model)
  code = encode(teacher['params'], IMAGES / np.float32(255))
  np.testing.assert_allclose(cache.factors, code.factors, atol=1e-6)
  np.testing.assert_allclose(
      cache.images, decode(teacher['params'], code), atol=1e-6
  )


def test_epochs_differ_in_their_order():
  data = training.TrainingData(IMAGES, None)
  run = functools.partial(
      _run_epoch, data, optax.sgd(0.5), teacher_model=None
  )
  same = chex.assert_trees_all_equal
  same(run(epoch=0), run(epoch=0))
  with pytest.raises(AssertionError):
    same(run(epoch=0)[0].params, run(epoch=1)[0].params)


@pytest.mark.parametrize('mode', parallel.MODES)
def test_epochs_compile_once(mode, caplog):
  teacher_model = _model(2, 0)
  cache = training.compute_teacher_cache(
      teacher_model, _init(teacher_model), jnp.asarray(IMAGES)
  )
  data = training.TrainingData(jnp.asarray(IMAGES), cache)
  optimizer = training.make_optimizer(1e-3, 1e-6)
  epoch_fn = parallel.make_epoch_fn(
      mode,
      BATCH_SIZE,
      functools.partial(training.make_student_objective, weights=WEIGHTS),
      _model(2, 1),
      teacher_model,
      optimizer=optimizer,
      seed=0,
  )
  # From the host, as a restored state is.
  state = jax.device_get(
      training.create_train_state(_init(_model(2, 1)), optimizer)
  )
  counts = []
  with jax.log_compiles():
    for epoch in range(3):
      state, _ = epoch_fn(state, data, epoch)
      compiled = [m for m in caplog.messages if 'Finished XLA comp' in m]
      counts.append(len(compiled))
  # Nothing compiles once the first epoch is done.
  assert counts[0] >= 1
  assert counts == 3 * counts[:1]
  if mode == 'jit':
    assert sum('train_epoch' in message for message in compiled) == 1
