"""The work directory of a run: manifest, metrics and results.

`manifest.json` holds the configuration, where it ran and the finished stages,
`metrics.jsonl` a line per epoch, `results.json` a row per model.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import filelock

from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.training import devices

_MANIFEST = 'manifest.json'
_LOCK = '.lock'
# A kill may leave them where a run was about to begin.
_OURS = (f'.{_MANIFEST}.tmp', _LOCK)
_ENTRIES = {'config': dict, 'dataset': dict, 'planned': list, 'stages': dict}
_STAGE_ENTRIES = {'stage': dict, 'module': dict, 'sha256': str, 'epochs': int}
# Orbax expands these when it merges the files of a checkpoint; whole ones can
# be read from such a path.
_PATTERNS = '[]*?'


class WorkDir:
  """A run's directory. Nothing is written before `locked` or `begin`.

  `manifest` is the content of manifest.json, None if the run has not begun.
  """

  def __init__(self, path: str | os.PathLike[str], flag: str = '--workdir'):
    """Opens a directory, which may not exist yet; messages name the flag."""
    self.path = files.expand_path(flag, path).absolute()
    self._name = f'{flag}={path}'
    files.check_directory(self._name, self.path)
    self.manifest = self._read_manifest()
    self.figures = self.path / 'figures'
    self.checkers = self.path / 'checkers'  # see `runs.distilled`
    self._metrics = self.path / 'metrics.jsonl'

  def checkpoints(self, stage: str) -> pathlib.Path:
    """Returns the folder of a stage's checkpoints."""
    return self.path / 'checkpoints' / stage

  @property
  def is_complete(self) -> bool:
    """Whether the run has ended: its results are written last."""
    return self.manifest is not None and (self.path / 'results.json').exists()

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Keeps other processes from running here, and reads the manifest again.

    The directory is made, and removed again if nothing is written to it.

    Raises:
      InputError: if another process runs here, or the manifest is damaged.
      StorageError: if the directory cannot be written.
    """
    made = [p for p in (self.path, *self.path.parents) if not p.exists()]
    lock = filelock.FileLock(self.path / _LOCK, timeout=0)
    with files.writing(self.path):
      self.path.mkdir(parents=True, exist_ok=True)
      try:
        lock.acquire()
      except filelock.Timeout as error:
        raise errors.InputError(
          f'{self._name} is in use by another run; accepted: wait until it has'
          ' ended, or another directory.'
        ) from error
    try:
      self.manifest = self._read_manifest()
      yield
    finally:
      # While it is held, so that no other process loses its lock.
      (self.path / _LOCK).unlink(missing_ok=True)
      lock.release()
      with contextlib.suppress(OSError):  # It holds something.
        for path in made:
          path.rmdir()

  def check(self, config: Mapping[str, Any], resume: bool = True) -> None:
    """Raises InputError unless a run may begin, or `resume` if it has begun."""
    if not self.is_complete:
      self._check_patterns()
      files.check_writable(self._name, self.path)
    if self.manifest is None:
      if {path.name for path in self.path.glob('*')} - {*_OURS}:
        raise errors.InputError(
          f'{self._name} holds files but no manifest.json; accepted: a new or'
          ' empty directory, or one in which a run has begun.'
        )
      return
    if not resume:
      raise errors.InputError(
        f'{self._name} already holds a run and --resume is false; accepted:'
        ' --resume, or another directory.'
      )
    begun = self.manifest['config']
    asked = _without_new(_as_json(config), begun)
    differing = [
      f'--{name}={begun.get(name)} there, {asked.get(name)} now'
      for name in sorted({*begun, *asked})
      if begun.get(name) != asked.get(name)
    ]
    if differing:
      raise errors.InputError(
        f'{self._name} was begun with other flags: {"; ".join(differing)}.'
        ' Accepted: the same flags, or another directory.'
      )

  def begin(
    self,
    experiment: str,
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    planned: Sequence[str] = (),
    **entries: Any,
  ) -> None:
    """Writes the manifest of a new run; a manifest that exists is kept.

    `config` has the values by flag name, all that decide the result; `dataset`
    the `name` and `fingerprint` of the training data, its `attributes`, if any,
    `options` of `registry.load`, and `data_dir`, where it was.

    Raises:
      InputError: if the run was begun on other data, or checkpoints would be
        lost here.
      StorageError: if the manifest cannot be written.
    """
    dataset = _as_json(dataset)
    if self.manifest is not None:
      found = self.manifest['dataset']
      if 'options' in dataset:
        own = _without_new(dataset['options'], found.get('options', {}))
        dataset |= {'options': own}
      # Data may have moved.
      if found | {'data_dir': None} != dataset | {'data_dir': None}:
        raise errors.InputError(
          f'{self._name} was begun on the data {found}, now {dataset};'
          ' accepted: the same data, or another directory.'
        )
      return
    self._check_patterns()
    with files.writing(self.path):
      self.path.mkdir(parents=True, exist_ok=True)
    manifest = {'experiment': experiment, 'config': config, 'dataset': dataset}
    manifest |= {**_describe(), **entries, 'planned': planned, 'stages': {}}
    self._write_manifest(manifest)

  def record_stage(self, name: str, entry: Mapping[str, Any]) -> None:
    """Adds a finished stage to the manifest; see `runs.stages`."""
    stages = self.manifest['stages'] | {name: entry}
    self._write_manifest(self.manifest | {'stages': stages})

  def append_metrics(self, record: Mapping[str, Any]) -> None:
    """Appends a record, which has `stage` and `step`, whole or not at all."""
    with files.writing(self._metrics):
      size = self._metrics.stat().st_size if self._metrics.exists() else 0
      try:
        with open(self._metrics, 'a', encoding='utf-8') as file:
          file.write(json.dumps(_as_json(record)) + '\n')
      except OSError:
        if self._metrics.exists():
          os.truncate(self._metrics, size)
        raise

  def read_metrics(self) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl, without a line that was cut off."""
    if not self._metrics.exists():
      return []
    records = []
    lines = files.read_bytes(self._metrics).split(b'\n')[:-1]
    for number, line in enumerate(lines, start=1):
      where = f'{self._metrics} line {number}'
      records.append(files.parse_json(where, line))
      _check_entries(where, records[-1], {'stage': str, 'step': int})
    return records

  def drop_metrics_after(self, stage: str, step: int) -> None:
    """Removes records of steps that a resumed stage will take again."""
    lines = ''
    for record in self.read_metrics():
      if record['stage'] != stage or record['step'] <= step:
        lines += json.dumps(record) + '\n'
    files.write_whole(self._metrics, lines)

  def write_results(
    self,
    experiment: str,
    protocol: str,
    rows: Sequence[Mapping[str, Any]],
    **entries: Any,
  ) -> None:
    """Writes results.json, which completes the run, with a row per model.

    The protocol says in words how they were measured.
    """
    results = {'experiment': experiment, 'protocol': protocol, **entries}
    self._write('results.json', results | {'rows': rows})

  def read_results(self) -> dict[str, Any]:
    """Returns the content of results.json; InputError if it is damaged."""
    results = files.read_json(path := self.path / 'results.json')
    _check_entries(path, results, {'protocol': str, 'rows': list})
    return results

  def _check_patterns(self):
    """Raises InputError where checkpoints would be lost."""
    for path in (self.path, self.path.resolve()):
      if found := [c for c in _PATTERNS if c in str(path)]:
        raise errors.InputError(
          f'{self._name}: checkpoints in {path} could not be read back, as it'
          f' has {" ".join(found)}; accepted: a path without any of'
          f' {" ".join(_PATTERNS)}.'
        )

  def _read_manifest(self):
    path = self.path / _MANIFEST
    if not path.exists():
      return None
    manifest = files.read_json(path)
    _check_entries(path, manifest, _ENTRIES)
    for name, entry in manifest['stages'].items():
      _check_entries(f'{path}, stage {name},', entry, _STAGE_ENTRIES)
    return manifest

  def _write_manifest(self, manifest):
    self._write(_MANIFEST, manifest)
    self.manifest = _as_json(manifest)

  def _write(self, name, content):
    text = json.dumps(_as_json(content), indent=1)
    files.write_whole(self.path / name, text)


