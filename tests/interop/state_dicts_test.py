"""Files of state dicts, safetensors and PyTorch's."""

import os
import pickle
import sys
import zipfile

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


def _refuses(path, *parts):
  with pytest.raises(errors.InputError) as error:
    state_dicts.read(path)
  message = str(error.value)
  assert '\n' not in message and str(path) in message
  for part in parts:
    assert part in message


def _state_dict():
  return {
    'encoder.weight': torch.arange(6.0).reshape(2, 3),
    'encoder.bias': torch.tensor([1, 2], dtype=torch.int64),
    'half': torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
    'transposed': torch.arange(6.0).reshape(2, 3).T,
    'scalar': torch.tensor(3.0),
    'empty': torch.zeros(0, 4),
  }


# Values.


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
  assert found['scalar'].shape == () and found['empty'].shape == (0, 4)


@needs_torch
def test_a_model_s_state_dict(tmp_path):
  model = torch.nn.Linear(3, 2)
  torch.save(model.state_dict(), tmp_path / 'model.pt')
  found = state_dicts.read(tmp_path / 'model.pt')
  np.testing.assert_array_equal(found['weight'], model.weight.detach().numpy())


# Bad input.


def test_without_pytorch_the_line_says_so(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  _refuses(tmp_path / 'model.pt', 'not installed')


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


@needs_torch
@pytest.mark.parametrize(
  ('make', 'part'),
  [
    (lambda: [torch.zeros(2)], 'a list'),
    (lambda: torch.zeros(2), 'a Tensor'),
    (lambda: {'a': {'b': torch.zeros(2)}}, "'a', which is a dict"),
    (lambda: {'a': 3}, "'a', which is a int"),
    (lambda: {3: torch.zeros(2)}, 'whose name is a int'),
    (lambda: {'a': torch.zeros(1).expand(10**6, 10**6)}, '4 bytes stored'),
    (lambda: {'a': torch.eye(3).to_sparse()}, 'sparse'),
    (lambda: torch.nn.Linear(3, 2), 'more than tensors'),
    (lambda: {'a': torch.ones(2).to(torch.float8_e5m2)}, 'of type'),
  ],
)
def test_what_is_no_state_dict(tmp_path, make, part):
  torch.save(make(), tmp_path / 'model.pt')
  _refuses(tmp_path / 'model.pt', part)


@needs_torch
def test_damaged_files(tmp_path):
  path = tmp_path / 'model.pt'
  _refuses(path, 'cannot be read')
  _refuses(tmp_path, 'a directory')
  path.write_bytes(b'')
  _refuses(path, 'nothing')
  path.write_bytes(b'\n<html>')
  _refuses(path)
  torch.save(_state_dict(), path)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  _refuses(path, 'cut short or damaged')
  path.write_bytes(bytes(257) + b'ustar' + bytes(250))
  _refuses(path, 'a tar archive')


@needs_torch
def test_what_inflates_is_refused(tmp_path):
  path, bomb = tmp_path / 'model.pt', tmp_path / 'bomb.pt'
  torch.save({'a': torch.zeros(2**22)}, path)
  with (
    zipfile.ZipFile(path) as archive,
    zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as deflated,
  ):
    for info in archive.infolist():
      deflated.writestr(info.filename, archive.read(info))
  assert bomb.stat().st_size < 2**18
  _refuses(bomb, 'compressed entries')


@needs_torch
def test_entries_that_say_they_are_larger_than_the_file(tmp_path):
  path = tmp_path / 'model.pt'
  torch.save(_state_dict(), path)
  content = bytearray(path.read_bytes())
  # The size of the first entry, in the archive's directory.
  spot = content.index(b'PK\x01\x02') + 24
  content[spot : spot + 4] = b'\0\0\0\x10'
  path.write_bytes(content)
  _refuses(path, 'entries that are larger than the file')


@needs_torch
def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
  path = tmp_path / 'model.pt'
  torch.save(_state_dict(), path)

  def refuse(*unused_args, **unused_kwargs):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr('builtins.open', refuse)
  _refuses(path, 'Permission denied')


# Safetensors.


def test_damaged_safetensors(tmp_path):
  path = tmp_path / 'x.safetensors'
  _refuses(path, 'cannot be read')
  safetensors_numpy.save_file({'a': np.zeros(100, np.float32)}, path)
  whole = path.read_bytes()
  for content in (b'', whole[:5], whole[:40], whole[:-1], whole + b'x',
                  b'\xff' * 8 + whole[8:]):  # fmt: skip
    path.write_bytes(content)
    _refuses(path, 'not a whole safetensors file')
  header = b'{"a":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2]}}'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\0\0')
  _refuses(path, "'a' of type F8_E5M2")
