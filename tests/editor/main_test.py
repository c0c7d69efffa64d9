"""The command line of the editor; models are not trained."""

import re

import numpy as np
from PIL import Image
import pytest
import tiny_editors

from jacsup_jax.data import drawn_faces
from jacsup_jax.data import files
from jacsup_jax.editor import alignment
from jacsup_jax.editor import choices
from jacsup_jax.editor import main
from jacsup_jax.editor import model_files

SIZE = 16
NAMES = tiny_editors.ATTRIBUTES
OWN = tiny_editors.make_faces()
FACES = [
  drawn_faces.draw_face(*drawn_faces.sample(row, 'test'), SIZE)
  for row in range(4)
]
EDIT = ('--input=face.png', '--output=o.png')


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
  """A directory with a model and photos, in which commands are run."""
  model_files.write(tmp_path / 'model', OWN)
  monkeypatch.setattr(choices, 'DEMO', tmp_path / 'model')
  (tmp_path / 'photos').mkdir()
  Image.fromarray(FACES[0]).save(tmp_path / 'face.png')
  for face, name in zip(FACES, ('b.png', 'a.webp', 'c.PNG', '.d.png')):
    Image.fromarray(face).save(tmp_path / 'photos' / name, lossless=True)
  (tmp_path / 'photos' / 'notes.txt').write_text('of the user')
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def invoke(capsys):
  """Runs the command with arguments; returns status, stdout and stderr."""
  return lambda *args: (main.main(args), *capsys.readouterr())


def read(path):
  return np.asarray(Image.open(path))


def make_edit(image, keep_detail=0.0, **strengths):
  values = np.array([strengths.get(name, 0) for name in NAMES], np.float32)
  return OWN.edit(OWN.encode(image[None]), values, keep_detail)[0]


def test_a_single_edit(place, invoke):
  status, out, err = invoke(
      '--input=face.png', '--set=smiling:+2,mouth slightly open:-1',
      '--keep_detail=0.5', '--output=new/folder/out.png', '--workdir=model',
  )  # fmt: skip
  assert (status, err) == (0, '')
  assert out == 'saved new/folder/out.png: Smiling +2; Mouth_Slightly_Open -1\n'
  expected = make_edit(FACES[0], 0.5, Smiling=2, Mouth_Slightly_Open=-1)
  np.testing.assert_array_equal(read('new/folder/out.png'), expected)
  assert np.any(expected != make_edit(FACES[0], 0.5))
  assert [path.name for path in (place / 'new/folder').iterdir()] == ['out.png']


SWEEP, GRID = '--sweep=Smiling:-2:2:3', '--grid=Smiling:-2:2:3,Bald:0:1:2'


@pytest.mark.parametrize(('flag', 'rows'), [(SWEEP, (0,)), (GRID, (1, 0))])
def test_a_strip_and_a_grid(invoke, flag, rows):
  status, out, _ = invoke(*EDIT, flag)
  assert status == 0 and ('Bald +0, +1 upwards' in out) == (len(rows) > 1)
  assert 'o.png: Smiling -2, +0, +2 from left to right' in out
  expected = [
    [make_edit(FACES[0], Bald=bald, Smiling=s) for s in (-2, 0, 2)]
    for bald in rows
  ]
  np.testing.assert_array_equal(
    read('o.png'), np.vstack([np.hstack(row) for row in expected])
  )


def test_a_sweep_as_an_animation_that_plays_there_and_back(invoke):
  assert invoke(EDIT[0], '--output=o.gif', SWEEP)[::2] == (0, '')
  with Image.open('o.gif') as found:
    assert (found.format, found.n_frames) == ('GIF', 4)


def test_a_sample_of_the_demo_model_and_its_export(invoke):
  args = '--input=sample:3', '--keep_detail=1', '--output=o.png'
  assert invoke(*args)[::2] == (0, '')
  np.testing.assert_array_equal(read('o.png'), FACES[3])
  path = 'new/x.safetensors'
  assert invoke(f'--export={path}') == (0, f'saved tiny faces in {path}\n', '')
  assert model_files.read(path).units == OWN.units


def test_places_are_expanded(place, invoke, monkeypatch):
  monkeypatch.setenv('HOME', str(place))
  monkeypatch.setenv('PHOTOS', str(place / 'photos'))
  status, out, _ = invoke(
    '--workdir=~/model', '--input=$PHOTOS', '--output=~/edits'
  )
  assert status == 0 and f'saved 3 in {place}/edits' in out
  assert sorted(path.name for path in place.iterdir()) == [
    *('edits', 'face.png', 'model', 'photos')
  ]


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('--export=x.pth',), '--export=x.pth ends in .pth; accepted: .*safeten'),
    (('--export=photos',), '--export=photos ends in nothing'),
    ((EDIT[0], '--output=face.png/o.png'), 'face.png is a file'),
    ((EDIT[0], '--output=folder.png'), 'folder.png is a directory'),
    ((EDIT[0], f'--output={"a" * 300}.png'), 'cannot be written'),
    (('--input=photos', '--output=face.png/x'), 'is below the file'),
    ((EDIT[0], '--output=gs://a/o.png'), 'is on another machine'),
  ],
)
def test_outputs_are_tried_before_a_model_is_loaded(
  place, invoke, monkeypatch, flags, message
):
  (place / 'folder.png').mkdir()
  before = sorted(place.rglob('*'))
  monkeypatch.setattr(choices, 'find', None)
  status, _, err = invoke(*flags)
  assert status == 2 and re.search(message, err) and err.count('\n') == 1
  assert sorted(place.rglob('*')) == before


