"""Tests of evaluation.jacobian_agreement.

Linear decoders have their matrix for a Jacobian; of curved ones it is that of
`jax.jacfwd`.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.evaluation import jacobian_agreement

NAMES = ('first', 'second')


def _linear(matrix, nuisance_matrix=None):
  """Decodes to images [B, P, 1, 1], of P pixels."""

  def decode(code):
    flat = code.factors @ jnp.asarray(matrix, jnp.float32).T
    if nuisance_matrix is not None:
      flat += code.nuisance.reshape(len(flat), -1) @ nuisance_matrix.T
    return flat[:, :, None, None]

  return decode


def _code(batch_size=3, num_factors=2, nuisance=(4,), seed=0):
  keys = jax.random.split(jax.random.key(seed))
  return codes.Code(
    jax.random.normal(keys[0], (batch_size, num_factors)),
    jax.random.normal(keys[1], (batch_size, *nuisance)),
  )


def _curved(code):
  """Every pixel is a curved function of all units."""
  batch_size = code.factors.shape[0]
  flat = jnp.concatenate(
    [code.factors, code.nuisance.reshape(batch_size, -1)], axis=1
  )
  weights = jax.random.normal(jax.random.key(1), (flat.shape[1], 12))
  return jnp.tanh(flat @ weights).reshape(batch_size, 3, 2, 2)


def _jacobians(decode, code):
  """Returns [B, P, K] and [B, P, D], by jax.jacfwd."""

  def one(factors, nuisance):
    return decode(codes.Code(factors[None], nuisance[None])).ravel()

  both = jax.vmap(jax.jacfwd(one, argnums=(0, 1)))(*code)
  return [x.reshape(*x.shape[:2], -1) for x in both]


def _multiply(student, student_code, teacher, teacher_code):
  multiply = lambda *codes: jacobian_agreement.multiply_columns(
    student, codes[0], teacher, codes[1]
  )
  return jax.jit(multiply)(student_code, teacher_code)


def _agreement(student, teacher, student_code, teacher_code=None):
  products = _multiply(
    student, student_code, teacher, teacher_code or student_code
  )
  return jacobian_agreement.compute_agreement(products, NAMES)


# Values.


def test_agreement_by_hand():
  # Columns (3, 4) against (3, 0): cosine 9 / 15, norms 5 and 3. Columns
  # (0, -1) against (0, 2): opposite, norms 1 and 2.
  found = _agreement(
    _linear([[3, 0], [4, -1]]), _linear([[3, 0], [0, 2]]), _code()
  )
  first, second = found['factors'].values()
  np.testing.assert_allclose(first['cosine'], 0.6, rtol=1e-6)
  np.testing.assert_allclose(first['norm_error'], 2 / 3, rtol=1e-6)
  np.testing.assert_allclose(second['cosine'], -1, rtol=1e-6)
  np.testing.assert_allclose(second['norm_error'], 0.5, rtol=1e-6)
  np.testing.assert_allclose(found['cosine'], -0.2, rtol=1e-5)
  np.testing.assert_allclose(found['norm_error'], 7 / 12, rtol=1e-6)


def test_principal_directions_by_hand():
  # A diagonal Jacobian has its entries, in order, for singular values.
  matrix = jnp.diag(jnp.array([1.0, 5.0, 0.0, 3.0]))
  found = jacobian_agreement.find_principal_directions(
    _linear(np.zeros((4, 2)), matrix), _code(), 3
  )
  np.testing.assert_allclose(found.singular_values, [5, 3, 1], rtol=1e-5)
  np.testing.assert_allclose(found.directions, np.eye(4)[[1, 3, 0]], atol=1e-4)


# Against the Jacobian itself.


def test_products_are_those_of_jacfwd():
  student_code, teacher_code = _code(seed=2), _code(nuisance=(1, 1, 3), seed=3)
  products = _multiply(_curved, student_code, _curved, teacher_code)
  student, _ = _jacobians(_curved, student_code)
  teacher, _ = _jacobians(_curved, teacher_code)
  for found, a, b in (
    (products.student, student, student),
    (products.teacher, teacher, teacher),
    (products.both, student, teacher),
  ):
    np.testing.assert_allclose(
      found, jnp.sum(a * b, axis=1), rtol=1e-4, atol=1e-5
    )


def test_cosines_are_those_of_jacfwd():
  code = _code(num_factors=5)
  columns, _ = _jacobians(_curved, code)
  columns /= jnp.linalg.norm(columns, axis=1, keepdims=True)
  expected = jnp.mean(jnp.einsum('bpk,bpl->bkl', columns, columns), axis=0)
  found, _ = jacobian_agreement.compute_column_cosines(_curved, code)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_directions_are_those_of_svd(batch_size):
  code = _code(batch_size, nuisance=(2, 2, 2))
  found = jax.jit(
    lambda code: jacobian_agreement.find_principal_directions(
      _curved, code, 3, tolerance=1e-6
    )
  )(code)
  _, matrices = _jacobians(_curved, code)
  # The average of J^T J is that of the matrices on top of each other.
  stacked = matrices.reshape(-1, 8) / np.sqrt(batch_size)
  _, values, vectors = jnp.linalg.svd(stacked)
  np.testing.assert_allclose(found.singular_values, values[:3], rtol=1e-4)
  chex.assert_shape(found.directions, (3, 2, 2, 2))
  overlap = jnp.sum(found.directions.reshape(3, 8) * vectors[:3], axis=1)
  np.testing.assert_allclose(jnp.abs(overlap), 1, atol=1e-4)
  assert jnp.max(found.residuals) < 1e-5


# Invariants.


# Oracle and anti-oracle.


# What is undefined, and bad input.


def test_zero_columns_are_said_and_left_out():
  dead = lambda code: _linear([[1, 0], [2, 0]])(code)
  found = _agreement(dead, _linear([[1, 1], [2, 0]]), _code())
  second = found['factors']['second']
  assert second['cosine'] is None
  # A student's zero column has a norm that is wrong by all of its teacher's.
  assert second['norm_error'] == 1
  assert second['undefined_cosines'] == 3
  assert second['undefined_norm_errors'] == 0
  np.testing.assert_allclose(found['cosine'], 1, rtol=1e-6)
  found = _agreement(dead, dead, _code())
  assert found['factors']['second']['norm_error'] is None
  nothing = _agreement(_linear(np.zeros((2, 2))), dead, _code())
  assert nothing['cosine'] is None
  cosines, count = jacobian_agreement.compute_column_cosines(dead, _code())
  np.testing.assert_array_equal(count, [[3, 0], [0, 0]])
  np.testing.assert_allclose(cosines, [[1, 0], [0, 0]], rtol=1e-6)


def test_codes_that_do_not_fit():
  code = _code()
  with pytest.raises(errors.InputError, match='5 principal .* from 1 to 4'):
    jacobian_agreement.find_principal_directions(_curved, code, 5)
  multiply = jacobian_agreement.multiply_columns
  with pytest.raises(errors.InputError, match='the teacher'):
    multiply(_curved, code, _curved, _code(num_factors=3))
  flat = lambda code: _curved(code).ravel()
  with pytest.raises(errors.InputError, match='accepted: .* H, W, C'):
    multiply(flat, code, flat, code)
