"""Fuzz tests of PyTorch files; skipped where PyTorch is not installed."""

import io
import itertools
import pickle

import fuzzing
from hypothesis import strategies as st
import numpy as np
import pytest

from jacsup_jax.interop import torch_files

torch = pytest.importorskip('torch', reason='PyTorch is not installed')


class _Evil:
  """Whose unpickling would write a file."""

  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return open, (str(self._path), 'w')


def _saved(content, new):
  file = io.BytesIO()
  torch.save(content, file, _use_new_zipfile_serialization=new)
  return file.getvalue()


def test_pytorch_files(tmp_path):
  numbers, written = itertools.count(), tmp_path / 'written'
  whole = {
      'encoder.weight': torch.arange(6.0).reshape(2, 3),
      'encoder.bias': torch.zeros(2, dtype=torch.int64),
  }
  evil = {**whole, 'x': _Evil(written)}
  values = st.one_of(
      st.integers(), st.text(max_size=3), st.none(), st.binary(max_size=3),
      st.sampled_from([
          torch.zeros(()), torch.zeros(0), torch.zeros(1).expand(2**20, 2**20),
          torch.zeros(2, dtype=torch.complex64).conj(),
          torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2).bool(),
          torch.eye(2).to_sparse(), torch.zeros(2, device='meta'),
          torch.nn.Parameter(torch.ones(2)), torch.Size([2]),
          torch.zeros(2, dtype=torch.float8_e4m3fn), np.zeros(2), slice(1),
      ]),
  )  # pyformat: disable
  others = st.dictionaries(
      st.text(max_size=3) | st.integers(0, 3), values, max_size=3
  )
  contents = st.one_of(
      fuzzing.bytes_of(_saved(whole, True)),
      fuzzing.bytes_of(_saved(whole, False)),
      fuzzing.bytes_of(_saved(evil, True)),
      fuzzing.bytes_of(pickle.dumps(evil['x'])),
      st.tuples(others, st.booleans()).map(lambda case: _try_to_save(*case)),
  )

  def check(content):
    path = tmp_path / f'{next(numbers)}.pt'
    path.write_bytes(content)
    found = fuzzing.read(lambda: torch_files.read_state_dict(path), path)
    if found is not None:
      assert all(isinstance(name, str) for name in found)
      assert all(isinstance(array, np.ndarray) for array in found.values())
      assert sum(array.nbytes for array in found.values()) < 2**16
    path.unlink()
    assert not list(tmp_path.iterdir()), 'something was run'

  fuzzing.run('PyTorch files', contents, check)


def _try_to_save(content, new):
  try:
    return _saved(content, new)
  except (NotImplementedError, RuntimeError, TypeError, pickle.PicklingError):
    return b''  # PyTorch does not save this.
