"""Tests of jacsup_jax.editing_grid. Its steps against solo runs: seeds_test."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.data import faces
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import stages
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import editing_grid
from jacsup_jax.training import replicas as grid

SEEDS = (2, 7)
WEIGHTS = config.AttributeLossWeights()
TEACHER = config.Stage('teacher', 'teacher', None, 4, 1, WEIGHTS)
STUDENT = config.Stage('student', 'student', 'teacher', 8, 1, WEIGHTS)
SETTINGS = editing.Settings(batch_size=4)


def _make_model(nuisance_dim):
  return networks.FaceAutoencoder(
      2, nuisance_dim // 4, image_size=8, first_width=4, last_width=4
  )


def _make_dataset():
  random = np.random.default_rng(0)
  return faces.FaceDataset(
      name='small',
      split='train',
      attribute_names=('Bald', 'Smiling'),
      image_size=8,
      fingerprint='small',
      attributes=random.choice([-1, 1], (10, 2)).astype(np.int8),
      images=random.integers(0, 256, (10, 8, 8, 3), np.uint8),
  )


def _finish(stage, model, state):
  state = jax.device_get(state)
  return stages.Trained(
      stage, model, state, checkpoints.hash_tree(state.params)
  )


# Invariants.


def test_members_begin_and_grow_as_solo_runs_do():
  data = _make_model, _make_dataset()
  recipe = editing_grid.EditingGrid(SETTINGS, *data, SEEDS)
  teacher = _finish(TEACHER, *recipe.create(TEACHER, {}))
  student = _finish(STUDENT, *recipe.create(STUDENT, {'teacher': teacher}))
  for i, seed in enumerate(SEEDS):
    solo = editing.Editing(dataclasses.replace(SETTINGS, seed=seed), *data)
    own = _finish(TEACHER, *solo.create(TEACHER, {}))
    found = grid.take_member(teacher, i)
    chex.assert_trees_all_equal(found.state, own.state)
    assert found.sha256 == own.sha256 and found.stage == TEACHER
    own = _finish(STUDENT, *solo.create(STUDENT, {'teacher': own}))
    chex.assert_trees_all_equal(grid.take_member(student, i).state, own.state)


def test_stacks_have_the_shapes_that_are_restored():
  recipe = editing_grid.EditingGrid(
      SETTINGS, _make_model, _make_dataset(), SEEDS
  )
  model, state = recipe.create(TEACHER, {})
  one = grid.take_member(_finish(TEACHER, model, state), 0)
  shapes = grid.stack_shapes(one.state, len(SEEDS))
  chex.assert_trees_all_equal_shapes_and_dtypes(shapes, state)
  # As a stack of models from elsewhere is.
  stacked = grid.stack_members([one, one])
  chex.assert_trees_all_equal(grid.take_member(stacked, 1).state, one.state)


# Mistakes.


def test_fed_data_are_refused():
  settings = dataclasses.replace(SETTINGS, on_device=False)
  with pytest.raises(ValueError, match='devices hold'):
    editing_grid.EditingGrid(settings, _make_model, _make_dataset(), SEEDS)
