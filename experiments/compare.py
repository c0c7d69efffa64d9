"""Puts the models of several runs into one table: ours beside the field.

  python -m experiments.compare --workdir=runs/mnist_field,runs/mnist_best
  python -m experiments.compare --workdir=runs/drawn_field \
      --evaluation=drawn_factors_train --output=results/drawn_field/table

Of a chain of students the last is shown. Writes OUTPUT.md and OUTPUT.csv.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from experiments import cli
from experiments import progress
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import run as run_lib


@dataclasses.dataclass(frozen=True)
class Config(config.Options, group='what'):
  """The flags of this binary."""

  workdir: tuple[pathlib.Path, ...] = config.option(
    (pathlib.Path('runs/mnist_field'),),
    'Finished runs, all of classes or all of faces.',
  )
  evaluation: str | None = config.option(
    None,
    'Take rows from WORKDIR/evaluations/NAME.json, which experiments.evaluate'
    ' wrote, instead of from the runs: NAME, for example drawn_factors_train.',
  )
  spread: bool = config.option(
    True,
    'Show means and standard deviations; needs two or more seeds of each'
    ' model.',
  )
  output: pathlib.Path | None = config.option(
    None,
    'Path of the table, without ending; default: compared, in the first run.',
    group='output',
  )


def main(config: Config) -> None:
  """Collects the rows of the runs, writes the table and prints it."""
  if not config.workdir:
    raise errors.InputError('--workdir is empty; accepted: one or more runs.')
  runs = [run_lib.Run.open(path) for path in config.workdir]
  output = config.output or runs[0].path / 'compared'
  files.check_writable(f'--output={output}', output.parent)
  rows = [row for run in runs for row in read_rows(run, config.evaluation)]
  if len({'attribute_flips' in row for row in rows}) > 1:
    raise errors.InputError(
      '--workdir has runs of classes and of faces; accepted: of one kind.'
    )
  if config.spread:
    check_seeds(rows)
  markdown = tables.format_markdown(rows)
  files.write_whole(output.with_name(f'{output.name}.md'), markdown)
  files.write_whole(
    output.with_name(f'{output.name}.csv'), tables.format_csv(rows)
  )
  progress.say(tables.format_rows(rows))
  progress.say(f'saved in {output}.md and {output}.csv')


def read_rows(
  run: run_lib.Run, evaluation: str | None = None
) -> list[dict[str, Any]]:
  """Reads the rows of a run, the last model of each kind and seed alone.

  InputError if it has none, or no such evaluation.
  """
  rows, wanted = run.rows, 'a run that is complete'
  if evaluation is not None:
    path = run.path / 'evaluations' / f'{evaluation}.json'
    wanted = 'one that experiments.evaluate wrote'
    rows = files.read_json(path)['rows'] if files.exists(path) else []
  if not rows:
    what = 'results' if evaluation is None else f'evaluation {evaluation}'
    raise errors.InputError(f'{run.path} has no {what}; accepted: {wanted}.')
  last = {}
  for row in rows:
    place = row['model'], row.get('seed')
    last[place] = max(row['nuisance_dim'], last.get(place, 0))
  return [
    row | {'run': run.path.name}
    for row in rows
    if row['nuisance_dim'] == last[row['model'], row.get('seed')]
  ]


def check_seeds(rows: Sequence[dict[str, Any]]) -> None:
  """Raises InputError unless each model has two seeds or more."""
  for group in tables.group_seeds(rows):
    if len(group) < 2:
      own = group[0]
      raise errors.InputError(
        f'{own["run"]} has {own["model"]} of seed {own.get("seed")} alone: no'
        ' deviation; accepted: two seeds or more (--seeds=3), or'
        ' --nospread.'
      )


if __name__ == '__main__':
  cli.run(main, Config())
