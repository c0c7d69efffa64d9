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
  add = parser.add_argument_group('which model').add_argument
  add(
    '--workdir',
    help='A run of an experiment, a folder of runs, or a file of'
    ' --export; default: the demo model of drawn faces.',
  )
  add(
    '--stage',
    help='Stage of the run; default: its last student, or its'
    ' teacher if it has none.',
  )
  add(
    '--data_dir',
    help='Where the data of the run are, as in its training;'
    ' read for sample:N, and the first time that a run is edited with.',
  )
  _add_page_flags(parser.add_argument_group('page').add_argument)
  _add_edit_flags(parser.add_argument_group('edit').add_argument)
  return parser


def _add_page_flags(add):
  add(
    '--serve',
    action='store_true',
    help='Serve the page; the default without --input and --export.',
  )
  add(
    '--host',
    default='127.0.0.1',
    help='Address to listen on; by default'
    ' only this machine can connect (%(default)s).',
  )
  add(
    '--port',
    type=int,
    default=8000,
    help='Port; if it is busy, the next free one is used (%(default)s).',
  )


def _add_edit_flags(add):
  add(
    '--input',
    help='A photo, a folder of photos, or sample:N, image N of the'
    ' test data of the run (of the demo model: a drawn face).',
  )
  add(
    '--output',
    help='Where the edit is written, .png, .jpg or .webp; for a'
    ' folder of photos a folder of .png files. Existing files are replaced.',
  )
  add(
    '--set',
    default='',
    metavar='NAME:STRENGTH,...',
    help='Strengths in'
    ' standard deviations on the training data: Smiling:+2,Eyeglasses:-1.'
    ' Factors of digits are y1, y2, ..., nuisance units z1, z2, ...',
  )
  add(
    '--sweep',
    metavar='NAME:LOW:HIGH:COUNT',
    help='A strip of edits: Smiling:-3:3:7.',
  )
  add(
    '--grid',
    metavar='SWEEP,SWEEP',
    help='A grid of edits, the first unit'
    ' from left to right, the second upwards: Smiling:-3:3:5,Male:-3:3:5.',
  )
  add(
    '--animate',
    metavar='FILE',
    help='Where the strip of --sweep is written'
    ' as an animation, .gif or .webp.',
  )
  add(
    '--keep_detail',
    type=float,
    default=0.0,
    metavar='0..1',
    help='Share of'
    ' the detail that the reconstruction lacks to add back (%(default)s).',
  )
  _add_more_edit_flags(add)


def _add_more_edit_flags(add):
  add(
    '--align',
    action='store_true',
    help='Place the face as in CelebA; needs'
    " pip install 'jacsup_jax[align]'. Without a face, and by default, the"
    ' centre square is taken.',
  )
  add(
    '--side_by_side',
    action='store_true',
    help='Show original, reconstruction and edit in one picture.',
  )
  add(
    '--export',
    metavar='FILE',
    help='Write the model as one file, for --workdir.',
  )
  add(
    '--half',
    action='store_true',
    help='Write weights of --export as float16, at half the size.',
  )
