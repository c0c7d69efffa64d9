"""Tests of experiments.own_model, a model that is not of the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import own_model
from jacsup_jax.core import codes


def test_a_spot_by_hand():
  # Its colour at the centre; exp(-1/2) of it a width away.
  centre = own_model.LINE[jnp.array([7, 4])]
  width = own_model.LINE[8] - centre[0]
  image = own_model.render(
    centre[None, None], width[None, None], jnp.array([[[1.0, 0.5, 0.0]]])
  )[0]
  np.testing.assert_allclose(image[4, 7], [1, 0.5, 0], rtol=1e-5)
  np.testing.assert_allclose(image[4, 8, 0], np.exp(-0.5), rtol=1e-4)


def test_the_teacher_finds_what_it_draws_and_sees_no_bars():
  encode = jax.jit(own_model.teacher_encode)
  factors = jnp.array([[0.3, -0.2], [-0.4, 0.1]])
  code = codes.Code(factors, jnp.zeros((2, 0)))
  found = encode(own_model.teacher_decode(code)).factors
  # The spot's far tails are cut off.
  np.testing.assert_allclose(found, factors, atol=0.02)
  lamps, bars = own_model.draw(jax.random.key(3))
  assert np.min(np.max(bars, axis=(1, 2, 3))) > 0.2
  found, expected = encode(lamps + bars).factors, encode(lamps).factors
  np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_supervised_swaps_are_nearer_to_exact_ones():
  lamps, bars = own_model.draw(jax.random.key(7))
  pairs = jnp.roll(jnp.arange(own_model.BATCH), 1)
  errors = []
  for weight in (1.0, 0.0):
    params = own_model.train(0, 500, weight)
    _, swapped, _ = own_model.apply_and_swap(params, lamps + bars, pairs)
    errors.append(jnp.mean((swapped - lamps[pairs] - bars) ** 2))
  # Black images are further off than either.
  assert errors[0] < 0.7 * errors[1] < jnp.mean((lamps + bars) ** 2)


def test_the_picture_has_the_format_of_its_name(tmp_path, invoke):
  path = tmp_path / 'new' / 'own.svg'
  status, out, err = invoke(
    own_model.main, own_model.Config(), '--steps=2', f'--output={path}'
  )
  assert status == 0, err
  assert 'with Jacobian supervision: MSE' in out
  assert '<svg' in path.read_text()


@pytest.mark.parametrize('name', ['file/own.png', 'own.txt'])
def test_an_output_that_cannot_be_is_refused_before_training(
  tmp_path, invoke, monkeypatch, name
):
  monkeypatch.setattr(own_model, 'train', pytest.fail)
  (tmp_path / 'file').touch()
  status, _, err = invoke(
    own_model.main, own_model.Config(), f'--output={tmp_path / name}'
  )
  assert status == 2 and '--output=' in err and err.count('\n') == 1
