"""Fuzz tests of the readers of data: arrays, archives, lists and pictures."""

import gzip
import io
import itertools
import os
import pathlib
import struct
import subprocess
import sys
import types as types_of_python
import warnings
import zipfile

import fuzzing
from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest
import tiny_faces

from jacsup_jax.core import errors
from jacsup_jax.data import array_file
from jacsup_jax.data import decoded
from jacsup_jax.data import face_folder
from jacsup_jax.data import face_records
from jacsup_jax.data import idx
from jacsup_jax.data import squares
from jacsup_jax.data.celeba_folder import celeba_folder_dataset_builder

ARCHIVE = 'img_align_celeba.zip'
ATTRIBUTES = 'list_attr_celeba.txt'
PARTITION = 'list_eval_partition.txt'
_numbers = itertools.count()


def _new(folder, content, suffix=''):
  """Writes a file under a new name: its message is to name no other."""
  path = folder / f'{next(_numbers)}{suffix}'
  path.write_bytes(content)
  return path


# .npz files.


def _arrays():
  return {
      'images': np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3),
      'labels': np.arange(4) % 2,
      'split': np.array(['train', 'test'] * 2),
  }


def _npz(arrays, save=np.savez):
  file = io.BytesIO()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    save(file, **arrays)
  return file.getvalue()


def _read_npz(path):
  found = fuzzing.read(lambda: array_file.read(path, 'train'), path)
  if found is not None:
    assert found.images.dtype == np.uint8 and found.images.ndim == 4
    assert found.labels.dtype == np.int32
    assert 0 <= found.labels.min() <= found.labels.max() < found.num_classes
    assert len(found.images) == len(found.labels)
  return found


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_npz(tmp_path, save):
  # A file whose copies of sizes and names differ is not the file of before.
  fuzzing.run(
      '.npz: damaged',
      fuzzing.bytes_of(_npz(_arrays(), save)),
      lambda content: _read_npz(_new(tmp_path, content, '.npz')),
  )


def test_npz_of_other_arrays(tmp_path):
  shapes = st.sampled_from([
      (4, 3, 3), (4, 3, 3, 1), (4, 3, 3, 3), (4, 3, 3, 2), (4,), (), (0,),
      (4, 0, 3), (2, 3, 3), (4, 1), (1,), (3, 3, 3, 3, 3),
  ])  # pyformat: disable
  dtypes = st.sampled_from([
      'u1', 'i1', '>i8', 'u8', 'f2', '>f4', 'f8', 'g', 'c8', '?', 'U5', 'S5',
      'U0', 'S0', 'V3', 'V0', 'M8[s]', 'm8[s]', 'O', 'i4,f4',
  ])  # pyformat: disable
  fills = st.sampled_from([
      0, 1, -1, 255, 256, 999, 1000, 2**63 - 1, 0.5, float('nan'),
      float('inf'), 'train', 'test', 'dev', 'tr\0in', '\n',
  ])  # pyformat: disable

  def make(case):
    shape, dtype, fill = case
    array = np.zeros(shape, dtype)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      try:
        array[...] = fill
      except (TypeError, ValueError, OverflowError):
        pass  # It stays zero.
    return array

  other = st.tuples(shapes, dtypes, fills).map(make)
  valid = _arrays()
  entries = {
      name: st.one_of(st.just(valid[name]), other) for name in valid
  } | {'num_classes': st.one_of(st.just(np.int64(2)), other)}
  fuzzing.run(
      '.npz: other arrays',
      # Each may also be missing.
      st.fixed_dictionaries({}, optional=entries),
      lambda arrays: _read_npz(_new(tmp_path, _npz(arrays), '.npz')),
  )


def _npy(header, data=b'', version=(1, 0)):
  """A .npy file of any header."""
  text = header.encode('latin-1', 'replace') + b'\n'
  size = '<H' if version == (1, 0) else '<I'
  return (
      b'\x93NUMPY' + bytes(version) + struct.pack(size, len(text)) + text + data
  )


def _with_npy(content, method=zipfile.ZIP_STORED):
  """An .npz file whose images are given as the bytes of their entry."""
  file = io.BytesIO(_npz({n: a for n, a in _arrays().items() if n != 'images'}))
  with zipfile.ZipFile(file, 'a', method) as archive:
    archive.writestr('images.npy', content)
  return file.getvalue()


