"""Edit images by moving units of a trained model's code.

A unit is a factor, or a nuisance unit of a flat code; strengths are standard
deviations of the unit on the training data.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.editor import profiles
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import model as models

# Detail fades where an edit changes a picture, of a range of 1, by about this
# much; so seen on pictures that are reduced to this many pixels a side.
_FADING, _COARSE = 0.14, 24


class Encoded(NamedTuple):
  """Images ready to be edited."""

  images: jax.Array  # [B, H, W, C], in the model's range
  code: codes.Code  # of B images
  reconstructions: jax.Array  # [B, H, W, C], in the model's range


@dataclasses.dataclass(frozen=True, eq=False)
class Editor:
  """A model and the U units of its code that can be moved."""

  model: models.Model  # an autoencoder that predicts its factors
  # In the order of the code, factors first; nuisance only of a flat code.
  units: tuple[unit_scales.Unit, ...]
  title: str = ''  # the run and the stage, for display
  profile: profiles.Profile = profiles.Profile()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the model."""
    return tuple(self.model.image_shape)

  def encode(self, images: np.ndarray) -> Encoded:
    """Encodes and reconstructs `[B, H, W, C]` uint8 of the model's shape.

    InputError if images have another shape.
    """
    images = jnp.asarray(images)
    if images.shape[1:] != self.image_shape:
      raise errors.InputError(
        f'images are {list(images.shape[1:])}; accepted: the shape of the'
        f' model, {list(self.image_shape)}.'
      )
    return _encode(self.model, images)

  def reconstruct(self, encoded: Encoded) -> np.ndarray:
    """Returns the reconstructions, `[B, H, W, C]` uint8."""
    images = _to_bytes(encoded.reconstructions, self.model.image_range)
    return np.asarray(images)

  def edit(
    self, encoded: Encoded, strengths: np.ndarray, keep_detail: float = 0.0
  ) -> np.ndarray:
    """Decodes images with their units moved, `[B, H, W, C]` uint8.

    Equation (7) of Lezama (2019) in deviations: a factor y becomes
    y + strength * deviation, of `[U]` strengths. `keep_detail` in [0, 1] is the
    share of (image - reconstruction) to add; less of it where the edit changes
    the picture, so that glasses taken off do not come back as detail.
    """
    return self.edit_in_turn(encoded, strengths[None], keep_detail)[:, 0]

  def edit_in_turn(
    self, encoded: Encoded, strengths: np.ndarray, keep_detail: float = 0.0
  ) -> np.ndarray:
    """Edits at N settings, `[N, U]` strengths: `[B, N, H, W, C]` uint8."""
    strengths = np.asarray(strengths, np.float32)
    chex.assert_shape(strengths, (None, len(self.units)))
    deviations = np.array([unit.deviation for unit in self.units], np.float32)
    steps = strengths * deviations
    detail = jnp.float32(keep_detail)
    return np.asarray(_edit(self.model, encoded, steps, detail))


class Samples(NamedTuple):
  """Images that are read when asked for."""

  count: int
  read: Callable[[Sequence[int]], np.ndarray]  # rows -> [n, H, W, C] uint8


@dataclasses.dataclass(frozen=True)
class Choice:
  """An editor that can be chosen, and is loaded when it is."""

  id: str  # letters, digits, `_`, `-` and `.`; stable, since links contain it
  group: str  # the run it belongs to, for display
  title: str  # its name in the group, for display
  load: Callable[[], Editor]  # raises InputError
  open_samples: Callable[[Editor], Samples]  # to edit; raises InputError
  # Id of the choice of the same size, without Jacobian supervision or with it.
  counterpart: str = ''


def move(code: codes.Code, steps: jax.Array) -> codes.Code:
  """Adds steps to the units of a code of `[B, K]` factors.

  `steps`, `[U]` in the units' own scale, has factors first, then the units of a
  flat nuisance. With U = K the nuisance, of any shape, is left as it is.
  """
  chex.assert_rank([code.factors, steps], [2, 1])
  num_factors = code.factors.shape[-1]
  factors = code.factors + steps[None, :num_factors].astype(code.factors.dtype)
  if steps.size == num_factors:
    return code._replace(factors=factors)
  chex.assert_shape(code.nuisance, (None, steps.size - num_factors))
  rest = steps[None, num_factors:].astype(code.nuisance.dtype)
  return code._replace(factors=factors, nuisance=code.nuisance + rest)


@jax.jit
def _encode(model, images):
  images = models.to_range(images, model.image_range)
  code = model.encode(images)
  return Encoded(images, code, model.decode(code))


@jax.jit
def _edit(model, encoded, steps, keep_detail):
  detail = keep_detail * (encoded.images - encoded.reconstructions)
  low, high = model.image_range

  def decode(own):
    images = model.decode(move(encoded.code, own))
    change = jnp.abs(images - encoded.reconstructions).mean(-1, keepdims=True)
    fading = jnp.exp(-jnp.square(_blur(change) / ((high - low) * _FADING)))
    return _to_bytes(images + fading * detail, model.image_range)

  # One setting at a time: large faces at all settings would not fit in memory.
  return jnp.swapaxes(jax.lax.map(decode, steps), 0, 1)


def _blur(images):
  """Blurs `[B, H, W, C]` so that no edges are seen in them."""
  height, width = images.shape[1:3]
  coarse = min(height, _COARSE), min(width, _COARSE)
  small = jax.image.resize(
    images, (len(images), *coarse, images.shape[-1]), 'linear'
  )
  return jax.image.resize(small, images.shape, 'linear')


@functools.partial(jax.jit, static_argnums=1)
def _to_bytes(images, image_range):
  """Converts images in a range to uint8 and clips what is outside."""
  low, high = image_range
  unit = (images - low) / (high - low)
  return jnp.round(jnp.clip(unit, 0, 1) * 255).astype(jnp.uint8)