def test_a_folder(place, invoke):
  args = '--input=photos', '--set=Bald:1', '--output=edits'
  status, out, err = invoke(*args)
  left_out = "note: left out 1 of 4 in photos, which are no pictures: 'notes.t"
  assert status == 0 and err.startswith(left_out)
  assert 'saved 3 in edits: Bald +1' in out
  assert 'photos/a.webp -> edits/a.png\nphotos/b.png -> edits/b.png' in out
  for name, face in zip('ba', FACES):
    np.testing.assert_array_equal(
      read(place / 'edits' / f'{name}.png'), make_edit(face, Bald=1)
    )
  # Bad photos are noted; names that differ in their endings are kept apart.
  (place / 'photos/b.png').write_bytes(b'words')
  (place / 'photos/A.jpg').mkdir()
  status, out, err = invoke(*args[:2], '--output=others')
  assert status == 2 and 'saved 2 in others' in out
  assert 'note: skipped: photos/b.png: This file is not an image we can' in err
  assert 'note: skipped: photos/A.jpg is a directory' in err
  assert 'error: 2 of 4 photos in --input=photos could not be edited' in err
  found = sorted(path.name for path in (place / 'others').iterdir())
  assert found == ['a.webp.png', 'c.PNG.png']


def test_align(place, invoke, monkeypatch):
  square = np.full((32, 32, 3), 70, np.uint8)
  args = *EDIT, '--align', '--keep_detail=1'
  monkeypatch.setattr(alignment, 'find_aligner', lambda: lambda image: square)
  assert invoke(*args)[::2] == (0, '')
  assert np.all(read('o.png') == 70)
  model_files.write(place / 'digits', tiny_editors.make_digits())
  status, _, err = invoke(*args, '--workdir=digits')
  assert status == 2 and '--align needs a model of colour images' in err
  monkeypatch.setattr(alignment, 'find_aligner', lambda: lambda image: None)
  status, _, err = invoke(*args)
  assert status == 0 and err.startswith('note: face.png: no face found')
  np.testing.assert_array_equal(read('o.png'), FACES[0])
  monkeypatch.setattr(alignment, 'find_aligner', lambda: None)
  status, _, err = invoke(*args)
  assert status == 2 and "pip install 'jacsup_jax[align]'" in err


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (EDIT[:1], '--input with --output, or --export'),
        ((EDIT[0], '--export=x'), '--input with --output'),
        (('--input=empty', '--output=edits'), 'has no pictures'),
        (('--input=sample:1000', EDIT[1]), 'sample:0 to sample:999'),
        ((EDIT[0], '--output=o.txt'), 'ends in .png, .jpg'),
        ((EDIT[0], '--output=gs://a/o.png'), 'another machine'),
        ((EDIT[0], '--output=face.png'), 'is the input itself'),
        (('--input=photos', EDIT[1]), 'a folder for a folder'),
        (('--input=nothing/', '--output=edits'), '=nothing does not exist'),
        ((*EDIT, '--set=Smilin:1'), 'the nearest are Smiling'),
        ((*EDIT, '--sweep=Bald:0:1:3', '--grid=Bald:0:1:3'), 'one of them'),
        ((*EDIT, '--keep_detail=x'), "invalid float value: 'x'; accepted"),
        (('--serve', *EDIT), '--serve with --input'),
        ((*EDIT, '--runs_dir=photos'), '--runs_dir with --input'),
        (('--runs_dir=photos',), 'photos holds no run'),
        (('--runs_dir=face.png',), 'is not a folder; accepted'),
        (('--trusted_host=a b',), '--trusted_host'),
        (('--stage=teacher',), 'with --workdir=RUN'),
        ((EDIT[0], '--output=o.webp', '--sweep=Bald:0:1:9'), '99 a side'),
        ((EDIT[0], '--output=o.gif'), 'o.gif without --sweep; accepted'),
    ],
)  # fmt: skip
def test_mistakes(place, invoke, args, message, monkeypatch):
  (place / 'empty').mkdir()
  monkeypatch.setitem(main.pictures._KINDS, '.webp', ('WEBP', 99, {}))
  before = sorted(place.rglob('*'))
  status, _, err = invoke(*args)
  assert status == 2 and err.startswith('error: ') and message in err, err
  assert err.count('\n') == 1 and len(err) < 1000, err
  assert sorted(place.rglob('*')) == before


def test_an_output_that_cannot_be_written_is_one_line(
  place, invoke, monkeypatch
):
  monkeypatch.setattr(files, 'check_output', lambda *unused_args: None)
  (place / 'o.png').mkdir()  # After it was tried.
  status, _, err = invoke(*EDIT)
  assert status == 1 and err.count('\n') == 1 and 'o.png' in err
  assert not list(place.glob('.*'))
