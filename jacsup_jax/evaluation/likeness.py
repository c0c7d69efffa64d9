"""Likeness of faces: SSIM, and a Frechet distance in features of a judge."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.evaluation import naturalness
from jacsup_jax.evaluation import reconstruction

_BATCH_SIZE = 64


def measure(
  model: reconstruction.Autoencoder,
  judge: Any,
  images: jax.Array,
  attributes: jax.Array,
  flip: Callable[[codes.Code, jax.Array, Any], codes.Code],
  targets: Any,
) -> dict[str, float]:
  """Measures reconstructions, and edits of an attribute of each image.

  Against images `[M, S, S, 3]` uint8; attribute i mod K of image i is flipped,
  by `flip(code, [B] indices, targets)`. Returns `ssim`,
  `frechet_reconstructions` and `frechet_edits`.
  """
  bound = judge.module, flip, model, judge.variables, targets
  real, features, shown = jax.tree.map(
    lambda x: np.reshape(x, (-1, *x.shape[2:]))[: len(images)],
    _extract(*bound, images, attributes),
  )
  reconstructed, edited = features
  signed = np.asarray(images) / np.float32(127.5) - 1
  return {
    'ssim': reconstruction.compute_ssim(signed, shown),
    'frechet_reconstructions': naturalness.compute_distance(
      real, reconstructed
    ),
    'frechet_edits': naturalness.compute_distance(real, edited),
  }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _extract(module, flip, model, variables, targets, images, attributes):
  """Returns features of images, of reconstructions and edits; the former."""
  indices = jnp.arange(images.shape[0]) % attributes.shape[1]

  def extract(batch_images, labels, index, unused_counted):
    batch = batches.to_signed_float(batch_images)
    code = model.encode(batch, labels)
    edited = model.decode(flip(code, index, targets))
    shown = model.decode(code)
    look = functools.partial(module.apply, variables, method='features')
    return look(batch), (look(shown), look(edited)), shown

  arrays = images, attributes, indices
  return reconstruction.map_batches(extract, arrays, _BATCH_SIZE)
