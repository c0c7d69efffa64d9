"""Section 3 of Lezama (2019): progressive discovery of factors in digits.

Trains a teacher with k units, then students of d = 1, 2, ... nuisance units,
each grown from the last and supervised by it; measures reconstruction and class
swaps of all; draws Figures 1 and 2.

  python -m experiments.mnist --flagfile=experiments/flagfiles/mnist_quick.flags
"""

import functools

from absl import flags
import jax.numpy as jnp

from experiments import command_line
from experiments import mnist_figures
from experiments import mnist_runs
from jacsup_jax import datasets
from jacsup_jax import discovery
from jacsup_jax import judges
from jacsup_jax import parallel
from jacsup_jax import stages
from jacsup_jax import surgery
from jacsup_jax import tables
from jacsup_jax import workdirs
from jacsup_jax.datasets import batches

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this binary, with the paper's values."""
  command_line.define_data_flags()
  command_line.define_training_flags(workdir='runs/mnist', epochs=100)
  flags.DEFINE_integer('num_factors', 2, 'k, units of the first teacher.')
  flags.DEFINE_integer(
      'nuisance_dim', 14, 'd, to which the code grows by ones.'
  )
  flags.DEFINE_list(
      'students',
      ['student'],
      'Chains to grow from the teacher: student (with Jacobian supervision),'
      ' student_no_jacobian (with the cross-covariance only), or both.',
  )
  flags.DEFINE_float('lambda_y', 0.25, 'Weight of factor matching, eq. (9).')
  flags.DEFINE_float(
      'lambda_diff', 0.1, 'Weight of the Jacobian term, eq. (9).'
  )
  flags.DEFINE_float(
      'lambda_xcov', 1e-3, 'Weight of cross-covariance, eq. (10).'
  )
  flags.DEFINE_enum(
      'xcov',
      'squared',
      ['squared', 'norm'],
      'Cross-covariance as in the paper (sum of squares, eq. (10)) or as in the'
      ' released code (root of the sum).',
  )
  flags.DEFINE_float('learning_rate', 3e-4, 'Of Adam.')
  flags.DEFINE_float('weight_decay', 1e-6, 'L2 in the gradient.')
  flags.DEFINE_enum(
      'growth',
      'random',
      surgery.INITIALIZATIONS,
      'New units: random (the paper\'s), or preserving (the student starts'
      ' equal to its teacher).',
  )
  flags.DEFINE_boolean(
      'fold_normalization',
      None,
      'Fold the first teacher\'s BatchNorm into its student, which is dropped'
      ' otherwise. By default with --growth=preserving only.',
  )
  flags.DEFINE_boolean(
      'keep_moments',
      False,
      'Adam\'s moments go on through a growth; a student has a new optimizer'
      ' otherwise.',
  )
  flags.DEFINE_enum(
      'teacher_statistics',
      'running',
      ['running', 'batch'],
      'What the first teacher\'s BatchNorm supervises with; the released code'
      ' has batch.',
  )
  flags.DEFINE_enum(
      'eval_split',
      'test',
      ['test', 'validation'],
      'What to measure on. With validation, the last 10,000 of the training'
      ' data are held out for it.',
  )
  flags.DEFINE_integer('eval_every', 5, 'Epochs between evaluations.')
  flags.DEFINE_integer('checkpoint_every', 10, 'Epochs between checkpoints.')
  flags.DEFINE_string(
      'judge_workdir',
      None,
      'Judges, trained when missing; runs/judge_DATASET by default.',
  )


def load_data() -> tuple[datasets.Dataset, datasets.Dataset]:
  """Returns what to train on and what to measure on."""
  held_out = FLAGS.eval_split == 'validation'
  split = 'train_minus_validation' if held_out else 'train'
  train = datasets.load(FLAGS.dataset, split, data_dir=FLAGS.data_dir)
  test = datasets.load(FLAGS.dataset, FLAGS.eval_split, data_dir=FLAGS.data_dir)
  batches.count_steps(len(train.images), FLAGS.batch_size)
  return train, test


def main() -> None:
  command_line.check_at_least(
      1, 'epochs', 'batch_size', 'num_factors', 'eval_every', 'checkpoint_every'
  )
  command_line.check_at_least(0, 'learning_rate', 'weight_decay')
  values = command_line.result_flags()
  chain = mnist_runs.make_stages(values)
  parallel.check_batch_size(FLAGS.batch_size)
  workdir = workdirs.WorkDir(FLAGS.workdir)
  workdir.check(values, FLAGS.resume)
  if workdir.is_complete:
    print(f'The run in {workdir.path} is complete.')
    print(tables.format_results(workdir.read_results()))
    return

  train, test = load_data()
  ensemble = judges.restore_or_train(
      FLAGS.judge_workdir
      or judges.default_directory(FLAGS.dataset, FLAGS.data_dir),
      FLAGS.dataset,
      FLAGS.data_dir,
  )
  workdir.begin(
      experiment='mnist',
      flags=values,
      dataset={'name': train.name, 'fingerprint': train.fingerprint},
      devices=parallel.describe_devices(),
  )
  evaluate = mnist_runs.make_evaluate(ensemble, test.images, test.labels)
  with command_line.Progress(FLAGS.progress) as progress:
    trained = stages.run(
        chain,
        discovery.Discovery(
            mnist_runs.make_settings(values),
            functools.partial(mnist_runs.make_model, values),
            FLAGS.num_factors,
            jnp.asarray(train.images),
        ),
        workdir=workdir,
        evaluate=evaluate,
        report=progress.report,
        checkpoint_every=FLAGS.checkpoint_every,
        eval_every=FLAGS.eval_every,
    )

  models = [*trained, mnist_runs.random_model(values, chain[-1])]
  rows = [
      mnist_runs.describe(model, FLAGS.seed)
      | evaluate(model.model, model.variables)
      for model in models
  ]
  mnist_figures.draw(workdir, trained, test.images, test.labels)
  workdir.write_results(
      'mnist',
      f'{FLAGS.eval_split} split; {mnist_runs.PROTOCOL}',
      rows,
      judges=ensemble.describe(),
  )
  print(tables.format_results(workdir.read_results()))


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
