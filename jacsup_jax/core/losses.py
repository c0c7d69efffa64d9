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
  """Computes the squared reconstruction error ||x - D(E(x))||^2, eq. (8).

  As the mean over pixels: `[B, H, W, C]` -> `[B]`.

  Example:
    >>> images = jnp.ones((2, 4, 4, 1))
    >>> reconstruction_loss(images, images / 2).tolist()
    [0.25, 0.25]
  """
  chex.assert_equal_shape([images, reconstructions])
  return _mean_square(images - reconstructions)


def factor_matching_loss(
  student_factors: jax.Array, teacher_factors: jax.Array
) -> jax.Array:
  """Computes the distance of a student's factors from its teacher's, eq. (9).

  ||y^S - y^T||^2, as the mean over factors: `[B, K]` -> `[B]`. Nothing is
  stopped here: stop the teacher where it is applied.

  Example:
    >>> student, teacher = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
    >>> factor_matching_loss(student, teacher).tolist()
    [2.0]
  """
  chex.assert_rank([student_factors, teacher_factors], 2)
  chex.assert_equal_shape([student_factors, teacher_factors])
  return _mean_square(student_factors - teacher_factors)


def jacobian_loss(
  student_changes: jax.Array, teacher_changes: jax.Array
) -> jax.Array:
  """Computes the squared difference of two decoders' changes under swaps.

  ||(D^T(y_j) - D^T(y)) - (D^S(y_j, z) - D^S(y, z))||^2. Second part of eq. (9)
  of Lezama (2019), weighted by lambda_diff, as the mean over pixels. The forms
  of change are those of `jacobian`.

  Args:
    student_changes: `[n, B, ...]`, of the images under each of n swaps.
    teacher_changes: `[n, B, ...]`.

  Returns:
    `[B]`, summed over the swaps, in squared units of the images.

  Example:
    >>> changes = jnp.ones((1, 2, 4, 4, 1))
    >>> jacobian_loss(changes, 3 * changes).tolist()
    [4.0, 4.0]
  """
  chex.assert_equal_shape([student_changes, teacher_changes])
  squares = jnp.square(teacher_changes - student_changes)
  return jnp.sum(jnp.mean(squares, axis=range(2, squares.ndim)), axis=0)


def swap_check_loss(
  seen_factors: jax.Array, partner_factors: jax.Array
) -> jax.Array:
  """Computes the squared error of the factors seen in swapped images.

  ||E^T(D^S(y_j, z)) - y_j^T||^2, as the mean over factors: `[B, K]` -> `[B]`;
  a network that learnt the teacher's factors may look instead of E^T. An
  addition to Lezama (2019): by eq. (9) a swapped image keeps all that the
  recipient had beyond its teacher's image, even what makes the teacher read
  other factors than the donor's; this term removes that.

  Example:
    >>> seen, partner = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0]])
    >>> swap_check_loss(seen, partner).tolist()
    [2.0]
  """
  return factor_matching_loss(seen_factors, partner_factors)


def background_loss(
  swapped: jax.Array, images: jax.Array, partner_images: jax.Array
) -> jax.Array:
  """Computes what a swapped image shows where both its sources are empty.

  The mean over pixels of |x'| (1 - m): m is the larger value of the recipient
  and the donor, one pixel around included. `[B, H, W, C]` each -> `[B]`; images
  are in [0, 1], with 0 for an empty background, as digits have it. An addition
  to Lezama (2019): what makes `swap_check_loss` small leaves specks, which no
  network that looks minds.

  Example:
    >>> empty = jnp.zeros((1, 4, 4, 1))
    >>> background_loss(empty + 0.5, empty, empty).tolist()
    [0.5]
  """
  chex.assert_equal_shape([swapped, images, partner_images])
  chex.assert_rank(swapped, 4)
  largest = jax.lax.reduce_window(
    jnp.maximum(images, partner_images),
    -jnp.inf,
    jax.lax.max,
    (1, 3, 3, 1),
    (1, 1, 1, 1),
    'SAME',
  )
  empty = 1 - jax.lax.stop_gradient(largest)
  return jnp.mean(jnp.abs(swapped) * empty, axis=(1, 2, 3))


