"""Section 4 of Lezama (2019): editing facial attributes with one model.

Trains a teacher in two phases, then students of larger nuisance with Jacobian
supervision, with cycle losses in its place, or with neither, and Fader Networks
as a baseline; measures attribute flips by a judge and the reconstruction error;
draws Figures 4, 5 and 8.

  python -m experiments.celeba --flagfile=FILE  # celeba_*, of flagfiles/
"""

import functools

from absl import flags

from experiments import celeba_figures
from experiments import celeba_flags
from experiments import celeba_rows
from experiments import celeba_runs
from experiments import command_line
from jacsup_jax import editing
from jacsup_jax import fader_training
from jacsup_jax import parallel
from jacsup_jax import stages
from jacsup_jax import tables
from jacsup_jax.datasets import batches

FLAGS = flags.FLAGS


def main() -> None:
  celeba_flags.check_flags()
  values = command_line.result_flags()
  chain = celeba_runs.make_stages(values)
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
  given = []
  if FLAGS.teacher_workdir is not None:
    given = [celeba_runs.restore_teacher(values, train.attribute_names)]
  parallel.check_same({
      f'fingerprint of {train.name}': train.fingerprint,
      'sha256 of the teacher': [model.sha256 for model in given],
  })
  command_line.check_data(train.name, train.fingerprint)
  run_stages = functools.partial(
      stages.run,
      given=given,
      checkpoint_every=FLAGS.checkpoint_every,
      eval_every=FLAGS.eval_every,
      **command_line.fault_options(),
  )
  if not parallel.is_first():
    _train(chain, values, train, run_stages, workdir=None, evaluate=None)
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
      **command_line.describe_circumstances(),
  )
  with command_line.Progress(FLAGS.progress) as progress:
    trained = _train(
        chain,
        values,
        train,
        run_stages,
        workdir=workdir,
        evaluate=celeba_rows.make_evaluate_error(
            selection, FLAGS.selection_images
        ),
        report=progress.report,
    )
  rows = celeba_rows.measure_models(
      values, [*given, *trained], judge, selection, data
  )
  celeba_figures.draw(workdir, [*given, *trained], rows, data)
  workdir.write_results(
      'celeba',
      celeba_rows.describe_protocol(FLAGS.eval_split, selection_split),
      rows,
      judge=judge.describe(),
  )
  print(tables.format_attributes(rows))
  print(tables.format_results(workdir.read_results()))


def _train(chain, values, train, run_stages, **kwargs):
  """Trains a chain, the baseline after all others."""
  num_factors = len(train.attribute_names)
  trained = run_stages(
      [stage for stage in chain if stage.model != celeba_runs.FADER],
      editing.Editing(
          celeba_runs.make_settings(values),
          functools.partial(celeba_runs.make_model, values, num_factors),
          train,
      ),
      **kwargs,
  )
  if values['fader_epochs']:
    trained += run_stages(
        [stage for stage in chain if stage.model == celeba_runs.FADER],
        fader_training.FaderEditing(
            celeba_runs.make_fader_settings(values),
            functools.partial(celeba_runs.make_fader, values, num_factors),
            train,
        ),
        **kwargs,
    )
  return trained


if __name__ == '__main__':
  celeba_flags.define_flags()
  command_line.run(main)
