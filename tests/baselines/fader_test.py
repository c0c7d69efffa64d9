"""Tests of jacsup_jax.baselines.fader."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
import small_rivals

from jacsup_jax.baselines import fader
from jacsup_jax.baselines import fader_steps
from jacsup_jax.baselines import rivals
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import attributes
from jacsup_jax.training import objectives
from jacsup_jax.training import steps

MODULE = fader.FaderAutoencoder(
  2, 3, 8, 4, 4, discriminator_width=6, discriminator_hidden=5
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


@jax.jit
def _step(state, batch):
  return fader_steps.train_step(
    state, batch, module=MODULE, weights=WEIGHTS, optimizer=OPTIMIZER
  )


# Both with the encoder inside, as the publication writes them.
@functools.partial(jax.jit, static_argnames='objective')
def _grads(objective, state, batch, *args):
  def whole(params):
    inputs = ('encode', batch.images, batch.attributes)
    code, _ = models.apply_train(MODULE, params, state.batch_stats, *inputs)
    return objective(params, state.batch_stats, code, batch, *args)

  return jax.grad(whole, has_aux=True)(state.params)


def _discriminator(params, stats, code, batch):
  args = (params, stats, code.nuisance, batch.attributes, batch.uniform)
  return fader_steps.discriminator_objective(*args, module=MODULE)


_autoencoder = functools.partial(
  fader_steps.autoencoder_objective, module=MODULE
)


def _all_zero(tree):
  return all(not np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


def test_factors_are_the_labels(state, batch):
  encode, decode = map(jax.jit, (models.Model.encode, models.Model.decode))
  model = models.Model(MODULE, state.params, state.batch_stats)
  code = encode(model, batch.images, ATTRIBUTES)
  np.testing.assert_array_equal(code.factors, ATTRIBUTES)
  chex.assert_shape(code.nuisance, (4, 2, 2, 3))
  other = encode(model, batch.images, -ATTRIBUTES)
  np.testing.assert_array_equal(other.nuisance, code.nuisance)
  decoded = decode(model, code)
  chex.assert_shape(decoded, (4, 8, 8, 3))
  assert np.any(decoded != decode(model, other))
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
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  logits = jax.jit(functools.partial(MODULE.apply, method='discriminate'))(
    variables, nuisance.astype(np.float32), uniform
  )
  np.testing.assert_allclose(logits, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('ramp_steps', 'step', 'expected'),  # 0.2 * 25 / 100.
  [(100, 0, 0.0), (100, 25, 0.05), (100, 1000, 0.2), (0, 0, 0.2)],
)
def test_ramp_is_linear_from_zero(ramp_steps, step, expected):
  weights = fader.FaderLossWeights(0.2, ramp_steps)
  weight = fader_steps.compute_adversarial_weight(jnp.int32(step), weights)
  np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_flags_and_stages():
  assert rivals.make_stages(rivals.BaselineConfig(), 8) == []
  names = tuple(rivals.BASELINES)
  flags = rivals.BaselineConfig(baselines=names, baseline_epochs=3)
  for name, stage in zip(names, rivals.make_stages(flags, 8), strict=True):
    assert (stage.name, stage.nuisance_dim, stage.epochs) == (name, 8, 3)
    assert stage.weights == getattr(flags, f'{name}_weights')
    assert not stage.weights.needs_teacher
    assert config.Stage.from_json(stage.to_json()) == stage
    chain = attributes.AttributesConfig(weight_decay=1.0)
    recipe = rivals.make_recipe(name, chain, lambda dim, cls: None, range(128))
    own = rivals.BASELINES[name]
    # Under the name by which runs are opened.
    assert own.network.__module__ == f'jacsup_jax.baselines.{name}'
    assert recipe.flags.learning_rate == own.learning_rate
    assert recipe.flags.weight_decay == 0
    make = functools.partial(rivals.make_recipe, name, chain, lambda dim: None)
    assert make(range(128), supervises=True).flags == chain


def test_discriminator_trains_nothing_else(state, batch):
  grads, _ = _grads(_discriminator, state, batch)
  assert _all_zero(grads['encoder']) and _all_zero(grads['decoder'])
  assert not _all_zero(grads['discriminator'])


def test_adversarial_term_reaches_the_encoder_alone(state, batch):
  # The difference that the weight makes to the autoencoder's gradients.
  grads = [
    _grads(_autoencoder, state, batch, jnp.float32(weight))[0]
    for weight in (0.0, 1.0)
  ]
  difference = jax.tree.map(lambda a, b: a - b, *grads)
  assert _all_zero(difference['decoder'])
  assert not _all_zero(difference['encoder'])


def test_second_update_fools_the_updated_discriminator(state, batch):
  after, metrics = _step(state, batch)
  # Untrained, two attributes are predicted by chance: about 2 log 2 nats.
  np.testing.assert_allclose(metrics['discriminator'], 1.39, atol=0.7)
  grads, (_, batch_stats) = _grads(_discriminator, state, batch)
  between = steps.apply_gradients(
    state, {'discriminator': grads['discriminator']}, OPTIMIZER
  )
  between = between._replace(batch_stats=batch_stats)
  # Adam divides by small gradients: programs round differently.
  close = functools.partial(chex.assert_trees_all_close, atol=1e-4)
  # The second update does not move it, weight decay included.
  close(after.params['discriminator'], between.params['discriminator'])
  grads, (terms, _) = _grads(_autoencoder, between, batch, jnp.float32(0.5))
  total = terms['reconstruction'] + 0.5 * terms['adversarial']
  for name, value in (*terms.items(), ('loss', total)):
    np.testing.assert_allclose(metrics[name], value, rtol=1e-3)
  del grads['discriminator']
  expected = steps.apply_gradients(between, grads, OPTIMIZER)
  close(after.params, expected.params)
  assert after.step == 1


# Oracle and anti-oracle: on faces drawn by the package, the discriminator
# predicts attributes from a free code, and not from one trained to fool it.

NAMES = ('Bangs', 'Pale_Skin', 'Wearing_Hat')


@pytest.fixture(scope='module')
def drawn():
  return (
    small_rivals.draw(512, 8, NAMES),
    small_rivals.draw(128, 8, NAMES, 'test'),
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('weight', 'lowest', 'highest'), [(0.0, 0.75, 1.0), (0.01, 0.0, 0.6)]
)
def test_discriminator_learns_unless_it_is_opposed(
  drawn, weight, lowest, highest
):
  train, held_out = drawn
  module = fader.FaderAutoencoder(
    *(3, 8, 8, 16, 32), discriminator_width=32, discriminator_hidden=32
  )
  weights = fader.FaderLossWeights(weight, adversarial_ramp_steps=50)
  run = small_rivals.Run(module, fader_steps.FaderSteps, weights, train, 32)
  state, metrics = run.train(8)
  model = run.bind(state)
  images = batches.to_signed_float(jnp.asarray(held_out.images))
  code = jax.jit(models.Model.encode)(model, images, held_out.labels)
  logits = module.apply(model.variables, code.nuisance, method='discriminate')
  # Balanced, so that chance is 0.5; and the images are there.
  accuracy = np.mean(
    [
      sklearn.metrics.balanced_accuracy_score(labels > 0, found)
      for labels, found in zip(held_out.labels.T, np.asarray(logits).T > 0)
    ]
  )
  assert lowest < accuracy < highest, accuracy
  assert metrics[-1]['reconstruction'] < 0.06