def test_npz_of_other_headers(tmp_path):
  sizes = st.sampled_from([0, 1, 3, 4, -1, 2**31, 2**62, 2**64, 10**30, True])
  shape = st.one_of(
      st.lists(sizes, max_size=5).map(tuple).map(repr),
      st.sampled_from(['4', '[4, 3, 3]', 'None', '(4.0,)', '("4",)']),
  )
  descr = st.sampled_from([
      "'|u1'", "'<f8'", "'|O'", "'<U1000000000'", "'|V0'", "''", "'x'",
      "[('a', '|u1')]", "[('a', '|O')]", 'None', '(' * 90 + ')' * 90,
  ])  # pyformat: disable
  header = st.tuples(descr, st.sampled_from(['False', 'True', '0']), shape).map(
      '{{"descr": {0[0]}, "fortran_order": {0[1]}, "shape": {0[2]}}}'.format
  )
  header |= st.sampled_from([
      '', '{}', 'x' * 70_000, '[' * 5000, '{"descr": __import__("os")}'
  ])  # pyformat: disable
  fuzzing.run(
      '.npz: headers',
      st.tuples(
          header.filter(lambda text: len(text) < 2**16), st.binary(max_size=40),
          st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]),
          st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
      ),
      lambda case: _read_npz(
          _new(tmp_path, _with_npy(_npy(*case[:3]), case[3]), '.npz')
      ),
  )  # pyformat: disable


def _bomb(method):
  # A hundred megabytes of zeros: some hundred kilobytes when deflated.
  header = (
      '{"descr": "|u1", "fortran_order": False, "shape": (100, 1024, 1024)}'
  )
  return _with_npy(_npy(header, bytes(100 * 2**20)), method)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: _bomb(zipfile.ZIP_DEFLATED), 'would become 104,857,'),
        (lambda: _bomb(zipfile.ZIP_LZMA), 'compressed by method 14'),
        (
            lambda: _with_npy(
                _npy(
                    '{"descr": "|u1", "fortran_order": False,'
                    ' "shape": (1000000, 1000, 1000)}'
                )
            ),
            'its header states 1,000,000,000,000 bytes, 0 follow',
        ),
        (
            lambda: _with_npy(
                _npy('{"descr": "|O", "fortran_order": False, "shape": (1,)}')
            ),
            'Python objects, which are never read',
        ),
    ],
    ids=['bomb', 'method', 'header', 'objects'],
)
def test_npz_that_was_found_out(tmp_path, make, message):
  path = _new(tmp_path, make(), '.npz')
  with pytest.raises(errors.InputError, match=message):
    array_file.read(path, 'train')


def test_npz_of_an_entry_that_is_twice_there_or_encrypted(tmp_path):
  content = _npz(_arrays())
  with pytest.warns(UserWarning, match='Duplicate name'):
    double = io.BytesIO(content)
    with zipfile.ZipFile(double, 'a') as archive:
      archive.writestr('images.npy', b'')
  path = _new(tmp_path, double.getvalue(), '.npz')
  with pytest.raises(errors.InputError, match='there 2 times; accepted: once'):
    array_file.read(path, 'train')
  # The flag in the directory: eight bytes after the signature of an entry.
  spot = content.index(b'PK\x01\x02') + 8
  path = _new(
      tmp_path, content[:spot] + b'\x01' + content[spot + 1 :], '.npz'
  )
  with pytest.raises(errors.InputError, match='is encrypted'):
    array_file.read(path, 'train')


def test_npz_beyond_the_bound(tmp_path, monkeypatch):
  monkeypatch.setattr(array_file, '_LARGEST', 100)
  path = _new(tmp_path, _npz(_arrays()), '.npz')
  with pytest.raises(errors.InputError, match='accepted: 100 at most'):
    array_file.read(path, 'train')


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'long', 'nul', 'loop'])
def test_what_is_no_file(tmp_path, kind):
  path = tmp_path / 'it'
  if kind == 'pipe':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  elif kind == 'loop':
    path.symlink_to(path)
  else:
    path = tmp_path / ('x' * 5000 if kind == 'long' else 'x\0')
  readers = (
      lambda: array_file.read(path, 'train'),
      lambda: idx.read(path),
      lambda: idx.check_sha256(path.parent, {path.name: ''}),
      lambda: face_folder.open_folder(path),
  )
  for reader in readers:
    with fuzzing.limited(), pytest.raises(errors.InputError) as error:
      reader()
    fuzzing.check_message(str(error.value))


