"""Train teachers and students in memory, without a work directory."""

from collections.abc import Callable, Mapping
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
  return _fit(stage, lambda *_: module, data, {}, flags)


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
  stage = config.Stage(
    f'student_d{module.nuisance_dim:02d}',
    'student',
    parent.stage.name,
    module.nuisance_dim,
    epochs,
    weights or flags.weights,
    seed=parent.stage.seed,
  )
  trained = {parent.stage.name: parent}
  return _fit(stage, lambda *_: module, data, trained, flags)


def student_objective(
  model: models.Model,
  teacher: models.Model,
  weights: config.LossWeights = config.LossWeights(),
) -> Callable[[codes.Params, jax.Array, jax.Array], jax.Array]:
  """Makes a student's objective as a pure function of its parameters.

  The student's first units correspond to the teacher's whole code.

  Returns:
    `(params, images, permutation) -> loss`, for `[B, H, W, C]` uint8 images, or
    floats in the range of the model, and `[B]` (or `[n, B]`) partners.
  """
  teacher_module = discovery.as_teacher(teacher.module)
  teacher = dataclasses.replace(teacher, module=teacher_module)
  num_factors = teacher_module.code_dim
  module = model.module.clone(
    num_factors=num_factors, nuisance_dim=model.module.code_dim - num_factors
  )

  def objective(params, images, permutation):
    images = models.to_range(images, model.image_range)
    permutations = jnp.atleast_2d(permutation)
    outputs = objectives.compute_teacher_outputs(
      teacher.encode, teacher.decode, images, permutations, weights.supervision
    )
    if weights.lambda_check:
      outputs = outputs._replace(
        partner_factors=outputs.factors[permutations[0]],
        variables=teacher.variables,
      )
    loss, _ = objectives.student_objective(
      params,
      model.batch_stats,
      objectives.Inputs(images, permutations, outputs),
      module=module,
      weights=weights,
      teacher_module=teacher_module,
    )
    return loss

  return objective


def _fit(
  stage: config.Stage,
  make_model: discovery.MakeModel,
  data: registry.Dataset,
  trained: Mapping[str, steps.Trained],
  flags: discovery.DiscoveryConfig,
) -> steps.Trained:
  recipe = discovery.Discovery(flags, make_model, jnp.asarray(data.images))
  module, state = recipe.create(stage, trained)
  epoch_fn = recipe.make_epoch(stage, module, trained)
  first = int(state.step) // recipe.steps_per_epoch
  for epoch in range(first, first + stage.epochs):
    state, _ = epoch_fn(state, epoch)
  state = jax.device_get(state)
  return steps.Trained(stage, module, state, codes.hash_tree(state.params))
