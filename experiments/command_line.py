"""The contract of the command line that all experiments share.

What is checked and recorded of flags, progress, and how a binary ends: status 0
only when its run is complete, status 2 with one line for a user's mistake,
status 1 with one line for a disk or numbers.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import errno
import json
import math
import os
import pathlib
import sys
import traceback
from typing import Any

from absl import app
from absl import flags
from absl import logging
import numpy as np
import tqdm

from experiments import common_flags
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.evaluation import averages
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import circumstances
from jacsup_jax.runs import locks
from jacsup_jax.runs import preemption
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import compilation
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import hosts

# Bytes of flagfiles, one within another: the longest here has 1,500.
_LONGEST_FLAGFILES = 2**20
_OF_PROCESSES = ('coordinator', 'process_count', 'process_id')
# These say where and how to run; all others decide the result.
_NOT_OF_THE_RESULT = frozenset({
    'workdir', 'data_dir', 'judge_workdir', 'cache', 'resume', 'progress',
    'flagfile', 'compilation_cache', 'distributed', 'distributed_timeout',
    'on_checkpoint_error', 'on_nan', 'max_rollbacks', 'on_damage',
    'grace_seconds', 'deterministic', 'describe', 'expected_data',
    'tensorboard',
    *_OF_PROCESSES,
})  # pyformat: disable
# Of these, what decides which programs run: the same on all processes.
_OF_ALL_PROCESSES = ('cache', 'deterministic')
# Of these, local paths, which mean the same in every directory if absolute.
_PATHS = ('workdir', 'data_dir', 'judge_workdir', 'compilation_cache')
# Of errors of the system: of disks that are full, or may not be written to.
_OF_DISKS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES,
    errno.EPERM, errno.EIO,
)  # pyformat: disable
# What is given up when a run ends, however it does.
_at_end = contextlib.ExitStack()


def result_flags() -> dict[str, Any]:
  """Returns the flags that decide a run's result, for its manifest."""
  return {
      name: value
      for name, value in _own_flags().items()
      if name not in _NOT_OF_THE_RESULT
  }


def describe_circumstances() -> dict[str, Any]:
  """Returns what a run's manifest has besides flags, data and devices."""
  how = {n: v for n, v in _own_flags().items() if n in _NOT_OF_THE_RESULT}
  for name in _PATHS:
    # Other places than the local disk have a scheme, as gs://.
    if how.get(name) is not None and '://' not in how[name]:
      how[name] = os.path.abspath(os.path.expanduser(how[name]))
  return {
      'how': how,
      'code': circumstances.hash_code('jacsup_jax', 'experiments'),
      'processes': parallel.process()[1],
      'machine': circumstances.describe_machine(),
      'environment': circumstances.describe_environment(),
  }


def check_data(name: str, fingerprint: str) -> None:
  """Raises InputError if these are not the data that --expected_data asks for.

  Args:
    name: of the training data.
    fingerprint: of them.
  """
  expected = flags.FLAGS.expected_data
  if expected is not None and expected != fingerprint:
    raise errors.InputError(
        f'--expected_data={expected}: {name} has the fingerprint {fingerprint};'
        ' accepted: the same data, or a run without --expected_data.'
    )


def _own_flags():
  """Returns the values of a binary's flags, but those of libraries."""
  # absl files the flags of the binary that runs under its path.
  ours = lambda name: name == sys.argv[0] or name.startswith('experiments.')
  by_module = flags.FLAGS.flags_by_module_dict()
  defined = [f for name in filter(ours, by_module) for f in by_module[name]]
  return {
      flag.name: flag.value
      for flag in sorted(defined, key=lambda flag: flag.name)
  }


def check_at_least(lowest: float, *names: str) -> None:
  """Raises InputError if one of these flags is below that, or not finite.

  Whole numbers are to be below 2**31, as JAX's are.

  Args:
    lowest: what is accepted.
    *names: of the flags.
  """
  for name in names:
    value = flags.FLAGS[name].value
    if not lowest <= value < math.inf:  # Also catches NaN.
      raise errors.InputError(
          f'--{name}={value}; accepted: {lowest} or larger, and finite.'
      )
    if isinstance(value, int):
      check_at_most(common_flags.LARGEST_INTEGER, name)


def check_at_most(highest: float, *names: str) -> None:
  """Raises InputError if one of these flags is above that.

  Args:
    highest: what is accepted.
    *names: of the flags.
  """
  for name in names:
    value = flags.FLAGS[name].value
    if value > highest:
      raise errors.InputError(f'--{name}={value}; accepted: {highest} at most.')


def parse_numbers(name: str) -> list[float]:
  """Returns the values of a flag that is a list of positive numbers.

  Args:
    name: of the flag.

  Raises:
    InputError: if it is empty, or an entry is not a finite number above 0.
  """
  texts = flags.FLAGS[name].value
  try:
    numbers = [float(text) for text in texts]
  except ValueError:
    numbers = []
  if not numbers or not all(0 < number < math.inf for number in numbers):
    raise errors.InputError(
        f'--{name}={",".join(texts)}; accepted: numbers above 0, separated by'
        ' commas.'
    )
  return numbers


