"""Saving and restoring train states over Orbax.

A checkpoint is the directory `STEP/`: `default/` as Orbax writes it, and
`manifest.json` with the sha256 of each of its files and of itself. It has its
name only when all of it is on the disk.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import pathlib
import shutil
from typing import Any, NoReturn

from absl import logging
import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from jacsup_jax.core import errors
from jacsup_jax.runs import workdir
from jacsup_jax.training import devices

_MANIFEST = 'manifest.json'
_TREE = 'default'
# Of checkpoints from before there was a manifest: Orbax wrote it in `STEP/`,
# and still does in `default/`.
_OF_OLD = '_CHECKPOINT_METADATA'
# What a kill leaves of one that was being written or removed.
_LEFTOVERS = ('.*.tmp', '.*.old', '*.orbax-checkpoint-tmp*')
_SET_ASIDE = 'damaged'
_READ_BYTES = 1 << 20
# A hundred bytes for each file, and the metrics of the steps of an epoch.
_LONGEST_MANIFEST = 1 << 30
_RESERVE = 'reserve'
# Beside the arrays: Orbax's tables of names, and our manifest.
_RESERVE_BYTES = 1 << 18

# Called with a line on what a run has found and does.
NoteFn = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Found:
  """What a stage has to go on from.

  Attributes:
    step: of the newest checkpoint that is whole; None where there is none.
    progress: that was saved with it, JSON.
    notes: a line on each one that is damaged or missing.
  """

  step: int | None
  progress: Any
  notes: tuple[str, ...]


class StageCheckpoints:
  """The checkpoints of one stage: `DIRECTORY/STEP/`.

  States are stored from the host, so that they load on any number of devices.
  A context manager, of one process alone where there are several.
  """

  def __init__(self, directory: str | os.PathLike[str], max_to_keep: int = 2):
    self.directory = pathlib.Path(directory).absolute()
    self._max_to_keep = max_to_keep
    index, _ = devices.process()
    # Orbax is to work in this process, whatever others there are.
    options = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}
    )
    self._checkpointer = ocp.Checkpointer(
        ocp.StandardCheckpointHandler(multiprocessing_options=options),
        multiprocessing_options=options,
    )

  def __enter__(self) -> 'StageCheckpoints':
    return self

  def __exit__(self, *unused_exception) -> None:
    self._checkpointer.close()

  def list_steps(self) -> list[int]:
    """Returns the steps that are there, whole or not, rising."""
    if not self.directory.is_dir():
      return []
    return sorted(
        int(path.name)
        for path in self.directory.iterdir()
        if path.name.isascii() and path.name.isdigit()
    )

  def latest_step(self) -> int | None:
    """Returns the newest of these, None where there is none."""
    return max(self.list_steps(), default=None)

  def find(self, expected: Mapping[str, str]) -> Found:
    """Finds what to go on from. Nothing is changed.

    Args:
      expected: sha256 of each checkpoint that was saved, by step, as `save`
        returned them; '' where that is not known.

    Raises:
      InputError: if one cannot be read for want of permission.
    """
    notes = []
    steps = self.list_steps()
    known = {int(step) for step in expected}
    for step in sorted({*steps, *known}, reverse=True):
      path = self.directory / str(step)
      if step not in steps:
        notes.append(f'{path} is missing')
        continue
      damage, manifest = self._examine(step, expected.get(str(step)) or None)
      if damage is None:
        return Found(step, manifest.get('progress'), tuple(notes))
      notes.append(f'{path} is damaged ({damage})')
    return Found(None, None, tuple(notes))

  def set_aside(self, above: int | None) -> list[str]:
    """Gives damaged checkpoints another name, `damaged-STEP`.

    Args:
      above: the newest step that is whole; None sets all aside.

    Returns:
      What is where now, a line on each.
    """
    lines = []
    for step in self.list_steps():
      if above is None or step > above:
        path = self.directory / str(step)
        aside = self._free_name(f'{_SET_ASIDE}-{step}')
        path.rename(aside)
        lines.append(f'{path} was set aside as {aside.name}')
    return lines

  def clean(self) -> None:
    """Removes what a kill has left. Only for who owns the run."""
    for pattern in _LEFTOVERS:
      for path in self.directory.glob(pattern):
        shutil.rmtree(path, ignore_errors=True)

  def save(self, step: int, state: chex.ArrayTree, progress: Any = None) -> str:
    """Saves a state, unless its step is there; returns when it is on disk.

    Args:
      step: of the state.
      state: of arrays.
      progress: JSON that is kept with it, also if its step is there.

    Returns:
      A sha256 that all its files but its progress decide.

    Raises:
      StorageError: if it cannot be written; all that was there is as it was.
    """
    path = self.directory / str(step)
    scratch = self.directory / f'.{step}.tmp'
    try:
      if path.is_dir():
        return self._keep_progress(step, progress)
      self.directory.mkdir(parents=True, exist_ok=True)
      if scratch.exists():
        shutil.rmtree(scratch)
      scratch.mkdir()
      host_state = jax.device_get(state)
      _reserve(scratch, sum(x.nbytes for x in jax.tree.leaves(host_state)))
      with _quiet():
        self._checkpointer.save(
            scratch / _TREE, args=ocp.args.StandardSave(host_state)
        )
      files = _list_files(scratch)
      _write_manifest(scratch, step, progress, files)
      scratch.rename(path)
      _sync(self.directory)
      self._remove_oldest()
    # Of the libraries that write, some have exceptions of their own.
    except (OSError, ValueError, RuntimeError) as error:
      shutil.rmtree(scratch, ignore_errors=True)
      raise workdir.storage_error(path, error) from error
    return _hash_json([step, files])

  def restore(self, step: int, template: chex.ArrayTree) -> chex.ArrayTree:
    """Restores a state as host arrays.

    Args:
      step: one that was saved.
      template: a tree of the same structure and shapes.

    Returns:
      The tree of numpy arrays.

    Raises:
      InputError: if it is damaged, if what is stored has another structure or
        other shapes, or cannot be read.
    """
    path = self.directory / str(step)
    damage, _ = self._examine(step, None)
    if damage is not None:
      raise errors.InputError(
          f'the checkpoint {path} is damaged ({damage}); accepted: a whole one.'
      )
    abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), template)
    try:
      # Before Orbax reads it, which gives whatever is stored.
      stored = self._count_bytes(path / _TREE)
      wanted = sum(x.nbytes for x in jax.tree.leaves(abstract))
      if stored > wanted:
        raise ValueError(f'it has {stored} bytes of arrays, and not {wanted}')
      restored = self._checkpointer.restore(
          path / _TREE, args=ocp.args.StandardRestore(abstract)
      )
    except Exception as error:  # Anything, of files that are not Orbax's.
      raise errors.InputError(
          f'the checkpoint {path} cannot be restored:'
          f' {errors.one_line(str(error))[:300]}'
      ) from error
    for (leaf, found), wanted in zip(
        jax.tree_util.tree_leaves_with_path(restored),
        jax.tree.leaves(abstract),
        strict=True,
    ):
      if found.shape != wanted.shape:
        raise errors.InputError(
            f'the checkpoint {path} has {jax.tree_util.keystr(leaf)} of shape'
            f' {found.shape}; accepted: {wanted.shape}.'
        )
    return restored

  def _examine(self, step, expected):
    """Returns what is wrong with a checkpoint, or None; and its manifest."""
    path = self.directory / str(step)
    try:
      if (path / _OF_OLD).is_file():
        return None, {}  # There is nothing to compare with.
      manifest = _read_manifest(path, step)
      for name, entry in manifest['files'].items():
        file = path / name
        if not file.is_file():
          return f'{name} is missing', {}
        size = file.stat().st_size
        if size != entry['size']:
          return f'{name} has {size} bytes, not {entry["size"]}', {}
        if _hash_file(file) != entry['sha256']:
          return f'{name} has other bytes than were saved', {}
    except _Damage as error:
      return str(error), {}
    except OSError as error:
      _refuse_access(path, error)
    if expected not in (None, _hash_json([step, manifest['files']])):
      return 'it is not the one that was saved', {}
    return None, manifest

  def _keep_progress(self, step, progress):
    """Gives a checkpoint other progress; returns its sha256."""
    path = self.directory / str(step)
    if (path / _OF_OLD).is_file():
      return ''
    try:
      manifest = _read_manifest(path, step)
    except _Damage as error:
      raise OSError(f'one is there, and {error}') from error
    if manifest['progress'] != progress:
      _write_manifest(path, step, progress, manifest['files'])
    return _hash_json([step, manifest['files']])

  def _count_bytes(self, path):
    """Returns the size of the arrays that a tree is said to have."""
    tree = self._checkpointer.metadata(path).item_metadata.tree
    return sum(
        math.prod(x.shape) * np.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
    )

  def _remove_oldest(self):
    for step in self.list_steps()[: -self._max_to_keep]:
      # Never visible in part.
      doomed = self.directory / f'.{step}.old'
      shutil.rmtree(doomed, ignore_errors=True)
      (self.directory / str(step)).rename(doomed)
      shutil.rmtree(doomed)

  def _free_name(self, name):
    path, count = self.directory / name, 1
    while path.exists():
      count += 1
      path = self.directory / f'{name}-{count}'
    return path


def recover(
    saved: StageCheckpoints,
    expected: Mapping[str, str],
    note: NoteFn,
    retrain: bool = False,
) -> Found:
  """Finds what a stage goes on from, and sets aside what is damaged.

  Only for who owns the run.

  Args:
    saved: of the stage.
    expected: see `StageCheckpoints.find`.
    note: called with a line on each that is damaged or missing.
    retrain: a stage of which none is whole may begin again.

  Returns:
    What was found.

  Raises:
    InputError: if there were some and none is whole, without `retrain`;
      nothing is changed then.
  """
  saved.clean()
  found = saved.find(expected)
  if found.step is None and found.notes and not retrain:
    raise errors.InputError(
        f'{"; ".join(found.notes)}: the stage has no whole checkpoint to go on'
        ' from. Accepted: a copy of one in its place, or'
        ' --on_damage=retrain, which trains the stage again from its start.'
    )
  if found.notes:
    for line in (*found.notes, *saved.set_aside(found.step)):
      note(line)
    note(
        f'going on from {saved.directory / str(found.step)}'
        if found.step is not None
        else f'{saved.directory.name} is trained again from its start'
    )
  return found


def restore_finished(
    workdir: workdir.WorkDir, stage: str, template: chex.ArrayTree
) -> tuple[chex.ArrayTree, str]:
  """Restores the last state of a stage that the manifest has as finished.

  Args:
    workdir: of the run.
    stage: its name.
    template: a train state of the same structure and shapes.

  Returns:
    The state as host arrays, and the sha256 of its parameters.

  Raises:
    InputError: if its checkpoint is missing or damaged, or not the one of the
      manifest.
  """
  directory = workdir.checkpoints(stage)
  with StageCheckpoints(directory) as saved:
    step = saved.latest_step()
    if step is None:
      raise errors.InputError(
          f'{directory} holds no checkpoint, and the manifest has the stage as'
          ' finished; accepted: a whole work directory.'
      )
    state = saved.restore(step, template)
  sha256 = hash_tree(state.params)
  recorded = workdir.manifest['stages'][stage]['sha256']
  if sha256 != recorded:
    raise errors.InputError(
        f'{directory / str(step)} has parameters of sha256 {sha256[:12]}, the'
        f' manifest {recorded[:12]}; accepted: the checkpoint of the manifest.'
    )
  return state, sha256


def hash_tree(tree: chex.ArrayTree) -> str:
  """Returns the sha256 of a tree's paths, shapes, types and bytes.

  Args:
    tree: of arrays of any shape.

  Returns:
    64 hexadecimal digits, equal only for trees equal to the last bit.
  """
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
    array = np.asarray(leaf)
    digest.update(
        f'{jax.tree_util.keystr(path)} {array.shape} {array.dtype}'.encode()
    )
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


class _Damage(Exception):
  """What is wrong with a checkpoint's manifest."""


