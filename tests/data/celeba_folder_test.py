"""Tests of jacsup_jax.data.celeba and face_files: CelebA in all its forms."""

import csv
import os
import shutil
import unicodedata
import zipfile

import numpy as np
from PIL import Image
import pytest
import tiny_faces

from jacsup_jax.core import errors
from jacsup_jax.data import celeba

ATTRIBUTE_FILE = 'list_attr_celeba.txt'
PARTITION_FILE = 'list_eval_partition.txt'
IMAGES = 'img_align_celeba'
SPLIT_ROWS = (tiny_faces.TRAIN, [2, 7, 10], [5])


@pytest.fixture
def folder(tmp_path):
  tiny_faces.write_lists(tmp_path)
  tiny_faces.write_images(tmp_path)
  return tmp_path


def _open(data_dir, *options):
  return celeba.find_source(data_dir, 16, *options)


def _refuses(message, data_dir, *options):
  with pytest.raises(errors.InputError, match=f'^.*{message}.*$') as info:
    _open(data_dir, *options)
  assert str(info.value).isprintable()


def _replace_line(path, number, line):
  lines = path.read_text().split('\n')
  lines[number - 1] = line
  path.write_text('\n'.join(lines))


def _check_whole(source):
  """Checks that a source has all faces in the official partitions."""
  assert source.attribute_names == tiny_faces.ATTRIBUTES
  assert source.splits == celeba.SPLITS
  for split, rows in zip(celeba.SPLITS, SPLIT_ROWS):
    images, labels, _ = zip(*source.generate(split))
    np.testing.assert_array_equal(labels, tiny_faces.LABELS[rows])
    # Rows 2 to -2 of 20x16 are the centre square.
    np.testing.assert_array_equal(images, tiny_faces.IMAGES[rows, 2:-2])


def _write_csv(path, header, rows, encoding='utf-8', **options):
  with open(path, 'w', newline='', encoding=encoding) as file:
    csv.writer(file, **options).writerows([header, *rows])


def _write_kaggle(folder, **options):
  """Writes the lists as Kaggle does."""
  folder.mkdir(exist_ok=True)
  rows = [[n, *v] for n, v in zip(tiny_faces.NAMES, tiny_faces.LABELS.tolist())]
  header = ['image_id', *tiny_faces.ATTRIBUTES]
  _write_csv(folder / 'list_attr_celeba.csv', header, rows, **options)
  rows = list(zip(tiny_faces.NAMES, tiny_faces.PARTITIONS))
  header = ['image_id', 'partition']
  _write_csv(folder / 'list_eval_partition.csv', header, rows, **options)
  (folder / 'list_bbox_celeba.csv').write_text('image_id,x_1\n000001.png,95\n')


def _nest(folder):
  """Moves the images into a folder of the same name, as Kaggle has them."""
  (folder / IMAGES).rename(folder / 'x')
  (folder / IMAGES).mkdir()
  (folder / 'x').rename(folder / IMAGES / IMAGES)


def _use_lists(folder, change):
  """Changes the bytes of both lists."""
  for name in (ATTRIBUTE_FILE, PARTITION_FILE):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def _use_kaggle(folder, **options):
  for name in (ATTRIBUTE_FILE, PARTITION_FILE):
    (folder / name).unlink()
  _write_kaggle(folder, **options)


def _add_junk(folder):
  for name in ('Thumbs.db', 'desktop.ini', '.DS_Store', 'readme.txt'):
    (folder / IMAGES / name).write_bytes(b'x')
  (folder / IMAGES / '.hidden').mkdir()


def _rename(folder, old, new):
  for path in (folder / IMAGES).iterdir():
    path.rename(path.with_name(path.name.replace(old, new)))


def _pack(folder, *names):
  """Packs files as archives of their names, one each."""
  for name in names:
    with zipfile.ZipFile(folder / f'{name}.zip', 'w') as archive:
      archive.write(folder / name, name)
    (folder / name).unlink()


