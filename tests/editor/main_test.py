"""Tests of experiments.edit: the command line, its inputs and its outputs.

Models are not trained; the binary runs in this process, with flags of its own.
"""

import os
import sys

from absl.testing import flagsaver
import jax
import numpy as np
import own_flags
from PIL import Image
from PIL import ImageSequence
import pytest

from experiments import command_line
from experiments import edit
from experiments import edit_flags
from experiments import edit_inputs
from experiments import edit_outputs
from experiments import edit_requests
from experiments import edited_runs
from experiments import samples
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import photos
from jacsup_jax.editor import alignment
from jacsup_jax.editor import editor
from jacsup_jax.editor import editor_files
from jacsup_jax.models import autoencoders as networks

NAMES = ('Bald', 'Smiling', 'Wearing_Hat')
SIZE = 16


def make_editor():
  model = networks.FaceAutoencoder(
      len(NAMES), 2, image_size=SIZE, first_width=4, last_width=4
  )
  variables = networks.init_variables(model, 0)
  # Larger than those of a first step: moved units are to show.
  variables = variables | {
      'params': jax.tree.map(lambda x: 3 * x, variables['params'])
  }
  units = tuple(
      editor.Unit(name, editor.FACTOR, 0.0, 2.0, -2.0, 2.0) for name in NAMES
  )
  return editor.Editor(model, variables, units, is_signed=True, title='tiny')


def make_digits():
  model = networks.MlpAutoencoder(1, 1, widths=(4,))
  variables = networks.init_variables(model, 0)
  units = tuple(
      editor.Unit(name, kind, 0.0, 1.0, -2.0, 2.0)
      for name, kind in (('y1', editor.FACTOR), ('z1', editor.NUISANCE))
  )
  return editor.Editor(model, variables, units, is_signed=False)


@pytest.fixture(scope='module')
def own():
  return make_editor()


@pytest.fixture
def place(tmp_path, monkeypatch, own):
  """A directory with models and photos, in which commands are run."""
  editor_files.write(tmp_path / 'model', own)
  image = drawn_faces.draw_face(*drawn_faces.sample(0, 'test'), SIZE)
  Image.fromarray(image).save(tmp_path / 'face.png')
  (tmp_path / 'photos').mkdir()
  for index, name in enumerate(('b.png', 'a.webp', 'c.PNG', '.d.png')):
    face = drawn_faces.draw_face(*drawn_faces.sample(index, 'test'), SIZE)
    picture = Image.fromarray(face)
    with open(tmp_path / 'photos' / name, 'wb') as file:
      picture.save(file, 'WEBP' if 'webp' in name else 'PNG', lossless=True)
  (tmp_path / 'photos' / 'notes.txt').write_text('of the user')
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def invoke(monkeypatch, capsys):
  """Runs the binary with arguments; returns status, stdout and stderr."""

  def run(*args, workdir='model'):
    if workdir is not None:
      args = (f'--workdir={workdir}', *args)
    monkeypatch.setattr(sys, 'argv', ['experiments/edit.py', *args])
    with (
        own_flags.defined(edit_flags.define_flags),
        flagsaver.flagsaver(),
        pytest.raises(SystemExit) as exit_info,
    ):
      command_line.run(edit.main)
    return exit_info.value.code or 0, *capsys.readouterr()

  return run


def read(path):
  return np.asarray(Image.open(path))


def make_edit(own, image, strengths, keep_detail=0.0):
  encoded = own.encode(image[None])
  return own.edit(encoded, np.array(strengths, np.float32), keep_detail)[0]


# Value.


def test_a_single_edit(place, invoke, own):
  status, out, err = invoke(
      '--input=face.png', '--set=smiling:+2,Wearing hat:-1',
      '--keep_detail=0.5', '--output=new/folder/out.png',
  )  # pyformat: disable
  assert (status, err) == (0, '')
  assert out == 'saved new/folder/out.png: Smiling +2; Wearing_Hat -1\n'
  image = read('face.png')
  expected = make_edit(own, image, [0, 2, -1], 0.5)
  np.testing.assert_array_equal(read('new/folder/out.png'), expected)
  assert np.any(expected != make_edit(own, image, [0, 0, 0], 0.5))
  assert [path.name for path in (place / 'new/folder').iterdir()] == ['out.png']


