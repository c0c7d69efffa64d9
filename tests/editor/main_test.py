"""The command line of the editor; models are not trained."""

import numpy as np
from PIL import Image
import pytest
import tiny_editors

from jacsup_jax.data import drawn_faces
from jacsup_jax.editor import alignment
from jacsup_jax.editor import choices
from jacsup_jax.editor import main
from jacsup_jax.editor import model_files
from jacsup_jax.editor import outputs
from jacsup_jax.editor import photos
from jacsup_jax.figures import pictures

SIZE = 16
NAMES = tiny_editors.ATTRIBUTES


@pytest.fixture(scope='module')
def own():
  return tiny_editors.make_faces(SIZE)


@pytest.fixture
def place(tmp_path, monkeypatch, own):
  """A directory with models and photos, in which commands are run."""
  model_files.write(tmp_path / 'model', own)
  faces = [
    Image.fromarray(
      drawn_faces.draw_face(*drawn_faces.sample(row, 'test'), SIZE)
    )
    for row in range(4)
  ]
  faces[0].save(tmp_path / 'face.png')
  (tmp_path / 'photos').mkdir()
  for face, name in zip(faces, ('b.png', 'a.webp', 'c.PNG', '.d.png')):
    with open(tmp_path / 'photos' / name, 'wb') as file:
      face.save(file, 'WEBP' if 'webp' in name else 'PNG', lossless=True)
  (tmp_path / 'photos' / 'notes.txt').write_text('of the user')
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def invoke(capsys):
  """Runs the command with arguments; returns status, stdout and stderr."""

  def run(*args, workdir='model'):
    if workdir is not None and not any('--workdir' in arg for arg in args):
      args = (f'--workdir={workdir}', *args)
    status = main.main(args)
    return status, *capsys.readouterr()

  return run


def read(path):
  return np.asarray(Image.open(path))


def make_edit(own, image, keep_detail=0.0, **strengths):
  values = np.array([strengths.get(name, 0) for name in NAMES], np.float32)
  return own.edit(own.encode(image[None]), values, keep_detail)[0]


def test_a_single_edit(place, invoke, own):
  status, out, err = invoke(
      '--input=face.png', '--set=smiling:+2,mouth slightly open:-1',
      '--keep_detail=0.5', '--output=new/folder/out.png',
  )  # fmt: skip
  assert (status, err) == (0, '')
  assert out == 'saved new/folder/out.png: Smiling +2; Mouth_Slightly_Open -1\n'
  image = read('face.png')
  expected = make_edit(own, image, 0.5, Smiling=2, Mouth_Slightly_Open=-1)
  np.testing.assert_array_equal(read('new/folder/out.png'), expected)
  assert np.any(expected != make_edit(own, image, 0.5))
  assert [path.name for path in (place / 'new/folder').iterdir()] == ['out.png']


def test_side_by_side(place, invoke, own):
  args = '--input=face.png', '--set=Bald:1', '--output=o.png'
  assert invoke(*args, '--side_by_side')[0] == 0
  image = read('face.png')
  expected = [
      image, make_edit(own, image), make_edit(own, image, Bald=1)
  ]  # fmt: skip
  np.testing.assert_array_equal(read('o.png'), np.hstack(expected))


@pytest.mark.parametrize('rows', [(), (1, 0)])
def test_a_strip_and_a_grid(place, invoke, own, rows):
  flags = (
    '--grid=Smiling:-2:2:3,Bald:0:1:2' if rows else '--sweep=Smiling:-2:2:3'
  )
  status, out, _ = invoke('--input=face.png', flags, '--output=o.png')
  assert status == 0 and ('Bald +0, +1 upwards' in out) == bool(rows)
  assert 'o.png: Smiling -2, +0, +2 from left to right' in out
  image = read('face.png')
  # Bald rises upwards.
  expected = [
    [make_edit(own, image, Bald=bald, Smiling=s) for s in (-2, 0, 2)]
    for bald in rows or (0,)
  ]
  np.testing.assert_array_equal(
    read('o.png'), np.vstack([np.hstack(row) for row in expected])
  )


def test_samples_of_the_demo_model(place, invoke, monkeypatch):
  monkeypatch.setattr(choices, 'DEMO', place / 'model')
  args = '--input=sample:7', '--keep_detail=1', '--output=o.png'
  assert invoke(*args, workdir=None)[0] == 0
  expected = drawn_faces.draw_face(*drawn_faces.sample(7, 'test'), SIZE)
  np.testing.assert_array_equal(read('o.png'), expected)


def test_export(place, invoke, own):
  status, out, _ = invoke('--export=new/whole')
  assert (status, out) == (0, 'saved tiny faces in new/whole\n')
  assert model_files.read('new/whole').units == own.units