def neighbor_embedding_loss(
  factors: jax.Array,
  neighbor_factors: jax.Array,
  *,
  scale: float = 20.0,
  axis_name: str | None = None,
) -> jax.Array:
  """Computes the InfoNCE loss of neighbours against the rest of a batch.

  -log s(i, i') + log sum_{j not i} s(i, j), with the similarity s of t-SNE,
  1 / (1 + |scale (y_i - y_j)|^2), i' the neighbour of i, and j all others of
  the batch and all neighbours. van den Oord et al. (2018) with the similarity
  of van der Maaten & Hinton (2008), as Boehm et al. (2023).

  Args:
    factors: `[B, K]`, of a batch.
    neighbor_factors: `[B, K]`, of a neighbour of each.
    scale: of the factors, which a BatchNorm keeps at variance 1: the extent of
      the embedding in units of the distance between neighbours.
    axis_name: of the mapped axis that the batch is spread over, if any; the
      others are then those of the whole batch.

  Returns:
    `[B]`, in nats.

  Example:
    >>> factors = jnp.array([[0.0], [5.0]])
    >>> near = neighbor_embedding_loss(factors, factors)
    >>> bool(jnp.all(near < neighbor_embedding_loss(factors, factors[::-1])))
    True
  """
  chex.assert_rank([factors, neighbor_factors], 2)
  chex.assert_equal_shape([factors, neighbor_factors])
  others = jnp.concatenate([factors, neighbor_factors])
  own = jnp.arange(factors.shape[0])
  if axis_name is not None:
    own += jax.lax.axis_index(axis_name) * others.shape[0]
    others = jax.lax.all_gather(others, axis_name, tiled=True)
  log_similarity = lambda squares: -jnp.log1p(scale**2 * squares)
  squares = jnp.sum(
    jnp.square(factors[:, None, :] - others[None, :, :]), axis=2
  )
  is_self = jnp.arange(others.shape[0])[None, :] == own[:, None]
  to_all = jnp.where(is_self, -jnp.inf, log_similarity(squares))
  positive = log_similarity(
    jnp.sum(jnp.square(factors - neighbor_factors), axis=1)
  )
  return jax.nn.logsumexp(to_all, axis=1) - positive


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

  Example:
    >>> factors = jnp.array([[1.0], [-1.0]])
    >>> float(cross_covariance_loss(factors, 2 * factors))
    4.0
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
  # The root has no gradient at 0, the covariance with a constant unit.
  positive = total > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1.0)), 0.0)


def attribute_cross_entropy_loss(
  logits: jax.Array, attributes: jax.Array
) -> jax.Array:
  """Computes the cross-entropy of a discriminator of attributes, in nats.

  -log P(y | z), the attributes independent of each other, summed. Eq. (2) of
  Lample et al. (2017), and with the opposite labels the second part of (3).
  `[B, K]` logits and labels in {-1, +1} -> `[B]`.

  Example:
    >>> logits, attributes = jnp.zeros((1, 2)), jnp.array([[1, -1]])
    >>> round(float(attribute_cross_entropy_loss(logits, attributes)[0]), 3)
    1.386
  """
  chex.assert_rank([logits, attributes], 2)
  chex.assert_equal_shape([logits, attributes])
  # log(1 + exp(-x y)), which does not overflow.
  return jnp.sum(jax.nn.softplus(-logits * attributes), axis=1)


def attribute_hinge_loss(
  factors: jax.Array, attributes: jax.Array
) -> jax.Array:
  """Computes the hinge loss of predicted attributes.

  mean_i max(1 - y_i ybar_i, 0), eq. (11) of Lezama (2019); the released code
  sums over the attributes instead. `[B, K]` predictions and labels in {-1, +1}
  -> `[B]`.

  Example:
    >>> factors, attributes = jnp.array([[2.0, 0.5]]), jnp.array([[1, 1]])
    >>> attribute_hinge_loss(factors, attributes).tolist()
    [0.25]
  """
  chex.assert_rank([factors, attributes], 2)
  chex.assert_equal_shape([factors, attributes])
  return jnp.mean(jnp.maximum(1.0 - factors * attributes, 0.0), axis=1)


