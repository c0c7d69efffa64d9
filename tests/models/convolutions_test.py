"""Tests of convolutions and their forms; layers_test compares with PyTorch."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from jacsup_jax.models import convolution_forms as forms
from jacsup_jax.models import convolutions

# Batch, height, width, channels in and out; factors of `up`. Maps that the CPU
# computes as products, and two that it does not.
MAPS = [
  (3, 2, 2, 4, 3, 2),
  (1, 4, 6, 3, 5, 1),
  (5, 6, 2, 1, 2, 3),
  (2, 10, 12, 3, 5, 2),
  (2, 10, 10, 6, 5, 2),
]
# Name: operands among x, y and the kernel k, and forms, which are compared with
# the first.
FORMS = {
  'down': (
    'xk',
    forms.down_natively,
    forms.down_by_products,
    forms.down_by_blocks,
  ),
  'adjoint': (
    'yk',
    forms.adjoint_natively,
    forms.adjoint_by_products,
    forms.adjoint_by_blocks,
  ),
  'kernel_gradient': (
    'xy',
    forms.kernel_gradient_natively,
    forms.kernel_gradient_by_products,
    forms.kernel_gradient_transposed,
  ),
}


def _draw(sizes):
  """Returns maps before and after the way down, and its kernel."""
  batch, height, width, channels, features, _ = sizes
  keys = jax.random.split(jax.random.key(0), 3)
  return {
    'x': jax.random.normal(keys[0], (batch, height, width, channels)),
    'y': jax.random.normal(keys[1], (batch, height // 2, width // 2, features)),
    'k': jax.random.normal(keys[2], (4, 4, channels, features)),
  }


# Values.


def test_other_shapes_raise():
  with pytest.raises(AssertionError):
    convolutions.down(jnp.zeros((1, 3, 4, 2)), jnp.zeros((4, 4, 2, 1)))
  with pytest.raises(AssertionError):
    convolutions.up(jnp.zeros((1, 2, 2, 3)), jnp.zeros((4, 4, 2, 1)))
  with pytest.raises(AssertionError):
    convolutions.up_constants(jnp.zeros((1, 3)), jnp.zeros((4, 4, 2, 1)), 2, 2)
  with pytest.raises(AssertionError):
    convolutions.convolve(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 2, 1)))


def test_reversing_a_kernel_twice_gives_it_back():
  kernel = _draw(MAPS[0])['k']
  reverse = forms.reverse_kernel
  assert reverse(kernel).shape == (4, 4, 3, 4)
  np.testing.assert_array_equal(reverse(kernel)[3, 0, 2, 1], kernel[0, 3, 1, 2])
  np.testing.assert_array_equal(reverse(reverse(kernel)), kernel)


def test_types_are_kept():
  maps = {n: a.astype(jnp.bfloat16) for n, a in _draw(MAPS[0]).items()}
  assert convolutions.down(maps['x'], maps['k']).dtype == jnp.bfloat16
  kernel = forms.reverse_kernel(maps['k'])
  assert convolutions.up(maps['y'], kernel).dtype == jnp.bfloat16
  constants = convolutions.up_constants(maps['y'][:, 0, 0], kernel, 2, 2)
  assert constants.dtype == jnp.bfloat16


# Gradients.


@pytest.mark.parametrize(
  'sizes',
  [
    pytest.param(MAPS[1], id='small', marks=pytest.mark.slow),
    pytest.param(MAPS[4], id='large'),
  ],
)
def test_derivatives_of_all_orders(sizes):
  maps = _draw(sizes)
  kernel = forms.reverse_kernel(maps['k'])
  factors = maps['y'][:, 0, 0]
  shape = maps['y'].shape[1:3]
  # Trilinear in what they are differentiated by: differences are exact but for
  # rounding, which float32 leaves three digits of.
  check = lambda f, args: check_grads(
    jax.jit(f), args, order=2, rtol=2e-2, atol=2e-2
  )
  check(lambda x, k: jnp.tanh(convolutions.down(x, k)), (maps['x'], maps['k']))
  check(lambda y, k: jnp.tanh(convolutions.up(y, k)), (maps['y'], kernel))
  check(
    lambda f, k: jnp.tanh(convolutions.up_constants(f, k, *shape)),
    (factors, kernel),
  )


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


# Invariants.


@pytest.mark.parametrize('sizes', [MAPS[1], MAPS[4]])
@pytest.mark.parametrize('operands_and_forms', FORMS.values(), ids=FORMS.keys())
def test_forms_agree(operands_and_forms, sizes):
  operands, *compiled = operands_and_forms
  natively, *others = [
    jax.jit(form, static_argnames='reverse') for form in compiled
  ]
  maps = _draw(sizes)
  args = [maps[name] for name in operands]
  expected = natively(*args)
  reverse = forms.reverse_kernel
  for form in (natively, *others):
    # Sums of up to 200 products in another order.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    close(form(*args), expected)
    if operands == 'xy':
      close(reverse(form(*args, reverse=True)), expected)
    else:
      close(form(args[0], reverse(args[1]), reverse=True), expected)


@pytest.mark.parametrize('sizes', [MAPS[0], MAPS[3]])
def test_three_derivatives_are_of_one_form(sizes):
  maps = _draw(sizes)
  x, y, kernel = maps['x'], maps['y'], maps['k']
  total = jnp.sum(convolutions.down(x, kernel) * y)
  # <down(x), y> = <x, up(y)>, with in and out exchanged, and reversed.
  up = convolutions.up(y, forms.reverse_kernel(kernel))
  np.testing.assert_allclose(jnp.sum(x * up), total, rtol=1e-3)
  gradient = forms.kernel_gradient_natively(x, y)
  np.testing.assert_allclose(jnp.sum(gradient * kernel), total, rtol=1e-3)


@pytest.mark.parametrize('sizes', [MAPS[0], MAPS[1], MAPS[3]])
def test_constants_equal_constant_channels(sizes):
  batch, height, width, channels, features, num_factors = sizes
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (batch, height, width, channels))
  factors = jax.random.normal(keys[1], (batch, num_factors))
  kernel = jax.random.normal(keys[2], (4, 4, channels + num_factors, features))

  def by_channels(x, factors, kernel):
    shape = (batch, height, width, num_factors)
    maps = jnp.broadcast_to(factors[:, jnp.newaxis, jnp.newaxis], shape)
    return forms.adjoint_natively(
      jnp.concatenate([x, maps], -1), kernel, reverse=True
    )

  def by_constants(x, factors, kernel):
    constants = convolutions.up_constants(
      factors, kernel[:, :, channels:], height, width
    )
    return convolutions.up(x, kernel[:, :, :channels]) + constants

  @functools.partial(jax.jit, static_argnums=0)
  def value_and_gradients(form, *args):
    out, vjp = jax.vjp(form, *args)
    # The cotangent differs at every position.
    return out, vjp(jnp.cos(out))

  expected = value_and_gradients(by_channels, x, factors, kernel)
  for form in (convolutions.up_with_constants, by_constants):
    # Gradients sum over all positions.
    chex.assert_trees_all_close(
      value_and_gradients(form, x, factors, kernel),
      expected,
      rtol=1e-4,
      atol=1e-3,
    )


def test_mapped_convolutions_are_those_of_each():
  maps = _draw(MAPS[1])
  x, kernel = maps['x'], maps['k']
  kernels = jnp.stack([kernel, 2 * kernel])
  expected = convolutions.down(x, kernel)
  np.testing.assert_allclose(
    jax.vmap(convolutions.down, (None, 0))(x, kernels),
    jnp.stack([expected, 2 * expected]),
    rtol=1e-5,
    atol=1e-5,
  )
  # Examples that are mapped over are a larger batch.
  maps = jnp.stack([x, 2 * x], 1)
  np.testing.assert_allclose(
    jax.vmap(convolutions.down, (1, None))(maps, kernel),
    jnp.stack([expected, 2 * expected]),
    rtol=1e-5,
    atol=1e-5,
  )
  constants = jax.vmap(
    lambda f: convolutions.up_constants(f[jnp.newaxis], kernel, 2, 3)[0]
  )
  factors = jnp.arange(6.0).reshape(2, 3)
  np.testing.assert_allclose(
    constants(factors),
    convolutions.up_constants(factors, kernel, 2, 3),
    rtol=1e-5,
  )


@pytest.mark.parametrize('sizes', [MAPS[0], MAPS[4]], ids=['small', 'large'])
@pytest.mark.parametrize('name', ['down', 'up'])
@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'rocm', 'tpu'])
def test_platform_chooses_the_form(name, platform, sizes):
  maps = _draw(sizes)
  operands = (maps['x'], maps['k'])
  if name == 'up':
    operands = (maps['y'], forms.reverse_kernel(maps['k']))
  step = jax.grad(
    lambda *args: jnp.sum(jnp.cos(getattr(convolutions, name)(*args))),
    argnums=(0, 1),
  )
  traced = jax.jit(step).trace(*operands)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  # Only the CPU computes small maps as products.
  as_products = platform == 'cpu' and sizes == MAPS[0]
  assert ('stablehlo.dot_general' in program) == as_products
  assert ('stablehlo.convolution' in program) != as_products
