"""Reads the parameters of a PyTorch model from a file of anybody's; writes one.

PyTorch's files are pickles, which could run code: only what tensors need is
unpickled (`weights_only`), and sizes are checked before that. PyTorch itself is
needed for it, and for nothing else of this package.
"""

from collections.abc import Mapping
import io
import os
import pathlib
import pickle
from typing import Any
import warnings
import zipfile

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import npz
from jacsup_jax.runs import workdir

# The paper's face model at d = 8192 has 0.5e9 bytes; Adam's moments would be
# twice as many more.
_LARGEST = 4 * 2**30
_MOST_ENTRIES = 100_000
_ACCEPTED = (
    'accepted: what torch.save(model.state_dict(), PATH) writes, names and'
    ' tensors alone'
)
# Where a tar archive says so: the form of PyTorch before 0.1.10.
_TAR = (257, b'ustar')


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the tensors of a state dict, on the host.

  Args:
    path: a file that `torch.save` wrote, of any version of PyTorch from 0.1.10
      on.

  Returns:
    Arrays `[...]` by name, in the order of the file; bfloat16 as float32.

  Raises:
    InputError: if PyTorch is not installed, or the file is damaged, too large,
      or holds anything but names and tensors.
  """
  torch = import_torch(path)
  _check_file(path)
  try:
    with warnings.catch_warnings():
      # Of the old form, which PyTorch reads by way of what it deprecates.
      warnings.simplefilter('ignore')
      found = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    _refuse(path, f'more than tensors, or is damaged ({_first_line(error)})')
  # Anything, of a damaged file: PyTorch's own errors are RuntimeErrors.
  except Exception as error:
    _refuse(path, f'what PyTorch cannot read ({_first_line(error)})')
  if not isinstance(found, dict):
    _refuse(path, f'a {type(found).__name__}')
  if len(found) > _MOST_ENTRIES:
    _refuse(path, f'{len(found):,} entries, more than {_MOST_ENTRIES:,}')
  return {
      _check_name(path, name): _to_numpy(path, name, tensor, torch)
      for name, tensor in found.items()
  }


def write_state_dict(
    path: str | os.PathLike[str], state: Mapping[str, np.ndarray]
) -> None:
  """Writes tensors as `torch.save(model.state_dict(), path)` does.

  Args:
    path: of the file; one that is there is replaced.
    state: arrays `[...]` by name.

  Raises:
    InputError: if PyTorch is not installed.
    StorageError: if it cannot be written.
  """
  torch = import_torch(path)
  buffer = io.BytesIO()
  tensors = {name: torch.from_numpy(array) for name, array in state.items()}
  torch.save(tensors, buffer)
  workdir.write_whole(pathlib.Path(path), buffer.getvalue())


def import_torch(path: str | os.PathLike[str]) -> Any:
  """Imports PyTorch, or raises InputError that names the file it is for."""
  try:
    import torch  # pylint: disable=import-outside-toplevel
  except ImportError as error:
    raise errors.InputError(
        f'{path} is a file of PyTorch, which is not installed (pip install'
        f' torch): {error}'
    ) from error
  return torch


def _check_file(path):
  """Checks what may be checked without PyTorch."""
  size = untrusted.check_file(path)
  if size > _LARGEST:
    _refuse(path, f'{size:,} bytes, more than {_LARGEST:,}')
  try:
    with open(path, 'rb') as file:
      start = file.read(512)
  except OSError as error:
    untrusted.refuse_unreadable(path, error)
  if not start:
    _refuse(path, 'nothing')
  if start[_TAR[0] :].startswith(_TAR[1]):
    _refuse(path, 'a tar archive, which would have to be unpacked')
  if start.startswith(b'PK'):
    _check_archive(path, size)


def _check_archive(path, size):
  """Checks the directory of a file that is a zip archive."""
  try:
    with npz.open_archive(path) as archive:
      entries = archive.infolist()
  except npz.DamagedError as error:
    _refuse(path, f'a damaged archive ({error})')
  if len(entries) > _MOST_ENTRIES:
    _refuse(path, f'{len(entries):,} entries, more than {_MOST_ENTRIES:,}')
  # torch.save compresses nothing: what does inflate is no file of its.
  if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
    _refuse(path, 'compressed entries')
  if sum(e.file_size for e in entries) > size:
    _refuse(path, 'entries that are larger than the file')


def _check_name(path, name):
  if not isinstance(name, str):
    _refuse(path, f'an entry whose name is a {type(name).__name__}')
  return name


def _to_numpy(path, name, tensor, torch):
  """Converts a tensor; its memory stays that of the file."""
  where = f'{untrusted.describe(name)}, which is'
  if not isinstance(tensor, torch.Tensor):
    _refuse(path, f'{where} a {type(tensor).__name__}')
  if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
    _refuse(path, f'{where} sparse, quantized or without values')
  tensor = tensor.detach()
  # A view that repeats a few bytes may be of any size.
  stored = tensor.untyped_storage().nbytes()
  if tensor.numel() * tensor.element_size() > stored:
    _refuse(
        path,
        f'{where} of shape {tuple(tensor.shape)} with {stored} bytes stored',
    )
  if tensor.dtype == torch.bfloat16:  # Unknown to numpy.
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
