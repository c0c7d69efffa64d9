"""Tests of jacsup_jax.data.celeba."""

import numpy as np
import pytest
import tiny_faces

from jacsup_jax.core import errors
from jacsup_jax.data import celeba

ATTRIBUTE_FILE = 'list_attr_celeba.txt'
PARTITION_FILE = 'list_eval_partition.txt'


@pytest.fixture
def folder(tmp_path):
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_images(tmp_path)
  return tmp_path


def _open(data_dir, skip_bad_images=False):
  return celeba.find_source(data_dir, 16, skip_bad_images)


def _refuses(message, data_dir):
  with pytest.raises(errors.InputError, match=f'^.*{message}.*$'):
    _open(data_dir)


def _replace_line(path, number, line):
  lines = path.read_text().split('\n')
  lines[number - 1] = line
  path.write_text('\n'.join(lines))


@pytest.mark.parametrize(
  ('places', 'data_dir'),
  [(('.', '.'), '.'), (('Anno', 'Eval'), 'Img/x.zip')],
)
def test_all_layouts_hold_the_same(places, data_dir, tmp_path):
  tiny_faces.write_lists(tmp_path, *places)
  if data_dir.endswith('.zip'):
    # Without a folder, and with what macOS adds.
    extra = [('.DS_Store', b''), ('__MACOSX/._000001.png', b'x')]
    tiny_faces.write_archive(tmp_path / data_dir, prefix='', extra=extra)
  else:
    tiny_faces.write_images(tmp_path)
  source = _open(tmp_path / data_dir)
  assert source.attribute_names == tiny_faces.ATTRIBUTES
  for split, rows in zip(celeba.SPLITS, (tiny_faces.TRAIN, [2, 7, 10], [5])):
    images, labels, _ = zip(*source.generate(split))
    np.testing.assert_array_equal(labels, tiny_faces.LABELS[rows])
    # Rows 2 to -2 of 20x16 are the centre square.
    np.testing.assert_array_equal(images, tiny_faces.IMAGES[rows, 2:-2])


@pytest.mark.parametrize('archive', [False, True])
def test_key_changes_with_the_content(archive, tmp_path):
  tiny_faces.write_lists(tmp_path)
  path = tmp_path / 'img_align_celeba.zip'
  if archive:
    tiny_faces.write_archive(path)
  else:
    tiny_faces.write_images(tmp_path)
  keys = [_open(tmp_path).key]
  if archive:
    tiny_faces.write_archive(path, extra=[('.x', b'')])
    assert _open(tmp_path).key == keys[0]
  else:
    (tmp_path / 'img_align_celeba' / tiny_faces.NAMES[3]).write_bytes(b'')
    keys.append(_open(tmp_path).key)
  _replace_line(tmp_path / PARTITION_FILE, 1, f'{tiny_faces.NAMES[0]} 1')
  keys.append(_open(tmp_path).key)
  assert len(set(keys)) == len(keys)


def test_nothing_there(tmp_path):
  _refuses('needs --data_dir', None)
  _refuses(f'none has no {ATTRIBUTE_FILE}', tmp_path / 'none')
  tiny_faces.write_lists(tmp_path)
  _refuses('has no img_align_celeba', tmp_path)


@pytest.mark.parametrize(
  ('file', 'number', 'line', 'message'),
  [
    (ATTRIBUTE_FILE, 1, '<html>', 'begins with .*<html>.*12 lines follow'),
    (ATTRIBUTE_FILE, 2, 'Bald Male Bald', 'begins with .*each once'),
    (ATTRIBUTE_FILE, 2, 'Bald Male', 'line 3: .* 2 of -1, 1'),
    (ATTRIBUTE_FILE, 6, '000004.png 1 0 1', "line 6: found '000004.png 1 0"),
    (ATTRIBUTE_FILE, 7, '000001.png 1 1 1', 'line 7: .*each once'),
    (PARTITION_FILE, 2, '000002.png 3', "line 2: found '000002.png 3'"),
    (PARTITION_FILE, 3, '000099.png 0', "lacks '000003.png' and .*'000099.png"),
  ],
)
def test_damaged_lists(file, number, line, message, folder):
  _replace_line(folder / file, number, line)
  _refuses(f'{file} {message}', folder)


def test_images_that_do_not_fit_the_list(folder):
  images = folder / 'img_align_celeba'
  (images / '000003.png').rename(images / 'more.png')
  _refuses("lacks '000003.png' and has in addition 'more.png'", folder)
  extra = [('b/000001.png', b'')]
  tiny_faces.write_archive(folder / 'x.zip', extra=extra)
  _refuses("'000001.png' twice", folder / 'x.zip')


def test_a_damaged_entry_is_a_bad_image(tmp_path):
  tiny_faces.write_lists(tmp_path)
  path = tmp_path / 'img_align_celeba.zip'
  tiny_faces.write_archive(path)
  content = bytearray(path.read_bytes())
  # In the middle of the first image.
  content[200] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match='000001.png cannot be decoded'):
    list(_open(tmp_path).generate('train'))
  first, *_ = _open(tmp_path, skip_bad_images=True).generate('train')
  assert first == '000001.png'
