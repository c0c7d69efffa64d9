"""What all binaries share: flags from dataclasses, and how a binary ends.

`run` ends a process with status 0 when the work is complete, 2 after one line
for a user's mistake, 1 after one line for a full disk or numbers that are not
finite, 128 and the signal's number (143 of SIGTERM, 130 of SIGINT) after one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import os
import pathlib
import re
import sys
import textwrap
import types
import typing
from typing import Any, ClassVar, Literal, TypeVar

from absl import flags
from absl import logging
import jax

from experiments import progress
from jacsup_jax.core import config as config_lib
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.runs import signals
from jacsup_jax.training import devices

_Config = TypeVar('_Config')

GROUPS = ('what', 'data', 'training', 'devices', 'output')
_PROCESSES = ('coordinator', 'process_count', 'process_id')
FLAGFILES = pathlib.Path(__file__).parent / 'flagfiles'


@dataclasses.dataclass(frozen=True)
class ResultConfig(config_lib.Options, group='data'):
  """What a run is trained and measured on."""

  dataset: str = config_lib.option(
    registry.DEFAULT_DATASET,
    'mnist_embedded (in the package), drawn_factors (drawn faces), arrays'
    ' (your own file), or the TFDS name of images with a class label.',
  )
  eval_split: Literal['test', 'validation'] = config_lib.option(
    'test', 'Split to measure on; validation is then held out of training.'
  )
  eval_every: int = config_lib.option(
    5, 'Epochs between evaluations.', low=1, group='output'
  )


@dataclasses.dataclass(frozen=True)
class RunConfig(config_lib.Options, group='output'):
  """Where a run reads and writes, and how it works: not part of its result."""

  decides_result: ClassVar[bool] = False

  workdir: pathlib.Path = config_lib.option(
    pathlib.Path('runs/run'), 'Directory of the run: new, or one to resume.'
  )
  resume: bool = config_lib.option(True, 'Resume the run that is in --workdir.')
  judge_workdir: pathlib.Path | None = config_lib.option(
    None,
    'Directory of the judges, which are trained if missing; default: a folder'
    ' of runs/ named after the data set.',
  )
  data_dir: pathlib.Path | None = config_lib.option(
    None,
    'Where TFDS keeps prepared data sets (default: its own folder); the .npz'
    ' file of --dataset=arrays; the folder of --dataset=celeba_folder.',
    group='data',
  )
  checkpoint_every: int = config_lib.option(
    10, 'Epochs between checkpoints.', low=1
  )
  progress: bool | None = config_lib.option(
    None,
    'Show a progress bar; default: only on a terminal, elsewhere a line per'
    ' epoch.',
  )
  tensorboard: bool = config_lib.option(
    False, 'Also write metrics and pictures for TensorBoard.'
  )
  compilation_cache: pathlib.Path | None = config_lib.option(
    None,
    'Directory in which compiled programs are kept for later runs. Only you'
    ' should be able to write there, since they are executed.',
    group='devices',
  )
  deterministic: bool = config_lib.option(
    False,
    'Make GPUs give the same bits each time, which costs some speed; CPUs and'
    ' TPUs always do.',
    group='devices',
  )
  distributed: bool = config_lib.option(
    False,
    'This is one of several processes, which have their own devices and the'
    ' same flags; --batch_size counts the examples of all of them.',
    group='devices',
  )
  coordinator: str | None = config_lib.option(
    None,
    'HOST:PORT of the first process, with --process_count and --process_id.'
    ' Default: from the environment (TPU hosts, Slurm, Open MPI).',
    group='devices',
  )
  process_count: int | None = config_lib.option(
    None, 'Number of processes.', low=1, group='devices'
  )
  process_id: int | None = config_lib.option(
    None, 'Index of this process; 0 writes --workdir.', low=0, group='devices'
  )

  def __post_init__(self):
    super().__post_init__()
    given = [getattr(self, name) for name in _PROCESSES]
    if given != [None] * 3 and (None in given or not self.distributed):
      raise errors.InputError(
        '--coordinator, --process_count and --process_id are incomplete or'
        ' without --distributed; accepted: all four, or none of the three.'
      )
    if self.process_id is not None and self.process_id >= self.process_count:
      raise errors.InputError(
        f'--process_id={self.process_id} with'
        f' --process_count={self.process_count}; accepted: 0 to'
        f' {self.process_count - 1}.'
      )


def parse(default: _Config, argv: Sequence[str]) -> _Config:
  """Reads flags into a dataclass like the default; InputError if it cannot."""
  values = flags.FlagValues()
  fields = [*_list_fields(default)]
  for field, kind, value, _ in fields:
    if field.name not in values:  # A name that several share is one flag.
      _define(values, field, kind, value)
  try:
    said = io.StringIO()  # absl only warns of a flagfile that reads itself.
    with contextlib.redirect_stderr(said):
      rest = values(['', *_find_flagfiles(argv)])[1:]
    if 'circular' in said.getvalue():
      raise errors.InputError(
        '--flagfile: a file reads itself; accepted: files that end.'
      )
  except UnicodeDecodeError as error:
    raise errors.InputError(
      f'--flagfile has bytes that are not UTF-8 ({error}); accepted: text.'
    ) from error
  except flags.Error as error:
    raise errors.InputError(str(error)) from error
  if rest:
    raise errors.InputError(
      f'found {rest[0]!r} after the flags; accepted: flags only.'
    )
  found = {
    field.name: _convert(field.name, kind, values[field.name].value)
    for field, kind, *_ in fields
  }
  return _replace(default, found)


def as_dict(config: Any) -> dict[str, Any]:
  """Returns the values that decide a run's result, by flag name."""
  return {
    field.name: str(value) if isinstance(value, pathlib.Path) else value
    for field, _, value, _ in _list_fields(config, only_results=True)
  }


