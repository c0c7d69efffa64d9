"""Tables 5 and 6 of Lezama (2019): one model after the other."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from absl import flags

from experiments import celeba_flags
from experiments import celeba_rows
from experiments import celeba_runs
from experiments import command_line
from experiments import paper_numbers
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import devices as parallel

FLAGS = flags.FLAGS

# By table: where its flags differ from those of experiments.celeba.
_DEFAULTS = {
    '5': {
        'nuisance_dims': ['2048', '4096'], 'epochs': 100, 'student_epochs': 50
    },
    '6': {'nuisance_dims': ['2048'], 'epochs': 50},
}  # pyformat: disable
_TEACHER = celeba_runs.TEACHER


def define_flags(table: str) -> None:
  """Defines the flags of a table, with the paper's values.

  They are those of experiments.celeba; a weight that the table varies is taken
  from it.

  Args:
    table: '5' or '6'.
  """
  celeba_flags.define_flags()
  defaults = {
      'workdir': f'runs/ablation_table{table}',
      # Teachers have no second phase in these tables.
      'cycle_epochs': 0,
      'students': [],
      **_DEFAULTS[table],
  }
  for name, value in defaults.items():
    FLAGS.set_default(name, value)


def make_stages(values: Mapping[str, Any], seed: int) -> list[config.Stage]:
  """Returns the stages of one seed: those of a row each, and their teacher.

  Args:
    values: of the flags, by name.
    seed: in the names of the stages.

  Returns:
    Table 5: a teacher, and a student grown from it for each row. Table 6: a
    teacher for each row.

  Raises:
    InputError: if a flag asks for what the table does not have.
  """
  dims = celeba_runs.parse_nuisance_dims(values)
  table = paper_numbers.TABLES[int(values['table'])]
  sizes = 2 if values['table'] == '5' else 1
  if len(dims) != sizes:
    raise errors.InputError(
        f'--nuisance_dims={",".join(values["nuisance_dims"])} with'
        f' --table={values["table"]}; accepted: {sizes} of them.'
    )
  for name, accepted in (
      ('students', []), ('cycle_epochs', 0), ('teacher_workdir', None),
      ('fader_epochs', 0),
  ):  # pyformat: disable
    if values[name] != accepted:
      raise errors.InputError(
          f'--{name}={values[name]} with --table={values["table"]}, which says'
          ' what is trained; accepted: without that flag.'
      )
  base = celeba_runs.make_weights(values, 'teacher_phase_1')
  make_teacher = lambda name, weights: config.Stage(
      name, _TEACHER, None, dims[0], values['epochs'], weights
  )
  if values['table'] == '6':
    return [
        make_teacher(
            f'teacher_row{i}_seed{seed}',
            dataclasses.replace(base, **row.weights),
        )
        for i, row in enumerate(table.rows, 1)
    ]
  name = f'teacher_seed{seed}'
  student = celeba_runs.make_weights(values, 'student_no_jacobian')
  return [
      make_teacher(name, base),
      *(
          config.Stage(
              f'student_row{i}_seed{seed}',
              'student',
              name,
              dims[1],
              values['student_epochs'],
              dataclasses.replace(student, **row.weights),
          )
          for i, row in enumerate(table.rows, 1)
      ),
  ]


def run(values: Mapping[str, Any], workdir: workdirs.WorkDir) -> None:
  """Trains and measures all models of a table, or what is missing of them.

  Args:
    values: of the flags that decide the result, by name.
    workdir: of the run, checked.

  Raises:
    InputError: if a flag's value, the data or the work directory do not fit.
  """
  celeba_flags.check_flags()
  # A table always has a teacher.
  command_line.check_at_least(1, 'epochs')
  seeds = range(values['seed'], values['seed'] + values['seeds'])
  chains = {seed: make_stages(values, seed) for seed in seeds}
  selection_split = celeba_runs.choose_selection_split(values)
  parallel.check_batch_size(FLAGS.batch_size)
  # Where to read is not of the result, but needed to read.
  reading = {**values, 'data_dir': FLAGS.data_dir, 'cache': FLAGS.cache}
  train, selection, data = (
      celeba_runs.load_split(reading, split)
      for split in ('train', selection_split, FLAGS.eval_split)
  )
  batches.count_steps(len(train), FLAGS.batch_size)
  for chain in chains.values():
    celeba_runs.check_jacobian(values, chain, len(train.attribute_names))
  command_line.check_data(train.name, train.fingerprint)
  judge = celeba_runs.restore_or_train_judge(
      FLAGS.judge_workdir,
      {name: values[f'judge_{name}'] for name in celeba_flags.OF_JUDGE},
      train,
      selection,
  )
  names = train.attribute_names
  experiment = f'ablation_table{values["table"]}'
  workdir.begin(
      experiment=experiment,
      flags=values,
      dataset={
          'name': train.name,
          'fingerprint': train.fingerprint,
          'attributes': list(names),
      },
      devices=parallel.describe_devices(),
      **command_line.describe_circumstances(),
  )
  evaluate = celeba_rows.make_evaluate_error(selection, FLAGS.selection_images)
  rows = []
  for seed, chain in chains.items():
    own = {**reading, 'seed': seed}
    with command_line.Progress(FLAGS.progress) as progress:
      trained = stages.run(
          chain,
          editing.Editing(
              celeba_runs.make_settings(own),
              functools.partial(celeba_runs.make_model, own, len(names)),
              train,
          ),
          workdir=workdir,
          evaluate=evaluate,
          report=progress.report,
          checkpoint_every=FLAGS.checkpoint_every,
          eval_every=FLAGS.eval_every,
          **command_line.fault_options(),
      )
    rows += celeba_rows.measure_models(own, trained, judge, selection, data)
  workdir.write_results(
      experiment,
      celeba_rows.describe_protocol(FLAGS.eval_split, selection_split),
      rows,
      judge=judge.describe(),
  )
