"""Tests of jacsup_jax.jacobian."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax import jacobian
from jacsup_jax import latents
from jacsup_jax import types

SHAPE = (2, 3, 1)  # Of an image: 6 pixels.
PERMUTATION = jnp.array([2, 0, 3, 1])


def _random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _code(seed, num_factors=2, nuisance_dim=3):
  return types.Code(
      _random(seed, 4, num_factors), _random(seed + 100, 4, nuisance_dim)
  )


def _linear(kernel, code):
  return (latents.merge(code) @ kernel).reshape(-1, *SHAPE)


def _curved(kernel, code):
  return jnp.tanh(_linear(kernel, code))


def _factor_jacobian(decode, code):
  """`[B, 6, K]`, by forward differentiation of one example at a time."""

  def one(factors, nuisance):
    single = lambda y: decode(types.Code(y[None], nuisance[None])).reshape(-1)
    return jax.jacfwd(single)(factors)

  return jax.vmap(one)(*code)


# Values.


def test_secant_of_hand_computed_decoders():
  # One factor, one pixel: the student has slope 3, the teacher slope 1.
  student = lambda code: (3.0 * code.factors).reshape(-1, 1, 1, 1)
  teacher = lambda code: (1.0 * code.factors).reshape(-1, 1, 1, 1)
  code = types.Code(jnp.array([[0.0], [2.0]]), jnp.zeros((2, 0)))
  loss = jacobian.secant_loss(student, code, teacher, code, jnp.array([1, 0]))
  # The factors change by 2 and -2: (6 - 2)^2 and (-6 + 2)^2.
  np.testing.assert_array_equal(loss, [16.0, 16.0])


def test_decode_swapped_of_the_identity():
  decode = lambda code: latents.merge(code).reshape(-1, 2, 1, 1)
  code = types.Code(jnp.array([[1.0], [2.0]]), jnp.array([[5.0], [6.0]]))
  images, swapped = jacobian.decode_swapped(decode, code, jnp.array([1, 0]))
  np.testing.assert_array_equal(images.reshape(2, 2), [[1, 5], [2, 6]])
  np.testing.assert_array_equal(swapped.reshape(2, 2), [[2, 5], [1, 6]])


def test_images_of_other_shapes_raise():
  code = _code(0)
  other = lambda code: jnp.zeros((code.factors.shape[0], 3, 2, 1))
  decode = functools.partial(_linear, _random(1, 5, 6))
  with pytest.raises(AssertionError):
    jacobian.secant_loss(decode, code, other, code, PERMUTATION)


# Gradients.


def test_gradient_of_the_teacher_is_exactly_zero():
  student_kernel, teacher_kernel = _random(0, 5, 6), _random(1, 5, 6)

  def total(student_kernel, teacher_kernel, student_code, teacher_code):
    return jnp.sum(
        jacobian.secant_loss(
            functools.partial(_curved, student_kernel),
            student_code,
            functools.partial(_curved, teacher_kernel),
            teacher_code,
            PERMUTATION,
        )
    )

  grads = jax.grad(total, argnums=(0, 1, 2, 3))(
      student_kernel, teacher_kernel, _code(2), _code(3)
  )
  for grad in jax.tree.leaves((grads[1], grads[3])):
    np.testing.assert_array_equal(grad, np.zeros(grad.shape))
  for grad in jax.tree.leaves((grads[0], grads[2])):
    assert np.all(np.any(np.abs(grad) > 1e-4, axis=-1))


def test_both_sides_of_the_student_are_differentiated():
  # One pixel, D(y) = w y^2, a teacher that never changes: the loss is
  # (w y_j^2 - w y^2)^2, summed over the two examples of a pair.
  teacher = lambda code: jnp.zeros((code.factors.shape[0], 1, 1, 1))

  def total(factors):
    student = lambda code: jnp.square(code.factors).reshape(-1, 1, 1, 1)
    code = types.Code(factors, jnp.zeros((2, 0)))
    return jnp.sum(
        jacobian.secant_loss(student, code, teacher, code, jnp.array([1, 0]))
    )

  # At y = (1, 2) each example has (4 - 1)^2; d/dy_0 = 2 * 2 (1 - 4) * 2,
  # d/dy_1 = 2 * 2 (4 - 1) * 4. With one side stopped they would be half.
  np.testing.assert_allclose(
      jax.grad(total)(jnp.array([[1.0], [2.0]])), [[-24.0], [48.0]], rtol=1e-6
  )


def test_gradient_of_the_student_agrees_with_differences():
  teacher = functools.partial(_curved, _random(1, 5, 6))
  code = _code(2)

  def total(kernel):
    student = functools.partial(_curved, kernel)
    return jnp.sum(
        jacobian.secant_loss(student, code, teacher, _code(3), PERMUTATION)
    )

  # Central differences of float32 are good to about three digits.
  chex.assert_numerical_grads(
      total, (_random(0, 5, 6),), order=1, atol=1e-2, rtol=1e-2
  )


# Invariants.


def test_secant_of_linear_decoders_is_their_jacobians_difference():
  student = functools.partial(_linear, _random(0, 5, 6))
  teacher = functools.partial(_linear, _random(1, 5, 6))
  code = _code(2)
  loss = jacobian.secant_loss(student, code, teacher, code, PERMUTATION)
  difference = _factor_jacobian(teacher, code) - _factor_jacobian(student, code)
  direction = code.factors[PERMUTATION] - code.factors
  change = jnp.einsum('bpk,bk->bp', difference, direction)
  # Rounding of float32.
  np.testing.assert_allclose(
      loss, jnp.mean(jnp.square(change), axis=1), rtol=1e-4
  )


def test_secant_is_zero_where_the_jacobians_of_the_factors_agree():
  kernel = _random(0, 5, 6)
  student = functools.partial(_linear, kernel)
  # Another effect of the nuisance, the same of the two factors.
  other = functools.partial(_linear, kernel.at[2:].set(_random(1, 3, 6)))
  code = _code(2)
  loss = jacobian.secant_loss(student, code, other, code, PERMUTATION)
  # Differences of images of size 1 in float32, squared.
  np.testing.assert_allclose(loss, np.zeros(4), atol=1e-11)
  # Another effect of one factor.
  moved = functools.partial(_linear, kernel.at[0, 0].add(0.1))
  loss = jacobian.secant_loss(student, code, moved, code, PERMUTATION)
  assert np.all(loss > 1e-5)


def test_identity_permutation_gives_exactly_zero():
  loss = jacobian.secant_loss(
      functools.partial(_curved, _random(0, 5, 6)),
      _code(2),
      functools.partial(_curved, _random(1, 5, 6)),
      _code(3),
      jnp.arange(4),
  )
  np.testing.assert_array_equal(loss, np.zeros(4))


def test_secant_is_the_tangent_for_small_changes():
  student = functools.partial(_curved, 0.3 * _random(0, 5, 6))
  teacher = functools.partial(_curved, 0.3 * _random(1, 5, 6))
  step = 1e-2
  # Two examples that differ in their factors by `step` times a direction.
  factors, nuisance = _random(2, 1, 2), jnp.tile(_random(3, 1, 3), (2, 1))
  direction = _random(4, 1, 2)
  code = types.Code(
      jnp.concatenate([factors, factors + step * direction]), nuisance
  )
  loss = jacobian.secant_loss(student, code, teacher, code, jnp.array([1, 0]))
  difference = _factor_jacobian(teacher, code) - _factor_jacobian(student, code)
  tangent = jnp.einsum('bpk,bk->bp', difference, jnp.tile(direction, (2, 1)))
  # The secant differs from the tangent by terms of the order of the step.
  np.testing.assert_allclose(
      loss / step**2, jnp.mean(jnp.square(tangent), axis=1), rtol=5 * step
  )


def test_secant_over_an_axis_is_that_of_the_whole_batch():
  student = functools.partial(_curved, _random(0, 5, 6))
  teacher = functools.partial(_curved, _random(1, 5, 6))
  args = (_code(2), _code(3), PERMUTATION)
  whole = jacobian.secant_loss(student, args[0], teacher, args[1], args[2])
  spread = jax.vmap(
      lambda s, t, p: jacobian.secant_loss(student, s, teacher, t, p, 'shards'),
      axis_name='shards',
  )(*jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), args))
  np.testing.assert_allclose(spread.reshape(4), whole, rtol=1e-5)


def test_tangents_pass_through_a_swap():
  kernel = _random(0, 5, 6)
  decode = functools.partial(_curved, kernel)
  swap = lambda code: jacobian.decode_swapped(decode, code, PERMUTATION)[1]
  code, tangent = _code(2), _code(5)
  _, change = jax.jvp(swap, (code,), (tangent,))
  step = 1e-2
  moved = lambda sign: jax.tree.map(
      lambda c, t: c + sign * step * t, code, tangent
  )
  # Central difference: an error of the order of the step squared.
  np.testing.assert_allclose(
      change, (swap(moved(1)) - swap(moved(-1))) / (2 * step), atol=1e-2
  )
