"""Layouts of the released networks.

`released_modules.npz` has small networks with random weights and what PyTorch
computes with them, by released_modules.py of commit 6a6948a.
"""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.interop import released
from jacsup_jax.interop import state_dicts
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.models import model as models

STORED = np.load(pathlib.Path(__file__).with_name('released_modules.npz'))
AUTOENCODERS = ('mnist_teacher', 'mnist_student', 'celeba')
KINDS = (*AUTOENCODERS, 'mnist_judge')
_DIGITS = {'image_shape': (4, 4, 1), 'widths': (8, 6, 4)}
MODULES = {
  'mnist_teacher': autoencoders.MlpAutoencoder(
    2, 0, normalize_code=True, **_DIGITS
  ),
  'mnist_student': autoencoders.MlpAutoencoder(2, 3, **_DIGITS),
  'mnist_judge': classifiers.MlpJudge(4, (6, 5), image_shape=(4, 4, 1)),
  'celeba': autoencoders.FaceAutoencoder(
    3, 5, image_size=16, first_width=4, last_width=8
  ),
}
# Sums of some hundred float32 products in another order.
_TOLERANCE = 1e-5


def stored(kind):
  """Returns a state dict, and what its network makes of images."""
  state, measured = {}, {}
  for name in STORED.files:
    if name.startswith(f'{kind}/'):
      _, first, *rest = name.split('/')
      (state if rest else measured)[rest[0] if rest else first] = STORED[name]
  return state, measured


def convert(kind, **changes):
  """Converts a stored state dict, of which entries may be changed."""
  state, measured = stored(kind)
  return released.from_state_dict('it', state | changes), measured


def as_model(converted):
  variables = converted.variables
  return models.Model(
    converted.module, variables['params'], variables['batch_stats']
  )


def channels_last(x):
  return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def equal_bits(found, expected):
  assert list(found) == list(expected)
  chex.assert_trees_all_equal(found, expected, strict=True)


_encode = jax.jit(lambda model, images: model.encode(images))
_decode = jax.jit(lambda model, code: model.decode(code))


@pytest.mark.parametrize('kind', AUTOENCODERS)
def test_outputs_are_pytorchs(kind):
  converted, measured = convert(kind)
  assert converted.module == MODULES[kind]
  assert converted.steps == (0 if kind == 'mnist_student' else 77)
  model = as_model(converted)
  code = _encode(model, jnp.asarray(channels_last(measured['images'])))
  outputs = _decode(model, code)
  nuisance = channels_last(measured['nuisance'])
  if kind != 'celeba':
    nuisance = nuisance[:, ::-1]  # Theirs has the newest unit first.
    outputs = outputs.reshape(len(outputs), -1)
  expected = channels_last(measured['outputs'])
  assert np.std(expected) > 0.05
  np.testing.assert_allclose(code.factors, measured['factors'], atol=_TOLERANCE)
  np.testing.assert_allclose(code.nuisance, nuisance, atol=_TOLERANCE)
  np.testing.assert_allclose(outputs, expected, atol=_TOLERANCE)


def test_logits_are_pytorchs():
  converted, measured = convert('mnist_judge')
  assert converted.module == MODULES['mnist_judge']
  images = jnp.asarray(channels_last(measured['images']))
  logits = converted.module.apply(
    {'params': converted.variables['params']}, images
  )
  np.testing.assert_allclose(logits, measured['outputs'], atol=_TOLERANCE)


def test_units_are_in_the_order_of_their_discovery():
  # Theirs: the units found third, second and first, then the factors.
  theirs = np.float32([3, 2, 1, 10, 20])
  converted, _ = convert(
    'mnist_student',
    **{'encoder.6.bias': theirs, 'decoder.0.weight': np.tile(theirs, (4, 1))},
  )
  params = converted.variables['params']
  order = np.float32([10, 20, 1, 2, 3])
  np.testing.assert_array_equal(params['encoder']['code']['bias'], order)
  kernel = params['decoder']['dense_0']['kernel']
  np.testing.assert_array_equal(kernel, np.tile(order[:, None], (1, 4)))


