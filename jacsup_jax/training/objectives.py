"""Training objectives: weighted sums of losses, as functions of parameters.

Each returns `(loss, (metrics, batch_stats))`; metrics are the unweighted terms
and `loss`, their weighted sum. Running statistics follow real codes alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import jacobian
from jacsup_jax.core import losses
from jacsup_jax.core import regularizers
from jacsup_jax.models import model as models

# (loss, (metrics, batch_stats)).
Result = tuple[jax.Array, tuple[codes.Metrics, chex.ArrayTree]]
# Term -> the field of `AttributeLossWeights` that weighs it.
_WEIGHTS = {
  'reconstruction': 'lambda_reconstruction',
  'attribute_hinge': 'lambda_prediction',
  'attribute_likelihood': 'lambda_prediction',
  'cross_covariance': 'lambda_xcov',
  'attribute_cycle': 'lambda_attribute_cycle',
  'nuisance_cycle': 'lambda_nuisance_cycle',
  'edit_check': 'lambda_edit_check',
  'factor_matching': 'lambda_y',
  'jacobian': 'lambda_diff',
}


class TeacherOutputs(NamedTuple):
  """A teacher's part of its student's objective; all constants."""

  factors: jax.Array  # [B, K], y^T
  changes: jax.Array  # [n, B, H, W, C], see `jacobian`
  variables: codes.Variables | None = None  # For the swap check.


class Checker(NamedTuple):
  """A frozen network that looks at swapped or edited images."""

  variables: codes.Variables
  draws: Any  # `augmentation.Draws`, by which images are changed before.

  def look(self, module: nn.Module, images: jax.Array) -> jax.Array:
    """Returns the factors or logits `[B, K]` of `[B, H, W, C]` images."""
    # Imported here: most runs have none.
    from jacsup_jax.data import augmentation

    return module.apply(
      self.variables, augmentation.augment(images, self.draws)
    )


class Inputs(NamedTuple):
  """The inputs of an objective: one batch, with its swaps and its teacher."""

  images: jax.Array  # [B, H, W, C] in the range of the model
  # [n, B], the partners in each swap, or the factors that are flipped.
  permutations: jax.Array | None = None
  teacher: TeacherOutputs | None = None
  scale: jax.Array | None = None  # [], factor of all weights, see `Ramp`
  neighbor_images: jax.Array | None = None  # [B, H, W, C]
  attributes: jax.Array | None = None  # [B, K] in {-1, +1}
  labelled: jax.Array | None = None  # [B] bool, decoded from their labels
  conflicts: jax.Array | None = None  # [K, K] bool, see `codes.edit_factor`
  strengths: jax.Array | None = None  # [B], of supervised flips, in labels
  checkers: tuple[Checker, ...] = ()
  uniform: jax.Array | None = None  # [B, hidden] in [0, 1), for dropout
  noise: jax.Array | None = None  # [B, 2, 2, C], standard normal


def compute_teacher_outputs(
  encode: codes.EncodeFn,
  decode: codes.DecodeFn,
  images: jax.Array,
  permutations: jax.Array,
  supervision: config.Supervision = config.Supervision(),
  axis_name: str | None = None,
) -> TeacherOutputs:
  """Applies a teacher to `[B, H, W, C]` images and to their `[n, B]` swaps."""
  code = encode(images)
  if supervision.jacobian == 'secant' and code.nuisance.size == 0:
    # Without nuisance, as in Section 3, D^T(y_j) is the partner's image.
    decoded = decode(code)
    partners = lambda rows: codes.take_partners(decoded, rows, axis_name)
    changes = jnp.stack([partners(rows) - decoded for rows in permutations])
  else:
    targets = jacobian.make_targets(code.factors, permutations, axis_name)
    # Not jointly: jit over a mesh would exchange half of the images.
    changes = compute_changes(supervision, decode, code, targets).changes
  return jax.lax.stop_gradient(TeacherOutputs(code.factors, changes))


def compute_attribute_outputs(
  teacher: models.Model,
  inputs: Inputs,
  weights: config.AttributeLossWeights,
  axis_name: str | None = None,
) -> TeacherOutputs:
  """Applies a teacher of attributes to a batch and to its edits.

  Labels are decoded where its student decodes them, or everywhere if they are
  its factors.
  """
  predicted = teacher.encode(inputs.images, inputs.attributes)
  code = _give_labels(predicted, inputs, weights)
  targets = _edit(code.factors, inputs, weights, axis_name, inputs.strengths)
  changes = compute_changes(weights.supervision, teacher.decode, code, targets)
  outputs = TeacherOutputs(predicted.factors, changes.changes)
  return jax.lax.stop_gradient(outputs)


def compute_changes(
  supervision: config.Supervision, *args, **kwargs
) -> jacobian.Changes:
  """Calls `jacobian.compute` with the form of the configuration."""
  return jacobian.compute(
    *args, form=supervision.jacobian, nodes=supervision.jacobian_nodes, **kwargs
  )


def teacher_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: Inputs,
  *,
  module: nn.Module,
) -> Result:
  """Computes a first teacher's objective: reconstruction, eq. (8)."""
  code, batch_stats = _encode_train(module, params, batch_stats, inputs.images)
  reconstructions = models.Model(module, params, batch_stats).decode(code)
  loss = jnp.mean(losses.reconstruction_loss(inputs.images, reconstructions))
  return loss, ({'loss': loss, 'reconstruction': loss}, batch_stats)