def with_defaults(config: _Config, **defaults: Any) -> _Config:
  """Returns a configuration with other values, by flag name at any depth."""
  known = {field.name for field, *_ in _list_fields(config)}
  if unknown := set(defaults) - known:
    raise ValueError(f'no flags {unknown} in {type(config).__name__}')
  return _replace(config, defaults)


def format_help(default: Any, doc: str) -> str:
  """Formats the flags of a binary by group, with their defaults."""
  lines = [doc.strip(), '']
  fields = {entry[0].name: entry for entry in _list_fields(default)}
  for group in GROUPS:
    own = [entry for entry in fields.values() if entry[3] == group]
    lines += [f'{group}:'] if own else []
    for field, kind, value, _ in own:
      name = f'[no]{field.name}' if _base(kind) is bool else field.name
      text = ' '.join(field.metadata['help'].split())
      if choices := _choices(field, kind):
        number = 'Any' if _is_tuple(kind) else 'One'
        text += f' {number} of: {", ".join(choices)}.'
      if value is not None:
        text += f' Default: {_show(value) or "none"}.'
      lines.append(f'  --{name}')
      lines += textwrap.wrap(
        text, 80, initial_indent='    ', subsequent_indent='    '
      )
    lines += [''] if own else []
  lines.append('--flagfile=FILE reads flags of a file, or a bundled NAME.')
  return '\n'.join(lines)


def find(name: str, argv: Sequence[str]) -> str | None:
  """Finds the value of a flag on which the other flags depend, if given."""
  values = flags.FlagValues()
  flags.DEFINE_string(name, None, '', flag_values=values)
  with contextlib.suppress(flags.Error, ValueError):  # `parse` names mistakes.
    values(['', *_find_flagfiles(argv)], known_only=True)
    return values[name].value
  return None


def run(
  main: Callable[[Any], None], default: Any, needs_devices: bool = True
) -> None:
  """Runs a binary: parses its flags, calls `main`, ends the process.

  A default that depends on the arguments is a function of them. Devices that
  the environment asks for and that are not there are a user's mistake; a binary
  that leaves them to other processes must not take them.
  """
  files.open_missing_streams()
  logging.set_verbosity(logging.WARNING)
  argv = sys.argv[1:]
  try:
    default = default(argv) if callable(default) else default
    if {'--help', '-h', '-help', '--helpfull', '-?'} & {*argv}:
      progress.say(format_help(default, inspect.getmodule(main).__doc__ or ''))
      sys.exit(0)
    config = parse(default, argv)
    found = {field.name: value for field, _, value, _ in _list_fields(config)}
    devices.set_up(found.get('deterministic'), found.get('compilation_cache'))
    if found.get('distributed'):
      devices.connect(*map(found.get, _PROCESSES))
    if needs_devices:
      devices.check_available()
    main(config)
    devices.disconnect()
  except errors.InputError as error:
    _end(f'error: {error}', 2)
  except errors.RunError as error:
    _end(f'error: {errors.one_line(str(error))}', 1)
  except signals.Interrupted as error:
    _end(f'stopped: {errors.one_line(str(error))}', error.exit_status)
  except KeyboardInterrupt:
    _end('stopped by SIGINT.', 130)
  except OSError as error:
    if error.errno not in files.DISK_ERRORS or not error.filename:
      raise
    path = pathlib.Path(os.fsdecode(error.filename))
    _end(f'error: {files.storage_error(path, error)}', 1)
  except RuntimeError as error:
    line = errors.one_line(str(error))
    if 'RESOURCE_EXHAUSTED' in line:
      line = f'error: the device is out of memory ({line[:200]}); accepted: a'
      _end(f'{line} smaller --batch_size or model, or more devices.', 1)
    raise
  finally:
    files.flush_streams()
  sys.exit(0)


