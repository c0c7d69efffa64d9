"""An autoencoder with a class output, a labelled baseline for Section 3.

Cheung et al.: Discovering Hidden Factors of Variation in Deep Networks. ICLR
Workshop 2015 (arXiv:1412.6583). Its factors are the probabilities of the
classes, and a cross-covariance keeps them out of the nuisance.
"""

import jax
import jax.numpy as jnp
import optax

from jacsup_jax.baselines import latent_steps
from jacsup_jax.core import codes
from jacsup_jax.core import losses
from jacsup_jax.models import latents
from jacsup_jax.models import model as models


@models.register
class ClassAutoencoder(latents.RivalAutoencoder):
  """An autoencoder whose factors are probabilities, one for each class.

  They are predicted from the image: labels are needed for training alone.
  """

  def infer(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns logits of the classes `[B, k]`, and the nuisance `[B, d]`."""
    logits, nuisance = codes.split(self.encoder(images), self.num_factors)
    return logits, nuisance

  def encode(self, images: jax.Array, train: bool = False) -> codes.Code:
    """Returns probabilities of the classes, and the nuisance."""
    logits, nuisance = self.infer(images)
    return codes.Code(jax.nn.softmax(logits), nuisance)


class ClassXcovSteps(latent_steps.LatentSteps):
  """The steps of the baseline."""

  network = ClassAutoencoder

  def objective(self, model, inputs):
    """Computes squared error, cross-entropy of classes and cross-covariance.

    Eq. (5) of Cheung et al.: the error is summed over pixels, the cross-entropy
    in nats, and the cross-covariance half of `losses.cross_covariance_loss`.
    """
    logits, nuisance = latent_steps.apply(model, 'infer', inputs.images)
    code = codes.Code(jax.nn.softmax(logits), nuisance)
    error = jnp.mean(
      losses.reconstruction_loss(inputs.images, model.decode(code))
    )
    entropy = jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(logits, inputs.labels)
    )
    covariance = losses.cross_covariance_loss(
      *code, axis_name=model.module.axis_name
    )
    loss = inputs.images[0].size * error + self.weights.lambda_class * entropy
    loss += self.weights.lambda_class_xcov * 0.5 * covariance
    terms = {
      'reconstruction': error,
      'class_cross_entropy': entropy,
      'cross_covariance': covariance,
    }
    return loss, {'loss': loss, **terms}
