"""Tests of jacsup_jax.fader_training."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.baselines import fader_training
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import faces
from jacsup_jax.evaluation import attribute_flips as flips
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import steps as training

MODEL = fader_networks.FaderAutoencoder(
    num_factors=2, nuisance_channels=3, image_size=8, first_width=4,
    last_width=4, discriminator_width=6, discriminator_hidden=5,
)  # pyformat: disable
WEIGHTS = config.FaderLossWeights(lambda_adversarial=0.5, ramp_steps=0)
# With weight decay: it moves what is stopped, unless the optimizer freezes it.
OPTIMIZER = training.make_optimizer(1e-2, 0.1, 0.5)


@pytest.fixture(scope='module')
def state():
  variables = networks.init_variables(MODEL, 0, MODEL.image_shape)
  return attribute_training.create_train_state(variables, OPTIMIZER)


@pytest.fixture(scope='module')
def inputs():
  random = np.random.default_rng(0)
  return fader_training.StepInputs(
      images=jnp.asarray(random.uniform(-1, 1, (4, 8, 8, 3)), jnp.float32),
      attributes=jnp.asarray(
          [[1, 1], [-1, 1], [1, -1], [-1, -1]], jnp.float32
      ),
      uniform=jnp.asarray(random.uniform(size=(4, 5)), jnp.float32),
  )


@functools.partial(jax.jit, static_argnames='weights')
def _step(state, inputs, weights=WEIGHTS):
  return fader_training.train_step(
      state, inputs, model=MODEL, weights=weights, optimizer=OPTIMIZER
  )


def _encode(params, state, inputs):
  code, _ = networks.apply_in_training(
      MODEL, params, state.batch_stats, 'encode', inputs.images,
      inputs.attributes,
  )  # pyformat: disable
  return code


# Both with the encoder inside, as the publication writes them.
@jax.jit
def _discriminator_grads(state, inputs):
  def objective(params):
    nuisance = _encode(params, state, inputs).nuisance
    return fader_training.discriminator_objective(
        params, state.batch_stats, nuisance, inputs, model=MODEL
    )

  return jax.grad(objective, has_aux=True)(state.params)


@jax.jit
def _autoencoder_grads(state, inputs, weight):
  def objective(params):
    code = _encode(params, state, inputs)
    return fader_training.autoencoder_objective(
        params, state.batch_stats, code, inputs, weight, model=MODEL
    )

  return jax.grad(objective, has_aux=True)(state.params)


def _all_zero(tree):
  return all(not np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


# Values.


def test_ramp_is_linear_from_nothing():
  weights = config.FaderLossWeights(lambda_adversarial=0.2, ramp_steps=100)
  weight = functools.partial(
      fader_training.compute_adversarial_weight, weights=weights
  )
  # 0.2 * 25 / 100.
  for step, expected in ((0, 0.0), (25, 0.05), (100, 0.2), (1000, 0.2)):
    np.testing.assert_allclose(weight(jnp.int32(step)), expected, rtol=1e-6)
  at_once = config.FaderLossWeights(lambda_adversarial=0.2, ramp_steps=0)
  first = fader_training.compute_adversarial_weight(jnp.int32(0), at_once)
  np.testing.assert_allclose(first, 0.2, rtol=1e-6)


def test_loss_is_the_error_and_the_weighted_term(state, inputs):
  _, metrics = _step(state, inputs)
  np.testing.assert_allclose(
      metrics['loss'],
      metrics['reconstruction'] + 0.5 * metrics['adversarial'],
      rtol=1e-6,
  )
  assert 0 <= metrics['discriminator_accuracy'] <= 1
  # Untrained, two attributes are told by chance: about 2 log 2 nats.
  np.testing.assert_allclose(metrics['discriminator'], 1.39, atol=0.7)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'lambda_adversarial': -1.0}, '--lambda_adversarial is -1.0'),
        ({'lambda_adversarial': float('nan')}, '--lambda_adversarial is nan'),
        ({'ramp_steps': -2}, '--ramp_steps is -2'),
    ],
)
def test_weights_below_zero_are_refused(changes, message):
  with pytest.raises(errors.InputError, match=message):
    config.FaderLossWeights(**changes)


# Gradients.


def test_discriminator_trains_nothing_else(state, inputs):
  grads, _ = _discriminator_grads(state, inputs)
  assert _all_zero(grads['encoder']) and _all_zero(grads['decoder'])
  assert not _all_zero(grads['discriminator'])


def test_adversarial_term_reaches_the_encoder_alone(state, inputs):
  # Of the autoencoder: the difference that the weight makes.
  grads = [
      _autoencoder_grads(state, inputs, jnp.float32(weight))[0]
      for weight in (0.0, 1.0)
  ]
  difference = jax.tree.map(lambda a, b: a - b, *grads)
  assert _all_zero(difference['decoder'])
  assert not _all_zero(difference['encoder'])


def test_second_update_fools_the_updated_discriminator(state, inputs):
  after, metrics = _step(state, inputs)
  grads, (_, batch_stats) = _discriminator_grads(state, inputs)
  between = attribute_training.apply_gradients(
      state, {'discriminator': grads['discriminator']}, OPTIMIZER
  )
  between = between._replace(batch_stats=batch_stats)
  # No later update moves it, weight decay included.
  chex.assert_trees_all_close(
      after.params['discriminator'],
      between.params['discriminator'],
      # Adam divides by small gradients: programs round apart.
      atol=1e-4,
  )
  grads, (terms, _) = _autoencoder_grads(between, inputs, jnp.float32(0.5))
  np.testing.assert_allclose(
      metrics['adversarial'], terms['adversarial'], rtol=1e-3
  )
  del grads['discriminator']
  expected = attribute_training.apply_gradients(between, grads, OPTIMIZER)
  chex.assert_trees_all_close(after.params, expected.params, atol=1e-4)
  assert after.step == 1


# Invariants.


def test_running_statistics_follow_every_part_once(state, inputs):
  after, _ = _step(state, inputs)
  # From 0 by a tenth of the batch's mean (momentum 0.9).
  encode = lambda: MODEL.apply(
      {'params': state.params, 'batch_stats': state.batch_stats},
      inputs.images, inputs.attributes, train=True, method='encode',
      mutable='batch_stats',
  )  # pyformat: disable
  _, once = jax.jit(encode)()
  chex.assert_trees_all_close(
      after.batch_stats['encoder'], once['batch_stats']['encoder'], rtol=1e-5
  )
  for part in ('decoder', 'discriminator'):
    means = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            after.batch_stats[part]
        )
        if 'mean' in jax.tree_util.keystr(path)
    ]
    assert means and all(np.any(mean != 0) for mean in means)


# Oracle and anti-oracle: on faces drawn by the package, the discriminator tells
# attributes from a free code, and not from one that is trained to fool it.

NAMES = ('Bangs', 'Pale_Skin', 'Wearing_Hat')


def _draw(split, count):
  columns = [drawn_faces.ATTRIBUTES.index(name) for name in NAMES]
  images, attributes = zip(*(drawn_faces.draw(i, split) for i in range(count)))
  # Means of 4x4 pixels: 16x16 images are enough for these.
  small = np.stack(images).reshape(count, 16, 4, 16, 4, 3).mean(axis=(2, 4))
  return faces.FaceDataset(
      name='drawn',
      split=split,
      attribute_names=NAMES,
      image_size=16,
      fingerprint='drawn',
      attributes=np.where(np.stack(attributes)[:, columns] > 0, 1, -1).astype(
          np.int8
      ),
      images=small.round().astype(np.uint8),
  )


@pytest.fixture(scope='module')
def train():
  return _draw('train', 1024)


@pytest.fixture(scope='module')
def held_out():
  return _draw('test', 256)


def _train_and_tell(weight, train, held_out):
  """Returns the balanced accuracy on held-out faces, `[K]`, and the error."""
  make_model = lambda dim: fader_networks.FaderAutoencoder(
      len(NAMES), dim // 4, image_size=16, first_width=16, last_width=32,
      discriminator_width=64, discriminator_hidden=64,
  )  # pyformat: disable
  recipe = fader_training.FaderEditing(
      editing.Settings(batch_size=32, learning_rate=1e-3), make_model, train
  )
  weights = config.FaderLossWeights(weight, ramp_steps=100)
  stage = config.Stage('fader', 'fader', None, 32, 12, weights)
  model, state = recipe.create(stage, {})
  epoch_fn = recipe.make_epoch(stage, model, {})
  for epoch in range(stage.epochs):
    state, metrics = epoch_fn(state, epoch)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  images = batches.to_signed_float(jnp.asarray(held_out.images))
  code = model.apply(
      variables, images, jnp.asarray(held_out.attributes), method='encode'
  )
  logits = model.apply(variables, code.nuisance, method='discriminate')
  told = flips.count_correct(
      lambda unused_images: jnp.where(logits > 0, 1, -1),
      held_out.images,
      held_out.attributes,
      batch_size=len(images),
  )
  return told.balanced_accuracy, float(metrics['reconstruction'])


def test_discriminator_learns_where_nothing_opposes_it(train, held_out):
  accuracy, error = _train_and_tell(0.0, train, held_out)
  # Chance is 0.5.
  assert np.mean(accuracy) > 0.8, accuracy
  assert error < 0.06


def test_discriminator_is_fooled_where_the_weight_is_on(train, held_out):
  accuracy, error = _train_and_tell(0.01, train, held_out)
  # 0.5 is chance: it sees nothing any more, and the images are there.
  assert np.mean(accuracy) < 0.6, accuracy
  assert error < 0.06
