"""Tests of jacsup_jax.training.steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jacsup_jax.core import config
from jacsup_jax.training import steps


def test_weight_decay_is_l2_in_the_gradient():
  # PyTorch's Adam(weight_decay=...) by hand, in numpy; AdamW differs.
  decay, rate, b1, b2 = 0.1, 0.01, 0.9, 0.999
  params, grads = np.array([1.0, -2.0]), np.array([0.5, 0.1])
  optimizer = steps.make_optimizer(
    config.Optimization(learning_rate=rate, weight_decay=decay)
  )
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


@pytest.mark.parametrize('name', ('adam', 'muon'))
def test_learning_rate_falls_as_a_cosine_to_zero(name):
  make = lambda schedule: steps.make_optimizer(
    config.Optimization(name, 0.1, schedule, weight_decay=0.0), 4
  )
  falling, steady = make('cosine'), make('constant')
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
  optimizer = steps.make_optimizer(
    config.Optimization('muon', 0.1, weight_decay=0.0)
  )
  params = {'kernel': jnp.zeros((4, 4)), 'bias': jnp.zeros(4)}
  scales = jnp.array([1.0, 0.5, 0.2, 0.1])
  grads = {'kernel': jnp.diag(scales), 'bias': scales}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  # Five Newton-Schulz steps bring all singular values near 1.
  values = np.linalg.svd(updates['kernel'], compute_uv=False) / 0.1
  assert np.all((values > 0.6) & (values < 1.3))
  # Adam's first step with Nesterov momentum, at a tenth of the rate: a sign,
  # times 0.9 * 0.1 / (1 - 0.9^2) + 0.1 / (1 - 0.9).
  np.testing.assert_allclose(updates['bias'], np.full(4, -0.0147368), rtol=1e-4)


def test_ramps_rise_to_one():
  make = lambda shape: steps.make_ramp(config.Ramp(shape, 0.2), 4)
  values = lambda shape: [make(shape)(jnp.int32(step)) for step in range(6)]
  linear = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
  np.testing.assert_allclose(values('linear'), linear, rtol=1e-5)
  # 1 - 0.8 (1 + cos(pi t / 4)) / 2.
  cosine = [0.2, 0.3171573, 0.6, 0.8828427, 1.0, 1.0]
  np.testing.assert_allclose(values('cosine'), cosine, rtol=1e-5)
  assert make('constant') is None
