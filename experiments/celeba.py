"""Section 4 of Lezama (2019): editing facial attributes with one model.

Trains a teacher in two phases, then students of larger nuisance with Jacobian
supervision, with cycle losses in its place, or with neither, and Fader Networks
as a baseline; measures attribute flips by a judge and the reconstruction error;
draws Figures 4, 5 and 8.

  python -m experiments.celeba --flagfile=FILE  # celeba_*, of flagfiles/
"""

import dataclasses
import functools

from absl import flags

from experiments import celeba_figures
from experiments import celeba_flags
from experiments import celeba_rows
from experiments import celeba_runs
from experiments import command_line
from experiments import drawings
from experiments import edited_runs
from experiments import observed_runs
from experiments import seed_runs
from jacsup_jax.baselines import fader_training
from jacsup_jax.data import batches
from jacsup_jax.evaluation import tables
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.runs import stages
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import editing_grid

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this binary, with the paper's values."""
  celeba_flags.define_flags()
  seed_runs.define_flags()
  observed_runs.define_flags()


def main() -> None:
  celeba_flags.check_flags()
  seed_runs.check_flags()
  values = command_line.result_flags()
  chain = celeba_runs.make_stages(values)
  obstacle = _find_obstacle()
  seed_runs.check_together(values, obstacle)
  selection_split = celeba_runs.choose_selection_split(values)
  parallel.check_batch_size(FLAGS.batch_size)
  workdir, is_complete = command_line.open_workdir(values)
  if is_complete:
    return

  # Where to read is not of the result, but needed to read.
  values = {**values, 'data_dir': FLAGS.data_dir, 'cache': FLAGS.cache}
  load = functools.partial(celeba_runs.load_split, values)
  train = parallel.in_turn(lambda: load('train'))
  batches.count_steps(len(train), FLAGS.batch_size)
  celeba_runs.check_jacobian(values, chain, len(train.attribute_names))
  given = {seed: [] for seed in seed_runs.list_seeds(values)}
  if FLAGS.teacher_workdir is not None:
    teachers = celeba_runs.restore_teachers(
        values, train.attribute_names, list(given)
    )
    given = {seed: [teacher] for seed, teacher in teachers.items()}
  seed_runs.check_inputs(train.name, train.fingerprint, given)
  plan = seed_runs.make_plan(
      values,
      workdir,
      obstacle=obstacle,
      estimate=lambda count: celeba_runs.estimate_bytes(
          values,
          chain,
          len(train.attribute_names),
          len(train) * train.image_size**2 * 3,
          count,
      ),
  )
  train_chains = functools.partial(_train, plan, chain, values, train, given)
  run_stages = functools.partial(
      stages.run,
      checkpoint_every=FLAGS.checkpoint_every,
      eval_every=FLAGS.eval_every,
      **command_line.fault_options(),
  )
  if not parallel.is_first():
    train_chains(functools.partial(run_stages, workdir=None), evaluate=None)
    return

  selection, data = load(selection_split), load(FLAGS.eval_split)
  judge = celeba_runs.restore_or_train_judge(
      FLAGS.judge_workdir,
      {name: values[f'judge_{name}'] for name in celeba_flags.OF_JUDGE},
      train,
      selection,
  )
  workdir.begin(
      experiment='celeba',
      flags=command_line.result_flags(),
      dataset={
          'name': train.name,
          'fingerprint': train.fingerprint,
          'attributes': list(train.attribute_names),
      },
      devices=parallel.describe_devices(),
      **plan.entries,
      **command_line.describe_circumstances(),
  )
  with observed_runs.watched(
      workdir,
      plan,
      celeba_rows.make_evaluate_error(selection, FLAGS.selection_images),
      _make_draw(selection),
  ) as (report, evaluate):
    trained = train_chains(
        functools.partial(run_stages, workdir=workdir, report=report),
        evaluate=evaluate,
    )
  first = plan.seeds[0]
  images, _ = train.read(range(min(len(train), unit_scales.NUM_IMAGES)))
  edited_runs.write_scales(workdir, plan, trained[first], images)
  models = {seed: [*given[seed], *own] for seed, own in trained.items()}
  rows = celeba_rows.measure_seeds(values, models, judge, selection, data)
  drawings.save_all(
      workdir.figures,
      celeba_figures.list_drawings(
          models[first],
          [row for row in rows if row['seed'] == first],
          data,
          seed_runs.read_metrics(plan, workdir),
      ),
  )
  workdir.write_results(
      'celeba',
      celeba_rows.describe_protocol(FLAGS.eval_split, selection_split),
      rows,
      judge=judge.describe(),
  )
  print(tables.format_attributes(rows))
  print(tables.format_results(workdir.read_results()))


def _make_draw(data):
  """Makes the picture of event files, by a strength of middle size."""
  strengths = sorted(command_line.parse_numbers('strengths'))
  return observed_runs.make_draw_flips(
      data.images, data.attributes, strengths[len(strengths) // 2]
  )


def _find_obstacle():
  """Returns the flag that prevents that seeds are trained together, or None."""
  if FLAGS.cache != 'device':
    # Each would be fed by itself.
    return f'--cache={FLAGS.cache}'
  return f'--fader_epochs={FLAGS.fader_epochs}' if FLAGS.fader_epochs else None


def _train(plan, chain, values, train, given, run_stages, evaluate):
  """Trains the chains of all seeds, the baselines after all others."""
  num_factors = len(train.attribute_names)
  settings = celeba_runs.make_settings(values)
  model_and_data = (
      functools.partial(celeba_runs.make_model, values, num_factors), train
  )  # pyformat: disable
  trained = seed_runs.train(
      plan,
      [stage for stage in chain if stage.model != celeba_runs.FADER],
      run_stages,
      make_solo=lambda seed: editing.Editing(
          dataclasses.replace(settings, seed=seed), *model_and_data
      ),
      make_stack=lambda seeds: editing_grid.EditingGrid(
          settings, *model_and_data, seeds
      ),
      evaluate=evaluate,
      given=given,
  )
  if not values['fader_epochs']:
    return trained
  baselines = seed_runs.train(
      plan,
      [stage for stage in chain if stage.model == celeba_runs.FADER],
      run_stages,
      make_solo=lambda seed: fader_training.FaderEditing(
          celeba_runs.make_fader_settings(seed_runs.for_seed(values, seed)),
          functools.partial(celeba_runs.make_fader, values, num_factors),
          train,
      ),
      make_stack=None,
      evaluate=evaluate,
      given={seed: [] for seed in plan.seeds},
  )
  return {seed: own + baselines[seed] for seed, own in trained.items()}


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
