"""Tests of jacsup_jax.fader_networks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders as networks

MODEL = fader_networks.FaderAutoencoder(
    num_factors=2, nuisance_channels=3, image_size=8, first_width=4,
    last_width=4, discriminator_width=6, discriminator_hidden=5,
)  # pyformat: disable
ATTRIBUTES = jnp.array([[1, -1], [-1, -1], [1, 1]])


@pytest.fixture(scope='module')
def variables():
  return networks.init_variables(MODEL, 0, MODEL.image_shape)


@pytest.fixture(scope='module')
def images():
  return jax.random.uniform(jax.random.key(1), (3, 8, 8, 3), minval=-1.0)


def _apply(variables, method, *args, **kwargs):
  return MODEL.apply(variables, *args, method=method, **kwargs)


# Values.


def test_sizes_are_the_published_ones():
  model = fader_networks.FaderAutoencoder(40, 512)
  variables = jax.eval_shape(lambda: networks.init_variables(
      model, 0, model.image_shape
  ))  # pyformat: disable
  shapes = jax.tree.map(lambda x: x.shape, variables['params'])
  assert set(shapes) == {'encoder', 'decoder', 'discriminator'}
  # C(512), 512 hidden units, an output an attribute.
  discriminator = shapes['discriminator']
  assert discriminator['down_0']['kernel'] == (4, 4, 512, 512)
  assert discriminator['dense']['kernel'] == (512, 512)
  assert discriminator['logits']['kernel'] == (512, 40)
  # The encoder makes the nuisance alone; the labels come to all of the decoder.
  assert shapes['encoder']['down_6']['kernel'] == (4, 4, 512, 512)
  assert shapes['decoder']['up_0']['kernel'] == (4, 4, 552, 512)
  assert shapes['decoder']['up_6']['kernel'][2] == 16 + 40


def test_factors_are_the_labels(variables, images):
  code = _apply(variables, 'encode', images, ATTRIBUTES)
  np.testing.assert_array_equal(code.factors, ATTRIBUTES)
  chex.assert_shape(code.nuisance, (3, 2, 2, 3))
  other = _apply(variables, 'encode', images, -ATTRIBUTES)
  np.testing.assert_array_equal(other.nuisance, code.nuisance)
  decoded = _apply(variables, 'decode', code)
  chex.assert_shape(decoded, (3, 8, 8, 3))
  assert np.any(decoded != _apply(variables, 'decode', other))


def test_discriminator_is_that_of_numpy(variables):
  nuisance = np.random.default_rng(0).normal(size=(4, 2, 2, 3))
  uniform = np.random.default_rng(1).uniform(size=(4, 5))
  params = jax.device_get(variables['params']['discriminator'])
  # Padding of 1 around a 2x2 map: the middle of the kernel is all that is met.
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
      variables, 'discriminate', jnp.asarray(nuisance), jnp.asarray(uniform)
  )
  np.testing.assert_allclose(logits, x, rtol=1e-4, atol=1e-5)


def test_no_numbers_drop_nothing(variables):
  nuisance = jax.random.normal(jax.random.key(0), (4, 2, 2, 3))
  all_kept = _apply(variables, 'discriminate', nuisance, jnp.ones((4, 5)))
  none = _apply(variables, 'discriminate', nuisance)
  # What is kept is enlarged, so that the mean stays.
  bias = variables['params']['discriminator']['logits']['bias'][None]
  np.testing.assert_allclose(
      0.7 * (all_kept - bias), none - bias, rtol=1e-5, atol=1e-6
  )


def test_wrong_shapes_raise(variables, images):
  with pytest.raises(AssertionError):
    _apply(variables, 'encode', images, ATTRIBUTES[:2])
  with pytest.raises(AssertionError):
    _apply(variables, 'discriminate', jnp.zeros((3, 4, 4, 3)))
  with pytest.raises(errors.InputError, match='power'):
    fader_networks.FaderAutoencoder(2, 3, image_size=12)


# Invariants.


def test_labelled_encode_serves_both_kinds(variables, images):
  encode = fader_networks.make_labelled_encode(MODEL, variables['batch_stats'])
  code = encode(variables['params'], images, ATTRIBUTES)
  np.testing.assert_array_equal(code.factors, ATTRIBUTES)
  predicting = networks.FaceAutoencoder(
      2, 3, image_size=8, first_width=4, last_width=4
  )
  own = networks.init_variables(predicting, 0, predicting.image_shape)
  encode = fader_networks.make_labelled_encode(predicting, own['batch_stats'])
  predicted = encode(own['params'], images, ATTRIBUTES)
  chex.assert_trees_all_equal(
      predicted, encode(own['params'], images, -ATTRIBUTES)
  )
  assert np.any(predicted.factors != ATTRIBUTES)
