"""Tests of chains of real models, trained by runs.stages and restored."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import quadratic

from jacsup_jax.core import config
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import run as runs
from jacsup_jax.runs import stages
from jacsup_jax.training import discovery

SHAPE = (4, 4, 1)
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


def _make_module(*sizes):
  return autoencoders.MlpAutoencoder(*sizes, image_shape=SHAPE, widths=(6,))


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


def test_models_have_the_first_teachers_factors_and_are_restored(finished):
  path, trained = finished
  records = {r['stage']: set(r) for r in quadratic.read_metrics(path)}
  supervised = {'jacobian', 'factor_matching', 'cross_covariance'}
  assert supervised <= records['d1'] and not supervised & records['teacher']
  modules = [t.module for t in trained]
  modules.append(discovery.as_teacher(modules[1]))
  sizes = [(m.num_factors, m.nuisance_dim, m.normalize_code) for m in modules]
  assert sizes == [(2, 0, True), (2, 1, False), (3, 0, False)]
  for i, expected in enumerate(trained, 1):
    assert int(expected.state.step) == STEPS * EPOCHS * i
    model = runs.Run.open(path).restore(expected.stage.name)
    # Training a child leaves its parent alone.
    assert model.module == expected.module
    chex.assert_trees_all_equal(model.variables, expected.model.variables)


def test_resumed_within_a_grown_stage_is_bit_identical(finished, tmp_path):
  with pytest.raises(quadratic.Killed):
    _run(tmp_path, report=quadratic.kill_at('d1', 1))
  for found, expected in zip(_run(tmp_path), finished[1], strict=True):
    chex.assert_trees_all_equal(found.state, expected.state)
