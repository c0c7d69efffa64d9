"""Tests of experiments.own_model, a model that is not of the package."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import own_model
from jacsup_jax import types

ROOT = pathlib.Path(__file__).parents[1]


def test_a_spot_by_hand():
  # At a centre its colour; a width away exp(-1/2) of it.
  centre = own_model.GRID[4, 7]
  width = own_model.GRID[4, 8, 0] - centre[0]
  image = own_model.render(
      centre[None, None], width[None, None], jnp.array([[[1.0, 0.5, 0.0]]])
  )[0]
  np.testing.assert_allclose(image[4, 7], [1, 0.5, 0], rtol=1e-5)
  np.testing.assert_allclose(image[4, 8, 0], np.exp(-0.5), rtol=1e-4)


def test_the_teacher_finds_what_it_draws():
  factors = jnp.array([[0.3, -0.2], [-0.4, 0.1]])
  code = types.Code(factors, jnp.zeros((2, 0)))
  found = own_model.teacher_encode(own_model.teacher_decode(code)).factors
  # The spot's far tails are cut off.
  np.testing.assert_allclose(found, factors, atol=0.02)


def test_the_loss_falls():
  key = jax.random.key(5)
  train = jax.jit(own_model.train, static_argnums=1)
  objective = jax.jit(own_model.objective)
  before = objective(train(0, 1, 1.0), key, 1.0)
  assert objective(train(0, 60, 1.0), key, 1.0) < 0.7 * before


@pytest.mark.parametrize('flag, status', [('--steps=2', 0), ('--steps=0', 2)])
def test_the_binary(tmp_path, flag, status):
  process = subprocess.run(
      [sys.executable, '-m', 'experiments.own_model', flag],
      cwd=tmp_path,
      env={'PYTHONPATH': str(ROOT), 'PATH': '', 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
  )
  assert process.returncode == status, process.stderr
  assert (tmp_path / 'runs' / 'own_model.png').exists() == (status == 0)
  if status:
    assert process.stderr.startswith('error: ')
    assert process.stderr.count('\n') == 1
