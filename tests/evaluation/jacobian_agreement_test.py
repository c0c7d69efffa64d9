"""Tests of evaluation.jacobian_agreement.

Linear decoders have their matrix for a Jacobian; of curved ones it is that of
`jax.jacfwd`.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.evaluation import jacobian_agreement

NAMES = ('first', 'second')


@jax.jit
def _multiply_linear(student, teacher, code):
  """Multiplies the columns of decoders whose Jacobians are given."""
  decode = lambda matrix, code: (code.factors @ matrix.T)[:, :, None, None]
  return jacobian_agreement.multiply_columns(
    functools.partial(decode, student), code,
    functools.partial(decode, teacher), code,
  )  # fmt: skip


def _code(num_factors=2, nuisance=(4,), seed=0):
  draw = np.random.default_rng(seed).standard_normal
  shapes = ((3, num_factors), (3, *nuisance))
  return codes.Code(*(jnp.asarray(draw(shape, np.float32)) for shape in shapes))


WEIGHTS = np.random.default_rng(1).normal(size=(10, 12)).astype(np.float32)


def _curved(code):
  """Every pixel is a curved function of all units."""
  nuisance = code.nuisance.reshape(len(code.nuisance), -1)
  flat = jnp.concatenate([code.factors, nuisance], axis=1)
  return jnp.tanh(flat @ WEIGHTS[: flat.shape[1]]).reshape(-1, 3, 2, 2)


@jax.jit
def _jacobians(code):
  """Returns [B, P, K] and [B, P, D] of `_curved`, by jax.jacfwd."""

  def one(factors, nuisance):
    return _curved(codes.Code(factors[None], nuisance[None])).ravel()

  both = jax.vmap(jax.jacfwd(one, argnums=(0, 1)))(*code)
  return [x.reshape(*x.shape[:2], -1) for x in both]


@functools.partial(jax.jit, static_argnums=0)
def _find_directions(decode, code):
  return jacobian_agreement.find_principal_directions(
    decode, code, 3, tolerance=1e-6
  )


def _agreement(student, teacher):
  matrices = (jnp.array(x, jnp.float32) for x in (student, teacher))
  products = _multiply_linear(*matrices, _code())
  return jacobian_agreement.compute_agreement(products, NAMES)


def test_agreement_by_hand():
  # Columns (3, 4) against (3, 0): cosine 9 / 15, norms 5 and 3. Columns
  # (0, -1) against (0, 2): opposite, norms 1 and 2.
  found = _agreement([[3, 0], [4, -1]], [[3, 0], [0, 2]])
  for entry, cosine, norm_error in (
    (found['factors']['first'], 0.6, 2 / 3),
    (found['factors']['second'], -1, 0.5),
    (found, -0.2, 7 / 12),
  ):
    assert entry['cosine'] == pytest.approx(cosine, rel=1e-5)
    assert entry['norm_error'] == pytest.approx(norm_error, rel=1e-5)


def test_principal_directions_by_hand():
  # A diagonal Jacobian has its entries, in order, for singular values.
  scales = jnp.array([1.0, 5.0, 0.0, 3.0])
  decode = lambda code: (code.nuisance * scales[None])[:, :, None, None]
  found = _find_directions(decode, _code())
  np.testing.assert_allclose(found.singular_values, [5, 3, 1], rtol=1e-5)
  np.testing.assert_allclose(found.directions, np.eye(4)[[1, 3, 0]], atol=1e-4)


def test_products_are_those_of_jacfwd():
  student_code, teacher_code = _code(seed=2), _code(nuisance=(1, 1, 3), seed=3)
  multiply = jax.jit(jacobian_agreement.multiply_columns, static_argnums=(0, 2))
  products = multiply(_curved, student_code, _curved, teacher_code)
  student, _ = _jacobians(student_code)
  teacher, _ = _jacobians(teacher_code)
  for found, a, b in (
    (products.student, student, student),
    (products.teacher, teacher, teacher),
    (products.both, student, teacher),
  ):
    expected = np.sum(np.asarray(a) * np.asarray(b), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_directions_are_those_of_svd():
  code = _code(nuisance=(2, 2, 2))
  found = _find_directions(_curved, code)
  _, matrices = _jacobians(code)
  # The average of J^T J is that of the matrices on top of each other.
  stacked = np.asarray(matrices).reshape(-1, 8) / np.sqrt(3)
  _, values, vectors = np.linalg.svd(stacked)
  np.testing.assert_allclose(found.singular_values, values[:3], rtol=1e-4)
  chex.assert_shape(found.directions, (3, 2, 2, 2))
  directions = np.asarray(found.directions).reshape(3, 8)
  overlap = np.sum(directions * vectors[:3], axis=1)
  np.testing.assert_allclose(np.abs(overlap), 1, atol=1e-4)
  assert np.max(found.residuals) < 1e-5


def test_zero_columns_are_said_and_left_out():
  dead = [[1, 0], [2, 0]]
  found = _agreement(dead, [[1, 1], [2, 0]])
  second = found['factors']['second']
  assert second['cosine'] is None
  # A student's zero column has a norm that is wrong by all of its teacher's.
  assert second['norm_error'] == 1
  assert second['undefined_cosines'] == 3
  assert second['undefined_norm_errors'] == 0
  np.testing.assert_allclose(found['cosine'], 1, rtol=1e-6)
  found = _agreement(dead, dead)
  assert found['factors']['second']['norm_error'] is None
  assert _agreement(np.zeros((2, 2)), dead)['cosine'] is None


def test_codes_that_do_not_fit():
  multiply = jacobian_agreement.multiply_columns
  with pytest.raises(AssertionError, match='shape'):
    multiply(_curved, _code(), _curved, _code(num_factors=3))
  flat = lambda code: _curved(code).ravel()
  with pytest.raises(AssertionError, match='rank'):
    multiply(flat, _code(), flat, _code())
