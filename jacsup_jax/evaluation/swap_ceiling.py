"""What exact secant supervision by a teacher can reach, before any training.

A student that meets eq. (9) of Lezama (2019) exactly changes its image under a
swap as its teacher does: D_S(y_j, z_i) = D_T(y_j) + (D_S(y_i, z_i) - D_T(y_i)).
What it knows beyond its teacher is added to whatever the factors draw, so that
a better student carries more of the recipient's image into the swapped one. The
student here keeps a share r of its teacher's residual x_i - D_T(y_i); its
error is (1 - r)^2 of the teacher's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.evaluation import class_swaps

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
# Whose opinion is the class that a swap is to bring: a judge's, of the donor's
# reconstruction (as class_swaps are counted), image, or teacher's image.
RULES = ('class_swaps', 'by_image', 'by_teacher_image')


class CeilingCounts(NamedTuple):
  """Pairs that were judged and that followed, each `[3]` int, by `RULES`."""

  followed: jax.Array
  pairs: jax.Array


def make_exact_student(
    encode: codes.EncodeFn, decode: codes.DecodeFn, share: float | jax.Array
) -> tuple[codes.EncodeFn, codes.DecodeFn]:
  """Makes the student that meets eq. (9) exactly.

  Its nuisance is its teacher's and the residual image.

  Args:
    encode: the teacher's.
    decode: the teacher's.
    share: r in [0, 1], of the teacher's residual that it keeps.

  Returns:
    Its encode and decode; what it decodes is not clipped.
  """

  def encode_exactly(images):
    code = encode(images)
    return code._replace(
        nuisance=(code.nuisance, share * (images - decode(code)))
    )

  def decode_exactly(code):
    nuisance, residual = code.nuisance
    return decode(code._replace(nuisance=nuisance)) + residual

  return encode_exactly, decode_exactly


def count_ceiling_swaps(
    encode: codes.EncodeFn,
    decode: codes.DecodeFn,
    classify: class_swaps.ClassifyFn,
    images: jax.Array,
    share: float | jax.Array,
    *,
    seed: int = 0,
) -> CeilingCounts:
  """Counts the class swaps of the exact student, in the pairs of class swaps.

  Args:
    encode: the teacher's, `[B, H, W, C] -> Code`, of images in [0, 1].
    decode: the teacher's, `Code -> [B, H, W, C]`.
    classify: the judge.
    images: `[M, H, W, C]` uint8.
    share: r in [0, 1], of the teacher's residual.
    seed: of the pairs, see `class_swaps.count_class_swaps`.

  Returns:
    CeilingCounts over the data set.
  """

  def see(transform):
    judge = lambda image: classify(
        transform(batches.to_float(image[None])), None
    )[0]
    at_once = batches.count_at_once(images.shape[1:])
    return jax.lax.map(judge, images, batch_size=at_once)

  own, of_labels = (class_swaps.PROTOCOLS.index(name) for name in (
      'class_swaps', 'class_swaps_true_labels'
  ))  # pyformat: disable
  student = make_exact_student(encode, decode, share)
  followed, pairs = [], []
  for i, classes in enumerate((
      see(lambda images: images), see(lambda images: decode(encode(images)))
  )):  # pyformat: disable
    # With a judge's opinions for labels.
    counts = class_swaps.count_class_swaps(
        *student, classify, images, classes, seed=seed
    )
    for protocol in (of_labels,) if i else (own, of_labels):
      followed.append(counts.followed[protocol])
      pairs.append(counts.pairs[protocol])
  return CeilingCounts(jnp.stack(followed), jnp.stack(pairs))


def measure_ceiling(
    encode: codes.EncodeFn,
    decode: codes.DecodeFn,
    judge: class_swaps.JudgeFn,
    judge_params: codes.Params,
    images: jax.Array,
    shares: jax.Array,
    *,
    seed: int = 0,
) -> CeilingCounts:
  """Counts for several shares, by an ensemble of judges. May be jitted.

  Args:
    encode: the teacher's, of images in [0, 1].
    decode: the teacher's.
    judge: `(params, images, key) -> [B] int`.
    judge_params: of N judges, stacked: leaves `[N, ...]`.
    images: `[M, H, W, C]` uint8.
    shares: `[R]`, r each.
    seed: of the pairs.

  Returns:
    CeilingCounts of `[R, N, 3]`.
  """

  def with_one_judge(params, share):
    classify = lambda images, key: judge(params, images, key)
    return count_ceiling_swaps(
        encode, decode, classify, images, share, seed=seed
    )

  with_all = jax.vmap(with_one_judge, in_axes=(0, None))
  return jax.lax.map(lambda share: with_all(judge_params, share), shares)


def share_of_error(mse: float, teacher_mse: float) -> float | None:
  """Returns the share r whose student has this error.

  Args:
    mse: of a student.
    teacher_mse: of its teacher, on the same images.

  Returns:
    In [0, 1]; None for a student that reconstructs worse than its teacher, or
    a teacher without a residual: no share is like it.
  """
  if not 0 <= mse <= teacher_mse or teacher_mse == 0:
    return None
  return 1 - float(np.sqrt(mse / teacher_mse))


def summarize(
    counts: CeilingCounts, shares: list[float], teacher_mse: float
) -> list[dict[str, Any]]:
  """Turns counts into JSON values, an entry for each share.

  Args:
    counts: of `[R, N, 3]`.
    shares: R of them.
    teacher_mse: on the same images.

  Returns:
    Entries of `residual_share`, `mse` and, by `RULES`, the mean over judges,
    None where a judge is left without pairs.
  """
  entries = []
  for share, followed, pairs in zip(shares, *map(np.asarray, counts)):
    rates = {
        rule: float(np.mean(followed[:, i] / pairs[:, i]))
        if np.all(pairs[:, i])
        else None
        for i, rule in enumerate(RULES)
    }
    mse = (1 - share) ** 2 * teacher_mse
    entries.append({'residual_share': share, 'mse': mse, **rates})
  return entries