def attribute_likelihood_loss(
  factors: jax.Array, attributes: jax.Array
) -> jax.Array:
  """Computes the cross-entropy of bounded factors, in nats.

  mean_i -log((1 + y_i ybar_i) / 2): of factors in [-1, 1], which say that an
  attribute is present with the probability (1 + y_i) / 2. Replaces eq. (11) of
  Lezama (2019). `[B, K]` and labels in {-1, +1} -> `[B]`.

  Example:
    >>> factors, attributes = jnp.array([[1.0, 0.0]]), jnp.array([[1, -1]])
    >>> round(float(attribute_likelihood_loss(factors, attributes)[0]), 3)
    0.347
  """
  chex.assert_rank([factors, attributes], 2)
  chex.assert_equal_shape([factors, attributes])
  # A factor may round to the wrong bound.
  likelihood = jnp.maximum((1.0 + factors * attributes) / 2.0, 1e-6)
  return -jnp.mean(jnp.log(likelihood), axis=1)


def edit_check_loss(
  logits: jax.Array, asked: jax.Array, before: jax.Array
) -> jax.Array:
  """Computes the cross-entropy of a classifier that looks at an edit, in nats.

  The mean over the attributes that the edit changes plus the mean over all, so
  that a change counts as much as what has to stay (not in the paper).

  Args:
    logits: `[B, K]`, positive where the classifier sees an attribute.
    asked: `[B, K]` labels in {-1, +1} of the edited image.
    before: `[B, K]` labels in {-1, +1} of the image itself.

  Returns:
    `[B]`.

  Example:
    >>> before, asked = jnp.array([[1, 1]]), jnp.array([[-1, 1]])
    >>> sees_edit, sees_none = 9.0 * asked, 9.0 * before
    >>> obeyed = edit_check_loss(sees_edit, asked, before)
    >>> bool(obeyed[0] < edit_check_loss(sees_none, asked, before)[0])
    True
  """
  chex.assert_rank([logits, asked, before], 2)
  chex.assert_equal_shape([logits, asked, before])
  entropy = jax.nn.softplus(-logits * asked)
  changed = asked != before
  number = jnp.maximum(jnp.sum(changed, axis=1), 1)
  on_changed = jnp.sum(entropy, axis=1, where=changed) / number
  return on_changed + jnp.mean(entropy, axis=1)


def attribute_cycle_loss(
  swapped_factors: jax.Array, cycled_factors: jax.Array
) -> jax.Array:
  """Computes the hinge loss of the factors re-encoded after a swap.

  mean_i max(1 - y_2i y'_2i, 0), eq. (12) of Lezama (2019). The factors given to
  the decoder serve as labels. `[B, K]` -> `[B]`.

  Example:
    >>> swapped, cycled = jnp.array([[1.0, -1.0]]), jnp.ones((1, 2))
    >>> attribute_cycle_loss(swapped, cycled).tolist()
    [1.0]
  """
  return attribute_hinge_loss(cycled_factors, swapped_factors)


def nuisance_cycle_loss(
  nuisance: jax.Array, cycled_nuisance: jax.Array
) -> jax.Array:
  """Computes the squared distance of the nuisance re-encoded after a swap.

  ||z_1 - z'_1||^2, eq. (13) of Lezama (2019), as the sum over all units: its
  weight of 1e-5 belongs to a sum. The released code takes the root of the sum
  over the whole batch, divided by its size. `[B, ...]` -> `[B]`.

  Example:
    >>> nuisance_cycle_loss(jnp.ones((1, 3)), jnp.zeros((1, 3))).tolist()
    [3.0]
  """
  chex.assert_equal_shape([nuisance, cycled_nuisance])
  difference = nuisance - cycled_nuisance
  return jnp.sum(jnp.square(difference), axis=range(1, difference.ndim))


def _mean_square(difference: jax.Array) -> jax.Array:
  return jnp.mean(jnp.square(difference), axis=range(1, difference.ndim))


def _global_mean(value: jax.Array, axis_name: str | None) -> jax.Array:
  return value if axis_name is None else jax.lax.pmean(value, axis_name)
