"""Counts of what judges see of edits, and of where they change an image.

Models have images in [-1, 1] and a factor per attribute; data are `[M, S, S,
3]` uint8 and `[M, K]` int labels in {-1, +1}; there are J judges.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import reconstruction

# Half axes of the ellipse of face and hair, by the side of an aligned face.
_ELLIPSE = (0.36, 0.46)


class Targets(NamedTuple):
  """The values that factors are set to, `[..., K]`, for either sign."""

  absent: jax.Array
  present: jax.Array
  conflicts: jax.Array  # [..., K, K] bool, see `codes.edit_factor`
  thresholds: jax.Array  # of factors, from which on an attribute is present


class EditCounts(NamedTuple):
  """What J judges saw of edits, by attribute and label: absent, present."""

  flipped: jax.Array  # [J, K, 2], seen as the opposite of the label
  kept: jax.Array  # [J, K], judgements of the K - 1 others that stayed the same
  images: jax.Array  # [K, 2]
  # [K, 2], sums over images of the mean change outside and inside.
  change: jax.Array


def make_targets(
  spread: tuple[jax.Array, jax.Array],
  alphas: Sequence[float],
  deviations: Sequence[float | np.ndarray],
  conflicts: np.ndarray,
  thresholds: np.ndarray,
) -> Targets:
  """Makes `[P, K]` targets of alphas, then of numbers of deviations.

  `spread` are the means and deviations of factors, `[K]` each; a number of
  deviations is one for all factors, or `[K]`. Edits by an alpha, the paper's,
  know no conflicts and no `[K]` thresholds: they go by the sign.
  """
  center, scale = spread
  steps = [np.full(center.shape, alpha) for alpha in alphas]
  steps = jnp.array([*steps, *(c * scale for c in deviations)], jnp.float32)
  is_alpha = jnp.arange(len(steps))[:, jnp.newaxis] < len(alphas)
  center = jnp.where(is_alpha, 0.0, center[jnp.newaxis])
  known = jnp.asarray(conflicts)[jnp.newaxis] & ~is_alpha[:, jnp.newaxis]
  above = jnp.where(is_alpha, 0.0, jnp.asarray(thresholds)[jnp.newaxis])
  return Targets(center - steps, center + steps, known, above)


def choose_direction(
  code: codes.Code, index: int | jax.Array, thresholds: jax.Array
) -> jax.Array:
  """Returns `[B]`: -1 where an attribute is predicted to be present, else 1.

  The index is one, or `[B]`; thresholds are `[K]`.
  """
  own = code.factors[jnp.arange(code.factors.shape[0]), index]
  return jnp.where(own >= thresholds[index], -1, 1)


def flip_factor(
  code: codes.Code, index: int | jax.Array, targets: Targets
) -> codes.Code:
  """Sets a factor to its target opposite to what is predicted.

  The code is of B images; the index is one, or `[B]`; targets are `[K]`.
  """
  asked = choose_direction(code, index, targets.thresholds)
  return codes.edit_factor(code, index, asked, *targets)


def count_edits(
  model: reconstruction.Autoencoder,
  classify: Callable[[jax.Array], jax.Array],
  images: jax.Array,
  attributes: jax.Array,
  targets: Targets,
  is_given: bool | jax.Array = False,
) -> EditCounts:
  """Counts what judges see of every image with every attribute flipped.

  Factor i is set to its target opposite to what is predicted, or to the label
  where `is_given`. A flip counts if the judge then sees the opposite of the
  image's label: only so do random weights score the paper's 20.2 %.
  `classify` gives signs `[J, B, K]` of images in [-1, 1]; targets are `[K]`.
  """
  inside = _draw_ellipse(images.shape[1])

  def count(batch_images, labels, counted):
    code = model.encode(batches.to_signed_float(batch_images), labels)
    before = model.decode(code)
    seen = classify(before)
    signs = (
      jnp.stack([labels < 0, labels > 0], axis=-1) & counted[:, None, None]
    )

    def flip(index):
      asked = choose_direction(code, index, targets.thresholds)
      asked = jnp.where(is_given, -labels[:, index], asked)
      edited = model.decode(codes.edit_factor(code, index, asked, *targets))
      after = classify(edited)
      done = after[:, :, index] == -labels[jnp.newaxis, :, index]
      others = counted[:, None] & (jnp.arange(seen.shape[-1]) != index)[None]
      change = jnp.mean(jnp.abs(edited - before), axis=-1)
      parts = [
        jnp.mean(change, axis=(1, 2), where=mask[jnp.newaxis])
        for mask in (~inside, inside)
      ]
      return (
        jnp.sum(done[:, :, None] & signs[jnp.newaxis, :, index], axis=1),
        jnp.sum(others[jnp.newaxis] & (after == seen), axis=(1, 2)),
        jnp.sum(jnp.stack(parts, -1) * counted[:, None], axis=0),
      )

    # One program for all attributes: the index is a number to it.
    flipped, kept, change = jax.lax.map(flip, jnp.arange(seen.shape[-1]))
    return EditCounts(
      jnp.swapaxes(flipped, 0, 1), kept.T, jnp.sum(signs, axis=0), change
    )

  return reconstruction.sum_batches(
    count, (images, attributes), attribute_judges.BATCH_SIZE
  )


def compute_rates(counts: EditCounts) -> tuple[np.ndarray, np.ndarray]:
  """Computes balanced flips and kept, `[..., J, K]` in [0, 1].

  Balanced over the signs that occur; an edit that changes nothing a judge sees
  has 0.5 where the judge always sees the same.
  """
  images = np.asarray(counts.images)[..., np.newaxis, :, :]
  rates = np.asarray(counts.flipped) / np.maximum(images, 1)
  occur = np.broadcast_to(images > 0, rates.shape)
  flips = np.mean(rates, axis=-1, where=occur)
  others = max(images.shape[-2] - 1, 1)
  kept = np.asarray(counts.kept) / (np.sum(images, -1) * others)
  return flips, kept


def _draw_ellipse(size):
  """Returns where a face is, `[size, size]` bool."""
  across, down = (
    (np.arange(size) + 0.5 - size / 2) / (axis * size) for axis in _ELLIPSE
  )
  return np.square(down)[:, np.newaxis] + np.square(across) <= 1
