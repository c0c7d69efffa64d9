"""Tests of jacsup_jax.data.celeba."""

import zipfile

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


@pytest.fixture
def zipped(tmp_path):
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_archive(tmp_path / 'img_align_celeba.zip')
  return tmp_path


def _refuses(message, data_dir):
  with pytest.raises(errors.InputError, match=message) as error:
    celeba.open_folder(data_dir)
  assert '\n' not in str(error.value)


def _replace_line(path, number, line):
  lines = path.read_text().split('\n')
  lines[number - 1 : number] = [] if line is None else [line]
  path.write_text('\n'.join(lines))


# Values.


def test_lists_as_written(folder):
  opened = celeba.open_folder(folder)
  assert opened.attribute_names == tiny_faces.ATTRIBUTES
  assert opened.names == tiny_faces.NAMES
  assert opened.attributes.dtype == np.int8
  np.testing.assert_array_equal(
      opened.attributes, tiny_faces.make_attributes()
  )
  # The positions of 0, 1 and 2 in tiny_faces.PARTITIONS.
  assert opened.find('train').tolist() == [0, 1, 3, 4, 6, 8, 9, 11]
  assert opened.find('validation').tolist() == [2, 7, 10]
  assert opened.find('test').tolist() == [5]


# Invariants.


@pytest.mark.parametrize(
    ('attributes', 'partitions', 'images', 'data_dir'),
    [
        ('.', '.', 'img_align_celeba', '.'),
        ('.', '.', 'img_align_celeba.zip', '.'),
        ('.', '.', 'other.zip', 'other.zip'),
        ('Anno', 'Eval', 'Img/img_align_celeba.zip', '.'),
        ('Anno', 'Eval', 'Img/img_align_celeba', '.'),
        ('Anno', 'Eval', 'Img/x.zip', 'Img/x.zip'),
    ],
)
def test_all_layouts_hold_the_same(
    attributes, partitions, images, data_dir, tmp_path
):
  tiny_faces.write_lists(
      tmp_path, attribute_place=attributes, partition_place=partitions
  )
  if images.endswith('.zip'):
    tiny_faces.write_archive(tmp_path / images)
  else:
    tiny_faces.write_images((tmp_path / images).parent)
  opened = celeba.open_folder(tmp_path / data_dir)
  indices = np.array([7, 0, 7])
  for index, content in celeba.read_images(opened, indices):
    assert content == tiny_faces.encode(tiny_faces.make_images()[index])
  read = [index for index, _ in celeba.read_images(opened, indices)]
  assert read == indices.tolist()


def test_archives_without_a_folder_and_with_what_macos_adds(tmp_path):
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_archive(
      tmp_path / 'img_align_celeba.zip',
      prefix='',
      extra=[('.DS_Store', b''), ('__MACOSX/._000001.png', b'x')],
  )
  opened = celeba.open_folder(tmp_path)
  assert set(opened.members) == set(tiny_faces.NAMES)


@pytest.mark.parametrize('archive', [False, True])
def test_digest_changes_with_the_content(archive, tmp_path):
  tiny_faces.write_lists(tmp_path)
  if archive:
    path = tiny_faces.write_archive(tmp_path / 'img_align_celeba.zip')
  else:
    path = tiny_faces.write_images(tmp_path)
  digests = [celeba.open_folder(tmp_path).digest for _ in range(2)]
  assert digests[0] == digests[1]
  if archive:
    tiny_faces.write_archive(path, extra=[])
    assert celeba.open_folder(tmp_path).digest == digests[0]
  else:
    (path / tiny_faces.NAMES[3]).write_bytes(b'')
    digests.append(celeba.open_folder(tmp_path).digest)
  lists = tmp_path / PARTITION_FILE
  _replace_line(lists, 1, f'{tiny_faces.NAMES[0]} 1')
  digests.append(celeba.open_folder(tmp_path).digest)
  assert len(set(digests)) == len(digests) - 1


# Bad input.


def test_nothing_there(tmp_path):
  _refuses('none is neither a folder nor a zip', tmp_path / 'none')
  _refuses(f'has no {ATTRIBUTE_FILE}: looked for .*Anno', tmp_path)
  tiny_faces.write_lists(tmp_path)
  _refuses('has no img_align_celeba: looked for .*celeba.zip', tmp_path)
  (tmp_path / PARTITION_FILE).unlink()
  _refuses(f'has no {PARTITION_FILE}: looked for .*Eval', tmp_path)


