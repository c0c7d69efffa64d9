"""Files of state dicts, safetensors and PyTorch's."""

import os
import pickle

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.interop import state_dicts

try:
  import torch
except ImportError:
  torch = None

needs_torch = pytest.mark.skipif(
  torch is None, reason='PyTorch is not installed'
)


class _Evil:
  """Whose unpickling would make a directory."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return os.mkdir, (str(self._path),)


def _refuses(path, part=''):
  with pytest.raises(errors.InputError, match=part) as error:
    state_dicts.read(path)
  assert '\n' not in str(error.value) and str(path) in str(error.value)


def _state_dict():
  return {
    'encoder.weight': torch.arange(6.0).reshape(2, 3),
    'encoder.bias': torch.tensor([1, 2], dtype=torch.int64),
    'half': torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
    'transposed': torch.arange(6.0).reshape(2, 3).T,
    'empty': torch.zeros(0, 4),
  }


@needs_torch
@pytest.mark.parametrize('new', [True, False], ids=['zip', 'legacy'])
def test_tensors_are_arrays_by_name(tmp_path, new):
  path = tmp_path / 'model.pt'
  torch.save(_state_dict(), path, _use_new_zipfile_serialization=new)
  found = state_dicts.read(path)
  assert list(found) == list(_state_dict())
  np.testing.assert_array_equal(found['encoder.weight'], [[0, 1, 2], [3, 4, 5]])
  np.testing.assert_array_equal(found['transposed'], [[0, 3], [1, 4], [2, 5]])
  np.testing.assert_array_equal(found['half'], np.float32([0.5, -2.0]))
  assert found['encoder.bias'].dtype == np.int64
  assert found['empty'].shape == (0, 4)


@needs_torch
@pytest.mark.parametrize('new', [True, False], ids=['zip', 'legacy'])
def test_code_is_not_run(tmp_path, new):
  path, made = tmp_path / 'model.pt', tmp_path / 'made'
  content = {'weight': torch.zeros(2), 'x': _Evil(made)}
  torch.save(content, path, _use_new_zipfile_serialization=new)
  _refuses(path, 'more than tensors')
  path.write_bytes(pickle.dumps(content['x']))
  _refuses(path)
  assert not made.exists()


def test_damaged_safetensors(tmp_path):
  path = tmp_path / 'x.safetensors'
  _refuses(path, 'cannot be read')
  safetensors_numpy.save_file({'a': np.zeros(100, np.float32)}, path)
  whole = path.read_bytes()
  for content in (b'', whole[:40], whole[:-1], b'\xff' * 8 + whole[8:]):
    path.write_bytes(content)
    _refuses(path, 'not a whole safetensors file')
