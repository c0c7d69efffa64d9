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
  variables = module.init(jax.random.key(0), jnp.zeros((1, *shape)))
  return module, variables


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 16, 3)])
def test_images_become_factors(name, shape):
  module, variables = _init(name, shape, dtype=jnp.bfloat16)
  images = jax.random.uniform(jax.random.key(1), (2, *shape))
  factors = module.apply(variables, images)
  assert factors.shape == (2, 3) and factors.dtype == jnp.float32
  assert set(variables) == {'params'}
  np.testing.assert_array_equal(
    factors[:1], module.apply(variables, images[:1])
  )
  # All of the image counts.
  change = jax.grad(lambda x: jnp.sum(module.apply(variables, x)))(images)
  assert np.mean(np.any(change != 0, axis=(0, -1))) > 0.9


@pytest.mark.parametrize('name', NAMES)
def test_a_description_makes_the_module_again(name):
  module, _ = _init(name)
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
  for name in ('strided', 'mixer'):
    other, own = _init(name)
    assert not np.allclose(
      other.apply(own, image), other.apply(own, moved), rtol=1e-2
    )
