"""Tests of jacsup_jax.data.face_lists."""

import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import face_lists

LIST = '2\nHat Tie\na.jpg 1 -1\nb.jpg -1 -1\n'
CSV = 'file;Hütchen\nfüße.jpg;1\nb.jpg;0\n'


@pytest.mark.parametrize(
  'text',
  [LIST, LIST.replace('\n', '\n\n'), '\n' + LIST, '2\n \n' + LIST[2:]],
  ids=['official', 'empty lines', 'an empty line first', 'one of spaces'],
)
def test_empty_lines_of_a_list_do_not_count(text):
  found = face_lists.read_attributes('x', text.encode())
  assert found.names == ('Hat', 'Tie') and found.images == ['a.jpg', 'b.jpg']
  assert found.values.tolist() == [[1, -1], [-1, -1]]
  assert face_lists.read_splits('x', b'\na.jpg 0\n\nb.jpg 2\n') == {
    'a.jpg': 'train',
    'b.jpg': 'test',
  }


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
@pytest.mark.parametrize('start', ['', 'sep=;\n', '\n'])
def test_lists_of_excel_are_read(encoding, start):
  content = (start + CSV).replace('\n', '\r\n').encode(encoding)
  found = face_lists.read_attributes('x', content)
  assert found.names == ('Hütchen',)
  assert found.images == ['füße.jpg', 'b.jpg']
  assert found.values.tolist() == [[1], [-1]]


@pytest.mark.parametrize(
  ('text', 'number'),
  [
    ('sep=;\nfile;hat\na.jpg;1\nb.jpg;maybe\nc.jpg;0\n', 4),
    ('\n2\nHat Tie\na.jpg 1 -1\n\nb.jpg -1 maybe\n', 6),
  ],
)
def test_mistakes_are_named_by_their_line_in_the_file(text, number):
  with pytest.raises(errors.InputError, match=f'x line {number}: .*maybe'):
    face_lists.read_attributes('x', text.encode())


@pytest.mark.parametrize('content', [b'', b'\n\n', b'sep=;', b'\0\xff\x9d' * 9])
def test_what_is_no_list_is_refused(content):
  with pytest.raises(errors.InputError):
    face_lists.read_attributes('x', content)
