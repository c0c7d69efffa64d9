"""Edits of drawn faces beside the truth: the face drawn as it was asked for."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.data import batches
from jacsup_jax.data import drawn_faces
from jacsup_jax.evaluation import reconstruction

PROTOCOL = (
  'edit_error: norm of an edit (edited image minus reconstruction) minus the'
  ' true change (face drawn with the attribute changed minus face), over the'
  ' norm of the true change; edit_leak: mean size of an edit where nothing'
  ' changes in truth over that where something does; both over faces of which'
  ' the other one can be drawn'
)
# A pixel changes in truth if it does so by more than this, in [-1, 1].
_LEAST_CHANGE = 0.02


class _Truth(NamedTuple):
  """Faces `[N, S, S, 3]` uint8, and what changing each attribute would do."""

  images: np.ndarray
  signs: np.ndarray  # [N, K] int8
  allowed: np.ndarray  # [N, K] bool, whether the changed face can be drawn
  changed: np.ndarray  # [N, K, S, S, 3] uint8; where not allowed, unchanged


def measure(
  model: reconstruction.Autoencoder,
  names: Sequence[str],
  values: Mapping[str, Sequence[float]],
  split: str = 'test',
  count: int = 128,
) -> dict[str, Any]:
  """Measures edits of the first `count` faces of a split.

  Args:
    model: of faces `[S, S, 3]` of its own size, with images in [-1, 1].
    names: of the attributes that its factors are, in their order.
    values: by attribute, of its factor: absent, present.
    split: of drawn faces.
    count: number of faces.

  Returns:
    Entries of a row: `edit_error` and `edit_leak`, means over attributes, and
    both by attribute; 0 are perfect, an edit that changes nothing has an error
    of 1.
  """
  truth = _draw(tuple(names), split, count, model.module.image_size)
  errors, leaks = {}, {}
  for index, name in enumerate(names):
    absent, present = values[name]
    target = np.where(truth.signs[:, index] < 0, present, absent)
    edit = _edit(
      model,
      *map(jnp.asarray, (truth.images, truth.signs, target.astype(np.float32))),
      jnp.int32(index),
    )
    edit = np.asarray(edit).reshape(-1, *truth.images.shape[1:])
    kept = np.flatnonzero(truth.allowed[:, index])
    change = truth.changed[kept, index].astype(np.float32) - truth.images[kept]
    errors[name], leaks[name] = compare(edit[kept], change / 127.5)
  return {
    'edit_error': float(np.mean([*errors.values()])),
    'edit_leak': float(np.mean([*leaks.values()])),
    'edit_error_by_attribute': errors,
    'edit_leak_by_attribute': leaks,
  }


@functools.cache
def _draw(names, split, count, size):
  """Draws faces and their changes, once for all models."""
  rows = [drawn_faces.ATTRIBUTES.index(name) for name in names]
  faces = [drawn_faces.sample(index, split) for index in range(count)]
  images = np.stack([drawn_faces.draw_face(*face, size) for face in faces])
  allowed = np.zeros((count, len(rows)), bool)
  changed = np.repeat(images[:, np.newaxis], len(rows), axis=1)
  for i, (attributes, nuisance) in enumerate(faces):
    for k, row in enumerate(rows):
      asked = attributes.copy()
      asked[row] *= -1
      if drawn_faces.is_allowed(asked):
        allowed[i, k] = True
        changed[i, k] = drawn_faces.draw_face(asked, nuisance, size)
  signs = np.stack([attributes for attributes, _ in faces])[:, rows]
  return _Truth(images, signs, allowed, changed)


def compare(edit: np.ndarray, change: np.ndarray) -> tuple[float, float]:
  """Compares edits `[N, S, S, 3]` with true changes: error and leak."""
  error = np.sqrt(np.sum(np.square(edit - change)) / np.sum(np.square(change)))
  inside = np.max(np.abs(change), axis=-1) > _LEAST_CHANGE
  sizes = np.mean(np.abs(edit), axis=-1)
  leak = np.mean(sizes, where=~inside) / max(np.mean(sizes, where=inside), 1e-9)
  return float(error), float(leak)


@jax.jit
def _edit(model, images, labels, target, index):
  """Returns edited images minus reconstructions, in batches."""

  def edit(own, signs, value, unused_counted):
    code = model.encode(batches.to_signed_float(own), signs)
    value = value.astype(code.factors.dtype)
    edited = code._replace(factors=code.factors.at[:, index].set(value))
    return model.decode(edited) - model.decode(code)

  return reconstruction.map_batches(edit, (images, labels, target), 64)
