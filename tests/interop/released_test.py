"""Tests of jacsup_jax.convert and of the files of safetensors.

`released_modules.npz` has small networks with random weights, and what PyTorch
computes with them; see released_modules.py.
"""

import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.interop import released as convert
from jacsup_jax.interop import safetensors_files
from jacsup_jax.interop import torch_files
from jacsup_jax.models import autoencoders as networks

STORED = np.load(pathlib.Path(__file__).with_name('released_modules.npz'))
AUTOENCODERS = ('mnist_teacher', 'mnist_student', 'celeba')
_SMALL = {'image_shape': (4, 4, 1), 'widths': (8, 6, 4)}
# Of outputs: sums of some hundred float32 products in another order.
_TOLERANCE = 1e-5


def stored(kind):
  """Returns a state dict, and what its network makes of images."""
  state, measured = {}, {}
  for name in STORED.files:
    if name.startswith(f'{kind}/'):
      _, first, *rest = name.split('/')
      (state if rest else measured)[rest[0] if rest else first] = STORED[name]
  return state, measured


def small_layout(kind, state):
  """Returns the layout of a stored network; those of digits are smaller."""
  if kind == 'celeba':
    return convert.infer_layout('it', state, kind)
  if kind == 'mnist_judge':
    model = networks.MlpJudge(4, widths=(6, 5))
  elif kind == 'mnist_teacher':
    model = networks.MlpAutoencoder(2, 0, True, **_SMALL)
  else:
    model = networks.MlpAutoencoder(2, 3, **_SMALL)
  return convert.Layout(kind, model, (4, 4, 1))


def channels_last(x):
  return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def equal_bits(found, expected):
  assert set(found) == set(expected)
  for name, array in expected.items():
    assert found[name].dtype == array.dtype, name
    assert found[name].shape == array.shape, name
    assert found[name].tobytes() == array.tobytes(), name


def paper_state(kind, size):
  """Returns a state dict of the paper's network on digits, of zeros."""
  if kind == 'mnist_judge':
    layout = convert.Layout(kind, networks.MlpJudge(size), (28, 28, 1))
  else:
    is_teacher = kind == 'mnist_teacher'
    factors = size if is_teacher else 2
    model = networks.MlpAutoencoder(factors, size - factors, is_teacher)
    layout = convert.Layout(kind, model, model.image_shape)
  template = jax.eval_shape(
      lambda: networks.init_variables(layout.model, 0)
  )
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
  counts = {name: 3 for name in convert.list_counters(layout)}
  return convert.to_state_dict(layout, zeros, counts)


def refuses(state, kind, *parts, **kwargs):
  with pytest.raises(errors.InputError) as error:
    layout = convert.infer_layout('it', state, kind, **kwargs)
    convert.from_state_dict('it', state, layout)
  message = str(error.value)
  assert message.startswith('it has ') and '\n' not in message
  for part in parts:
    assert part in message


# Values.


@pytest.mark.parametrize('kind', AUTOENCODERS)
def test_outputs_are_pytorchs(kind):
  state, measured = stored(kind)
  layout = small_layout(kind, state)
  variables, counts = convert.from_state_dict('it', state, layout)
  stats, params = variables['batch_stats'], variables['params']
  assert set(counts.values()) <= {77}
  images = jnp.asarray(channels_last(measured['images']))
  code = jax.jit(networks.make_encode(layout.model, stats))(params, images)
  outputs = jax.jit(networks.make_decode(layout.model, stats))(params, code)
  nuisance = channels_last(measured['nuisance'])
  if kind != 'celeba':
    nuisance = nuisance[:, ::-1]  # Theirs has the newest unit first.
    outputs = outputs.reshape(len(outputs), -1)
  expected = channels_last(measured['outputs'])
  assert np.std(expected) > 0.05
  np.testing.assert_allclose(
      code.factors, measured['factors'], atol=_TOLERANCE
  )
  np.testing.assert_allclose(code.nuisance, nuisance, atol=_TOLERANCE)
  np.testing.assert_allclose(outputs, expected, atol=_TOLERANCE)


def test_logits_are_pytorchs():
  state, measured = stored('mnist_judge')
  layout = small_layout('mnist_judge', state)
  variables, _ = convert.from_state_dict('it', state, layout)
  images = jnp.asarray(channels_last(measured['images']))
  logits = layout.model.apply({'params': variables['params']}, images)
  np.testing.assert_allclose(logits, measured['outputs'], atol=_TOLERANCE)


def test_units_are_in_the_order_of_their_discovery():
  state = paper_state('mnist_student', 5)
  # Theirs: the units found third, second and first, then the factors.
  state['encoder.6.bias'] = np.float32([3, 2, 1, 10, 20])
  state['decoder.0.weight'] = np.tile(np.float32([3, 2, 1, 10, 20]), (64, 1))
  layout = convert.infer_layout('it', state, 'mnist_student')
  params = convert.from_state_dict('it', state, layout).variables['params']
  order = np.float32([10, 20, 1, 2, 3])
  np.testing.assert_array_equal(params['encoder']['code']['bias'], order)
  kernel = params['decoder']['dense_0']['kernel']
  np.testing.assert_array_equal(kernel, np.tile(order[:, None], (1, 64)))


