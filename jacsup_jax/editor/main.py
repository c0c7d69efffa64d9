"""Run the editor: `jacsup-edit`, or `python -m experiments.edit`."""

from collections.abc import Sequence
import logging
import pathlib
import signal
import sys

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.editor import alignment
from jacsup_jax.editor import choices as choices_lib
from jacsup_jax.editor import flags
from jacsup_jax.editor import inputs as inputs_lib
from jacsup_jax.editor import model_files
from jacsup_jax.editor import outputs
from jacsup_jax.editor import requests
from jacsup_jax.editor import service
from jacsup_jax.figures import pictures


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the editor with flags, by default those of the process.

  Returns the exit status: 2 after a user's mistake, 1 if a file could not be
  written, else 0.
  """
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('note: %(message)s'))
  log = logging.getLogger('jacsup_jax.editor')
  log.handlers, log.propagate = [handler], False
  try:
    args = flags.make_parser().parse_args(argv)
    if _is_page(args):
      _serve(args)
    else:
      # Files appear whole or not at all, so a run may end anywhere.
      signal.signal(signal.SIGTERM, signal.default_int_handler)
      _edit_or_export(args)
    return 0
  except (errors.InputError, errors.RunError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2 if isinstance(error, errors.InputError) else 1
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def _is_page(args):
  given = [name for name in flags.EDIT_FLAGS if getattr(args, name)]
  # An empty name is a mistake that is refused later.
  given += ['input'] if args.input == '' else []
  if args.serve and given:
    raise errors.InputError(
      f'--serve with --{given[0]}; accepted: without it, since edits are made'
      ' in the page.'
    )
  return not given


def _serve(args):
  # aiohttp takes a while to import, and edits do not need it.
  from jacsup_jax.editor import server

  server.serve(
    service.Service(_find_choices(args), align=alignment.find_aligner()),
    host=args.host,
    port=args.port,
    announce=lambda line: print(line, flush=True),
  )


def _find_choices(args):
  return choices_lib.find(
    args.workdir, stage=args.stage, data_dir=args.data_dir
  )


def _edit_or_export(args):
  _check(args)
  choice = _find_choices(args)[0]
  own = choice.load()
  if args.export is not None:
    path = _make_folder(args.export)
    model_files.write(path, own)
    print(f'saved {own.title or "the model"} in {path}')
  if args.input is None:
    return
  request = _make_request(args, own)
  align = _find_aligner(args, own)
  inputs = inputs_lib.list_inputs(args.input, choice, own, align)
  if inputs_lib.is_folder(args.input):
    _edit_folder(args, own, inputs, request)
  else:
    _edit(args.output, own, inputs[0], request)
    description = outputs.describe(own.units, request)
    print(f'saved {args.output}: {description}')


def _check(args):
  """Checks what can be checked before a model is loaded."""
  requests.check_keep_detail(args.keep_detail, '--keep_detail')
  several = [args.sweep, args.grid, args.side_by_side or None]
  if args.output is None and args.export is None:
    raise errors.InputError('nothing to write; accepted: --output or --export.')
  if (args.output is None) != (args.input is None):
    raise errors.InputError('--input goes with --output; accepted: both.')
  if several.count(None) < 2:
    raise errors.InputError(
      'several of --sweep, --grid and --side_by_side; accepted: one of them.'
    )
  for name in ('output', 'export'):
    if getattr(args, name) is not None:
      _check_place(args, name, getattr(args, name))


def _check_place(args, name, value):
  """Checks the name of an output, and that it does not replace its input."""
  flag, path = f'--{name}={value}', files.expand_path(f'--{name}', value)
  if files.exists(args.input or '') and files.exists(path):
    if path.samefile(args.input):
      raise errors.InputError(
        f'{flag} is the input itself; accepted: another place.'
      )
  is_picture = path.suffix.lower() in pictures.STILL
  if name == 'output' and is_picture == inputs_lib.is_folder(args.input):
    raise errors.InputError(
      f'{flag} for --input={args.input}; accepted: a folder for a folder of'
      f' photos, else a name that ends in {", ".join(pictures.STILL)}.'
    )
  if name == 'output' and not is_picture:
    files.check_writable(flag, path)
  else:
    files.check_writable(f'{flag}: {path.parent}', path.parent)


def _find_aligner(args, own):
  if not args.align:
    return None
  align = alignment.find_aligner()
  if align is None:
    raise errors.InputError(
      '--align needs dlib and face_recognition_models, which are not'
      " installed; accepted: after pip install 'jacsup_jax[align]'."
    )
  if own.image_shape[-1] != 3:
    raise errors.InputError(
      f'--align with a model of grey images {list(own.image_shape)}; accepted:'
      ' a model of colour images.'
    )
  return align


def _make_request(args, own):
  strengths = requests.parse_strengths(own.units, args.set, '--set')
  sweeps = []
  name, text, count = 'sweep', args.sweep, 1
  if args.grid is not None:
    name, text, count = 'grid', args.grid, 2
  if text is not None:
    sweeps = requests.parse_sweeps(
      own.units, text, f'--{name}', count=count, held=strengths
    )
  request = outputs.Request(
    strengths, tuple(sweeps), args.keep_detail, args.side_by_side
  )
  rows, cols = request.shape
  height, width, _ = own.image_shape
  ending = pathlib.Path(args.output).suffix.lower()
  if inputs_lib.is_folder(args.input):
    ending = '.png'
  pictures.check_size(
    ending, rows * height, cols * width, f'--output={args.output}'
  )
  return request


def _edit(path, own, item, request):
  """Edits one image, and writes it whole or not at all."""
  tiles = outputs.make_tiles(own, item.load(), request)
  path = _make_folder(path)
  image = pictures.tile(tiles)
  files.write_whole(path, pictures.encode(image, path.suffix.lower()))


def _edit_folder(args, own, inputs, request):
  """Edits the photos of a folder; those that cannot be read are skipped."""
  names = outputs.name_outputs([item.name for item in inputs])
  skipped = 0
  for item, name in zip(inputs, names):
    path = pathlib.Path(args.output) / name
    try:
      _edit(path, own, item, request)
    except errors.InputError as error:
      skipped += 1
      logging.getLogger(__name__).warning('skipped: %s', error)
      continue
    print(f'{pathlib.Path(args.input) / item.name} -> {path}', flush=True)
  description = outputs.describe(own.units, request)
  print(f'saved {len(inputs) - skipped} in {args.output}: {description}')
  if skipped:
    raise errors.InputError(
      f'{skipped} of {len(inputs)} photos in --input={args.input} could not be'
      ' edited, see the notes; the others are done.'
    )


def _make_folder(path) -> pathlib.Path:
  """Makes the folder of a file; returns the file's path."""
  path = pathlib.Path(path).expanduser()
  with files.writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  return path


if __name__ == '__main__':
  sys.exit(main())