def _pack_in_parts(folder):
  """Packs images in two archives, as drives do that limit their size."""
  for part in (0, 1):
    with zipfile.ZipFile(folder / f'{IMAGES}-00{part + 1}.zip', 'w') as archive:
      for name in tiny_faces.NAMES[part::2]:
        archive.write(folder / IMAGES / name, f'{IMAGES}/{name}')
  shutil.rmtree(folder / IMAGES)


def _move_below(folder):
  names = os.listdir(folder)
  (folder / 'celeba' / 'data').mkdir(parents=True)
  for name in names:
    (folder / name).rename(folder / 'celeba' / 'data' / name)


FORMS = {
  'as published': lambda folder: None,
  'Kaggle': lambda folder: (_use_kaggle(folder), _nest(folder)),
  'CSV with semicolons': lambda f: _use_kaggle(f, delimiter=';'),
  'CSV of a spreadsheet': lambda f: _use_kaggle(f, encoding='utf-8-sig'),
  'CSV in archives': lambda f: (
    _use_kaggle(f),
    _pack(f, 'list_attr_celeba.csv', 'list_eval_partition.csv'),
  ),
  'nested images': _nest,
  'folders deeper': _move_below,
  'byte order mark': lambda f: _use_lists(f, lambda x: b'\xef\xbb\xbf' + x),
  'UTF-16': lambda f: _use_lists(f, lambda x: x.decode().encode('utf-16')),
  'CRLF': lambda f: _use_lists(f, lambda x: x.replace(b'\n', b'\r\n')),
  'other files': _add_junk,
  'upper case': lambda f: _rename(f, '.png', '.PNG'),
  'folder of PNG': lambda f: (f / IMAGES).rename(f / f'{IMAGES}_png'),
  'other folder': lambda f: (f / IMAGES).rename(f / 'faces'),
  'listed as jpg': lambda f: _use_lists(f, lambda x: x.replace(b'png', b'jpg')),
  'archives in parts': _pack_in_parts,
  'link above': lambda f: (f / IMAGES / 'up').symlink_to(f),
  '0 and 1': lambda f: (f / ATTRIBUTE_FILE).write_text(
    (f / ATTRIBUTE_FILE).read_text().replace('-1', '0')
  ),
}


@pytest.mark.parametrize('form', FORMS)
def test_all_forms_hold_the_same(form, folder):
  FORMS[form](folder)
  source = _open(folder)
  _check_whole(source)
  assert not source.notes


@pytest.mark.parametrize(
  ('places', 'data_dir'), [(('.', '.'), '.'), (('Anno', 'Eval'), 'Img/x.zip')]
)
def test_all_layouts_hold_the_same(places, data_dir, tmp_path):
  tiny_faces.write_lists(tmp_path, *places)
  if data_dir.endswith('.zip'):
    # Without a folder, and with what macOS adds.
    extra = [('.DS_Store', b''), ('__MACOSX/._000001.png', b'x')]
    tiny_faces.write_archive(tmp_path / data_dir, prefix='', extra=extra)
  else:
    tiny_faces.write_images(tmp_path)
  _check_whole(_open(tmp_path / data_dir))


@pytest.mark.parametrize('deep', ['', 'celeba/'])
def test_one_archive_holds_everything(deep, tmp_path):
  tiny_faces.write_lists(tmp_path / 'lists')
  extra = [
    (deep + path.name, path.read_bytes())
    for path in (tmp_path / 'lists').iterdir()
  ]
  path = tmp_path / 'downloads' / 'archive.zip'
  prefix = f'{deep}{IMAGES}/{IMAGES}/'
  tiny_faces.write_archive(path, prefix=prefix, extra=extra)
  (tmp_path / 'downloads' / 'expenses.csv').write_text('a,b\n1,2\n')
  _check_whole(_open(path))


