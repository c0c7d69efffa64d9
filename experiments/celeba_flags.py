"""The flags of experiments.celeba, which Tables 5 and 6 share."""

from absl import flags

from experiments import celeba_runs
from experiments import command_line
from experiments import common_flags
from experiments import supervision_flags
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import growth as surgery
from jacsup_jax.evaluation import attribute_flips as flips

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

# Settings of a judge that is trained here, each by a flag.
OF_JUDGE = ('epochs', 'first_width', 'last_width', 'hidden')


def define_flags() -> None:
  """Defines the flags, with the paper's values."""
  common_flags.define_face_data_flags(image_size=256)
  common_flags.define_training_flags(
      workdir='runs/celeba',
      epochs=100,
      epochs_help='Of the teacher without cycle losses (its first phase); 0:'
      ' no teacher, with --fader_epochs and without students.',
  )
  _define_model_flags()
  _define_weight_flags()
  flags.DEFINE_integer(
      'cycle_epochs', 100, 'Of the teacher with cycle losses; 0: without them.'
  )
  flags.DEFINE_integer('student_epochs', 200, 'Of a student at each size.')
  flags.DEFINE_list(
      'students',
      ['student'],
      'Chains to grow from the teacher: student (with Jacobian supervision),'
      ' student_cycle (with cycle losses in its place), student_no_jacobian'
      ' (with neither), student_from_scratch (with Jacobian supervision, but'
      ' not grown: of the last size at once, for as many epochs as a chain);'
      ' empty for the teacher alone.',
  )
  flags.DEFINE_enum(
      'supervisor',
      'teacher',
      ['teacher', 'parent'],
      'Whose Jacobian supervises the growths after the first: the teacher\'s'
      ' (as released), or that of the student grown from.',
  )
  flags.DEFINE_string(
      'teacher_workdir',
      None,
      'A run whose finished teacher the students grow from; by default it is'
      ' trained here. With --distributed all processes read it.',
  )
  _define_fader_flags()
  flags.DEFINE_float('learning_rate', 2e-3, 'Of Adam.')
  flags.DEFINE_float('adam_b1', 0.5, 'beta_1 of Adam.')
  flags.DEFINE_float('weight_decay', 0.0, 'L2 in the gradient.')
  flags.DEFINE_enum(
      'cache',
      'device',
      celeba_runs.CACHES,
      'Where the training images are: on every device, in the host\'s memory,'
      ' or read from the prepared set while training.',
  )
  flags.DEFINE_enum(
      'eval_split',
      'test',
      ['test', 'validation'],
      'What to measure on. alpha and the judge\'s epoch are chosen on'
      ' validation where this is test, else on the --held_out images.',
  )
  flags.DEFINE_list(
      'strengths',
      [f'{strength:g}' for strength in flips.STRENGTHS],
      'alpha of the flips: the values to choose from, for each model.',
  )
  flags.DEFINE_integer(
      'selection_images', 256, 'How many images alpha is chosen on, at most.'
  )
  flags.DEFINE_integer('eval_every', 5, 'Epochs between evaluations.')
  flags.DEFINE_integer('checkpoint_every', 5, 'Epochs between checkpoints.')
  flags.DEFINE_string(
      'judge_workdir',
      None,
      'The judge, trained when missing; runs/attribute_judge_DATASET_SIZE by'
      ' default.',
  )
  flags.DEFINE_integer('judge_epochs', 10, 'Of a judge that is trained here.')
  flags.DEFINE_integer(
      'judge_first_width', 32, 'Its channels of layer 1; each next has twice.'
  )
  flags.DEFINE_integer('judge_last_width', 512, 'Its channels at most.')
  flags.DEFINE_integer('judge_hidden', 512, 'Its units of the dense layer.')