def _find_flagfiles(argv):
  """Returns arguments in which flagfiles are paths."""
  found = []
  for text in argv:
    if found and re.fullmatch('--?flagfile', found[-1]):  # absl joins them too.
      text = f'{found.pop()}={text}'
    match = re.fullmatch('(--?flagfile=)(.+)', text)
    found.append(f'{match[1]}{_find_flagfile(match[2])}' if match else text)
  return found


def _find_flagfile(text):
  """Returns the path of a file, or of the bundled flagfile of that name."""
  path = files.expand_path('--flagfile', text)
  if files.exists(path) and not path.is_dir():
    return path
  known = {own.stem: own for own in sorted(FLAGFILES.glob('*.flags'))}
  if (bundled := known.get(text.removesuffix('.flags'))) is None:
    near = difflib.get_close_matches(path.stem, known, 3, 0.5) or known
    raise errors.InputError(
      f'--flagfile={text}: no such file; accepted: a file, or a bundled one by'
      f' its name, such as {", ".join(near)}.'
    )
  return bundled


def _list_fields(
  config: Any, only_results: bool = False
) -> Iterator[tuple[dataclasses.Field, Any, Any, str]]:
  """Yields the fields that are flags, their types, values and headings."""
  if only_results and not getattr(config, 'decides_result', True):
    return
  kinds = typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from _list_fields(value, only_results)
    elif 'help' in field.metadata:
      group = getattr(config, 'flag_group', 'training')
      group = field.metadata.get('group', group)
      yield field, kinds[field.name], value, group


def _replace(config: _Config, values: Mapping[str, Any]) -> _Config:
  """Returns a configuration with other values, by flag name."""
  changes = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      changes[field.name] = _replace(value, values)
    elif field.name in values:
      changes[field.name] = values[field.name]
  replaced = dataclasses.replace(config, **changes)
  config_lib.check(replaced)
  return replaced


def _define(values, field, kind, default):
  """Defines the flag of a field."""
  define = {
      bool: flags.DEFINE_boolean, int: flags.DEFINE_integer,
      float: flags.DEFINE_float,
  }.get(_base(kind), flags.DEFINE_string)  # fmt: skip
  choices = _choices(field, kind)
  if _is_tuple(kind):
    define, default = flags.DEFINE_list, [str(entry) for entry in default]
  elif choices:
    define = functools.partial(flags.DEFINE_enum, enum_values=choices)
  elif isinstance(default, pathlib.Path):
    default = str(default)
  define(field.name, default, help=field.metadata['help'], flag_values=values)


def _convert(name, kind, value):
  """Converts what absl has parsed to the type of a field."""
  if value is None:
    return None
  base = _base(kind)
  entry = typing.get_args(base)[0] if _is_tuple(kind) else base
  if entry is pathlib.Path:  # What is relative stays so, as shorter in print.
    expand = functools.partial(files.expand_path, f'--{name}')
    value = tuple(map(expand, value)) if _is_tuple(kind) else expand(value)
  elif _is_tuple(kind):
    try:
      value = tuple(entry(text) for text in value)
    except ValueError as error:
      raise errors.InputError(
        f'--{name}={",".join(value)}; accepted: numbers separated by commas.'
      ) from error
  for number in value if isinstance(value, tuple) else (value,):
    if isinstance(number, int) and abs(number) > config_lib.LARGEST_INTEGER:
      raise errors.InputError(
        f'--{name}={number}; accepted: {config_lib.LARGEST_INTEGER} at most.'
      )
  return value


def _base(kind):
  """Returns a type without `| None`."""
  if typing.get_origin(kind) in (types.UnionType, typing.Union):
    return next(x for x in typing.get_args(kind) if x is not types.NoneType)
  return kind


def _choices(field, kind):
  base = _base(kind)
  if typing.get_origin(base) is typing.Literal:
    return typing.get_args(base)
  return field.metadata.get('choices', ())


def _is_tuple(kind):
  return typing.get_origin(_base(kind)) is tuple


def _show(value):
  if isinstance(value, tuple):
    return ','.join(map(str, value))
  return str(value).lower() if isinstance(value, bool) else str(value)


def _end(line, status):
  """Ends the process with a line on stderr."""
  progress.say(line, 'stderr')
  if jax.distributed.is_initialized():
    # JAX would wait for the others, which may wait for this process.
    os._exit(status)
  sys.exit(status)
