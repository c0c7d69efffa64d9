"""Define the flags of `jacsup-edit`."""

import argparse
import textwrap

from jacsup_jax.core import errors

_DESCRIPTION = """
Edit photos with a trained model.

Without --input and --export, the editor is served as a web page: the demo
model, or the models of --workdir. With --input, photos are
edited here; with --export, a model is written as one file.
"""
_EXAMPLES = """
examples:
  jacsup-edit
  jacsup-edit --workdir=runs/celeba_quick
  jacsup-edit --input=photo.jpg --set=Smiling:+2 --output=edit.png
  jacsup-edit --input=sample:3 --sweep=Smiling:-3:3:7 --output=strip.png
  jacsup-edit --input=photos --grid=Smiling:-2:2:5,Bald:0:3:3 --output=edits
"""
# For each group the help of each flag.
_HELP = {
  'which model': {
    'workdir': 'A run of an experiment, a folder of runs, or a file of'
    ' --export; default: the demo model of drawn faces.',
    'stage': 'Stage of the run; default: its last student, or its teacher if it'
    ' has none.',
    'data_dir': 'Where the data of the run are, as in its training; read for'
    ' sample:N, and the first time that a run is edited with.',
  },
  'page': {
    'serve': 'Serve the page; the default without --input and --export.',
    'host': 'Address to listen on; by default only this machine can connect'
    ' (%(default)s).',
    'port': 'Port; if it is busy, the next free one is used (%(default)s).',
  },
  'edit': {
    'input': 'A photo, a folder of photos, or sample:N, image N of the test'
    ' data of the run (of the demo model: a drawn face).',
    'output': 'Where the edit is written, .png, .jpg or .webp; for a folder of'
    ' photos a folder of .png files. Existing files are replaced.',
    'set': 'Strengths in standard deviations on the training data:'
    ' Smiling:+2,Eyeglasses:-1. Factors of digits are y1, y2, ..., nuisance'
    ' units z1, z2, ...',
    'sweep': 'A strip of edits: Smiling:-3:3:7.',
    'grid': 'A grid of edits, the first unit from left to right, the second'
    ' upwards: Smiling:-3:3:5,Male:-3:3:5.',
    'keep_detail': 'Share of the detail that the reconstruction lacks to add'
    ' back (%(default)s).',
    'align': 'Place the face as in CelebA; needs pip install'
    " 'jacsup_jax[align]'. Without a face, and by default, the centre square is"
    ' taken.',
    'side_by_side': 'Show original, reconstruction and edit in one picture.',
    'export': 'Write the model as one file, for --workdir.',
  },
}
# Flags of an edit; the page has sliders instead.
EDIT_FLAGS = tuple(_HELP['edit'])
_OPTIONS = {
  'serve': {'action': 'store_true'},
  'host': {'default': '127.0.0.1'},
  'port': {'type': int, 'default': 8000},
  'set': {'default': '', 'metavar': 'NAME:STRENGTH,...'},
  'sweep': {'metavar': 'NAME:LOW:HIGH:COUNT'},
  'grid': {'metavar': 'SWEEP,SWEEP'},
  'keep_detail': {'type': float, 'default': 0.0, 'metavar': '0..1'},
  'align': {'action': 'store_true'},
  'side_by_side': {'action': 'store_true'},
}


class _Parser(argparse.ArgumentParser):
  """A parser that refuses flags in one line, like everything else here."""

  def error(self, message):
    raise errors.InputError(f'{message}; accepted: the flags of --help.')


def make_parser() -> argparse.ArgumentParser:
  """Makes the parser; it raises InputError for flags that it refuses."""
  parser = _Parser(
    prog='jacsup-edit',
    description=textwrap.dedent(_DESCRIPTION),
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  for title, flags in _HELP.items():
    group = parser.add_argument_group(title)
    for name, text in flags.items():
      group.add_argument(f'--{name}', help=text, **_OPTIONS.get(name, {}))
  return parser
