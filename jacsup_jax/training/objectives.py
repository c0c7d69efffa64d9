"""What is minimised: sums of losses, as functions of the parameters.

Each returns `(loss, (metrics, batch_stats))` for `jax.value_and_grad(...,
has_aux=True)`. Metrics are the unweighted terms and `loss`, their weighted sum.
"""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import changes
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import jacobian
from jacsup_jax.core import losses
from jacsup_jax.core import regularizers


def compute_teacher_outputs(
    encode: codes.EncodeFn,
    decode: codes.DecodeFn,
    images: jax.Array,
    permutation: jax.Array,
    axis_name: str | None = None,
    supervision: config.Supervision = config.Supervision(),
) -> codes.TeacherOutputs:
  """Applies a teacher to a batch and to its swap.

  Where the teacher has no nuisance units, as in the unsupervised chain whose
  every teacher hands on its whole code as factors, D^T(y_j) is the image of the
  partner and needs no second pass.

  Args:
    encode: the teacher's, `[B, H, W, C] -> Code`.
    decode: the teacher's, `Code -> [B, H, W, C]`.
    images: `[B, H, W, C]`.
    permutation: `[B]` int, the partner j of each example.
    axis_name: of the mapped axis that the batch is spread over, if any.
    supervision: how its Jacobian is compared; not by a history.

  Returns:
    TeacherOutputs, stopped.
  """
  code = encode(images)
  if not supervision.is_one_swap:
    targets = changes.make_targets(
        code.factors, permutation, axis_name, supervision.blocks
    )
    return compute_teacher_changes(decode, code, targets, supervision)
  if code.nuisance.size == 0:
    decoded = decode(code)
    swapped = codes.take_partners(decoded, permutation, axis_name)
  else:
    # Not as one batch: under jit a mesh would exchange half of the images, to
    # have each device decode its part of twice as many examples.
    decoded = decode(code)
    swapped = decode(codes.swap_factors(code, permutation, axis_name))
  return jax.lax.stop_gradient(
      codes.TeacherOutputs(code.factors, decoded, swapped)
  )


def compute_teacher_changes(
    decode: codes.DecodeFn,
    code: codes.Code,
    targets: jax.Array,
    supervision: config.Supervision,
) -> codes.TeacherOutputs:
  """Applies a teacher whose derivatives are compared, to codes of its own.

  Args:
    decode: the teacher's, `Code -> [B, H, W, C]`.
    code: the teacher's, `[B, K]` factors and nuisance of any shape.
    targets: `[n, B, K]`, see `changes`.
    supervision: how its Jacobian is compared.

  Returns:
    TeacherOutputs, stopped, with `changes` in the place of images.
  """
  _, changed = changes.compute(supervision, decode, code, targets)
  return jax.lax.stop_gradient(
      codes.TeacherOutputs(code.factors, None, None, changed)
  )


def teacher_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    images: jax.Array,
    *,
    model: nn.Module,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes a first teacher's objective: reconstruction, eq. (8).

  Args:
    params: of the teacher.
    batch_stats: its running statistics, updated in the second return value.
    images: `[B, H, W, C]`.
    model: of the teacher.

  Returns:
    Scalar loss, and metrics with the new batch statistics.
  """
  code, batch_stats = _encode_train(model, params, batch_stats, images)
  reconstructions = model.apply(
      {'params': params, 'batch_stats': batch_stats}, code, method='decode'
  )
  loss = jnp.mean(losses.reconstruction_loss(images, reconstructions))
  return loss, ({'loss': loss, 'reconstruction': loss}, batch_stats)


def neighbor_teacher_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    images: jax.Array,
    neighbor_images: jax.Array,
    *,
    model: nn.Module,
    weights: config.NeighborWeights,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes the objective of a first teacher that draws neighbours together.

  Each image is decoded to its neighbour in place of itself, so that a code need
  not tell what an image has for itself alone; and neighbours are to have
  nearby factors, all others distant ones. No labels are used.

  Args:
    params: of the teacher.
    batch_stats: its running statistics, updated in the second return value.
    images: `[B, H, W, C]`.
    neighbor_images: `[B, H, W, C]`, of a neighbour of each.
    model: of the teacher.
    weights: of the terms.

  Returns:
    Scalar loss, and metrics with the new batch statistics.
  """
  both = jnp.concatenate([images, neighbor_images])
  code, batch_stats = _encode_train(model, params, batch_stats, both)
  reconstructions = model.apply(
      {'params': params, 'batch_stats': batch_stats}, code, method='decode'
  )
  targets = jnp.concatenate([neighbor_images, images])
  terms = {
      'neighbor_reconstruction': jnp.mean(
          losses.reconstruction_loss(targets, reconstructions)
      ),
      'neighbor_embedding': jnp.mean(
          losses.neighbor_embedding_loss(
              *jnp.split(code.factors, 2),
              scale=weights.neighbor_scale,
              axis_name=model.axis_name,
          )
      ),
  }
  loss = terms['neighbor_reconstruction']
  loss += weights.lambda_neighbor * terms['neighbor_embedding']
  return loss, ({'loss': loss, **terms}, batch_stats)


