"""Checkpoints of a stage over Orbax, checked by sha256.

`DIRECTORY/STEP/` holds the items `model` (step, params, batch_stats),
`optimizer` (the rest of the state) and `progress` (JSON). Orbax gives it that
name only when all of it is on the disk.
"""

from collections.abc import Callable, Mapping
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

from absl import logging
import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.data import files
from jacsup_jax.training import steps

_MODEL = ('step', 'params', 'batch_stats')
_ITEMS = ('model', 'optimizer', 'progress')
_LEFTOVERS = '*.orbax-checkpoint-tmp*'
_SET_ASIDE = 'damaged'
# Orbax's tables of names, beside the arrays.
_RESERVE_BYTES = 1 << 18

# Called with a line about a problem and what the run does about it.
NoteFn = Callable[[str], None]


class Found(NamedTuple):
  """A checkpoint that is whole.

  Attributes:
    step: of it.
    state: of the type of the template, numpy arrays.
    progress: JSON that was saved with it.
    sha256: of its parameters.
  """

  step: int
  state: Any
  progress: Any
  sha256: str


class _Damage(Exception):
  """A checkpoint that cannot be restored, or differs from what was saved."""


class StageCheckpoints:
  """The checkpoints of one stage; a context manager.

  Arrays are saved from the host, so they can be restored on any number of
  devices. With several processes one of them saves and restores.
  """

  def __init__(self, directory: str | os.PathLike[str], max_to_keep: int = 2):
    self.directory = pathlib.Path(directory).absolute()
    self._max_to_keep = max_to_keep
    self._manager = None

  def __enter__(self) -> 'StageCheckpoints':
    return self

  def __exit__(self, *unused_exception) -> None:
    if self._manager is not None:
      self._manager.close()

  def list_steps(self) -> list[int]:
    """Returns the steps of the folder, damaged or not, in rising order."""
    if not self.directory.is_dir():
      return []
    names = [path.name for path in self.directory.iterdir()]
    return sorted(int(n) for n in names if n.isascii() and n.isdigit())

  def save(self, step: int, state: Any, progress: Any = None) -> str:
    """Saves a state; returns when its metadata can be read back.

    Args:
      step: of the state. If it is saved already, nothing is written.
      state: a NamedTuple of trees with `step`, `params` and `batch_stats`.
      progress: JSON.

    Returns:
      The sha256 of the parameters.

    Raises:
      StorageError: if it cannot be written; earlier checkpoints are kept.
    """
    fields = jax.device_get(state)._asdict()
    sha256 = trees.hash_tree(fields['params'])
    if step in self.list_steps():
      return sha256
    model = {name: fields.pop(name) for name in _MODEL}
    entries = {
      'progress': progress,
      'params_sha256': sha256,
      'sha256': _hash_all(model, fields, progress),
    }
    items = {
      'model': ocp.args.StandardSave(model),
      'progress': ocp.args.JsonSave(entries),
    }
    if jax.tree.leaves(fields):
      items['optimizer'] = ocp.args.StandardSave(fields)
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      _reserve(self.directory, sum(x.nbytes for x in _leaves((model, fields))))
      with _quiet():
        self._open().save(step, args=ocp.args.Composite(**items))
        if self._manager.item_metadata(step).model is None:
          raise OSError('its metadata cannot be read back')
    # Libraries below Orbax raise errors of several kinds.
    except (OSError, ValueError, RuntimeError) as error:
      self.remove_leftovers()
      raise files.storage_error(self.directory / str(step), error) from error
    return sha256

  def restore(self, step: int, template: Any = None) -> Any:
    """Restores a state.

    Args:
      step: of a checkpoint.
      template: a state of the same shapes (arrays or their shapes), which the
        optimizer's state cannot be restored without.

    Returns:
      The state; without a template, a dict of `step`, `params` and
      `batch_stats`.

    Raises:
      InputError: if the checkpoint is damaged, or has other shapes.
    """
    try:
      if template is not None:
        return self._restore(step, template).state
      return self._read_model(step)[0]
    except _Damage as error:
      raise errors.InputError(
        f'the checkpoint {self.directory / str(step)} is damaged ({error});'
        ' accepted: one that is whole.'
      ) from error

  def recover(
    self, expected: Mapping[str, str], template: Any, note: NoteFn
  ) -> Found | None:
    """Restores the newest checkpoint that is whole, for the owner of the run.

    Newer ones that are damaged are noted and renamed to `damaged-STEP`;
    leftovers of a killed save are removed.

    Args:
      expected: sha256 of the parameters of each checkpoint saved, by step.
      template: see `restore`.
      note: called with a line on each that is damaged or missing.

    Returns:
      The checkpoint; None if none was ever saved.

    Raises:
      InputError: if some were saved and none is whole; nothing is changed.
    """
    existing = self.list_steps()
    lines, found = [], None
    for step in sorted({*existing, *map(int, expected)}, reverse=True):
      path = self.directory / str(step)
      if step not in existing:
        lines.append(f'{path} is missing')
        continue
      try:
        found = self._restore(step, template)
        if found.sha256 != expected.get(str(step), found.sha256):
          raise _Damage('its parameters differ from the manifest of the run')
        break
      except _Damage as error:
        found = None
        lines.append(f'{path} is damaged ({error})')
    if found is None and lines:
      raise errors.InputError(
        f'{"; ".join(lines)}: no checkpoint of the stage can be restored.'
        ' Accepted: a copy of one in its place, or another --workdir.'
      )
    self.remove_leftovers()
    for step in existing:
      if found is not None and step > found.step:
        self._set_aside(step)
    if lines:
      note(
        f'{"; ".join(lines)}; resuming from {self.directory / str(found.step)}'
      )
    return found

  def remove_leftovers(self) -> None:
    """Removes what a killed or failed save has left."""
    for path in self.directory.glob(_LEFTOVERS):
      shutil.rmtree(path, ignore_errors=True)

  def _open(self):
    if self._manager is None:
      index = jax.process_index()
      self._manager = ocp.CheckpointManager(
        self.directory,
        item_names=_ITEMS,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=self._max_to_keep,
          create=False,
          enable_async_checkpointing=False,
          # This process alone, even where the run has several.
          multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=index,
            active_processes={index},
            barrier_sync_key_prefix='checkpoints',
          ),
        ),
      )
    return self._manager

  def _read(self, step, **items):
    try:
      with _quiet():
        return self._open().restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # Damaged files fail in many ways.
      reason = errors.one_line(str(error))[:200] or type(error).__name__
      raise _Damage(reason) from error

  def _read_model(self, step):
    read = self._read(
      step,
      model=ocp.args.StandardRestore(),
      progress=ocp.args.JsonRestore(),
    )
    entries = read.progress
    if not isinstance(entries, dict) or not {
      'progress',
      'sha256',
      'params_sha256',
    } <= set(entries):
      raise _Damage('its progress is not what was saved')
    if not isinstance(read.model, dict) or set(read.model) != set(_MODEL):
      raise _Damage('it holds no model')
    if trees.hash_tree(read.model['params']) != entries['params_sha256']:
      raise _Damage('its parameters differ from what was saved')
    return read.model, entries

  def _restore(self, step, template):
    model, entries = self._read_model(step)
    shapes = jax.tree.map(
      lambda x: np.empty(np.shape(x), x.dtype), template
    )._asdict()
    wanted = {name: shapes.pop(name) for name in _MODEL}
    different = compare_shapes(model, wanted)
    if different is not None:
      raise errors.InputError(
        f'the checkpoint {self.directory / str(step)} has {different}.'
      )
    rest = shapes
    if jax.tree.leaves(shapes):
      rest = self._read(
        step, optimizer=ocp.args.StandardRestore(shapes)
      ).optimizer
    if entries['sha256'] != _hash_all(model, rest, entries['progress']):
      raise _Damage('it differs from what was saved')
    state = type(template)(**model, **rest)
    return Found(step, state, entries['progress'], entries['params_sha256'])

  def _set_aside(self, step):
    name, count = f'{_SET_ASIDE}-{step}', 1
    while (self.directory / name).exists():
      count += 1
      name = f'{_SET_ASIDE}-{step}-{count}'
    (self.directory / str(step)).rename(self.directory / name)
    if self._manager is not None:
      self._manager.reload()


