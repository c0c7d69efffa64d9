"""Trees of arrays: a hash by which equal ones are recognised."""

import hashlib

import chex
import jax
import numpy as np


def hash_tree(tree: chex.ArrayTree) -> str:
  """Returns the sha256 of a tree's paths, shapes, types and bytes, as hex."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
    array = np.asarray(leaf)
    name = jax.tree_util.keystr(path)
    digest.update(f'{name} {array.shape} {array.dtype}'.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()
