"""The flags of experiments.edit, and what can be told from them alone."""

import pathlib
import stat

from absl import flags

from experiments import edit_inputs
from experiments import edit_requests
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.figures import pictures
from jacsup_jax.runs import workdir as workdirs

# They belong to the binary that calls `define_flags`, whose --help shows them.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS
# What says how one image is edited; a page has sliders instead.
_OF_AN_EDIT = (
    'input', 'output', 'set', 'sweep', 'grid', 'animate', 'keep_detail',
    'side_by_side', 'labels', 'align', 'export', 'half',
)  # pyformat: disable


def define_flags() -> None:
  """Defines the flags of this binary; not at import, others have the names."""
  flags.DEFINE_string(
      'workdir',
      None,
      'A run of experiments.mnist, svhn or celeba, or a file of --export; by'
      ' default the demo model, of drawn faces.',
  )
  flags.DEFINE_string(
      'stage',
      None,
      'Stage of the run; its last student by default, or its teacher.',
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Where the data of the run are, as it was given there: for sample:N, and'
      ' for a run that lacks scales.json.',
  )
  flags.DEFINE_string(
      'input',
      None,
      'A photo, a folder of photos, or sample:N: image N of the data that the'
      ' run was evaluated on, for the demo model a drawn face.',
  )
  flags.DEFINE_string(
      'output',
      None,
      'Where the edit goes, .png, .jpg or .webp; for a folder of photos a'
      ' folder, which then has a .png of each. What is there is replaced.',
  )
  flags.DEFINE_string(
      'set',
      '',
      'Strengths in standard deviations on the training data, by the names of'
      ' the units: Smiling:+2,Eyeglasses:-1. Factors of digits are y1, y2, ...,'
      ' nuisance units z1, z2, ...',
  )
  flags.DEFINE_string(
      'sweep',
      None,
      'Smiling:-3:3:7: a strip of seven edits, from strength -3 to 3.',
  )
  flags.DEFINE_string(
      'grid',
      None,
      'Smiling:-3:3:5,Male:-3:3:5: a grid of edits, the first unit from left to'
      ' right, the second upwards.',
  )
  flags.DEFINE_string(
      'animate',
      None,
      'Where the strip of --sweep goes as an animation there and back, .gif or'
      ' .webp.',
  )
  flags.DEFINE_float(
      'keep_detail',
      0.0,
      'Part of what the reconstruction lacks of the photo that is added to the'
      ' edit, from 0 to 1.',
  )
  flags.DEFINE_boolean(
      'align',
      False,
      'Place the largest face of a photo as in CelebA, where the optional'
      " packages are installed: pip install '.[align]'. Without a face, and by"
      ' default, the centre square is taken.',
  )
  flags.DEFINE_boolean(
      'side_by_side', False, 'Original, reconstruction and edit in one picture.'
  )
  flags.DEFINE_boolean(
      'labels',
      False,
      'Draw a strip or grid as a figure that tells the strengths; by default'
      " its pixels are the model's.",
  )
  flags.DEFINE_string(
      'export', None, 'Where the model goes as one file, for --workdir.'
  )
  flags.DEFINE_boolean(
      'half', False, 'Weights of --export as float16, of half the size.'
  )
  flags.DEFINE_boolean(
      'progress',
      None,
      'Draw a progress bar for a folder; by default on a terminal only, a line'
      ' per photo elsewhere.',
  )
  flags.DEFINE_boolean('serve', False, 'Serve the editor as a web page.')
  flags.DEFINE_string(
      'runs_dir',
      None,
      'With --serve, every run below this directory can be chosen too.',
  )
  flags.DEFINE_string(
      'host',
      '127.0.0.1',
      'Address that --serve listens on; by default of this machine alone.',
  )
  flags.DEFINE_integer(
      'port',
      8000,
      'Port of --serve; if it is in use, the next free one.',
      lower_bound=0,
      upper_bound=65535,
  )


