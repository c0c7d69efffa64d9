"""Tests of jacsup_jax.models.checkers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.models import checkers
from jacsup_jax.models import model as models

NAMES = [*checkers.CHECKERS]


def _init(name, shape=(28, 28, 1), **fields):
  module = checkers.CHECKERS[name](3, **fields)
  init = jax.jit(module.init)
  return module, init(jax.random.key(0), jnp.zeros((1, *shape)))


@pytest.mark.parametrize(
  ('name', 'shape'),
  [('patches', (8, 16, 3)), ('patches', (28, 28, 1)), ('mixer', (8, 16, 3))],
)
def test_images_become_factors(name, shape):
  module, variables = _init(name, shape)
  images = jax.random.uniform(jax.random.key(1), (2, *shape))
  sum_of = lambda x: (jnp.sum(factors := module.apply(variables, x)), factors)
  change, factors = jax.jit(jax.grad(sum_of, has_aux=True))(images)
  assert factors.shape == (2, 3) and factors.dtype == jnp.float32
  assert set(variables) == {'params'}
  # All of the image counts.
  assert np.mean(np.any(change != 0, axis=(0, -1))) > 0.9


def test_products_may_be_of_another_type():
  module, variables = _init('mixer', (8, 8, 1), dtype=jnp.bfloat16)
  assert module.apply(variables, jnp.ones((1, 8, 8, 1))).dtype == jnp.float32
  kernel = variables['params']['Dense_0']['kernel']
  assert kernel.dtype == jnp.float32


@pytest.mark.parametrize('name', NAMES)
def test_a_description_makes_the_module_again(name):
  module = checkers.CHECKERS[name](3, dtype=jnp.bfloat16)
  assert models.make_module(models.describe_module(module)) == module


def test_a_bag_of_patches_ignores_where_they_are():
  module, variables = _init('patches')
  image = np.zeros((1, 28, 28, 1), np.float32)
  image[:, 8:16, 8:16] = np.random.default_rng(0).uniform(size=(1, 8, 8, 1))
  # By a patch, and by half of one.
  moved, between = np.roll(image, (4, 8), (1, 2)), np.roll(image, 2, 1)
  expected = module.apply(variables, image)
  np.testing.assert_allclose(
    module.apply(variables, moved), expected, rtol=1e-4, atol=1e-6
  )
  assert not np.allclose(module.apply(variables, between), expected, rtol=1e-2)
  other, own = _init('mixer')
  assert not np.allclose(
    other.apply(own, image), other.apply(own, moved), rtol=1e-2
  )