def neighbor_teacher_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: Inputs,
  *,
  module: nn.Module,
  weights: config.NeighborWeights,
) -> Result:
  """Computes the objective of a first teacher that embeds neighbours nearby.

  Each image is decoded to its neighbour instead of itself, so the code need not
  encode image-specific detail; and neighbours get nearby factors, all others
  distant ones. No labels are used.
  """
  images = jnp.concatenate([inputs.images, inputs.neighbor_images])
  code, batch_stats = _encode_train(module, params, batch_stats, images)
  reconstructions = models.Model(module, params, batch_stats).decode(code)
  targets = jnp.concatenate([inputs.neighbor_images, inputs.images])
  error = jnp.mean(losses.reconstruction_loss(targets, reconstructions))
  options = {'scale': weights.neighbor_scale, 'axis_name': module.axis_name}
  pair = jnp.split(code.factors, 2)
  embedding = jnp.mean(losses.neighbor_embedding_loss(*pair, **options))
  terms = {'neighbor_reconstruction': error, 'neighbor_embedding': embedding}
  loss = error + weights.lambda_neighbor * embedding
  return loss, ({'loss': loss, **terms}, batch_stats)


def student_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: Inputs,
  *,
  module: nn.Module,
  weights: config.LossWeights,
  teacher_module: nn.Module | None = None,
  checker_modules: Sequence[nn.Module] = (),
) -> Result:
  """Computes a student's objective: eqs. (8) + (9) + lambda_xcov (10).

  Terms of `regularizers` and of swapped images are added if their weights are
  not 0. The check is by the teacher, if its module is given, and by
  `inputs.checkers`. Without `inputs.teacher`, (8), (10) and regularizers stay.
  """
  code, batch_stats = _encode_train(module, params, batch_stats, inputs.images)
  decode = models.Model(module, params, batch_stats).decode
  terms = {'cross_covariance': _cross_covariance(code, weights, module)}
  loss = weights.lambda_xcov * terms['cross_covariance']
  if inputs.teacher is None:
    reconstructions = decode(code)
  else:
    modules = teacher_module, *checker_modules
    reconstructions, supervised = _supervise(
      decode, code, inputs, weights, modules, module.axis_name
    )
    terms |= supervised
    loss += weights.lambda_check * terms.get('swap_check', 0.0)
    loss += weights.lambda_background * terms.get('background', 0.0)
    loss += weights.lambda_y * terms['factor_matching']
    loss += weights.lambda_diff * terms['jacobian']
  if weights.lambda_hsic:
    terms['hsic'] = regularizers.hsic_loss(
      *code, bandwidth=weights.hsic_bandwidth, axis_name=module.axis_name
    )
    loss += weights.lambda_hsic * terms['hsic']
  if weights.lambda_orthogonal or weights.lambda_orthogonal_factors:
    with_nuisance, between = regularizers.column_losses(decode, code)
    terms['orthogonal'] = jnp.mean(with_nuisance)
    terms['orthogonal_factors'] = jnp.mean(between)
    loss += weights.lambda_orthogonal * terms['orthogonal']
    loss += weights.lambda_orthogonal_factors * terms['orthogonal_factors']
  if inputs.scale is not None:
    loss *= inputs.scale
  terms['reconstruction'] = jnp.mean(
    losses.reconstruction_loss(inputs.images, reconstructions)
  )
  loss += terms['reconstruction']
  return loss, ({'loss': loss, **terms}, batch_stats)


