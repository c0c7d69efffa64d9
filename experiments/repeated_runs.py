"""Repeats a run from its manifest, and compares what came of it.

What a manifest says is data from somewhere else: it names a binary of those
known here, and values of that binary's own flags.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import json
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from experiments import compared_runs
from experiments import converted_runs
from experiments import reproduced_runs
from jacsup_jax.core import errors
from jacsup_jax.runs import circumstances
from jacsup_jax.runs import workdir as workdirs

# By the experiment of a manifest: the arguments that choose it.
_BINARIES = {
    'mnist': ('mnist',),
    'svhn': ('svhn',),
    'celeba': ('celeba',),
    'ablation_table4': ('ablation', '--table=4'),
    'ablation_table5': ('ablation', '--table=5'),
    'ablation_table6': ('ablation', '--table=6'),
}
# Flags of where and how to run that a repetition has too.
_OF_HOW = ('data_dir', 'judge_workdir', 'cache', 'deterministic')
# More threads than any machine has.
_MOST_THREADS = 4096


@dataclasses.dataclass(frozen=True)
class Original:
  """A run to repeat, as far as it goes.

  Attributes:
    path: of its manifest.
    manifest: what that has.
  """

  path: pathlib.Path
  manifest: Mapping[str, Any]

  @property
  def directory(self) -> pathlib.Path:
    """Where its metrics and results are, if they are kept with it."""
    return self.path.parent


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a run is repeated.

  Attributes:
    command: arguments of Python.
    environment: of the process.
    differences: a line for each circumstance that is another one here.
    remarks: lines to know of, which do not decide the bits.
  """

  command: Sequence[str]
  environment: Mapping[str, str]
  differences: Sequence[str]
  remarks: Sequence[str]


def read(path: str | os.PathLike[str]) -> Original:
  """Reads the manifest of a run.

  Args:
    path: of a manifest, or of a work directory that has one.

  Raises:
    InputError: if there is none, or it is that of nothing known here.
  """
  path = pathlib.Path(path).absolute()
  path = path / 'manifest.json' if path.is_dir() else path
  accepted = 'accepted: a manifest.json of a run, or its work directory.'
  try:
    manifest = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise errors.InputError(
        f'--manifest={path} cannot be read: {error}; {accepted}'
    ) from error
  entries = ('flags', 'dataset', 'stages')
  if not isinstance(manifest, dict) or not all(
      isinstance(manifest.get(name), dict) for name in entries
  ):
    raise errors.InputError(
        f'--manifest={path} has not the entries {", ".join(entries)};'
        f' {accepted}'
    )
  experiment = manifest.get('experiment')
  if not isinstance(experiment, str) or experiment not in _BINARIES:
    raise errors.InputError(
        f'--manifest={path} is of the experiment {experiment!r}; accepted:'
        f' {", ".join(_BINARIES)}.'
    )
  if converted_runs.ENTRY in manifest:
    raise errors.InputError(
        f'--manifest={path} is of a model that was converted from a file, not'
        ' trained; accepted: a manifest of what was.'
    )
  for name, stage in manifest['stages'].items():
    if not isinstance(stage, dict) or not isinstance(stage.get('sha256'), str):
      raise errors.InputError(
          f'--manifest={path} has no sha256 of the stage {name!r}; {accepted}'
      )
  table = _BINARIES[experiment][-1]
  if table.startswith('--') and f'--table={manifest["flags"].get("table")}' != (
      table
  ):
    raise errors.InputError(
        f'--manifest={path} is of {experiment}, and of --table='
        f'{manifest["flags"].get("table")}; accepted: the same of both.'
    )
  if not isinstance(manifest['dataset'].get('fingerprint'), str):
    raise errors.InputError(
        f'--manifest={path} has no fingerprint of its data; {accepted}'
    )
  return Original(path, manifest)


def make_plan(
    original: Original,
    output: pathlib.Path,
    overrides: Mapping[str, str | None],
) -> Plan:
  """Says how to repeat a run here, after the flags are known to be accepted.

  Args:
    original: the run.
    output: work directory of the repetition.
    overrides: values of flags that say where something is here, by name; None
      for those of the manifest.

  Raises:
    InputError: if the binary does not accept what the manifest says, or the
      teacher that the run grew from is not here.
  """
  manifest = original.manifest
  overrides = {n: v for n, v in overrides.items() if v is not None}
  values = dict(manifest['flags'])
  given = overrides.pop('teacher_workdir', None)
  if given is not None:
    if values.get('teacher_workdir') is None:
      raise errors.InputError(
          f'--teacher_workdir={given}: the run of --manifest={original.path}'
          ' has trained its own teacher; accepted: without that flag.'
      )
    values['teacher_workdir'] = given
  how = manifest.get('how', {})
  how = {n: how.get(n) for n in _OF_HOW} if isinstance(how, dict) else {}
  how |= overrides
  binary, *chosen = _BINARIES[manifest['experiment']]
  command = ['-m', f'experiments.{binary}', *chosen]
  environment, remarks = _choose_threads(manifest)
  # Its names before any value is given to it.
  known = _describe(original, command, environment)['flags']
  unknown = [repr(name) for name in values if name not in known]
  if unknown:
    raise errors.InputError(
        f'--manifest={original.path} has flags that experiments.{binary} has'
        f' not, or that do not decide its result: {", ".join(unknown)};'
        ' accepted: a manifest of this version.'
    )
  for name, value in {**values, **how}.items():
    # None is the default of the flags that can have it.
    if value is not None:
      command.append(f'--{name}={_format(original, name, value)}')
  command += [
      f'--expected_data={manifest["dataset"]["fingerprint"]}',
      f'--workdir={output}',
  ]
  _check_teacher(original, values.get('teacher_workdir'))
  here = _describe(original, command, environment)
  differences = compared_runs.list_differences(manifest, here)
  differences += [
      f'--{name}: {values.get(name)} there, {value} here'
      for name, value in here['flags'].items()
      if value != values.get(name)
      # A number may be written in another way.
      and str(value) != str(values.get(name))
  ]
  return Plan(command, environment, differences, remarks)


