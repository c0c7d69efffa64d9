"""Section 3 of Lezama (2019): progressive discovery of factors in digits.

Trains a teacher with k units, then students of d = 1, 2, ... nuisance units,
each grown from the last and supervised by it; measures reconstruction and class
swaps of all; draws Figures 1 and 2.

  python -m experiments.mnist --flagfile=experiments/flagfiles/mnist_quick.flags
"""

import dataclasses
import functools
from typing import Any

from absl import flags
import jax
import jax.numpy as jnp

from experiments import command_line
from jacsup_jax import datasets
from jacsup_jax import evaluation
from jacsup_jax import judges
from jacsup_jax import networks
from jacsup_jax import parallel
from jacsup_jax import stages
from jacsup_jax import surgery
from jacsup_jax import tables
from jacsup_jax import training
from jacsup_jax import types
from jacsup_jax import workdirs

FLAGS = flags.FLAGS
STUDENTS = ('student', 'student_no_jacobian')
PROTOCOL = (
    'class_swaps: pairs within batches of 128 in order, the class of an image is'
    ' the judge\'s opinion of its reconstruction, equal opinions left out, mean'
    ' over the judges of the manifest; _noisy_judge: their dropout on;'
    ' _true_labels: classes are true labels'
)

command_line.define_common_flags(workdir='runs/mnist', epochs=100)
flags.DEFINE_integer('num_factors', 2, 'k, units of the first teacher.')
flags.DEFINE_integer('nuisance_dim', 14, 'd, to which the code grows by ones.')
flags.DEFINE_list(
    'students',
    ['student'],
    'Chains to grow from the teacher: student (with Jacobian supervision),'
    ' student_no_jacobian (with the cross-covariance only), or both.',
)
flags.DEFINE_float('lambda_y', 0.25, 'Weight of factor matching, eq. (9).')
flags.DEFINE_float('lambda_diff', 0.1, 'Weight of the Jacobian term, eq. (9).')
flags.DEFINE_float('lambda_xcov', 1e-3, 'Weight of cross-covariance, eq. (10).')
flags.DEFINE_enum(
    'xcov',
    'squared',
    ['squared', 'norm'],
    'Cross-covariance as the paper has it (sum of squares, eq. (10)) or as the'
    ' released code has it (root of the sum).',
)
flags.DEFINE_float('learning_rate', 3e-4, 'Of Adam.')
flags.DEFINE_float('weight_decay', 1e-6, 'L2 in the gradient.')
flags.DEFINE_enum(
    'growth',
    'random',
    surgery.INITIALIZATIONS,
    'New units: random (the paper\'s), or preserving (the student starts equal'
    ' to its teacher).',
)
flags.DEFINE_boolean(
    'fold_normalization',
    True,
    'Fold the first teacher\'s BatchNorm into its student; the released code'
    ' drops it instead.',
)
flags.DEFINE_boolean(
    'keep_moments', True, 'Adam\'s moments go on through a growth.'
)
flags.DEFINE_enum(
    'teacher_statistics',
    'running',
    ['running', 'batch'],
    'What the first teacher\'s BatchNorm supervises with; the released code has'
    ' batch.',
)
flags.DEFINE_enum(
    'eval_split',
    'test',
    ['test', 'validation'],
    'What to measure on. With validation, the last 10,000 of the training data'
    ' are held out for it.',
)
flags.DEFINE_integer('eval_every', 5, 'Epochs between evaluations.')
flags.DEFINE_integer('checkpoint_every', 10, 'Epochs between checkpoints.')
flags.DEFINE_string(
    'judge_workdir',
    None,
    'Judges, trained when missing; runs/judge_DATASET by default.',
)


def make_stages() -> list[types.Stage]:
  """Returns the teacher and the chains of students of the flags."""
  if FLAGS.nuisance_dim < 1:
    raise types.InputError(
        f'--nuisance_dim={FLAGS.nuisance_dim} is not larger than the teacher\'s'
        ' (0); accepted: 1 or larger.'
    )
  unknown = sorted(set(FLAGS.students) - set(STUDENTS))
  if unknown:
    raise types.InputError(
        f'--students has {unknown[0]!r}; accepted: {", ".join(STUDENTS)}.'
    )
  supervised = types.LossWeights(
      lambda_y=FLAGS.lambda_y,
      lambda_diff=FLAGS.lambda_diff,
      lambda_xcov=FLAGS.lambda_xcov,
      squared_xcov=FLAGS.xcov == 'squared',
  )
  weights = {
      'student': supervised,
      'student_no_jacobian': dataclasses.replace(
          supervised, lambda_y=0.0, lambda_diff=0.0
      ),
  }
  chain = [types.Stage('teacher', 'teacher', None, 0, FLAGS.epochs, supervised)]
  for model in FLAGS.students:
    parent = 'teacher'
    for dim in range(1, FLAGS.nuisance_dim + 1):
      name = f'{model}_d{dim:02d}'
      chain.append(
          types.Stage(name, model, parent, dim, FLAGS.epochs, weights[model])
      )
      parent = name
  return chain