def test_other_floats_become_float32():
  state, _ = stored('mnist_student')
  other = {name: x.astype(np.float16) for name, x in state.items()}
  back = released.to_state_dict(released.from_state_dict('it', other))
  equal_bits(back, {n: other[n].astype(np.float32) for n in state})


@pytest.mark.parametrize('kind', AUTOENCODERS)
def test_gradient_with_respect_to_factors_is_pytorchs(kind):
  converted, measured = convert(kind)
  model = as_model(converted)
  nuisance = channels_last(measured['nuisance'])
  nuisance = jnp.asarray(nuisance if kind == 'celeba' else nuisance[:, ::-1])

  decode = lambda y: jnp.sum(model.decode(codes.Code(y, nuisance)) ** 2)
  gradient = jax.jit(jax.grad(decode))(jnp.asarray(measured['factors']))
  # Sums over all pixels.
  np.testing.assert_allclose(
    gradient, measured['gradient'], rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize('kind', KINDS)
def test_there_and_back_is_exact(kind, tmp_path):
  state, _ = stored(kind)
  converted = released.from_state_dict('it', state)
  back = released.to_state_dict(converted)
  equal_bits(back, state)
  path = tmp_path / 'x.safetensors'
  state_dicts.write(path, back)
  read = state_dicts.read(path)
  equal_bits({name: read[name] for name in state}, state)
  template = autoencoders.init_variables(converted.module, 0)
  assert jax.tree.structure(converted.variables) == jax.tree.structure(template)


@pytest.mark.parametrize('kind', ['mnist_student', 'celeba'])
def test_another_orientation_would_be_seen(kind):
  state, measured = stored(kind)
  if kind == 'celeba':  # A kernel that is not reversed.
    state['dec_layers.1.0.weight'] = state['dec_layers.1.0.weight'][..., ::-1]
  else:  # Codes as (factors, nuisance), without a permutation.
    for name in ('encoder.6.weight', 'encoder.6.bias'):
      state[name] = state[name][::-1]
  model = as_model(released.from_state_dict('it', state))
  images = jnp.asarray(channels_last(measured['images']))
  outputs = _decode(model, _encode(model, images))
  expected = channels_last(measured['outputs'])
  difference = outputs.reshape(expected.shape) - expected
  # 0.0096 for the student, whose random weights pass on little of a code.
  assert np.abs(difference).max() > 100 * _TOLERANCE


@pytest.mark.parametrize(
  ('kind', 'name', 'array', 'part'),
  [
    ('mnist_teacher', 'encoder.7.running_var', None, '(2,)'),
    ('mnist_teacher', 'decoder.0.weight', np.zeros((4, 3)), 'accepted: (4, 2)'),
    ('mnist_student', 'more', np.zeros(1), 'accepted: None'),
    ('celeba', 'dec_layers.2.0.weight', np.zeros((9, 3, 4, 4)), '(7, 3, 4'),
    ('mnist_teacher', 'encoder.0.bias', np.full(8, np.nan), 'finite floats'),
    ('mnist_teacher', 'encoder.0.bias', np.zeros(8, np.int64), 'type int64'),
    ('mnist_teacher', 'encoder.7.running_var', np.array([1.0, -1]), 'variance'),
  ],
)
def test_the_first_tensor_that_does_not_fit_is_named(kind, name, array, part):
  state, _ = stored(kind)
  if array is None:
    del state[name]
  else:
    state[name] = array
  with pytest.raises(errors.InputError, match='^it has .*$') as error:
    released.from_state_dict('it', state)
  assert name in str(error.value) and part in str(error.value)


def test_models_that_the_released_code_lacks_are_refused():
  for state, message in (
    ({}, 'nothing; accepted: a state dict'),
    ({'encoder.0.weight': np.zeros(3)}, 'accepted: a matrix'),
    (stored('mnist_student')[0], '--num_factors=5'),
  ):
    with pytest.raises(errors.InputError, match=message):
      released.from_state_dict('it', state, 5)
  for module in (
    MODULES['celeba'].clone(factor_activation='linear'),
    autoencoders.SvhnAutoencoder(1, 2, image_shape=(8, 8, 3), widths=(4, 4)),
  ):
    variables = autoencoders.init_variables(module, 0)
    with pytest.raises(errors.InputError, match='none of the released'):
      released.to_state_dict(released.Converted(module, variables, 0))
