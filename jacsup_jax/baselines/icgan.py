"""IcGAN, a baseline for faces: networks, objectives and step.

Perarnau et al.: Invertible Conditional GANs for image editing. NIPS Workshop on
Adversarial Training, 2016. A generator is trained with labels against a
discriminator; one encoder recovers its noise from its images, another the
labels from real images. Published in stages, here trained at once: the encoders
do not reach the generator.
"""

import dataclasses
import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.models import autoencoders
from jacsup_jax.models import layers
from jacsup_jax.models import model as models
from jacsup_jax.training import attribute_steps
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


@dataclasses.dataclass(frozen=True)
class IcganLossWeights(config.Weights):
  """Weights of the terms of IcGAN."""

  lambda_icgan_wrong: float = config.option(
    0.5,
    "Weight, in the loss of IcGAN's discriminator, of real images with wrong"
    ' labels; generated images have one minus this weight.',
    low=0,
    high=1,
  )


class Discriminator(nn.Module):
  """Images `[B, S, S, 3]` and attributes `[B, K]` -> logits `[B]`.

  The hidden layers of a face encoder, down to 4x4 positions, then a dense
  layer. As released, the attributes are constant channels after the first
  layer. A logit is positive if the pair is taken for a real one.
  """

  widths: tuple[int, ...]
  axis_name: str | None
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> jax.Array:
    """Returns the logits."""
    block = functools.partial(
      layers.DownBlock, axis_name=self.axis_name, dtype=self.dtype
    )
    first, *widths = self.widths
    x = block(first, normalize=False, name='down_0')(images, train)
    labels = jnp.broadcast_to(
      attributes[:, None, None].astype(x.dtype),
      (*x.shape[:3], attributes.shape[1]),
    )
    x = jnp.concatenate([x, labels], axis=-1)
    for i, features in enumerate(widths, 1):
      x = block(features, name=f'down_{i}')(x, train)
    x = x.reshape(x.shape[0], -1)
    dtype = jnp.promote_types(self.dtype, jnp.float32)
    return layers.dense(x.shape[-1], 1, dtype=dtype, name='logit')(x)[:, 0]


@models.register
class IcganAutoencoder(autoencoders.FaceMethods):
  """The generator of IcGAN as decoder, and its two encoders.

  The decoder is that of `autoencoders.FaceAutoencoder`, which receives the
  factors at every layer; the released generator, only at the first. The
  parameter tree has four top keys: `decoder`, `encoder` of the nuisance, with
  the prior N(0, 1), `attribute_encoder` of the factors, and `discriminator`.
  """

  factors_are_labels = False

  def setup(self):
    """Makes the four parts."""
    make = lambda features: self.make_parts(features, linear_features=features)
    self.encoder, self.decoder = make(self.nuisance_channels)
    self.attribute_encoder, _ = make(self.num_factors)
    self.discriminator = Discriminator(
      self.encoder.widths, self.axis_name, self.dtype
    )

  def encode_nuisance(
    self, images: jax.Array, train: bool = False
  ) -> jax.Array:
    """Predicts the noise that images are generated from, `[B, 2, 2, C]`."""
    return self.encoder(images, train)

  def encode_factors(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Predicts attributes `[B, K]`, regressed to -1 or +1."""
    return jnp.mean(self.attribute_encoder(images, train), axis=(1, 2))

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    """Applies both encoders."""
    nuisance = self.encode_nuisance(images, train)
    return codes.Code(self.encode_factors(images, train), nuisance)

  def discriminate(
    self, images: jax.Array, attributes: jax.Array, train: bool = False
  ) -> jax.Array:
    """Returns the logits of `Discriminator`."""
    chex.assert_shape(attributes, (images.shape[0], self.num_factors))
    return self.discriminator(images, attributes, train)

  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies all parts."""
    code = self.encode(images)
    return self.decode(code), self.discriminate(images, code.factors)


def discriminator_loss(
  real: jax.Array,
  wrong: jax.Array,
  generated: jax.Array,
  wrong_weight: float | jax.Array,
  generated_weight: float | jax.Array,
) -> jax.Array:
  """Computes the cross-entropy of pairs of images and attributes, in nats.

  -log D(x, y) - a log(1 - D(x, y_j)) - b log(1 - D(G(z, y), y)). The second
  term, of images with the attributes of others, is in the released code alone.

  Args:
    real: `[B]`, logits of D(x, y).
    wrong: `[B]`, of D(x, y_j).
    generated: `[B]`, of D(G(z, y), y).
    wrong_weight: a, scalar or `[B]`.
    generated_weight: b, scalar.

  Returns:
    `[B]`.
  """
  chex.assert_rank([real, wrong, generated], 1)
  chex.assert_equal_shape([real, wrong, generated])
  # log(1 + exp(x)), which does not overflow.
  real, wrong, generated = map(jax.nn.softplus, (-real, wrong, generated))
  return real + wrong_weight * wrong + generated_weight * generated


def generator_loss(generated: jax.Array) -> jax.Array:
  """Computes -log D(G(z, y), y), which does not saturate, of `[B]` logits."""
  return jax.nn.softplus(-generated)


def discriminator_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  generated: jax.Array,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: IcganLossWeights,
) -> objectives.Result:
  """Computes the discriminator's loss of real and of `generated` images.

  The latter, constants here, have the attributes of the real ones. BatchNorm
  sees one kind of pair at a time.
  """
  right = inputs.attributes
  wrong = codes.take_partners(right, inputs.permutations[0], module.axis_name)
  logits = []
  for images, attributes in (
    (inputs.images, right),
    (inputs.images, wrong),
    (jax.lax.stop_gradient(generated), right),
  ):
    each, batch_stats = models.apply_train(
      module, params, batch_stats, 'discriminate', images, attributes
    )
    logits.append(each)
  weight = weights.lambda_icgan_wrong
  # A partner's labels may be the same, and so are not wrong.
  differs = jnp.any(wrong != right, axis=1).astype(right.dtype)
  loss = jnp.mean(discriminator_loss(*logits, weight * differs, 1 - weight))
  return loss, ({'discriminator': loss}, batch_stats)


