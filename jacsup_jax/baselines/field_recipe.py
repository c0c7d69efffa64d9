"""The recipe of the baselines of Section 3: how their stages are trained."""

from flax import linen as nn
import jax.numpy as jnp

from jacsup_jax.baselines import annealed_vae
from jacsup_jax.baselines import beta_vae
from jacsup_jax.baselines import class_xcov
from jacsup_jax.baselines import factor_vae
from jacsup_jax.baselines import field
from jacsup_jax.baselines import latent_steps
from jacsup_jax.baselines import mixing
from jacsup_jax.baselines import qlae
from jacsup_jax.baselines import tcvae
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.training import chains
from jacsup_jax.training import devices
from jacsup_jax.training import discovery
from jacsup_jax.training import loop
from jacsup_jax.training import steps

METHODS = {
  field.BetaVaeWeights: beta_vae.BetaVaeSteps,
  field.AnnealedVaeWeights: annealed_vae.AnnealedVaeSteps,
  field.TcVaeWeights: tcvae.TcVaeSteps,
  field.FactorVaeWeights: factor_vae.FactorVaeSteps,
  field.QlaeWeights: qlae.QlaeSteps,
  field.ClassXcovWeights: class_xcov.ClassXcovSteps,
  field.MixingWeights: mixing.MixingSteps,
}


class Field:
  """The recipe of the baselines, on the networks that our students have."""

  def __init__(
    self,
    chain: discovery.DiscoveryConfig,
    learning_rate: float,
    make_model: discovery.MakeModel,
    dataset: registry.Dataset,
  ):
    """Keeps what stages are made from; `dataset` has classes."""
    self._optimization = config.Optimization(
      learning_rate=learning_rate,
      learning_rate_schedule=chain.optimization.learning_rate_schedule,
      weight_decay=0.0,
    )
    self._parallel = chain.parallel
    # Its networks are the baselines'.
    self._student = make_model(chain.num_factors, chain.nuisance_dim, False)
    self._dataset = dataset
    self.batch_size = chain.batch_size
    self.steps_per_epoch = batches.count_steps(len(dataset), chain.batch_size)

  def create(self, stage, trained) -> tuple[nn.Module, steps.TrainState]:
    """Returns a stage's module and its state before the first step."""
    del trained
    own, like = METHODS[type(stage.weights)], self._student
    module = own.network(
      num_factors=like.code_dim - stage.nuisance_dim,
      nuisance_dim=stage.nuisance_dim,
      image_shape=like.image_shape,
      widths=like.widths,
      is_convolutional=isinstance(like, autoencoders.SvhnAutoencoder),
      dtype=like.dtype,
      **{
        name: getattr(stage.weights, weight)
        for name, weight in own.network_options.items()
      },
    )
    variables = autoencoders.init_variables(module, stage.seed)
    return module, self.make_steps(stage, module).create_train_state(variables)

  def make_epoch(self, stage, module, trained) -> loop.Epoch:
    """Makes the compiled epoch of a stage."""
    del trained
    compiled = devices.compile_epoch(
      self._parallel, self.batch_size, self.make_steps(stage, module)
    )
    images, labels = self._dataset.images, self._dataset.labels
    data = latent_steps.LatentData(
      jnp.asarray(images), jnp.asarray(labels), jnp.asarray(stage.seed)
    )
    shape = (self.batch_size, *self._dataset.image_shape)
    return chains.make_epoch(
      compiled,
      devices.replicate(data),
      stage.seed,
      len(self._dataset),
      shape,
    )

  def make_steps(self, stage, module) -> latent_steps.LatentSteps:
    """Makes the steps of a stage."""
    return METHODS[type(stage.weights)](
      module.clone(axis_name=devices.axis_name(self._parallel)),
      stage.weights,
      self._optimization,
      self.batch_size,
      stage.epochs * self.steps_per_epoch,
      len(self._dataset),
    )