def test_all_of_the_detail_is_the_photo(place, invoke):
  args = '--input=face.png', '--keep_detail=1', '--output=o.webp'
  assert invoke(*args)[0] == 0
  np.testing.assert_array_equal(read('o.webp'), read('face.png'))


def test_side_by_side(place, invoke, own):
  args = '--input=face.png', '--set=Bald:1', '--output=o.png'
  assert invoke(*args, '--side_by_side')[0] == 0
  image = read('face.png')
  expected = [
      image, make_edit(own, image, [0, 0, 0]), make_edit(own, image, [1, 0, 0])
  ]  # pyformat: disable
  np.testing.assert_array_equal(read('o.png'), np.hstack(expected))


def test_a_strip_and_its_animation(place, invoke, own):
  status, out, _ = invoke(
      '--input=face.png', '--sweep=Smiling:-3:3:3', '--set=Bald:1',
      '--output=o.png', '--animate=o.webp',
  )  # pyformat: disable
  assert status == 0
  assert 'saved o.png: Bald +1; Smiling -3, +0, +3 from left to right\n' in out
  expected = [make_edit(own, read('face.png'), [1, s, 0]) for s in (-3, 0, 3)]
  np.testing.assert_array_equal(read('o.png'), np.hstack(expected))
  frames = [
      np.asarray(frame.convert('RGB'))
      for frame in ImageSequence.Iterator(Image.open('o.webp'))
  ]
  np.testing.assert_array_equal(frames, [*expected, expected[1]])


def test_an_animation_alone(place, invoke):
  assert invoke(
      '--input=face.png', '--sweep=Smiling:-3:3:4', '--animate=o.gif'
  )[0] == 0
  assert Image.open('o.gif').n_frames == 6


def test_a_grid(place, invoke, own):
  status, out, _ = invoke(
      '--input=face.png', '--grid=Smiling:-2:2:3,Bald:0:1:2', '--output=o.png'
  )
  assert status == 0 and 'Bald +0, +1 upwards' in out
  # Bald rises upwards.
  expected = [
      [make_edit(own, read('face.png'), [b, s, 0]) for s in (-2, 0, 2)]
      for b in (1, 0)
  ]
  np.testing.assert_array_equal(
      read('o.png'), np.vstack([np.hstack(row) for row in expected])
  )


@pytest.mark.parametrize(
    'what', ['--sweep=Smiling:-2:2:3', '--grid=Smiling:-2:2:3,Bald:0:1:2']
)
def test_labels(place, invoke, what):
  assert invoke('--input=face.png', what, '--labels', '--output=o.png')[0] == 0
  height, width, _ = read('o.png').shape
  assert height > 5 * SIZE and width > 20 * SIZE


def test_samples(place, invoke, own):
  assert invoke('--input=sample:7', '--keep_detail=1', '--output=o.png')[0] == 0
  expected = drawn_faces.draw_face(*drawn_faces.sample(7, 'test'), SIZE)
  np.testing.assert_array_equal(read('o.png'), expected)


def test_samples_of_digits(place, invoke):
  editor_files.write(place / 'digits', make_digits())
  args = '--input=sample:3', '--keep_detail=1', '--output=o.png'
  assert invoke(*args, workdir='digits')[0] == 0
  assert read('o.png').shape == (28, 28) and read('o.png').max() > 200


def test_samples_of_a_run(place, invoke, monkeypatch, own):
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
  asked = {}

  def load(run, *, stage, data_dir):
    asked.update(run=run.path.name, stage=stage, data_dir=data_dir)
    return own

  monkeypatch.setattr(edited_runs, 'load', load)
  monkeypatch.setattr(
      samples,
      'of_run',
      lambda run, data_dir: samples.Samples(5, lambda found: images[found]),
  )
  args = '--stage=d2', '--data_dir=there', '--keep_detail=1', '--output=o.png'
  assert invoke('--input=sample:4', *args, workdir='photos')[0] == 0
  assert asked == {'run': 'photos', 'stage': 'd2', 'data_dir': 'there'}
  np.testing.assert_array_equal(read('o.png'), images[4])
  status, _, err = invoke('--input=sample:5', *args, workdir='photos')
  assert status == 2 and 'sample:5 of 5 images; accepted: sample:0 to' in err