@pytest.mark.parametrize('reader', ['npz', 'idx', 'sha256', 'lists', 'images'])
def test_what_may_not_be_read(tmp_path, monkeypatch, reader):
  # As for users who are not root: permissions say so when it is opened.
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_images(tmp_path)
  path = _new(tmp_path, _npz(_arrays()), '.npz')

  def refuse(*unused_args, **unused_kwargs):
    raise PermissionError(13, 'Permission denied')

  if reader == 'images':
    monkeypatch.setattr(os, 'scandir', refuse)
  else:
    monkeypatch.setattr('builtins.open', refuse)
    monkeypatch.setattr(io, 'open', refuse)
  read = {
      'npz': lambda: array_file.read(path, 'train'),
      'idx': lambda: idx.read(path),
      'sha256': lambda: idx.check_sha256(tmp_path, {path.name: ''}),
      'lists': lambda: face_folder.open_folder(tmp_path),
      'images': lambda: face_folder.open_folder(tmp_path),
  }[reader]
  with pytest.raises(errors.InputError, match='Permission denied'):
    read()


def test_decoded_splits(tmp_path):
  (tmp_path / 'dataset_info.json').write_text('{}')
  valid = (np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.arange(3))
  decoded.load_or_make(tmp_path, 'train', lambda: valid)
  path = tmp_path / 'decoded_train.npz'

  def check(content):
    path.write_bytes(content)
    found = decoded.load_or_make(tmp_path, 'train', lambda: valid)
    for array, expected in zip(found, valid, strict=True):
      np.testing.assert_array_equal(array, expected)

  fuzzing.run(
      '.npz: decoded splits', fuzzing.bytes_of(path.read_bytes()), check
  )
  path.unlink()
  os.mkfifo(path)
  with fuzzing.limited():
    decoded.load_or_make(tmp_path, 'train', lambda: valid)


# IDX files.


def test_idx(tmp_path):
  content = bytes.fromhex('00000803 00000002 00000002 00000003') + bytes(12)
  big = bytes.fromhex('00000804') + b'\xff' * 16
  fuzzing.run(
      'IDX',
      st.one_of(
          fuzzing.bytes_of(gzip.compress(content, mtime=0)),
          fuzzing.bytes_of(content).map(gzip.compress),
          fuzzing.bytes_of(big).map(gzip.compress),
      ),
      lambda case: _read_idx(_new(tmp_path, case, '.gz')),
  )


def _read_idx(path):
  found = fuzzing.read(lambda: idx.read(path), path)
  assert found is None or found.dtype == np.uint8


@pytest.mark.parametrize(
    ('header', 'message'),
    [
        ('00000804' + 'ff' * 16, 'accepted: 1,073,741,824 at most'),
        ('000008ff' + '00' * 1020, 'states 255 dimensions'),
        ('00000800', 'states 0 dimensions'),
        # What goes on for ever is read as far as it says.
        ('00000801 00000002', 'and holds 3 bytes or more'),
    ],
)
def test_idx_that_was_found_out(tmp_path, header, message):
  content = gzip.compress(bytes.fromhex(header) + bytes(100 * 2**20))
  path = _new(tmp_path, content, '.gz')
  with pytest.raises(errors.InputError, match=message):
    idx.read(path)


# Folders of faces.


@pytest.fixture
def folder(tmp_path):
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_archive(tmp_path / ARCHIVE)
  return tmp_path


def _lines_of(text):
  """Draws a list like one, with lines or words changed."""
  lines = text.split('\n')
  words = st.sampled_from([
      '', '0', '1', '-1', '2', '3', '1.0', 'x', '000001.png', '../x', '\0',
      '\x85', '\u2028', '٣', '9' * 30, '9' * 5000, '-0', '+1', 'nan', '\r',
      'ø' * 300, '\ufeff', '1 ' * 2000,
  ])  # pyformat: disable

  def change(case):
    changed = list(lines)
    for kind, number, position, word in case:
      number %= len(changed)
      if kind == 'delete':
        del changed[number]
      elif kind == 'double':
        changed.insert(number, changed[number])
      elif kind == 'line':
        changed[number] = word
      else:
        parts = changed[number].split() or ['']
        parts[position % len(parts)] = word
        changed[number] = ' '.join(parts)
      changed = changed or ['']
    return '\n'.join(changed).encode()

  changes = st.lists(
      st.tuples(
          st.sampled_from(['word', 'word', 'line', 'delete', 'double']),
          st.integers(0, 20), st.integers(0, 5), words,
      ),
      min_size=1,
      max_size=3,
  )
  return st.one_of(changes.map(change), fuzzing.bytes_of(text.encode()))


