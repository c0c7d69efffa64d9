"""Appendix A.3 of Lezama (2019): what the weights of the terms do.

  python -m experiments.ablation
  python -m experiments.ablation --flagfile=mnist_table4_quick
  python -m experiments.ablation --table=5 --help

Without a table it lists what can be trained, and how long that takes. Table 4
trains the students of all its rows at once, as one vmap; Tables 5 and 6 train
one model after the other. The flags are those of the table's experiment. Writes
table.md and table.csv.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import textwrap
import typing
from typing import Literal

import jax

from experiments import celeba
from experiments import cli
from experiments import mnist
from experiments import paper_numbers
from experiments import paper_tables
from experiments import progress
from experiments import session
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.evaluation import class_scores
from jacsup_jax.runs import run as run_lib
from jacsup_jax.runs import stages as stages_lib
from jacsup_jax.training import attributes
from jacsup_jax.training import devices
from jacsup_jax.training import discovery
from jacsup_jax.training import replicas

_Table = Literal['4', '5', '6']
TABLES = typing.get_args(_Table)
# Flags that differ from those of experiments.celeba. The teachers of these
# tables have no second phase.
_FACES = {'cycle_epochs': 0, 'students': ()}
_DEFAULTS = {
  '4': {},
  '5': {**_FACES, 'nuisance_dims': (2048, 4096), 'student_epochs': 50},
  '6': {**_FACES, 'nuisance_dims': (2048,), 'epochs': 50},
}


_TABLE = config_lib.option(
  None, 'Table of the paper; without it, nothing is trained.', group='what'
)


@dataclasses.dataclass(frozen=True)
class ClassesConfig(mnist.Config):
  """The flags of Table 4."""

  table: _Table | None = _TABLE


@dataclasses.dataclass(frozen=True)
class FacesConfig(celeba.Config):
  """The flags of Tables 5 and 6."""

  table: _Table | None = _TABLE


def make_default(argv: Sequence[str]) -> ClassesConfig | FacesConfig:
  """Returns the flags of the table that the arguments name, else of Table 4."""
  table = cli.find('table', argv)
  if table not in TABLES:  # It is not given, or parsing names the mistake.
    return ClassesConfig()
  return cli.with_defaults(
    ClassesConfig() if table == '4' else FacesConfig(),
    table=table,
    workdir=pathlib.Path(f'runs/ablation_table{table}'),
    **_DEFAULTS[table],
  )


def main(config: ClassesConfig | FacesConfig) -> None:
  """Trains and measures a table, and writes it; lists them if none is given."""
  if config.table is None:
    progress.say(describe_tables())
    return
  if config.run.distributed:
    raise errors.InputError(
      '--distributed: a table is trained by one process; accepted:'
      ' --nodistributed.'
    )
  if config.baseline.baselines:
    raise errors.InputError(
      f'--baselines={",".join(config.baseline.baselines)}: a table has none;'
      ' accepted: --baselines=.'
    )
  table = paper_numbers.TABLES[int(config.table)]
  experiment = f'ablation_table{config.table}'
  if config.table == '4':
    train_replicas(experiment, config, [row.weights for row in table.rows])
  else:
    celeba.train_and_evaluate(
      experiment, config, make_face_stages(config.chain, config.table)
    )
  rows = run_lib.Run.open(config.run.workdir).rows
  progress.say(paper_tables.write(table, rows, config.run.workdir / 'table'))


def describe_tables() -> str:
  """Describes each bundled flagfile of a table: its first lines, its command.

  These say what is trained, what to expect, and how long it takes.
  """
  parts = ['No --table is given: nothing is trained. What can be, and how:']
  paths = cli.FLAGFILES.glob('*_table[456]*.flags')
  for path in sorted(paths, key=lambda path: path.stem.partition('_')[2]):
    lines = path.read_text(encoding='utf-8').splitlines()
    if any(line.startswith('--table=') for line in lines):
      command = f'python -m experiments.ablation --flagfile={path.stem}'
      about = [line.removeprefix('# ') for line in lines if line[:1] == '#']
      wrapped = [
        textwrap.fill(x, 76, initial_indent='  ', subsequent_indent='    ')
        for x in about
      ]
      parts.append('\n'.join([command, *wrapped]))
  return '\n\n'.join(parts)


def make_face_stages(
  chain: attributes.AttributesConfig, table: str
) -> list[config_lib.Stage]:
  """Makes the stages of Table 5, or of Table 6.

  Table 5 has a teacher and a student grown from it for each row; Table 6 has a
  teacher for each row.

  Raises:
    InputError: if a flag asks for what the table does not have.
  """
  dims, sizes = chain.nuisance_dims, {'5': 2, '6': 1}[table]
  if len(dims) != sizes or chain.students or chain.teacher_workdir:
    raise errors.InputError(
      f'--table={table} with --nuisance_dims={",".join(map(str, dims))},'
      f' --students={",".join(chain.students)} and'
      f' --teacher_workdir={chain.teacher_workdir}; accepted: {sizes} sizes,'
      ' and neither students nor a teacher, which the table defines.'
    )
  teacher = config_lib.Stage(
      'teacher', 'teacher', None, dims[0], chain.epochs,
      attributes.make_weights(chain, 'teacher_phase_1'),
  )  # fmt: skip
  stages, like, weights = [], teacher, teacher.weights
  if table == '5':
    stages = [teacher]
    like = config_lib.Stage(
      'student', 'student', 'teacher', dims[1], chain.student_epochs, weights
    )
    weights = attributes.make_weights(chain, 'student_no_jacobian')
  for i, row in enumerate(paper_numbers.TABLES[int(table)].rows, 1):
    own = dataclasses.replace(weights, **row.weights)
    name = f'{like.name}_row{i}'
    stages.append(dataclasses.replace(like, name=name, weights=own))
  return chain.spread(stages)


def train_replicas(
  experiment: str,
  config: ClassesConfig,
  rows: Sequence[Mapping[str, float]],
) -> None:
  """Trains and measures Table 4: a teacher, students of all rows' weights."""
  chain, run, shape = config.chain, config.run, mnist.IMAGE_SHAPE
  count = len(rows)
  weights = replicas.stack_weights(
    [dataclasses.replace(chain.weights, **row) for row in rows]
  )
  stages = discovery.make_stages(chain)
  for i, stage in enumerate(stages):
    if stage.model == 'student':
      stages[i] = dataclasses.replace(stage, weights=weights)
  at_once = dataclasses.replace(chain, batch_size=count * chain.batch_size)
  discovery.check_sizes(at_once, stages, shape)
  devices.check_batch_size(chain.batch_size)
  values = cli.as_dict(config)
  with session.opened(run, values) as workdir:
    if session.is_complete(workdir):
      return
    train, _, test = mnist.load_data(config, shape)
    make_module = functools.partial(mnist.make_module, config)
    recipe = replicas.Replicas(chain, make_module, train.images)
    judges = session.restore_or_train_classes(
      run.judge_workdir, config.result.dataset, run.data_dir, shape
    )
    session.begin(
        workdir, experiment, values, stages, train, run.data_dir,
        image_shape=shape,
    )  # fmt: skip
    scores = class_scores.ClassScores(judges, test, train)
    with progress.Progress(stages, run.progress) as bar:
      trained = stages_lib.run(
        stages,
        recipe,
        workdir=workdir,
        evaluate=functools.partial(_evaluate, scores.watch, count),
        report=bar.report,
        checkpoint_every=run.checkpoint_every,
        eval_every=config.result.eval_every,
        note=progress.note,
      )
    models = []
    for model in trained:
      if replicas.count_replicas(model.stage) is None:
        models.append(model)
      elif model.stage.nuisance_dim == chain.nuisance_dim:
        models += [replicas.take_replica(model, i) for i in range(count)]
    models = session.add_random(session.by_seed(models), lambda own: own[-1])
    workdir.write_results(
      experiment,
      f'{config.result.eval_split} split; {class_scores.PROTOCOL}',
      [session.describe(own) | scores.measure(own.model) for own in models],
      judges=[judge.describe() for judge in judges],
    )


def _evaluate(watch, count, model):
  """Measures a single model, or each of a stack, for curves."""
  # A bias has one axis, and another one if it is stacked.
  if min(x.ndim for x in jax.tree.leaves(model.params)) == 1:
    return watch(model)
  found = [watch(replicas.take_model(model, i)) for i in range(count)]
  names = 'mse', 'class_swaps_mlp'
  return {name: [row[name] for row in found] for name in names}


if __name__ == '__main__':
  cli.run(main, make_default)
