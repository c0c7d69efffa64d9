"""Saving and restoring train states over Orbax."""

import hashlib
import os
import pathlib

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from jacsup_jax import parallel
from jacsup_jax import types
from jacsup_jax import workdirs


class StageCheckpoints:
  """The checkpoints of one stage: `DIRECTORY/STEP/`.

  A step is visible only when it is whole. States are stored from the host, so
  that they load on any number of devices. A context manager, of one process
  alone where there are several.
  """

  def __init__(self, directory: str | os.PathLike[str], max_to_keep: int = 2):
    self._directory = pathlib.Path(directory).absolute()
    # Orbax would do that with all processes together only.
    self._directory.mkdir(parents=True, exist_ok=True)
    index, _ = parallel.process()
    self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep,
            create=False,
            enable_async_checkpointing=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=index, active_processes={index}
            ),
        ),
    )

  def __enter__(self) -> 'StageCheckpoints':
    return self

  def __exit__(self, *unused_exception) -> None:
    self._manager.close()

  def latest_step(self) -> int | None:
    """Returns the last step that is whole, None where there is none."""
    return self._manager.latest_step()

  def save(self, step: int, state: chex.ArrayTree) -> None:
    """Saves a state; returns when it is whole on disk."""
    if step != self._manager.latest_step():
      host_state = jax.device_get(state)
      self._manager.save(step, args=ocp.args.StandardSave(host_state))

  def restore(self, step: int, template: chex.ArrayTree) -> chex.ArrayTree:
    """Restores a state as host arrays.

    Args:
      step: one that was saved.
      template: a tree of the same structure and shapes.

    Returns:
      The tree of numpy arrays.

    Raises:
      InputError: if what is stored has another structure or other shapes, or
        cannot be read.
    """
    directory = self._directory / str(step)
    abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), template)
    try:
      restored = self._manager.restore(
          step, args=ocp.args.StandardRestore(abstract)
      )
    except (ValueError, KeyError, OSError) as error:
      raise types.InputError(
          f'the checkpoint {directory} cannot be restored:'
          f' {" ".join(str(error).split())[:300]}'
      ) from error
    # Orbax gives the shape that is stored, whatever was asked for.
    for (path, found), wanted in zip(
        jax.tree_util.tree_leaves_with_path(restored), jax.tree.leaves(abstract)
    ):
      if found.shape != wanted.shape:
        raise types.InputError(
            f'the checkpoint {directory} has {jax.tree_util.keystr(path)} of'
            f' shape {found.shape}; accepted: {wanted.shape}.'
        )
    return restored


def restore_finished(
    workdir: workdirs.WorkDir, stage: str, template: chex.ArrayTree
) -> tuple[chex.ArrayTree, str]:
  """Restores the last state of a stage that the manifest has as finished.

  Args:
    workdir: of the run.
    stage: its name.
    template: a train state of the same structure and shapes.

  Returns:
    The state as host arrays, and the sha256 of its parameters.

  Raises:
    InputError: if its checkpoint is missing, or not the one of the manifest.
  """
  directory = workdir.checkpoints(stage)
  # Orbax would make a directory that is not there.
  step = None
  if directory.is_dir():
    with StageCheckpoints(directory) as saved:
      step = saved.latest_step()
      if step is not None:
        state = saved.restore(step, template)
  if step is None:
    raise types.InputError(
        f'{directory} holds no checkpoint, and the manifest has the stage as'
        ' finished; accepted: a whole work directory.'
    )
  sha256 = hash_tree(state.params)
  recorded = workdir.manifest['stages'][stage]['sha256']
  if sha256 != recorded:
    raise types.InputError(
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