def autoencoder_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  generated: jax.Array,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
) -> objectives.Result:
  """Computes the loss of the generator and the errors of the encoders.

  Errors are mean squares: of the noise of `generated` images, which are
  constants to the encoder, and of the attributes of real ones. The gradient
  with respect to `generated` is the generator's loss's alone.
  """
  apply = functools.partial(models.apply_train, module, params)
  logits, _ = apply(batch_stats, 'discriminate', generated, inputs.attributes)
  nuisance, batch_stats = apply(
    batch_stats, 'encode_nuisance', jax.lax.stop_gradient(generated)
  )
  factors, batch_stats = apply(batch_stats, 'encode_factors', inputs.images)
  terms = {
    'generator': jnp.mean(generator_loss(logits)),
    'nuisance_error': jnp.mean(jnp.square(inputs.noise - nuisance)),
    'factor_error': jnp.mean(jnp.square(inputs.attributes - factors)),
  }
  loss = sum(terms.values())
  return loss, ({'loss': loss, **terms}, batch_stats)


def train_step(
  state: steps.TrainState,
  inputs: objectives.Inputs,
  *,
  module: nn.Module,
  weights: IcganLossWeights,
  optimizer: optax.GradientTransformation,
) -> tuple[steps.TrainState, codes.Metrics]:
  """Takes one step: the discriminator's update, then that of all others."""
  average = functools.partial(steps.average_over, axis_name=module.axis_name)
  bind = lambda parts: {**state.params, **parts}
  take = lambda *parts: {part: state.params[part] for part in parts}
  code = codes.Code(inputs.attributes, inputs.noise)
  # Once for both updates: the first leaves the generator unchanged.
  generated, pull_back, batch_stats = jax.vjp(
    lambda parts: models.apply_train(
      module, bind(parts), state.batch_stats, 'decode', code
    ),
    take('decoder'),
    has_aux=True,
  )
  grads, (discriminated, batch_stats) = jax.grad(
    lambda parts: discriminator_objective(
      bind(parts),
      batch_stats,
      generated,
      inputs,
      module=module,
      weights=weights,
    ),
    has_aux=True,
  )(take('discriminator'))
  state = steps.apply_gradients(state, average(grads), optimizer)
  (grads, image_grads), (metrics, batch_stats) = jax.grad(
    lambda parts, generated: autoencoder_objective(
      bind(parts), batch_stats, generated, inputs, module=module
    ),
    argnums=(0, 1),
    has_aux=True,
  )(take('encoder', 'attribute_encoder'), generated)
  (decoder_grads,) = pull_back(image_grads)
  grads = average({**grads, **decoder_grads})
  state = steps.apply_gradients(state, grads, optimizer)
  state = state._replace(step=state.step + 1, batch_stats=batch_stats)
  return state, average({**metrics, **discriminated})


class IcganSteps(attribute_steps.FaceSteps):
  """The steps of the baseline, of the same data as those of Section 4."""

  network = IcganAutoencoder
  # The released code's for its GAN; its encoders have 1e-4 and 0.1.
  learning_rate, adam_b1 = 2e-4, 0.5
  train_step = staticmethod(train_step)

  def draw(self, step, inputs, constants, shard):
    """Adds the generator's noise, and whose labels are the wrong ones."""
    seed, size = constants.seed, self.batch_size
    shape = (size, 2, 2, self.module.nuisance_channels)
    [partners] = batches.step_permutations(seed, step, size, 1)
    return inputs._replace(
      noise=shard(batches.step_noise(seed, step, shape)),
      permutations=shard(partners)[jnp.newaxis],
    )
