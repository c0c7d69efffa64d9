"""Train teachers and students in memory, without a work directory."""

from collections.abc import Callable
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models
from jacsup_jax.training import discovery
from jacsup_jax.training import objectives
from jacsup_jax.training import steps


def fit_teacher(
  data: registry.Dataset,
  num_factors: int = 2,
  epochs: int = 10,
  *,
  seed: int = 0,
  module: nn.Module | None = None,
  flags: discovery.DiscoveryConfig = discovery.DiscoveryConfig(),
) -> steps.Trained:
  """Trains a first teacher, an autoencoder whose whole code are k factors.

  By default `module` is the paper's for digits, for the shape of the images; it
  has no nuisance. `flags` are everything else, e.g. optimizer and batch size.
  """
  if module is None:
    module = autoencoders.MlpAutoencoder(
      num_factors, 0, normalize_code=True, image_shape=data.image_shape
    )
  stage = config.Stage(
    'teacher', 'teacher', None, 0, epochs, flags.weights, seed=seed
  )
  return _fit(stage, module, data, {}, flags)


def fit_student(
  parent: steps.Trained,
  data: registry.Dataset,
  grow_by: int = 1,
  epochs: int = 10,
  *,
  weights: config.LossWeights | None = None,
  flags: discovery.DiscoveryConfig = discovery.DiscoveryConfig(),
) -> steps.Trained:
  """Grows a student by `grow_by` units and trains it, its parent supervising.

  Its factors are those of the first teacher. `weights` of the objective are by
  default those of `flags`, as everything else, e.g. optimizer and batch size.
  """
  module = parent.module.clone(
    nuisance_dim=parent.module.nuisance_dim + grow_by, normalize_code=False
  )
  above, dim = parent.stage, module.nuisance_dim
  name, weights = f'student_d{dim:02d}', weights or flags.weights
  stage = config.Stage(
    name, 'student', above.name, dim, epochs, weights, seed=above.seed
  )
  return _fit(stage, module, data, {above.name: parent}, flags)


def student_objective(
  model: models.Model,
  teacher: models.Model,
  weights: config.LossWeights = config.LossWeights(),
) -> Callable[[codes.Params, jax.Array, jax.Array], jax.Array]:
  """Makes a student's objective as a pure function of its parameters.

  It is `(params, images, permutation) -> loss`, of `[B, H, W, C]` uint8 images,
  or floats in the range of the model, and `[B]` (or `[n, B]`) partners. The
  student's first units correspond to the teacher's whole code.
  """
  teacher_module = discovery.as_teacher(teacher.module)
  teacher = dataclasses.replace(teacher, module=teacher_module)
  module = discovery.as_student(model.module, teacher_module)

  def objective(params, images, permutation):
    images = models.to_range(images, model.image_range)
    permutations = jnp.atleast_2d(permutation)
    outputs = objectives.compute_teacher_outputs(
      teacher.encode, teacher.decode, images, permutations, weights.supervision
    )
    outputs = outputs._replace(variables=teacher.variables)
    inputs = objectives.Inputs(images, permutations, outputs)
    loss, _ = objectives.student_objective(
      params,
      model.batch_stats,
      inputs,
      module=module,
      weights=weights,
      teacher_module=teacher_module,
    )
    return loss

  return objective


def _fit(stage, module, data, trained, flags):
  images = jnp.asarray(data.images)
  recipe = discovery.Discovery(flags, lambda *_: module, images)
  module, state = recipe.create(stage, trained)
  epoch_fn = recipe.make_epoch(stage, module, trained)
  first = int(state.step) // recipe.steps_per_epoch
  for epoch in range(first, first + stage.epochs):
    state, _ = epoch_fn(state, epoch)
  state = jax.device_get(state)
  return steps.Trained(stage, module, state, codes.hash_tree(state.params))
