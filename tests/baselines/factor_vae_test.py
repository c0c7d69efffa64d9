"""Tests of jacsup_jax.baselines.factor_vae."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import tiny_codes

from jacsup_jax.baselines import factor_vae
from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian
from jacsup_jax.baselines import latent_steps

PERMUTATIONS = jnp.array([np.roll(np.arange(8), i) for i in range(4)])
INPUTS = tiny_codes.make_inputs(
  noise=tiny_codes.noise(1),
  others=tiny_codes.make_inputs().images[::-1] * 0.5,
  other_noise=tiny_codes.noise(2),
  permutations=PERMUTATIONS,
)
WEIGHTS = field.FactorVaeWeights(5.0, 6, field.Likelihood(0.1))


def _init():
  return tiny_codes.init(factor_vae.FactorAutoencoder, discriminator_width=6)


def test_every_unit_is_permuted_by_itself():
  units = jnp.array([[1, 10], [2, 20], [3, 30]])
  found = factor_vae.permute_units(units, jnp.array([[1, 2, 0], [0, 2, 1]]))
  np.testing.assert_array_equal(found, [[2, 10], [3, 30], [1, 20]])


def test_discriminator_loss_by_hand():
  # Logits of 0 are chances of 1/2.
  zero = jnp.zeros(2)
  found = factor_vae.discriminator_loss(zero, zero)
  np.testing.assert_allclose(found, np.log(2), rtol=1e-6)
  # D(z) = 3/4 and D(z') = 1/4.
  logit = jnp.log(jnp.array([3.0]))
  found = factor_vae.discriminator_loss(logit, -logit)
  np.testing.assert_allclose(found, -np.log(0.75), rtol=1e-6)


def test_loss_adds_the_mean_logit_of_samples():
  model = _init()
  sample, nats, terms = gaussian.lower_bound_terms(
    model, INPUTS, WEIGHTS.likelihood
  )
  logits = latent_steps.apply(model, 'discriminate', sample.units)
  loss, metrics = factor_vae.objective(model, INPUTS, WEIGHTS)
  wanted = nats + terms['divergence'] + 5 * np.mean(logits)
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['total_correlation'], np.mean(logits), rtol=1e-5
  )


def test_discriminator_sees_a_second_batch_and_moves_no_other_part():
  model = _init()
  found = tiny_codes.gradients(
    factor_vae.discriminator_objective, model, INPUTS
  )
  assert found['encoder'] == found['decoder'] == 0 < found['discriminator']
  own = gaussian.draw_sample(model, INPUTS.images, INPUTS.noise).units
  others = gaussian.draw_sample(model, INPUTS.others, INPUTS.other_noise).units
  logits = [
    latent_steps.apply(model, 'discriminate', units)
    for units in (own, factor_vae.permute_units(others, PERMUTATIONS))
  ]
  loss, _ = factor_vae.discriminator_objective(model, INPUTS)
  wanted = np.mean(factor_vae.discriminator_loss(*logits))
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_a_second_batch_changes_the_discriminator_alone():
  run = tiny_codes.Run(WEIGHTS)
  inputs = run.first_inputs()
  # Drawn apart from the first one.
  assert not np.array_equal(inputs.images, inputs.others)
  assert not np.array_equal(inputs.noise, inputs.other_noise)
  assert inputs.permutations.shape == (4, 16)
  step = jax.jit(run.steps.train_step)
  first, _ = step(run.state, inputs)
  second, _ = step(run.state, inputs._replace(others=inputs.others[::-1]))
  for part in ('encoder', 'decoder'):
    chex.assert_trees_all_equal(first.params[part], second.params[part])
  differs = jax.tree.map(
    lambda a, b: bool(np.any(a != b)),
    *(state.params['discriminator'] for state in (first, second)),
  )
  assert any(jax.tree.leaves(differs))
