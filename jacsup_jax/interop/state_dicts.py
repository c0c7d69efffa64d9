"""Read and write state dicts: PyTorch's files and safetensors, from anybody.

PyTorch's files are pickles, which could run code: only tensors are unpickled
(`weights_only`). Files that end in `.safetensors` do not need PyTorch.
"""

from collections.abc import Mapping
import io
import os
import pickle
import warnings

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.data import files

_SAFETENSORS = '.safetensors'
_ACCEPTED = (
  'accepted: what torch.save(model.state_dict(), PATH) writes, names and'
  ' tensors alone'
)


def read(path: files.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of `*.safetensors`, or of a file that PyTorch saved.

  Returns arrays by name, in the order of the file; PyTorch's bfloat16 as
  float32. Raises InputError if the file is damaged or holds anything but named
  tensors, or PyTorch is needed and not installed.
  """
  if not os.fspath(path).endswith(_SAFETENSORS):
    return _read_torch(path)
  try:
    return safetensors_numpy.load(files.read_bytes(path))
  except (safetensors.SafetensorError, KeyError, ValueError) as error:
    raise errors.InputError(
      f'{path} is not a whole safetensors file ({str(error)[:200]});'
      ' accepted: one as safetensors writes it.'
    ) from error


def write(path: files.Path, state: Mapping[str, np.ndarray]) -> None:
  """Writes contiguous arrays `[...]` by name, whole or not at all.

  `*.safetensors` need no PyTorch; other files are as `torch.save` writes them.
  """
  if os.fspath(path).endswith(_SAFETENSORS):
    # Readers of PyTorch's tensors look for this entry.
    content = safetensors_numpy.save(dict(state), metadata={'format': 'pt'})
  else:
    torch = _import_torch(path)
    buffer = io.BytesIO()
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save(tensors, buffer)
    content = buffer.getvalue()
  files.write_whole(path, content)


def _import_torch(path):
  try:
    import torch
  except ImportError as error:
    raise errors.InputError(
      f'{path} is a file of PyTorch, which is not installed ({error});'
      f' accepted: after pip install torch, or a file *{_SAFETENSORS}.'
    ) from error
  return torch


def _read_torch(path):
  torch = _import_torch(path)
  content = io.BytesIO(files.read_bytes(path))
  try:
    with warnings.catch_warnings():
      # PyTorch reads its old format through functions that it deprecates.
      warnings.simplefilter('ignore')
      found = torch.load(content, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    _refuse(path, f'more than tensors, or is damaged ({_first_line(error)})')
  except Exception as error:  # A damaged file fails in many ways.
    _refuse(path, f'what PyTorch cannot read ({_first_line(error)})')
  if not isinstance(found, dict):
    _refuse(path, f'a {type(found).__name__}')
  state = {}
  for name, tensor in found.items():
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
      _refuse(path, f'{files.describe(name)}, which is no named tensor')
    try:
      # numpy has no bfloat16.
      is_wide = tensor.dtype != torch.bfloat16
      state[name] = (tensor if is_wide else tensor.float()).detach().numpy()
    except (TypeError, RuntimeError) as error:
      _refuse(path, f'{name} of type {tensor.dtype} ({_first_line(error)})')
  return state


def _first_line(error):
  # PyTorch explains at length how to unpickle everything.
  return errors.one_line(str(error).strip().partition('\n')[0])[:200]


def _refuse(path, found):
  raise errors.InputError(f'{path} has {found}; {_ACCEPTED}.') from None