def compare_shapes(found: chex.ArrayTree, wanted: chex.ArrayTree) -> str | None:
  """Describes the first array whose path or shape differs; None if all agree.

  Args:
    found: arrays.
    wanted: arrays, or their shapes.
  """
  found, wanted = (
    {
      jax.tree_util.keystr(path): np.shape(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    for tree in (found, wanted)
  )
  for name in sorted({*found, *wanted}):
    if found.get(name) != wanted.get(name):
      return f'{name} of shape {found.get(name)}; accepted: {wanted.get(name)}'
  return None


def read_variables(
  directory: str | os.PathLike[str], sha256: str
) -> tuple[int, codes.Variables]:
  """Restores the last model of a finished stage.

  Args:
    directory: of the stage.
    sha256: of its parameters, as the manifest has it.

  Returns:
    Its step and its variables, numpy arrays.

  Raises:
    InputError: if the checkpoint is missing, damaged, or of other parameters.
  """
  with StageCheckpoints(directory) as saved:
    step = max(saved.list_steps(), default=None)
    if step is None:
      raise errors.InputError(
        f'{saved.directory} holds no checkpoint, but the manifest lists the'
        ' stage as finished; accepted: a whole work directory.'
      )
    model = saved.restore(step)
  found = trees.hash_tree(model['params'])
  if found != sha256:
    raise errors.InputError(
      f'{saved.directory / str(step)} has parameters of sha256 {found[:12]},'
      f' the manifest {sha256[:12]}; accepted: the checkpoint of the run.'
    )
  return int(model.pop('step')), model


def _hash_all(model, rest, progress):
  """Hashes a whole checkpoint: damage to the optimizer shows as well."""
  text = json.dumps(progress, sort_keys=True)
  digests = [trees.hash_tree(model), steps.hash_tree(_leaves(rest)), text]
  return hashlib.sha256(' '.join(digests).encode()).hexdigest()


def _leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _reserve(directory, size):
  """Raises OSError unless so many bytes can be written.

  Orbax writes in threads, which log pages about a full disk.
  """
  path = directory / '.reserve'
  try:
    with open(path, 'wb') as file:
      if hasattr(os, 'posix_fallocate'):  # Not on macOS.
        os.posix_fallocate(file.fileno(), 0, size + _RESERVE_BYTES)
  finally:
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet():
  """Keeps Orbax from logging an error that is raised anyway."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)
