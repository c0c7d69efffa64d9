"""Edits of drawn faces beside the truth: the face drawn as it was asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

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
# Of what changes in truth, in [-1, 1].
_LEAST_CHANGE = 0.02


def measure(
  model: reconstruction.Autoencoder,
  names: Sequence[str],
  values: Mapping[str, Sequence[float]],
  split: str = 'test',
  count: int = 128,
) -> dict[str, Any]:
  """Measures edits of the first `count` faces of a split.

  Args:
    model: of faces of its own size, with images in [-1, 1].
    names: of the attributes that its factors are, in their order.
    values: by attribute, of its factor: absent, present.
    split: of drawn faces.
    count: number of faces.

  Returns:
    Entries of a row: `edit_error` and `edit_leak`, means over attributes, and
    both by attribute; 0 are perfect, an edit that changes nothing has an error
    of 1.
  """
  rows = [drawn_faces.ATTRIBUTES.index(name) for name in names]
  faces = [drawn_faces.sample(index, split) for index in range(count)]
  size = model.module.image_size
  images = np.stack([drawn_faces.draw_face(*face, size) for face in faces])
  labels = np.stack([attributes for attributes, _ in faces])[:, rows]
  errors, leaks = {}, {}
  for index, (name, row) in enumerate(zip(names, rows)):
    kept, truth = [], []
    for i, (attributes, nuisance) in enumerate(faces):
      asked = np.where(
        np.arange(len(attributes)) == row, -attributes, attributes
      )
      if drawn_faces.is_allowed(asked):
        kept.append(i)
        truth.append(drawn_faces.draw_face(asked, nuisance, size))
    own, signs = images[kept], labels[kept]
    change = (np.stack(truth).astype(np.float32) - own) / 127.5
    target = np.where(signs[:, index] < 0, values[name][1], values[name][0])
    edit = _edit(model, own, signs, jnp.int32(index), target.astype(np.float32))
    edit = np.asarray(edit).reshape(-1, *own.shape[1:])[: len(own)]
    errors[name], leaks[name] = compare(edit, change)
  means = {
    'edit_error': float(np.mean([*errors.values()])),
    'edit_leak': float(np.mean([*leaks.values()])),
  }
  by_attribute = {
    f'{x}_by_attribute': y for x, y in zip(means, (errors, leaks))
  }
  return means | by_attribute


def compare(edit: np.ndarray, change: np.ndarray) -> tuple[float, float]:
  """Compares edits `[N, S, S, 3]` with true changes: error and leak."""
  error = np.sqrt(np.sum(np.square(edit - change)) / np.sum(np.square(change)))
  inside = np.max(np.abs(change), axis=-1) > _LEAST_CHANGE
  sizes = np.mean(np.abs(edit), axis=-1)
  leak = np.mean(sizes, where=~inside) / max(np.mean(sizes, where=inside), 1e-9)
  return float(error), float(leak)


@jax.jit
def _edit(model, images, labels, index, target):
  """Returns edited images minus reconstructions, in batches."""

  def edit(own, signs, value, unused_counted):
    code = model.encode(batches.to_signed_float(own), signs)
    value = value.astype(code.factors.dtype)
    edited = code._replace(factors=code.factors.at[:, index].set(value))
    return model.decode(edited) - model.decode(code)

  return reconstruction.map_batches(edit, (images, labels, target), 64)