def test_the_demo_model(place, invoke, monkeypatch):
  monkeypatch.setattr(edit_inputs, 'DEMO', place / 'model')
  args = '--input=sample:0', '--output=o.png'
  assert invoke(*args, workdir=None)[0] == 0
  monkeypatch.setattr(edit_inputs, 'DEMO', place / 'none')
  status, _, err = invoke(*args, workdir=None)
  assert status == 2 and 'no demo model' in err


def test_export(place, invoke, own):
  status, out, _ = invoke('--export=new/whole')
  assert (status, out) == (0, 'saved tiny in new/whole\n')
  assert invoke('--export=half', '--half')[0] == 0
  sizes = [(place / name).stat().st_size for name in ('new/whole', 'half')]
  assert sizes[1] < 0.7 * sizes[0]
  assert editor_files.read('half').units == own.units


# Folders.


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
        read(place / 'edits' / name), make_edit(own, image, [1, 0, 0])
    )


@pytest.mark.parametrize('draw', [False, True])
def test_a_bad_photo_is_a_note(place, invoke, draw):
  (place / 'photos/b.png').write_bytes(b'words')
  (place / 'photos/bb.jpg').mkdir()
  status, out, err = invoke(
      '--input=photos', '--output=edits', f'--progress={draw}'
  )
  assert status == 2 and 'saved 2 in edits' in out
  assert 'note: left out: photos/b.png is no picture that can be read' in err
  assert 'note: left out: photos/bb.jpg is a directory' in err
  assert ('photos: ' in err) == draw
  assert 'error: 2 of 4 photos in --input=photos could not be edited' in err
  found = sorted(path.name for path in (place / 'edits').iterdir())
  assert found == ['a.png', 'c.png']


def test_names_that_differ_in_their_endings():
  assert edit_outputs.name_outputs(['a.jpg', 'b.png']) == ['a.png', 'b.png']
  found = edit_outputs.name_outputs(['a.jpg', 'A.png', 'a.jpg.png'])
  assert found == ['a.jpg.png', 'A.png.png', 'a.jpg.png.png']


# Alignment.


def test_align(place, invoke, monkeypatch):
  square = np.full((32, 32, 3), 70, np.uint8)
  args = '--input=face.png', '--align', '--keep_detail=1', '--output=o.png'
  monkeypatch.setattr(alignment, 'find_aligner', lambda: lambda image: square)
  assert invoke(*args)[::2] == (0, '')
  assert np.all(read('o.png') == 70)
  monkeypatch.setattr(alignment, 'find_aligner', lambda: lambda image: None)
  status, _, err = invoke(*args)
  assert status == 0
  assert err == (
      'note: face.png: no face was found in it; its centre square is taken.\n'
  )
  np.testing.assert_array_equal(read('o.png'), read('face.png'))
  editor_files.write(place / 'digits', make_digits())
  status, _, err = invoke(*args, workdir='digits')
  assert status == 2 and '--align with a model of images [28, 28, 1]' in err
  monkeypatch.setattr(alignment, 'find_aligner', lambda: None)
  status, _, err = invoke(*args)
  assert status == 2 and "pip install '.[align]'" in err


# Mistakes.

