"""Autoencoders and judges as linen modules.

An autoencoder has the methods `encode(images, train) -> Code` and `decode(code)
-> images`, and its parameter tree has the top keys `encoder` and `decoder`.
`make_encode` and `make_decode` give them as pure functions of the parameters.
"""

from collections.abc import Callable
import itertools
import math
from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import layers


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
    # Statistics are not taken in less than float32.
    x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
    if self.normalize_code:
      x = _code_norm(self.axis_name, train)(x)
    return x


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
    x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
    return jnp.tanh(x).reshape(-1, *self.image_shape)


class MlpAutoencoder(nn.Module):
  """The autoencoder of Section 3 and appendix A.1 of Lezama (2019).

  784-256-128-64-(k + d) with ReLU between, a symmetric decoder, Tanh at its
  end. (The paper's "768" is a misprint for 784.)

  Attributes:
    num_factors: k.
    nuisance_dim: d. Parameters depend on k + d alone: a clone with another
      split of the same sum reads the same parameters.
    normalize_code: BatchNorm without scale and bias after the encoder, as the
      first teacher has and no student does.
    image_shape: (H, W, C).
    widths: of the encoder's hidden layers; the decoder's are the reverse.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that the matrix products are computed in.
  """

  num_factors: int
  nuisance_dim: int
  normalize_code: bool = False
  image_shape: tuple[int, int, int] = (28, 28, 1)
  widths: tuple[int, ...] = (256, 128, 64)
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  # The images it encodes; not fields of the module, as they have no annotation.
  image_range = (0.0, 1.0)
  factors_are_labels = False

  @property
  def code_dim(self) -> int:
    return self.num_factors + self.nuisance_dim

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

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    return codes.split(self.encoder(images, train), self.num_factors)

  def decode(self, code: codes.Code) -> jax.Array:
    return self.decoder(codes.merge(code))

  def __call__(self, images: jax.Array) -> jax.Array:
    return self.decode(self.encode(images))


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
    for i, features in enumerate(self.widths):
      x = layers.PoolBlock(features, dtype=self.dtype, name=f'pool_{i}')(x)
    x = layers.PoolBlock(
        self.code_dim,
        is_code=True,
        activate=not self.linear_code,
        dtype=self.dtype,
        name='code',
    )(x)
    if self.normalize_code:
      x = _code_norm(self.axis_name, train)(x)
    return x


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
    x = flat_code
    for i, features in enumerate((*self.widths, channels)):
      x = nn.relu(x) if i else x
      x = layers.UpConvolution(
          features,
          constant_size=None if i else (height // scale, width // scale),
          dtype=self.dtype,
          name=f'up_{i}',
      )(x)
    x = x.astype(jnp.promote_types(self.dtype, jnp.float32))
    return nn.sigmoid(x)


class SvhnAutoencoder(nn.Module):
  """The autoencoder of appendix A.5 of Lezama (2019).

  C(64)-C(128)-C(256)-C(k + d)-BatchNorm and D(256)-D(128)-D(64)-D(3). C is a
  3x3 convolution with zero padding of 1, ReLU and average pooling; D a
  transposed 4x4 convolution of stride 2, with padding of 1, and ReLU. What the
  paper leaves open:

  The code is k + d numbers, not maps: the factors are varied one number each in
  its figures, and its errors are those of so few numbers. So the last average
  pooling is that of the whole map (4x4 of 32x32 images), and for the decoder
  each number stands for a constant channel of a 2x2 map, as for faces. Its
  first layer makes a 4x4 map of it, whose every position has weights of its
  own.

  The pooling that the paper names in the decoder's blocks too is left out: it
  would undo their doubling. The decoder ends in a sigmoid, as images are in
  [0, 1]. It has no BatchNorm, and that of the code no scale and bias, as that
  of the digits.

  Attributes:
    num_factors: k.
    nuisance_dim: d. Parameters depend on k + d alone: a clone with another
      split of the same sum reads the same parameters.
    normalize_code: BatchNorm after the encoder. The paper draws it for all
      models here, for digits for the first teacher alone.
    image_shape: (H, W, C); H and W are multiples of 16 (with three widths).
    widths: of the encoder's hidden layers; the decoder's are the reverse.
    linear_code: the code has no ReLU. The paper has one; a unit that is below 0
      everywhere on all images is then not trained any more.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that the convolutions are computed in.
  """

  num_factors: int
  nuisance_dim: int
  normalize_code: bool = False
  image_shape: tuple[int, int, int] = (32, 32, 3)
  widths: tuple[int, ...] = (64, 128, 256)
  linear_code: bool = False
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  # The images it encodes; not fields of the module, as they have no annotation.
  image_range = (0.0, 1.0)
  factors_are_labels = False

  def __post_init__(self):
    scale = 2 ** (len(self.widths) + 1)
    if any(size < scale or size % scale for size in self.image_shape[:2]):
      raise errors.InputError(
          f'images of {tuple(self.image_shape)}; accepted: height and width'
          f' that are multiples of {scale}.'
      )
    super().__post_init__()

  @property
  def code_dim(self) -> int:
    return self.num_factors + self.nuisance_dim

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

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    return codes.split(self.encoder(images, train), self.num_factors)

  def decode(self, code: codes.Code) -> jax.Array:
    return self.decoder(codes.merge(code))

  def __call__(self, images: jax.Array) -> jax.Array:
    return self.decode(self.encode(images))


class FaceEncoder(nn.Module):
  """Images `[B, S, S, 3]` -> feature maps `[B, 2, 2, features]`.

  The last `linear_features` of them have no LeakyReLU.
  """

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
    for i, features in enumerate(self.widths):
      x = layers.DownBlock(
          features,
          normalize=i > 0,
          axis_name=self.axis_name,
          dtype=self.dtype,
          name=f'down_{i}',
      )(x, train)
    x = layers.DownBlock(
        self.features,
        activate=not self.linear_features,
        axis_name=self.axis_name,
        dtype=self.dtype,
        # The code is not rounded to less than float32.
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
    for i, features in enumerate((*self.widths, 3)):
      x = layers.UpBlock(
          features,
          is_last=i == len(self.widths),
          axis_name=self.axis_name,
          dtype=self.dtype,
          name=f'up_{i}',
      )(x, code.factors, train)
    return x


class FaceAutoencoder(nn.Module):
  """The autoencoder of Section 4 and appendix A.2 of Lezama (2019).

  C(16)-C(32)-...-C(512)-C(512 + k) from 256 to 2 pixels, and transposed
  convolutions back, every one of which is given the factors. C is a 4x4
  convolution of stride 2 with BatchNorm and LeakyReLU; the first has no
  BatchNorm, and the LeakyReLU of the last applies to the factors too, as in the
  released code. It makes a factor of -1, as the hinge (11) wants it, as far
  from 0 as one of +5, which takes thousands of steps to learn; without it both
  signs are alike.

  Attributes:
    num_factors: k. The last k channels of the encoder, each as its mean over
      the 2x2 positions.
    nuisance_channels: of the 2x2 map before them; d is four times as many. On
      it depend the encoder's last layer and the decoder's first, no other.
    image_size: S, a power of two, 8 or larger.
    first_width: channels of the encoder's first layer; each further one has
      twice as many.
    last_width: that the hidden layers have at most. The decoder's are the
      reverse.
    linear_factors: the factors have no LeakyReLU.
    axis_name: of the mapped axis that the batch is spread over, if any.
    dtype: that the convolutions are computed in.
  """

  num_factors: int
  nuisance_channels: int
  image_size: int = 256
  first_width: int = 16
  last_width: int = 512
  linear_factors: bool = False
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.float32

  # The images it encodes; not fields of the module, as they have no annotation.
  image_range = (-1.0, 1.0)
  factors_are_labels = False

  def __post_init__(self):
    config.check_image_size(self.image_size)
    super().__post_init__()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (self.image_size, self.image_size, 3)

  @property
  def nuisance_dim(self) -> int:
    return 4 * self.nuisance_channels

  def setup(self):
    # Of hidden layers; one more halves 4 to 2 pixels.
    depth = self.image_size.bit_length() - 3
    widths = layers.doubled_widths(self.first_width, self.last_width, depth)
    self.encoder = FaceEncoder(
        widths,
        self.nuisance_channels + self.num_factors,
        self.num_factors if self.linear_factors else 0,
        self.image_shape,
        self.axis_name,
        self.dtype,
    )
    self.decoder = FaceDecoder(widths[::-1], self.axis_name, self.dtype)

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    features = self.encoder(images, train)
    nuisance, factors = jnp.split(features, [self.nuisance_channels], axis=-1)
    return codes.Code(jnp.mean(factors, axis=(1, 2)), nuisance)

  def decode(self, code: codes.Code, train: bool = False) -> jax.Array:
    chex.assert_shape(code.factors, (None, self.num_factors))
    chex.assert_shape(code.nuisance, (None, 2, 2, self.nuisance_channels))
    return self.decoder(code, train)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return self.decode(self.encode(images, train), train)


def init_variables(module: nn.Module, seed: int) -> codes.Variables:
  """Initialises the variables of an autoencoder or a classifier.

  Args:
    module: has the property `image_shape`.
    seed: of the parameters.

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


def make_encode(
    model: nn.Module, batch_stats: chex.ArrayTree | None = None
) -> Callable[[codes.Params, jax.Array], codes.Code]:
  """Makes `encode(params, images) -> Code`, with running statistics.

  Args:
    model: an autoencoder.
    batch_stats: its running statistics, None where it has none.

  Returns:
    A pure function of the parameters and `[B, H, W, C]` images.
  """

  def encode(params: codes.Params, images: jax.Array) -> codes.Code:
    variables = {'params': params, 'batch_stats': batch_stats or {}}
    return model.apply(variables, images, method='encode')

  return encode


def make_decode(
    model: nn.Module, batch_stats: chex.ArrayTree | None = None
) -> Callable[[codes.Params, codes.Code], jax.Array]:
  """Makes `decode(params, code) -> images`, with running statistics.

  Args:
    model: an autoencoder.
    batch_stats: its running statistics, None where it has none.

  Returns:
    A pure function of the parameters and a code with `[B, K]` factors.
  """

  def decode(params: codes.Params, code: codes.Code) -> jax.Array:
    variables = {'params': params, 'batch_stats': batch_stats or {}}
    return model.apply(variables, code, method='decode')

  return decode


def apply_in_training(
    model: nn.Module,
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    method: str,
    *args: Any,
) -> tuple[Any, chex.ArrayTree]:
  """Applies a method that normalises with the statistics of the batch.

  Args:
    model: a face autoencoder.
    params: of the model.
    batch_stats: its running statistics.
    method: of the model, with an argument `train`.
    *args: of the method, `[B, ...]` arrays or a code.

  Returns:
    What the method returns, and the running statistics after it.
  """
  y, updated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      *args,
      train=True,
      method=method,
      mutable='batch_stats',
  )
  return y, updated['batch_stats']


def _code_norm(axis_name, train):
  """Makes the BatchNorm of flat codes, without scale and bias."""
  return nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      # The other form, E[x^2] - E[x]^2, cancels in float32.
      use_fast_variance=False,
      use_scale=False,
      use_bias=False,
      axis_name=axis_name,
      name='code_norm',
  )