def check() -> None:
  """Checks the flags of edits, before a model is loaded.

  Raises:
    InputError: if they do not go together, or a place cannot be written to.
  """
  if FLAGS.runs_dir is not None:
    raise errors.InputError(
        f'--runs_dir={FLAGS.runs_dir} without --serve; accepted: both.'
    )
  edit_requests.check_keep_detail(FLAGS.keep_detail, '--keep_detail')
  if FLAGS.output is None and FLAGS.animate is None and FLAGS.export is None:
    raise errors.InputError(
        'nothing to make; accepted: --output, --animate or --export with a name'
        ' of a file, or --serve.'
    )
  is_edit = FLAGS.output is not None or FLAGS.animate is not None
  if is_edit and FLAGS.input is None:
    raise errors.InputError(
        '--output or --animate without --input; accepted: both.'
    )
  if FLAGS.input is not None and not is_edit:
    raise errors.InputError(
        f'--input={FLAGS.input} without --output or --animate; accepted: both.'
    )
  _check_needs('animate', FLAGS.animate is not None, 'sweep', FLAGS.sweep)
  _check_needs(
      'labels', FLAGS.labels, 'sweep or --grid', FLAGS.sweep or FLAGS.grid
  )
  _check_needs('half', FLAGS.half, 'export', FLAGS.export)
  shown = FLAGS.sweep is not None or FLAGS.grid is not None
  if FLAGS.side_by_side and (shown or FLAGS.output is None):
    raise errors.InputError(
        '--side_by_side is of a single edit; accepted: with --output, without'
        ' --sweep and --grid.'
    )
  if FLAGS.sweep is not None and FLAGS.grid is not None:
    raise errors.InputError('--sweep and --grid; accepted: one of both.')
  for name in ('output', 'animate', 'export'):
    if FLAGS[name].value is not None:
      _check_place(name, FLAGS[name].value)


def check_of_page() -> None:
  """Raises InputError if --serve has a flag that is of edits alone."""
  given = [name for name in _OF_AN_EDIT if FLAGS[name].present]
  if given:
    raise errors.InputError(
        f'--serve with --{given[0]}; accepted: what is edited is chosen in the'
        ' page.'
    )


def _check_needs(name, is_given, other, other_value):
  if is_given and not other_value:
    raise errors.InputError(f'--{name} without --{other}; accepted: both.')


def _check_place(name, value):
  """Checks that a file, or a folder of outputs, can be written."""
  where = f'--{name}={value}'
  path = pathlib.Path(value)
  if edit_inputs.is_folder(FLAGS.input) and name != 'export':
    if name == 'animate':
      raise errors.InputError(
          f'{where} for a folder of photos; accepted: for one photo.'
      )
    _check_folder(where, path)
    return
  accepted = {'output': pictures.STILL, 'animate': pictures.MOVING}.get(name)
  if name == 'output' and FLAGS.labels:
    accepted = ('.png',)
  if accepted and path.suffix.lower() not in accepted:
    raise errors.InputError(
        f'{where} ends in {path.suffix!r}; accepted: {", ".join(accepted)}.'
    )
  workdirs.check_writable(f'{where}: {path.parent}', path.parent)
  try:
    status = path.stat()
  except FileNotFoundError:
    return
  except (OSError, ValueError) as error:  # Of names that cannot be.
    reason = getattr(error, 'strerror', None) or error
    raise errors.InputError(
        f'{where} is no name of a file ({reason}); accepted: one.'
    ) from error
  if not stat.S_ISREG(status.st_mode):
    raise errors.InputError(f'{where} is no file; accepted: one, or a new name.')
  if untrusted.exists(FLAGS.input or '') and path.samefile(FLAGS.input):
    raise errors.InputError(
        f'{where} is the photo itself; accepted: another file.'
    )


def _check_folder(where, path):
  workdirs.check_writable(where, path)
  # Else photos would be replaced by their edits.
  if path.resolve() == pathlib.Path(FLAGS.input).resolve():
    raise errors.InputError(
        f'{where} is the folder of the photos; accepted: another one.'
    )
  if path.suffix.lower() in pictures.STILL and not path.is_dir():
    raise errors.InputError(
        f'{where} for a folder of photos; accepted: a folder.'
    )
