"""How the stages of Section 3 are optimised, and what first teachers learn."""

from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import command_line
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.training import steps as training

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

# Of the manifest; runs from before these flags have no such values.
MAYBE_KINDS = {
    'optimizer': str, 'learning_rate_schedule': str,
    'teacher_epochs': int | None, 'first_teacher': str, 'num_neighbors': int,
    'lambda_neighbor': float, 'neighbor_scale': float,
}  # pyformat: disable
_NEIGHBORS = config.NeighborWeights()


def define_flags() -> None:
  """Defines the flags, with the paper's values."""
  flags.DEFINE_enum(
      'optimizer',
      'adam',
      training.OPTIMIZERS,
      'adam (the paper\'s), or muon, whose updates of matrices are orthogonal:'
      ' fewer and dearer steps, with a --learning_rate of about 0.02.',
  )
  flags.DEFINE_enum(
      'learning_rate_schedule',
      'constant',
      ['constant', 'cosine'],
      'The learning rate stays, or falls to 0 in each stage.',
  )
  flags.DEFINE_integer(
      'teacher_epochs', None, 'Epochs of the first teacher, if not --epochs.'
  )
  flags.DEFINE_enum(
      'first_teacher',
      'autoencoder',
      ['autoencoder', 'neighbors'],
      'What the first teacher is trained to: each image (the paper\'s), or one'
      ' of its nearest neighbours in the training set in its place, with'
      ' neighbours near each other in its code. Neither reads labels.',
  )
  flags.DEFINE_integer(
      'num_neighbors',
      _NEIGHBORS.num_neighbors,
      'Nearest neighbours of an image, see --first_teacher.',
  )
  flags.DEFINE_float(
      'lambda_neighbor',
      _NEIGHBORS.lambda_neighbor,
      'Weight of neighbours being near in the code, see --first_teacher.',
  )
  flags.DEFINE_float(
      'neighbor_scale',
      _NEIGHBORS.neighbor_scale,
      'Extent of the code in units of what is near, see --first_teacher.',
  )


def check() -> None:
  """Checks what the other flags say.

  Raises:
    InputError: if a value is not accepted, or two do not go together.
  """
  if FLAGS.teacher_epochs is not None:
    command_line.check_at_least(1, 'teacher_epochs')
  if FLAGS.learning_rate_schedule == 'cosine' and (
      FLAGS.grow_when == 'plateau'
  ):
    raise errors.InputError(
        '--learning_rate_schedule=cosine with --grow_when=plateau, whose stages'
        ' may end before their learning rate has fallen; accepted: one of them.'
    )


def make_settings(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what these flags make of `discovery.Settings`.

  Args:
    values: of the flags, by name; the paper's where a run has none.

  Raises:
    InputError: if a value is not accepted.
  """
  neighbors = None
  if values.get('first_teacher') == 'neighbors':
    neighbors = config.NeighborWeights(
        values['num_neighbors'],
        values['lambda_neighbor'],
        values['neighbor_scale'],
    )
  return {
      'optimizer': values.get('optimizer', 'adam'),
      'decay_learning_rate': values.get('learning_rate_schedule') == 'cosine',
      'neighbors': neighbors,
  }
