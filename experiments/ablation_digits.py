"""Table 4 of Lezama (2019): all its rows and seeds as one grid."""

from collections.abc import Mapping
import functools
from typing import Any

from absl import flags
import jax.numpy as jnp

from experiments import command_line
from experiments import common_flags
from experiments import discovery_command
from experiments import discovery_runs
from experiments import mnist_runs
from experiments import paper_numbers
from experiments import seed_runs
from experiments import supervision_flags
from jacsup_jax.core import config
from jacsup_jax.evaluation import judges
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import replicas as grid

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()


def define_flags() -> None:
  """Defines the flags of Table 4, with the paper's values."""
  common_flags.define_data_flags()
  discovery_command.define_chain_flags(
      name='ablation_table4', epochs=100, nuisance_dim=14
  )


def make_members(values: Mapping[str, Any]) -> list[grid.Member]:
  """Returns the members of the grid: every row of Table 4, for every seed.

  Args:
    values: of the flags, by name.
  """
  return [
      grid.Member(
          seed,
          config.LossWeights(
              **row.weights,
              squared_xcov=values['xcov'] == 'squared',
              supervision=supervision_flags.make(values),
          ),
      )
      for seed in range(values['seed'], values['seed'] + values['seeds'])
      for row in paper_numbers.TABLE_4.rows
  ]


def run(values: Mapping[str, Any], workdir: workdirs.WorkDir) -> None:
  """Trains and measures the grid, or what is missing of it.

  Args:
    values: of the flags that decide the result, by name.
    workdir: of the run, checked.

  Raises:
    InputError: if a flag's value, the data or the work directory do not fit.
  """
  command_line.check_at_least(
      1, 'epochs', 'batch_size', 'num_factors', 'eval_every', 'checkpoint_every'
  )
  command_line.check_at_least(0, 'learning_rate', 'weight_decay')
  command_line.check_at_most(config.LARGEST_WIDTH, 'num_factors')
  members = make_members(values)
  chain = grid.make_stages(
      members, discovery_runs.make_dims(values), FLAGS.epochs
  )
  discovery_runs.check_jacobian(
      # All members at once.
      {**values, 'batch_size': len(members) * FLAGS.batch_size},
      chain,
      mnist_runs.EXPERIMENT.image_shape,
  )
  # A choice that the grid leaves to its default, see experiments.mnist.
  settings = mnist_runs.make_settings({**values, 'fold_normalization': None})
  parallel.check_batch_size(FLAGS.batch_size)
  experiment = mnist_runs.EXPERIMENT
  train, _, test = discovery_command.load_data(
      experiment.image_shape, plateau=False
  )
  command_line.check_data(train.name, train.fingerprint)
  ensemble = judges.restore_or_train(
      FLAGS.judge_workdir
      or judges.default_directory(FLAGS.dataset, FLAGS.data_dir),
      FLAGS.dataset,
      FLAGS.data_dir,
      image_shape=experiment.image_shape,
  )
  workdir.begin(
      experiment='ablation_table4',
      flags=values,
      dataset={'name': train.name, 'fingerprint': train.fingerprint},
      devices=parallel.describe_devices(),
      **command_line.describe_circumstances(),
  )
  evaluate = discovery_runs.make_evaluate(ensemble, test.images, test.labels)
  with command_line.Progress(FLAGS.progress) as progress:
    trained = stages.run(
        chain,
        grid.GridDiscovery(
            settings,
            functools.partial(experiment.make_model, values),
            FLAGS.num_factors,
            jnp.asarray(train.images),
            members,
        ),
        workdir=workdir,
        evaluate=seed_runs.make_evaluate_stack(evaluate),
        report=progress.report,
        checkpoint_every=FLAGS.checkpoint_every,
        eval_every=FLAGS.eval_every,
        **command_line.fault_options(),
    )
  workdir.write_results(
      'ablation_table4',
      f'{FLAGS.eval_split} split; {discovery_runs.PROTOCOL}',
      _measure(values, trained, members, evaluate),
      judges=ensemble.describe(),
  )


def _measure(values, trained, members, evaluate):
  """Returns rows of the first teachers, the last students, and a random one."""
  teachers, students = trained[0], trained[-1]
  seeds = list(dict.fromkeys(member.seed for member in members))
  models = [
      *((grid.take_member(teachers, i), s) for i, s in enumerate(seeds)),
      *(
          (grid.take_member(students, i), member.seed)
          for i, member in enumerate(members)
      ),
      (
          discovery_runs.random_model(
              mnist_runs.make_model,
              values,
              grid.take_member(students, 0).stage,
          ),
          values['seed'],
      ),
  ]
  return [
      discovery_runs.describe(model, seed)
      | evaluate(model.model, model.variables)
      for model, seed in models
  ]
