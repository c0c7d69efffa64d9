"""Checkpoints of a stage over Orbax, checked by sha256.

`DIRECTORY/STEP/` holds the items `model` (step, params, batch_stats),
`optimizer` and `progress` (JSON); it has that name only when whole.
"""

from collections.abc import Callable
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.training import steps

_LEFTOVERS = '*.orbax-checkpoint-tmp*'
_TABLE_BYTES = 1 << 18  # Orbax's tables of names, beside the arrays


class Found(NamedTuple):
  """A whole checkpoint."""

  step: int
  state: steps.TrainState
  progress: Any
  sha256: str  # of its parameters


class _DamagedError(errors.InputError):
  """A checkpoint cannot be read, or differs from what was saved."""


class StageCheckpoints:
  """The checkpoints of one stage, saved from one host; a context manager."""

  def __init__(self, directory: str | os.PathLike[str]):
    self.directory = pathlib.Path(directory).absolute()
    self._manager = None

  def __enter__(self) -> 'StageCheckpoints':
    return self

  def __exit__(self, *unused_exception) -> None:
    if self._manager is not None:
      self._manager.close()

  def list_steps(self) -> list[int]:
    """Returns the steps of the folder, damaged or not, in rising order."""
    names = [path.name for path in self.directory.glob('[0-9]*')]
    return sorted(int(n) for n in names if n.isascii() and n.isdigit())

  def save(self, step: int, state: steps.TrainState, progress: Any) -> str:
    """Saves a state and JSON, unless the step is saved already.

    Returns the sha256 of its parameters. If it cannot be written, StorageError
    is raised and earlier checkpoints are kept.
    """
    model = jax.device_get(state)._asdict()
    sha256 = codes.hash_tree(model['params'])
    if step in self.list_steps():
      return sha256
    opt_state = model.pop('opt_state')
    entries = {'progress': progress, 'params_sha256': sha256}
    entries['sha256'] = _hash_all(model, opt_state, progress)
    items = {'model': ocp.args.StandardSave(model)}
    items['progress'] = ocp.args.JsonSave(entries)
    if jax.tree.leaves(opt_state):
      items['optimizer'] = ocp.args.StandardSave({'opt_state': opt_state})
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      _reserve(self.directory, _leaves((model, opt_state)))
      with _quiet():
        self._open().save(step, args=ocp.args.Composite(**items))
        if self._manager.item_metadata(step).model is None:
          raise OSError('its metadata cannot be read back')
    except (OSError, ValueError, RuntimeError) as error:  # of several libraries
      self._remove_leftovers()
      raise files.storage_error(self.directory / str(step), error) from error
    return sha256

  def restore_last(
    self, sha256: str, template: steps.TrainState
  ) -> steps.TrainState:
    """Restores the last state of a finished stage; InputError if it is damaged.

    `sha256` is that of its parameters in the manifest. The template is a state
    of the same shapes; if its `opt_state` is empty, it is left out.
    """
    existing = self.list_steps()
    if not existing:
      raise errors.InputError(
        f'{self.directory} holds no checkpoint of a finished stage; accepted:'
        ' a whole work directory.'
      )
    found = self._read(existing[-1], template)
    if found.sha256 != sha256:
      raise errors.InputError(
        f'{self.directory / str(found.step)} has parameters of sha256'
        f' {found.sha256[:12]}; accepted: those of the manifest {sha256[:12]}.'
      )
    return found.state

  def recover(
    self, template: steps.TrainState, note: Callable[[str], None]
  ) -> Found | None:
    """Restores the newest whole checkpoint; None if none was ever saved.

    Newer ones, damaged, are renamed to `damaged-STEP-COUNT`, and `note` is
    called with a line about them; leftovers of a killed save are removed. If
    none is whole, InputError is raised and nothing is changed.
    """
    found, damaged = None, {}
    for step in reversed(self.list_steps()):
      try:
        found = self._read(step, template)
        break
      except _DamagedError as error:
        damaged[step] = str(error)
    lines = '; '.join(damaged.values())
    if found is None and damaged:
      raise errors.InputError(
        f'{lines}: no checkpoint of the stage can be restored. Accepted: a copy'
        ' of one in its place, or another --workdir.'
      )
    self._remove_leftovers()
    for step in damaged:
      count = len([*self.directory.glob(f'damaged-{step}-*')]) + 1
      path = self.directory / str(step)
      path.rename(path.with_name(f'damaged-{step}-{count}'))
      self._open().reload()
    if damaged:
      note(f'{lines}; resuming from {self.directory / str(found.step)}')
    return found

  def _open(self):
    if self._manager is None:
      # This process alone, even where the run has several.
      index = jax.process_index()
      alone = ocp.options.MultiprocessingOptions(index, {index}, 'checkpoints')
      self._manager = ocp.CheckpointManager(
        self.directory,
        item_names=('model', 'optimizer', 'progress'),
        options=ocp.CheckpointManagerOptions(
          max_to_keep=2,
          create=False,
          enable_async_checkpointing=False,
          multiprocessing_options=alone,
        ),
      )
    return self._manager

  def _read(self, step, template):
    """Reads a checkpoint; InputError if it is damaged or has other shapes."""
    try:
      with _quiet():
        return self._read_items(step, template)
    except errors.InputError:
      raise
    except Exception as error:  # Damaged files fail in many ways.
      path = self.directory / str(step)
      reason = errors.one_line(str(error))[:200] or type(error).__name__
      raise _DamagedError(f'{path} is damaged ({reason})') from error

  def _read_items(self, step, template):
    standard = ocp.args.StandardRestore
    restore = lambda **items: self._open().restore(
      step, args=ocp.args.Composite(**items)
    )
    read = restore(model=standard(), progress=ocp.args.JsonRestore())
    model, entries = read.model, read.progress
    hashed = codes.hash_tree(model['params'])
    if (hashed, model['step']) != (entries['params_sha256'], step):
      raise ValueError('its parameters differ from what was saved')
    wanted = template._asdict()
    optimizer = {'opt_state': wanted.pop('opt_state')}
    found, wanted = _list_shapes(model), _list_shapes(wanted)
    for name in sorted({*found, *wanted}):
      if found.get(name) != wanted.get(name):
        raise errors.InputError(
          f'{self.directory / str(step)} has {name} of shape'
          f' {found.get(name)}; accepted: {wanted.get(name)}.'
        )
    if jax.tree.leaves(optimizer):
      shapes = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), optimizer)
      optimizer = restore(optimizer=standard(shapes)).optimizer
      everything = (model, optimizer['opt_state'], entries['progress'])
      if entries['sha256'] != _hash_all(*everything):
        raise ValueError('it differs from what was saved')
    state = steps.TrainState(**model, **optimizer)
    return Found(step, state, entries['progress'], hashed)

  def _remove_leftovers(self):
    for path in self.directory.glob(_LEFTOVERS):
      shutil.rmtree(path, ignore_errors=True)


def _list_shapes(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}


def _hash_all(model, opt_state, progress):
  """Hashes a whole checkpoint: damage to the optimizer shows as well."""
  text = json.dumps(progress, sort_keys=True)
  digests = [codes.hash_tree(model), codes.hash_tree(_leaves(opt_state)), text]
  return hashlib.sha256(' '.join(digests).encode()).hexdigest()


def _leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _reserve(directory, arrays):
  """Raises OSError unless arrays fit; Orbax would log pages about it."""
  size = sum(array.nbytes for array in arrays) + _TABLE_BYTES
  with tempfile.TemporaryFile(dir=directory) as file:
    if hasattr(os, 'posix_fallocate'):  # Not on macOS.
      os.posix_fallocate(file.fileno(), 0, size)


@contextlib.contextmanager
def _quiet():
  """Keeps Orbax from logging an error that is raised anyway."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)
