"""What the binaries of Section 3 do: their flags, and a run from end to end."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from absl import flags
import jax.numpy as jnp
import numpy as np

from experiments import command_line
from experiments import common_flags
from experiments import discovery_runs
from experiments import drawings
from experiments import edited_runs
from experiments import given_teachers
from experiments import observed_runs
from experiments import optimizer_flags
from experiments import seed_runs
from experiments import supervision_flags
from jacsup_jax.core import config
from jacsup_jax.core import growth as surgery
from jacsup_jax.data import batches
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import stages
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import discovery
from jacsup_jax.training import replicas as grid

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

# (trained, images, labels, metrics) -> what is drawn of a run.
ListDrawingsFn = Callable[
    [
        Sequence[stages.Trained],
        np.ndarray,
        np.ndarray,
        Sequence[Mapping[str, Any]],
    ],
    drawings.Drawings,
]


def define_flags(
    *,
    name: str,
    epochs: int,
    nuisance_dim: int,
    lambda_y: float,
    lambda_diff: float,
) -> None:
  """Defines the flags that the experiments share, but those of their data.

  Args:
    name: of the experiment.
    epochs: default of --epochs, as the others that follow.
    nuisance_dim: d.
    lambda_y: of factor matching.
    lambda_diff: of the Jacobian term.
  """
  define_chain_flags(name=name, epochs=epochs, nuisance_dim=nuisance_dim)
  given_teachers.define_flags()
  optimizer_flags.define_flags()
  seed_runs.define_flags()
  observed_runs.define_flags()
  flags.DEFINE_enum(
      'grow_when',
      'schedule',
      ['schedule', 'plateau'],
      'When a stage ends: after --epochs, or before that when the error of'
      ' validation images, which are then held out of training, has had no new'
      ' lowest value for --patience epochs.',
  )
  flags.DEFINE_integer(
      'patience', 3, 'Epochs that a plateau lasts; see --grow_when.'
  )
  flags.DEFINE_list(
      'students',
      ['student'],
      'Chains to grow from the teacher: student (with Jacobian supervision),'
      ' student_no_jacobian (with the cross-covariance only),'
      ' student_unconstrained (with neither), student_from_scratch (with'
      ' Jacobian supervision, but not grown: of the last size at once, for as'
      ' many epochs as a chain).',
  )
  flags.DEFINE_float(
      'lambda_y', lambda_y, 'Weight of factor matching, eq. (9).'
  )
  flags.DEFINE_float(
      'lambda_diff', lambda_diff, 'Weight of the Jacobian term, eq. (9).'
  )
  flags.DEFINE_float(
      'lambda_xcov', 1e-3, 'Weight of cross-covariance, eq. (10).'
  )
  supervision_flags.define_chain_flags()


def define_chain_flags(*, name: str, epochs: int, nuisance_dim: int) -> None:
  """Defines the flags of any chains of students, whatever their weights.

  Args:
    name: of the experiment.
    epochs: default of --epochs.
    nuisance_dim: default of --nuisance_dim.
  """
  common_flags.define_training_flags(workdir=f'runs/{name}', epochs=epochs)
  flags.DEFINE_integer('num_factors', 2, 'k, units of the first teacher.')
  flags.DEFINE_integer('nuisance_dim', nuisance_dim, 'd, to which it grows.')
  flags.DEFINE_integer(
      'grow_by', 1, 'Units of a growth; the last has what is left.'
  )
  flags.DEFINE_enum(
      'xcov',
      'squared',
      ['squared', 'norm'],
      'Cross-covariance as in the paper (sum of squares, eq. (10)) or as in the'
      ' released code (root of the sum).',
  )
  supervision_flags.define_flags()
  flags.DEFINE_float('learning_rate', 3e-4, 'Of the optimizer.')
  flags.DEFINE_float('weight_decay', 1e-6, 'L2 in the gradient.')
  flags.DEFINE_enum(
      'growth',
      'random',
      surgery.INITIALIZATIONS,
      'New units: random (the paper\'s), or preserving (the student starts'
      ' equal to its teacher).',
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
      'What a teacher\'s BatchNorm supervises with; the released code has'
      ' batch.',
  )
  flags.DEFINE_enum(
      'eval_split',
      'test',
      ['test', 'validation'],
      'What to measure on. With validation, the last 10,000 of the training'
      ' data are held out for it (of fewer than 20,000 the last sixth).',
  )
  flags.DEFINE_integer('eval_every', 5, 'Epochs between evaluations.')
  flags.DEFINE_integer('checkpoint_every', 10, 'Epochs between checkpoints.')
  flags.DEFINE_string(
      'judge_workdir',
      None,
      'Judges, trained when missing; runs/judge_DATASET by default, for arrays'
      ' with the fingerprint of the file.',
  )


def run(
    experiment: discovery_runs.Experiment, list_drawings: ListDrawingsFn
) -> None:
  """Trains, measures and draws what the flags say, or what is missing of it.

  Args:
    experiment: which one.
    list_drawings: lists the figures of a run.

  Raises:
    InputError: if a flag's value, the data or the work directory do not fit.
  """
  command_line.check_at_least(
      1, 'epochs', 'batch_size', 'num_factors', 'patience', 'eval_every',
      'checkpoint_every',
  )  # pyformat: disable
  command_line.check_at_least(0, 'learning_rate', 'weight_decay')
  command_line.check_at_most(config.LARGEST_WIDTH, 'num_factors')
  optimizer_flags.check()
  seed_runs.check_flags()
  values = command_line.result_flags()
  chain = discovery_runs.make_stages(values)
  discovery_runs.check_jacobian(values, chain, experiment.image_shape)
  settings = experiment.make_settings(values)
  obstacle = _find_obstacle()
  seed_runs.check_together(values, obstacle)
  parallel.check_batch_size(FLAGS.batch_size)
  workdir, is_complete = command_line.open_workdir(values)
  if is_complete:
    return

  given = given_teachers.restore(
      experiment, values, seed_runs.list_seeds(values)
  )
  train, validation, test = parallel.in_turn(
      lambda: load_data(
          experiment.image_shape, plateau=FLAGS.grow_when == 'plateau'
      )
  )
  seed_runs.check_inputs(train.name, train.fingerprint, given)
  plan = seed_runs.make_plan(
      values,
      workdir,
      obstacle=obstacle,
      estimate=lambda count: discovery_runs.estimate_bytes(
          experiment, values, chain, train.images.size, count
      ),
  )
  model_and_data = (
      functools.partial(experiment.make_model, values),
      FLAGS.num_factors,
      jnp.asarray(train.images),
  )
  train_chains = functools.partial(
      seed_runs.train,
      plan,
      chain,
      make_solo=lambda seed: discovery.Discovery(
          dataclasses.replace(settings, seed=seed), *model_and_data
      ),
      make_stack=lambda seeds: grid.GridDiscovery(
          settings, *model_and_data, [grid.Member(seed) for seed in seeds]
      ),
      given=given,
  )
  run_stages = functools.partial(
      stages.run,
      checkpoint_every=FLAGS.checkpoint_every,
      eval_every=FLAGS.eval_every,
      **command_line.fault_options(),
  )
  if not parallel.is_first():
    train_chains(functools.partial(run_stages, workdir=None), evaluate=None)
    return

  ensemble = judges.restore_or_train(
      FLAGS.judge_workdir
      or judges.default_directory(FLAGS.dataset, FLAGS.data_dir),
      FLAGS.dataset,
      FLAGS.data_dir,
      image_shape=experiment.image_shape,
  )
  workdir.begin(
      experiment=experiment.name,
      flags=values,
      dataset={'name': train.name, 'fingerprint': train.fingerprint},
      devices=parallel.describe_devices(),
      **plan.entries,
      **command_line.describe_circumstances(),
  )
  evaluate = discovery_runs.make_evaluate(ensemble, test.images, test.labels)
  with observed_runs.watched(
      workdir,
      plan,
      evaluate,
      observed_runs.make_draw_swaps(test.images, test.labels),
  ) as (report, evaluate_and_draw):
    trained = train_chains(
        functools.partial(
            run_stages,
            workdir=workdir,
            report=report,
            validate=validation
            and discovery_runs.make_validate(validation.images),
        ),
        evaluate=evaluate_and_draw,
    )

  edited_runs.write_scales(
      workdir, plan, trained[plan.seeds[0]], train.images
  )
  trained = {seed: [*given[seed], *own] for seed, own in trained.items()}
  rows = discovery_runs.measure(
      experiment.make_model, values, trained, chain[-1], evaluate
  )
  drawings.save_all(
      workdir.figures,
      list_drawings(
          trained[plan.seeds[0]],
          test.images,
          test.labels,
          seed_runs.read_metrics(plan, workdir),
      ),
  )
  workdir.write_results(
      experiment.name,
      f'{FLAGS.eval_split} split; {discovery_runs.PROTOCOL}',
      rows,
      judges=ensemble.describe(),
  )
  print(tables.format_results(workdir.read_results()))


def _find_obstacle() -> str | None:
  """Returns the flag that keeps seeds from being trained as one program."""
  for name, usual in (
      # Each of their stages ends by itself.
      ('grow_when', 'schedule'),
      # These are of single chains, see `grid`.
      ('supervise', 'parent'),
      ('ramp', 'constant'),
  ):
    if FLAGS[name].value != usual:
      return f'--{name}={FLAGS[name].value}'
  return None


def load_data(
    image_shape: tuple[int, int, int], *, plateau: bool
) -> tuple[datasets.Dataset, datasets.Dataset | None, datasets.Dataset]:
  """Loads what the flags say.

  Args:
    image_shape: (H, W, C).
    plateau: validation images decide when a stage ends.

  Returns:
    Sets to train on, to validate on (None without `plateau`), to measure on.

  Raises:
    InputError: if there is no such set, or a batch is larger than it.
  """
  load = functools.partial(
      datasets.load,
      FLAGS.dataset,
      data_dir=FLAGS.data_dir,
      image_shape=image_shape,
  )
  held_out = plateau or FLAGS.eval_split == 'validation'
  train = load('train_minus_validation' if held_out else 'train')
  batches.count_steps(len(train.images), FLAGS.batch_size)
  validation = load('validation') if plateau else None
  return train, validation, load(FLAGS.eval_split)
