"""Autoencoders of rival methods, on the encoders and decoders of Section 3.

Their units have no names: any k of them may be taken for the factors.
"""

from collections.abc import Sequence
import dataclasses
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models


class RivalAutoencoder(autoencoders.FlatAutoencoder):
  """The networks of `MlpAutoencoder`, or of `SvhnAutoencoder`, for a rival.

  Attributes (the others are at the head of `autoencoders`):
    widths: of the encoder's hidden layers; the decoder's are the reverse.
    is_convolutional: the networks are those of `SvhnAutoencoder`, and the code
      has no ReLU.
  """

  num_factors: int
  nuisance_dim: int
  image_shape: tuple[int, int, int] = (28, 28, 1)
  widths: tuple[int, ...] = (256, 128, 64)
  is_convolutional: bool = False
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  is_rival = True
  # Numbers that the encoder gives for each unit of the code.
  outputs_per_unit = 1

  @nn.nowrap
  def make_encoder(self, outputs: int, images: int = 1) -> nn.Module:
    """Makes a network like the encoder, of several images side by side."""
    height, width, channels = self.image_shape
    shape = (height, width, images * channels)
    options = {
      'image_shape': shape,
      'widths': self.widths,
      'normalize_code': False,
      'axis_name': self.axis_name,
      'dtype': self.dtype,
    }
    if self.is_convolutional:
      return autoencoders.SvhnEncoder(outputs, linear_code=True, **options)
    return autoencoders.MlpEncoder(outputs, **options)

  def setup(self):
    self.encoder = self.make_encoder(self.outputs_per_unit * self.code_dim)
    decoder = autoencoders.MlpDecoder
    if self.is_convolutional:
      decoder = autoencoders.SvhnDecoder
    self.decoder = decoder(
      self.code_dim, self.image_shape, self.widths[::-1], self.dtype
    )

  def infer(self, images: jax.Array) -> jax.Array:
    """Returns what the encoder gives, `[B, outputs_per_unit * code_dim]`."""
    return self.encoder(images)

  def decode_units(self, units: jax.Array) -> jax.Array:
    """Decodes units `[B, code_dim]` in the order of training."""
    return self.decoder(units)


class UnorderedAutoencoder(RivalAutoencoder):
  """An autoencoder of which any k units may be the factors.

  The variable `order`, `[k + d]` int32 in the collection `batch_stats`, lists
  the units in the order of the code; it is that of training until
  `choose_factors` changes it. Being data, all choices share one program.
  """

  has_free_units = True

  def setup(self):
    super().setup()
    self.order = self.variable(
      'batch_stats', 'order', lambda: jnp.arange(self.code_dim)
    )

  def units(self, images: jax.Array) -> jax.Array:
    """Encodes images to units `[B, code_dim]` in the order of training."""
    return self.infer(images)

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    units = jnp.take(self.units(images), self.order.value, axis=1)
    return codes.split(units, self.num_factors)

  def decode(self, code: codes.Code) -> jax.Array:
    positions = jnp.argsort(self.order.value)
    return self.decode_units(jnp.take(codes.merge(code), positions, axis=1))

  @nn.nowrap
  def unit_groups(self) -> list[tuple[int, ...]]:
    """Lists the units that may be factors together: any k."""
    units = range(self.code_dim)
    return list(itertools.combinations(units, self.num_factors))


def choose_factors(model: models.Model, units: Sequence[int]) -> models.Model:
  """Returns an `UnorderedAutoencoder` with other units as factors.

  Units are counted from 0 in the order of training. InputError unless they are
  k different ones of the code.
  """
  code_dim = model.num_factors + model.nuisance_dim
  order = order_units(units, model.num_factors, code_dim)
  stats = {**model.batch_stats, 'order': jnp.array(order, jnp.int32)}
  return dataclasses.replace(model, batch_stats=stats)


def order_units(
  units: Sequence[int], num_factors: int, code_dim: int
) -> list[int]:
  """Lists all units of a code, those that shall be the factors first.

  InputError unless these are `num_factors` different ones of the code, counted
  from 0.
  """
  rest = [unit for unit in range(code_dim) if unit not in units]
  if len(units) != num_factors or len(units) + len(rest) != code_dim:
    raise errors.InputError(
      f'--factor_units={",".join(map(str, units))}, of a code of {code_dim}'
      f' units; accepted: {num_factors} different ones from 0 to'
      f' {code_dim - 1}.'
    )
  return [*units, *rest]
