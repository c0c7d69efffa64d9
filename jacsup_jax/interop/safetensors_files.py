"""Reads and writes state dicts as safetensors, of files of anybody's.

Nothing in such a file can be run: a header, and numbers. PyTorch is not needed.
"""

from collections.abc import Mapping
import os
import pathlib

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.runs import workdir

# As of PyTorch's files.
_LARGEST = 4 * 2**30
_MOST_ENTRIES = 100_000
_DTYPES = {
    'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4',
    'I16': '<i2', 'I8': 'i1', 'U64': '<u8', 'U32': '<u4', 'U16': '<u2',
    'U8': 'u1', 'BOOL': '?',
}  # pyformat: disable
# Unknown to numpy: the upper half of a float32.
_BFLOAT16 = 'BF16'


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the tensors of a file.

  Args:
    path: of a safetensors file.

  Returns:
    Arrays `[...]` by name, in the order of the file; bfloat16 as float32.

  Raises:
    InputError: if it is damaged, too large, or holds types that numpy lacks.
  """
  content = untrusted.read(path, _LARGEST)
  try:
    # Checks the header's places and sizes against the file.
    entries = safetensors.deserialize(content)
  except safetensors.SafetensorError as error:
    raise errors.InputError(
        f'{path} is no whole safetensors file ({str(error)[:200]}); accepted:'
        ' one as safetensors writes it.'
    ) from error
  if len(entries) > _MOST_ENTRIES:
    raise errors.InputError(
        f'{path} has {len(entries):,} entries; accepted: {_MOST_ENTRIES:,} at'
        ' most.'
    )
  return {name: _to_numpy(path, name, entry) for name, entry in entries}


def write_state_dict(
    path: str | os.PathLike[str], state: Mapping[str, np.ndarray]
) -> None:
  """Writes tensors, whole or not at all.

  Args:
    path: of the file; one that is there is replaced.
    state: arrays `[...]` by name, contiguous.

  Raises:
    StorageError: if it cannot be written.
  """
  # What others look for that read PyTorch's tensors.
  content = safetensors_numpy.save(dict(state), metadata={'format': 'pt'})
  workdir.write_whole(pathlib.Path(path), content)


def _to_numpy(path, name, entry):
  dtype, data = entry['dtype'], entry['data']
  if dtype == _BFLOAT16:
    wide = np.frombuffer(data, '<u2').astype(np.uint32) << 16
    return wide.view(np.float32).reshape(entry['shape'])
  if dtype not in _DTYPES:
    raise errors.InputError(
        f'{path} has {untrusted.describe(name)} of type {dtype}; accepted:'
        f' {_BFLOAT16}, {", ".join(_DTYPES)}.'
    )
  return np.frombuffer(data, _DTYPES[dtype]).reshape(entry['shape'])
