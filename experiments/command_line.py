"""The contract of the command line that all experiments share.

Common flags, progress, and how a binary ends: status 0 only when its run is
complete, status 2 with one line for a user's mistake.
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

from jacsup_jax import circumstances
from jacsup_jax import compilation
from jacsup_jax import datasets
from jacsup_jax import hosts
from jacsup_jax import locks
from jacsup_jax import parallel
from jacsup_jax import preemption
from jacsup_jax import stages
from jacsup_jax import tables
from jacsup_jax import types
from jacsup_jax import untrusted
from jacsup_jax import workdirs

# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

_LARGEST_INTEGER = 2**31 - 1  # Of JAX's default integers.
# Bytes of flagfiles, one within another: the longest here has 1,500.
_LONGEST_FLAGFILES = 2**20
_OF_PROCESSES = ('coordinator', 'process_count', 'process_id')
# These say where and how to run; all others decide the result.
_NOT_OF_THE_RESULT = frozenset({
    'workdir', 'data_dir', 'judge_workdir', 'cache', 'resume', 'progress',
    'flagfile', 'compilation_cache', 'distributed', 'distributed_timeout',
    'on_checkpoint_error', 'on_nan', 'max_rollbacks', 'on_damage',
    'grace_seconds', 'deterministic', 'describe', 'expected_data',
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


def define_data_flags(
    dataset: str = datasets.DEFAULT_DATASET,
    names: str = (
        'mnist_embedded (in the package), the TFDS name of a set of grey 28x28'
        ' images'
    ),
) -> None:
  """Defines the flags that say which set of classes is read.

  Args:
    dataset: default of --dataset.
    names: which are accepted, besides `arrays`.
  """
  flags.DEFINE_string(
      'dataset', dataset, f'Data set: {names}, or arrays (a file of your own).'
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Where TFDS keeps prepared sets; its own by default. For arrays the .npz'
      ' file: images (uint8, or floats in [0, 1] or [0, 255]), labels (integers'
      ' from 0) and split (train or test of each).',
  )


def define_face_data_flags(*, image_size: int) -> None:
  """Defines the flags that say which set of faces is read.

  Args:
    image_size: default of --image_size.
  """
  flags.DEFINE_string(
      'dataset',
      datasets.DEFAULT_FACES,
      'Data set: synthetic_faces (drawn by this package), celeba_folder (the'
      ' folder of --data_dir in the layout of CelebA), or celeb_a (of TFDS).',
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'For celeba_folder: the folder with img_align_celeba (or its zip),'
      ' list_attr_celeba.txt and list_eval_partition.txt. Else where TFDS keeps'
      ' prepared sets; its own by default.',
  )
  flags.DEFINE_integer(
      'image_size', image_size, 'Pixels of a side, a power of two.'
  )
  flags.DEFINE_list(
      'attributes', [], 'Names of the attributes to edit; all by default.'
  )
  flags.DEFINE_boolean(
      'skip_bad_images',
      False,
      'Leave out images of celeba_folder that cannot be decoded, and say how'
      ' many; they are refused otherwise.',
  )
  flags.DEFINE_integer(
      'held_out', 0, 'Images at the end of the training split to leave out.'
  )


def define_training_flags(
    *,
    workdir: str,
    epochs: int,
    epochs_help: str = 'Passes over the data, in each stage.',
) -> None:
  """Defines the flags that every training binary has, but those of its data.

  Args:
    workdir: default of --workdir.
    epochs: default of --epochs.
    epochs_help: what these are.
  """
  flags.DEFINE_string(
      'workdir',
      workdir,
      'Directory that the run owns. With --distributed the first process alone'
      ' reads and writes it.',
  )
  flags.DEFINE_integer(
      'seed',
      0,
      'Seed of initialisation, data and swaps.',
      lower_bound=0,
      upper_bound=_LARGEST_INTEGER,
  )
  flags.DEFINE_integer('batch_size', 128, 'Examples per step, on all devices.')
  flags.DEFINE_integer('epochs', epochs, epochs_help)
  flags.DEFINE_enum(
      'compute_dtype',
      'float32',
      ['float32', 'bfloat16'],
      'What matrix products are computed in; parameters are float32.',
  )
  flags.DEFINE_enum(
      'parallel',
      'jit',
      parallel.MODES,
      'How devices share a step: jit over a mesh, or pmap.',
  )
  flags.DEFINE_string(
      'compilation_cache',
      None,
      'Directory that keeps compiled programs: the next run, or the same one'
      ' continued, reads and runs them, so let nobody else write there. None'
      ' are kept by default.',
  )
  flags.DEFINE_boolean('resume', True, 'Continue a run that is in --workdir.')
  flags.DEFINE_boolean(
      'deterministic',
      False,
      'On GPUs, the same command gives the same bits, at some cost of speed: it'
      ' adds --xla_gpu_deterministic_ops=true to XLA_FLAGS. On CPU and TPU'
      ' nothing is needed.',
  )
  flags.DEFINE_string(
      'expected_data',
      None,
      'Fingerprint of the training data, as in a manifest: others are refused'
      ' before anything is trained. By default any are accepted.',
  )
  flags.DEFINE_boolean(
      'describe',
      False,
      'Print, as JSON, the flags and circumstances that the manifest of this'
      ' command would have here, and end.',
  )
  flags.DEFINE_boolean(
      'progress',
      None,
      'Draw a progress bar; by default on a terminal only, a line per epoch'
      ' elsewhere.',
  )
  _define_fault_flags()
  _define_process_flags()


def _define_fault_flags():
  flags.DEFINE_enum(
      'on_checkpoint_error',
      'stop',
      ['stop', 'continue'],
      'What to do when a checkpoint, or a line of metrics, cannot be written (a'
      ' full disk): stop, or continue and try again at the next one. The last'
      ' checkpoint of a stage and the results must be written.',
  )
  flags.DEFINE_enum(
      'on_nan',
      'stop',
      ['stop', 'rollback'],
      'What to do when a loss or a gradient is not finite: stop, or rollback to'
      ' the last checkpoint and go on with the data in another order.',
  )
  flags.DEFINE_integer(
      'max_rollbacks',
      3,
      'How often a stage may go back, see --on_nan.',
      lower_bound=1,
  )
  flags.DEFINE_enum(
      'on_damage',
      'stop',
      ['stop', 'retrain'],
      'What to do when a stage has checkpoints and none of them is whole: stop,'
      ' or set them aside and retrain the stage from its start. Where one is'
      ' whole, the run always goes on from it.',
  )
  flags.DEFINE_float(
      'grace_seconds',
      10,
      'SIGTERM and SIGINT end the current step and save it; what is not done'
      ' after these seconds is left. A second signal ends the run at once.',
      lower_bound=2,
      upper_bound=86400,
  )


def _define_process_flags():
  flags.DEFINE_boolean(
      'distributed',
      False,
      'This is one of several processes of a run, as on several hosts, each'
      ' with its own devices; --batch_size is of all together. All read the'
      ' training data, and are given the same flags but --process_id. Without'
      ' --coordinator, --process_count and --process_id the environment says'
      ' which one this is: on hosts of a TPU, under Slurm, under Open MPI; the'
      ' first process then listens on all addresses of its host.',
  )
  flags.DEFINE_string(
      'coordinator',
      None,
      'HOST:PORT where the first process listens for the others, on that'
      ' address alone; 0.0.0.0:PORT, of the first process, on all it has.',
  )
  flags.DEFINE_integer(
      'process_count', None, 'How many processes there are.', lower_bound=1
  )
  flags.DEFINE_integer(
      'process_id',
      None,
      'Which of them this is, from 0: the first, which listens at --coordinator'
      ' and writes --workdir.',
      lower_bound=0,
  )
  flags.DEFINE_float(
      'distributed_timeout',
      300,
      'Seconds to wait for the other processes when a run begins.',
  )


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
    raise types.InputError(
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
      raise types.InputError(
          f'--{name}={value}; accepted: {lowest} or larger, and finite.'
      )
    if isinstance(value, int):
      check_at_most(_LARGEST_INTEGER, name)


def check_at_most(highest: float, *names: str) -> None:
  """Raises InputError if one of these flags is above that.

  Args:
    highest: what is accepted.
    *names: of the flags.
  """
  for name in names:
    value = flags.FLAGS[name].value
    if value > highest:
      raise types.InputError(f'--{name}={value}; accepted: {highest} at most.')


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
    raise types.InputError(
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

  def report(self, stage: types.Stage, record: dict[str, Any]) -> None:
    """Shows one record of metrics.jsonl."""
    names = ('loss', 'eval_mse', 'eval_class_swaps')
    shown = {n: record[n] for n in names if record.get(n) is not None}
    # Of a grid's members, the mean of those that have a value.
    shown = {
        n: np.mean([x for x in np.ravel(v) if x is not None])
        for n, v in shown.items()
    }
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
      raise types.InputError(
          f'{where} leads back to itself, by'
          f' {" and ".join(above[above.index(path) :])}; accepted: flagfiles'
          ' that end.'
      )
    # An empty name is none, for absl.
    content = untrusted.read(path, _LONGEST_FLAGFILES) if path else b''
    left[0] -= len(content) + 1
    # Few bytes in many files that name each other would be many flags.
    if left[0] < 0:
      raise types.InputError(
          f'{where}, with those before it, has more than'
          f' {_LONGEST_FLAGFILES:,} bytes; accepted: fewer.'
      )
    try:
      lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
      raise types.InputError(
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
      raise types.InputError(
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
  except types.InputError as error:
    _fail(error)
  except types.RunError as error:
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
  text = types.one_line(str(error))[:300]
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
      raise types.InputError(
          f'{" ".join(given)} without --distributed; accepted: both, or'
          ' neither.'
      )
    return
  check_at_least(1, 'distributed_timeout')
  missing = [f'--{name}' for name, v in values.items() if v is None]
  if given and missing:
    raise types.InputError(
        f'{" ".join(given)} without {" and ".join(missing)}; accepted: all'
        ' three, or none of them where the environment says it.'
    )
  if given and values['process_id'] >= values['process_count']:
    raise types.InputError(
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
  message = types.one_line(str(error))
  parallel.fail(message, status)
  print(f'error: {message}', file=sys.stderr)
  sys.exit(status)
