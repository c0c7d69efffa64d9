"""QLAE, a baseline for Section 3: an autoencoder with quantized units.

Hsu et al.: Disentanglement via Latent Quantization. NeurIPS 2023. Each unit
takes one of a few values of its own, and weight decay is strong.
"""

import jax
import jax.numpy as jnp
import optax

from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import losses
from jacsup_jax.models import latents
from jacsup_jax.models import model as models
from jacsup_jax.training import steps

# The released values of a unit before the first step.
_LARGEST_VALUE = 0.5


@models.register
class QuantizedAutoencoder(latents.UnorderedAutoencoder):
  """An autoencoder whose units take the nearest of `num_values` values each.

  They are the third top key of the parameters, `values`, `[code_dim,
  num_values]`, at first evenly spaced.
  """

  num_values: int = 10

  def setup(self):
    """Makes encoder, decoder and the values of the units."""
    super().setup()
    spaced = jnp.linspace(-_LARGEST_VALUE, _LARGEST_VALUE, self.num_values)
    self.values = self.param(
      'values', lambda _: jnp.tile(spaced, (self.code_dim, 1))
    )

  def infer(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns units before and after quantization, both `[B, code_dim]`."""
    raw = self.encoder(images)
    return raw, quantize(raw, self.values)

  def units(self, images: jax.Array) -> jax.Array:
    """Returns the quantized units, in the order of training."""
    return self.infer(images)[1]


def quantize(units: jax.Array, values: jax.Array) -> jax.Array:
  """Returns the nearest value of each unit; of equal ones the first.

  `[B, U]` and `[U, V]` -> `[B, U]`. The gradient reaches the chosen values
  alone, not the units.
  """
  distances = jnp.abs(units[:, :, None] - values[None])
  nearest = jnp.argmin(distances, axis=2)
  return jnp.take_along_axis(values[None], nearest[:, :, None], axis=2)[:, :, 0]


class QlaeSteps(latent_steps.LatentSteps):
  """The steps of the baseline."""

  network = QuantizedAutoencoder
  network_options = {'num_values': 'qlae_values'}

  def objective(self, model, inputs):
    """Computes the reconstruction error and the two distances of quantization.

    Eq. (3) and (4) of Hsu et al., with means over pixels and units: one
    distance moves the values to the units, the other the units to the values.
    The decoder is given the values, and its gradient passes to the encoder
    unchanged.
    """
    raw, quantized = latent_steps.apply(model, 'infer', inputs.images)
    stop = jax.lax.stop_gradient
    units = raw + stop(quantized - raw)
    decoded = latent_steps.apply(model, 'decode_units', units)
    error = jnp.mean(losses.reconstruction_loss(inputs.images, decoded))
    to_units = jnp.mean(jnp.square(quantized - stop(raw)))
    to_values = jnp.mean(jnp.square(raw - stop(quantized)))
    loss = error + self.weights.lambda_qlae * (to_units + to_values)
    terms = {'reconstruction': error, 'quantization': to_units}
    return loss, {'loss': loss, **terms}

  def make_optimizer(self, part: str) -> optax.GradientTransformation:
    """Makes AdamW for encoder and decoder, Adam for the values."""
    decay = 0.0 if part == 'values' else self.weights.qlae_weight_decay
    return optax.chain(
      optax.scale_by_adam(b1=self.optimization.adam_b1),
      optax.add_decayed_weights(decay),
      optax.scale_by_learning_rate(
        steps.make_rate(self.optimization, self.num_steps)
      ),
    )
