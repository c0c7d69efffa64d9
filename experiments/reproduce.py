"""Reproduces a table or a figure of Lezama (2019), or repeats a run.

  python -m experiments.reproduce --table=1 --scale=quick
  python -m experiments.reproduce --manifest=runs/mnist_quick

A table or a figure stands beside the paper's numbers: what is missing is run,
what was begun goes on and what is complete is only read; then it writes
Markdown, CSV, for Table 2 the scatter of Figure 4, and copies of figures, and
prints the table. A run is repeated from its manifest in a new work directory,
and compared with the repetition to the bit.
"""

import pathlib
import shutil
import sys

from absl import flags

from experiments import command_line
from experiments import compared_runs
from experiments import paper_numbers
from experiments import paper_properties
from experiments import paper_tables
from experiments import repeated_runs
from experiments import reproduced_runs
from jacsup_jax.core import errors
from jacsup_jax.figures import face_figures
from jacsup_jax.figures import panels as figures
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this binary."""
  flags.DEFINE_list(
      'table', [], f'Tables of the paper: {", ".join(reproduced_runs.TABLES)}.'
  )
  flags.DEFINE_list(
      'figure',
      [],
      f'Figures of the paper: {", ".join(reproduced_runs.FIGURES)}.',
  )
  flags.DEFINE_enum(
      'scale',
      'quick',
      reproduced_runs.SCALES,
      'quick: minutes on two cores, reduced models and data that need no'
      ' download. full: the paper\'s runs.',
  )
  flags.DEFINE_string(
      'manifest',
      None,
      'A run to repeat, in the place of tables and figures: its manifest.json,'
      ' or the work directory that has it.',
  )
  flags.DEFINE_string('runs_dir', 'runs', 'Where the runs are, or will be.')
  flags.DEFINE_string(
      'output',
      None,
      'Where tables and figures go, RUNS_DIR/reproduce by default; of a'
      ' repetition its work directory, RUNS_DIR/repeat_NAME.',
  )
  flags.DEFINE_string(
      'dataset', None, 'Passed to the runs; by default that of their flagfiles.'
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Passed to the runs; of a repetition by default as in its manifest.',
  )
  for name in ('judge_workdir', 'teacher_workdir'):
    flags.DEFINE_string(
        name, None, 'Of a repetition, if it is not as in the manifest.'
    )
  flags.DEFINE_boolean(
      'run', True, 'Run what is missing; otherwise say which commands do.'
  )


def main() -> None:
  if FLAGS.manifest is not None:
    _repeat()
    return
  asked = {
      'table': (FLAGS.table, reproduced_runs.TABLES),
      'figure': (FLAGS.figure, reproduced_runs.FIGURES),
  }
  if not FLAGS.table and not FLAGS.figure:
    raise errors.InputError(
        'none of --table, --figure and --manifest is given; accepted: one of'
        ' the first two or both, or the last.'
    )
  for name, (given, accepted) in asked.items():
    if set(given) - set(accepted):
      raise errors.InputError(
          f'--{name}={",".join(given)}; accepted: {", ".join(accepted)}.'
      )
  root = pathlib.Path(FLAGS.runs_dir)
  output = pathlib.Path(FLAGS.output or root / 'reproduce')
  # Before a run of hours, not after it. Complete runs are only read.
  workdirs.check_directory(f'--runs_dir={root}', root)
  workdirs.check_writable(f'--output={output}', output)
  missing = []
  for name, (given, runs_of) in asked.items():
    for number in given:
      for run in runs_of[number][FLAGS.scale]:
        if run not in missing and not _is_complete(root, run):
          missing.append(run)
  commands = [_command(root, run) for run in missing]
  if commands and not FLAGS.run:
    raise errors.InputError(
        f'{len(commands)} runs are missing and --run is false; these make them:'
        f' {"; ".join("python " + " ".join(c) for c in commands)}'
    )
  if commands:
    workdirs.check_writable(f'--runs_dir={root}', root)
  for command in commands:
    reproduced_runs.run(command)
  output.mkdir(parents=True, exist_ok=True)
  for number in FLAGS.table:
    if number == '3':
      _write_properties(output)
      continue
    runs = reproduced_runs.TABLES[number][FLAGS.scale]
    _write_table(paper_numbers.TABLES[int(number)], root, runs, output)
  for number in FLAGS.figure:
    runs = reproduced_runs.FIGURES[number][FLAGS.scale]
    _copy_figures(number, root, runs, output)


def _is_complete(root, run):
  return workdirs.WorkDir(root / run.name).is_complete


def _command(root, run):
  """Returns the arguments of Python that make a run."""
  command = [
      '-m', f'experiments.{run.binary}',
      f'--flagfile={reproduced_runs.FLAGFILES / run.name}.flags',
      f'--workdir={root / run.name}',
  ]  # pyformat: disable
  if run.teacher is not None:
    command.append(f'--teacher_workdir={root / run.teacher}')
  for name in ('dataset', 'data_dir'):
    if FLAGS[name].value is not None:
      command.append(f'--{name}={FLAGS[name].value}')
  return command


def _repeat():
  """Repeats the run of --manifest, and compares."""
  for name in ('table', 'figure', 'scale', 'dataset'):
    if FLAGS[name].present:
      raise errors.InputError(
          f'--{name} with --manifest={FLAGS.manifest}, which says what is run;'
          ' accepted: one of them.'
      )
  original = repeated_runs.read(FLAGS.manifest)
  name = f'repeat_{original.directory.name}'
  output = pathlib.Path(FLAGS.output or pathlib.Path(FLAGS.runs_dir) / name)
  names = ('data_dir', 'judge_workdir', 'teacher_workdir')
  comparison = repeated_runs.repeat(
      original,
      output,
      {name: FLAGS[name].value for name in names},
      may_run=FLAGS.run,
  )
  text = compared_runs.format_markdown(comparison)
  workdirs.write_whole(output / 'comparison.md', text)
  print(text)
  if comparison.first_difference and not comparison.differences:
    print(f'error: {comparison.summarize()}', file=sys.stderr)
    sys.exit(1)


def _write_table(table, root, runs, output):
  """Writes and prints a table of complete runs."""
  rows = reproduced_runs.read_rows([root / run.name for run in runs])
  text = paper_tables.format_markdown(table, rows)
  text += f'\nRuns: {", ".join(f"{r.name} ({r.words})" for r in runs)}.\n'
  name = f'table{table.number}'
  workdirs.write_whole(output / f'{name}.md', text)
  workdirs.write_whole(
      output / f'{name}.csv', paper_tables.format_csv(table, rows)
  )
  if table.number == 2:
    figures.save(
        face_figures.tradeoff([*rows, *reproduced_runs.figure_4_of_paper()]),
        output / 'figure_4.png',
    )
  print(text)


def _write_properties(output):
  """Writes and prints Table 3, which nothing is run for."""
  for name, text in (
      ('table3.md', paper_properties.format_markdown()),
      ('table3.csv', paper_properties.format_csv()),
  ):
    workdirs.write_whole(output / name, text)
  print(paper_properties.format_markdown())


def _copy_figures(number, root, runs, output):
  """Copies the pictures of a figure that runs have drawn."""
  found = []
  for run in runs:
    folder = root / run.name / 'figures'
    pattern = reproduced_runs.PATTERNS[number]
    for path in sorted(filter(pathlib.Path.is_file, folder.glob(pattern))):
      copy = output / f'{run.name}_{path.name}'
      shutil.copyfile(path, copy)
      found.append(copy)
  if not found:
    raise errors.InputError(
        f'--figure={number}: {", ".join(str(root / r.name) for r in runs)} have'
        f' no figures/{reproduced_runs.PATTERNS[number]}; accepted: complete'
        ' runs that drew it.'
    )
  for path in found:
    print(f'Figure {number}: {path}')


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
