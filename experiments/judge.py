"""Trains the judges of digits: classifiers that say what an image shows.

The released code's MLP, 784-256-256-10 with dropout 0.2, as an ensemble over
seeds: judges of equal accuracy differ by some points in the swaps that they
see, so scores are means over several.

  python -m experiments.judge --dataset=mnist_embedded --seeds=3
"""

from absl import flags
import numpy as np

from experiments import command_line
from jacsup_jax import judges

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this binary."""
  command_line.define_data_flags()
  flags.DEFINE_string(
      'workdir', None, 'Where to save; runs/judge_DATASET by default.'
  )
  flags.DEFINE_integer('seeds', 3, 'How many judges, of seeds 0, 1, ....')
  flags.DEFINE_integer('epochs', 10, 'Passes over the training data.')


def main() -> None:
  command_line.check_at_least(1, 'seeds', 'epochs')
  directory = FLAGS.workdir or judges.default_directory(FLAGS.dataset)
  found = judges.exist(directory)
  ensemble = judges.restore_or_train(
      directory,
      FLAGS.dataset,
      FLAGS.data_dir,
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


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
