"""The terms of the paper's objectives, equations (8) to (13).

Each takes arrays and returns an array; weights and means over the batch are
the caller's. The paper writes squared L2 norms for (8) and (9); the weights and
errors that it reports belong to their means over pixels and factors, which is
what these functions return.
"""

import chex
import jax
import jax.numpy as jnp


def reconstruction_loss(
    images: jax.Array, reconstructions: jax.Array
) -> jax.Array:
  """Computes the squared reconstruction error.

  ||x - D(E(x))||^2. Eq. (8) of Lezama (2019), as the mean over pixels.

  Args:
    images: `[B, H, W, C]`.
    reconstructions: `[B, H, W, C]`, in the same range.

  Returns:
    `[B]`, in squared units of the images.
  """
  chex.assert_equal_shape([images, reconstructions])
  return _mean_square(images - reconstructions)


def factor_matching_loss(
    student_factors: jax.Array, teacher_factors: jax.Array
) -> jax.Array:
  """Computes the squared distance of a student's factors from its teacher's.

  ||y^S - y^T||^2. First part of eq. (9) of Lezama (2019), weighted by lambda_y,
  as the mean over factors. Nothing is stopped here: stop the teacher where it
  is applied.

  Args:
    student_factors: `[B, K]`.
    teacher_factors: `[B, K]`.

  Returns:
    `[B]`.
  """
  chex.assert_rank([student_factors, teacher_factors], 2)
  chex.assert_equal_shape([student_factors, teacher_factors])
  return _mean_square(student_factors - teacher_factors)


def jacobian_loss(
    student_images: jax.Array,
    student_swapped_images: jax.Array,
    teacher_images: jax.Array,
    teacher_swapped_images: jax.Array,
) -> jax.Array:
  """Computes the squared difference of two decoders' changes under a swap.

  ||(D^T(y_j) - D^T(y)) - (D^S(y_j, z) - D^S(y, z))||^2. Second part of eq. (9)
  of Lezama (2019), weighted by lambda_diff, as the mean over pixels.

  Args:
    student_images: `[B, H, W, C]`, D^S(y, z).
    student_swapped_images: `[B, H, W, C]`, D^S(y_j, z).
    teacher_images: `[B, H, W, C]`, D^T(y).
    teacher_swapped_images: `[B, H, W, C]`, D^T(y_j).

  Returns:
    `[B]`, in squared units of the images.
  """
  chex.assert_equal_shape([
      student_images,
      student_swapped_images,
      teacher_images,
      teacher_swapped_images,
  ])
  student_change = student_swapped_images - student_images
  teacher_change = teacher_swapped_images - teacher_images
  return _mean_square(teacher_change - student_change)


def cross_covariance_loss(
    factors: jax.Array,
    nuisance: jax.Array,
    *,
    squared: bool = True,
    axis_name: str | None = None,
) -> jax.Array:
  """Computes the size of the covariance between factors and nuisance.

  The sum over all pairs of a nuisance unit and a factor of their squared
  covariance over the batch (divided by its size M, not M - 1). Eq. (10) of
  Lezama (2019), after Cheung et al. (2014). The released code takes the root
  of the sum: `squared=False`.

  Args:
    factors: `[B, K]`.
    nuisance: `[B, ...]`, flattened to `[B, D]`; D may be 0, then the loss is 0.
    squared: the sum of squares if true, else its root (the Frobenius norm).
    axis_name: of the mapped axis that the batch is spread over, if any; the
      covariance is then that of the whole batch.

  Returns:
    Scalar: a statistic of the batch, not a mean over examples.
  """
  chex.assert_rank(factors, 2)
  nuisance = nuisance.reshape(nuisance.shape[0], -1)
  chex.assert_equal_shape_prefix([factors, nuisance], 1)
  batch_mean = lambda x: _global_mean(
      jnp.mean(x, axis=0, keepdims=True), axis_name
  )
  factors = factors - batch_mean(factors)
  nuisance = nuisance - batch_mean(nuisance)
  covariance = nuisance.T @ factors / factors.shape[0]
  covariance = _global_mean(covariance, axis_name)
  total = jnp.sum(jnp.square(covariance))
  if squared:
    return total
  # The root has no gradient at 0, which a unit that is still constant reaches.
  positive = total > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1.0)), 0.0)


def attribute_cross_entropy_loss(
    logits: jax.Array, attributes: jax.Array
) -> jax.Array:
  """Computes how unlikely labels are to a discriminator.

  -log P(y | z), the attributes independent of each other. Eq. (2) of Lample et
  al. (2017), and with the opposite labels the second part of (3); as the sum
  over attributes.

  Args:
    logits: `[B, K]`, of the presence of each attribute.
    attributes: `[B, K]`, labels in {-1, +1}.

  Returns:
    `[B]`, in nats.
  """
  chex.assert_rank([logits, attributes], 2)
  chex.assert_equal_shape([logits, attributes])
  # log(1 + exp(-x y)), which does not overflow.
  return jnp.sum(jax.nn.softplus(-logits * attributes), axis=1)


def attribute_hinge_loss(
    factors: jax.Array, attributes: jax.Array
) -> jax.Array:
  """Computes the hinge loss of predicted attributes, with margin 1.

  mean_i max(1 - y_i ybar_i, 0). Eq. (11) of Lezama (2019); the released code
  sums over the attributes instead.

  Args:
    factors: `[B, K]`, predictions y, unbounded.
    attributes: `[B, K]`, labels in {-1, +1}.

  Returns:
    `[B]`, mean over the attributes.
  """
  chex.assert_rank([factors, attributes], 2)
  chex.assert_equal_shape([factors, attributes])
  return jnp.mean(jnp.maximum(1.0 - factors * attributes, 0.0), axis=1)


def attribute_cycle_loss(
    swapped_factors: jax.Array, cycled_factors: jax.Array
) -> jax.Array:
  """Computes the hinge loss of the factors found again after a swap.

  mean_i max(1 - y_2i y'_2i, 0). Eq. (12) of Lezama (2019). The factors that
  were given take the place of the labels.

  Args:
    swapped_factors: `[B, K]`, y_2 as it was given to the decoder.
    cycled_factors: `[B, K]`, y'_2 of the encoded swapped image.

  Returns:
    `[B]`, mean over the factors.
  """
  return attribute_hinge_loss(cycled_factors, swapped_factors)


def nuisance_cycle_loss(
    nuisance: jax.Array, cycled_nuisance: jax.Array
) -> jax.Array:
  """Computes the squared distance of the nuisance found again after a swap.

  ||z_1 - z'_1||^2. Eq. (13) of Lezama (2019), as the sum over all units: its
  weight of 1e-5 belongs to a sum. The released code takes the root of the sum
  over the whole batch, divided by its size.

  Args:
    nuisance: `[B, ...]`, z_1 as it was given to the decoder.
    cycled_nuisance: `[B, ...]`, z'_1 of the encoded swapped image.

  Returns:
    `[B]`, sum over the units.
  """
  chex.assert_equal_shape([nuisance, cycled_nuisance])
  difference = nuisance - cycled_nuisance
  return jnp.sum(jnp.square(difference), axis=range(1, difference.ndim))


def _mean_square(difference: jax.Array) -> jax.Array:
  return jnp.mean(jnp.square(difference), axis=range(1, difference.ndim))


def _global_mean(value: jax.Array, axis_name: str | None) -> jax.Array:
  return value if axis_name is None else jax.lax.pmean(value, axis_name)