def student_objective(
    params: codes.Params,
    batch_stats: chex.ArrayTree,
    images: jax.Array,
    teacher: codes.TeacherOutputs | None,
    permutation: jax.Array,
    scale: jax.Array | None = None,
    *,
    model: nn.Module,
    weights: config.LossWeights,
    teacher_model: nn.Module | None = None,
) -> tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]:
  """Computes a student's objective: eqs. (8) + (9) + lambda_xcov (10).

  And the terms of `constraints` whose weights are not 0, the default; with
  `lambda_check` also what the teacher sees in the swapped images.

  Args:
    params: of the student.
    batch_stats: its running statistics, updated in the second return value.
    images: `[B, H, W, C]`.
    teacher: `compute_teacher_outputs` of the same images and permutation; None
      for a student without Jacobian supervision, of which (8) and (10) remain.
    permutation: `[B]` int, the partner j of each example; or `[n, B]`, where
      the weights ask for n swaps.
    scale: scalar, what all weights are multiplied by; None is 1.
    model: of the student; its factors are those that the teacher has.
    weights: of the terms.
    teacher_model: of `teacher.variables`, where they are given.

  Returns:
    Scalar loss, and metrics with the new batch statistics.
  """
  axis_name = model.axis_name
  code, batch_stats = _encode_train(model, params, batch_stats, images)
  variables = {'params': params, 'batch_stats': batch_stats}
  decode = lambda code: model.apply(variables, code, method='decode')

  terms = {
      'cross_covariance': losses.cross_covariance_loss(
          *code, squared=weights.squared_xcov, axis_name=axis_name
      )
  }
  loss = weights.lambda_xcov * terms['cross_covariance']
  if teacher is None:
    reconstructions = decode(code)
  else:
    if teacher.changes is None:
      reconstructions, swapped = jacobian.decode_swapped(
          decode, code, permutation, axis_name
      )
    else:
      reconstructions, changed = compute_changes(
          decode, code, permutation, weights.supervision, axis_name
      )
    if teacher.variables is not None:
      if teacher.changes is not None:
        first = permutation if permutation.ndim == 1 else permutation[0]
        swapped = decode(codes.swap_factors(code, first, axis_name))
      # The teacher is stopped; what it looks at is not.
      seen = teacher_model.apply(
          jax.lax.stop_gradient(teacher.variables), swapped, method='encode'
      )
      terms['swap_check'] = jnp.mean(
          losses.swap_check_loss(seen.factors, teacher.partner_factors)
      )
      loss += weights.lambda_check * terms['swap_check']
    terms['factor_matching'] = jnp.mean(
        losses.factor_matching_loss(code.factors, teacher.factors)
    )
    if teacher.changes is None:
      jacobian_loss = losses.jacobian_loss(
          reconstructions, swapped, teacher.images, teacher.swapped_images
      )
    else:
      jacobian_loss = changes.compare(changed, teacher.changes)
      jacobian_loss /= weights.supervision.num_swaps
    terms['jacobian'] = jnp.mean(jacobian_loss)
    loss += weights.lambda_y * terms['factor_matching']
    loss += weights.lambda_diff * terms['jacobian']
  if weights.lambda_hsic:
    terms['hsic'] = regularizers.hsic_loss(
        *code, bandwidth=weights.hsic_bandwidth, axis_name=axis_name
    )
    loss += weights.lambda_hsic * terms['hsic']
  if weights.lambda_orthogonal or weights.lambda_orthogonal_factors:
    with_nuisance, between = regularizers.column_losses(decode, code)
    terms['orthogonal'] = jnp.mean(with_nuisance)
    terms['orthogonal_factors'] = jnp.mean(between)
    loss += weights.lambda_orthogonal * terms['orthogonal']
    loss += weights.lambda_orthogonal_factors * terms['orthogonal_factors']
  if scale is not None:
    loss *= scale
  terms['reconstruction'] = jnp.mean(
      losses.reconstruction_loss(images, reconstructions)
  )
  loss += terms['reconstruction']
  return loss, ({'loss': loss, **terms}, batch_stats)


def compute_changes(
    decode: codes.DecodeFn,
    code: codes.Code,
    permutation: jax.Array,
    supervision: config.Supervision,
    axis_name: str | None = None,
) -> changes.Changes:
  """Computes what a swap changes, to be compared with a teacher's `changes`.

  Args:
    decode: the student's, `Code -> [B, H, W, C]`.
    code: the student's, `[B, K]` factors and nuisance of any shape.
    permutation: `[B]` or `[n, B]` int, the partners of each example.
    supervision: how those of the teacher were made.
    axis_name: of the mapped axis that the batch is spread over, if any.

  Returns:
    `[B, H, W, C]` images, and `[n, B, H, W, C]` changes.
  """
  targets = changes.make_targets(
      code.factors, permutation, axis_name, supervision.blocks
  )
  return changes.compute(supervision, decode, code, targets)


def _encode_train(model, params, batch_stats, images):
  """Encodes with batch statistics; returns the code and the running ones."""
  code, updated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      images,
      train=True,
      method='encode',
      mutable='batch_stats',
  )
  return code, updated.get('batch_stats', batch_stats)
