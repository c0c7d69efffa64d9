"""Tests of jacsup_jax.data.npz; fuzz_data_test has more."""

import numpy as np
import pytest

from jacsup_jax.data import npz

ARRAYS = {
    'fortran': np.asfortranarray(np.arange(6).reshape(2, 3)),
    'big_endian': np.arange(3, dtype='>f4'),
    'scalar': np.float64(2.5),
    'empty': np.zeros((0, 3)),
    'words': np.array(['a', 'bcd']),
}


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_are_those_saved(tmp_path, save):
  save(tmp_path / 'x.npz', **ARRAYS)
  with npz.open_archive(tmp_path / 'x.npz') as archive:
    assert list(npz.names(archive)) == list(ARRAYS)
    for name, expected in ARRAYS.items():
      found = npz.read_array(archive, name)
      assert found.dtype == expected.dtype
      np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('name', 'largest', 'message'),
    [
        ('missing', 10**6, 'there 0 times'),
        ('fortran', 100, 'accepted: 100 at most'),
    ],
)
def test_what_is_not_read(tmp_path, name, largest, message):
  np.savez(tmp_path / 'x.npz', **ARRAYS)
  with npz.open_archive(tmp_path / 'x.npz') as archive:
    with pytest.raises(npz.DamagedError, match=message):
      npz.read_array(archive, name, largest)


def test_an_entry_that_ends_before_its_end(tmp_path):
  np.savez(tmp_path / 'x.npz', **ARRAYS)
  with npz.open_archive(tmp_path / 'x.npz') as archive:
    archive.getinfo('words.npy').compress_size -= 4
    with pytest.raises(npz.DamagedError, match='CRC-32|it ends after'):
      npz.read_array(archive, 'words')


def test_what_is_no_archive(tmp_path):
  np.save(tmp_path / 'x.npy', np.zeros(3))
  with pytest.raises(npz.DamagedError, match='no zip file'):
    npz.open_archive(tmp_path / 'x.npy')
