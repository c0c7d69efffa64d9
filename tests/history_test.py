"""Tests of jacsup_jax.history."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.training import discovery
from jacsup_jax.training import history
from jacsup_jax.training import loop as epochs
from jacsup_jax.training import objectives

SHAPE = (4, 4, 1)
IMAGES = jnp.asarray(
    np.random.default_rng(0).integers(0, 256, (32, *SHAPE), np.uint8)
)
INDICES = jnp.arange(8) * 3
PERMUTATION = jnp.array([3, 0, 1, 2, 7, 4, 5, 6])
SUPERVISION = config.Supervision(history=True)
# A first teacher of 2 units, and students that found 1 and 2 more.
DIMS = (2, 3, 5)


def _model(code_dim):
  return networks.MlpAutoencoder(
      code_dim, 0, image_shape=SHAPE, widths=(8, 6)
  )


def _variables(code_dim):
  variables = networks.init_variables(_model(code_dim), code_dim, SHAPE)
  # Larger weights: what a swap changes is far above rounding.
  return jax.tree.map(lambda x: 2.0 * x, variables)


MODELS = tuple(map(_model, DIMS))
VARIABLES = tuple(map(_variables, DIMS))


def _outputs(supervision, variables=VARIABLES):
  known = history.compute_history(MODELS, VARIABLES, IMAGES)
  known = known._replace(variables=variables)
  return history.compute_outputs(
      known, MODELS, INDICES, INDICES[PERMUTATION], supervision
  )


# Values.


def test_every_model_found_what_its_parent_has_not():
  assert history.count_units(MODELS) == (2, 1, 2)


def test_ancestors_are_in_the_order_of_the_chain():
  chain = [
      config.Stage('teacher', 'teacher', None, 0, 1, config.LossWeights()),
      config.Stage('d1', 'student', 'teacher', 1, 1, config.LossWeights()),
      config.Stage('d2', 'student', 'd1', 2, 1, config.LossWeights()),
  ]
  trained = {s.name: stages.Trained(s, None, None, '') for s in chain[:2]}
  found = history.trace(chain[2], trained)
  assert [model.stage.name for model in found] == ['teacher', 'd1']


def test_units_are_moved_by_the_model_that_found_them():
  outputs = _outputs(SUPERVISION)
  assert outputs.factors.shape == (8, 5)
  assert outputs.changes.shape == (3, 8, *SHAPE)
  start = 0
  images = IMAGES[INDICES] / np.float32(255)
  for i, (dim, variables) in enumerate(zip(DIMS, VARIABLES)):
    code = networks.make_encode(MODELS[i])(variables['params'], images).factors
    np.testing.assert_allclose(
        outputs.factors[:, start:dim], code[:, start:], atol=1e-5
    )
    moved = code.at[:, start:].set(code[PERMUTATION, start:])
    decode = functools.partial(
        networks.make_decode(MODELS[i]), variables['params']
    )
    decoded = [decode(codes.Code(x, x[:, :0])) for x in (code, moved)]
    np.testing.assert_allclose(
        outputs.changes[i], decoded[1] - decoded[0], atol=1e-5
    )
    assert np.std(outputs.changes[i]) > 1e-4
    start = dim


# Gradients.


def test_gradient_of_the_models_is_exactly_zero():
  grads = jax.grad(
      lambda variables: jnp.sum(_outputs(SUPERVISION, variables).changes)
  )(VARIABLES)
  for leaf in jax.tree.leaves(grads):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


# Invariants.


def test_history_of_one_model_is_supervision_by_the_parent():
  # By its derivative, the same in every way but the order of operations.
  model, variables = MODELS[:1], VARIABLES[:1]
  supervision = config.Supervision('tangent', history=True)
  known = history.compute_history(model, variables, IMAGES)
  outputs = history.compute_outputs(
      known, model, INDICES, INDICES[PERMUTATION], supervision
  )
  params = variables[0]['params']
  parent = objectives.compute_teacher_outputs(
      functools.partial(networks.make_encode(model[0]), params),
      functools.partial(networks.make_decode(model[0]), params),
      IMAGES[INDICES] / np.float32(255),
      PERMUTATION,
      supervision=config.Supervision('tangent'),
  )
  np.testing.assert_allclose(outputs.factors, parent.factors, atol=1e-5)
  np.testing.assert_allclose(outputs.changes, parent.changes, atol=1e-5)


def test_student_that_is_its_parent_agrees_with_the_last_model():
  # Its units and their effect are those of the last model, not of the others.
  model = MODELS[-1].clone(num_factors=5)
  supervision = dataclasses.replace(SUPERVISION, blocks=(2, 1, 2))
  weights = config.LossWeights(supervision=supervision)
  params = VARIABLES[-1]['params']
  images = IMAGES[INDICES] / np.float32(255)
  code = networks.make_encode(model)(params, images)
  _, changed = objectives.compute_changes(
      functools.partial(networks.make_decode(model), params),
      code,
      PERMUTATION,
      supervision,
  )
  outputs = _outputs(SUPERVISION)
  np.testing.assert_allclose(changed[2], outputs.changes[2], atol=1e-5)
  assert not np.allclose(changed[0], outputs.changes[0], atol=1e-3)
  _, (metrics, _) = objectives.student_objective(
      params, {}, images, outputs, PERMUTATION, model=model, weights=weights
  )
  gaps = jnp.mean(jnp.square(changed - outputs.changes), axis=(1, 2, 3, 4))
  np.testing.assert_allclose(metrics['jacobian'], jnp.sum(gaps), rtol=1e-4)


def test_chain_is_trained_by_its_history():
  def make_model(num_factors, nuisance_dim, is_first):
    return networks.MlpAutoencoder(
        num_factors, nuisance_dim, is_first, image_shape=SHAPE, widths=(8, 6)
    )

  settings = discovery.Settings(batch_size=16, learning_rate=1e-2)
  recipe = discovery.Discovery(settings, make_model, 2, IMAGES)
  weights = config.LossWeights(
      supervision=SUPERVISION, ramp=config.Ramp('linear'), lambda_hsic=0.1
  )
  trained = {}
  for dim, name in enumerate(['teacher', 'd1', 'd2']):
    stage = config.Stage(
        name, name, list(trained)[-1] if dim else None, dim, 1, weights
    )
    model, state = recipe.create(stage, trained)
    trained[name] = stages.Trained(stage, model, state, '')
  epoch_fn = recipe.make_epoch(stage, model, trained)
  # An epoch by itself returns means over its steps, which the ramp tells apart.
  taken = epochs.Taken()
  epochs.run(epoch_fn, jax.tree.map(jnp.copy, state), 0, taken)
  metrics = {k: np.concatenate(parts) for k, parts in taken.metrics.items()}
  assert metrics['jacobian'].shape == (2,)
  assert all(np.all(np.isfinite(value)) for value in metrics.values())
  weighted = sum(
      weight * metrics[name]
      for name, weight in (
          ('factor_matching', 0.25), ('jacobian', 0.1),
          ('cross_covariance', 1e-3), ('hsic', 0.1),
      )  # pyformat: disable
  )
  # From 0 at the first of two steps.
  np.testing.assert_allclose(
      metrics['loss'] - metrics['reconstruction'],
      weighted * np.array([0.0, 0.5]),
      rtol=1e-3, atol=1e-6,
  )  # pyformat: disable
