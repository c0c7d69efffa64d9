"""Tests of jacsup_jax.baselines.mixing."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny_codes

from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps
from jacsup_jax.baselines import mixing

PARTNER = jnp.asarray(np.roll(np.arange(8), 1))
MASK = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, 2)) > 0)
INPUTS = tiny_codes.make_inputs(permutations=PARTNER[None], mask=MASK)
WEIGHTS = field.MixingWeights(2.0, 3.0)


def test_chunks_are_mixed_whole():
  units, partners = jnp.arange(8.0).reshape(2, 4), jnp.zeros((2, 4))
  mask = jnp.array([[True, False], [False, True]])
  found = mixing.mix(units, partners, mask)
  np.testing.assert_array_equal(found, [[0, 1, 0, 0], [0, 0, 6, 7]])
  model = tiny_codes.init(mixing.MixingAutoencoder)
  assert model.module.unit_groups() == [(0, 1), (2, 3)]


def test_loss_by_its_terms():
  model = tiny_codes.init(mixing.MixingAutoencoder)
  call = lambda method, *args: latent_steps.apply(model, method, *args)
  units = call('units', INPUTS.images)
  chosen = np.repeat(MASK, 2, axis=1)
  mixed = call('decode_units', jnp.where(chosen, units, units[PARTNER]))
  back = call('decode_units', jnp.where(chosen, call('units', mixed), units))
  error = lambda decoded: np.mean(np.square(decoded - INPUTS.images))
  chance = jax.nn.sigmoid(
    call('classify', INPUTS.images, INPUTS.images[PARTNER], mixed)
  )
  entropy = -np.mean(np.log(np.where(MASK, chance, 1 - chance)))
  real = jax.nn.sigmoid(call('discriminate', INPUTS.images))
  drawn = jax.nn.sigmoid(call('discriminate', mixed))
  loss, metrics = mixing.mixture_objective(model, INPUTS, WEIGHTS)
  wanted = {
    'reconstruction': error(call('decode_units', units)),
    'unmixing': error(back),
    'chunk_cross_entropy': entropy,
    'adversarial': -np.mean(np.log(drawn)),
  }
  for name, value in wanted.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
  *errors, entropy, adversarial = wanted.values()
  total = errors[0] + 3 * errors[1] + 2 * (entropy + adversarial)
  np.testing.assert_allclose(loss, total, rtol=1e-4)
  loss, _ = mixing.discriminator_objective(model, INPUTS)
  wanted = -np.mean(np.log(real)) - np.mean(np.log(1 - drawn))
  np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_gradients_reach_their_own_parts():
  model = tiny_codes.init(mixing.MixingAutoencoder)
  found = tiny_codes.gradients(mixing.discriminator_objective, model, INPUTS)
  assert found.pop('discriminator') > 0 and not any(found.values())
  run = tiny_codes.Run(WEIGHTS)
  inputs, step = run.first_inputs(), jax.jit(run.steps.train_step)
  assert inputs.mask.shape == (16, 2) and inputs.permutations.shape == (1, 16)
  before, (after, _) = run.state, step(run.state, inputs)
  # The objective of the others has a gradient for the discriminator, too,
  # which is not applied: its update lowers its own loss.
  losses = [
    mixing.discriminator_objective(run.bind(state), inputs)[0]
    for state in (
      before,
      before._replace(
        params={
          **before.params, 'discriminator': after.params['discriminator']
        }
      ),
    )
  ]  # fmt: skip
  assert losses[1] < losses[0]
