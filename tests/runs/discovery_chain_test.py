"""Tests of chains of real models, trained by runs.stages and restored."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadratic

from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.runs import run as runs
from jacsup_jax.runs import stages
from jacsup_jax.training import discovery
from jacsup_jax.training import steps

SHAPE, COLOURED = (4, 4, 1), (4, 4, 3)
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
)
_init = jax.jit(autoencoders.init_variables, static_argnums=(0, 1))
_encode = jax.jit(lambda model, images: model.encode(images))
_decode = jax.jit(lambda model, code: model.decode(code))


def _make_module(num_factors, nuisance_dim, normalize):
  return autoencoders.MlpAutoencoder(
    num_factors, nuisance_dim, normalize, image_shape=SHAPE, widths=(6,)
  )


def _make_coloured(num_factors, nuisance_dim, normalize):
  return autoencoders.SvhnAutoencoder(
    num_factors,
    nuisance_dim,
    normalize,
    image_shape=COLOURED,
    widths=(3,),
    linear_code=True,
  )


def _run(path, **kwargs):
  return stages.run(
    CHAIN,
    discovery.Discovery(FLAGS, _make_module, jnp.asarray(IMAGES)),
    workdir=quadratic.begin(path),
    evaluate=lambda model: {'dim': model.nuisance_dim},
    checkpoint_every=1,
    **kwargs,
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('chain')
  return path, _run(path)


def test_students_have_the_terms_of_their_weights(finished):
  records = {r['stage']: r for r in quadratic.read_metrics(finished[0])}
  supervised = {'jacobian', 'factor_matching', 'cross_covariance'}
  assert supervised | {'reconstruction', 'loss'} <= set(records['d1'])
  assert not supervised & set(records['teacher'])


def test_models_have_the_first_teachers_factors_and_are_restored(finished):
  path, trained = finished
  modules = [t.module for t in trained]
  sizes = [(m.num_factors, m.nuisance_dim, m.normalize_code) for m in modules]
  assert sizes == [(2, 0, True), (2, 1, False)]
  as_teacher = discovery.as_teacher(modules[1])
  assert (as_teacher.num_factors, as_teacher.nuisance_dim) == (3, 0)
  for i, expected in enumerate(trained, 1):
    assert int(expected.state.step) == STEPS * EPOCHS * i
    model = runs.Run.open(path).restore(expected.stage.name)
    # Training a child leaves its parent alone.
    chex.assert_trees_all_equal(model.variables, expected.model.variables)
    np.testing.assert_array_equal(
      _decode(model, _encode(model, IMAGES[:4])),
      _decode(expected.model, _encode(expected.model, IMAGES[:4])),
    )


def test_resumed_within_a_grown_stage_is_bit_identical(finished, tmp_path):
  with pytest.raises(quadratic.Killed):
    _run(tmp_path, report=quadratic.kill_at('d1', 1))
  for found, expected in zip(_run(tmp_path), finished[1], strict=True):
    chex.assert_trees_all_equal(found.state, expected.state)


# Growth.


def _grow(make, normalize, **flags):
  """The state that a student of a teacher begins with, and the teacher."""
  teacher_module, module = make(2, 0, True), make(2, 1, normalize)
  optimizer = steps.make_optimizer(config.Optimization(), 1)
  variables = dict(_init(teacher_module, 5))
  variables['batch_stats'] = jax.tree.map(
    lambda x: x + 0.5, variables['batch_stats']
  )
  state = steps.create_train_state(variables, optimizer)
  state = state._replace(
    step=jnp.array(6, jnp.int32),
    opt_state=jax.tree.map(lambda x: x + 1, state.opt_state),
  )
  parent = steps.Trained(CHAIN[0], teacher_module, state)
  fresh = steps.create_train_state(_init(module, 0), optimizer)
  flags = dataclasses.replace(FLAGS, **flags)
  return parent, module, discovery.grow_state(parent, fresh, flags)


@pytest.mark.parametrize(
  ('make', 'normalize'),
  [(_make_module, False), (_make_coloured, True), (_make_coloured, False)],
)
def test_preserving_growth_starts_at_the_teachers_images(make, normalize):
  parent, module, grown = _grow(make, normalize, growth='preserving')
  model = models.Model(module, grown.params, grown.batch_stats)
  assert bool(jax.tree.leaves(grown.batch_stats)) == normalize
  random = np.random.default_rng(0)
  images = random.random((4, *module.image_shape), np.float32)
  code, expected = _encode(model, images), _encode(parent.model, images)
  # Folding rounds once; a BatchNorm that stays is not folded.
  tolerance = {'atol': 0.0 if normalize else 1e-6, 'rtol': 0.0}
  np.testing.assert_allclose(code.factors, expected.factors, **tolerance)
  np.testing.assert_allclose(
    _decode(model, code), _decode(parent.model, expected), **tolerance
  )
  assert grown.step == 6  # The order of the data continues.


@pytest.mark.parametrize('keep', [True, False])
def test_moments_are_kept_or_start_at_zero(keep):
  *_, grown = _grow(_make_module, False, keep_moments=keep)
  # Every leaf of the parent's optimizer state is 1; new units have 0.
  [adam] = [s for s in grown.opt_state if hasattr(s, 'mu')]
  kernel = adam.mu['decoder']['dense_0']['kernel']
  np.testing.assert_array_equal(kernel[:2], np.full((2, 6), float(keep)))
  np.testing.assert_array_equal(kernel[2], np.zeros(6))
  assert adam.count == int(keep)