def repeat(
    original: Original,
    output: pathlib.Path,
    overrides: Mapping[str, str | None],
    *,
    may_run: bool = True,
) -> compared_runs.Comparison:
  """Repeats a run, or what is missing of its repetition, and compares.

  Args:
    original: the run.
    output: work directory of the repetition.
    overrides: see `make_plan`.
    may_run: otherwise only a complete repetition is compared.

  Raises:
    InputError: if it cannot be repeated there, or is missing and may not run.
  """
  if not check_output(original, output):
    plan = make_plan(original, output, overrides)
    # Before it runs, as it may take hours.
    for line in (*plan.differences, *plan.remarks):
      print(f'note: {line}', flush=True)
    if not may_run:
      raise errors.InputError(
          '--run is false; this repeats it:'
          f' python {shlex.join(plan.command)}'
      )
    reproduced_runs.run(plan.command, plan.environment)
  return compared_runs.compare(original.path, output / 'manifest.json')


def check_output(original: Original, output: pathlib.Path) -> bool:
  """Says whether a repetition in a directory is complete.

  Raises:
    InputError: if the directory is the run's own, or holds something else.
  """
  if output.resolve() == original.directory.resolve():
    raise errors.InputError(
        f'--output={output} is the run that is to be repeated; accepted:'
        ' another directory.'
    )
  run = workdirs.WorkDir(output)
  if run.manifest is None:
    return False
  theirs = original.manifest
  differing = [
      name
      for name in ('experiment', 'dataset')
      if run.manifest.get(name) != theirs[name]
  ] + [
      f'--{name}'
      for name, value in run.manifest['flags'].items()
      if name in theirs['flags']
      and name != 'teacher_workdir'
      and value != theirs['flags'][name]
  ]
  if differing:
    raise errors.InputError(
        f'--output={output} holds another run, by {", ".join(differing)};'
        ' accepted: a new directory, or one with a repetition of this run.'
    )
  return run.is_complete


def _format(original, name, value):
  """Returns a flag's value as it is written on a command line."""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, list) and all(isinstance(x, str) for x in value):
    line = io.StringIO()
    csv.writer(line, lineterminator='').writerow(value)
    return line.getvalue()
  if isinstance(value, (int, float, str)):
    return str(value)
  raise errors.InputError(
      f'--manifest={original.path} has the value {str(value)[:100]} of'
      f' --{name}; accepted: a number, a text or a list of texts.'
  )


def _check_teacher(original, directory):
  """Checks that a run's teacher of another run is there, and is the same."""
  if directory is None:
    return
  stages = original.manifest['stages']
  teacher = workdirs.WorkDir(directory).manifest
  if teacher is None:
    raise errors.InputError(
        f'--teacher_workdir={directory} of --manifest={original.path} holds no'
        ' run; accepted: --teacher_workdir where it is here.'
    )
  for stage in stages.values():
    name, expected = str(stage.get('parent')), str(stage.get('parent_sha256'))
    if name in stages or name not in teacher['stages']:
      continue
    found = teacher['stages'][name]['sha256']
    if expected != found:
      raise errors.InputError(
          f'--teacher_workdir={directory} has a {name} of sha256 {found[:12]},'
          f' --manifest={original.path} {expected[:12]}; accepted: the same.'
      )


def _choose_threads(manifest):
  """Returns an environment with as many threads as a run had, on a CPU."""
  environment = dict(os.environ)
  machine, devices = manifest.get('machine'), manifest.get('devices')
  threads = machine.get('threads') if isinstance(machine, dict) else None
  here = circumstances.count_threads()
  if (
      type(threads) is not int
      or not 1 <= threads <= _MOST_THREADS
      or threads == here
      or not str(devices).startswith("['cpu:")
  ):
    return environment, []
  environment['PJRT_NPROC'] = str(threads)
  return environment, [
      f'threads: {here} here; XLA is told to use {threads} as there, by'
      f' PJRT_NPROC={threads}'
  ]


def _describe(original, command, environment):
  """Returns what the manifest of a command would have, by asking the binary."""
  done = subprocess.run(
      [sys.executable, *command, '--describe'],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
  )
  try:
    if not done.returncode:
      return json.loads(done.stdout.splitlines()[-1])
  except (ValueError, IndexError):
    pass
  lines = done.stderr.strip().splitlines() or ['no line that says why']
  raise errors.InputError(
      f'--manifest={original.path}: {command[1]} does not accept it, with'
      f' status {done.returncode}: {lines[-1].removeprefix("error: ")}'
  )
