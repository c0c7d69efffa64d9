"""The work directory that a run owns: manifest, metrics and results.

`manifest.json` says how the run was made and what it holds, `metrics.jsonl` has
a line per epoch, `results.json` a row per model. Files appear whole or not at
all.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from typing import Any

from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.runs import circumstances

_MANIFEST = 'manifest.json'
# A line an epoch, of some 500 bytes; of a grid's hundreds of members 100,000.
_LONGEST_METRICS = 512 * 2**20
# What is read of these files, by name: annotations for `untrusted`.
_OF_MANIFEST = {
    'experiment': str, 'flags': dict, 'dataset': dict, 'stages': dict
}  # pyformat: disable
_OF_DATASET = {'name': str, 'fingerprint': str, 'attributes': list[str]}
_OF_STAGE = {'sha256': str, 'epochs': int}
_OF_FAULTS = {'checkpoints': dict, 'rollbacks': list[dict]}
_OF_ROLLBACK = {'stage': str, 'to_step': int}
_OF_RECORD = {'stage': str, 'step': int}
_OF_ROW = {'model': str, 'nuisance_dim': int}
_MAYBE_OF_ROW = {
    'seed': int,
    'stage': str | None,
    'epochs': int,
    'sha256': str | None,
    **{
        name: float | None
        for name in (
            'mse', 'psnr', 'strength', 'preservation', 'class_swaps',
            'class_swaps_std', 'class_swaps_noisy_judge',
            'class_swaps_true_labels', 'attribute_flips',
            'attribute_flips_told', 'attribute_flips_as_asked',
            'judge_accuracy', 'judge_accuracy_reconstructions',
            'jacobian_cosine', 'jacobian_norm_error',
            'jacobian_cosine_first_teacher',
            'jacobian_norm_error_first_teacher', 'mig', 'sap',
            'dci_disentanglement', 'dci_completeness', 'dci_informativeness',
            'modularity',
        )
    },
}  # pyformat: disable


class WorkDir:
  """A run's directory. Nothing is written before `begin`."""

  def __init__(self, path: str | os.PathLike[str]):
    self.path = pathlib.Path(path).absolute()
    check_directory(f'--workdir={path}', self.path)
    self.manifest = self._read_manifest()
    self._unwritten = ''

  @property
  def figures(self) -> pathlib.Path:
    return self.path / 'figures'

  def checkpoints(self, stage: str) -> pathlib.Path:
    return self.path / 'checkpoints' / stage

  @property
  def is_complete(self) -> bool:
    """Whether the run has ended: its results are written last."""
    return self.manifest is not None and untrusted.exists(
        self.path / 'results.json'
    )

  def check(self, flags: Mapping[str, Any], resume: bool = True) -> None:
    """Checks that a run with these flags may begin or go on here.

    Args:
      flags: names and values that decide the result of the run.
      resume: whether a run that is there may be continued.

    Raises:
      InputError: if the directory holds a run with other flags, or any with
        `resume` false, or files that are no run's; or if one that is not
        complete cannot be written to.
    """
    if not self.is_complete:
      check_writable(f'--workdir={self.path}', self.path)
    if self.manifest is None:
      # What a kill leaves of a manifest that was being written is ours.
      ours = (f'.{_MANIFEST}.tmp', '.lock')
      if self.path.exists() and any(
          path.name not in ours for path in self.path.iterdir()
      ):
        raise errors.InputError(
            f'--workdir={self.path} holds files but no manifest.json; accepted:'
            ' a new or empty directory, or one that a run has begun.'
        )
      return
    if not resume:
      raise errors.InputError(
          f'--workdir={self.path} already holds a run and --resume is false;'
          ' accepted: --resume, or another directory.'
      )
    begun, asked = self.manifest['flags'], _as_json(flags)
    differing = [
        f'--{name}={begun.get(name)} there, {asked.get(name)} now'
        for name in sorted({*begun, *asked})
        if begun.get(name) != asked.get(name)
    ]
    if differing:
      raise errors.InputError(
          f'--workdir={self.path} was begun with other flags:'
          f' {"; ".join(differing)}. Accepted: the same, or another directory.'
      )

  def begin(
      self,
      experiment: str,
      flags: Mapping[str, Any],
      dataset: Mapping[str, str],
      devices: Sequence[str],
      **entries: Any,
  ) -> None:
    """Writes the manifest of a new run; one that is there keeps its entries.

    Where a run goes on in other circumstances than before, these are added to
    it as `continued`, with the stages that were finished then.

    Args:
      experiment: name of the binary.
      flags: names and values that decide the result of the run.
      dataset: `name` and `fingerprint` of the training data.
      devices: a line for each.
      **entries: more that a repetition needs, such as `machine`; see
        `circumstances.ENTRIES`.

    Raises:
      InputError: if the run was begun on other data.
    """
    found = _as_json({
        'devices': devices,
        'versions': circumstances.describe_versions(),
        **entries,
    })
    if self.manifest is not None:
      if self.manifest['dataset'] != dataset:
        raise errors.InputError(
            f'--workdir={self.path} was begun on the data'
            f' {self.manifest["dataset"]}, found {dataset}; accepted: the same,'
            ' or another directory.'
        )
      self._record_continuation(found)
      return
    with writing(self.path):
      self.path.mkdir(parents=True, exist_ok=True)
    self._write_manifest({
        'experiment': experiment,
        'flags': flags,
        'dataset': dataset,
        **found,
        'stages': {},
        'checkpoints': {},
        'rollbacks': [],
    })

  def record_stage(self, name: str, entry: Mapping[str, Any]) -> None:
    """Adds a finished stage to the manifest."""
    stages = {**self.manifest['stages'], name: entry}
    self._write_manifest({**self.manifest, 'stages': stages})

  def read_checkpoints(self, stage: str) -> dict[str, str]:
    """Returns what `record_checkpoints` wrote."""
    # Runs from before there were any have no such entry.
    return (self.manifest or {}).get('checkpoints', {}).get(stage, {})

  def record_checkpoints(self, stage: str, saved: Mapping[str, str]) -> None:
    """Writes down which checkpoints a stage has, by step, with a sha256."""
    saved_of = {**self.manifest.get('checkpoints', {}), stage: saved}
    self._write_manifest({**self.manifest, 'checkpoints': saved_of})

  def read_rollbacks(self, stage: str) -> list[dict[str, Any]]:
    """Returns what `record_rollback` wrote of a stage."""
    entries = (self.manifest or {}).get('rollbacks', [])
    return [entry for entry in entries if entry['stage'] == stage]

  def record_rollback(self, entry: Mapping[str, Any]) -> None:
    """Writes down that a stage went back: `stage`, `to_step`, and why."""
    entries = [*self.manifest.get('rollbacks', []), entry]
    self._write_manifest({**self.manifest, 'rollbacks': entries})

  def append_metrics(self, record: Mapping[str, Any]) -> None:
    """Appends one line to metrics.jsonl, and lines that could not be before.

    Raises:
      StorageError: if it cannot be written; it is kept for the next time.
    """
    self._unwritten += json.dumps(_as_json(record)) + '\n'
    path = self.path / 'metrics.jsonl'
    with writing(path):
      size = path.stat().st_size if path.exists() else 0
      try:
        with open(path, 'a', encoding='utf-8') as file:
          file.write(self._unwritten)
      except OSError:
        # Not half of it: the rest would come after it once more.
        if path.exists():
          os.truncate(path, size)
        raise
    self._unwritten = ''

  def read_metrics(self) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl, but one that a crash cut off.

    Raises:
      InputError: if another one is damaged.
    """
    path = self.path / 'metrics.jsonl'
    if not untrusted.exists(path):
      return []
    lines = untrusted.read(path, _LONGEST_METRICS).split(b'\n')[:-1]
    records = []
    for number, line in enumerate(lines, start=1):
      where = f'{path} line {number}'
      records.append(untrusted.parse_json(where, line))
      untrusted.check_entries(where, records[-1], _OF_RECORD)
    return records

  def drop_metrics_after(self, stage: str, step: int) -> None:
    """Removes the lines of steps that a resumed stage will take again."""
    self._unwritten = ''
    kept = [
        record
        for record in self.read_metrics()
        if record['stage'] != stage or record['step'] <= step
    ]
    lines = ''.join(json.dumps(record) + '\n' for record in kept)
    write_whole(self.path / 'metrics.jsonl', lines)

  def write_results(
      self,
      experiment: str,
      protocol: str,
      rows: Sequence[Mapping[str, Any]],
      **entries: Any,
  ) -> None:
    """Writes results.json, which ends the run.

    Args:
      experiment: name of the binary.
      protocol: how the rows were measured, in words.
      rows: one per model.
      **entries: more that the numbers depend on, such as `judges`.
    """
    results = {
        'experiment': experiment,
        'protocol': protocol,
        **entries,
        'rows': rows,
    }
    write_whole(
        self.path / 'results.json', json.dumps(_as_json(results), indent=1)
    )

  def read_results(self) -> dict[str, Any]:
    """Returns results.json.

    Raises:
      InputError: if it is not one of a run.
    """
    return read_rows(self.path / 'results.json')

  def check_recorded(
      self,
      kinds: Mapping[str, Any],
      maybe_kinds: Mapping[str, Any],
      *,
      of_stage: Mapping[str, Any],
      of_dataset: Mapping[str, Any],
  ) -> None:
    """Checks the manifest of a run before models are made of it again.

    Args:
      kinds: of its flags, see `untrusted.check_entries`.
      maybe_kinds: of flags that may be missing.
      of_stage: what each finished stage has.
      of_dataset: what is said of the data.

    Raises:
      InputError: if something is missing or does not have its type.
    """
    path, flags = self.path / _MANIFEST, self.manifest['flags']
    where = f'{path}, flags,'
    untrusted.check_entries(where, flags, kinds)
    untrusted.check_entries(where, flags, maybe_kinds, optional=True)
    for name, stage in self.manifest['stages'].items():
      where = f'{path}, stage {untrusted.describe(name)},'
      untrusted.check_entries(where, stage, of_stage)
    where = f'{path}, dataset,'
    untrusted.check_entries(where, self.manifest['dataset'], of_dataset)

  def _record_continuation(self, found):
    """Adds the circumstances of a run that goes on, where they are others."""
    continued = self.manifest.get('continued', [])
    # An entry that an older manifest lacks is not known to differ.
    last = {**self.manifest, **(continued[-1] if continued else {})}
    if not circumstances.compare(last, found):
      return
    entry = {
        'finished': list(self.manifest['stages']),
        **{
            name: found[name]
            for name in circumstances.ENTRIES
            if name in found and name in last
        },
    }
    self._write_manifest({**self.manifest, 'continued': [*continued, entry]})

  def _read_manifest(self):
    path = self.path / _MANIFEST
    if not untrusted.exists(path):
      return None
    manifest = untrusted.read_json(path)
    untrusted.check_entries(path, manifest, _OF_MANIFEST)
    dataset, stages = manifest['dataset'], manifest['stages']
    untrusted.check_entries(
        f'{path}, dataset,', dataset, _OF_DATASET, optional=True
    )
    for name, stage in stages.items():
      where = f'{path}, stage {untrusted.describe(name)},'
      if not isinstance(stage, dict):
        raise errors.InputError(
            f'{where} is {untrusted.describe(stage)}; accepted: an object.'
        )
      untrusted.check_entries(where, stage, _OF_STAGE, optional=True)
    untrusted.check_entries(path, manifest, _OF_FAULTS, optional=True)
    for stage, saved in manifest.get('checkpoints', {}).items():
      where = f'{path}, checkpoints of {untrusted.describe(stage)},'
      if not isinstance(saved, dict) or not all(
          step.isascii() and step.isdigit() and isinstance(sha256, str)
          for step, sha256 in saved.items()
      ):
        raise errors.InputError(
            f'{where} are {untrusted.describe(saved)}; accepted: a sha256 by'
            ' step.'
        )
    for entry in manifest.get('rollbacks', []):
      untrusted.check_entries(f'{path}, rollbacks,', entry, _OF_ROLLBACK)
    return manifest

  def _write_manifest(self, manifest):
    write_whole(
        self.path / _MANIFEST, json.dumps(_as_json(manifest), indent=1)
    )
    self.manifest = _as_json(manifest)


def read_rows(path: pathlib.Path) -> dict[str, Any]:
  """Reads a file in the format of results.json.

  Args:
    path: of the file.

  Raises:
    InputError: if it is none.
  """
  results = untrusted.read_json(path)
  untrusted.check_entries(path, results, {'protocol': str, 'rows': list})
  for number, row in enumerate(results['rows'], start=1):
    where = f'{path} row {number}'
    if not isinstance(row, dict):
      raise errors.InputError(
          f'{where} is {untrusted.describe(row)}; accepted: an object.'
      )
    untrusted.check_entries(where, row, _OF_ROW)
    maybe = _MAYBE_OF_ROW | {
        name: float for name in row if name.startswith('lambda_')
    }
    untrusted.check_entries(where, row, maybe, optional=True)
  return results


def check_directory(name: str, path: str | os.PathLike[str]) -> None:
  """Raises InputError unless a path is a directory, or can be made one.

  Args:
    name: of the path, for the error.
    path: that is to be written to.
  """
  _find_existing(name, path)


def check_writable(name: str, path: str | os.PathLike[str]) -> None:
  """Raises InputError unless a directory is writable, or can be made.

  Nothing is left behind. Elsewhere than on Linux a file comes and goes.

  Args:
    name: of the path, for the error.
    path: that is to be written to.
  """
  found = _find_existing(name, path)
  try:
    # Permissions do not tell: nobody can write to /proc, or to a disk that is
    # mounted for reading. On Linux this file never has a name.
    with tempfile.TemporaryFile(dir=found):
      pass
  except OSError as error:
    raise errors.InputError(
        f'{name} cannot be written to ({error.strerror}: {found}); accepted: a'
        ' directory that can, or a new name in one.'
    ) from error


def _find_existing(name, path):
  """Returns the nearest directory above a path, or itself, that is there."""
  try:
    path = pathlib.Path(path).absolute()
    found = next(part for part in (path, *path.parents) if part.exists())
    is_directory = found.is_dir()
  except (OSError, ValueError) as error:  # Of names that cannot be.
    reason = getattr(error, 'strerror', None) or error
    raise errors.InputError(
        f'{name} is no name of a directory ({reason}); accepted: a directory,'
        ' or a new name.'
    ) from error
  if '\0' in str(path):  # Not told by pathlib of Python 3.11.
    raise errors.InputError(
        f'{name} has a NUL; accepted: a directory, or a new name.'
    )
  if not is_directory:
    where = 'is a file' if found == path else f'is below the file {found}'
    raise errors.InputError(
        f'{name} {where}; accepted: a directory, or a new name.'
    )
  return found


def write_whole(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file, whole or not at all.

  Args:
    path: of the file; one that is there is replaced.
    content: text, or bytes as they are.

  Raises:
    StorageError: if it cannot be written.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  if isinstance(content, str):
    content = content.encode()
  with writing(path):
    try:
      with open(temporary, 'wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    except OSError:
      # On a full disk what is there of it would take the room of others.
      temporary.unlink(missing_ok=True)
      raise


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
  """Turns an OSError of the block into a StorageError that names the path."""
  try:
    yield
  except OSError as error:
    raise storage_error(path, error) from error


def storage_error(path: pathlib.Path, error: Exception) -> errors.StorageError:
  """Makes the error of what could not be written.

  Args:
    path: that was to be written.
    error: why it was not.

  Returns:
    One that names the path, the reason and the free space.
  """
  reason = getattr(error, 'strerror', None)
  # Of tensorstore, in the middle of long sentences.
  code = re.search(r"os_error_code='([0-9]+)'", str(error))
  if code:
    reason = os.strerror(int(code[1]))
  reason = reason or errors.one_line(str(error))[:300]
  found = next((p for p in (path, *path.parents) if p.exists()), path)
  try:
    usage = shutil.disk_usage(found)
    room = (
        f'{usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.1f} MB there'
    )
  except OSError:
    room = 'free space unknown'
  return errors.StorageError(
      f'{path} cannot be written ({reason}; {room}); what was saved before'
      ' stands, and the same command goes on from it.'
  )


def _as_json(value: Any) -> Any:
  """Converts arrays' scalars, tuples and paths to what JSON has."""
  return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
  return value.item() if hasattr(value, 'item') else str(value)
