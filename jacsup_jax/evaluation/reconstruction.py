"""Reconstruction error, and passes over data sets in batches."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import batches

# A `models.model.Model`, or anything with such an `image_range`, `encode` and
# `decode`.
Autoencoder = Any


def psnr(mse: float, peak: float = 1.0) -> float:
  """Returns the peak signal-to-noise ratio of an error, in decibels."""
  return float(10 * np.log10(peak**2 / mse)) if mse > 0 else float('inf')


def compute_mse(
  model: Autoencoder,
  images: jax.Array,
  attributes: jax.Array | None = None,
  *,
  batch_size: int | None = None,
) -> jax.Array:
  """Computes the mean squared reconstruction error, in `model.image_range`.

  Images are `[M, H, W, C]` uint8; attributes `[M, K]` are for models whose
  factors are the labels. In [-1, 1] it is four times that in [0, 1].
  """
  if batch_size is None:
    batch_size = max(64, batches.count_at_once(images.shape[1:]))
  in_unit = tuple(model.image_range) == (0, 1)
  to_float = batches.to_float if in_unit else batches.to_signed_float
  arrays = (images,) if attributes is None else (images, attributes)

  def error(batch_images, *rest):
    *batch_attributes, _ = rest
    batch = to_float(batch_images)
    reconstructions = model.decode(model.encode(batch, *batch_attributes))
    return jnp.mean(jnp.square(reconstructions - batch), axis=(1, 2, 3))

  found = map_batches(error, arrays, batch_size).reshape(-1)
  return jnp.mean(found[: images.shape[0]])


measure_mse = jax.jit(compute_mse, static_argnames='batch_size')


def compute_ssim(images: np.ndarray, others: np.ndarray) -> float:
  """Computes the mean structural similarity of images in [-1, 1].

  Wang et al. (2004), by scikit-image: windows of 7x7 pixels, a mean over
  colors. Both are `[M, S, S, 3]`.
  """
  # Imported here: few commands measure it.
  from skimage import metrics

  similar = functools.partial(
    metrics.structural_similarity, channel_axis=-1, data_range=2.0
  )
  return float(np.mean([*map(similar, images, others)]))


@jax.jit
def encode_factors(
  model: Autoencoder, images: jax.Array, attributes: jax.Array
) -> jax.Array:
  """Encodes `[M, S, S, 3]` uint8 images to `[M, K]` factors, in batches."""

  def encode(own, labels, unused_counted):
    return model.encode(batches.to_signed_float(own), labels).factors

  batch_size = batches.count_at_once(images.shape[1:])
  factors = map_batches(encode, (images, attributes), batch_size)
  return factors.reshape(-1, factors.shape[-1])[: images.shape[0]]


@jax.jit
def compute_codes(model: Autoencoder, images: jax.Array) -> jax.Array:
  """Computes the flat codes `[M, U]` of `[M, H, W, C]` uint8 images."""

  def encode_one(image):
    code = model.encode(image[None])
    return jnp.concatenate([code.factors[0], code.nuisance[0].ravel()])

  at_once = batches.count_at_once(images.shape[1:])
  return jax.lax.map(encode_one, images, batch_size=at_once)


def map_batches(
  function: Callable[..., Any], arrays: Sequence[jax.Array], batch_size: int
) -> chex.ArrayTree:
  """Applies `(*batch, counted) -> tree` to batches of arrays `[M, ...]`.

  `counted` `[B]` bool says which examples are real: the last batch is filled up
  with others. Returns the trees of all batches, stacked. InputError if M is 0.
  """
  num_examples = arrays[0].shape[0]
  if num_examples == 0:
    raise errors.InputError('found no image to evaluate; accepted: 1 or more.')
  batch_size = min(batch_size, num_examples)
  steps = -(-num_examples // batch_size)
  padding = steps * batch_size - num_examples

  def split(x):
    # Filled up with real examples: zeros could give values that are not finite.
    filled = jnp.concatenate([x, x[:padding]]) if padding else jnp.asarray(x)
    return filled.reshape(steps, batch_size, *x.shape[1:])

  counted = jnp.arange(steps * batch_size) < num_examples
  return jax.lax.map(
    lambda args: function(*args),
    (*map(split, arrays), counted.reshape(steps, batch_size)),
  )


def sum_batches(
  function: Callable[..., Any], arrays: Sequence[jax.Array], batch_size: int
) -> chex.ArrayTree:
  """Sums what `map_batches` returns over the batches."""
  mapped = map_batches(function, arrays, batch_size)
  return jax.tree.map(lambda x: jnp.sum(x, axis=0), mapped)
