"""Autoencoders of digits, house numbers and faces, as linen modules.

An autoencoder has the methods `encode(images, train) -> Code` and `decode(code)
-> images`, and its parameter tree has the top keys `encoder` and `decoder`.
`model.Model` binds one to its variables. Attributes that they share::

  num_factors: k.
  nuisance_dim: d. Parameters of flat codes depend on k + d alone: a clone with
    another split of the same sum reads the same parameters.
  image_shape: (H, W, C).
  image_range: the range of the images that it encodes.
  factors_are_labels: False: the encoder predicts the factors.
  axis_name: the mapped axis that the batch is spread over, if any.
  dtype: of products and convolutions; all else is float32 at least.
"""

import functools
import itertools
import math

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import layers
from jacsup_jax.models import model

FACTOR_ACTIVATIONS = ('leaky_relu', 'linear', 'tanh')


class MlpEncoder(nn.Module):
  """Images `[B, H, W, C]` -> flat codes `[B, code_dim]`."""

  code_dim: int
  image_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  normalize_code: bool
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    chex.assert_shape(images, (None, *self.image_shape))
    sizes = (math.prod(self.image_shape), *self.widths)
    x = images.reshape(images.shape[0], -1)
    for i, (fan_in, features) in enumerate(itertools.pairwise(sizes)):
      x = layers.dense(fan_in, features, dtype=self.dtype, name=f'dense_{i}')(x)
      x = nn.relu(x)
    x = layers.CodeDense(sizes[-1], self.code_dim, self.dtype, name='code')(x)
    x = layers.widen(x)
    if not self.normalize_code:
      return x
    return layers.make_code_norm(self.axis_name, train)(x)


class MlpDecoder(nn.Module):
  """Flat codes `[B, code_dim]` -> images `[B, H, W, C]` in [-1, 1]."""

  code_dim: int
  image_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, flat_code: jax.Array) -> jax.Array:
    chex.assert_shape(flat_code, (None, self.code_dim))
    sizes = (self.code_dim, *self.widths, math.prod(self.image_shape))
    x = flat_code
    for i, (fan_in, features) in enumerate(itertools.pairwise(sizes)):
      x = nn.relu(x) if i else x
      x = layers.dense(fan_in, features, dtype=self.dtype, name=f'dense_{i}')(x)
    return jnp.tanh(layers.widen(x)).reshape(-1, *self.image_shape)


class FlatAutoencoder(nn.Module):
  """The methods of autoencoders with flat codes."""

  image_range = (0.0, 1.0)
  factors_are_labels = False

  @property
  def code_dim(self) -> int:
    return self.num_factors + self.nuisance_dim

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    return codes.split(self.encoder(images, train), self.num_factors)

  def decode(self, code: codes.Code) -> jax.Array:
    return self.decoder(codes.merge(code))

  def __call__(self, images: jax.Array) -> jax.Array:
    return self.decode(self.encode(images))


@model.register
class MlpAutoencoder(FlatAutoencoder):
  """The autoencoder of Section 3 and appendix A.1 of Lezama (2019).

  784-256-128-64-(k + d) with ReLU between, and a symmetric decoder that ends in
  a Tanh. (The paper's "768" is a misprint for 784.)

  Attributes (the others are at the head of this module):
    normalize_code: adds a BatchNorm without scale and bias after the encoder.
      The first teacher has it, its students do not.
    widths: of the encoder's hidden layers; the decoder's are the reverse.
  """

  num_factors: int
  nuisance_dim: int
  normalize_code: bool = False
  image_shape: tuple[int, int, int] = (28, 28, 1)
  widths: tuple[int, ...] = (256, 128, 64)
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.encoder = MlpEncoder(
      self.code_dim,
      self.image_shape,
      self.widths,
      self.normalize_code,
      self.axis_name,
      self.dtype,
    )
    self.decoder = MlpDecoder(
      self.code_dim, self.image_shape, self.widths[::-1], self.dtype
    )


class SvhnEncoder(nn.Module):
  """Images `[B, H, W, C]` -> flat codes `[B, code_dim]`."""

  code_dim: int
  image_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  normalize_code: bool
  linear_code: bool
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    chex.assert_shape(images, (None, *self.image_shape))
    x = images
    block = functools.partial(layers.PoolBlock, dtype=self.dtype)
    for i, features in enumerate(self.widths):
      x = block(features, name=f'pool_{i}')(x)
    is_active = not self.linear_code
    x = block(self.code_dim, True, activate=is_active, name='code')(x)
    if not self.normalize_code:
      return x
    return layers.make_code_norm(self.axis_name, train)(x)


