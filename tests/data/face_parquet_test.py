"""Tests of jacsup_jax.data.face_parquet, by `celeba.find_source`."""

import sys

import numpy as np
import pytest
import tiny_faces

from jacsup_jax.core import errors
from jacsup_jax.data import celeba

pyarrow = pytest.importorskip('pyarrow', reason='needs the extra `parquet`')
parquet = pytest.importorskip('pyarrow.parquet')

SPLIT_ROWS = {'train': tiny_faces.TRAIN, 'valid': [2, 7, 10], 'test': [5]}


def _columns(rows, convert=bool, image='struct'):
  contents = [tiny_faces.encode(tiny_faces.IMAGES[row]) for row in rows]
  if image == 'struct':
    contents = [
      {'bytes': content, 'path': f'{row}.png'}
      for row, content in zip(rows, contents)
    ]
  labels = tiny_faces.LABELS[rows]
  return {
    'image': contents,
    'celeb_id': [100 + row for row in rows],
    'prompt': [f'a face {row}' for row in rows],
    **{
      name: [convert(value > 0) for value in labels[:, i]]
      for i, name in enumerate(tiny_faces.ATTRIBUTES)
    },
  }


def _write(path, columns):
  path.parent.mkdir(parents=True, exist_ok=True)
  parquet.write_table(pyarrow.table(columns), path, row_group_size=3)


def _refuses(message, data_dir):
  with pytest.raises(errors.InputError, match=f'^.*{message}.*$'):
    celeba.find_source(data_dir, 16)


@pytest.mark.parametrize(
  ('name', 'convert', 'image'),
  [
    ('data/{}-00000-of-00001.parquet', bool, 'struct'),
    ('default/{}/0000.parquet', lambda x: 1 if x else -1, 'struct'),
    ('celeba_{}.parquet', float, 'bytes'),
    ('{}.parquet', lambda x: 'True' if x else 'False', 'bytes'),
  ],
)
def test_files_of_a_hub_hold_all_faces(tmp_path, name, convert, image):
  for split, rows in SPLIT_ROWS.items():
    _write(tmp_path / name.format(split), _columns(rows, convert, image))
  source = celeba.find_source(tmp_path, 16)
  assert source.attribute_names == tiny_faces.ATTRIBUTES
  [note] = source.notes
  assert "no attributes: 'celeb_id', 'prompt'" in note
  for split, rows in zip(celeba.SPLITS, SPLIT_ROWS.values()):
    images, labels, _ = zip(*source.generate(split))
    np.testing.assert_array_equal(images, tiny_faces.IMAGES[rows, 2:-2])
    np.testing.assert_array_equal(labels, tiny_faces.LABELS[rows])
  keys = [source.key]
  columns = _columns(SPLIT_ROWS['test'], convert, image)
  columns['prompt'] = ['another']
  _write(tmp_path / name.format('test'), columns)
  assert celeba.find_source(tmp_path, 16).key not in keys


def test_a_file_without_splits_is_split_by_a_seed(tmp_path):
  path = tmp_path / 'faces.parquet'
  rows = [*range(12)] * 2
  _write(path, _columns(rows))
  source = celeba.find_source(path, 16)
  assert source.notes[-1].endswith('20 train, 2 validation, 2 test.')
  found = [x for split in celeba.SPLITS for x in source.generate(split)]
  assert len({x.source for x in found}) == 24
  for image, labels, _ in found:
    row = tiny_faces.find_row(image)
    np.testing.assert_array_equal(labels, tiny_faces.LABELS[row])


def test_a_column_may_name_the_splits_and_a_struct_hold_attributes(tmp_path):
  columns = _columns(range(12))
  names = ('train', 'validation', 'test')
  columns['split'] = [names[part] for part in tiny_faces.PARTITIONS]
  columns['about'] = [
    {name: bool(columns[name][row]) for name in tiny_faces.ATTRIBUTES[1:]}
    for row in range(12)
  ]
  for name in tiny_faces.ATTRIBUTES[1:]:
    del columns[name]
  _write(tmp_path / 'x.parquet', columns)
  source = celeba.find_source(tmp_path, 16)
  assert source.attribute_names == tiny_faces.ATTRIBUTES
  labels = [x.attributes for x in source.generate('validation')]
  np.testing.assert_array_equal(labels, tiny_faces.LABELS[[2, 7, 10]])


def test_a_missing_picture_is_a_bad_one(tmp_path):
  columns = _columns(range(12))
  columns['image'][3] = None
  _write(tmp_path / 'train.parquet', columns)
  with pytest.raises(errors.InputError, match=r'train.parquet:3 cannot be dec'):
    [*celeba.find_source(tmp_path, 16).generate('train')]
  source = celeba.find_source(tmp_path, 16, True)
  faces = [x for split in celeba.SPLITS for x in source.generate(split)]
  assert [x for x in faces if isinstance(x, str)] == ['train.parquet:3']


def test_what_does_not_fit(tmp_path, monkeypatch):
  path = tmp_path / 'a.parquet'
  path.write_bytes(b'words')
  _refuses('a.parquet is damaged', tmp_path)
  columns = _columns(range(12))
  _write(path, {'image': columns['image'], 'prompt': columns['prompt']})
  _refuses("has the columns 'prompt'; .*attributes, each a column", tmp_path)
  _write(path, {'Male': columns['Male']})
  _refuses("columns 'Male', none of pictures", tmp_path)
  _write(path, columns)
  _write(tmp_path / 'b.parquet', {**columns, 'more': columns['Male']})
  _refuses('b.parquet has other columns than', tmp_path)
  monkeypatch.setitem(sys.modules, 'pyarrow', None)
  _refuses('needs pyarrow, .*pip install pyarrow', tmp_path)