def _check_entries(where, entries, kinds):
  """Raises InputError unless a dict has these entries, of these types."""
  for name, kind in kinds.items():
    found = entries.get(name) if isinstance(entries, dict) else None
    if not isinstance(found, kind):
      raise errors.InputError(
        f'{where} has {name!r} {files.describe(found)}; accepted: what this'
        f' version writes there, a {kind.__name__}.'
      )


def _without_new(asked, begun):
  """Leaves out switches that are off and newer than the run that has begun."""
  return {
    name: value
    for name, value in asked.items()
    if name in begun or value is not False
  }


def _as_json(value: Any) -> Any:
  """Converts tuples, paths and scalars of arrays to JSON values."""
  plain = lambda x: x.tolist() if hasattr(x, 'tolist') else str(x)
  return json.loads(json.dumps(value, default=plain))


_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
_VARIABLES = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'NVIDIA_TF32_OVERRIDE')


def _describe() -> dict[str, Any]:
  """Returns `versions`, `devices` and `environment` of the manifest."""
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {
    'versions': {'python': platform.python_version(), **versions},
    'devices': devices.describe_devices(),
    'environment': {
      'git_commit': _read_commit(),
      'system': f'{platform.system()} {platform.machine()}',
      'cpu_threads': os.cpu_count(),
      **{n: os.environ[n] for n in _VARIABLES if n in os.environ},
    },
  }


def _read_commit():
  """Returns the commit of this clone, with '+' if files have changed."""
  root = pathlib.Path(__file__).parents[2]
  if not (root / '.git').exists():  # An installed package.
    return None
  command = 'git describe --always --exclude=* --abbrev=40 --dirty=+'.split()
  try:
    return subprocess.check_output(
      command, cwd=root, stderr=subprocess.DEVNULL, text=True, timeout=5
    ).strip()
  except (OSError, subprocess.SubprocessError):
    return None
