"""Tests of jacsup_jax.baselines.qlae."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny_codes

from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps
from jacsup_jax.baselines import qlae
from jacsup_jax.core import codes

INPUTS = tiny_codes.make_inputs()


def _objective(weights):
  return qlae.QlaeSteps(None, weights, None, 8, 100, 64).objective


def test_each_unit_takes_the_nearest_of_its_values():
  values = jnp.array([[0.0, 1.0], [-2.0, 2.0]])
  units = jnp.array([[0.4, 0.1], [0.6, -9.0], [0.5, 0.0]])
  # Of equal distances the first.
  wanted = [[0, 2], [1, -2], [0, -2]]
  np.testing.assert_array_equal(qlae.quantize(units, values), wanted)


def test_codes_take_few_values_evenly_spaced_at_first():
  model = tiny_codes.init(qlae.QuantizedAutoencoder, num_values=3)
  np.testing.assert_allclose(model.params['values'], [[-0.5, 0, 0.5]] * 4)
  found = codes.merge(model.encode(INPUTS.images))
  assert {*np.unique(found)} <= {-0.5, 0.0, 0.5}


def test_loss_and_its_gradients():
  model = tiny_codes.init(qlae.QuantizedAutoencoder, num_values=3)
  raw, quantized = latent_steps.apply(model, 'infer', INPUTS.images)
  decoded = latent_steps.apply(model, 'decode_units', quantized)
  error = np.mean(np.square(decoded - INPUTS.images))
  distance = np.mean(np.square(raw - quantized))
  objective = _objective(field.QlaeWeights(lambda_qlae=2.0))
  loss, metrics = objective(model, INPUTS)
  # Both distances are equal; they differ in what they move.
  np.testing.assert_allclose(loss, error + 2 * 2 * distance, rtol=1e-5)
  np.testing.assert_allclose(metrics['quantization'], distance, rtol=1e-5)
  # Without them the values do not move, and the encoder does.
  alone = _objective(field.QlaeWeights(lambda_qlae=0.0))
  found = tiny_codes.gradients(alone, model, INPUTS)
  assert found['values'] == 0 < min(found['encoder'], found['decoder'])
  found = tiny_codes.gradients(objective, model, INPUTS)
  assert found['values'] > 0


def test_decay_is_decoupled_and_spares_the_values():
  run = tiny_codes.Run(field.QlaeWeights(0.5, 0.01, 3))
  for part, decay in (('encoder', 0.5), ('values', 0.0)):
    optimizer = run.steps.make_optimizer(part)
    params = {'x': jnp.array(2.0)}
    # Without gradient Adam moves nothing: what is left is the decay.
    updates, _ = optimizer.update(
      jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    np.testing.assert_allclose(updates['x'], -3e-3 * decay * 2.0, rtol=1e-5)
