"""Which runs make which table and figure of the paper, and what they found."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from experiments import paper_numbers
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.runs import preemption
from jacsup_jax.runs import workdir as workdirs

SCALES = ('quick', 'full')
FLAGFILES = pathlib.Path('experiments') / 'flagfiles'


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of a binary.

  Attributes:
    binary: of experiments.
    name: of its flagfile, and of its work directory.
    words: what it is, for readers.
    teacher: name of another run, which has the teacher; None if it has one.
  """

  binary: str
  name: str
  words: str
  teacher: str | None = None


_DIGITS_QUICK = Run(
    'mnist', 'mnist_quick', 'MNIST, 10 epochs a stage, learning rate 1e-3'
)
_DIGITS = Run('mnist', 'mnist_table1', 'MNIST, as in the paper')
_DIGITS_WITHOUT = Run(
    'mnist', 'mnist_table1_no_jacobian', 'MNIST, as in the paper'
)
_FACES_QUICK = Run(
    'celeba', 'celeba_quick', 'faces drawn by the package, small models'
)
_TEACHER = Run('celeba', 'celeba_teacher', 'CelebA, as in the paper')
_STUDENT = Run(
    'celeba', 'celeba_student', 'CelebA, as in the paper', 'celeba_teacher'
)
_FADER_QUICK = Run(
    'celeba', 'celeba_quick_fader', 'faces drawn by the package, small models'
)
_FADERS = tuple(
    Run('celeba', name, 'CelebA, as in the paper')
    for name in ('celeba_fader', 'celeba_fader_8192')
)
_HOUSES_QUICK = Run('svhn', 'svhn_quick', 'a few minutes')
_HOUSES = Run('svhn', 'svhn_paper', 'as in the paper')
_QUICK_WORDS = 'faces drawn by the package, few epochs'

# By table or figure and scale: runs, parents first.
TABLES: Mapping[str, Mapping[str, tuple[Run, ...]]] = {
    '1': {'quick': (_DIGITS_QUICK,), 'full': (_DIGITS, _DIGITS_WITHOUT)},
    '2': {
        'quick': (_FACES_QUICK, _FADER_QUICK),
        'full': (_TEACHER, _STUDENT, *_FADERS),
    },
    # Of properties: nothing is run.
    '3': {'quick': (), 'full': ()},
    '4': {
        'quick': (
            Run('ablation', 'mnist_table4_quick', 'MNIST, 5 epochs a stage'),
        ),
        'full': (Run('ablation', 'mnist_table4', 'MNIST, as in the paper'),),
    },
    '5': {
        'quick': (Run('ablation', 'celeba_table5_quick', _QUICK_WORDS),),
        'full': (Run('ablation', 'celeba_table5', 'CelebA, as in the paper'),),
    },
    '6': {
        'quick': (Run('ablation', 'celeba_table6_quick', _QUICK_WORDS),),
        'full': (Run('ablation', 'celeba_table6', 'CelebA, as in the paper'),),
    },
}
_OF_DIGITS = TABLES['1']
_OF_FACES = {'quick': (_FACES_QUICK,), 'full': (_TEACHER, _STUDENT)}
_OF_HOUSES = {'quick': (_HOUSES_QUICK,), 'full': (_HOUSES,)}
FIGURES: Mapping[str, Mapping[str, tuple[Run, ...]]] = {
    '1': _OF_DIGITS, '2': _OF_DIGITS, '4': TABLES['2'], '5': _OF_FACES,
    '7': TABLES['2'], '8': TABLES['2'], '9': _OF_HOUSES, '10': _OF_HOUSES,
    '11': _OF_HOUSES, '12': _OF_HOUSES,
}  # pyformat: disable
# By figure: files in a run's figures/.
PATTERNS = {
    '1': 'figure_1[abcd]*.png', '2': 'figure_2*.png', '4': 'figure_4.png',
    '5': 'figure_5*.png', '7': 'reconstructions.png', '8': 'figure_8*.png',
    '9': 'figure_9*.png', '10': 'figure_10*.png', '11': 'figure_11*.png',
    '12': 'figure_12*.png',
}  # pyformat: disable
# Of results.json: what must agree for rows to stand in one table.
_COMPARED = ('protocol', 'judge', 'judges')


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> None:
  """Runs a command, whose lines are shown as they come.

  Ends this process too if it fails: its own line says why. A signal that tells
  this process to end is passed on, so that the run saves what it has.

  Args:
    command: arguments of Python.
    environment: of the process; this one's by default.
  """
  print(f'python {shlex.join(command)}', flush=True)
  with preemption.deferred():
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        # What a terminal sends to all of a group comes from here alone: a
        # second signal would not let it save.
        process_group=0,
    )
    try:
      with preemption.allowed():
        status = process.wait()
    except preemption.Preempted:
      process.send_signal(preemption.requested())
      process.wait()
      raise
  if status:
    print(
        f'error: {command[1]} ended with status {status}; the same command goes'
        ' on from there.',
        file=sys.stderr,
    )
    sys.exit(status if status == 2 else 1)


def read_rows(paths: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
  """Reads the rows of runs that were measured alike.

  Rows of the same model that two runs have, such as a teacher that one took
  from the other, are given once.

  Args:
    paths: of complete work directories.

  Returns:
    Rows of results.json, in order.

  Raises:
    InputError: if a results.json cannot be read, or the runs differ in their
      data, protocol or judges.
  """
  rows, first = [], None
  for path in paths:
    results, data = _read_results(path)
    measured = {
        'data': data,
        **{name: _identify(results.get(name)) for name in _COMPARED},
    }
    if first is None:
      first = (path, measured)
    for name, value in measured.items():
      if value != first[1][name]:
        raise errors.InputError(
            f'{path} has {name} {value}, {first[0]} has {first[1][name]};'
            ' accepted in one table: runs that were measured alike.'
        )
    known = {(row['model'], row.get('sha256'), row['seed']) for row in rows}
    rows += [
        row
        for row in results['rows']
        if (row['model'], row.get('sha256'), row['seed']) not in known
    ]
  return rows


def figure_4_of_paper() -> list[dict[str, Any]]:
  """Returns the paper's points of Figure 4, those of Table 2, as rows."""
  return [
      {
          'model': row.model,
          'nuisance_dim': row.nuisance_dim,
          'mse': row.mse,
          'attribute_flips': row.rate,
          'source': 'paper',
      }
      for row in paper_numbers.TABLE_2.rows
  ]


def _read_results(path):
  """Returns results.json of a run, and the name of its data."""
  try:
    run = workdirs.WorkDir(path)
    results, manifest = run.read_results(), run.manifest
    data = manifest['dataset']
    for row in results['rows']:
      row['model'], row['seed'], row['nuisance_dim'], row['epochs']
    results['protocol']
    return results, f'{data["name"]} {data["fingerprint"]}'
  except (OSError, ValueError, KeyError, TypeError) as error:
    if isinstance(error, errors.InputError):
      raise
    raise errors.InputError(
        f'{path / "results.json"} is not that of a run: {error!r}; accepted: a'
        ' complete run.'
    ) from error


def _identify(entry):
  """Shortens a judge to what tells it from another."""
  if isinstance(entry, Mapping):
    return entry.get('sha256') or json.dumps(entry, sort_keys=True)[:200]
  # Anything else is compared as text: NaN is not what it is itself.
  return entry if isinstance(entry, str) else untrusted.describe(entry)