def _supervise(decode, code, inputs, weights, modules, axis_name):
  """Computes reconstructions and the terms that compare with a teacher."""
  teacher, terms = inputs.teacher, {}
  targets = jacobian.make_targets(code.factors, inputs.permutations, axis_name)
  images, changes = compute_changes(
    weights.supervision, decode, code, targets, joint=True
  )
  if weights.lambda_check or weights.lambda_background:
    if weights.supervision.jacobian == 'secant':
      swapped = images + changes[0]
    else:
      swapped = decode(codes.Code(targets[0], code.nuisance))
    terms |= _check_swapped(swapped, inputs, weights, modules, axis_name)
  return images, terms | _compare(code, changes, teacher, weights)


def _check_swapped(swapped, inputs, weights, modules, axis_name):
  """Computes the terms of swapped images alone; what looks is stopped."""
  terms, teacher, images = {}, inputs.teacher, inputs.images
  take = lambda x: codes.take_partners(x, inputs.permutations[0], axis_name)
  if weights.lambda_background:
    found = losses.background_loss(swapped, images, take(images))
    terms['background'] = jnp.mean(found)
  if weights.lambda_check:
    teacher_module, *modules = modules
    looking = zip(modules, jax.lax.stop_gradient(inputs.checkers), strict=True)
    seen = [own.look(module, swapped) for module, own in looking]
    if teacher_module is not None:
      variables = jax.lax.stop_gradient(teacher.variables)
      encoded = teacher_module.apply(variables, swapped, method='encode')
      seen.insert(0, encoded.factors)
    donors = take(teacher.factors)
    checks = [jnp.mean(losses.swap_check_loss(own, donors)) for own in seen]
    terms['swap_check'] = sum(checks[1:], checks[0])
  return terms


def _cross_covariance(code, weights, module):
  return losses.cross_covariance_loss(
    *code, squared=weights.xcov == 'squared', axis_name=module.axis_name
  )


def _compare(code, changes, teacher, weights):
  """Computes the terms of eq. (9)."""
  matching = losses.factor_matching_loss(code.factors, teacher.factors)
  change = losses.jacobian_loss(changes, teacher.changes)
  return {
    'factor_matching': jnp.mean(matching),
    'jacobian': jnp.mean(change / weights.supervision.num_swaps),
  }


