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
from jacsup_jax.core import losses

SHAPE = (2, 3, 1)  # Of an image: 6 pixels.
PERMUTATION = np.array([2, 0, 3, 1], np.int32)
LOSSES = {
  'secant': jacobian.secant_loss,
  'tangent': jacobian.tangent_loss,
  'path': jacobian.path_loss,
  # It has no partners.
  'full': lambda *args: jacobian.full_loss(*args[:4]),
}
ALL = pytest.mark.parametrize('name', config.JACOBIANS)
ALONG_SWAPS = pytest.mark.parametrize('name', ['secant', 'tangent', 'path'])


def _random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _linear(kernel, code):
  return (codes.merge(code) @ kernel).reshape(-1, *SHAPE)


def _curved(kernel, code):
  return jnp.tanh(_linear(kernel, code))


KERNEL, OTHER_KERNEL = _random(0, 5, 6), _random(1, 5, 6)
CODE = codes.Code(_random(2, 4, 2), _random(3, 4, 3))
OTHER_CODE = codes.Code(_random(4, 4, 2), _random(5, 4, 3))
STUDENT = functools.partial(_curved, KERNEL)
TEACHER = functools.partial(_curved, OTHER_KERNEL)


def _square(code):
  """One pixel, D(y) = y^2."""
  return jnp.square(code.factors).reshape(-1, 1, 1, 1)


def _factor_jacobian(decode, code):
  """`[B, 6, K]`, by forward differentiation of one example at a time."""

  def one(factors, nuisance):
    single = lambda y: decode(codes.Code(y[None], nuisance[None])).reshape(-1)
    return jax.jacfwd(single)(factors)

  return jax.vmap(one)(*code)


@ALL
def test_decoder_whose_shape_changes_with_the_code_is_refused(name):
  # A row too few, whatever the number of codes.
  short = lambda code: STUDENT(code)[1:]
  with pytest.raises(errors.InputError, match='images of .*one image per'):
    LOSSES[name](short, CODE, TEACHER, CODE, PERMUTATION)


def test_full_jacobian_that_is_too_large_says_how_large(monkeypatch):
  # 4 codes x 6 pixels x 2 factors x 4 bytes.
  monkeypatch.setattr(jacobian, 'MAX_FULL_BYTES', 191)
  with pytest.raises(errors.InputError, match='192 bytes.*up to 191'):
    jacobian.full(STUDENT, CODE)


def test_losses_of_a_hand_computed_decoder():
  # A student at y = 1 and 2; a constant teacher.
  teacher = lambda code: 0.0 * _square(code)
  code = codes.Code(jnp.array([[1.0], [2.0]]), jnp.zeros((2, 0)))
  args = (_square, code, teacher, code, jnp.array([1, 0]))
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


def test_targets_of_flips():
  factors = jnp.array([[1.0, 2.0], [10.0, -20.0], [0.5, 1.0]])
  flip = lambda rows, *args: jacobian.make_targets(
    factors, jnp.array(rows), None, 'flip', *args
  )
  targets = flip([[1, 0, 0], [0, 1, 1]])
  expected = [
    [[1.0, -1.0], [-1.0, -20.0], [-1.0, 1.0]],
    [[-1.0, 2.0], [10.0, 1.0], [0.5, -1.0]],
  ]
  np.testing.assert_array_equal(targets, expected)
  # The second comes in the place of the first.
  conflicts = jnp.array([[False, True], [True, False]])
  expected = [[[1.0, -1.0], [-1.0, 1.0], [0.5, -1.0]]]
  np.testing.assert_array_equal(flip([[1, 1, 1]], conflicts), expected)


