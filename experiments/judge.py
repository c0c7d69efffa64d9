"""Trains the judges: classifiers that say what an image shows.

Of digits and other classes, the released code's MLP (784-256-256-10 of 28x28
images) with dropout 0.2, as an ensemble over seeds: judges of equal accuracy
differ by some points in the swaps that they see, so scores are means over
several. Of faces, one convolutional classifier of all attributes, whose best
epoch is kept.

  python -m experiments.judge --dataset=mnist_embedded --seeds=3
  python -m experiments.judge --dataset=synthetic_faces
"""

from absl import flags
import numpy as np

from experiments import command_line
from experiments import common_flags
from jacsup_jax.core import config
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judges

FLAGS = flags.FLAGS

_EPOCHS = 10


def define_flags() -> None:
  """Defines the flags of this binary."""
  common_flags.define_data_flags(
      names='mnist_embedded (in the package), the TFDS name of a set of images'
      ' of one size with a class label or of faces'
  )
  flags.DEFINE_string(
      'workdir',
      None,
      'Where to save; runs/judge_DATASET, of faces'
      ' runs/attribute_judge_DATASET_SIZE by default.',
  )
  flags.DEFINE_integer('epochs', _EPOCHS, 'Passes over the training data.')
  flags.DEFINE_integer(
      'seeds', 3, 'Digits: how many judges, of seeds 0, 1, ....'
  )
  flags.DEFINE_integer(
      'seed',
      0,
      'Faces: seed of the judge.',
      lower_bound=0,
      upper_bound=2**31 - 1,  # Of JAX's default integers.
  )
  flags.DEFINE_integer('image_size', 64, 'Faces: S, of S x S images.')
  flags.DEFINE_list(
      'attributes', None, 'Faces: names of attributes to tell; all by default.'
  )
  flags.DEFINE_integer(
      'held_out',
      0,
      'Faces: the last examples of the training split, on which the epoch is'
      ' chosen instead of on the validation split.',
  )
  flags.DEFINE_boolean(
      'in_memory', True, 'Faces: decode all images at once and keep them.'
  )
  flags.DEFINE_boolean(
      'skip_bad_images',
      False,
      'Faces: leave out images of celeba_folder that cannot be decoded.',
  )
  flags.DEFINE_integer('batch_size', 128, 'Faces: examples per step.')
  flags.DEFINE_integer('first_width', 32, 'Faces: channels of layer 1.')
  flags.DEFINE_integer('last_width', 512, 'Faces: channels at most.')
  flags.DEFINE_integer('hidden', 512, 'Faces: units of the dense layer.')


def main() -> None:
  command_line.check_at_least(
      1, 'seeds', 'epochs', 'batch_size', 'first_width', 'last_width', 'hidden'
  )
  command_line.check_at_most(judges.MOST_SEEDS, 'seeds')
  command_line.check_at_most(
      config.LARGEST_WIDTH, 'first_width', 'last_width', 'hidden'
  )
  command_line.check_at_least(0, 'held_out')
  if FLAGS.dataset in datasets.KNOWN_FACES:
    _judge_faces()
  else:
    _judge_digits()


def _judge_digits():
  directory = FLAGS.workdir or judges.default_directory(
      FLAGS.dataset, FLAGS.data_dir
  )
  found = judge_files.exist(directory)
  ensemble = judges.restore_or_train(
      directory,
      FLAGS.dataset,
      FLAGS.data_dir,
      image_shape=None,
      seeds=tuple(range(FLAGS.seeds)),
      epochs=FLAGS.epochs,
  )
  for seed, accuracy in zip(ensemble.seeds, ensemble.accuracy):
    print(f'judge {seed}: {accuracy:.2%} on the test split')
  print(
      f'mean {np.mean(ensemble.accuracy):.2%}, standard deviation'
      f' {np.std(ensemble.accuracy):.2%};'
      f' {"found" if found else "saved"} in {directory}'
  )


def _judge_faces():
  data, selection = (
      datasets.load_faces(
          FLAGS.dataset,
          split,
          data_dir=FLAGS.data_dir,
          image_size=FLAGS.image_size,
          attributes=FLAGS.attributes,
          in_memory=FLAGS.in_memory,
          skip_bad_images=FLAGS.skip_bad_images,
          held_out=FLAGS.held_out,
      )
      for split in ('train', 'held_out' if FLAGS.held_out else 'validation')
  )
  directory = FLAGS.workdir or attribute_judges.default_directory(
      data.name, data.image_size
  )
  found = judge_files.exist(directory)
  judge = attribute_judges.restore_or_train(
      directory,
      data,
      selection,
      seed=FLAGS.seed,
      epochs=FLAGS.epochs,
      batch_size=FLAGS.batch_size,
      first_width=FLAGS.first_width,
      last_width=FLAGS.last_width,
      hidden=FLAGS.hidden,
      report=_report,
  )
  print(f'{"attribute":20} accuracy  balanced, on the {selection.split} split')
  for name, accuracy, balanced in zip(
      judge.attribute_names, judge.accuracy, judge.balanced_accuracy
  ):
    print(f'{name:20} {accuracy:8.2%}  {balanced:8.2%}')
  print(
      f'mean {np.mean(judge.accuracy):.2%}, balanced'
      f' {np.mean(judge.balanced_accuracy):.2%}, epoch {judge.best_epoch} of'
      f' {judge.epochs}; {"found" if found else "saved"} in {directory}'
  )


def _report(epoch, loss, accuracy):
  print(
      f'epoch {epoch}/{FLAGS.epochs} loss={loss:.4f} accuracy={accuracy:.4f}',
      flush=True,
  )


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