@pytest.mark.parametrize('archive', [False, True])
def test_key_changes_with_the_content(archive, tmp_path):
  tiny_faces.write_lists(tmp_path)
  path = tmp_path / f'{IMAGES}.zip'
  if archive:
    tiny_faces.write_archive(path)
  else:
    tiny_faces.write_images(tmp_path)
  keys = [_open(tmp_path).key]
  if archive:
    tiny_faces.write_archive(path, extra=[('.x', b'')])
    assert _open(tmp_path).key == keys[0]
  else:
    (tmp_path / IMAGES / tiny_faces.NAMES[3]).write_bytes(b'')
    keys.append(_open(tmp_path).key)
  _replace_line(tmp_path / PARTITION_FILE, 1, f'{tiny_faces.NAMES[0]} 1')
  keys.append(_open(tmp_path).key)
  assert len(set(keys)) == len(keys)


def test_nothing_there(tmp_path):
  _refuses('needs --data_dir', None)
  _refuses('none does not exist; accepted: .*list_attr', tmp_path / 'none')
  (tmp_path / 'notes').touch()
  _refuses("no list of attributes; found: 'notes'", tmp_path)
  _refuses('notes is a file ; accepted', tmp_path / 'notes')
  tiny_faces.write_lists(tmp_path)
  _refuses("none of the 12 pictures of .*'000001.png', .*no pict", tmp_path)


@pytest.mark.parametrize(
  ('file', 'number', 'line', 'message'),
  [
    (ATTRIBUTE_FILE, 1, '<html>', "line 2: found 'Bald Male Smiling'"),
    (ATTRIBUTE_FILE, 1, '13', 'begins with .13 / .*12 lines follow'),
    (ATTRIBUTE_FILE, 2, 'Bald Male Bald', 'begins with .*each once'),
    (ATTRIBUTE_FILE, 2, 'Bald Male', 'line 3: .*accepted: 3 fields'),
    (ATTRIBUTE_FILE, 6, '000004.png 1 0 1', "line 6: found '000004.png 1 0"),
    (ATTRIBUTE_FILE, 6, '000004.png 1 x 1', "line 6: found '000004.png 1 x"),
    (ATTRIBUTE_FILE, 7, '000001.png 1 1 1', 'line 7: .*each once'),
    (PARTITION_FILE, 2, '000002.png 3', "line 2: found '000002.png 3'"),
    (PARTITION_FILE, 3, '000099.png 0', "lacks '000003.png'"),
  ],
)
def test_damaged_lists(file, number, line, message, folder):
  _replace_line(folder / file, number, line)
  _refuses(f'{file} {message}', folder)


def test_missing_images_are_refused_or_counted(folder):
  for name in tiny_faces.NAMES[::4]:
    (folder / IMAGES / name).unlink()
  message = "lacks 3 of 12 pictures .*'000001.png', .*--skip_missing_images"
  _refuses(message, folder)
  source = _open(folder, False, True)
  line = "Left out 3 pictures that are missing: '000001.png', '000005.png',"
  assert source.notes == (f"{line} '000009.png'.",)
  assert len([*source.generate('train')]) == 5


def test_images_in_no_list_are_counted(folder):
  shutil.copy(folder / IMAGES / '000003.png', folder / IMAGES / 'more.png')
  source = _open(folder)
  _check_whole(source)
  line = '1 pictures are in no list and are left out'
  assert source.notes == (f"{line}: '{IMAGES}/more.png'.",)


def test_a_name_of_two_images_is_refused(folder):
  (folder / IMAGES).rename(folder / 'a')
  shutil.copytree(folder / 'a', folder / 'b')
  _refuses("'000001.png' may be a/000001.png or b/000001.png", folder)


def test_a_damaged_entry_is_a_bad_image(tmp_path):
  tiny_faces.write_lists(tmp_path)
  path = tmp_path / f'{IMAGES}.zip'
  tiny_faces.write_archive(path)
  content = bytearray(path.read_bytes())
  # In the middle of the first image.
  content[200] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match='000001.png cannot be decoded'):
    list(_open(tmp_path).generate('train'))
  first, *_ = _open(tmp_path, True).generate('train')
  assert first == '000001.png'


