"""Tests of jacsup_jax.data.files."""

import errno
import os
import zipfile

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import files

ARRAYS = {'x': np.arange(600).reshape(2, 300), 'words': np.array(['a', 'bcd'])}


def refuses(message, function, *args, kind=errors.InputError):
  with pytest.raises(kind, match=f'^.*{message}.*$'):
    function(*args)


def test_home_is_expanded_and_what_is_no_path_here_refused(
  monkeypatch, tmp_path
):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('SCRATCH', '/scratch/me')
  for text, path in {
    '~/x': f'{tmp_path}/x',
    '$HOME/~x': f'{tmp_path}/~x',
    '${SCRATCH}/run 1': '/scratch/me/run 1',
    'runs/a=1': 'runs/a=1',
    'C:/x': 'C:/x',
    'file:///photos/my%20face.jpg': '/photos/my face.jpg',
  }.items():
    assert str(files.expand_path('--a', text)) == path
  for text in (
      'gs://a/b', 's3://a', 'file://host/x', 'https://a/b.jpg', 'gs:/a', '',
      'a\0b', '~no_such_user/x', '$NO_SUCH_VARIABLE/x', '${NO_SUCH}/x',
  ):  # fmt: skip
    refuses('--workdir=.*accepted', files.expand_path, '--workdir', text)
  # A bucket is no way out of a variable that is not set.
  refuses("this machine[.]'?$", files.expand_path, '--a', '$NO_SUCH_VARIABLE')


def test_names_with_a_dollar_or_a_tilde_that_exist_are_meant(
  monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  for name in ('$NO_SUCH_VARIABLE', '~no_such_user'):
    (tmp_path / name).mkdir()
    assert str(files.expand_path('--a', name)) == name


def test_places_that_variables_name_are_expanded(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('CACHE', '~/cache')
  assert files.expand_variable('CACHE') == tmp_path / 'cache'
  monkeypatch.setenv('CACHE', 'gs://bucket/cache')
  refuses("CACHE='gs://bucket/cache' is on", files.expand_variable, 'CACHE')
  for value in ('', None):
    monkeypatch.setenv('CACHE', '') if value == '' else monkeypatch.delenv(
      'CACHE'
    )
    assert files.expand_variable('CACHE') is None


def test_json_objects_are_read(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('{"a": [1, NaN]}')
  assert files.read_json(path)['a'][0] == 1
  for content in (b'{"a": 1', b'\xff', b'[1, 2]', b'[' * 100_000):
    path.write_bytes(content)
    refuses('a.json .*accepted: a JSON object', files.read_json, path)


def test_what_is_no_regular_file_is_refused(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  refuses('is a directory', files.read_bytes, tmp_path)
  refuses('is a pipe', files.read_bytes, tmp_path / 'pipe')
  refuses('No such file', files.read_bytes, tmp_path / 'none')
  refuses('cannot be read', files.read_bytes, 'a\0b')
  assert not files.exists('a\0b') and not files.exists('a' * 5000)


def test_python_objects_are_never_read(tmp_path):
  path = tmp_path / 'x.npz'
  np.savez(path, a=np.array([{}]))
  refuses('x.npz .*Python objects', files.read_arrays, path, ('a',))
  refuses('the arrays a; .*the arrays b', files.read_arrays, path, ('b',))


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_arrays_are_refused_or_whole(tmp_path, save):
  path = tmp_path / 'x.npz'
  save(path, **ARRAYS)
  assert list(files.read_arrays(path, ('words',), ('x', 'y'))) == ['words', 'x']
  whole = path.read_bytes()
  for cut in range(0, len(whole), 197):
    path.write_bytes(whole[:cut])
    refuses('x.npz', files.read_arrays, path, tuple(ARRAYS))
  content = bytearray(whole)
  content[len(whole) // 4] ^= 1  # In an array, whose checksum differs.
  path.write_bytes(content)
  refuses('x.npz', files.read_arrays, path, tuple(ARRAYS))


def test_entries_that_leave_the_folder_are_refused(tmp_path):
  path = tmp_path / 'x.zip'
  for name in ('../b.png', '/etc/b.png', 'a/../../b.png', 'C:\\b.png'):
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr(name, b'')
    refuses('leads out of the folder', files.open_archive, path)
  path.write_bytes(b'<html>Quota')
  refuses('not a zip file', files.open_archive, path)


def test_files_are_whole_or_as_before(tmp_path, monkeypatch):
  path = tmp_path / 'new' / 'folder' / 'a'
  files.write_whole(path, 'before')
  files.write_whole(path, b'after')

  def refuse(handle):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(files.os, 'fsync', refuse)
  message = 'a cannot be written .No space left on device; .* MB free of'
  write = files.write_whole
  refuses(message, write, path, 'half', kind=errors.StorageError)
  assert path.read_bytes() == b'after'
  assert os.listdir(path.parent) == ['a']
  # As tensorstore words it.
  error = files.storage_error(path, ValueError("os_error_code='28'"))
  assert 'No space left on device' in str(error)


def test_outputs_are_tried_and_named_by_their_format(tmp_path):
  check = lambda path: files.check_output('--output', path, ('.png', '.svg'))
  for name in ('a.png', 'new/folder/b.SVG'):
    assert check(tmp_path / name) == tmp_path / name
  (tmp_path / 'there.png').write_text('kept')
  check(tmp_path / 'there.png')
  (tmp_path / 'folder.png').mkdir()
  os.mkfifo(tmp_path / 'pipe.png')
  for name, message in {
    'a.jpg': 'a.jpg ends in .jpg; accepted: .* .png, .svg',
    'png': 'ends in nothing',
    'folder.png': 'folder.png is a directory; accepted: a file',
    'pipe.png': 'is a pipe or device',
    'there.png/a.png': 'there.png is a file; accepted: a directory',
    'a' * 300 + '.png': 'cannot be written .File name too long',
  }.items():
    refuses(message, check, tmp_path / name)
  refuses('cannot be written', check, '/proc/a.png')
  assert (tmp_path / 'there.png').read_text() == 'kept'
  assert len(os.listdir(tmp_path)) == 3


def test_directories_that_can_be_made_are_accepted(tmp_path):
  files.check_writable('--workdir=x', tmp_path / 'a' / 'b')
  assert files.check_directory('--workdir=x', tmp_path / 'a') == tmp_path
  assert not os.listdir(tmp_path)
  (tmp_path / 'file').touch()
  for path, message in (
    (tmp_path / 'file', '--workdir=x is a file'),
    (tmp_path / 'file' / 'a', '--workdir=x is below the file'),
    ('a' * 5000, '--workdir=x is not a path'),
    ('/proc/x', '--workdir=x cannot be written to'),
  ):
    refuses(message, files.check_writable, '--workdir=x', path)
