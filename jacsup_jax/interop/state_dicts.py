"""Read and write state dicts: PyTorch's files and safetensors, from anybody.

PyTorch's files are pickles, which could run code: only tensors are unpickled
(`weights_only`). Files that end in `.safetensors` do not need PyTorch.
"""

from collections.abc import Mapping
import io
import os
import types
import warnings

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.data import files

_SAFETENSORS = '.safetensors'
# Endings of files that are written; the others are PyTorch's.
ENDINGS = (_SAFETENSORS, '.pth', '.pt')


def read(path: files.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of `*.safetensors`, or of a file that PyTorch saved.

  Returns arrays by name, in the order of the file; PyTorch's bfloat16 as
  float32. Raises InputError if the file is damaged or holds anything else.
  """
  if torch := import_torch(path):
    return _read_torch(torch, path)
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
  if torch := import_torch(path):
    buffer = io.BytesIO()
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save(tensors, buffer)
    content = buffer.getvalue()
  else:
    # Readers of PyTorch's tensors look for this entry.
    content = safetensors_numpy.save(dict(state), metadata={'format': 'pt'})
  files.write_whole(path, content)


def import_torch(path: files.Path) -> types.ModuleType | None:
  """Imports PyTorch if a file needs it; InputError if it is not installed."""
  if os.fspath(path).lower().endswith(_SAFETENSORS):
    return None
  try:
    import torch
  except ImportError as error:
    raise errors.InputError(
      f'{path} is a file of PyTorch, which is not installed ({error});'
      f' accepted: after pip install torch, or a file *{_SAFETENSORS}.'
    ) from error
  return torch


def _read_torch(torch, path):
  content = io.BytesIO(files.read_bytes(path))
  try:
    with warnings.catch_warnings():
      # PyTorch reads its old format through functions that it deprecates.
      warnings.simplefilter('ignore')
      found = torch.load(content, map_location='cpu', weights_only=True)
    state = {}
    for name, tensor in found.items():
      if not isinstance(name, str):
        raise TypeError(f'the name {files.describe(name)}')
      # numpy has no bfloat16.
      is_wide = tensor.dtype != torch.bfloat16
      state[name] = (tensor if is_wide else tensor.float()).detach().numpy()
    return state
  except Exception as error:  # A damaged file fails in many ways.
    # PyTorch explains at length how to unpickle everything.
    reason = errors.one_line(str(error).strip().partition('\n')[0])[:200]
    raise errors.InputError(
      f'{path} is damaged or has more than tensors ({reason}); accepted: what'
      ' torch.save(model.state_dict(), PATH) writes, names and tensors alone.'
    ) from None