class SvhnDecoder(nn.Module):
  """Flat codes `[B, code_dim]` -> images `[B, H, W, C]` in [0, 1]."""

  code_dim: int
  image_shape: tuple[int, int, int]
  widths: tuple[int, ...]
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, flat_code: jax.Array) -> jax.Array:
    chex.assert_shape(flat_code, (None, self.code_dim))
    height, width, channels = self.image_shape
    scale = 2 ** (len(self.widths) + 1)
    block = functools.partial(layers.UpConvolution, dtype=self.dtype)
    first, *widths = (*self.widths, channels)
    x = block(first, (height // scale, width // scale), name='up_0')(flat_code)
    for i, features in enumerate(widths, 1):
      x = block(features, name=f'up_{i}')(nn.relu(x))
    return nn.sigmoid(layers.widen(x))


@model.register
class SvhnAutoencoder(FlatAutoencoder):
  """The autoencoder of appendix A.5 of Lezama (2019).

  C(64)-C(128)-C(256)-C(k + d)-BatchNorm and D(256)-D(128)-D(64)-D(3). C is a
  3x3 convolution with zero padding of 1, ReLU and average pooling; D a
  transposed 4x4 convolution of stride 2 and padding 1, and ReLU. Where the
  paper leaves it open (docs/differences.md): the code is k + d numbers, each
  the average of a map, and a constant channel of a 2x2 map for the decoder,
  which has neither pooling nor BatchNorm and ends in a sigmoid.

  Attributes (the others are at the head of this module):
    normalize_code: adds the BatchNorm after the encoder.
    image_shape: (H, W, C); H and W are multiples of 16 (with three widths).
    widths: of the encoder's hidden layers; the decoder's are the reverse.
    linear_code: leaves out the ReLU of the code.
  """

  num_factors: int
  nuisance_dim: int
  normalize_code: bool = False
  image_shape: tuple[int, int, int] = (32, 32, 3)
  widths: tuple[int, ...] = (64, 128, 256)
  linear_code: bool = False
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    scale = 2 ** (len(self.widths) + 1)
    if any(size < scale or size % scale for size in self.image_shape[:2]):
      raise errors.InputError(
        f'images of {tuple(self.image_shape)}; accepted: height and width'
        f' that are multiples of {scale}'
      )
    super().__post_init__()

  def setup(self):
    self.encoder = SvhnEncoder(
      self.code_dim,
      self.image_shape,
      self.widths,
      self.normalize_code,
      self.linear_code,
      self.axis_name,
      self.dtype,
    )
    self.decoder = SvhnDecoder(
      self.code_dim, self.image_shape, self.widths[::-1], self.dtype
    )


class FaceEncoder(nn.Module):
  """Images `[B, S, S, 3]` -> `[B, 2, 2, features]`, the last of them linear."""

  widths: tuple[int, ...]
  features: int
  linear_features: int
  image_shape: tuple[int, int, int]
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    chex.assert_shape(images, (None, *self.image_shape))
    x = images
    block = functools.partial(
      layers.DownBlock, axis_name=self.axis_name, dtype=self.dtype
    )
    for i, features in enumerate(self.widths):
      x = block(features, normalize=i > 0, name=f'down_{i}')(x, train)
    x = block(
      self.features,
      activate=not self.linear_features,
      output_dtype=jnp.promote_types(self.dtype, jnp.float32),
      name=f'down_{len(self.widths)}',
    )(x, train)
    if not self.linear_features:
      return x
    x, linear = jnp.split(x, [self.features - self.linear_features], axis=-1)
    return jnp.concatenate([layers.leaky_relu(x), linear], axis=-1)


class FaceDecoder(nn.Module):
  """Codes `[B, K]`, `[B, 2, 2, C]` -> images `[B, S, S, 3]` in [-1, 1]."""

  widths: tuple[int, ...]
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, code: codes.Code, train: bool = False) -> jax.Array:
    x = code.nuisance
    block = functools.partial(
      layers.UpBlock, axis_name=self.axis_name, dtype=self.dtype
    )
    for i, features in enumerate(self.widths):
      x = block(features, name=f'up_{i}')(x, code.factors, train)
    last = block(3, is_last=True, name=f'up_{len(self.widths)}')
    return last(x, code.factors, train)


class FaceMethods(nn.Module):
  """What autoencoders of faces share; FaceAutoencoder describes the fields."""

  num_factors: int
  nuisance_channels: int
  image_size: int = 256
  first_width: int = 16
  last_width: int = 512
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  image_range = (-1.0, 1.0)
  # As in most baselines; FaceAutoencoder and IcGAN predict them.
  factors_are_labels = True
  has_bounded_factors = False

  def __post_init__(self):
    errors.check_image_size(self.image_size)
    super().__post_init__()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (self.image_size, self.image_size, 3)

  @property
  def nuisance_dim(self) -> int:
    return 4 * self.nuisance_channels

  @nn.nowrap
  def make_parts(
    self, features: int, linear_features: int
  ) -> tuple[FaceEncoder, FaceDecoder]:
    """Makes an encoder of so many features, some linear, and the decoder."""
    # Hidden layers; one more halves 4 to 2 pixels.
    depth = self.image_size.bit_length() - 3
    widths = layers.doubled_widths(self.first_width, self.last_width, depth)
    options = self.axis_name, self.dtype
    encoder = FaceEncoder(
      widths, features, linear_features, self.image_shape, *options
    )
    return encoder, FaceDecoder(widths[::-1], *options)

  def decode(self, code: codes.Code, train: bool = False) -> jax.Array:
    chex.assert_shape(code.factors, (None, self.num_factors))
    chex.assert_shape(code.nuisance, (None, 2, 2, self.nuisance_channels))
    return self.decoder(code, train)


@model.register
class FaceAutoencoder(FaceMethods):
  """The autoencoder of Section 4 and appendix A.2 of Lezama (2019).

  C(16)-C(32)-...-C(512)-C(512 + k) from 256 to 2 pixels, and transposed
  convolutions back, each of which is given the factors. C is a 4x4 convolution
  of stride 2 with BatchNorm and LeakyReLU; the first has no BatchNorm.

  As in the released code, the LeakyReLU of the last layer applies to the
  factors too, which makes -1 as far from 0 as +5; see `factor_activation`.

  Attributes (the others are at the head of this module):
    num_factors: k. The last k channels of the encoder, each averaged over the
      2x2 positions.
    nuisance_channels: of the 2x2 map before them; d is four times as many. Only
      the encoder's last layer and the decoder's first depend on it.
    image_size: S, a power of two, 8 or larger.
    first_width: channels of the encoder's first layer; later ones double it.
    last_width: the largest width. The decoder's widths are the reverse.
    factor_activation: 'leaky_relu'; 'linear'; or 'tanh', of their means, which
      leaves factors no room for more than the attributes (not in the paper).
  """

  factor_activation: str = 'leaky_relu'

  factors_are_labels = False

  def __post_init__(self):
    if self.factor_activation not in FACTOR_ACTIVATIONS:
      raise errors.InputError(
        f'factor_activation {self.factor_activation!r}; accepted:'
        f' {", ".join(FACTOR_ACTIVATIONS)}.'
      )
    super().__post_init__()

  @property
  def has_bounded_factors(self) -> bool:
    return self.factor_activation == 'tanh'

  def setup(self):
    self.encoder, self.decoder = self.make_parts(
      self.nuisance_channels + self.num_factors,
      0 if self.factor_activation == 'leaky_relu' else self.num_factors,
    )

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    features = self.encoder(images, train)
    nuisance, factors = jnp.split(features, [self.nuisance_channels], axis=-1)
    factors = jnp.mean(factors, axis=(1, 2))
    if self.has_bounded_factors:
      factors = jnp.tanh(factors)
    return codes.Code(factors, nuisance)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return self.decode(self.encode(images, train), train)


def init_variables(module: nn.Module, seed: int) -> codes.Variables:
  """Initializes the variables of an autoencoder or a classifier.

  Returns:
    A dict of 'params' and 'batch_stats' (empty if the module has none).
  """
  images = jax.ShapeDtypeStruct((1, *module.image_shape), jnp.float32)
  # Not jitted: growing a code changes few leaves, and the programs that draw
  # the others are compiled already. Lazy: the forward pass is only traced.
  variables = module.lazy_init(jax.random.key(seed), images)
  return {
    'params': variables['params'],
    'batch_stats': variables.get('batch_stats', {}),
  }
