"""Read and write state dicts: PyTorch's files and safetensors, from anybody.

PyTorch's files are pickles, which could run code: only tensors are unpickled
(`weights_only`), and sizes are checked before. PyTorch is imported for them
alone; files that end in `.safetensors` do not need it.
"""

from collections.abc import Mapping
import io
import os
import pickle
from typing import Any
import warnings
import zipfile

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.data import files

SAFETENSORS = '.safetensors'
_ACCEPTED = (
  'accepted: what torch.save(model.state_dict(), PATH) writes, names and'
  ' tensors alone'
)
# A tar archive says so here; it is the format of PyTorch before 0.1.10.
_TAR = (257, b'ustar')
_DTYPES = {
    'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4',
    'I16': '<i2', 'I8': 'i1', 'U64': '<u8', 'U32': '<u4', 'U16': '<u2',
    'U8': 'u1', 'BOOL': '?',
}  # fmt: skip
_BFLOAT16 = 'BF16'  # unknown to numpy: the upper half of a float32


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the tensors of a file.

  Args:
    path: `*.safetensors`, else a file that `torch.save` wrote, of any version
      of PyTorch from 0.1.10 on.

  Returns:
    Arrays `[...]` by name, in the order of the file; bfloat16 as float32.

  Raises:
    InputError: if the file is damaged or holds anything but named tensors, or
      PyTorch is needed and not installed.
  """
  if os.fspath(path).endswith(SAFETENSORS):
    return _read_safetensors(path)
  return _read_torch(path)


def write(
  path: str | os.PathLike[str], state: Mapping[str, np.ndarray]
) -> None:
  """Writes tensors, whole or not at all.

  Args:
    path: `*.safetensors`, else a file as `torch.save` writes it; an existing
      file is replaced.
    state: contiguous arrays `[...]` by name.

  Raises:
    InputError: if PyTorch is needed and not installed.
    StorageError: if the file cannot be written.
  """
  if os.fspath(path).endswith(SAFETENSORS):
    # Readers of PyTorch's tensors look for this entry.
    content = safetensors_numpy.save(dict(state), metadata={'format': 'pt'})
  else:
    torch = import_torch(path)
    buffer = io.BytesIO()
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save(tensors, buffer)
    content = buffer.getvalue()
  files.write_whole(path, content)


def import_torch(path: str | os.PathLike[str]) -> Any:
  """Imports PyTorch, or raises InputError that names the file it is for."""
  try:
    import torch  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise errors.InputError(
      f'{path} is a file of PyTorch, which is not installed ({error});'
      f' accepted: after pip install torch, or a file *{SAFETENSORS}.'
    ) from error
  return torch


def _read_safetensors(path):
  try:
    # Checks the places and sizes in the header against the file.
    entries = safetensors.deserialize(files.read_bytes(path))
  except safetensors.SafetensorError as error:
    raise errors.InputError(
      f'{path} is not a whole safetensors file ({str(error)[:200]});'
      ' accepted: one as safetensors writes it.'
    ) from error
  state = {}
  for name, entry in entries:
    dtype, data = entry['dtype'], entry['data']
    if dtype == _BFLOAT16:
      wide = np.frombuffer(data, '<u2').astype(np.uint32) << 16
      state[name] = wide.view(np.float32).reshape(entry['shape'])
    elif dtype in _DTYPES:
      array = np.frombuffer(data, _DTYPES[dtype])
      state[name] = array.reshape(entry['shape'])
    else:
      raise errors.InputError(
        f'{path} has {files.describe(name)} of type {dtype}; accepted:'
        f' {_BFLOAT16}, {", ".join(_DTYPES)}.'
      )
  return state


def _read_torch(path):
  torch = import_torch(path)
  _check_file(path)
  try:
    with warnings.catch_warnings():
      # PyTorch reads its old format through functions that it deprecates.
      warnings.simplefilter('ignore')
      found = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    _refuse(path, f'more than tensors, or is damaged ({_first_line(error)})')
  except Exception as error:  # A damaged file fails in many ways.
    _refuse(path, f'what PyTorch cannot read ({_first_line(error)})')
  if not isinstance(found, dict):
    _refuse(path, f'a {type(found).__name__}')
  for name in found:
    if not isinstance(name, str):
      _refuse(path, f'an entry whose name is a {type(name).__name__}')
  return {
    name: _to_numpy(path, name, tensor, torch) for name, tensor in found.items()
  }


def _check_file(path):
  """Checks a PyTorch file before PyTorch reads it."""
  files.check_file(path)
  try:
    with open(path, 'rb') as file:
      start = file.read(512)
      size = os.fstat(file.fileno()).st_size
  except OSError as error:
    raise files.unreadable(path, error) from error
  if not start:
    _refuse(path, 'nothing')
  if start[_TAR[0] :].startswith(_TAR[1]):
    _refuse(path, 'a tar archive, which would have to be unpacked')
  if start.startswith(b'PK'):
    with files.open_archive(path) as archive:
      entries = archive.infolist()
    # torch.save does not compress: what inflates was not written by it.
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
      _refuse(path, 'compressed entries')
    if sum(e.file_size for e in entries) > size:
      _refuse(path, 'entries that are larger than the file')


def _to_numpy(path, name, tensor, torch):
  """Converts a tensor; its memory stays that of the file."""
  where = f'{files.describe(name)}, which is'
  if not isinstance(tensor, torch.Tensor):
    _refuse(path, f'{where} a {type(tensor).__name__}')
  if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
    _refuse(path, f'{where} sparse, quantized or without values')
  tensor = tensor.detach()
  # A view that repeats a few bytes may have any size.
  stored = tensor.untyped_storage().nbytes()
  if tensor.numel() * tensor.element_size() > stored:
    shape = tuple(tensor.shape)
    _refuse(path, f'{where} of shape {shape} with {stored} bytes stored')
  if tensor.dtype == torch.bfloat16:  # unknown to numpy
    tensor = tensor.float()
  try:
    return tensor.resolve_conj().resolve_neg().numpy()
  except (TypeError, RuntimeError) as error:
    _refuse(path, f'{where} of type {tensor.dtype} ({_first_line(error)})')


def _first_line(error):
  # PyTorch explains at length how to unpickle everything.
  return errors.one_line(str(error).strip().partition('\n')[0])[:200]


def _refuse(path, found):
  raise errors.InputError(f'{path} has {found}; {_ACCEPTED}.') from None
