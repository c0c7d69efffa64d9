"""Tests of classifiers."""

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers


def test_judge_is_a_perceptron_with_dropout_in_training():
  model = classifiers.MlpJudge(10, image_shape=(4, 4, 1))
  variables = autoencoders.init_variables(model, 0)
  images = jax.random.uniform(jax.random.key(1), (5, 4, 4, 1))
  x = np.asarray(images).reshape(5, 16)
  for name in ('dense_0', 'dense_1', 'logits'):
    layer = jax.device_get(variables['params'][name])
    x = x @ layer['kernel'] + layer['bias']
    x = np.maximum(x, 0) if name != 'logits' else x
  logits = model.apply(variables, images)
  np.testing.assert_allclose(logits, x, rtol=1e-4, atol=1e-5)
  train = lambda key: model.apply(
    variables, images, train=True, rngs={'dropout': jax.random.key(key)}
  )
  assert not np.allclose(train(0), train(1))
  np.testing.assert_array_equal(train(0), train(0))
  assert model.dropout_rate == 0.2  # The released code's.


def test_attribute_judge():
  judge = classifiers.AttributeJudge(5, 16, 4, 8, hidden=6)
  variables = autoencoders.init_variables(judge, 0)
  # Down to one pixel: 4, 8, 8 and 8 channels, all with BatchNorm.
  sizes = [x['kernel'].shape[-2:] for x in variables['params'].values()]
  assert sorted(sizes) == [(3, 4), (4, 8), (6, 5), (8, 6), (8, 8), (8, 8)]
  assert len(variables['batch_stats']) == 4
  images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3), minval=-1)
  logits, updated = jax.jit(
    lambda v, x: judge.apply(v, x, train=True, mutable='batch_stats')
  )(variables, images)
  assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
  # Training moves the statistics, which evaluation reads.
  evaluate = jax.jit(judge.apply)
  before = evaluate(variables, images)
  assert np.any(before != logits)
  assert np.any(before != evaluate({**variables, **updated}, images))