def test_a_folder(place, invoke, own):
  status, out, err = invoke('--input=photos', '--set=Bald:1', '--output=edits')
  assert (status, err) == (0, '')
  assert out.splitlines() == [
    'photos/a.webp -> edits/a.png',
    'photos/b.png -> edits/b.png',
    'photos/c.PNG -> edits/c.png',
    'saved 3 in edits: Bald +1',
  ]
  for name, photo in (('a.png', 'a.webp'), ('b.png', 'b.png')):
    content = (place / 'photos' / photo).read_bytes()
    image = photos.read(content, own.image_shape, photo).image
    np.testing.assert_array_equal(
      read(place / 'edits' / name), make_edit(own, image, Bald=1)
    )


def test_a_bad_photo_is_a_note(place, invoke):
  (place / 'photos/b.png').write_bytes(b'words')
  (place / 'photos/bb.jpg').mkdir()
  status, out, err = invoke('--input=photos', '--output=edits')
  assert status == 2 and 'saved 2 in edits' in out
  assert (
    'note: skipped: photos/b.png: This file is not an image we can open (JPEG'
  ) in err
  assert 'note: skipped: photos/bb.jpg is a directory' in err
  assert 'error: 2 of 4 photos in --input=photos could not be edited' in err
  found = sorted(path.name for path in (place / 'edits').iterdir())
  assert found == ['a.png', 'c.png']


def test_names_that_differ_in_their_endings():
  assert outputs.name_outputs(['a.jpg', 'b.png']) == ['a.png', 'b.png']
  found = outputs.name_outputs(['a.jpg', 'A.png', 'a.jpg.png'])
  assert found == ['a.jpg.png', 'A.png.png', 'a.jpg.png.png']


def test_align(place, invoke, monkeypatch):
  square = np.full((32, 32, 3), 70, np.uint8)
  args = '--input=face.png', '--align', '--keep_detail=1', '--output=o.png'
  monkeypatch.setattr(alignment, 'find_aligner', lambda: lambda image: square)
  assert invoke(*args)[::2] == (0, '')
  assert np.all(read('o.png') == 70)
  monkeypatch.setattr(alignment, 'find_aligner', lambda: lambda image: None)
  status, _, err = invoke(*args)
  assert status == 0
  assert err == ('note: face.png: no face found; its centre square is taken.\n')
  np.testing.assert_array_equal(read('o.png'), read('face.png'))
  model_files.write(place / 'digits', tiny_editors.make_digits())
  status, _, err = invoke(*args, workdir='digits')
  assert (
    status == 2 and '--align with a model of grey images [28, 28, 1]' in err
  )
  monkeypatch.setattr(alignment, 'find_aligner', lambda: None)
  status, _, err = invoke(*args)
  assert status == 2 and "pip install 'jacsup_jax[align]'" in err


EDIT = ('--input=face.png', '--output=o.png')


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--input=face.png',), 'nothing to write'),
        (('--input=face.png', '--export=x'), '--input goes with --output'),
        (('--input=none.png', '--output=o.png'), 'none.png cannot be read'),
        (('--input=empty', '--output=edits'), 'has no pictures'),
        (('--input=sample:1000', '--output=o.png'), 'sample:0 to sample:999'),
        (('--input=face.png', '--output=o.txt'), 'ends in .png, .jpg'),
        (('--input=face.png', '--output=gs://a/o.png'), 'another machine'),
        (('--input=face.png', '--output=face.png'), 'is the input itself'),
        (('--input=photos', '--output=photos'), 'is the input itself'),
        (('--input=photos', '--output=o.png'), 'a folder for a folder'),
        ((*EDIT, '--set=Smilin:1'), 'the nearest are Smiling'),
        ((*EDIT, '--sweep=Bald:0:1:3', '--grid=Bald:0:1:3'), 'one of them'),
        ((*EDIT, '--sweep=Bald:0:1:3', '--side_by_side'), 'one of them'),
        ((*EDIT, '--keep_detail=nan'), '--keep_detail is nan'),
        ((*EDIT, '--keep_detail=x'), "invalid float value: 'x'; accepted"),
        (('--serve', *EDIT), '--serve with --input'),
        ((EDIT[0], '--output=o.webp', '--sweep=Bald:0:1:9'), '99 a side'),
    ],
)  # fmt: skip
def test_mistakes(place, invoke, args, message, monkeypatch):
  (place / 'empty').mkdir()
  monkeypatch.setitem(pictures._KINDS, '.webp', ('WEBP', 99, {}))
  before = sorted(place.rglob('*'))
  status, _, err = invoke(*args)
  assert status == 2, err
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert message in err and len(err) < 1000, err
  assert sorted(place.rglob('*')) == before


def test_an_output_is_replaced_whole_or_not_at_all(place, invoke, monkeypatch):
  (place / 'o.png').write_bytes(b'before')

  def fail(*unused_args):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr('os.replace', fail)
    status, _, err = invoke(*EDIT)
  assert status == 1 and 'No space left' in err and err.count('\n') == 1
  assert (place / 'o.png').read_bytes() == b'before'
  assert not list(place.glob('.*'))
  assert invoke(*EDIT)[0] == 0
  assert read('o.png').shape == (SIZE, SIZE, 3)
