"""Tests of jacsup_jax.figures.sweeps, with images whose pixels are the code."""

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.figures import sweeps

TWO = codes.Code(
  jnp.array([[1.0, 2.0], [10.0, 20.0]]), jnp.array([[3.0], [30.0]])
)
ONE = jax.tree.map(lambda x: x[:1], TWO)


def _decode(code):
  """Images `[B, 1, K + D, 1]` whose pixels are the flat code."""
  return codes.merge(code)[:, None, :, None]


def test_quantile_values_between_literal_quantiles():
  # 101 examples: quantile q of unit 2 is exactly 100 q, of unit 0 it is 0.
  code = codes.Code(jnp.zeros((101, 2)), jnp.arange(101.0)[::-1][:, None])
  found = sweeps.quantile_values(code, 2, 3)
  np.testing.assert_allclose(found, [1, 50, 99], rtol=1e-5)
  np.testing.assert_array_equal(sweeps.quantile_values(code, 0, 2), 0)


def test_units_swaps_and_flips_are_where_they_belong():
  def decode(function, *args):
    images = jax.jit(function, static_argnums=0)(_decode, *args)
    assert images.shape[2:] == (1, 3, 1)
    return images[:, :, 0, :, 0]

  # A factor and a nuisance unit run over a grid.
  grid = decode(
      sweeps.vary_factors, ONE, jnp.array([0, 2]), jnp.array([7.0, 8.0]),
      jnp.array([4.0, 5.0, 6.0]),
  )  # fmt: skip
  np.testing.assert_array_equal(
    grid, [[[x, 2, y] for x in (7, 8)] for y in (4, 5, 6)]
  )
  np.testing.assert_array_equal(
    decode(sweeps.vary_unit, TWO, 2, jnp.array([-1.0, -2.0])),
    [[[1, 2, -1], [1, 2, -2]], [[10, 20, -1], [10, 20, -2]]],
  )
  # A row has the factors of one, a column the nuisance of one.
  np.testing.assert_array_equal(
    decode(sweeps.swap_all_factors, TWO),
    [[[1, 2, 3], [1, 2, 30]], [[10, 20, 3], [10, 20, 30]]],
  )
  code = codes.Code(jnp.array([[1.0, -2.0], [-1.0, 0.0]]), TWO.nuisance)
  np.testing.assert_array_equal(
    decode(
      sweeps.flip_factors,
      code,
      jnp.array([1, 0]),
      jnp.array([[-8, 7], [-9, 9]]),
    ),
    [[[1, 9, 3], [-8, -2, 3]], [[-1, -9, 30], [7, 0, 30]]],
  )
  # The second factor is present from -2 on, the first from 2.
  args = jnp.array([1, 0]), jnp.array([[-8, 7], [-9, 9]]), None
  np.testing.assert_array_equal(
    decode(sweeps.flip_factors, code, *args, jnp.array([2.0, -2.0])),
    [[[1, -9, 3], [7, -2, 3]], [[-1, -9, 30], [7, 0, 30]]],
  )


def test_direction_moves_the_nuisance_along_it_alone():
  # Components along (0.6, 0.8) are 5 and 1.4, with 1 % quantile 1.436.
  code = codes.Code(
    jnp.array([[7.0], [8.0]]), jnp.array([[3.0, 4.0], [1.0, 1.0]])
  )
  direction = jnp.array([0.6, 0.8])
  found = sweeps.vary_direction(_decode, code, 1, direction, 3)
  expected = [[7, 0.6 * x, 0.8 * x] for x in (1.436, 3.2, 4.964)]
  np.testing.assert_allclose(found.reshape(3, 3), expected, rtol=1e-5)


def test_feature_maps_are_kept_while_factors_vary():
  nuisance = jnp.arange(16.0).reshape(2, 2, 2, 2)
  code = codes.Code(jnp.zeros((2, 3)), nuisance)
  decode = lambda code: code.nuisance + code.factors[:, 2, None, None, None]
  images = sweeps.vary_unit(decode, code, 2, jnp.array([0.0, 1.0]))
  np.testing.assert_array_equal(images[:, 0], nuisance)
  np.testing.assert_array_equal(images[:, 1], nuisance + 1)
