"""Tests of jacsup_jax.baselines.wasserstein."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_gans

from jacsup_jax.baselines import attgan
from jacsup_jax.baselines import stargan
from jacsup_jax.baselines import wasserstein
from jacsup_jax.core import config
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import steps

# With weight decay: it moves what is stopped, unless the optimizer freezes it.
OPTIMIZER = steps.make_optimizer(
  config.Optimization(learning_rate=1e-2, adam_b1=0.5, weight_decay=0.1)
)
GANS = {
  'attgan': (attgan.AttGanSteps, attgan.AttGanLossWeights()),
  'stargan': (stargan.StarGanSteps, stargan.StarGanLossWeights()),
}
AUTOENCODER = ('encoder', 'decoder')


@functools.partial(jax.jit, static_argnums=0)
def _step(name, state):
  cls, weights = GANS[name]
  options = {'module': tiny_gans.MODULE, 'weights': weights}
  return cls.train_step(state, tiny_gans.INPUTS, **options, optimizer=OPTIMIZER)


def _begin(step):
  variables = {'params': tiny_gans.PARAMS, 'batch_stats': {}}
  state = attribute_steps.create_train_state(variables, OPTIMIZER)
  return state._replace(step=jnp.int32(step))


def test_penalty_of_a_linear_score_is_that_of_its_slope():
  images = tiny_gans.INPUTS.images
  slope = jnp.full((1, 2, 2, 1), 1.5)  # Of norm 3.
  penalty = functools.partial(
    wasserstein.gradient_penalty,
    images=images,
    edited=-images,
    uniform=tiny_gans.INPUTS.uniform,
  )
  found = penalty(lambda x: jnp.sum(x * slope, axis=(1, 2, 3)))
  np.testing.assert_allclose(found, [4, 4, 4], rtol=1e-5)
  # Scores of patches are summed.
  np.testing.assert_allclose(penalty(lambda x: x * slope), found, rtol=1e-5)
  # A score without slope has a gradient all the same.
  flat = lambda scale: jnp.sum(penalty(lambda x: scale * x))
  np.testing.assert_allclose(flat(0.0), 3)
  assert np.isfinite(jax.grad(flat)(0.0))


def test_penalty_is_taken_between_images_and_edits():
  # The slope of |x|^2 / 2 is x: ones, weighted as the images are.
  images = jnp.ones((3, 2, 2, 1))
  uniform = tiny_gans.INPUTS.uniform
  found = wasserstein.gradient_penalty(
    lambda x: jnp.square(x) / 2, images, 3 * images, uniform
  )
  norms = 2 * (np.array([0.1, 0.5, 0.9]) * (1 - 3) + 3)
  np.testing.assert_allclose(found, (norms - 1) ** 2, rtol=1e-5)


@pytest.mark.parametrize('name', GANS)
def test_autoencoder_has_one_turn_in_five(name):
  state = first = _begin(0)
  for step in range(4):
    state, metrics = _step(name, state)
    assert metrics['loss'] == 0 and state.step == step + 1
    for part in AUTOENCODER:
      chex.assert_trees_all_equal(state.params[part], first.params[part])
      chex.assert_trees_all_equal(state.opt_state[part], first.opt_state[part])
  assert np.all(state.params['discriminator'] != first.params['discriminator'])
  after, metrics = _step(name, state)
  assert metrics['loss'] != 0
  for part in AUTOENCODER:
    assert np.all(after.params[part] != first.params[part])
  assert _step(name, after)[1]['loss'] == 0


@pytest.mark.parametrize('name', GANS)
def test_turns_update_against_the_new_discriminator_alone(name):
  (waited, _), (taken, metrics) = (_step(name, _begin(n)) for n in (3, 4))
  # The autoencoder's turn does not move it.
  for field in ('params', 'opt_state'):
    chex.assert_trees_all_equal(
      *(getattr(s, field)['discriminator'] for s in (waited, taken))
    )
  cls, weights = GANS[name]
  objective = cls.train_step.keywords['autoencoder_objective']
  rest = {part: tiny_gans.PARAMS[part] for part in AUTOENCODER}
  compute = lambda rest: objective(
    {**taken.params, **rest},
    {},
    tiny_gans.INPUTS,
    module=tiny_gans.MODULE,
    weights=weights,
  )
  (loss, _), grads = jax.value_and_grad(compute, has_aux=True)(rest)
  # Five times, for the four steps without.
  np.testing.assert_allclose(metrics['loss'], 5 * loss, rtol=1e-5)
  expected = steps.apply_gradients(_begin(4), grads, OPTIMIZER)
  for part in AUTOENCODER:
    chex.assert_trees_all_close(taken.params[part], expected.params[part])


@pytest.mark.parametrize('name', GANS)
def test_edited_images_are_constants_to_the_discriminator(name):
  cls, weights = GANS[name]
  objective = cls.train_step.keywords['discriminator_objective']

  def compute(params):
    inputs, module = tiny_gans.INPUTS, tiny_gans.MODULE
    edited = wasserstein.edit(params, {}, inputs, module)[2]
    return objective(params, inputs, edited, module=module, weights=weights)[0]

  grads = jax.grad(compute)(tiny_gans.PARAMS)
  assert not np.any(grads['encoder']) and not np.any(grads['decoder'])
  assert np.any(grads['discriminator'])


def test_draws_depend_on_seed_and_step_alone():
  cls, weights = GANS['attgan']
  options = (None, weights, config.Optimization(), 16)
  draw = lambda seed, step: cls(tiny_gans.MODULE, *options).draw(
    jnp.int32(step),
    tiny_gans.INPUTS,
    attribute_steps.FaceConstants(jnp.int32(seed), None, None),
    lambda x: x,
  )
  one, same = draw(1, 2), draw(1, 2)
  chex.assert_trees_all_equal(one, same)
  np.testing.assert_array_equal(np.sort(one.permutations), [range(16)])
  chex.assert_shape(one.uniform, (16, 1))
  for other in (draw(1, 3), draw(2, 2)):
    assert np.any(one.permutations != other.permutations)
    assert np.all(one.uniform != other.uniform)
