"""Edits photos with a trained model, on the command line or in a web page.

  python -m experiments.edit --input=photo.jpg --set=Smiling:+2 --output=out.png
  python -m experiments.edit --workdir=runs/celeba_quick --input=photos \
      --sweep=Smiling:-3:3:7 --output=strips
  python -m experiments.edit --serve
"""

import pathlib
import sys

from absl import flags
import tqdm

from experiments import command_line
from experiments import edit_flags
from experiments import edit_inputs
from experiments import edit_outputs
from experiments import edit_requests
from jacsup_jax.core import errors
from jacsup_jax.editor import alignment
from jacsup_jax.editor import editor_files
from jacsup_jax.figures import pictures
from jacsup_jax.runs import preemption
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS


def main() -> None:
  if FLAGS.serve:
    _serve()
    return
  edit_flags.check()
  align = _find_aligner()
  source = edit_inputs.open_source(
      FLAGS.workdir, stage=FLAGS.stage, data_dir=FLAGS.data_dir
  )
  if align is not None and source.own.image_shape[-1] != 3:
    raise errors.InputError(
        f'--align with a model of images {list(source.own.image_shape)}, which'
        ' has no faces; accepted: a model of colour images.'
    )
  request = _make_request(source.own.units)
  _check_sizes(source.own.image_shape, request)
  inputs = []
  if FLAGS.input is not None:
    inputs = edit_inputs.list_inputs(FLAGS.input, source, align)
  if FLAGS.export is not None:
    _export(source.own)
  if edit_inputs.is_folder(FLAGS.input):
    _edit_all(source.own, inputs, request)
  elif inputs:
    _edit(source.own, inputs[0], request, FLAGS.output)


def _find_aligner():
  if not FLAGS.align:
    return None
  align = alignment.find_aligner()
  if align is None:
    raise errors.InputError(
        '--align needs packages that are not installed, dlib and'
        " face_recognition_models; accepted: after pip install '.[align]', or"
        ' without --align.'
    )
  return align


def _make_request(units):
  strengths = edit_requests.parse_strengths(units, FLAGS.set, '--set')
  sweeps = []
  for name, count in (('sweep', 1), ('grid', 2)):
    text = FLAGS[name].value
    if text is not None:
      sweeps = edit_requests.parse_sweeps(
          units, text, f'--{name}', count=count, held=strengths
      )
  return edit_outputs.Request(
      strengths,
      tuple(sweeps),
      FLAGS.keep_detail,
      FLAGS.side_by_side,
      FLAGS.labels,
  )


def _check_sizes(image_shape, request):
  """Checks that the pictures to be made are not too large for their kind."""
  rows, cols = request.shape
  height, width, _ = image_shape
  if FLAGS.output is not None and not request.labels:
    ending = pathlib.Path(FLAGS.output).suffix.lower()
    if edit_inputs.is_folder(FLAGS.input):
      ending = '.png'
    pictures.check_size(
        ending, rows * height, cols * width, f'--output={FLAGS.output}'
    )


def _export(own):
  path = pathlib.Path(FLAGS.export)
  _make_folder(path.parent)
  with preemption.deferred():
    editor_files.write(path, own, half=FLAGS.half)
  print(f'saved {own.title or "the model"} in {path}')


def _edit(own, item, request, output):
  """Edits one image."""
  image = item.load()
  tiles = edit_outputs.make_tiles(own, image, request)
  said = edit_outputs.describe(own.units, request)
  if output is not None:
    path = pathlib.Path(output)
    _make_folder(path.parent)
    edit_outputs.write_still(path, tiles, own.units, request)
    print(f'saved {path}: {said}')
  if FLAGS.animate is not None:
    path = pathlib.Path(FLAGS.animate)
    _make_folder(path.parent)
    edit_outputs.write_moving(path, tiles)
    print(f'saved {path}: {said}, and back')


def _edit_all(own, inputs, request):
  """Edits the photos of a folder; those that cannot be are left out."""
  folder = pathlib.Path(FLAGS.output)
  _make_folder(folder)
  draw = sys.stderr.isatty() if FLAGS.progress is None else FLAGS.progress
  names = edit_outputs.name_outputs([item.name for item in inputs])
  failed = 0
  bar = tqdm.tqdm(inputs, desc='photos', unit='photo', disable=not draw)
  for item, name in zip(bar, names):
    try:
      tiles = edit_outputs.make_tiles(own, item.load(), request)
    except errors.InputError as error:
      failed += 1
      # The bar is taken away, and drawn again below the line.
      with tqdm.tqdm.external_write_mode(sys.stderr):
        command_line.note(f'left out: {error}')
      continue
    edit_outputs.write_still(folder / name, tiles, own.units, request)
    if not draw:
      print(f'{item.path} -> {folder / name}', flush=True)
  print(
      f'saved {len(inputs) - failed} in {folder}:'
      f' {edit_outputs.describe(own.units, request)}'
  )
  if failed:
    raise errors.InputError(
        f'{failed} of {len(inputs)} photos in --input={FLAGS.input} could not'
        ' be edited, see the notes; the others are done.'
    )


def _make_folder(path):
  with workdirs.writing(path):
    path.mkdir(parents=True, exist_ok=True)


def _serve():
  """Serves the page, of which the command line alone needs nothing."""
  edit_flags.check_of_page()
  # pylint: disable=import-outside-toplevel
  from experiments import edit_choices
  from experiments import edit_server

  choices = edit_choices.find(
      FLAGS.workdir,
      FLAGS.runs_dir,
      stage=FLAGS.stage,
      data_dir=FLAGS.data_dir,
  )
  edit_server.serve(
      choices,
      host=FLAGS.host,
      port=FLAGS.port,
      align=alignment.find_aligner(),
  )


if __name__ == '__main__':
  edit_flags.define_flags()
  command_line.run(main)
