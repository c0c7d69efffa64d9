"""Tests of classifiers."""

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers


def _images(count, shape):
  return jax.random.uniform(jax.random.key(1), (count, *shape))


def test_judge_is_a_perceptron_in_evaluation():
  model = classifiers.MlpJudge(10, image_shape=(4, 4, 1))
  variables = autoencoders.init_variables(model, 0)
  images = _images(5, (4, 4, 1))
  logits = model.apply(variables, images)
  x = np.reshape(images, (5, 16))
  for name in ('dense_0', 'dense_1', 'logits'):
    layer = jax.tree.map(np.asarray, variables['params'][name])
    x = x @ layer['kernel'] + layer['bias'][np.newaxis]
    x = np.maximum(x, 0) if name != 'logits' else x
  np.testing.assert_allclose(logits, x, rtol=1e-4, atol=1e-5)


def test_judge_drops_a_fifth_in_training():
  model = classifiers.MlpJudge(10, image_shape=(4, 4, 1))
  variables = autoencoders.init_variables(model, 0)
  apply = lambda key: model.apply(
    variables,
    _images(5, (4, 4, 1)),
    train=True,
    rngs={'dropout': jax.random.key(key)},
  )
  assert not np.allclose(apply(0), apply(1))
  np.testing.assert_array_equal(apply(0), apply(0))
  assert model.dropout_rate == 0.2  # The released code's.


def test_attribute_judge():
  judge = classifiers.AttributeJudge(5, 16, 4, 8, hidden=6)
  variables = autoencoders.init_variables(judge, 0)
  # Down to one pixel: 4, 8, 8 and 8 channels, all with BatchNorm.
  shapes = {name: x['kernel'].shape for name, x in variables['params'].items()}
  assert shapes == {
    'down_0': (4, 4, 3, 4),
    'down_1': (4, 4, 4, 8),
    'down_2': (4, 4, 8, 8),
    'down_3': (4, 4, 8, 8),
    'dense': (8, 6),
    'logits': (6, 5),
  }
  assert len(variables['batch_stats']) == 4
  images = 2 * _images(3, (16, 16, 3)) - 1
  logits, updated = jax.jit(
    lambda v, x: judge.apply(v, x, train=True, mutable='batch_stats')
  )(variables, images)
  assert logits.shape == (3, 5)
  assert logits.dtype == jnp.float32
  # Training moves the statistics, which evaluation reads.
  evaluate = jax.jit(judge.apply)
  before = evaluate(variables, images)
  assert np.any(before != logits)
  assert np.any(before != evaluate({**variables, **updated}, images))