@pytest.mark.parametrize(
    ('number', 'line', 'message'),
    [
        (1, 'Bald Male Smiling', "line 1: found 'Bald Male Smiling', exp"),
        (1, '<!DOCTYPE html>', "line 1: found '<!DOCTYPE html>', exp"),
        (1, '13', 'line 1 states 13 images, and 12 lines'),
        (2, None, 'line 2: found .*names of the'),
        (2, 'Bald Male Bald', 'line 2: found .*each once'),
        (2, 'Bald Male', 'line 3: found 3 values, expected 2'),
        (5, '000003.png 1 1', 'line 5: found 2 values, expected 3'),
        (5, '', 'line 5: found 0 values, expected 3'),
        (6, '000004.png 1 0 1', "line 6: found the value '0', acc.* -1 and 1"),
        (7, '000001.png 1 1 1', "line 7: '000001.png' comes a second time"),
        (8, None, 'line 1 states 12 images, and 11 lines'),
    ],
)
def test_damaged_attribute_file(number, line, message, folder):
  _replace_line(folder / ATTRIBUTE_FILE, number, line)
  _refuses(f'{ATTRIBUTE_FILE} {message}', folder)


@pytest.mark.parametrize(
    ('number', 'line', 'message'),
    [
        (2, '000002.png 3', "line 2: found '000002.png 3', expected .*0 .tra"),
        (2, '000002.png', 'line 2: found .*expected'),
        (3, '000099.png 0', f"line 3: '000099.png' is not in {ATTRIBUTE_FILE}"),
        (3, '000001.png 0', "line 3: '000001.png' comes a second time"),
        (4, None, "names 11 images and .* 12: missing are '000004.png'"),
    ],
)
def test_damaged_partition_file(number, line, message, folder):
  _replace_line(folder / PARTITION_FILE, number, line)
  _refuses(f'{PARTITION_FILE} {message}', folder)


def test_images_that_do_not_fit_the_list(folder):
  images = folder / 'img_align_celeba'
  for name in tiny_faces.NAMES[2:9]:
    (images / name).unlink()
  _refuses(
      f'holds 5 images and .*{ATTRIBUTE_FILE} names 12: missing are'
      " '000003.png', '000004.png', '000005.png', '000006.png', '000007.png'"
      r' \.\.\.$',
      folder,
  )
  (images / 'more.png').write_bytes(b'')
  _refuses("holds 6 images .*; unlisted are 'more.png'$", folder)


def test_archives_are_checked(zipped):
  # More of this is in files_test.
  path = zipped / 'img_align_celeba.zip'
  tiny_faces.write_archive(path, extra=[('../000013.png', b'')])
  _refuses('has the entry .*leads out of the folder', zipped)
  path.write_bytes(path.read_bytes()[:500])
  _refuses('is cut short or damaged', zipped)


def test_damaged_lists_never_raise_anything_else(folder):
  rng = np.random.default_rng(0)
  for name in (ATTRIBUTE_FILE, PARTITION_FILE):
    whole = (folder / name).read_bytes()
    for _ in range(60):
      content = bytearray(whole)
      content[rng.integers(len(whole))] = rng.integers(256)
      (folder / name).write_bytes(content)
      try:
        celeba.open_folder(folder)
      except errors.InputError as error:
        assert str(error).isprintable()
    (folder / name).write_bytes(whole)


def test_the_same_name_twice(zipped):
  tiny_faces.write_archive(
      zipped / 'img_align_celeba.zip', extra=[('b/000001.png', b'')]
  )
  _refuses("'b/000001.png': expected each name once", zipped)


def test_a_damaged_entry_has_no_content(zipped):
  path = zipped / 'img_align_celeba.zip'
  content = bytearray(path.read_bytes())
  with zipfile.ZipFile(path) as archive:
    info = archive.getinfo('img_align_celeba/000002.png')
  content[info.header_offset + 200] ^= 1
  path.write_bytes(content)
  opened = celeba.open_folder(zipped)
  contents = dict(celeba.read_images(opened, np.arange(12)))
  damaged = [index for index, content in contents.items() if content is None]
  assert damaged == [1]
