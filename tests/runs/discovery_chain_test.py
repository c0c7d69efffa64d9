"""Tests of chains of real models, trained by runs.stages and restored."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadratic

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.runs import run as runs
from jacsup_jax.runs import stages
from jacsup_jax.training import discovery
from jacsup_jax.training import steps

SHAPE, COLOURED = (4, 4, 1), (16, 16, 3)
EPOCHS = 2
STEPS = 2  # 40 images in batches of 16; 8 are left out.
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
FLAGS = discovery.DiscoveryConfig(
  batch_size=16, optimization=config.Optimization(learning_rate=1e-2)
)
WEIGHTS = config.LossWeights()
CHAIN = (
  config.Stage('teacher', 'teacher', None, 0, EPOCHS, WEIGHTS),
  config.Stage('d1', 'student', 'teacher', 1, EPOCHS, WEIGHTS),
  config.Stage('d2', 'student', 'd1', 2, EPOCHS, WEIGHTS),
  config.Stage(
    'scratch', 'student', None, 2, EPOCHS, WEIGHTS, teacher='teacher'
  ),
)


def _make_module(num_factors, nuisance_dim, is_first):
  return autoencoders.MlpAutoencoder(
    num_factors, nuisance_dim, is_first, image_shape=SHAPE, widths=(8, 6)
  )


def _make_coloured(num_factors, nuisance_dim, is_first, normalize=True):
  return autoencoders.SvhnAutoencoder(
    num_factors,
    nuisance_dim,
    is_first or normalize,
    image_shape=COLOURED,
    widths=(3, 4, 5),
    linear_code=True,
  )


def _run(path, chain, **kwargs):
  return stages.run(
    chain,
    discovery.Discovery(FLAGS, _make_module, jnp.asarray(IMAGES)),
    workdir=quadratic.begin(path),
    evaluate=lambda model: {'dim': model.nuisance_dim},
    checkpoint_every=1,
    **kwargs,
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('chain')
  return path, {t.stage.name: t for t in _run(path, CHAIN)}


# Values.


def test_students_have_the_terms_of_their_weights(finished):
  records = {r['stage']: r for r in quadratic.read_metrics(finished[0])}
  supervised = {'jacobian', 'factor_matching', 'cross_covariance'}
  for name in ('d1', 'd2', 'scratch'):
    assert supervised | {'reconstruction', 'loss'} <= set(records[name])
  assert not supervised & set(records['teacher'])


def test_models_have_the_first_teachers_factors(finished):
  trained = [finished[1][name] for name in ('teacher', 'd1', 'd2')]
  sizes = [(t.module.num_factors, t.module.nuisance_dim) for t in trained]
  assert sizes == [(2, 0), (2, 1), (2, 2)]
  assert [t.module.normalize_code for t in trained] == [True, False, False]
  as_teacher = discovery.as_teacher(trained[2].module)
  assert (as_teacher.num_factors, as_teacher.nuisance_dim) == (4, 0)
  steps_taken = [int(t.state.step) for t in trained]
  assert steps_taken == [STEPS * EPOCHS * i for i in (1, 2, 3)]


def test_student_from_scratch_is_supervised_without_growing(finished):
  _, trained = finished
  scratch = trained['scratch']
  assert scratch.state.step == STEPS * EPOCHS
  assert not scratch.module.normalize_code
  # At its start it is a fresh model, whatever the teacher is.
  recipe = discovery.Discovery(FLAGS, _make_module, jnp.asarray(IMAGES))
  module, state = recipe.create(scratch.stage, trained)
  fresh = autoencoders.init_variables(module, 0)
  chex.assert_trees_all_equal(state.params, fresh['params'])


# Invariants.


def test_training_a_child_leaves_its_parent_alone(finished):
  path, trained = finished
  run = runs.Run.open(path)
  for name, expected in trained.items():
    assert codes.hash_tree(expected.state.params) == expected.sha256
    images = IMAGES[:4]
    model = run.restore(name)
    np.testing.assert_array_equal(
      model.decode(model.encode(images)),
      expected.model.decode(expected.model.encode(images)),
    )


def test_resumed_within_a_grown_stage_is_bit_identical(finished, tmp_path):
  chain = CHAIN[:3]
  with pytest.raises(quadratic.Killed):
    _run(tmp_path, chain, report=quadratic.kill_at('d1', 1))
  resumed = _run(tmp_path, chain)
  for found in resumed:
    expected = finished[1][found.stage.name]
    chex.assert_trees_all_equal(found.state, expected.state)


# Growth.


def _grow(teacher_module, module, **flags):
  """The state that a student of a teacher begins with, and the teacher."""
  optimizer = steps.make_optimizer(config.Optimization(), 1)
  variables = autoencoders.init_variables(teacher_module, 5)
  variables['batch_stats'] = jax.tree.map(
    lambda x: x + 0.5, variables['batch_stats']
  )
  state = steps.create_train_state(variables, optimizer)
  state = state._replace(
    step=jnp.array(6, jnp.int32),
    opt_state=jax.tree.map(lambda x: x + 1, state.opt_state),
  )
  parent = steps.Trained(CHAIN[0], teacher_module, state)
  fresh = steps.create_train_state(
    autoencoders.init_variables(module, 0), optimizer
  )
  flags = dataclasses.replace(FLAGS, **flags)
  return parent, discovery.grow_state(parent, fresh, flags)


@pytest.mark.parametrize(
  ('make', 'normalize'),
  [(_make_module, False), (_make_coloured, True), (_make_coloured, False)],
)
def test_preserving_growth_starts_at_the_teachers_images(make, normalize):
  teacher_module, module = make(2, 0, True), make(2, 1, False)
  if make is _make_coloured:
    module = make(2, 1, False, normalize)
  parent, grown = _grow(teacher_module, module, growth='preserving')
  model = models.Model(module, grown.params, grown.batch_stats)
  assert bool(jax.tree.leaves(grown.batch_stats)) == normalize
  images = jax.random.uniform(jax.random.key(0), (4, *module.image_shape))
  code, expected = model.encode(images), parent.model.encode(images)
  # Folding rounds once; a BatchNorm that stays is not folded.
  tolerance = {'atol': 0.0 if normalize else 1e-6, 'rtol': 0.0}
  np.testing.assert_allclose(code.factors, expected.factors, **tolerance)
  np.testing.assert_allclose(
    model.decode(code), parent.model.decode(expected), **tolerance
  )
  assert grown.step == 6  # The order of the data continues.


def test_normalization_is_dropped_where_it_is_not_folded():
  parent, grown = _grow(
    _make_module(2, 0, True),
    _make_module(2, 1, False),
    fold_normalization=False,
  )  # pyformat: disable
  np.testing.assert_array_equal(
    grown.params['encoder']['code']['kernel'][:, :2],
    parent.state.params['encoder']['code']['kernel'],
  )
  assert not jax.tree.leaves(grown.batch_stats)


@pytest.mark.parametrize('keep', [True, False])
def test_moments_are_kept_or_start_at_zero(keep):
  _, grown = _grow(
    _make_module(2, 0, True), _make_module(2, 1, False), keep_moments=keep
  )
  # Every leaf of the parent's optimizer state is 1; new units have 0.
  [adam] = [s for s in grown.opt_state if hasattr(s, 'mu')]
  kernel = adam.mu['decoder']['dense_0']['kernel']
  np.testing.assert_array_equal(kernel[:2], np.full((2, 6), float(keep)))
  np.testing.assert_array_equal(kernel[2], np.zeros(6))
  assert adam.count == int(keep)