@pytest.mark.parametrize(
  ('names', 'command'),
  [
    (['img_align_celeba_png.7z.001', 'img_align_celeba_png.7z.002'],
     '7z x img_align_celeba_png.7z.001'),
    ([f'{IMAGES}.7z'], f'7z x {IMAGES}.7z'),
    ([f'{IMAGES}.tar.gz'], f'tar xf {IMAGES}.tar.gz'),
    (['images.rar'], 'unrar x images.rar'),
    ([f'{IMAGES}.zip.001', f'{IMAGES}.zip.002'], f'7z x {IMAGES}.zip.001'),
    ([f'{IMAGES}.z01', f'{IMAGES}.zip'], f'7z x {IMAGES}.zip'),
  ],
)  # fmt: skip
@pytest.mark.parametrize('with_lists', [True, False])
def test_archives_that_are_not_read_say_what_unpacks_them(
  tmp_path, names, command, with_lists
):
  if with_lists:
    tiny_faces.write_lists(tmp_path)
  for name in names:
    (tmp_path / name).write_bytes(b'x')
  _refuses(f'packed archive .* Unpack it there: {command}', tmp_path)
  if not names[-1].endswith('zip'):
    _refuses(f'Unpack it there: {command}', tmp_path / names[0])


def _write_masked(folder):
  """Writes CelebAMask-HQ: without partitions, and with masks of parts."""
  tiny_faces.write_images(folder)
  (folder / IMAGES).rename(folder / 'CelebA-HQ-img')
  lines = ['12', ' '.join(tiny_faces.ATTRIBUTES)]
  for row, values in enumerate(tiny_faces.LABELS):
    old = folder / 'CelebA-HQ-img' / tiny_faces.NAMES[row]
    old.rename(old.with_name(f'{row}.jpg'))
    lines.append(f'{row}.jpg  ' + ' '.join(map(str, values)))
  (folder / 'CelebAMask-HQ-attribute-anno.txt').write_text('\n'.join(lines))
  (folder / 'CelebAMask-HQ-pose-anno.txt').write_text('12\nYaw\n0.jpg 3\n')
  (folder / 'CelebA-HQ-to-CelebA-mapping.txt').write_text('idx orig\n0 1\n')
  (folder / 'CelebAMask-HQ-mask-anno').mkdir()
  for name in ('0.png', '00001_hair.png'):
    (folder / 'CelebAMask-HQ-mask-anno' / name).write_bytes(b'x')


def test_lists_without_partitions_are_split_by_a_seed(tmp_path):
  _write_masked(tmp_path)
  source = _open(tmp_path)
  line = 'The lists give no splits; they are drawn: 10 train, 1 validation,'
  assert source.notes == (f'{line} 1 test.',)
  rows = {
    split: [tiny_faces.find_row(face.image) for face in source.generate(split)]
    for split in celeba.SPLITS
  }
  assert sorted(sum(rows.values(), [])) == [*range(12)]
  # Of `printf '0 NAME' | sha256sum`, 0.jpg has the least and 4.jpg the next.
  assert (rows['validation'], rows['test']) == ([0], [4])


@pytest.mark.parametrize(
  ('given', 'counts'),
  [
    ('train train val val', {'train': 2, 'validation': 2}),
    ('train train test test', {'train': 2, 'test': 2}),
    ('test test test test', {'test': 4}),
    ('train train train train', {'train': 2, 'validation': 1, 'test': 1}),
  ],
)
def test_splits_that_hold_out_images_stand(tmp_path, given, counts):
  _write_own(tmp_path, rows=4)
  rows = [
    (f'{"ab"[i % 2]}/{i // 2}.jpeg', i % 2, split)
    for i, split in enumerate(given.split())
  ]
  _write_csv(tmp_path / 'labels.csv', ('file', 'hat', 'split'), rows)
  source = _open(tmp_path)
  assert bool(source.notes) == (len(counts) == 3)
  found = {split: len([*source.generate(split)]) for split in source.splits}
  assert found == counts