def _reserve(path, size):
  """Sees whether there is room for so many bytes, and gives it back.

  Orbax writes in threads, which have much to say of a full disk.

  Args:
    path: of a directory.
    size: of the arrays; Orbax compresses them, and adds names.

  Raises:
    OSError: if there is not, for what reason ever: disk, quota, or limit.
  """
  reserve = path / _RESERVE
  with open(reserve, 'wb') as file:
    if hasattr(os, 'posix_fallocate'):
      os.posix_fallocate(file.fileno(), 0, size + _RESERVE_BYTES)
    elif shutil.disk_usage(path).free < size + _RESERVE_BYTES:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  reserve.unlink()


@contextlib.contextmanager
def _quiet():
  """Keeps Orbax from telling of an error that is raised anyhow."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def _list_files(path):
  """Returns size and sha256 of all files of a checkpoint, by name."""
  files = {}
  for file in sorted(path.rglob('*')):
    if file.is_file():
      files[file.relative_to(path).as_posix()] = {
          'size': file.stat().st_size,
          'sha256': _hash_file(file),
      }
    _sync(file)
  return files


def _write_manifest(path, step, progress, files):
  """Writes the manifest of a checkpoint, all else being written."""
  manifest = {'step': step, 'progress': progress, 'files': files}
  text = json.dumps({**manifest, 'sha256': _hash_json(manifest)})
  workdir.write_whole(path / _MANIFEST, text)
  _sync(path)


def _read_manifest(path, step):
  file = path / _MANIFEST
  try:
    # A pipe would be waited for.
    if file.exists() and (
        not file.is_file() or file.stat().st_size > _LONGEST_MANIFEST
    ):
      raise _Damage(f'{_MANIFEST} is not that of a checkpoint')
    content = file.read_bytes()
    manifest = json.loads(content)
    is_as_written = content == json.dumps(manifest).encode()
    sha256 = manifest.pop('sha256')
    manifest['files'].items(), manifest['step'], manifest['progress']
  except (FileNotFoundError, NotADirectoryError) as error:
    raise _Damage(f'{_MANIFEST} is missing') from error
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
    raise _Damage(f'{_MANIFEST} is not that of a checkpoint') from e
  if not is_as_written or sha256 != _hash_json(manifest):
    raise _Damage(f'{_MANIFEST} has other bytes than were saved')
  if manifest['step'] != step:
    raise _Damage(f'it is of step {manifest["step"]}')
  return manifest


def _refuse_access(path, error) -> NoReturn:
  name = getattr(error, 'filename', None) or path
  raise errors.InputError(
      f'{name} cannot be read ({error.strerror}); accepted: files that this'
      ' user may read.'
  ) from error


def _hash_json(value):
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _hash_file(path):
  digest = hashlib.sha256()
  with open(path, 'rb') as file:
    while block := file.read(_READ_BYTES):
      digest.update(block)
  return digest.hexdigest()


def _sync(path: pathlib.Path) -> None:
  """Has a file, or the names in a directory, written to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
