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
import shutil
from typing import Any

from jacsup_jax import circumstances
from jacsup_jax import types

_MANIFEST = 'manifest.json'


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
    return self.manifest is not None and (self.path / 'results.json').exists()

  def check(self, flags: Mapping[str, Any], resume: bool = True) -> None:
    """Checks that a run with these flags may begin or go on here.

    Args:
      flags: names and values that decide the result of the run.
      resume: whether a run that is there may be continued.

    Raises:
      InputError: if the directory holds a run with other flags, or any with
        `resume` false, or files that are no run's.
    """
    if self.manifest is None:
      # What a kill leaves of a manifest that was being written is ours.
      ours = (f'.{_MANIFEST}.tmp', '.lock')
      if self.path.exists() and any(
          path.name not in ours for path in self.path.iterdir()
      ):
        raise types.InputError(
            f'--workdir={self.path} holds files but no manifest.json; accepted:'
            ' a new or empty directory, or one that a run has begun.'
        )
      return
    if not resume:
      raise types.InputError(
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
      raise types.InputError(
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
        raise types.InputError(
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
    """Returns the lines of metrics.jsonl, but one that a crash cut off."""
    path = self.path / 'metrics.jsonl'
    if not path.exists():
      return []
    lines = path.read_text(encoding='utf-8').split('\n')[:-1]
    return [json.loads(line) for line in lines]

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
    """Returns results.json."""
    return json.loads((self.path / 'results.json').read_text('utf-8'))

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
    if not path.exists():
      return None
    try:
      manifest = json.loads(path.read_text(encoding='utf-8'))
      manifest['flags'], manifest['stages']
      return manifest
    except (ValueError, KeyError, TypeError) as error:
      raise types.InputError(
          f'{path} is not a manifest of a run: {error!r}.'
      ) from error

  def _write_manifest(self, manifest):
    write_whole(
        self.path / _MANIFEST, json.dumps(_as_json(manifest), indent=1)
    )
    self.manifest = _as_json(manifest)


def check_directory(name: str, path: str | os.PathLike[str]) -> None:
  """Raises InputError unless a path is a directory, or can be made one.

  Args:
    name: of the path, for the error.
    path: that is to be written to.
  """
  path = pathlib.Path(path).absolute()
  found = next(part for part in (path, *path.parents) if part.exists())
  if not found.is_dir():
    where = 'is a file' if found == path else f'is below the file {found}'
    raise types.InputError(
        f'{name} {where}; accepted: a directory, or a new name.'
    )


def write_whole(path: pathlib.Path, text: str) -> None:
  """Writes a text file, whole or not at all.

  Args:
    path: of the file; one that is there is replaced.
    text: its content.

  Raises:
    StorageError: if it cannot be written.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  with writing(path):
    try:
      with open(temporary, 'w', encoding='utf-8') as file:
        file.write(text)
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


def storage_error(path: pathlib.Path, error: Exception) -> types.StorageError:
  """Makes the error of what could not be written.

  Args:
    path: that was to be written.
    error: why it was not.

  Returns:
    One that names the path, the reason and the free space.
  """
  reason = getattr(error, 'strerror', None) or types.fold(error)
  found = next((p for p in (path, *path.parents) if p.exists()), path)
  try:
    usage = shutil.disk_usage(found)
    room = (
        f'{usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.1f} MB there'
    )
  except OSError:
    room = 'free space unknown'
  return types.StorageError(
      f'{path} cannot be written ({reason}; {room}); what was saved before'
      ' stands, and the same command goes on from it.'
  )


def _as_json(value: Any) -> Any:
  """Converts arrays' scalars, tuples and paths to what JSON has."""
  return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
  return value.item() if hasattr(value, 'item') else str(value)
