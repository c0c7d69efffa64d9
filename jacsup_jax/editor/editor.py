"""A trained model whose units are moved by hand: sliders, strips and grids.

A unit is a factor or a nuisance unit of a flat code. It is moved by strengths,
in standard deviations of the unit on the training data, so that a strength of 1
is as large in every unit of every model.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders

FACTOR = 'factor'
NUISANCE = 'nuisance'


@dataclasses.dataclass(frozen=True)
class Unit:
  """What a slider moves.

  Attributes:
    name: of an attribute, or `y1`, `y2`, ... and `z1`, `z2`, ...
    kind: `FACTOR` or `NUISANCE`.
    mean: over the training data.
    deviation: standard deviation over the training data; 0 of a unit that is
      the same for all of them, which cannot be moved.
    low: 1 % quantile over the training data.
    high: 99 % quantile over the training data.
  """

  name: str
  kind: str
  mean: float
  deviation: float
  low: float
  high: float


class Encoded(NamedTuple):
  """What edits of images start from."""

  images: jax.Array  # [B, H, W, C], in the model's range
  code: codes.Code  # of B images
  reconstructions: jax.Array  # [B, H, W, C], in the model's range


@dataclasses.dataclass(frozen=True, eq=False)
class Editor:
  """A model, and the units of its code that can be moved.

  Attributes:
    model: an autoencoder that predicts its factors.
    variables: of it.
    units: U of them, the factors first, in the order of the code; nuisance
      units only of a flat code.
    is_signed: the model's images are in [-1, 1], else in [0, 1].
    title: what it is, for people: its run and its stage.
  """

  model: nn.Module
  variables: codes.Variables
  units: tuple[Unit, ...]
  is_signed: bool
  title: str = ''

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that it takes and gives."""
    return tuple(self.model.image_shape)

  def encode(self, images: np.ndarray) -> Encoded:
    """Encodes images, and decodes them again.

    Args:
      images: `[B, H, W, C]` uint8.

    Returns:
      What `edit` and `edit_in_turn` take.

    Raises:
      InputError: if the images do not have the model's shape.
    """
    images = self._check(images)
    return _encode(self.model, self.is_signed, self.variables, images)

  def predict(self, images: np.ndarray) -> codes.Code:
    """Encodes images, and does not decode them.

    Args:
      images: `[B, H, W, C]` uint8.

    Raises:
      InputError: if the images do not have the model's shape.
    """
    images = self._check(images)
    return _predict(self.model, self.is_signed, self.variables, images)

  def reconstruct(self, encoded: Encoded) -> np.ndarray:
    """Returns `[B, H, W, C]` uint8, what the model makes of the images."""
    return np.asarray(_to_bytes(encoded.reconstructions, self.is_signed))

  def edit(
      self,
      encoded: Encoded,
      strengths: np.ndarray,
      keep_detail: float = 0.0,
  ) -> np.ndarray:
    """Decodes images with their units moved. One compiled program.

    Of equation (7) of Lezama (2019), by deviations: a factor y becomes
    y + strength * deviation. What the reconstruction lacks of an image can be
    added to its edit.

    Args:
      encoded: B images.
      strengths: `[U]`, in standard deviations.
      keep_detail: in [0, 1]: the part of image minus reconstruction that is
        added.

    Returns:
      `[B, H, W, C]` uint8.
    """
    return self.edit_in_turn(encoded, strengths[None], keep_detail)[:, 0]

  def edit_in_turn(
      self,
      encoded: Encoded,
      strengths: np.ndarray,
      keep_detail: float = 0.0,
  ) -> np.ndarray:
    """Decodes images at several strengths, one after the other.

    Args:
      encoded: B images.
      strengths: `[N, U]`, in standard deviations.
      keep_detail: see `edit`.

    Returns:
      `[B, N, H, W, C]` uint8.
    """
    strengths = np.asarray(strengths, np.float32)
    chex.assert_shape(strengths, (None, len(self.units)))
    deviations = np.array([unit.deviation for unit in self.units], np.float32)
    return np.asarray(
        _edit(
            self.model,
            self.is_signed,
            self.variables,
            encoded,
            strengths * deviations,
            jnp.float32(keep_detail),
        )
    )

  def _check(self, images):
    images = jnp.asarray(images)
    if images.shape[1:] != self.image_shape:
      raise errors.InputError(
          f'images are {list(images.shape[1:])}; accepted: those of the model,'
          f' {list(self.image_shape)}.'
      )
    return images


def move(code: codes.Code, steps: jax.Array) -> codes.Code:
  """Moves the units of a code.

  Args:
    code: of B examples: `[B, K]` factors, nuisance of any shape.
    steps: `[U]`, in the units' own measure; the factors first, then those of a
      flat nuisance. U = K leaves the nuisance as it is.

  Returns:
    The code, moved.
  """
  chex.assert_rank([code.factors, steps], [2, 1])
  num_factors = code.factors.shape[-1]
  factors = code.factors + steps[None, :num_factors].astype(code.factors.dtype)
  if steps.size == num_factors:
    return code._replace(factors=factors)
  chex.assert_shape(code.nuisance, (None, steps.size - num_factors))
  own = steps[None, num_factors:].astype(code.nuisance.dtype)
  return code._replace(factors=factors, nuisance=code.nuisance + own)


def sweep(
    base: np.ndarray, moves: Sequence[tuple[int, np.ndarray]]
) -> np.ndarray:
  """Returns strengths with some units running over values, a grid of them.

  Args:
    base: `[U]`, of the units that stay.
    moves: unit and its `[n]` values; the last runs fastest.

  Returns:
    `[N, U]`, N the product of all n.
  """
  values = np.meshgrid(*(own for _, own in moves), indexing='ij')
  strengths = np.tile(base, (values[0].size, 1)).astype(np.float32)
  for (unit, _), own in zip(moves, values):
    strengths[:, unit] = own.ravel()
  return strengths


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(model, is_signed, variables, images):
  code = _predict(model, is_signed, variables, images)
  decode = autoencoders.make_decode(model, variables['batch_stats'])
  return Encoded(
      _to_float(images, is_signed), code, decode(variables['params'], code)
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(model, is_signed, variables, images):
  encode = autoencoders.make_encode(model, variables['batch_stats'])
  return encode(variables['params'], _to_float(images, is_signed))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _edit(model, is_signed, variables, encoded, steps, keep_detail):
  decode = autoencoders.make_decode(model, variables['batch_stats'])
  detail = keep_detail * (encoded.images - encoded.reconstructions)

  def at(own):
    images = decode(variables['params'], move(encoded.code, own))
    return _to_bytes(images + detail, is_signed)

  # One after the other: faces of all strengths at once would not fit.
  return jnp.swapaxes(jax.lax.map(at, steps), 0, 1)


def _to_float(images, is_signed):
  to_float = batches.to_signed_float if is_signed else batches.to_float
  return to_float(images)


@functools.partial(jax.jit, static_argnums=1)
def _to_bytes(images, is_signed):
  """Converts images in [0, 1] or [-1, 1] to uint8, and cuts what is outside."""
  unit = (images + 1) / 2 if is_signed else images
  return jnp.round(jnp.clip(unit, 0, 1) * 255).astype(jnp.uint8)
