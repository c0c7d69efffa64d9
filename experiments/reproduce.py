"""Reproduces a table or a figure of Lezama (2019), beside the paper's numbers.

  python -m experiments.reproduce --table=1 --scale=quick

Runs what is missing, goes on with what was begun and only reads what is
complete; then writes Markdown, CSV, for Table 2 the scatter of Figure 4, and
copies of figures, and prints the table.
"""

import pathlib
import shutil
import subprocess
import sys

from absl import flags

from experiments import command_line
from experiments import paper_numbers
from experiments import paper_properties
from experiments import paper_tables
from experiments import reproduced_runs
from jacsup_jax import face_figures
from jacsup_jax import figures
from jacsup_jax import types
from jacsup_jax import workdirs

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
  flags.DEFINE_string('runs_dir', 'runs', 'Where the runs are, or will be.')
  flags.DEFINE_string(
      'output', None, 'Where tables and figures go; RUNS_DIR/reproduce.'
  )
  flags.DEFINE_string(
      'dataset', None, 'Passed to the runs; by default that of their flagfiles.'
  )
  flags.DEFINE_string('data_dir', None, 'Passed to the runs.')
  flags.DEFINE_boolean(
      'run', True, 'Run what is missing; otherwise say which commands do.'
  )


def main() -> None:
  asked = {
      'table': (FLAGS.table, reproduced_runs.TABLES),
      'figure': (FLAGS.figure, reproduced_runs.FIGURES),
  }
  if not FLAGS.table and not FLAGS.figure:
    raise types.InputError(
        'neither --table nor --figure is given; accepted: one of them or both.'
    )
  for name, (given, accepted) in asked.items():
    if set(given) - set(accepted):
      raise types.InputError(
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
    raise types.InputError(
        f'{len(commands)} runs are missing and --run is false; these make them:'
        f' {"; ".join("python " + " ".join(c) for c in commands)}'
    )
  if commands:
    workdirs.check_writable(f'--runs_dir={root}', root)
  for command in commands:
    _run(command)
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


def _run(command):
  """Runs a command, whose lines are shown as they come."""
  print(f'python {" ".join(command)}', flush=True)
  done = subprocess.run([sys.executable, *command], check=False)
  if done.returncode:
    # Its own line says why.
    print(
        f'error: {command[1]} ended with status {done.returncode}; the same'
        ' command goes on from there.',
        file=sys.stderr,
    )
    sys.exit(done.returncode if done.returncode == 2 else 1)


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
    raise types.InputError(
        f'--figure={number}: {", ".join(str(root / r.name) for r in runs)} have'
        f' no figures/{reproduced_runs.PATTERNS[number]}; accepted: complete'
        ' runs that drew it.'
    )
  for path in found:
    print(f'Figure {number}: {path}')


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