def _write_own(folder, rows=12, header=('file', 'hat', 'tie'), **options):
  """Writes pictures of one's own and a list of what they show."""
  for row in range(rows):
    name = ('a', 'b')[row % 2]
    (folder / name).mkdir(exist_ok=True)
    (folder / name / f'{row // 2}.jpeg').write_bytes(
      tiny_faces.encode(tiny_faces.IMAGES[row])
    )
  lines = [
    (f'{"ab"[row % 2]}/{row // 2}.jpeg', row % 2, row % 3 == 0)
    for row in range(rows)
  ]
  _write_csv(folder / 'labels.csv', header, lines, **options)


@pytest.mark.parametrize('data_dir', ['.', 'labels.csv'])
def test_own_faces_with_a_list_of_any_attributes(tmp_path, data_dir):
  _write_own(tmp_path)
  source = _open(tmp_path / data_dir)
  assert source.attribute_names == ('hat', 'tie')
  faces = [x for split in celeba.SPLITS for x in source.generate(split)]
  for image, values, _ in faces:
    row = tiny_faces.find_row(image)
    assert values.tolist() == [2 * (row % 2) - 1, 2 * (row % 3 == 0) - 1]
  assert len(faces) == 12


def test_own_lists_may_have_more_columns_and_pictures_of_phones(tmp_path):
  image = Image.fromarray(tiny_faces.IMAGES[0].transpose(1, 0, 2))
  exif = Image.Exif()
  exif[0x0112] = 5  # Transposed.
  for row in range(6):
    image.save(tmp_path / f'{row}.png', exif=exif)
  header = ['', 'picture', 'age', 'Hat', 'split', 'Tie']
  splits = ['train', 'train', 'val', 'val', 'test', 'test']
  rows = [
    [row, f'C:\\photos\\{row}.png', 20 + row, x, splits[row], str(x == '1')]
    for row, x in enumerate('101010')
  ]
  _write_csv(tmp_path / 'my faces.csv', header, rows, delimiter='\t')
  source = _open(tmp_path)
  assert source.attribute_names == ('Hat', 'Tie')
  [note] = source.notes
  assert note.endswith("that are no attributes: 'age'.")
  for split in celeba.SPLITS:
    faces = [*source.generate(split)]
    assert [x.attributes.tolist() for x in faces] == [[1, 1], [-1, -1]]
    np.testing.assert_array_equal(faces[0].image, tiny_faces.IMAGES[0, 2:-2])


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('file,hat\na/0.jpeg,2\n', 'no column of an attribute'),
    ('file,hat\na/0.jpeg,1\nb/0.jpeg,maybe\na/1.jpeg,0\n', 'line 3: .*maybe'),
    ('a/0.jpeg,1\nb/0.jpeg,0\n', 'begins with'),
    ('file,hat\na/0.jpeg,1,1\n', 'line 2: .*2 fields'),
    ('file,hat,split\na/0.jpeg,1,rest\n', 'line 2: .*train, validation'),
    ('file,hat\na/0.jpeg,1\nb/0.jpeg,0\n', 'accepted: more than 2, of which'),
    ('file,hat\nx/7.jpeg,1\n', 'none of the 1 pictures'),
  ],
)
def test_own_lists_that_do_not_fit(tmp_path, content, message):
  _write_own(tmp_path)
  (tmp_path / 'labels.csv').write_text(content)
  _refuses(message, tmp_path)


def test_names_with_accents_are_found_as_macos_stores_them(tmp_path):
  _write_own(tmp_path)
  (tmp_path / 'a').rename(tmp_path / unicodedata.normalize('NFD', 'ä'))
  content = (tmp_path / 'labels.csv').read_text().replace('a/', 'ä/')
  (tmp_path / 'labels.csv').write_text(content, encoding='utf-8')
  source = _open(tmp_path)
  assert sum(len([*source.generate(x)]) for x in source.splits) == 12


def test_several_lists_are_named(tmp_path):
  _write_own(tmp_path)
  shutil.copy(tmp_path / 'labels.csv', tmp_path / 'old.csv')
  _refuses("several lists, 'labels.csv', 'old.csv'; accepted", tmp_path)
  assert _open(tmp_path / 'old.csv').attribute_names == ('hat', 'tie')
