"""Run the editor: `jacsup-edit`, or `python -m experiments.edit`."""

import argparse
from collections.abc import Sequence
import logging
import pathlib
import signal
import sys

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import alignment
from jacsup_jax.editor import choices as choices_lib
from jacsup_jax.editor import exports
from jacsup_jax.editor import model_files
from jacsup_jax.editor import photos
from jacsup_jax.editor import requests
from jacsup_jax.figures import pictures
from jacsup_jax.training import devices

_DESCRIPTION = """
Edit photos with a trained model.

Without --input and --export, the editor is served as a web page: the demo
model, the models of --workdir, or those of --runs_dir and the demo. With
--input, photos are edited here; with --export, a model is written as one file.
"""
_EXAMPLES = """
examples:
  jacsup-edit
  jacsup-edit --runs_dir=runs
  jacsup-edit --input=photo.jpg --set=Eyeglasses:+2 --output=edit.png
  jacsup-edit --input=sample:3 --sweep=Eyeglasses:-2:2:7 --output=strip.png
  jacsup-edit --input=photos --grid=Eyeglasses:-2:2:5,Bangs:0:2:3 --output=edits
"""
# For each group the help of each flag.
_HELP = {
  'which model': {
    'workdir': 'A run of an experiment, a folder of runs, or a file of'
    ' --export; default: the demo model of drawn faces.',
    'stage': 'Stage of the run; default: its last student, or its teacher if it'
    ' has none.',
    'data_dir': 'Where the data of the run are, as in its training; they are'
    ' read for sample:N, and the first time that a run is used for editing.',
  },
  'page': {
    'serve': 'Serve the page; the default without --input and --export.',
    'runs_dir': 'A folder of runs: the page offers all their models and the'
    ' demo.',
    'host': 'Address to listen on; by default only this machine can connect'
    ' (%(default)s).',
    'port': 'Port; if it is busy, the next free one is used (%(default)s).',
    'trusted_host': 'Host name of a proxy, such as hub.example.org for a'
    ' notebook at https://hub.example.org/user/me/proxy/8000/; separate several'
    ' by commas.',
  },
  'edit': {
    'input': 'A photo, a folder of photos, or sample:N, image N of the test'
    ' data of the run (for the demo model, a drawn face).',
    'output': 'Where the edit is written: .png, .jpg or .webp, or .gif for a'
    ' --sweep that plays forwards and backwards; for a folder of photos, a'
    ' folder of .png files. Existing files are replaced.',
    'set': 'Strengths in standard deviations over the training data:'
    ' Eyeglasses:+2,Smiling:-1. Factors of digits are y1, y2, ..., nuisance'
    ' units z1, z2, ...',
    'sweep': 'A strip of edits: Eyeglasses:-2:2:7.',
    'grid': 'A grid of edits, the first unit from left to right, the second'
    ' upwards: Eyeglasses:-2:2:5,Bangs:-2:2:5.',
    'keep_detail': 'Share, from 0 to 1, of the detail missing from the'
    ' reconstruction that is added back where an edit leaves the photo alone'
    ' (%(default)s).',
    'align': 'Place the face as in CelebA; needs pip install'
    " 'jacsup_jax[align]'. Without a face, and by default, the center square is"
    ' used.',
    'export': 'Write the model as one file, for --workdir.',
  },
}
_OPTIONS = {
  'serve': {'action': 'store_true'},
  'host': {'default': '127.0.0.1'},
  'port': {'type': int, 'default': 8000},
  'set': {'default': ''},
  'keep_detail': {'type': float, 'default': 0.0},
  'align': {'action': 'store_true'},
}
_ENDINGS = (*pictures.STILL, '.gif')
_PLACES = ('workdir', 'runs_dir', 'data_dir', 'input', 'output', 'export')


