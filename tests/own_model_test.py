"""Tests of experiments.own_model, a model that is not of the package."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import own_model
from jacsup_jax.core import codes
from jacsup_jax.core import jacobian

ROOT = pathlib.Path(__file__).parents[1]


def test_a_spot_by_hand():
  # At a centre its colour; a width away exp(-1/2) of it.
  centre = own_model.LINE[jnp.array([7, 4])]
  width = own_model.LINE[8] - centre[0]
  image = own_model.render(
      centre[None, None], width[None, None], jnp.array([[[1.0, 0.5, 0.0]]])
  )[0]
  np.testing.assert_allclose(image[4, 7], [1, 0.5, 0], rtol=1e-5)
  np.testing.assert_allclose(image[4, 8, 0], np.exp(-0.5), rtol=1e-4)


def test_the_teacher_finds_what_it_draws():
  factors = jnp.array([[0.3, -0.2], [-0.4, 0.1]])
  code = codes.Code(factors, jnp.zeros((2, 0)))
  found = own_model.teacher_encode(own_model.teacher_decode(code)).factors
  # The spot's far tails are cut off.
  np.testing.assert_allclose(found, factors, atol=0.02)


def test_the_teacher_does_not_see_bars():
  lamps, bars = own_model.draw(jax.random.key(3))
  assert np.min(np.max(bars, axis=(1, 2, 3))) > 0.2
  found, expected = (
      own_model.teacher_encode(images).factors
      for images in (lamps + bars, lamps)
  )
  np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_supervised_swaps_are_nearer_to_exact_ones():
  lamps, bars = own_model.draw(jax.random.key(7))
  pairs = jnp.roll(jnp.arange(own_model.BATCH), 1)
  train = jax.jit(own_model.train, static_argnums=1)
  errors = []
  for weight in (1.0, 0.0):
    params = train(0, 500, weight)
    _, swapped = jacobian.decode_swapped(
        lambda code, params=params: own_model.decode(params, code),
        own_model.encode(params, lamps + bars),
        pairs,
    )
    errors.append(jnp.mean((swapped - lamps[pairs] - bars) ** 2))
  # Black images are further off than either.
  assert errors[0] < 0.7 * errors[1] < jnp.mean((lamps + bars) ** 2)


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