EDIT = ('--input=face.png', '--output=o.png')


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ((), 'nothing to make'),
        (('--input=face.png',), 'nothing to make'),
        (('--input=face.png', '--export=x'), 'without --output or --animate'),
        (('--output=o.png',), 'without --input'),
        (('--input=', '--output=o.png'), 'is a directory'),
        (('--input=none.png', '--output=o.png'), 'none.png cannot be read'),
        (('--input=photos/notes.txt', '--output=o.png'), 'is no picture'),
        (('--input=pipe', '--output=o.png'), 'a pipe or device'),
        (('--input=empty', '--output=edits'), 'has no pictures'),
        (('--input=sample:-1', '--output=o.png'), 'sample:N'),
        (('--input=sample:x', '--output=o.png'), 'sample:N'),
        (('--input=sample:1000', '--output=o.png'), 'sample:0 to sample:999'),
        (('--input=sample:' + '9' * 99, '--output=o.png'), 'sample:N'),
        (('--input=face.png', '--output=o.txt'), "ends in '.txt'"),
        (('--input=face.png', '--output=o'), "ends in ''; accepted: .png"),
        (('--input=face.png', '--output=face.png'), 'is the photo itself'),
        (('--input=face.png', '--output=model/o.png'), 'model is a file'),
        (('--input=face.png', '--output=dir.png'), 'is no file'),
        (('--input=face.png', '--output=' + 'x' * 300 + '.png'), 'no name of'),
        (('--input=face.png', '--output=/proc/o.png'), 'cannot be written'),
        (('--input=photos', '--output=photos'), 'is the folder of the photos'),
        (('--input=photos', '--output=o.png'), 'accepted: a folder'),
        (('--input=photos', '--output=model'), 'is a file'),
        (
            ('--input=photos', '--sweep=Bald:0:1:3', '--animate=o.gif'),
            'for a folder of photos',
        ),
        ((*EDIT, '--set=Smilin:1'), 'the nearest are Smiling'),
        ((*EDIT, '--set=Smiling:x'), "the strength 'x'"),
        ((*EDIT, '--set=Smiling:nan'), 'the strength nan'),
        ((*EDIT, '--set=Smiling:1,smiling:1'), 'Smiling twice'),
        ((*EDIT, '--sweep=Smiling:-3:3:0'), "'0' values"),
        ((*EDIT, '--sweep=Smiling:-3:3:100000'), "'100000' values"),
        ((*EDIT, '--set=Bald:1', '--sweep=Bald:0:1:3'), 'one of both'),
        ((*EDIT, '--sweep=Bald:0:1:3', '--grid=Bald:0:1:3'), 'one of both'),
        ((*EDIT, '--sweep=Bald:0:1:3', '--side_by_side'), 'a single edit'),
        ((*EDIT, '--keep_detail=1.5'), '--keep_detail is 1.5'),
        ((*EDIT, '--keep_detail=nan'), '--keep_detail is nan'),
        ((*EDIT, '--animate=o.gif'), '--animate without --sweep'),
        ((*EDIT, '--sweep=Bald:0:1:3', '--animate=o.mp4'), "ends in '.mp4'"),
        ((*EDIT, '--labels'), '--labels without --sweep or --grid'),
        ((*EDIT, '--half'), '--half without --export'),
        ((*EDIT, '--stage=d1'), '--stage=d1 without a run'),
        ((*EDIT, '--runs_dir=.'), '--runs_dir=. without --serve'),
        (('--serve', *EDIT), '--serve with --input'),
        ((*EDIT, '--workdir=none'), '--workdir=none is not there'),
        ((*EDIT, '--workdir=face.png'), 'no whole safetensors file'),
        ((*EDIT, '--workdir=photos'), 'has no manifest.json'),
        (
            (
                '--input=face.png', '--output=o.webp',
                '--grid=Bald:0:1:2,Smiling:0:1:256', '--workdir=large',
            ),
            '16383',
        ),
    ],
)  # pyformat: disable
def test_mistakes(place, invoke, args, message, monkeypatch):
  (place / 'dir.png').mkdir()
  (place / 'empty').mkdir()
  if '--input=pipe' in args:
    os.mkfifo(place / 'pipe')
  if '--workdir=large' in args:
    monkeypatch.setattr(edit_inputs, 'open_source', lambda *_, **__: _large())
  before = sorted(place.rglob('*'))
  status, _, err = invoke(*args)
  assert status == 2, err
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert message in err and len(err) < 1000
  assert sorted(place.rglob('*')) == before


def _large():
  """A source whose model has images of 64x64, and is not run."""
  model = networks.FaceAutoencoder(
      len(NAMES), 2, image_size=64, first_width=4, last_width=4
  )
  own = editor.Editor(model, {}, make_editor().units, is_signed=True)
  return edit_inputs.Source(own, lambda index: None)


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


# Invariant.


@pytest.mark.parametrize('count', [0, 1, 2])
def test_shapes_are_told_before(own, count):
  values = np.linspace(-1, 1, 3, dtype=np.float32)
  sweeps = (
      edit_requests.Sweep(1, values), edit_requests.Sweep(0, values[:2])
  )[:count]  # pyformat: disable
  request = edit_outputs.Request(np.zeros(3, np.float32), sweeps)
  image = drawn_faces.draw_face(*drawn_faces.sample(0, 'test'), SIZE)
  tiles = edit_outputs.make_tiles(own, image, request)
  assert tiles.shape == (*request.shape, SIZE, SIZE, 3)
