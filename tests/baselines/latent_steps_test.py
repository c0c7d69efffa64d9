"""Tests of jacsup_jax.baselines.latent_steps."""

import chex
import numpy as np
import tiny_codes

from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps


def test_runs_resume_to_the_bit():
  run, again = (tiny_codes.Run(field.BetaVaeWeights()) for _ in range(2))
  whole, _ = run.train(2)
  first, _ = run.take(3)
  resumed, _ = again.take(int(whole.step) - 3, first)
  chex.assert_trees_all_equal(resumed, whole)


def test_inputs_are_a_batch_with_its_labels():
  run = tiny_codes.Run(field.ClassXcovWeights())
  inputs = run.first_inputs()
  np.testing.assert_allclose(inputs.images, run.dataset.images[:16] / 255.0)
  np.testing.assert_array_equal(inputs.labels, run.dataset.labels[:16])


def test_gradients_of_parts_are_of_these_alone():
  run = tiny_codes.Run(field.BetaVaeWeights())
  model, inputs = run.bind(run.state), run.first_inputs()
  of_all, _ = latent_steps.differentiate(
    run.steps.objective, model, inputs, ['encoder', 'decoder']
  )
  of_one, _ = latent_steps.differentiate(
    run.steps.objective, model, inputs, ['decoder']
  )
  assert {*of_one} == {'decoder'}
  chex.assert_trees_all_close(of_one['decoder'], of_all['decoder'])
