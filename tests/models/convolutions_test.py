"""Tests of convolutions and their forms; layers_test compares with PyTorch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.models import convolutions
from jacsup_jax.models import residual

# Batch, height, width, channels in and out; factors of `up`. Maps that the CPU
# computes as products, and two that it does not.
MAPS = [
  (3, 2, 2, 4, 3, 2),
  (1, 4, 6, 3, 5, 1),
  (2, 10, 12, 3, 5, 2),
  (2, 10, 10, 6, 5, 2),
]
# Name: operands among x, y and the kernel k, and forms, which are compared with
# the first.
FORMS = {
  'down': (
    'xk',
    convolutions.down_natively,
    convolutions.down_by_products,
    convolutions.down_by_blocks,
  ),
  'adjoint': (
    'yk',
    convolutions.adjoint_natively,
    convolutions.adjoint_by_products,
    convolutions.adjoint_by_blocks,
  ),
  'kernel_gradient': (
    'xy',
    convolutions.kernel_gradient_natively,
    convolutions.kernel_gradient_by_products,
    convolutions.kernel_gradient_transposed,
  ),
}
reverse = convolutions.reverse_kernel


def _random(*shape):
  random = np.random.default_rng(len(shape) + shape[-1])
  return random.normal(size=shape).astype(np.float32)


def _draw(sizes):
  """Returns maps before and after the way down, and its kernel."""
  batch, height, width, channels, features, _ = sizes
  return {
    'x': _random(batch, height, width, channels),
    'y': _random(batch, height // 2, width // 2, features),
    'k': _random(4, 4, channels, features),
  }


def _up_by_channels(x, factors, kernel):
  """Computes `up` of a map and of constant channels that are made."""
  shape = (*x.shape[:3], factors.shape[-1])
  maps = jnp.broadcast_to(factors[:, jnp.newaxis, jnp.newaxis], shape)
  return convolutions.adjoint_natively(
    jnp.concatenate([x, maps], -1), kernel, reverse=True
  )


def test_other_shapes_raise():
  with pytest.raises(AssertionError):
    convolutions.down(jnp.zeros((1, 3, 4, 2)), jnp.zeros((4, 4, 2, 1)))
  with pytest.raises(AssertionError):
    convolutions.up(jnp.zeros((1, 2, 2, 3)), jnp.zeros((4, 4, 2, 1)))
  with pytest.raises(AssertionError):
    convolutions.up_constants(jnp.zeros((1, 3)), jnp.zeros((4, 4, 2, 1)), 2, 2)


def test_reversing_a_kernel_twice_gives_it_back():
  kernel = np.arange(16.0 * 6).reshape(4, 4, 3, 2)
  assert reverse(kernel).shape == (4, 4, 2, 3)
  np.testing.assert_array_equal(reverse(kernel)[3, 0, 1, 2], kernel[0, 3, 2, 1])
  np.testing.assert_array_equal(reverse(reverse(kernel)), kernel)


@pytest.mark.parametrize(
  'sizes',
  [
    pytest.param(MAPS[1], id='small', marks=pytest.mark.slow),
    pytest.param((1, 10, 10, 2, 3, 0), id='large'),
  ],
)
def test_derivatives_of_second_order_are_those_of_lax(sizes):
  maps = _draw(sizes)
  args = (maps['x'], maps['k'])

  def compose(down, up, x, kernel):
    return jnp.tanh(up(jnp.tanh(down(x, kernel)), reverse(kernel)))

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def differentiate(down, up, args):
    total = lambda args: jnp.sum(jnp.sin(compose(down, up, *args)))
    gradient = jax.grad(total)
    # Forward and backward over backward.
    forward = jax.jvp(gradient, (args,), (args,))
    return forward, jax.vjp(gradient, args)[1](args)

  up = functools.partial(convolutions.adjoint_natively, reverse=True)
  # Sums of some hundred products in another order.
  chex.assert_trees_all_close(
    differentiate(convolutions.down, convolutions.up, args),
    differentiate(convolutions.down_natively, up, args),
    rtol=1e-3,
    atol=1e-3,
  )


def test_gradients_of_3x3_convolutions_are_those_of_lax():
  x, kernel, y = _random(2, 4, 6, 3), _random(3, 3, 3, 5), _random(2, 4, 6, 5)

  def natively(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  found, wanted = (
    jax.jit(lambda y, f=f: jax.vjp(f, x, kernel)[1](y))(y)
    for f in (residual.same, natively)
  )
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_keep_is_the_identity_and_so_is_its_derivative():
  x = jnp.array([-1.5, 0.0, 1e30, 3e-30])
  for keep in (convolutions.keep, jax.jit(convolutions.keep)):
    np.testing.assert_array_equal(keep(x), x)
    out, tangent = jax.jvp(lambda x: jnp.sin(keep(x)), (x,), (jnp.ones(4),))
    np.testing.assert_allclose(out, jnp.sin(x), rtol=1e-6)
    np.testing.assert_allclose(tangent, jnp.cos(x), rtol=1e-5)
  np.testing.assert_array_equal(
    jax.vmap(convolutions.keep)(x[:, jnp.newaxis]), x[:, jnp.newaxis]
  )


@pytest.mark.parametrize('operands_and_forms', FORMS.values(), ids=FORMS.keys())
def test_forms_agree(operands_and_forms):
  operands, *compiled = operands_and_forms
  maps = _draw(MAPS[1])
  args = [maps[name] for name in operands]

  @jax.jit
  def both_orders(*args):
    if operands == 'xy':
      back = lambda form: reverse(form(*args, reverse=True))
    else:
      back = lambda form: form(args[0], reverse(args[1]), reverse=True)
    return [(form(*args), back(form)) for form in compiled]

  (expected, _), *_ = results = both_orders(*args)
  for found in jax.tree.leaves(results):
    # Sums of up to 200 products in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('sizes', [MAPS[0], MAPS[2]])
def test_three_derivatives_are_of_one_form(sizes):
  maps = _draw(sizes)

  @jax.jit
  def products(x, y, k):
    # <down(x), y> = <x, up(y)>, with in and out exchanged, and reversed.
    return (
      jnp.sum(convolutions.down(x, k) * y),
      jnp.sum(x * convolutions.up(y, reverse(k))),
      jnp.sum(convolutions.kernel_gradient_natively(x, y) * k),
    )

  total, *others = products(**maps)
  np.testing.assert_allclose(others, [total] * 2, rtol=1e-3)


@pytest.mark.parametrize('sizes', [MAPS[0], MAPS[2]])
def test_constants_equal_constant_channels(sizes):
  batch, height, width, channels, features, num_factors = sizes
  x = _random(batch, height, width, channels)
  factors = _random(batch, num_factors)
  kernel = _random(4, 4, channels + num_factors, features)

  def by_constants(x, factors, kernel):
    constants = convolutions.up_constants(
      factors, kernel[:, :, channels:], height, width
    )
    return convolutions.up(x, kernel[:, :, :channels]) + constants

  @jax.jit
  def values_and_gradients(*args):
    found = []
    for form in (by_constants, convolutions.up_with_constants, _up_by_channels):
      out, vjp = jax.vjp(form, *args)
      # The cotangent differs at every position.
      found.append((out, vjp(jnp.cos(out))))
    return found

  *found, expected = values_and_gradients(x, factors, kernel)
  for values in found:
    # Gradients sum over all positions.
    chex.assert_trees_all_close(values, expected, rtol=1e-4, atol=1e-3)


def test_mapped_convolutions_are_those_of_each():
  maps = _draw(MAPS[1])
  x, kernel = maps['x'], maps['k']
  expected = convolutions.down(x, kernel)
  expected = np.stack([expected, 2 * expected])
  # Several kernels; and examples that are mapped over, a larger batch.
  for axes, *args in (
    ((None, 0), x, np.stack([kernel, 2 * kernel])),
    ((1, None), np.stack([x, 2 * x], 1), kernel),
  ):
    found = jax.vmap(convolutions.down, axes)(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('sizes', [MAPS[0], MAPS[3]], ids=['small', 'large'])
@pytest.mark.parametrize('name', ['down', 'up'])
def test_platform_chooses_the_form(name, sizes):
  maps = _draw(sizes)
  operands = (maps['x'], maps['k'])
  if name == 'up':
    operands = (maps['y'], reverse(maps['k']))
  step = jax.grad(
    lambda *args: jnp.sum(jnp.cos(getattr(convolutions, name)(*args))),
    argnums=(0, 1),
  )
  traced = jax.jit(step).trace(*operands)
  for platform in ('cpu', 'cuda', 'rocm', 'tpu'):
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    # Only the CPU computes small maps as products.
    as_products = platform == 'cpu' and sizes == MAPS[0]
    assert ('stablehlo.dot_general' in program) == as_products
    assert ('stablehlo.convolution' in program) != as_products