def open_workdir(
    values: Mapping[str, Any],
) -> tuple[workdirs.WorkDir | None, bool]:
  """Opens the directory of a run, and shows the results of a complete one.

  Args:
    values: of the flags that decide the result.

  Returns:
    The directory, None on all processes but the first; whether it is complete.

  Raises:
    InputError: if it is not that of such a run, or may not be continued.
  """
  workdir, is_complete = None, False
  if parallel.is_first():
    workdir = workdirs.WorkDir(flags.FLAGS.workdir)
    workdir.check(values, flags.FLAGS.resume)
    is_complete = workdir.is_complete
    if not is_complete:
      lock = locks.Lock(workdir.path)
      _at_end.callback(lock.release)
      # Another run may have begun, or ended, before the lock was ours.
      workdir = workdirs.WorkDir(flags.FLAGS.workdir)
      workdir.check(values, flags.FLAGS.resume)
      is_complete = workdir.is_complete
    if is_complete:
      print(f'The run in {workdir.path} is complete.')
      print(tables.format_results(workdir.read_results()))
  return workdir, parallel.share(is_complete)


def fault_options() -> dict[str, Any]:
  """Returns what `stages.run` is to do about what goes wrong."""
  names = ('on_checkpoint_error', 'on_nan', 'max_rollbacks', 'on_damage')
  faults = stages.Faults(**{name: flags.FLAGS[name].value for name in names})
  return {'faults': faults, 'note': note}


def note(line: str) -> None:
  """Says on stderr what a run has found and does about it."""
  if parallel.is_first():
    print(f'note: {line}', file=sys.stderr, flush=True)


class Progress:
  """A bar per stage on a terminal, a line per epoch elsewhere."""

  def __init__(self, draw: bool | None):
    self._draw = sys.stderr.isatty() if draw is None else draw
    self._bar = None

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def report(self, stage: config.Stage, record: dict[str, Any]) -> None:
    """Shows one record of metrics.jsonl."""
    names = ('loss', 'eval_mse', 'eval_class_swaps')
    # Of a grid's members, the mean of those that have a value.
    means = {
        n: averages.mean(np.ravel(record.get(n)).tolist()) for n in names
    }
    shown = {n: x for n, x in means.items() if x is not None}
    if not self._draw:
      values = ' '.join(f'{n}={v:.4f}' for n, v in shown.items())
      print(
          f'{stage.name} {record["epoch"]}/{stage.epochs} {values}'
          f' {record["images_per_second"]:.0f} images/s',
          flush=True,
      )
      return
    if self._bar is None or self._bar.desc != f'{stage.name}: ':
      self.close()
      self._bar = tqdm.tqdm(
          total=stage.epochs,
          desc=stage.name,
          unit='epoch',
          initial=record['epoch'] - 1,
      )
    self._bar.set_postfix({n: f'{v:.4f}' for n, v in shown.items()})
    self._bar.update(record['epoch'] - self._bar.n)

  def close(self) -> None:
    """Ends the bar, if one is drawn."""
    if self._bar is not None:
      self._bar.close()
      self._bar = None


def run(main: Callable[[], None]) -> None:
  """Runs a binary's main and turns its mistakes into one line and a status.

  Args:
    main: called without arguments once the flags are parsed.
  """
  app.run(lambda argv: _run(main, argv), flags_parser=_parse)


def _parse(argv):
  try:
    check_flagfiles(argv[1:])
    return flags.FLAGS(argv)
  # absl's Error is none of --noresume=x.
  except (flags.Error, ValueError) as error:
    _fail(error)


def check_flagfiles(args: Sequence[str]) -> None:
  """Checks the flagfiles that arguments name, which absl reads whole.

  Args:
    args: of the command line.

  Raises:
    InputError: if one is no text file, they lead back to themselves, or are too
      long together.
  """
  left = [_LONGEST_FLAGFILES]

  def check(path, above):
    path = os.path.expanduser(path)
    where = f'--flagfile={path}'
    if path in above:
      raise errors.InputError(
          f'{where} leads back to itself, by'
          f' {" and ".join(above[above.index(path) :])}; accepted: flagfiles'
          ' that end.'
      )
    # An empty name is none, for absl.
    content = untrusted.read(path, _LONGEST_FLAGFILES) if path else b''
    left[0] -= len(content) + 1
    # Few bytes in many files that name each other would be many flags.
    if left[0] < 0:
      raise errors.InputError(
          f'{where}, with those before it, has more than'
          f' {_LONGEST_FLAGFILES:,} bytes; accepted: fewer.'
      )
    try:
      lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
      raise errors.InputError(
          f'{where} is no text ({error}); accepted: UTF-8.'
      ) from error
    check_all(lines, (*above, path))

  def check_all(lines, above):
    for line, following in zip(lines, [*lines[1:], '']):
      name, is_given, value = line.strip().lstrip('-').partition('=')
      if line.startswith('-') and name == 'flagfile':
        # Of a command line the value may be the next argument.
        check(value.strip() if is_given or above else following, above)

  check_all(list(args), ())