def _define_fader_flags():
  flags.DEFINE_integer(
      'fader_epochs',
      0,
      'Of Fader Networks of the teacher\'s size, a baseline; 0: without them.',
  )
  flags.DEFINE_float(
      'fader_learning_rate', 2e-4, 'Of Adam, of Fader Networks.'
  )
  flags.DEFINE_float(
      'lambda_adversarial',
      1e-4,
      'Weight: lambda_E of Fader Networks, at the end of its ramp.',
  )
  flags.DEFINE_integer(
      'adversarial_ramp_steps',
      500_000,
      'Steps over which that weight rises from 0; to be scaled with the epochs.'
      ' 0: no ramp.',
  )


def _define_model_flags():
  flags.DEFINE_list(
      'nuisance_dims',
      ['2048', '4096', '8192'],
      'd of the teacher, and after each growth; multiples of 4, since the'
      ' nuisance is a map of 2x2.',
  )
  flags.DEFINE_integer(
      'first_width', 16, 'Channels of the first layer; each next has twice.'
  )
  flags.DEFINE_integer('last_width', 512, 'Channels of a hidden layer at most.')
  flags.DEFINE_boolean(
      'linear_factors',
      False,
      'The factors have no LeakyReLU, and learn both signs of an attribute'
      ' alike; the paper\'s and the released code\'s have one.',
  )
  flags.DEFINE_enum(
      'growth',
      'random',
      surgery.INITIALIZATIONS,
      'New channels: random (the paper\'s), or preserving (the student\'s'
      ' decoder starts equal to its teacher\'s).',
  )
  flags.DEFINE_boolean(
      'keep_moments', True, 'Adam\'s moments go on through a growth.'
  )


def _define_weight_flags():
  for name, default, text in (
      ('lambda_reconstruction', 1e2, 'lambda_1, of reconstruction, eq. (8).'),
      ('lambda_prediction', 1e-1, 'lambda_2, of attributes, eq. (11).'),
      ('lambda_xcov', 1e-1, 'lambda_3, of cross-covariance, eq. (10).'),
      ('lambda_attribute_cycle', 1e-4, 'lambda_4, of eq. (12).'),
      ('lambda_nuisance_cycle', 1e-5, 'lambda_5, of eq. (13).'),
      ('lambda_y', 1.0, 'Of a student\'s factor matching, eq. (9).'),
      ('lambda_diff', 50.0, 'Of a student\'s Jacobian term, eq. (9).'),
      ('student_lambda_prediction', 0.0, 'Of attributes, for all students.'),
      ('student_lambda_xcov', 0.0, 'Of cross-covariance, for all students.'),
  ):
    flags.DEFINE_float(name, default, f'Weight: {text}')
  flags.DEFINE_enum(
      'xcov',
      'squared',
      ['squared', 'norm'],
      'Cross-covariance as in the paper (sum of squares, eq. (10)) or as in the'
      ' released code (root of the sum).',
  )
  supervision_flags.define_flags()


def check_flags() -> None:
  """Checks what needs no data."""
  command_line.check_at_least(
      1, 'student_epochs', 'batch_size', 'first_width', 'last_width',
      'selection_images', 'eval_every', 'checkpoint_every',
      *(f'judge_{name}' for name in OF_JUDGE),
  )  # pyformat: disable
  command_line.check_at_least(
      0, 'epochs', 'cycle_epochs', 'fader_epochs', 'adversarial_ramp_steps',
      'learning_rate', 'fader_learning_rate', 'adam_b1', 'weight_decay',
      'held_out',
  )  # pyformat: disable
  command_line.check_at_most(
      config.LARGEST_WIDTH, 'first_width', 'last_width', 'judge_first_width',
      'judge_last_width', 'judge_hidden',
  )  # pyformat: disable
  config.check_image_size(FLAGS.image_size)
  if FLAGS.adam_b1 >= 1:
    raise errors.InputError(
        f'--adam_b1={FLAGS.adam_b1}; accepted: from 0 to less than 1.'
    )
  command_line.parse_numbers('strengths')
