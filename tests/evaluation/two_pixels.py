"""Images of two pixels, for the tests of evaluations that ask for classes.

The first pixel is 20 times the class, the second the style.
"""

import types

import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import registry

SHAPE = (1, 2, 1)


def make_data(split, count, seed, classes=10):
  labels, styles = np.random.default_rng(seed).integers(
    0, [[classes], [256]], (2, count), np.int32
  )
  images = np.stack([20 * labels, styles], axis=1).astype(np.uint8)
  return registry.Dataset('two', split, images.reshape(-1, *SHAPE), labels)


# The oracle: factors are the class, nuisance is the style.
def encode(images):
  images = images / 255 if images.dtype == jnp.uint8 else images
  return codes.Code(images[:, 0, 0], images[:, 0, 1])


def decode(code):
  return jnp.stack(code, axis=1)[:, None]


def see(images, keys=None):
  """Sees the class of the first pixel, of images in [0, 1]."""
  seen = np.asarray(images)[..., 0, 0, 0] * 255 / 20
  # Where it ends in .5, rounding is a coin's.
  return np.round(seen + 0.01).astype(int)[None]


def make_judge(family, classify=see):
  """Makes judges of a family, whose features are the pixels."""
  return types.SimpleNamespace(
    family=family,
    classify=classify,
    features=lambda images: np.asarray(images).reshape(*images.shape[:2], -1),
    image_shape=SHAPE,
  )