def _run(main, argv):
  # Orbax tells every step of a save; -v asks for it.
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  try:
    if len(argv) > 1:
      raise errors.InputError(
          f'found {argv[1]!r} after the flags; accepted: flags only.'
      )
    if 'deterministic' in flags.FLAGS and flags.FLAGS.deterministic:
      compilation.ask_for_determinism()
    if 'compilation_cache' in flags.FLAGS and flags.FLAGS.compilation_cache:
      directory = flags.FLAGS.compilation_cache
      workdirs.check_writable(f'--compilation_cache={directory}', directory)
      compilation.keep_programs(directory)
    _connect()
    _describe_precision()
    if 'describe' in flags.FLAGS and flags.FLAGS.describe:
      _describe()
    else:
      _run_watched(main)
    parallel.disconnect()
  except errors.InputError as error:
    _fail(error)
  except errors.RunError as error:
    _fail(error, 1)
  except OSError as error:
    # What is written in many places, such as pictures.
    if error.errno not in _OF_DISKS or not error.filename:
      _end_by_traceback(error)
    _fail(workdirs.storage_error(pathlib.Path(error.filename), error), 1)
  except preemption.Preempted:
    # Before main began, or after it was done.
    _leave('stopped by a signal; what was saved stands.', 143)
  except BaseException as error:
    _end_by_traceback(error)


def _end_by_traceback(error):
  """Ends all processes for a mistake that is ours, or by an exit."""
  if not parallel.has_others():
    raise error
  parallel.await_news(error)
  traceback.print_exception(error)
  text = errors.one_line(str(error))[:300]
  parallel.fail(f'{type(error).__name__}: {text}', 1)


def _run_watched(main):
  """Runs main, which SIGTERM and SIGINT end."""
  seconds = 10.0
  if 'grace_seconds' in flags.FLAGS:
    seconds = flags.FLAGS.grace_seconds
  relay = None if parallel.is_first() else parallel.ask_to_stop
  with preemption.watched(seconds, _leave, relay):
    try:
      with _at_end:
        main()
    except preemption.Preempted as error:
      number = preemption.requested()
      saved = f': {error}' if str(error) else ''
      goes_on = 'what was saved stands'
      if 'resume' in flags.FLAGS:
        goes_on = 'the same command goes on from there'
      _leave(
          f'stopped by {number.name}{saved}; {goes_on}.',
          preemption.exit_status(number),
      )


def _leave(line, status):
  """Ends this process at once, and with it all others of the run."""
  parallel.fail(line, status)
  hosts.say(line)
  hosts.leave(status)


def _connect():
  """Joins the other processes of the run, if the flags say that it has any."""
  if 'distributed' not in flags.FLAGS:
    return
  values = {name: flags.FLAGS[name].value for name in _OF_PROCESSES}
  given = [f'--{n}={v}' for n, v in values.items() if v is not None]
  if not flags.FLAGS.distributed:
    if given:
      raise errors.InputError(
          f'{" ".join(given)} without --distributed; accepted: both, or'
          ' neither.'
      )
    return
  check_at_least(1, 'distributed_timeout')
  missing = [f'--{name}' for name, v in values.items() if v is None]
  if given and missing:
    raise errors.InputError(
        f'{" ".join(given)} without {" and ".join(missing)}; accepted: all'
        ' three, or none of them where the environment says it.'
    )
  if given and values['process_id'] >= values['process_count']:
    raise errors.InputError(
        f'--process_id={values["process_id"]} with'
        f' --process_count={values["process_count"]}; accepted: 0 to'
        f' {values["process_count"] - 1}.'
    )
  terms = result_flags() | {
      name: flags.FLAGS[name].value
      for name in _OF_ALL_PROCESSES
      if name in flags.FLAGS
  }
  parallel.connect(
      **values,
      terms={f'--{name}': value for name, value in terms.items()},
      seconds=flags.FLAGS.distributed_timeout,
  )


def _describe():
  """Prints what a manifest would have, on one line."""
  description = {
      'flags': result_flags(),
      'devices': parallel.describe_devices(),
      'versions': circumstances.describe_versions(),
      **describe_circumstances(),
  }
  print(json.dumps(description, default=str))


def _describe_precision():
  """Says what becomes of bfloat16 on devices that lack it."""
  # Of binaries that train: a benchmark compiles for other devices.
  asked = 'compute_dtype' in flags.FLAGS and 'resume' in flags.FLAGS
  if asked and flags.FLAGS.compute_dtype == 'bfloat16' and parallel.is_first():
    line = parallel.describe_bfloat16()
    if line is not None:
      print(f'--compute_dtype=bfloat16: {line}', file=sys.stderr)


def _fail(error, status=2):
  message = errors.one_line(str(error))
  parallel.fail(message, status)
  print(f'error: {message}', file=sys.stderr)
  sys.exit(status)
