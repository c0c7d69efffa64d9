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

# Flags of an edit; the page has sliders instead.
_EDIT_FLAGS = (
    'input', 'output', 'set', 'sweep', 'grid', 'animate', 'keep_detail',
    'side_by_side', 'align', 'export', 'half',
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the editor.

  Args:
    argv: flags; by default those of the process.

  Returns:
    Exit status: 0 if everything asked for is done, 2 after a user's mistake, 1
    if a file could not be written.
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
  except errors.InputError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except errors.RunError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def _is_page(args):
  given = [
    f'--{name}'
    for name in _EDIT_FLAGS
    if getattr(args, name) not in (None, False, '', 0.0)
  ]
  if args.serve and given:
    raise errors.InputError(
      f'--serve with {given[0]}; accepted: without it, since edits are made'
      ' in the page.'
    )
  return not given


def _serve(args):
  # aiohttp takes a while to import, and edits do not need it.
  # pylint: disable=import-outside-toplevel
  from jacsup_jax.editor import server

  choices = choices_lib.find(
    args.workdir, stage=args.stage, data_dir=args.data_dir
  )
  server.serve(
    service.Service(choices, align=alignment.find_aligner()),
    host=args.host,
    port=args.port,
    announce=lambda line: print(line, flush=True),
  )


def _edit_or_export(args):
  _check(args)
  choice = choices_lib.find(
    args.workdir, stage=args.stage, data_dir=args.data_dir
  )[0]
  own = choice.load()
  request = _make_request(args, own)
  align = _find_aligner(args, own)
  if args.export is not None:
    path = _make_folder(args.export)
    model_files.write(path, own, half=args.half)
    print(f'saved {own.title or "the model"} in {path}')
  if args.input is None:
    return
  inputs = inputs_lib.list_inputs(args.input, choice, own, align)
  if inputs_lib.is_folder(args.input):
    _edit_folder(args, own, inputs, request)
  else:
    _edit(args, own, inputs[0], request)


def _check(args):
  """Checks what can be checked before a model is loaded."""
  requests.check_keep_detail(args.keep_detail, '--keep_detail')
  is_edit = args.output is not None or args.animate is not None
  swept = args.sweep is not None or args.grid is not None
  rules = {
    'nothing to write; accepted: --output, --animate or --export.': (
      not is_edit and args.export is None
    ),
    '--input goes with --output or --animate; accepted: both.': (
      is_edit != (args.input is not None)
    ),
    '--animate without --sweep; accepted: both.': (
      args.animate is not None and args.sweep is None
    ),
    '--half without --export; accepted: both.': (
      args.half and args.export is None
    ),
    '--sweep and --grid; accepted: one of them.': (
      args.sweep is not None and args.grid is not None
    ),
    '--side_by_side without a single edit; accepted: with --output, without'
    ' --sweep and --grid.': (
      args.side_by_side and (swept or args.output is None)
    ),
  }
  for message, is_broken in rules.items():
    if is_broken:
      raise errors.InputError(message)
  for name in ('output', 'animate', 'export'):
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
  accepted = {'output': pictures.STILL, 'animate': pictures.MOVING}.get(name)
  if inputs_lib.is_folder(args.input) and accepted:
    if name == 'animate' or path.suffix.lower() in pictures.STILL:
      raise errors.InputError(
        f'{flag} for a folder of photos; accepted: --output with a folder.'
      )
    files.check_writable(flag, path)
    return
  if accepted and path.suffix.lower() not in accepted:
    raise errors.InputError(
      f'{flag} ends in {path.suffix!r}; accepted: {", ".join(accepted)}.'
    )
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
  for name, count in (('sweep', 1), ('grid', 2)):
    text = getattr(args, name)
    if text is not None:
      sweeps = requests.parse_sweeps(
        own.units, text, f'--{name}', count=count, held=strengths
      )
  request = outputs.Request(
    strengths, tuple(sweeps), args.keep_detail, args.side_by_side
  )
  if args.output is not None:
    rows, cols = request.shape
    height, width, _ = own.image_shape
    ending = pathlib.Path(args.output).suffix.lower()
    if inputs_lib.is_folder(args.input):
      ending = '.png'
    pictures.check_size(
      ending, rows * height, cols * width, f'--output={args.output}'
    )
  return request


def _edit(args, own, item, request):
  """Edits one image."""
  tiles = outputs.make_tiles(own, item.load(), request)
  description = outputs.describe(own.units, request)
  if args.output is not None:
    path = _make_folder(args.output)
    outputs.write_still(path, tiles)
    print(f'saved {path}: {description}')
  if args.animate is not None:
    path = _make_folder(args.animate)
    outputs.write_moving(path, tiles)
    print(f'saved {path}: {description}, and back')


def _edit_folder(args, own, inputs, request):
  """Edits the photos of a folder; those that cannot be read are skipped."""
  names = outputs.name_outputs([item.name for item in inputs])
  skipped = 0
  for item, name in zip(inputs, names):
    path = pathlib.Path(args.output) / name
    try:
      tiles = outputs.make_tiles(own, item.load(), request)
    except errors.InputError as error:
      skipped += 1
      logging.getLogger(__name__).warning('skipped: %s', error)
      continue
    _make_folder(path)
    outputs.write_still(path, tiles)
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
