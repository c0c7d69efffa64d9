"""Autoencoders and judges as linen modules.

An autoencoder has the methods `encode(images, train) -> Code` and `decode(code)
-> images`, and its parameter tree has the top keys `encoder` and `decoder`.
`make_encode` and `make_decode` give them as pure functions of the parameters.
"""

from collections.abc import Callable
import itertools
import math

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax import latents
from jacsup_jax import layers
from jacsup_jax import types


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
      x = nn.BatchNorm(
          use_running_average=not train,
          momentum=0.9,
          # The other form, E[x^2] - E[x]^2, cancels in float32.
          use_fast_variance=False,
          use_scale=False,
          use_bias=False,
          axis_name=self.axis_name,
          name='code_norm',
      )(x)
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

  def encode(self, images: jax.Array, train: bool = False) -> types.Code:
    return latents.split(self.encoder(images, train), self.num_factors)

  def decode(self, code: types.Code) -> jax.Array:
    return self.decoder(latents.merge(code))

  def __call__(self, images: jax.Array) -> jax.Array:
    return self.decode(self.encode(images))


class MlpJudge(nn.Module):
  """The released code's digit classifier: 784-256-256-10, dropout 0.2.

  Images `[B, H, W, C]` in [0, 1] -> logits `[B, num_classes]`.
  """

  num_classes: int
  widths: tuple[int, ...] = (256, 256)
  dropout_rate: float = 0.2

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = images.reshape(images.shape[0], -1)
    for i, features in enumerate(self.widths):
      x = layers.dense(
          x.shape[-1], features, dtype=jnp.float32, name=f'dense_{i}'
      )(x)
      x = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.relu(x))
    return layers.dense(
        x.shape[-1], self.num_classes, dtype=jnp.float32, name='logits'
    )(x)


def init_variables(
    model: nn.Module, seed: int, image_shape: tuple[int, int, int]
) -> types.Variables:
  """Initialises a model.

  Args:
    model: an autoencoder or a judge.
    seed: of the parameters.
    image_shape: (H, W, C) of its input.

  Returns:
    A dict of 'params' and 'batch_stats' (empty where it has none).
  """
  images = jnp.zeros((1, *image_shape))
  # Not as one program: most leaves of a grown model were compiled before.
  variables = model.init(jax.random.key(seed), images)
  return {
      'params': variables['params'],
      'batch_stats': variables.get('batch_stats', {}),
  }


def make_encode(
    model: nn.Module, batch_stats: chex.ArrayTree | None = None
) -> Callable[[types.Params, jax.Array], types.Code]:
  """Makes `encode(params, images) -> Code`, with running statistics.

  Args:
    model: an autoencoder.
    batch_stats: its running statistics, None where it has none.

  Returns:
    A pure function of the parameters and `[B, H, W, C]` images.
  """

  def encode(params: types.Params, images: jax.Array) -> types.Code:
    variables = {'params': params, 'batch_stats': batch_stats or {}}
    return model.apply(variables, images, method='encode')

  return encode


def make_decode(
    model: nn.Module, batch_stats: chex.ArrayTree | None = None
) -> Callable[[types.Params, types.Code], jax.Array]:
  """Makes `decode(params, code) -> images`, with running statistics.

  Args:
    model: an autoencoder.
    batch_stats: its running statistics, None where it has none.

  Returns:
    A pure function of the parameters and a code with `[B, K]` factors.
  """

  def decode(params: types.Params, code: types.Code) -> jax.Array:
    variables = {'params': params, 'batch_stats': batch_stats or {}}
    return model.apply(variables, code, method='decode')

  return decode
