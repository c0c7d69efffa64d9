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


def test_strided_judge():
  judge = classifiers.AttributeJudge(5, 16, 4, 8, hidden=6)
  variables = autoencoders.init_variables(judge, 0)
  # Down to one pixel: 4, 8, 8 and 8 channels, all with BatchNorm.
  sizes = [x['kernel'].shape[-2:] for x in variables['params'].values()]
  assert sorted(sizes) == [(3, 4), (4, 8), (6, 5), (8, 6), (8, 8), (8, 8)]
  assert len(variables['batch_stats']) == 4
  _check_face_judge(judge, variables, 6)


def test_residual_judge():
  # Down to 4x4: 4, 8 and 8 channels.
  judge = classifiers.ResidualAttributeJudge(5, 32, 4, 8)
  params = autoencoders.init_variables(judge, 0)['params']
  assert params.keys() == {'stem', 'blocks_0', 'blocks_1', 'logits'}
  assert params['blocks_1']['shortcut']['kernel'].shape == (8, 8)
  # One block at least.
  judge = classifiers.ResidualAttributeJudge(5, 8, 4, 8)
  variables = autoencoders.init_variables(judge, 0)
  params = variables['params']
  assert params.keys() == {'stem', 'blocks_0', 'logits'}
  assert params['stem']['kernel'].shape == (3, 3, 12, 4)
  _check_face_judge(judge, variables, 8)


def _check_face_judge(judge, variables, num_features):
  """Checks shapes, features, and that training moves the statistics."""
  images = jax.random.uniform(
    jax.random.key(1), (3, *judge.image_shape), minval=-1
  )

  @jax.jit
  def apply(variables, images):
    features = judge.apply(variables, images, method='features')
    trained = judge.apply(variables, images, train=True, mutable='batch_stats')
    return features, judge.apply(variables, images), *trained

  features, before, logits, updated = apply(variables, images)
  assert (logits.shape, logits.dtype) == ((3, 5), jnp.float32)
  assert (features.shape, features.dtype) == ((3, num_features), jnp.float32)
  last = variables['params']['logits']
  expected = features @ last['kernel'] + last['bias'][np.newaxis]
  np.testing.assert_allclose(before, expected, rtol=1e-5, atol=1e-5)
  # Evaluation reads the statistics that training moves.
  assert np.any(before != logits)
  _, after, *_ = apply({**variables, **updated}, images)
  assert np.any(before != after)
