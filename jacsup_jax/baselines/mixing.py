"""An autoencoder that mixes chunks of codes, a baseline for Section 3.

Hu et al.: Disentangling Factors of Variation by Mixing Them. CVPR 2018. A code
is a row of chunks. Chunks of two images are mixed at random and decoded; a
discriminator asks for a real image, a classifier must tell from which image
each chunk came, and the encoded mixture must give both images back.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import codes
from jacsup_jax.core import losses
from jacsup_jax.data import batches
from jacsup_jax.models import latents
from jacsup_jax.models import model as models
from jacsup_jax.training import steps

# As in the released discriminator and classifier.
_ADAM_B1 = 0.5


@models.register
class MixingAutoencoder(latents.UnorderedAutoencoder):
  """An autoencoder whose code is `code_dim / k` chunks of k units.

  Its factors are a chunk. The parameter tree has two more top keys:
  `discriminator`, of an image, and `classifier`, of two images and their
  mixture side by side; both are networks like the encoder.
  """

  def setup(self):
    """Makes the four parts."""
    super().setup()
    self.discriminator = self.make_encoder(1)
    self.classifier = self.make_encoder(self.num_chunks, images=3)

  @property
  def num_chunks(self) -> int:
    """Number of chunks."""
    return self.code_dim // self.num_factors

  def unit_groups(self) -> list[tuple[int, ...]]:
    """Lists the units of each chunk."""
    size = self.num_factors
    return [
      tuple(range(i * size, (i + 1) * size)) for i in range(self.num_chunks)
    ]

  def discriminate(self, images: jax.Array) -> jax.Array:
    """Returns logits `[B]`, positive for real images."""
    return self.discriminator(images)[:, 0]

  def classify(
    self, images: jax.Array, partners: jax.Array, mixed: jax.Array
  ) -> jax.Array:
    """Returns logits `[B, num_chunks]`, positive for chunks of `images`."""
    return self.classifier(jnp.concatenate([images, partners, mixed], axis=-1))

  def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
    """Applies all parts."""
    decoded = self.decode_units(self.units(images))
    classes = self.classify(images, images, decoded)
    return decoded, self.discriminate(decoded), classes


def mix(
  units: jax.Array, partner_units: jax.Array, mask: jax.Array
) -> jax.Array:
  """Takes chunks of `units` where the mask is set, of the partners elsewhere.

  `[B, U]` each, and `[B, n]` bool of n chunks of U / n units -> `[B, U]`.
  """
  size = units.shape[1] // mask.shape[1]
  return jnp.where(jnp.repeat(mask, size, axis=1), units, partner_units)


def mixture_objective(
  model: models.Model,
  inputs: latent_steps.Inputs,
  weights: field.MixingWeights,
) -> tuple[jax.Array, codes.Metrics]:
  """Computes the loss of encoder, decoder and classifier.

  The released code's, over 20: the error of an image, half that of the image
  decoded after unmixing, and 1/20 each of the cross-entropy of the classifier
  and of -log D of the mixture. Unmixing gives an image's own code those chunks
  of the encoded mixture that came from it. Means over pixels and chunks, in
  nats.
  """
  images, axis_name = inputs.images, model.module.axis_name
  [partner] = inputs.permutations
  call = lambda method, *args: latent_steps.apply(model, method, *args)
  units = call('units', images)
  mixed = call(
    'decode_units',
    mix(units, codes.take_partners(units, partner, axis_name), inputs.mask),
  )
  unmixed = call('decode_units', mix(call('units', mixed), units, inputs.mask))
  partners = codes.take_partners(images, partner, axis_name)
  logits = call('classify', images, partners, mixed)
  error = lambda decoded: jnp.mean(losses.reconstruction_loss(images, decoded))
  terms = {
    'reconstruction': error(call('decode_units', units)),
    'unmixing': error(unmixed),
    'chunk_cross_entropy': jnp.mean(
      optax.sigmoid_binary_cross_entropy(logits, inputs.mask)
    ),
    'adversarial': jnp.mean(jax.nn.softplus(-call('discriminate', mixed))),
  }
  loss = terms['reconstruction'] + weights.lambda_unmixing * terms['unmixing']
  loss += weights.lambda_mixing * (
    terms['chunk_cross_entropy'] + terms['adversarial']
  )
  return loss, {'loss': loss, **terms}


def discriminator_objective(
  model: models.Model, inputs: latent_steps.Inputs
) -> tuple[jax.Array, codes.Metrics]:
  """Computes -log D(x) - log(1 - D(x')) of images and mixtures, in nats.

  Mixtures are constants here.
  """
  [partner] = inputs.permutations
  call = lambda method, *args: latent_steps.apply(model, method, *args)
  units = call('units', inputs.images)
  partners = codes.take_partners(units, partner, model.module.axis_name)
  mixed = call('decode_units', mix(units, partners, inputs.mask))
  real = call('discriminate', inputs.images)
  drawn = call('discriminate', jax.lax.stop_gradient(mixed))
  loss = jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(drawn))
  return loss, {'discriminator': loss}


class MixingSteps(latent_steps.LatentSteps):
  """The steps of the baseline: both updates are from the same parameters."""

  network = MixingAutoencoder

  def draw(self, inputs, data, shard):
    """Adds the partner of each image, and which chunks are its own."""
    place = data.seed, inputs.step, self.batch_size
    drawn = batches.step_permutations(*place, 1)
    mask = batches.step_masks(*place, self.module.num_chunks)
    return inputs._replace(
      permutations=jnp.stack([shard(row) for row in drawn]), mask=shard(mask)
    )

  def train_step(self, state, inputs):
    """Updates the discriminator by its objective, all else by the other."""
    model = self.bind(state)
    grads, metrics = latent_steps.differentiate(
      lambda *args: mixture_objective(*args, self.weights),
      model,
      inputs,
      ['encoder', 'decoder', 'classifier'],
    )
    own, discriminated = latent_steps.differentiate(
      discriminator_objective, model, inputs, ['discriminator']
    )
    return self.update(state, {**grads, **own}, {**metrics, **discriminated})

  def make_optimizer(self, part: str) -> optax.GradientTransformation:
    """Makes the optimizer of a part; those that classify have another b1."""
    if part in ('encoder', 'decoder'):
      return super().make_optimizer(part)
    own = dataclasses.replace(self.optimization, adam_b1=_ADAM_B1)
    return steps.make_optimizer(own, self.num_steps)
