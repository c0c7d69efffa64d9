"""FactorVAE, a baseline for Section 3: a discriminator of dependent units.

Kim & Mnih: Disentangling by Factorising. ICML 2018.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from jacsup_jax.baselines import field
from jacsup_jax.baselines import gaussian
from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.models import layers
from jacsup_jax.models import model as models

_HIDDEN_LAYERS = 5
# Those of the publication.
_LEARNING_RATE, _ADAM_B1, _ADAM_B2 = 1e-4, 0.5, 0.9


class Discriminator(nn.Module):
  """Units `[B, U]` -> logits `[B]`, positive for codes of images.

  Five hidden layers with LeakyReLU of slope 0.2. The logit is the difference of
  the two that were published.
  """

  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, units: jax.Array) -> jax.Array:
    """Returns the logits."""
    x = units
    for i in range(_HIDDEN_LAYERS):
      x = layers.dense(
        x.shape[-1], self.width, dtype=self.dtype, name=f'dense_{i}'
      )(x)
      x = layers.leaky_relu(x)
    return layers.dense(self.width, 1, dtype=self.dtype, name='logit')(x)[:, 0]


@models.register
class FactorAutoencoder(gaussian.GaussianAutoencoder):
  """A Gaussian VAE with a third top key of parameters, `discriminator`."""

  discriminator_width: int = 1000

  def setup(self):
    """Makes the three parts."""
    super().setup()
    self.discriminator = Discriminator(
      self.discriminator_width,
      # As the code, which is not rounded below float32.
      jnp.promote_types(self.dtype, jnp.float32),
    )

  def discriminate(self, units: jax.Array) -> jax.Array:
    """Returns the logits of `Discriminator`."""
    return self.discriminator(units)

  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies all parts."""
    units = self.units(images)
    return self.decode_units(units), self.discriminate(units)


def permute_units(
  units: jax.Array, permutations: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Gives every unit of each code the value of another example's.

  Algorithm 1. Codes `[B, U]` and a permutation of the batch for each unit,
  `[U, B]` int -> `[B, U]`. With `axis_name` permutations count over the
  examples of all devices.
  """
  if axis_name is not None:
    units = jax.lax.all_gather(units, axis_name, tiled=True)
  return jnp.take_along_axis(units, permutations.T, axis=0)


def discriminator_loss(real: jax.Array, permuted: jax.Array) -> jax.Array:
  """Computes the cross-entropy of codes and permuted codes, in nats.

  Half of -log D(z) - log(1 - D(z')), Algorithm 2. `[B]` logits each -> `[B]`.
  """
  # log(1 + exp(x)), which does not overflow.
  return 0.5 * (jax.nn.softplus(-real) + jax.nn.softplus(permuted))


def objective(
  model: models.Model,
  inputs: latent_steps.Inputs,
  weights: field.FactorVaeWeights,
) -> tuple[jax.Array, codes.Metrics]:
  """Computes the negative lower bound plus gamma total correlations.

  Eq. (2); the total correlation, by eq. (3), is the mean logit of the
  discriminator on samples, log D(z) / (1 - D(z)).
  """
  sample, nats, terms = gaussian.lower_bound_terms(
    model, inputs, weights.likelihood
  )
  logits = latent_steps.apply(model, 'discriminate', sample.units)
  correlation = jnp.mean(logits)
  loss = nats + terms['divergence'] + weights.lambda_factor_vae * correlation
  return loss, {'loss': loss, **terms, 'total_correlation': correlation}


def discriminator_objective(
  model: models.Model, inputs: latent_steps.Inputs
) -> tuple[jax.Array, codes.Metrics]:
  """Computes the discriminator's loss of codes and of permuted codes.

  The codes are constants here, so that no gradient reaches the encoder; those
  that are permuted are of a second batch.
  """
  own = gaussian.draw_sample(model, inputs.images, inputs.noise).units
  others = gaussian.draw_sample(model, inputs.others, inputs.other_noise).units
  own, others = jax.lax.stop_gradient((own, others))
  others = permute_units(others, inputs.permutations, model.module.axis_name)
  real, permuted = (
    latent_steps.apply(model, 'discriminate', units) for units in (own, others)
  )
  loss = jnp.mean(discriminator_loss(real, permuted))
  return loss, {'discriminator': loss}


class FactorVaeSteps(gaussian.GaussianSteps):
  """The steps of the baseline: both updates are from the same parameters."""

  network = FactorAutoencoder
  network_options = {'discriminator_width': 'factor_vae_width'}

  def draw(self, inputs, data, shard):
    """Adds a second batch, noise for both, and a permutation for each unit."""
    seed, step, size = data.seed, inputs.step, self.batch_size
    units = self.module.code_dim
    noise = shard(batches.step_noise(seed, step, (size, 2, units)))
    rows = shard(batches.step_rows(seed, step, size, self.num_examples))
    drawn = batches.step_permutations(seed, step, size, units)
    return inputs._replace(
      noise=noise[:, 0],
      other_noise=noise[:, 1],
      others=batches.to_float(jnp.take(data.images, rows, axis=0)),
      permutations=jnp.stack([shard(row) for row in drawn]),
    )

  def train_step(self, state, inputs):
    """Updates the VAE by its objective, the discriminator by its own alone."""
    model = self.bind(state)
    grads, metrics = latent_steps.differentiate(
      lambda *args: objective(*args, self.weights),
      model,
      inputs,
      ['encoder', 'decoder'],
    )
    own, discriminated = latent_steps.differentiate(
      discriminator_objective, model, inputs, ['discriminator']
    )
    return self.update(state, {**grads, **own}, {**metrics, **discriminated})

  def make_optimizer(self, part: str) -> optax.GradientTransformation:
    """Makes the optimizer of a part; the discriminator's is the published."""
    if part != 'discriminator':
      return super().make_optimizer(part)
    return optax.adam(_LEARNING_RATE, _ADAM_B1, _ADAM_B2)
