"""Tests of jacsup_jax.models.latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders
from jacsup_jax.models import latents
from jacsup_jax.models import model as models

SIZES = {'num_factors': 2, 'nuisance_dim': 3}
MODULES = [
  latents.UnorderedAutoencoder(**SIZES, image_shape=(4, 4, 1), widths=(6,)),
  latents.UnorderedAutoencoder(
    **SIZES, image_shape=(8, 8, 3), widths=(4, 6), is_convolutional=True
  ),
]
OURS = [
  autoencoders.MlpAutoencoder(**SIZES, image_shape=(4, 4, 1), widths=(6,)),
  autoencoders.SvhnAutoencoder(
    **SIZES, image_shape=(8, 8, 3), widths=(4, 6), linear_code=True
  ),
]


@pytest.mark.parametrize(('module', 'own'), [*zip(MODULES, OURS)])
def test_networks_are_those_of_our_autoencoders(module, own):
  variables = autoencoders.init_variables(module, 0)
  model = models.Model(module, **variables)
  images = jax.random.uniform(jax.random.key(0), (3, *module.image_shape))
  # Our module applies the rival's parameters, to the same result.
  theirs = models.Model(own, variables['params'])
  code = jax.jit(models.Model.encode)(model, images)
  expected = jax.jit(models.Model.encode)(theirs, images)
  np.testing.assert_allclose(code.factors, expected.factors, rtol=1e-6)
  np.testing.assert_allclose(
    jax.jit(models.Model.decode)(model, code),
    jax.jit(models.Model.decode)(theirs, expected),
    rtol=1e-5,
    atol=1e-6,
  )


def test_choosing_factors_reorders_units_and_keeps_images():
  module = MODULES[0]
  model = models.Model(module, **autoencoders.init_variables(module, 0))
  images = jax.random.uniform(jax.random.key(0), (3, 4, 4, 1))
  before = codes.merge(model.encode(images))
  chosen = latents.choose_factors(model, (3, 1))
  code = chosen.encode(images)
  np.testing.assert_array_equal(code.factors, before[:, jnp.array([3, 1])])
  rest = before[:, jnp.array([0, 2, 4])]
  np.testing.assert_array_equal(code.nuisance, rest)
  np.testing.assert_array_equal(
    chosen.decode(code), model.decode(model.encode(images))
  )
  # Units are counted in the order of training, whatever was chosen before.
  again = latents.choose_factors(chosen, (0, 1))
  np.testing.assert_array_equal(codes.merge(again.encode(images)), before)
  # The program is the same: the module has not changed.
  assert chosen.module is module and chosen.params is model.params


def test_groups_of_units_and_description():
  groups = MODULES[0].unit_groups()
  assert len(groups) == 10 and groups[0] == (0, 1) and groups[-1] == (3, 4)
  described = models.describe_module(MODULES[1])
  assert described['is_convolutional'] is True
  assert 'order' not in described
  side_by_side = MODULES[1].make_encoder(7, images=3)
  assert side_by_side.image_shape == (8, 8, 9)


@pytest.mark.parametrize('units', [(0, 5), (1, 1), (0,), (-1, 2), (0, 1, 2)])
def test_units_that_a_code_lacks_are_refused(units):
  module = MODULES[0]
  model = models.Model(module, {}, {'order': jnp.arange(5)})
  with pytest.raises(errors.InputError, match='2 different ones from 0 to 4'):
    latents.choose_factors(model, units)