@pytest.mark.parametrize(
    ('surface', 'name'),
    [('attribute files', ATTRIBUTES), ('partition files', PARTITION)],
)
def test_lists(folder, surface, name):
  path = folder / name

  def check(content):
    path.write_bytes(content)
    opened = fuzzing.read(
        lambda: face_folder.open_folder(folder), folder
    )
    if opened is not None:
      assert set(np.unique(opened.attributes)) <= {-1, 1}
      assert opened.attributes.shape == (
          len(opened.names), len(opened.attribute_names)
      )  # pyformat: disable

  fuzzing.run(surface, _lines_of(path.read_text()), check)


def test_lists_beyond_the_bounds(folder, monkeypatch):
  names = ' '.join(f'a{i}' for i in range(1001))
  path = folder / ATTRIBUTES
  text = path.read_text().split('\n')
  path.write_text('\n'.join([text[0], names, *text[2:]]))
  with pytest.raises(errors.InputError, match='1001 names, accepted are 1000'):
    face_folder.open_folder(folder)
  monkeypatch.setattr(face_folder, '_LONGEST_LIST', 100)
  with pytest.raises(errors.InputError, match='accepted: 100 at most'):
    face_folder.open_folder(folder)


def _open_and_read(folder):
  opened = face_folder.open_folder(folder)
  for index, content in face_folder.read_images(opened, opened.find('train')):
    assert content is None or isinstance(content, bytes), index
  return opened


def test_archives(folder):
  path = folder / ARCHIVE
  valid = path.read_bytes()
  names = st.one_of(
      st.sampled_from([
          '../x', '/x', 'C:\\x', 'a/../../x', '', '.', '..', 'a/', '\0', 'x\0y',
          'a\nb', 'ø' * 300, 'con', '__MACOSX/x', '.DS_Store', 'x' * 60_000,
          '000001.png', 'b/000001.png', '\ud800'.encode(errors='ignore'),
      ]).filter(lambda name: isinstance(name, str)),
      st.text(max_size=8),
  )  # pyformat: disable
  modes = st.sampled_from([0, 0o100644, 0o120777, 0o40755, 0o10644, 0o20644])

  def extend(case):
    name, mode = case
    try:
      info = zipfile.ZipInfo(name)
      info.external_attr = mode << 16
      file = io.BytesIO(valid)
      with warnings.catch_warnings(), zipfile.ZipFile(file, 'a') as archive:
        warnings.simplefilter('ignore')
        archive.writestr(info, b'x')
    except (ValueError, IndexError):
      return b''  # zipfile does not write such a name.
    return file.getvalue()

  def check(content):
    path.write_bytes(content)
    fuzzing.read(lambda: _open_and_read(folder), folder)

  fuzzing.run(
      'zips of images',
      st.one_of(fuzzing.bytes_of(valid), st.tuples(names, modes).map(extend)),
      check,
  )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'external_attr': 0o120777 << 16}, 'is a link'),
        ({'compress_type': zipfile.ZIP_LZMA}, 'compressed by method 14'),
        ({'flag_bits': 1}, 'is encrypted'),
    ],
)
def test_entries_that_are_no_pictures(folder, change, message):
  path = folder / ARCHIVE
  with zipfile.ZipFile(path, 'a') as archive:
    for info in archive.infolist():
      for name, value in change.items():
        setattr(info, name, value)
    archive.writestr('x', b'')  # The directory is written again.
  with pytest.raises(errors.InputError, match=message):
    face_folder.open_folder(folder)


@pytest.mark.parametrize('archive', [True, False])
def test_entries_that_are_too_large(tmp_path, monkeypatch, archive):
  tiny_faces.write_lists(tmp_path)
  if archive:
    tiny_faces.write_archive(tmp_path / ARCHIVE)
  else:
    tiny_faces.write_images(tmp_path)
  monkeypatch.setattr(face_folder, '_LARGEST_IMAGE', 50)
  with pytest.raises(errors.InputError, match='50 .*at most'):
    _open_and_read(tmp_path)