def make_settings() -> stages.Settings:
  """Returns the settings of the flags."""
  command_line.check_positive(
      'epochs', 'batch_size', 'num_factors', 'eval_every', 'checkpoint_every'
  )
  return stages.Settings(
      seed=FLAGS.seed,
      batch_size=FLAGS.batch_size,
      learning_rate=FLAGS.learning_rate,
      weight_decay=FLAGS.weight_decay,
      mode=FLAGS.parallel,
      growth=FLAGS.growth,
      fold_normalization=FLAGS.fold_normalization,
      keep_moments=FLAGS.keep_moments,
      teacher_train_mode=FLAGS.teacher_statistics == 'batch',
      checkpoint_every=FLAGS.checkpoint_every,
      eval_every=FLAGS.eval_every,
  )


def make_model(
    num_factors: int, nuisance_dim: int, normalize_code: bool
) -> networks.MlpAutoencoder:
  """Returns the autoencoder of the flags and a code of these sizes."""
  return networks.MlpAutoencoder(
      num_factors,
      nuisance_dim,
      normalize_code,
      dtype=jnp.dtype(FLAGS.compute_dtype),
  )


def load_data() -> tuple[datasets.Dataset, datasets.Dataset]:
  """Returns what to train on and what to measure on."""
  held_out = FLAGS.eval_split == 'validation'
  split = 'train_minus_validation' if held_out else 'train'
  train = datasets.load(FLAGS.dataset, split, data_dir=FLAGS.data_dir)
  test = datasets.load(FLAGS.dataset, FLAGS.eval_split, data_dir=FLAGS.data_dir)
  return train, test


@functools.partial(jax.jit, static_argnames=('model', 'judge_model'))
def measure(model, variables, judge_model, judge_params, images, labels):
  """Measures a model with all judges, as one program."""
  params, batch_stats = variables['params'], variables['batch_stats']
  return evaluation.evaluate_autoencoder(
      functools.partial(networks.make_encode(model, batch_stats), params),
      functools.partial(networks.make_decode(model, batch_stats), params),
      functools.partial(judges.classify, judge_model),
      judge_params,
      images,
      labels,
  )


def random_model(stage: types.Stage) -> stages.Trained:
  """Returns an untrained model as large as the last of a chain."""
  stage = dataclasses.replace(stage, name='random', model='random', epochs=0)
  model = make_model(FLAGS.num_factors, stage.nuisance_dim, False)
  variables = networks.init_variables(model, FLAGS.seed, model.image_shape)
  state = training.TrainState(0, opt_state=(), **variables)
  return stages.Trained(stage, model, state, '')


def describe(trained: stages.Trained) -> dict[str, Any]:
  """Returns what a row of results.json says of a model besides measurements."""
  stage, weights = trained.stage, trained.stage.weights
  return {
      'model': stage.model,
      'stage': stage.name,
      'nuisance_dim': stage.nuisance_dim,
      'seed': FLAGS.seed,
      'epochs': stage.epochs,
      'lambda_y': weights.lambda_y,
      'lambda_diff': weights.lambda_diff,
      'lambda_xcov': weights.lambda_xcov,
      'sha256': trained.sha256,
  }


def main() -> None:
  chain, settings = make_stages(), make_settings()
  workdir = workdirs.WorkDir(FLAGS.workdir)
  run_flags = command_line.result_flags()
  workdir.check(run_flags, FLAGS.resume)
  parallel.check_batch_size(FLAGS.batch_size)
  train, test = load_data()
  ensemble = judges.restore_or_train(
      FLAGS.judge_workdir or f'runs/judge_{FLAGS.dataset}',
      FLAGS.dataset,
      FLAGS.data_dir,
  )
  workdir.begin(
      experiment='mnist',
      flags=run_flags,
      devices=parallel.describe_devices(),
      dataset={'name': train.name, 'fingerprint': train.fingerprint},
      judges=ensemble.describe(),
  )
  images, labels = jnp.asarray(test.images), jnp.asarray(test.labels)

  def evaluate(model, variables):
    measured = measure(
        model, variables, ensemble.model, ensemble.params, images, labels
    )
    return evaluation.summarize(measured)

  def evaluate_briefly(model, variables):
    row = evaluate(model, variables)
    return {f'eval_{name}': row[name] for name in ('mse', 'class_swaps')}

  progress = command_line.Progress(FLAGS.progress)
  trained = stages.run(
      chain,
      settings,
      make_model=make_model,
      num_factors=FLAGS.num_factors,
      images=jnp.asarray(train.images),
      workdir=workdir,
      evaluate=evaluate_briefly,
      report=progress.report,
  )
  progress.close()
  rows = [
      {**describe(model), **evaluate(model.model, model.variables)}
      for model in [*trained, random_model(chain[-1])]
  ]
  workdir.write_results('mnist', f'{FLAGS.eval_split} split; {PROTOCOL}', rows)
  print(tables.format_rows(rows))
  if effect := tables.format_effect(rows):
    print(effect)


if __name__ == '__main__':
  command_line.run(main)
