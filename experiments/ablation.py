"""Appendix A.3 of Lezama (2019): what the weights of the terms do.

  python -m experiments.ablation --flagfile=experiments/flagfiles/FILE

with mnist_table4.flags, celeba_table5.flags or celeba_table6.flags, or the
_quick ones. Table 4 trains all its rows and seeds at once, as one vmap; Tables
5 and 6 train one model after the other. The flags are those of the table's
experiment: --help shows them after --table=4, 5 or 6.
"""

from collections.abc import Sequence
import sys

from absl import flags

from experiments import ablation_digits
from experiments import ablation_faces
from experiments import command_line
from experiments import paper_numbers
from experiments import paper_tables
from experiments import seed_runs
from jacsup_jax.core import errors
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS
TABLES = ('4', '5', '6')


def define_flags(table: str) -> None:
  """Defines the flags of this binary.

  Args:
    table: of `TABLES`, which decides the others.
  """
  flags.DEFINE_enum('table', '4', TABLES, 'Of the paper.')
  flags.DEFINE_integer(
      'seeds', 1, 'How many of every row: --seed and those that follow it.'
  )
  if table == '4':
    ablation_digits.define_flags()
  else:
    ablation_faces.define_flags(table)


def find_table(args: Sequence[str]) -> str:
  """Finds --table, on which the definitions of the other flags depend.

  Args:
    args: of the command line, flagfiles among them.

  Returns:
    Of `TABLES`; the default where it is missing or wrong, which parsing says.
  """
  try:
    command_line.check_flagfiles(args)
    args = FLAGS.read_flags_from_files(list(args), force_gnu=True)
  except (flags.Error, errors.InputError):
    args = []
  found = '4'
  for i, arg in enumerate(args):
    name, is_given, value = arg.lstrip('-').partition('=')
    if arg.startswith('-') and name == 'table':
      found = value if is_given else ''.join(args[i + 1 : i + 2])
  return found if found in TABLES else '4'


def main() -> None:
  seed_runs.check_flags()
  if FLAGS.distributed:
    raise errors.InputError(
        '--distributed: a table is trained by one process; accepted:'
        ' --nodistributed.'
    )
  values = command_line.result_flags()
  workdir = workdirs.WorkDir(FLAGS.workdir)
  workdir.check(values, FLAGS.resume)
  if workdir.is_complete:
    print(f'The run in {workdir.path} is complete.')
  elif FLAGS.table == '4':
    ablation_digits.run(values, workdir)
  else:
    ablation_faces.run(values, workdir)
  table = paper_numbers.TABLES[int(FLAGS.table)]
  rows = workdir.read_results()['rows']
  text = paper_tables.format_markdown(table, rows)
  workdirs.write_whole(workdir.path / 'table.md', text)
  workdirs.write_whole(
      workdir.path / 'table.csv', paper_tables.format_csv(table, rows)
  )
  print(text, end='')


if __name__ == '__main__':
  define_flags(find_table(sys.argv[1:]))
  command_line.run(main)