class _Parser(argparse.ArgumentParser):
  """A parser that refuses flags in one line, like everything else here."""

  def error(self, message):
    raise errors.InputError(f'{message}; accepted: the flags of --help.')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the editor with flags, by default those of the process.

  Returns the exit status: 2 after a user's mistake, 1 if a file could not be
  written, else 0.
  """
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('note: %(message)s'))
  log = logging.getLogger('jacsup_jax.editor')
  log.handlers, log.propagate = [handler], False
  files.open_missing_streams()
  try:
    args = _parse(argv)
    devices.expand_cache_dir()
    devices.check_available()
    if args.serve:
      _serve(args)
    else:
      # Files appear whole or not at all, so a run may end anywhere.
      signal.signal(signal.SIGTERM, signal.default_int_handler)
      _edit_or_export(args)
    return 0
  except (errors.InputError, errors.RunError) as error:
    files.say(f'error: {error}', 'stderr')
    return 2 if isinstance(error, errors.InputError) else 1
  except KeyboardInterrupt:
    return 128 + signal.SIGINT
  finally:
    files.flush_streams()


def _parse(argv):
  """Parses and checks flags, as far as possible without a model."""
  parser = _Parser(
    prog='jacsup-edit',
    description=_DESCRIPTION,
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  for title, flags in _HELP.items():
    group = parser.add_argument_group(title)
    for name, text in flags.items():
      group.add_argument(f'--{name}', help=text, **_OPTIONS.get(name, {}))
  args = parser.parse_args(argv)
  for name in _PLACES:
    value = getattr(args, name)
    if value is not None and not value.startswith('sample:'):
      setattr(args, name, str(files.expand_path(f'--{name}', value)))
  edits = [
    name
    for name in _HELP['edit']
    if getattr(args, name) != parser.get_default(name)
  ]
  if args.serve and edits:
    raise errors.InputError(
      f'--serve with --{edits[0]}; accepted: one of them.'
    )
  if edits and args.runs_dir is not None:
    raise errors.InputError(
      f'--runs_dir with --{edits[0]}; accepted: --workdir=RUN.'
    )
  if edits:
    _check_edit(args)
  args.serve = not edits
  return args


def _check_edit(args):
  requests.check_keep_detail(args.keep_detail, '--keep_detail')
  is_whole = (args.output is None) == (args.input is None)
  if not is_whole or (args.output is None and args.export is None):
    raise errors.InputError('accepted: --input with --output, or --export.')
  if args.sweep is not None and args.grid is not None:
    raise errors.InputError('--sweep and --grid; accepted: one of them.')
  for name in ('output', 'export'):
    value = getattr(args, name)
    if value is None:
      continue
    path = pathlib.Path(value)
    if files.exists(args.input or '') and files.exists(path):
      if path.samefile(args.input):
        raise errors.InputError(
          f'--{name}={value} is the input itself; accepted: another place.'
        )
    is_picture = path.suffix.lower() in _ENDINGS
    if name == 'output' and is_picture == photos.is_folder(args.input):
      _check_input(args.input)
      raise errors.InputError(
        f'--output={value} for --input={args.input}; accepted: a folder for a'
        f' folder, else a name that ends in {", ".join(_ENDINGS)}.'
      )
    if name == 'output' and path.suffix.lower() == '.gif' and not args.sweep:
      raise errors.InputError(
        f'--output={value} without --sweep; accepted: an animation of a sweep,'
        f' or {", ".join(pictures.STILL)}.'
      )
    # Before a model is loaded.
    if name == 'export':
      files.check_output('--export', path, ('.safetensors',))
    elif is_picture:
      files.check_output('--output', path)
    else:
      files.check_writable(f'--output={value}', path)


def _check_input(text):
  if text and not text.startswith('sample:') and not files.exists(text):
    raise errors.InputError(
      f'--input={text} does not exist; accepted: a photo, a folder of photos,'
      ' or sample:N.'
    )


def _serve(args):
  # aiohttp takes a while to import, and edits do not need it.
  from jacsup_jax.editor import guards
  from jacsup_jax.editor import server
  from jacsup_jax.editor import service

  trusted_hosts = guards.parse_hosts(args.trusted_host)
  choices = choices_lib.find(
    args.workdir, args.stage, args.data_dir, args.runs_dir
  )
  own = service.Service(choices, align=alignment.find_aligner())
  server.serve(own, args.host, args.port, files.say, trusted_hosts)


def _edit_or_export(args):
  choice = choices_lib.find(args.workdir, args.stage, args.data_dir)[0]
  own = choice.load()
  if args.export is not None:
    model_files.write(args.export, own)
    files.say(f'saved {own.title or "the model"} in {args.export}')
  if args.input is None:
    return
  tiles, description = _read_tiles(args, own.units)
  inputs = photos.list_inputs(args.input, choice, own, _find_aligner(args, own))
  edit = lambda load, path: _edit(own, load(), tiles, args.keep_detail, path)
  if photos.is_folder(args.input):
    skipped = _edit_folder(args, inputs, edit)
    files.say(f'saved {len(inputs) - skipped} in {args.output}: {description}')
    if skipped:
      raise errors.InputError(
        f'{skipped} of {len(inputs)} photos in --input={args.input} could not'
        ' be edited, see the notes; the others are done.'
      )
  else:
    edit(inputs[0][1], args.output)
    files.say(f'saved {args.output}: {description}')


def _find_aligner(args, own):
  if not args.align:
    return None
  align = alignment.find_aligner()
  if align is None or own.image_shape[-1] != 3:
    raise errors.InputError(
      '--align needs a model of colour images, dlib and'
      " face_recognition_models; accepted: pip install 'jacsup_jax[align]'."
    )
  return align


def _read_tiles(args, units):
  """Reads `[rows, cols, U]` strengths, and a description of them."""
  base = requests.parse_strengths(units, args.set, '--set')
  lines = [f'{unit.name} {x:+g}' for unit, x in zip(units, base) if x]
  tiles, sweeps = base[None, None], []
  for count, name in enumerate(('sweep', 'grid'), 1):
    text = getattr(args, name)
    if text is not None:
      tiles, sweeps = requests.parse_tiles(
        units, base, text, f'--{name}', count
      )
  return tiles, '; '.join(lines + sweeps) or 'nothing is moved'


def _edit(own, image, tiles, keep_detail, path):
  """Edits one image, and writes its tiles whole or not at all."""
  strengths = tiles.reshape(-1, tiles.shape[-1])
  edits = own.edit_in_turn(own.encode(image[None]), strengths, keep_detail)[0]
  ending = pathlib.Path(path).suffix.lower()
  if ending == '.gif':
    files.write_whole(path, exports.to_gif(edits))
    return
  picture = pictures.tile(edits.reshape(*tiles.shape[:2], *image.shape))
  pictures.check_size(ending, *picture.shape[:2], f'--output={path}')
  files.write_whole(path, pictures.encode(picture, ending))


def _edit_folder(args, inputs, edit):
  """Edits the photos of a folder; returns how many could not be read."""
  stems = [pathlib.PurePath(name).stem for name, _ in inputs]
  # `a.jpg.png` beside `a.png.png`; some file systems do not distinguish A, a.
  if len({stem.lower() for stem in stems}) < len(stems):
    stems = [name for name, _ in inputs]
  skipped = 0
  for (name, load), stem in zip(inputs, stems):
    path = pathlib.Path(args.output) / f'{stem}.png'
    try:
      edit(load, path)
    except errors.InputError as error:
      skipped += 1
      logging.getLogger(__name__).warning('skipped: %s', error)
      continue
    files.say(f'{pathlib.Path(args.input) / name} -> {path}')
  return skipped


if __name__ == '__main__':
  sys.exit(main())
