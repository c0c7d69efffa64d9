"""Tests of jacsup_jax.core.jacobian."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import jacobian

SHAPE = (2, 3, 1)  # Of an image: 6 pixels.
PERMUTATION = jnp.array([2, 0, 3, 1])


LOSSES = {
  'secant': jacobian.secant_loss,
  'tangent': jacobian.tangent_loss,
  'path': jacobian.path_loss,
  # It has no partners.
  'full': lambda *args: jacobian.full_loss(*args[:4]),
}


def _random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _code(seed, num_factors=2, nuisance_dim=3):
  return codes.Code(
    _random(seed, 4, num_factors), _random(seed + 100, 4, nuisance_dim)
  )


def _linear(kernel, code):
  return (codes.merge(code) @ kernel).reshape(-1, *SHAPE)


def _curved(kernel, code):
  return jnp.tanh(_linear(kernel, code))


def _factor_jacobian(decode, code):
  """`[B, 6, K]`, by forward differentiation of one example at a time."""

  def one(factors, nuisance):
    single = lambda y: decode(codes.Code(y[None], nuisance[None])).reshape(-1)
    return jax.jacfwd(single)(factors)

  return jax.vmap(one)(*code)


# Values.


def test_decode_swapped_of_the_identity():
  decode = lambda code: codes.merge(code).reshape(-1, 2, 1, 1)
  code = codes.Code(jnp.array([[1.0], [2.0]]), jnp.array([[5.0], [6.0]]))
  images, swapped = jacobian.decode_swapped(decode, code, jnp.array([1, 0]))
  np.testing.assert_array_equal(images.reshape(2, 2), [[1, 5], [2, 6]])
  np.testing.assert_array_equal(swapped.reshape(2, 2), [[2, 5], [1, 6]])


@pytest.mark.parametrize('name', config.JACOBIANS)
def test_decoder_whose_shape_changes_with_the_code_is_refused(name):
  decode = functools.partial(_linear, _random(1, 5, 6))
  # A row too few, whatever the number of codes.
  short = lambda code: decode(code)[1:]
  code = _code(0)
  with pytest.raises(errors.InputError, match='images of .*one image per'):
    LOSSES[name](short, code, decode, code, PERMUTATION)


@pytest.mark.parametrize('name', config.JACOBIANS)
def test_factors_of_another_rank_are_refused(name):
  code = codes.Code(jnp.ones((4, 2, 1)), jnp.ones((4, 3)))
  decode = lambda code: jnp.ones((4, *SHAPE))
  with pytest.raises(errors.InputError, match='factors of shape.*rank 2'):
    LOSSES[name](decode, code, decode, code, PERMUTATION)


def test_full_jacobian_that_is_too_large_says_how_large():
  decode = functools.partial(_linear, _random(1, 5, 6))
  code = _code(0)
  # 4 codes x 6 pixels x 2 factors x 4 bytes.
  with pytest.raises(errors.InputError, match='192 bytes.*up to 191'):
    jacobian.full_loss(decode, code, decode, code, max_bytes=191)
  jacobian.full_loss(decode, code, decode, code, max_bytes=192)


def test_losses_of_a_hand_computed_decoder():
  # One pixel, D(y) = y^2, of a student at y = 1 and 2; a constant teacher.
  student = lambda code: jnp.square(code.factors).reshape(-1, 1, 1, 1)
  teacher = lambda code: 0.0 * student(code)
  code = codes.Code(jnp.array([[1.0], [2.0]]), jnp.zeros((2, 0)))
  args = (student, code, teacher, code, jnp.array([1, 0]))
  # (4 - 1)^2 both ways; 2 y (y_j - y) = 2 and -4; 2 y = 2 and 4.
  np.testing.assert_allclose(jacobian.secant_loss(*args), [9.0, 9.0])
  np.testing.assert_allclose(jacobian.tangent_loss(*args), [4.0, 16.0])
  np.testing.assert_allclose(jacobian.full_loss(*args[:4]), [4.0, 16.0])
  # The midpoint is exact for a square.
  np.testing.assert_allclose(jacobian.path_loss(*args, nodes=1), [9.0, 9.0])


def test_targets_of_several_swaps():
  factors = jnp.array([[1.0, 2.0], [10.0, 20.0]])
  targets = jacobian.make_targets(factors, jnp.array([[1, 0], [0, 1]]))
  np.testing.assert_array_equal(targets, [factors[::-1], factors])
  np.testing.assert_array_equal(
    jacobian.make_targets(factors, jnp.array([1, 0])), factors[None, ::-1]
  )


@pytest.mark.parametrize('form', ['secant', 'tangent', 'path'])
def test_changes_of_several_swaps_are_those_of_each(form):
  decode = functools.partial(_curved, _random(0, 5, 6))
  code = _code(2)
  permutations = jnp.stack([PERMUTATION, PERMUTATION[::-1]])
  make = lambda p: jacobian.make_targets(code.factors, p)
  together = jacobian.compute(decode, code, make(permutations), form=form)
  for change, permutation in zip(together.changes, permutations):
    alone = jacobian.compute(decode, code, make(permutation), form=form)
    np.testing.assert_allclose(change, alone.changes[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(together.images, alone.images, rtol=1e-5)


def test_joint_secant_is_the_secant():
  decode = functools.partial(_curved, _random(0, 5, 6))
  code = _code(2)
  targets = jacobian.make_targets(
    code.factors, jnp.stack([PERMUTATION, PERMUTATION[::-1]])
  )
  plain = jacobian.secant(decode, code, targets)
  joint = jacobian.secant(decode, code, targets, joint=True)
  chex.assert_trees_all_close(plain, joint, atol=1e-6)
  known = jacobian.secant(decode, code, targets, images=plain.images)
  chex.assert_trees_all_equal(plain, known)


# Gradients.


@pytest.mark.parametrize('name', config.JACOBIANS)
def test_gradient_of_the_teacher_is_exactly_zero(name):
  student_kernel, teacher_kernel = _random(0, 5, 6), _random(1, 5, 6)

  def total(student_kernel, teacher_kernel, student_code, teacher_code):
    return jnp.sum(
      LOSSES[name](
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
    code = codes.Code(factors, jnp.zeros((2, 0)))
    return jnp.sum(
      jacobian.secant_loss(student, code, teacher, code, jnp.array([1, 0]))
    )

  # At y = (1, 2) each example has (4 - 1)^2; d/dy_0 = 2 * 2 (1 - 4) * 2,
  # d/dy_1 = 2 * 2 (4 - 1) * 4. With one side stopped they would be half.
  np.testing.assert_allclose(
    jax.grad(total)(jnp.array([[1.0], [2.0]])), [[-24.0], [48.0]], rtol=1e-6
  )


@pytest.mark.parametrize('name', config.JACOBIANS)
def test_gradient_of_the_student_agrees_with_differences(name):
  teacher = functools.partial(_curved, _random(1, 5, 6))
  code = _code(2)

  def total(kernel):
    student = functools.partial(_curved, kernel)
    return jnp.sum(LOSSES[name](student, code, teacher, _code(3), PERMUTATION))

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


@pytest.mark.parametrize('name', ['secant', 'tangent', 'path'])
def test_identity_permutation_gives_exactly_zero(name):
  loss = LOSSES[name](
    functools.partial(_curved, _random(0, 5, 6)),
    _code(2),
    functools.partial(_curved, _random(1, 5, 6)),
    _code(3),
    jnp.arange(4),
  )
  np.testing.assert_array_equal(loss, np.zeros(4))


def test_tangent_is_the_limit_of_the_secant():
  # Swaps that shrink: their difference shrinks as their size does.
  sizes = 0.1 * 0.5 ** np.arange(6)
  gaps = []
  with jax.enable_x64(True):
    kernels = np.random.default_rng(0).normal(size=(2, 5, 6))
    student = functools.partial(_curved, 0.3 * kernels[0])
    teacher = functools.partial(_curved, 0.3 * kernels[1])
    base, direction, nuisance = np.random.default_rng(1).normal(size=(3, 1, 3))
    for size in sizes:
      factors = np.concatenate([base, base + size * direction])[:, :2]
      code = codes.Code(jnp.asarray(factors), jnp.tile(nuisance, (2, 1)))
      args = (student, code, teacher, code, jnp.array([1, 0]))
      # Of a swap of size 1.
      secant = jacobian.secant_loss(*args) / size**2
      tangent = jacobian.tangent_loss(*args) / size**2
      gaps.append(np.mean(np.abs(secant - tangent)))
    assert secant.dtype == jnp.float64
  # A slope of 1 in the logarithms, up to terms of the second order.
  slopes = np.diff(np.log(gaps)) / np.diff(np.log(sizes))
  np.testing.assert_allclose(slopes, 1.0, atol=0.1)
  np.testing.assert_allclose(slopes[-1], 1.0, atol=0.01)


def test_path_converges_to_the_secant():
  with jax.enable_x64(True):
    kernels = np.random.default_rng(0).normal(size=(2, 5, 6))
    args = (
      functools.partial(_curved, 0.3 * kernels[0]),
      jax.tree.map(lambda x: x.astype(jnp.float64), _code(2)),
      functools.partial(_curved, 0.3 * kernels[1]),
      jax.tree.map(lambda x: x.astype(jnp.float64), _code(3)),
      PERMUTATION,
    )
    secant = jacobian.secant_loss(*args)
    gaps = [
      np.max(np.abs(jacobian.path_loss(*args, nodes=nodes) / secant - 1))
      for nodes in (1, 2, 4, 8, 16)
    ]
  # Gauss-Legendre converges geometrically on a smooth decoder.
  assert all(b < 0.3 * a for a, b in zip(gaps, gaps[1:]))
  assert gaps[0] > 1e-2 and gaps[-1] < 1e-9


def test_full_is_the_mean_of_tangents_along_normal_directions():
  student = functools.partial(_curved, _random(0, 5, 6))
  teacher = functools.partial(_curved, _random(1, 5, 6))
  code = _code(2)
  full = jacobian.full_loss(student, code, teacher, code)
  count = 20_000
  targets = code.factors[None] + _random(7, count, 4, 2)

  @jax.jit
  def along(target):
    tangents = [
      jacobian.tangent(decode, code, target[None]).changes
      for decode in (student, teacher)
    ]
    return jacobian.compare(*tangents)

  losses = jax.lax.map(along, targets, batch_size=1000)
  # Of the mean of as many: 4 of its standard errors.
  error = 4 * np.std(losses, axis=0) / np.sqrt(count)
  assert np.all(np.abs(np.mean(losses, axis=0) - full) < error)
  assert np.all(error < 0.1 * full)


@pytest.mark.parametrize('name', ['secant', 'tangent', 'path'])
def test_loss_over_an_axis_is_that_of_the_whole_batch(name):
  student = functools.partial(_curved, _random(0, 5, 6))
  teacher = functools.partial(_curved, _random(1, 5, 6))
  args = (_code(2), _code(3), PERMUTATION)
  whole = LOSSES[name](student, args[0], teacher, args[1], args[2])
  spread = jax.vmap(
    lambda s, t, p: LOSSES[name](student, s, teacher, t, p, 'shards'),
    axis_name='shards',
  )(*jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), args))
  np.testing.assert_allclose(spread.reshape(4), whole, rtol=1e-5)
