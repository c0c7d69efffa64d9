"""Tests of jacsup_jax.baselines.fader."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.baselines import fader
from jacsup_jax.baselines import fader_steps
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import attributes
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

MODULE = fader.FaderAutoencoder(
  num_factors=2,
  nuisance_channels=3,
  image_size=8,
  first_width=4,
  last_width=4,
  discriminator_width=6,
  discriminator_hidden=5,
)
WEIGHTS = fader.FaderLossWeights(0.5, adversarial_ramp_steps=0)
# With weight decay: it moves what is stopped, unless the optimizer freezes it.
OPTIMIZER = steps.make_optimizer(
  config.Optimization(learning_rate=1e-2, adam_b1=0.5, weight_decay=0.1)
)
ATTRIBUTES = jnp.array([[1, 1], [-1, 1], [1, -1], [-1, -1]], jnp.float32)


@pytest.fixture(scope='module')
def state():
  variables = autoencoders.init_variables(MODULE, 0)
  return attribute_steps.create_train_state(variables, OPTIMIZER)


@pytest.fixture(scope='module')
def batch():
  random = np.random.default_rng(0)
  images = jnp.asarray(random.uniform(-1, 1, (4, 8, 8, 3)), jnp.float32)
  uniform = jnp.asarray(random.uniform(size=(4, 5)), jnp.float32)
  return objectives.Inputs(images, attributes=ATTRIBUTES, uniform=uniform)


@functools.partial(jax.jit, static_argnames='method')
def _apply(state, method, *args):
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  return MODULE.apply(variables, *args, method=method)


@jax.jit
def _step(state, batch):
  return fader_steps.train_step(
    state, batch, module=MODULE, weights=WEIGHTS, optimizer=OPTIMIZER
  )


def _encode(params, state, inputs):
  return objectives.apply_train(
    MODULE,
    params,
    state.batch_stats,
    'encode',
    inputs.images,
    inputs.attributes,
  )[0]


# Both with the encoder inside, as the publication writes them.
@jax.jit
def _discriminator_grads(state, batch):
  def objective(params):
    nuisance = _encode(params, state, batch).nuisance
    return fader_steps.discriminator_objective(
      params,
      state.batch_stats,
      nuisance,
      batch.attributes,
      batch.uniform,
      module=MODULE,
    )

  return jax.grad(objective, has_aux=True)(state.params)


@jax.jit
def _autoencoder_grads(state, batch, weight):
  def objective(params):
    code = _encode(params, state, batch)
    return fader_steps.autoencoder_objective(
      params, state.batch_stats, code, batch, weight, module=MODULE
    )

  return jax.grad(objective, has_aux=True)(state.params)


def _all_zero(tree):
  return all(not np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


# Values.


def test_factors_are_the_labels(state, batch):
  images = batch.images
  model = models.Model(MODULE, state.params, state.batch_stats)
  code = model.encode(images, ATTRIBUTES)
  np.testing.assert_array_equal(code.factors, ATTRIBUTES)
  chex.assert_shape(code.nuisance, (4, 2, 2, 3))
  other = model.encode(images, -ATTRIBUTES)
  np.testing.assert_array_equal(other.nuisance, code.nuisance)
  decoded = model.decode(code)
  chex.assert_shape(decoded, (4, 8, 8, 3))
  assert np.any(decoded != model.decode(other))
  with pytest.raises(ValueError, match='without attributes'):
    model.encode(images)
  # Made again from a run's description.
  assert models.make_module(models.describe_module(MODULE)) == MODULE


def test_discriminator_is_that_of_numpy(state):
  nuisance = np.random.default_rng(0).normal(size=(4, 2, 2, 3))
  uniform = np.random.default_rng(1).uniform(size=(4, 5))
  params = jax.device_get(state.params['discriminator'])
  # Padding of 1 around a 2x2 map: only the middle of the kernel is used.
  kernel = params['down_0']['kernel'][1:3, 1:3]
  x = np.einsum('bijc,ijco->bo', nuisance, kernel) + params['down_0']['bias']
  # Running statistics at the start: mean 0, variance 1.
  x = x / np.sqrt(1 + 1e-5)
  leaky = lambda x: np.where(x > 0, x, 0.2 * x)
  x = leaky(x)
  x = leaky(x @ params['dense']['kernel'] + params['dense']['bias'])
  x = np.where(uniform >= 0.3, x / 0.7, 0)
  x = x @ params['logits']['kernel'] + params['logits']['bias']
  logits = _apply(
    state, 'discriminate', jnp.asarray(nuisance), jnp.asarray(uniform)
  )
  np.testing.assert_allclose(logits, x, rtol=1e-4, atol=1e-5)


def test_ramp_is_linear_from_zero():
  weights = fader.FaderLossWeights(0.2, adversarial_ramp_steps=100)
  weight = functools.partial(
    fader_steps.compute_adversarial_weight, weights=weights
  )
  # 0.2 * 25 / 100.
  for step, expected in ((0, 0.0), (25, 0.05), (100, 0.2), (1000, 0.2)):
    np.testing.assert_allclose(weight(jnp.int32(step)), expected, rtol=1e-6)
  at_once = fader.FaderLossWeights(0.2, adversarial_ramp_steps=0)
  first = fader_steps.compute_adversarial_weight(jnp.int32(0), at_once)
  np.testing.assert_allclose(first, 0.2, rtol=1e-6)


def test_loss_is_the_error_and_the_weighted_term(state, batch):
  _, metrics = _step(state, batch)
  np.testing.assert_allclose(
    metrics['loss'],
    metrics['reconstruction'] + 0.5 * metrics['adversarial'],
    rtol=1e-6,
  )
  assert 0 <= metrics['discriminator_accuracy'] <= 1
  # Untrained, two attributes are predicted by chance: about 2 log 2 nats.
  np.testing.assert_allclose(metrics['discriminator'], 1.39, atol=0.7)


def test_flags_and_stages():
  assert fader.make_stages(fader.FaderConfig(), 8) == []
  flags = fader.FaderConfig(fader_epochs=3, fader_learning_rate=0.5)
  [stage] = fader.make_stages(flags, 8)
  assert (stage.name, stage.nuisance_dim, stage.epochs) == ('fader', 8, 3)
  assert not stage.weights.needs_teacher
  assert config.Stage.from_json(stage.to_json()) == stage
  chain = fader.make_flags(attributes.AttributesConfig(weight_decay=1.0), flags)
  assert (chain.learning_rate, chain.weight_decay) == (0.5, 0.0)
  with pytest.raises(errors.InputError, match='--lambda_adversarial=-1.0'):
    fader.FaderLossWeights(-1.0)
  with pytest.raises(errors.InputError, match='--fader_epochs=-1'):
    fader.FaderConfig(-1)
  with pytest.raises(errors.InputError, match='power'):
    fader.FaderAutoencoder(2, 3, image_size=12)


# Gradients.


def test_discriminator_trains_nothing_else(state, batch):
  grads, _ = _discriminator_grads(state, batch)
  assert _all_zero(grads['encoder']) and _all_zero(grads['decoder'])
  assert not _all_zero(grads['discriminator'])


def test_adversarial_term_reaches_the_encoder_alone(state, batch):
  # The difference that the weight makes to the autoencoder's gradients.
  grads = [
    _autoencoder_grads(state, batch, jnp.float32(weight))[0]
    for weight in (0.0, 1.0)
  ]
  difference = jax.tree.map(lambda a, b: a - b, *grads)
  assert _all_zero(difference['decoder'])
  assert not _all_zero(difference['encoder'])


def test_second_update_fools_the_updated_discriminator(state, batch):
  after, metrics = _step(state, batch)
  grads, (_, batch_stats) = _discriminator_grads(state, batch)
  between = attribute_steps.apply_gradients(
    state, {'discriminator': grads['discriminator']}, OPTIMIZER
  )
  between = between._replace(batch_stats=batch_stats)
  # The second update does not move it, weight decay included.
  chex.assert_trees_all_close(
    after.params['discriminator'],
    between.params['discriminator'],
    # Adam divides by small gradients: programs round differently.
    atol=1e-4,
  )
  grads, (terms, _) = _autoencoder_grads(between, batch, jnp.float32(0.5))
  np.testing.assert_allclose(
    metrics['adversarial'], terms['adversarial'], rtol=1e-3
  )
  del grads['discriminator']
  expected = attribute_steps.apply_gradients(between, grads, OPTIMIZER)
  chex.assert_trees_all_close(after.params, expected.params, atol=1e-4)
  assert after.step == 1


# Invariants.


# Oracle and anti-oracle: on faces drawn by the package, the discriminator
# predicts attributes from a free code, and not from one trained to fool it.

NAMES = ('Bangs', 'Pale_Skin', 'Wearing_Hat')


def _draw(split, count):
  columns = [drawn_faces.ATTRIBUTES.index(name) for name in NAMES]
  images, labels = zip(*(drawn_faces.draw(i, split) for i in range(count)))
  # Means of 4x4 pixels: 16x16 images are enough for these.
  small = np.stack(images).reshape(count, 16, 4, 16, 4, 3).mean(axis=(2, 4))
  labels = np.where(np.stack(labels)[:, columns] > 0, 1, -1).astype(np.int8)
  small = small.round().astype(np.uint8)
  return registry.Dataset('drawn', split, small, labels, attribute_names=NAMES)


@pytest.fixture(scope='module')
def drawn():
  return _draw('train', 1024), _draw('test', 256)


@pytest.mark.parametrize(
  ('weight', 'lowest', 'highest'), [(0.0, 0.8, 1.0), (0.01, 0.0, 0.6)]
)
def test_discriminator_learns_unless_it_is_opposed(
  drawn, weight, lowest, highest
):
  train, held_out = drawn
  make_module = lambda dim: fader.FaderAutoencoder(
    len(NAMES),
    dim // 4,
    image_size=16,
    first_width=16,
    last_width=32,
    discriminator_width=64,
    discriminator_hidden=64,
  )
  flags = attributes.AttributesConfig(batch_size=32, learning_rate=1e-3)
  recipe = attributes.Attributes(
    flags, make_module, train, fader_steps.FaderSteps
  )
  weights = fader.FaderLossWeights(weight, adversarial_ramp_steps=100)
  [stage] = fader.make_stages(fader.FaderConfig(12, weights=weights), 32)
  module, state = recipe.create(stage, {})
  epoch_fn = recipe.make_epoch(stage, module, {})
  for epoch in range(stage.epochs):
    state, metrics = epoch_fn(state, epoch)
  model = steps.Trained(stage, module, state).model
  images = batches.to_signed_float(jnp.asarray(held_out.images))
  labels = jnp.asarray(held_out.labels)
  code = jax.jit(models.Model.encode)(model, images, labels)
  logits = module.apply(model.variables, code.nuisance, method='discriminate')
  right = np.asarray((logits > 0) == (labels > 0))
  accuracy = np.mean(
    [
      np.mean(right[labels[:, i] == sign, i])
      for i in range(len(NAMES))
      for sign in (-1, 1)
    ]
  )
  # Balanced, so that chance is 0.5; and the images are there.
  assert lowest < accuracy < highest, accuracy
  assert metrics['reconstruction'] < 0.06