def test_prepared_faces_without_notes():
  builder = types_of_python.SimpleNamespace(
      data_dir='it', info=types_of_python.SimpleNamespace(metadata=None)
  )
  for metadata in (None, {}, {'train': None}, {'train': {'skipped': []}}):
    builder.info.metadata = metadata
    with pytest.raises(errors.InputError, match="no notes of its split 'train'"):
      face_records.read_notes(builder, 'train')


# Pictures.


def _pictures():
  image = Image.fromarray(tiny_faces.make_images()[0])
  for kind in ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP'):
    file = io.BytesIO()
    image.save(file, format=kind)
    yield kind, file.getvalue()


def _decode(content):
  try:
    found = squares.decode(content, 8, 'it')
  except (squares.BadImageError, errors.InputError) as error:
    assert str(error).strip() and '\n' not in str(error)
  else:
    assert found.shape == (8, 8, 3) and found.dtype == np.uint8


@pytest.mark.filterwarnings(r'ignore::UserWarning:PIL\..*')
@pytest.mark.filterwarnings('error::PIL.Image.DecompressionBombWarning')
def test_pictures():
  cases = [fuzzing.bytes_of(content) for _, content in _pictures()]
  fuzzing.run('pictures', st.one_of(*cases), _decode)


def test_damaged_entries_are_damaged_pictures():
  with pytest.raises(squares.BadImageError, match='entry in the archive'):
    celeba_folder_dataset_builder._prepare_image(None, 8, 'it')


def test_damaged_pictures_are_no_warnings(tmp_path):
  tiff = bytearray(dict(_pictures())['TIFF'])
  # Its directory states more entries than there are.
  start = int.from_bytes(tiff[4:8], 'little')
  tiff[start : start + 2] = b'\xff\xff'
  contents = [bytes(tiff), _png(_header(10_000, 10_000), (b'IDAT', b''))]
  program = [
      'import sys',
      'from jacsup_jax.data import squares',
      'for name in sys.argv[1:]:',
      '  try:',
      '    squares.decode(open(name, "rb").read(), 8, name)',
      '  except squares.BadImageError:',
      '    print("refused")',
  ]
  paths = [_new(tmp_path, content) for content in contents]
  done = subprocess.run(
      [sys.executable, '-c', '\n'.join(program), *map(str, paths)],
      cwd=pathlib.Path(__file__).parents[1],
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout.endswith('refused\n') and done.stderr == ''


def _png(*chunks):
  return b'\x89PNG\r\n\x1a\n' + b''.join(
      idx._png_chunk(kind, content) for kind, content in chunks
  )


def _header(width, height):
  return b'IHDR', struct.pack('>II5B', width, height, 8, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        # Above our bound, Pillow's, twice Pillow's, and all bounds.
        (_png(_header(9000, 8000), (b'IDAT', b'')), '9000x8000 pixels'),
        (_png(_header(10_000, 10_000), (b'IDAT', b'')), 'pixels'),
        (_png(_header(20_000, 20_000), (b'IDAT', b'')), 'pixels'),
        (_png(_header(2**31 - 1, 2**31 - 1), (b'IDAT', b'')), 'pixels'),
        # A text that inflates to a hundred megabytes.
        (
            _png(
                _header(16, 16),
                (
                    b'zTXt',
                    b'a\0\0' + gzip.zlib.compress(bytes(100 * 2**20), 9),
                ),
                (b'IDAT', gzip.zlib.compress(bytes(16 * 49))),
                (b'IEND', b''),
            ),
            '.',
        ),
        # Pillow would run another program for this.
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n', 'is none of'),
    ],
    ids=['ours', 'warned of', 'refused', 'all', 'text', 'program'],
)
@pytest.mark.filterwarnings('error::PIL.Image.DecompressionBombWarning')
def test_pictures_that_were_found_out(content, message):
  with fuzzing.limited(), pytest.raises(squares.BadImageError, match=message):
    squares.decode(content, 8, 'it')


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP'])
def test_whole_pictures_are_read(kind):
  content = dict(_pictures())[kind]
  assert squares.decode(content, 8, 'it').shape == (8, 8, 3)