def test_sizes_are_told_from_shapes():
  state, _ = stored('celeba')
  model = convert.infer_layout('it', state, 'celeba').model
  found = (
      model.num_factors, model.nuisance_dim, model.image_size,
      model.first_width, model.last_width,
  )  # pyformat: disable
  assert found == (3, 20, 16, 4, 8)
  state = paper_state('mnist_student', 16)
  model = convert.infer_layout('it', state, 'mnist_student', 4).model
  assert (model.num_factors, model.nuisance_dim) == (4, 12)


@pytest.mark.parametrize('dtype', ['float16', 'float64', ml_dtypes.bfloat16])
def test_other_floats_become_float32(tmp_path, dtype):
  state, _ = stored('mnist_student')
  other = {name: x.astype(dtype) for name, x in state.items()}
  path = tmp_path / 'x.safetensors'
  safetensors_numpy.save_file(other, path)
  layout = small_layout('mnist_student', state)
  read = safetensors_files.read_state_dict(path)
  variables, _ = convert.from_state_dict('it', read, layout)
  back = convert.to_state_dict(layout, variables, {})
  equal_bits(back, {n: x.astype(np.float32) for n, x in other.items()})


# Gradient.


@pytest.mark.parametrize('kind', AUTOENCODERS)
def test_gradient_with_respect_to_factors_is_pytorchs(kind):
  state, measured = stored(kind)
  layout = small_layout(kind, state)
  variables, _ = convert.from_state_dict('it', state, layout)
  nuisance = channels_last(measured['nuisance'])
  nuisance = jnp.asarray(nuisance if kind == 'celeba' else nuisance[:, ::-1])
  decode = networks.make_decode(layout.model, variables['batch_stats'])
  compute_gradient = jax.jit(
      jax.grad(
          lambda y: jnp.sum(
              decode(variables['params'], codes.Code(y, nuisance)) ** 2
          )
      )
  )
  gradient = compute_gradient(jnp.asarray(measured['factors']))
  # Sums over all pixels.
  np.testing.assert_allclose(
      gradient, measured['gradient'], rtol=1e-4, atol=1e-4
  )


# Invariants.


@pytest.mark.parametrize('kind', convert.KINDS)
def test_there_and_back_is_exact(kind, tmp_path):
  state, _ = stored(kind)
  layout = small_layout(kind, state)
  converted = convert.from_state_dict('it', state, layout)
  back = convert.to_state_dict(layout, *converted)
  equal_bits(back, state)
  path = tmp_path / 'x.safetensors'
  safetensors_files.write_state_dict(path, back)
  read = safetensors_files.read_state_dict(path)
  equal_bits(read, state)
  again = convert.from_state_dict('it', read, layout)
  assert again.counts == converted.counts
  template = networks.init_variables(layout.model, 0)
  assert jax.tree.structure(again.variables) == jax.tree.structure(template)


def test_there_and_back_through_pytorch(tmp_path):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  for kind in convert.KINDS:
    state, _ = stored(kind)
    torch_files.write_state_dict(tmp_path / kind, state)
    read = torch_files.read_state_dict(tmp_path / kind)
    assert list(read) == list(state)
    equal_bits(read, state)


@pytest.mark.parametrize('kind', convert.KINDS)
def test_pytorch_still_computes_what_is_stored(kind):
  pytest.importorskip('torch', reason='PyTorch is not installed')
  import released_modules  # pylint: disable=g-import-not-at-top

  state, measured = stored(kind)
  found = released_modules.measure(kind)
  assert {f'state/{name}' for name in state} | set(measured) == set(found)
  for name, array in measured.items():
    np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)
  # Names in PyTorch's order, as it wants no other of ours.
  module = released_modules.make(kind)
  layout = small_layout(kind, state)
  back = convert.to_state_dict(
      layout, *convert.from_state_dict('it', state, layout)
  )
  assert list(back) == list(module.state_dict())


# Anti-oracle.


@pytest.mark.parametrize('kind', ['mnist_student', 'celeba'])
def test_another_orientation_would_be_seen(kind):
  state, measured = stored(kind)
  layout = small_layout(kind, state)
  if kind == 'celeba':  # An unflipped kernel.
    state['dec_layers.1.0.weight'] = state['dec_layers.1.0.weight'][..., ::-1]
  else:  # Codes as (factors, nuisance), without a permutation.
    for name in ('encoder.6.weight', 'encoder.6.bias'):
      state[name] = state[name][::-1]
  variables, _ = convert.from_state_dict('it', state, layout)
  outputs = jax.jit(layout.model.apply)(
      variables, jnp.asarray(channels_last(measured['images']))
  )
  expected = channels_last(measured['outputs'])
  difference = outputs.reshape(expected.shape) - expected
  # Far beyond what the outputs of the right one may differ by. (0.0096 of the
  # student, whose random weights pass on little of a code.)
  assert np.abs(difference).max() > 100 * _TOLERANCE