@ALONG_SWAPS
def test_changes_of_several_swaps_are_those_of_each(name):
  targets = CODE.factors[np.stack([PERMUTATION, PERMUTATION[::-1]])]
  compute = jax.jit(
    lambda targets: jacobian.compute(STUDENT, CODE, targets, form=name)
  )
  together = compute(targets)
  for change, target in zip(together.changes, targets):
    alone = compute(target[None])
    np.testing.assert_allclose(change, alone.changes[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(together.images, alone.images, rtol=1e-5)


def test_joint_secant_is_the_secant():
  targets = _random(1, 2, 4, 2)
  secant = functools.partial(jacobian.secant, STUDENT, CODE, targets)
  plain = secant()
  chex.assert_trees_all_close(plain, secant(joint=True), atol=1e-6)
  chex.assert_trees_all_equal(plain, secant(images=plain.images))


@ALL
def test_gradient_of_the_teacher_is_exactly_zero(name):
  @functools.partial(jax.grad, argnums=(0, 1, 2, 3))
  def gradient(student_kernel, teacher_kernel, student_code, teacher_code):
    student = functools.partial(_curved, student_kernel)
    teacher = functools.partial(_curved, teacher_kernel)
    args = (student, student_code, teacher, teacher_code, PERMUTATION)
    return jnp.sum(LOSSES[name](*args))

  grads = jax.jit(gradient)(KERNEL, OTHER_KERNEL, CODE, OTHER_CODE)
  for grad in jax.tree.leaves((grads[1], grads[3])):
    np.testing.assert_array_equal(grad, np.zeros(grad.shape))
  for grad in jax.tree.leaves((grads[0], grads[2])):
    assert np.all(np.any(np.abs(grad) > 1e-4, axis=-1))


@ALL
def test_gradient_of_the_student_agrees_with_differences(name):
  # By the factors too: both sides of a swap are differentiated.
  @jax.jit
  def total(kernel, factors):
    student = functools.partial(_curved, kernel)
    args = (student, CODE._replace(factors=factors), TEACHER, OTHER_CODE)
    return jnp.sum(LOSSES[name](*args, PERMUTATION))

  # Central differences of float32 are good to about three digits.
  chex.assert_numerical_grads(
    total, (KERNEL, CODE.factors), order=1, atol=1e-2, rtol=1e-2
  )


def test_secant_of_linear_decoders_is_their_jacobians_difference():
  student = functools.partial(_linear, KERNEL)
  teacher = functools.partial(_linear, OTHER_KERNEL)
  loss = jacobian.secant_loss(student, CODE, teacher, CODE, PERMUTATION)
  difference = _factor_jacobian(teacher, CODE) - _factor_jacobian(student, CODE)
  direction = CODE.factors[PERMUTATION] - CODE.factors
  change = np.einsum('bpk,bk->bp', difference, direction)
  # Rounding of float32.
  np.testing.assert_allclose(loss, np.mean(change**2, axis=1), rtol=1e-4)


def test_secant_is_zero_where_the_jacobians_of_the_factors_agree():
  student = functools.partial(_linear, KERNEL)
  # Another effect of the nuisance, the same of the two factors.
  other = np.concatenate([KERNEL[:2], OTHER_KERNEL[2:]])
  against = lambda kernel: jacobian.secant_loss(
    student, CODE, functools.partial(_linear, kernel), CODE, PERMUTATION
  )
  # Differences of images of size 1 in float32, squared.
  np.testing.assert_allclose(against(other), np.zeros(4), atol=1e-11)
  # Another effect of one factor.
  other[0, 0] += 0.1
  assert np.all(against(other) > 1e-5)


@ALONG_SWAPS
def test_identity_permutation_gives_exactly_zero(name):
  args = (STUDENT, CODE, TEACHER, OTHER_CODE, np.arange(4))
  np.testing.assert_array_equal(LOSSES[name](*args), np.zeros(4))


def test_tangent_is_the_limit_of_the_secant():
  # Swaps that shrink: their difference shrinks as their size does.
  sizes = 0.1 * 0.5 ** np.arange(6)
  with jax.enable_x64(True):
    kernels = np.random.default_rng(0).normal(size=(2, 5, 6))
    student = functools.partial(_curved, 0.3 * kernels[0])
    teacher = functools.partial(_curved, 0.3 * kernels[1])
    base, direction, nuisance = np.random.default_rng(1).normal(size=(3, 1, 3))

    @jax.jit
    @jax.vmap
    def gap(size):
      factors = jnp.concatenate([base, base + size * direction])[:, :2]
      code = codes.Code(factors, jnp.tile(nuisance, (2, 1)))
      args = (student, code, teacher, code, jnp.array([1, 0]))
      difference = jacobian.secant_loss(*args) - jacobian.tangent_loss(*args)
      # Of a swap of size 1.
      return jnp.mean(jnp.abs(difference)) / size**2

    gaps = gap(sizes)
    assert gaps.dtype == jnp.float64
  # A slope of 1 in the logarithms, up to terms of the second order.
  slopes = np.diff(np.log(gaps)) / np.diff(np.log(sizes))
  np.testing.assert_allclose(slopes, 1.0, atol=0.1)
  np.testing.assert_allclose(slopes[-1], 1.0, atol=0.01)


def test_path_converges_to_the_secant():
  with jax.enable_x64(True):
    draw = np.random.default_rng(0).normal
    student, teacher = (
      functools.partial(_curved, 0.3 * draw(size=(5, 6))) for _ in range(2)
    )
    code = codes.Code(draw(size=(4, 2)), draw(size=(4, 3)))

    @jax.jit
    def gaps(code):
      args = (student, code, teacher, code, PERMUTATION)
      paths = [
        jacobian.path_loss(*args, nodes=nodes) for nodes in (1, 2, 4, 8, 16)
      ]
      ratios = jnp.stack(paths) / jacobian.secant_loss(*args)[None]
      return jnp.max(jnp.abs(ratios - 1), axis=1)

    gaps = np.asarray(gaps(code))
  # Gauss-Legendre converges geometrically on a smooth decoder.
  assert all(b < 0.3 * a for a, b in zip(gaps, gaps[1:]))
  assert gaps[0] > 1e-2 and gaps[-1] < 1e-9


def test_full_is_the_mean_of_tangents_along_normal_directions():
  full = jacobian.full_loss(STUDENT, CODE, TEACHER, CODE)
  count = 20_000

  @jax.jit
  @jax.vmap
  def along(direction):
    target = CODE.factors + direction
    return losses.jacobian_loss(
      jacobian.tangent(STUDENT, CODE, target[None]).changes,
      jacobian.tangent(TEACHER, CODE, target[None]).changes,
    )

  found = along(_random(7, count, 4, 2))
  # Of the mean of as many: 4 of its standard errors.
  error = 4 * np.std(found, axis=0) / np.sqrt(count)
  assert np.all(np.abs(np.mean(found, axis=0) - full) < error)
  assert np.all(error < 0.1 * full)


@ALONG_SWAPS
def test_loss_over_an_axis_is_that_of_the_whole_batch(name):
  args = (CODE, OTHER_CODE, PERMUTATION)
  loss = lambda s, t, p, *axis: LOSSES[name](STUDENT, s, TEACHER, t, p, *axis)
  spread = jax.vmap(lambda *args: loss(*args, 'shards'), axis_name='shards')
  shards = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), args)
  np.testing.assert_allclose(
    jax.jit(spread)(*shards).reshape(4), jax.jit(loss)(*args), rtol=1e-5
  )
