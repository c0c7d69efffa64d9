"""What is minimised for facial attributes: Section 4 of Lezama (2019).

Each returns `(loss, (metrics, batch_stats))` for `jax.value_and_grad(...,
has_aux=True)`. Metrics are the unweighted terms and `loss`, their weighted sum.

Models are in training mode: they normalise with the statistics of the batch,
those of real and of swapped codes apart. Running statistics, which a model is
evaluated with, follow the real ones alone.
"""

from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import changes
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import losses
from jacsup_jax.models import autoencoders
from jacsup_jax.training import objectives

# Term -> the field of `AttributeLossWeights` that weighs it.
_WEIGHTS = {
    'reconstruction': 'lambda_reconstruction',
    'attribute_hinge': 'lambda_prediction',
    'cross_covariance': 'lambda_xcov',
    'attribute_cycle': 'lambda_attribute_cycle',
    'nuisance_cycle': 'lambda_nuisance_cycle',
    'factor_matching': 'lambda_y',
    'jacobian': 'lambda_diff',
}


def teacher_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    images: jax.Array,
    attributes: jax.Array,
    *,
    model: nn.Module,
    weights: config.AttributeLossWeights,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes L_1 of Section 4.2.1, of equations (8), (11) and (10).

  Also the objective of a student without Jacobian supervision.

  Args:
    params: of the model.
    batch_stats: its running statistics, updated in the second return value.
    images: `[B, S, S, 3]` in [-1, 1].
    attributes: `[B, K]`, labels in {-1, +1}.
    model: a face autoencoder.
    weights: of the terms.

  Returns:
    Scalar loss, and metrics with the new batch statistics.
  """
  real = _autoencode(model, params, batch_stats, images)
  terms = _compute_terms(real, images, attributes, model, weights)
  return _weigh(terms, real.batch_stats, weights)


def student_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    images: jax.Array,
    attributes: jax.Array,
    teacher: codes.TeacherOutputs,
    permutation: jax.Array,
    *,
    model: nn.Module,
    weights: config.AttributeLossWeights,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes a student's objective: that of a teacher, and eq. (9).

  Args:
    params: of the student.
    batch_stats: its running statistics, updated in the second return value.
    images: `[B, S, S, 3]` in [-1, 1].
    attributes: `[B, K]`, labels in {-1, +1}.
    teacher: `objectives.compute_teacher_outputs` of the same images and
      permutation.
    permutation: `[B]` int, the partner j of each example.
    model: of the student.
    weights: of the terms.

  Returns:
    Scalar loss, and metrics with the new batch statistics.
  """
  real = _autoencode(model, params, batch_stats, images)
  terms = _compute_terms(real, images, attributes, model, weights)
  decode = lambda code: _decode(model, params, batch_stats, code)[0]
  if teacher.changes is None:
    swapped = codes.swap_factors(real.code, permutation, model.axis_name)
    swapped_images = decode(swapped)
  else:
    # Derivatives in training mode, too: those of the whole batch moving.
    _, changed = objectives.compute_changes(
        decode, real.code, permutation, weights.supervision, model.axis_name
    )
  terms['factor_matching'] = jnp.mean(
      losses.factor_matching_loss(real.code.factors, teacher.factors)
  )
  if teacher.changes is None:
    jacobian_loss = losses.jacobian_loss(
        real.images, swapped_images, teacher.images, teacher.swapped_images
    )
  else:
    jacobian_loss = changes.compare(changed, teacher.changes)
  terms['jacobian'] = jnp.mean(jacobian_loss)
  return _weigh(terms, real.batch_stats, weights)


def cycle_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    images: jax.Array,
    permutation: jax.Array,
    *,
    model: nn.Module,
    weights: config.AttributeLossWeights,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes L_2 of Section 4.2.1: lambda_4 (12) + lambda_5 (13).

  An image decoded from one image's nuisance and another's factors is encoded
  again. The encoder is frozen, or both could agree on a code hidden in the
  image: no gradient reaches it, through neither of its passes.

  Args:
    params: of the model.
    batch_stats: its running statistics, which stay as they are.
    images: `[B, S, S, 3]` in [-1, 1].
    permutation: `[B]` int, the partner j of each example.
    model: a face autoencoder.
    weights: of the terms.

  Returns:
    Scalar loss, and metrics with the batch statistics as they were.
  """
  params = {**params, 'encoder': jax.lax.stop_gradient(params['encoder'])}
  code, _ = _encode(model, params, batch_stats, images)
  swapped = codes.swap_factors(code, permutation, model.axis_name)
  swapped_images, _ = _decode(model, params, batch_stats, swapped)
  cycled, _ = _encode(model, params, batch_stats, swapped_images)
  terms = {
      'attribute_cycle': jnp.mean(
          losses.attribute_cycle_loss(swapped.factors, cycled.factors)
      ),
      'nuisance_cycle': jnp.mean(
          losses.nuisance_cycle_loss(code.nuisance, cycled.nuisance)
      ),
  }
  return _weigh(terms, batch_stats, weights)


class _Real(NamedTuple):
  """What a model makes of real images."""

  code: codes.Code
  images: jax.Array  # [B, S, S, 3]
  batch_stats: chex.ArrayTree


def _autoencode(model, params, batch_stats, images):
  code, batch_stats = _encode(model, params, batch_stats, images)
  reconstructions, batch_stats = _decode(model, params, batch_stats, code)
  return _Real(code, reconstructions, batch_stats)


def _encode(model, params, batch_stats, images):
  return autoencoders.apply_in_training(
      model, params, batch_stats, 'encode', images
  )


def _decode(model, params, batch_stats, code):
  return autoencoders.apply_in_training(
      model, params, batch_stats, 'decode', code
  )


def _compute_terms(real, images, attributes, model, weights):
  """Computes the terms of real images, unweighted."""
  return {
      'reconstruction': jnp.mean(
          losses.reconstruction_loss(images, real.images)
      ),
      'attribute_hinge': jnp.mean(
          losses.attribute_hinge_loss(real.code.factors, attributes)
      ),
      'cross_covariance': losses.cross_covariance_loss(
          *real.code,
          squared=weights.squared_xcov,
          axis_name=model.axis_name,
      ),
  }


def _weigh(terms, batch_stats, weights):
  loss = sum(
      getattr(weights, _WEIGHTS[name]) * term for name, term in terms.items()
  )
  return loss, ({'loss': loss, **terms}, batch_stats)
