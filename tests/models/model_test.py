"""Tests of bound models and of modules described as JSON."""

import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.models import model as models

MODULES = [
  autoencoders.MlpAutoencoder(2, 1, True, (4, 4, 1), (8, 6)),
  autoencoders.SvhnAutoencoder(2, 1, image_shape=(8, 8, 3), widths=(3, 4)),
  autoencoders.FaceAutoencoder(2, 3, 8, 4, 6, dtype=jnp.bfloat16),
]
JUDGES = [
  classifiers.MlpJudge(10, (8,), 0.1, (4, 4, 1)),
  classifiers.AttributeJudge(5, 16, 4, 8, 6),
  classifiers.ResidualAttributeJudge(5, 16, 4, 8),
]


def _bind(module, seed=0):
  return models.Model(module, **autoencoders.init_variables(module, seed))


@jax.jit
def _encode(model, images):
  return model.encode(images)


@pytest.mark.parametrize('module', MODULES, ids=lambda m: type(m).__name__)
def test_model_applies_its_module(module):
  model = _bind(module)
  shape = (3, *module.image_shape)
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  code = _encode(model, images)
  assert code.factors.shape == (3, 2)
  low, high = model.image_range
  floats = low + (high - low) * images.astype(np.float64) / 255
  expected = jax.jit(lambda v, x: module.apply(v, x, method='encode'))(
    model.variables, floats.astype(np.float32)
  )
  # bfloat16 may round an image the other way.
  tolerance = 1e-5 if module.dtype is jnp.float32 else 2e-2
  for found, value in zip(code, expected):
    np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance)
  decoded = jax.jit(lambda model, code: model.decode(code))(model, code)
  assert decoded.shape == images.shape
  assert model.image_shape == module.image_shape
  assert (model.num_factors, model.nuisance_dim) == (2, module.nuisance_dim)


@pytest.mark.parametrize('low', [0, -1])
def test_bytes_become_floats_of_the_range(low):
  images = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
  floats = models.to_range(images, (low, 1))
  assert floats.dtype == jnp.float32
  expected = [low, low + (1 - low) / 5, 1]
  np.testing.assert_allclose(np.ravel(floats), expected, rtol=1e-6)
  np.testing.assert_array_equal(models.to_range(floats, (low, 1)), floats)
  with pytest.raises(errors.InputError, match='images are int32; accepted'):
    models.to_range(jnp.zeros((1, 2, 2, 1), jnp.int32), (low, 1))


def test_models_of_one_module_share_a_program():
  traced = []

  @jax.jit
  def reconstruct(model, images):
    traced.append(1)
    return model.decode(model.encode(images))

  first, second = _bind(MODULES[0], 0), _bind(MODULES[0].clone(), 1)
  images = np.zeros((1, 4, 4, 1), np.uint8)
  outputs = [reconstruct(model, images) for model in (first, second)]
  assert len(traced) == 1
  assert not np.array_equal(*outputs)


def test_labels_are_factors_where_the_module_says_so():
  labels = np.array([[1.0, -1.0]], np.float32)
  fake = types.SimpleNamespace(
    image_range=(0.0, 1.0),
    factors_are_labels=True,
    apply=lambda variables, images, labels, method: codes.Code(labels, images),
  )
  images = jnp.ones((1, 4, 4, 1))
  model = models.Model(fake, {})
  np.testing.assert_array_equal(model.encode(images, labels).factors, labels)
  with pytest.raises(ValueError, match='without attributes'):
    model.encode(images)
  # Others predict them, whatever the labels are.
  other = _bind(MODULES[0])
  # Programs round differently.
  chex.assert_trees_all_close(
    _encode(other, images), other.encode(images, labels), atol=1e-5
  )


@pytest.mark.parametrize(
  'module', MODULES + JUDGES, ids=lambda m: type(m).__name__
)
def test_descriptions_give_the_module_back(module):
  text = json.dumps(models.describe_module(module))
  made = models.make_module(json.loads(text))
  # Equal hashes share compiled programs.
  assert (made, hash(made)) == (module, hash(module))
  spread = module.clone(
    **({'axis_name': 'devices'} if hasattr(module, 'axis_name') else {})
  )
  assert models.describe_module(spread) == json.loads(text)


_DIGITS = {'name': 'MlpAutoencoder', 'num_factors': 2, 'nuisance_dim': 1}
_JUDGE = {'name': 'MlpJudge', 'num_classes': 2}


def test_missing_fields_have_their_defaults():
  made = models.make_module(_DIGITS)
  assert made == autoencoders.MlpAutoencoder(2, 1)


@pytest.mark.parametrize(
  'description',
  [
    [],
    {'name': 'os.system'},
    {'name': 'MlpJudge'},
    _JUDGE | {'x': 1},
    _JUDGE | {'num_classes': 10**9},
    _JUDGE | {'dropout_rate': 'high'},
    _DIGITS | {'dtype': 'nothing'},
    _DIGITS | {'normalize_code': 1},
    {'name': 'AttributeJudge', 'num_attributes': 2, 'image_size': 12},
  ],
)
def test_nonsense_is_one_line(description):
  with pytest.raises(errors.InputError) as caught:
    models.make_module(description)
  assert 'accepted' in str(caught.value) and '\n' not in str(caught.value)
