"""Reproduces tables and figures of Lezama (2019): the paper's beside ours.

Runs that are missing are made, unfinished ones continued, complete ones read.
Writes each table as Markdown and CSV, for Table 2 also the scatter plot of
Figure 4, and copies figures.

  python -m experiments.reproduce --table=1 --scale=quick
  python -m experiments.reproduce --figure=1,2 --runs_dir=results --norun
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any, Literal

from experiments import cli
from experiments import paper_numbers
from experiments import paper_tables
from experiments import progress
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import signals

# Runs by scale, parents first: name of the flagfile and of the work directory
# -> the run whose teacher it takes.
_DIGITS = {
  'quick': {'mnist_quick': None},
  'full': {'mnist_table1': None, 'mnist_table1_no_jacobian': None},
}
_FACES = {
  'quick': {'celeba_quick': None},
  'full': {'celeba_teacher': None, 'celeba_student': 'celeba_teacher'},
}
_RIVALS = {
  'quick': {'celeba_quick_rivals': None},
  'full': {'celeba_fader': None, 'celeba_fader_8192': None},
}
_COMPARED_FACES = {scale: _FACES[scale] | _RIVALS[scale] for scale in _FACES}
_HOUSES = {'quick': {'svhn_quick': None}, 'full': {'svhn_paper': None}}

TABLES = {
  '1': _DIGITS,
  '2': _COMPARED_FACES,
  **{
    name[-1]: {'quick': {f'{name}_quick': None}, 'full': {name: None}}
    for name in ('mnist_table4', 'celeba_table5', 'celeba_table6')
  },
}
# Runs by scale, and the pattern of their files in figures/.
FIGURES = {
  '1': (_DIGITS, 'figure_1[abcd]*.png'),
  '2': (_DIGITS, 'figure_2*.png'),
  '4': (_COMPARED_FACES, 'figure_4.png'),
  '5': (_FACES, 'figure_5*.png'),
  '7': (_COMPARED_FACES, 'reconstructions.png'),
  '8': (_COMPARED_FACES, 'figure_8*.png'),
  **{n: (_HOUSES, f'figure_{n}*.png') for n in ('9', '10', '11', '12')},
}


@dataclasses.dataclass(frozen=True)
class Config(config.Options, group='what'):
  """The flags of this binary."""

  table: tuple[str, ...] = config.option(
    (), 'Tables of the paper to make.', choices=tuple(TABLES)
  )
  figure: tuple[str, ...] = config.option(
    (), 'Figures of the paper to make.', choices=tuple(FIGURES)
  )
  scale: Literal['quick', 'full'] = config.option(
    'quick',
    'quick: reduced models, minutes on two cores, no downloads; full: the'
    " paper's runs.",
  )
  run: bool = config.option(
    True, 'Start missing runs; otherwise only print their commands.'
  )
  dataset: str | None = config.option(
    None,
    'Data set of the runs; default: that of their flagfiles.',
    group='data',
  )
  data_dir: pathlib.Path | None = config.option(
    None, 'Where the data are, as for the runs themselves.', group='data'
  )
  runs_dir: pathlib.Path = config.option(
    pathlib.Path('runs'), 'Directory of the runs.', group='output'
  )
  output: pathlib.Path | None = config.option(
    None,
    'Directory of tables and figures; default: RUNS_DIR/reproduce.',
    group='output',
  )


def main(config: Config) -> None:
  """Makes the runs that are missing, writes tables and copies figures."""
  if not config.table and not config.figure:
    raise errors.InputError(
      'neither --table nor --figure is given; accepted: one of them.'
    )
  output = config.output or config.runs_dir / 'reproduce'
  # Before a run of hours.
  files.check_writable(f'--output={output}', output)
  of_tables = [TABLES[number] for number in config.table]
  of_figures = [FIGURES[number][0] for number in config.figure]
  needed = {}
  for runs in of_tables + of_figures:
    needed |= runs[config.scale]
  missing = [
    _make_command(config, name, teacher)
    for name, teacher in needed.items()
    if not files.exists(config.runs_dir / name / 'results.json')
  ]
  if missing and not config.run:
    commands = '; '.join(shlex.join(('python', *c)) for c in missing)
    raise errors.InputError(
      f'{len(missing)} runs are missing in --runs_dir={config.runs_dir} and'
      f' --norun is given; these commands make them: {commands}'
    )
  for command in missing:
    run_command(command)
  with files.writing(output):
    output.mkdir(parents=True, exist_ok=True)
  for number in config.table:
    _write_table(config, paper_numbers.TABLES[int(number)], output)
  for number in config.figure:
    _copy_figures(config, number, output)


def run_command(command: Sequence[str]) -> None:
  """Runs Python, passes signals on, and ends this process if that fails."""
  progress.say(shlex.join(('python', *command)))
  signals.record()
  # Its own process group: a terminal's Ctrl-C reaches it once, from here.
  process = subprocess.Popen([sys.executable, *command], process_group=0)
  try:
    with signals.raising():
      status = process.wait()
  except signals.Interrupted as error:
    process.send_signal(error.signal)
    process.wait()
    raise signals.Interrupted(
      f'{command[1]} has ended; the same command continues it'
    ) from error
  finally:
    signals.release()
  if status:
    progress.say(
      f'error: {command[1]} ended with status {status}; the same command'
      ' continues it.',
      'stderr',
    )
    sys.exit(status if status == 2 else 1)


def read_rows(paths: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
  """Reads the rows of work directories that were measured alike.

  A model that two runs have, such as a teacher that one took from the other, is
  listed once. InputError if they differ in protocol or judges.
  """
  rows, first = {}, None
  for path in paths:
    results = files.read_json(path / 'results.json')
    measured = results['protocol'], judges.list_hashes(results)
    first = first or (path, measured)
    if measured != first[1]:
      what = 'judges' if measured[0] == first[1][0] else 'protocols'
      raise errors.InputError(
        f'{first[0]} and {path} were measured by different {what}, see their'
        ' results.json; accepted in one table: the same protocol and judges.'
      )
    for row in map(tables.name_family, results['rows']):
      key = row['model'], row['nuisance_dim'], row['seed']
      rows.setdefault((*key, row.get('sha256') or path), row)
  return list(rows.values())


def _make_command(config, name, teacher):
  """Returns the arguments of Python that make a run."""
  binary = 'ablation' if re.search('table[456]', name) else name.split('_')[0]
  flags = {
    'flagfile': f'experiments/flagfiles/{name}.flags',
    'workdir': config.runs_dir / name,
    'teacher_workdir': teacher and config.runs_dir / teacher,
    'dataset': config.dataset,
    'data_dir': config.data_dir,
  }
  given = [f'--{flag}={value}' for flag, value in flags.items() if value]
  return ['-m', f'experiments.{binary}', *given]


def _write_table(config, table, output):
  """Writes and prints a table of complete runs."""
  names = TABLES[str(table.number)][config.scale]
  rows = read_rows([config.runs_dir / name for name in names])
  path = output / f'table{table.number}'
  text = paper_tables.write(table, rows, path, f'\nRuns: {", ".join(names)}.\n')
  if table.number in (1, 2):
    from jacsup_jax.figures import curves
    from jacsup_jax.figures import panels

    own = [*rows, *_read_rivals(config, table)]
    points = [*own, *paper_numbers.list_points(table)]
    figure = curves.tradeoff(points, table.rate_name)
    name = 'figure_4' if table.number == 2 else 'tradeoff'
    files.write_whole(output / f'{name}.png', panels.encode(figure))
  progress.say(text)


def _read_rivals(config, table):
  """Reads what the plot of a table shows beside it, if it was run."""
  if table.number != 1:
    return []
  paths = [config.runs_dir / name for name in ('mnist_best', 'mnist_field')]
  known = {row.model for row in table.rows}
  return [
    row
    for path in paths
    if (path / 'results.json').exists()
    for row in read_rows([path])
    if row['model'] not in known
  ]


def _copy_figures(config, number, output):
  """Copies the pictures of a figure that runs have drawn."""
  runs, pattern = FIGURES[number]
  folders = [config.runs_dir / name for name in runs[config.scale]]
  # results/ keeps pictures beside results.json, runs in figures/.
  found = [
    path
    for folder in folders
    for path in (*folder.glob(f'figures/{pattern}'), *folder.glob(pattern))
  ]
  if not found:
    raise errors.InputError(
      f'--figure={number}: {", ".join(map(str, folders))} have no'
      f' figures/{pattern}; accepted: complete runs that drew it.'
    )
  for path in found:
    run = path.relative_to(config.runs_dir).parts[0]
    copy = output / f'{run}_{path.name}'
    with files.writing(copy):
      shutil.copyfile(path, copy)
    progress.say(f'Figure {number}: {copy}')


if __name__ == '__main__':
  cli.run(main, Config(), needs_devices=False)
