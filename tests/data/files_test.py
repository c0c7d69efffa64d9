"""Tests of jacsup_jax.data.files."""

import errno
import os
import zipfile

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import files

ARRAYS = {
    'fortran': np.asfortranarray(np.arange(6).reshape(2, 3)),
    'big_endian': np.arange(3, dtype='>f4'),
    'scalar': np.float64(2.5),
    'empty': np.zeros((0, 3)),
    'words': np.array(['a', 'bcd']),
}  # pyformat: disable


def refuses(message, function, *args, kind=errors.InputError):
  with pytest.raises(kind, match=message) as error:
    function(*args)
  assert '\n' not in str(error.value)


# Values.


def test_home_is_expanded_and_paths_are_absolute(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert files.expand_path('--a', '~/x') == tmp_path / 'x'
  monkeypatch.chdir(tmp_path)
  assert files.expand_path('--a', 'x') == tmp_path / 'x'


@pytest.mark.parametrize('text', ['gs://a/b', 's3://a', 'file:///x'])
def test_addresses_of_other_machines_are_refused(text):
  message = f'--workdir={text} is on another machine'
  refuses(message, files.expand_path, '--workdir', text)


@pytest.mark.parametrize('text', ['', 'a\0b', '~no_such_user/x'])
def test_what_is_no_path_is_refused(text):
  refuses('--workdir=', files.expand_path, '--workdir', text)


def test_json_objects_are_read(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('{"a": [1, NaN]}')
  assert files.read_json(path)['a'][0] == 1
  for content, message in (
      (b'{"a": 1', 'a.json is not JSON'),
      (b'\xff', 'a.json is not JSON'),
      (b'[1, 2]', r'a.json holds \[1, 2\]; accepted: a JSON object'),
      (b'[' * 100_000, 'a.json is not JSON'),
  ):
    path.write_bytes(content)
    refuses(message, files.read_json, path)


def test_what_is_no_regular_file_is_refused(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  refuses('is a directory', files.read_bytes, tmp_path)
  refuses('is a pipe', files.read_bytes, tmp_path / 'pipe')
  refuses('No such file', files.read_bytes, tmp_path / 'none')
  refuses('cannot be read', files.read_bytes, 'a\0b')
  assert not files.exists('a\0b') and not files.exists('a' * 5000)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_are_those_saved(tmp_path, save):
  path = tmp_path / 'x.npz'
  save(path, **ARRAYS)
  found = files.read_arrays(path, tuple(ARRAYS), ('more',))
  assert list(found) == list(ARRAYS)
  for name, expected in ARRAYS.items():
    assert found[name].dtype == expected.dtype
    np.testing.assert_array_equal(found[name], expected)


def test_values_are_shown_in_few_characters():
  assert files.describe('a') == "'a'"
  assert len(files.describe('x' * 1000)) == 60


# Bad input: archives.


def test_python_objects_are_never_read(tmp_path):
  path = tmp_path / 'x.npz'
  np.savez(path, a=np.array([{}]))
  refuses('x.npz .*Python objects', files.read_arrays, path, ('a',))


def test_missing_arrays_are_named(tmp_path):
  np.savez(tmp_path / 'x.npz', a=1, b=2)
  refuses(
      'has no c and no d, but a, b; accepted: an .npz file with the arrays',
      files.read_arrays, tmp_path / 'x.npz', ('a', 'c', 'd'),
  )  # pyformat: disable


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_arrays_are_refused_or_whole(tmp_path, save):
  path = tmp_path / 'x.npz'
  save(path, **ARRAYS)
  whole, rng = path.read_bytes(), np.random.default_rng(0)
  for cut in range(0, len(whole), 97):
    path.write_bytes(whole[:cut])
    refuses('x.npz', files.read_arrays, path, tuple(ARRAYS))
  refused = 0
  for _ in range(100):
    content = bytearray(whole)
    content[rng.integers(len(whole))] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    try:
      found = files.read_arrays(path, ('fortran',))['fortran']
      np.testing.assert_array_equal(found, ARRAYS['fortran'])
    except errors.InputError as error:
      assert 'x.npz' in str(error) and '\n' not in str(error)
      refused += 1
  assert refused > 5


@pytest.mark.parametrize(
    'name', ['../b.png', '/etc/b.png', 'a/../../b.png', 'C:\\b.png']
)
def test_entries_that_leave_the_folder_are_refused(name, tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
    archive.writestr(name, b'')
  refuses('leads out of the folder', files.open_archive, tmp_path / 'x.zip')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (
            b'\n<!DOCTYPE html><html>Quota exceeded</html>',
            'is a web page, such as Google Drive sends .*quota',
        ),
        (b'PK\x03\x04 cut', 'is cut short or damaged'),
        (b'', 'is not a zip file: it starts with nothing'),
        (b'Rar!', 'starts with 52617221'),
    ],
)
def test_what_is_no_archive_is_refused(content, message, tmp_path):
  (tmp_path / 'x.zip').write_bytes(content)
  refuses(message, files.open_archive, tmp_path / 'x.zip')


# Writing.


def test_files_are_whole_or_as_before(tmp_path, monkeypatch):
  path = tmp_path / 'a'
  files.write_whole(path, 'before')
  files.write_whole(path, b'after')
  assert path.read_bytes() == b'after'

  def refuse(handle):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(files.os, 'fsync', refuse)
  refuses(
      'a cannot be written .No space left on device; .* MB free of .*resumes',
      files.write_whole, path, 'half', kind=errors.StorageError,
  )  # pyformat: disable
  assert path.read_bytes() == b'after'
  assert os.listdir(tmp_path) == ['a']


def test_the_code_of_tensorstore_is_explained():
  error = ValueError("... [os_error_code='28'] ...")
  found = files.storage_error('/tmp/x', error)
  assert 'No space left on device' in str(found)


def test_directories_that_can_be_made_are_accepted(tmp_path):
  files.check_writable('--workdir=x', tmp_path / 'a' / 'b')
  assert files.check_directory('--workdir=x', tmp_path / 'a') == tmp_path
  assert not os.listdir(tmp_path)
  (tmp_path / 'file').touch()
  for path, message in (
      (tmp_path / 'file', '--workdir=x is a file'),
      (tmp_path / 'file' / 'a', '--workdir=x is below the file'),
      ('a' * 5000, '--workdir=x cannot name a directory'),
      ('/proc/x', '--workdir=x cannot be written to'),
  ):
    refuses(message, files.check_writable, '--workdir=x', path)