# Bad input.


def test_the_first_differing_tensor_is_named():
  state = paper_state('mnist_teacher', 2)
  del state['encoder.7.running_var']
  refuses(state, 'mnist_teacher', 'has no encoder.7.running_var', '(2,)')
  state = paper_state('mnist_teacher', 2)
  state['encoder.0.weight'] = np.zeros((256, 768), np.float32)
  state['encoder.2.weight'] = np.zeros((1, 1), np.float32)
  refuses(
      state, 'mnist_teacher', 'encoder.0.weight of shape (256, 768)',
      '(256, 784)', 'as --kind=mnist_teacher has it',
  )  # pyformat: disable
  state = {**paper_state('mnist_student', 5), 'more': np.zeros(1)}
  refuses(state, 'mnist_student', "'more' of shape (1,)", 'none of that name')
  state, _ = stored('celeba')
  state['dec_layers.1.0.weight'] = np.zeros((12, 4, 4, 4), np.float32)
  refuses(state, 'celeba', 'dec_layers.1.0.weight of shape (12,', '(11, 4, 4')
  state, _ = stored('celeba')
  del state['enc_layers.1.1.num_batches_tracked']
  refuses(state, 'celeba', 'no enc_layers.1.1.num_batches_tracked', 'or none')


@pytest.mark.parametrize('kind', convert.KINDS)
@pytest.mark.parametrize('found', convert.KINDS)
def test_another_kind_is_named(kind, found):
  if kind == found:
    return
  size = 10 if found == 'mnist_judge' else 4
  state = stored(found)[0]
  if found != 'celeba':
    state = paper_state(found, size)
  refuses(state, kind, f'as --kind={kind} has it; it is one of --kind={found}')


def test_nothing_at_all():
  for kind in convert.KINDS:
    refuses({}, kind, 'has no ')


def test_numbers_that_no_model_has():
  state = paper_state('mnist_teacher', 2)
  for name, array, part in (
      ('encoder.0.bias', np.full(256, np.nan, np.float32), '256 of 256'),
      ('encoder.0.bias', np.full(256, 1e300), 'not finite in float32'),
      ('encoder.0.bias', np.zeros(256, np.int64), 'type int64'),
      ('encoder.0.bias', np.zeros(256, np.complex64), 'type complex64'),
      ('encoder.7.running_var', np.float32([1, -1]), 'variances'),
      ('encoder.7.num_batches_tracked', np.float32(1), 'whole number'),
      ('encoder.7.num_batches_tracked', np.int64(-1), 'whole number'),
      ('encoder.7.num_batches_tracked', np.zeros(2, int), 'whole number'),
  ):  # pyformat: disable
    refuses({**state, name: np.asarray(array)}, 'mnist_teacher', name, part)


def test_counts_may_be_missing_as_in_old_files():
  state, _ = stored('celeba')
  old = {n: x for n, x in state.items() if not n.endswith('batches_tracked')}
  layout = small_layout('celeba', old)
  converted = convert.from_state_dict('it', old, layout)
  assert not converted.counts
  equal_bits(convert.to_state_dict(layout, *converted), old)


def test_sizes_out_of_bounds():
  state = paper_state('mnist_student', 3)
  refuses(state, 'mnist_student', '--num_factors=3', num_factors=3)
  state['encoder.6.weight'] = np.zeros((2**20, 0), np.float32)
  refuses(state, 'mnist_student', '1,048,576 units')
  state, _ = stored('celeba')
  state['enc_layers.0.0.weight'] = np.zeros((2**20, 0, 4, 4), np.float32)
  refuses(state, 'celeba', '1,048,576 units')


def test_damaged_safetensors(tmp_path):
  path = tmp_path / 'x.safetensors'

  def refuses_file(*parts):
    with pytest.raises(errors.InputError) as error:
      safetensors_files.read_state_dict(path)
    assert '\n' not in str(error.value) and str(path) in str(error.value)
    assert all(part in str(error.value) for part in parts)

  refuses_file('cannot be read')
  safetensors_numpy.save_file({'a': np.zeros(100, np.float32)}, path)
  whole = path.read_bytes()
  for content in (b'', whole[:5], whole[:40], whole[:-1], whole + b'x',
                  b'\xff' * 8 + whole[8:]):  # pyformat: disable
    path.write_bytes(content)
    refuses_file('no whole safetensors file')
  header = b'{"a":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2]}}'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\0\0')
  refuses_file("'a' of type F8_E5M2")