def attribute_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: Inputs,
  *,
  module: nn.Module,
  weights: config.AttributeLossWeights,
) -> Result:
  """Computes L_1 of Section 4.2.1, eqs. (8), (11) and (10).

  Images are in [-1, 1]. For bounded factors a likelihood replaces (11).
  With `inputs.teacher` the objective of a student, which adds eq. (9).
  """
  # Their statistics are dropped.
  swap_args = module, params, batch_stats, 'decode'
  decode_swapped = lambda code: models.apply_train(*swap_args, code)[0]
  code, batch_stats = _encode_train(module, params, batch_stats, inputs.images)
  decoded = _give_labels(code, inputs, weights)
  reconstructions, batch_stats = models.apply_train(
    module, params, batch_stats, 'decode', decoded
  )
  error = losses.reconstruction_loss(inputs.images, reconstructions)
  predicted = 'attribute_hinge'
  if module.has_bounded_factors:
    predicted = 'attribute_likelihood'
  predict = getattr(losses, f'{predicted}_loss')
  terms = {
    'reconstruction': jnp.mean(error),
    predicted: jnp.mean(predict(code.factors, inputs.attributes)),
    'cross_covariance': _cross_covariance(code, weights, module),
  }
  if inputs.teacher is not None:
    name, strengths = module.axis_name, inputs.strengths
    targets = _edit(decoded.factors, inputs, weights, name, strengths)
    # Derivatives are those of the whole batch moving, in training mode.
    args = weights.supervision, decode_swapped, decoded, targets
    changes = compute_changes(*args, images=reconstructions).changes
    terms |= _compare(code, changes, inputs.teacher, weights)
  return _weigh(terms, batch_stats, weights)


def cycle_objective(
  params: codes.Params,
  batch_stats: chex.ArrayTree,
  inputs: Inputs,
  *,
  module: nn.Module,
  weights: config.AttributeLossWeights,
  checker_module: nn.Module | None = None,
) -> Result:
  """Computes L_2 of Section 4.2.1: lambda_4 (12) + lambda_5 (13).

  Factors are edited by the first permutation, see `jacobian.make_targets`, and
  the image decoded from them and the nuisance is encoded again. The encoder is
  frozen in both passes, or both networks could agree on a code hidden in the
  image. The batch statistics stay. With the edit check, what the one checker
  of the inputs sees of the image is added (not in the paper): it is trained on
  real images alone, and frozen, so that nothing is adversarial.
  """
  params = {**params, 'encoder': jax.lax.stop_gradient(params['encoder'])}
  code, _ = _encode_train(module, params, batch_stats, inputs.images)
  code = _give_labels(code, inputs, weights)
  factors = _edit(code.factors, inputs, weights, module.axis_name)[0]
  swapped, terms = code._replace(factors=factors), {}
  images, _ = models.apply_train(module, params, batch_stats, 'decode', swapped)
  if weights.lambda_attribute_cycle or weights.lambda_nuisance_cycle:
    cycled, _ = _encode_train(module, params, batch_stats, images)
    compare = losses.attribute_cycle_loss
    if module.has_bounded_factors:
      compare = losses.attribute_likelihood_loss
    terms['attribute_cycle'] = compare(factors, cycled.factors)
    terms['nuisance_cycle'] = losses.nuisance_cycle_loss(
      code.nuisance, cycled.nuisance
    )
  if weights.lambda_edit_check:
    [checker] = inputs.checkers
    logits = jax.lax.stop_gradient(checker).look(checker_module, images)
    signs = (jnp.where(x >= 0, 1.0, -1.0) for x in (factors, code.factors))
    terms['edit_check'] = losses.edit_check_loss(logits, *signs)
  return _weigh(jax.tree.map(jnp.mean, terms), batch_stats, weights)


def _encode_train(module, params, batch_stats, images):
  return models.apply_train(module, params, batch_stats, 'encode', images)


def _give_labels(code, inputs, weights):
  """Returns a code with the labels as factors, where they are decoded."""
  if not weights.decode_labels:
    return code
  labels = inputs.attributes.astype(code.factors.dtype)
  predicted = jax.lax.stop_gradient(code.factors)
  factors = jnp.where(inputs.labelled[:, jnp.newaxis], labels, predicted)
  return code._replace(factors=factors)


def _edit(factors, inputs, weights, axis_name, strengths=None):
  """Returns the factors after each edit, `[n, B, K]`."""
  options = axis_name, weights.edits, inputs.conflicts, strengths
  return jacobian.make_targets(factors, inputs.permutations, *options)


def _weigh(terms, batch_stats, weights):
  weigh = lambda name: getattr(weights, _WEIGHTS[name])
  loss = sum(weigh(name) * term for name, term in terms.items())
  return loss, ({'loss': loss, **terms}, batch_stats)
