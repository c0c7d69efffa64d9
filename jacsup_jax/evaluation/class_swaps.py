"""Evaluation of trained autoencoders: reconstruction error and class swaps.

Everything is measured with running statistics, on whole data sets as uint8. A
judge is a function `classify(images, key) -> [B] int`; a key switches its
dropout on, None off.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches

ClassifyFn = Callable[[jax.Array, jax.Array | None], jax.Array]
# The same with the judge's parameters first.
JudgeFn = Callable[[codes.Params, jax.Array, jax.Array | None], jax.Array]

# The released code judges pairs within batches of the data in its order.
SWAP_BATCH_SIZE = 128
PROTOCOLS = (
    'class_swaps',
    'class_swaps_noisy_judge',
    'class_swaps_true_labels',
)


class SwapCounts(NamedTuple):
  """Pairs that were judged, and those whose class followed the factors.

  Each is `[3]` int, by the order of `PROTOCOLS`.
  """

  followed: jax.Array
  pairs: jax.Array


def compute_mse(
    encode: codes.EncodeFn, decode: codes.DecodeFn, images: jax.Array
) -> jax.Array:
  """Computes the mean squared reconstruction error of a data set.

  Args:
    encode: `[B, H, W, C] -> Code`, of images in [0, 1].
    decode: `Code -> [B, H, W, C]`.
    images: `[M, H, W, C]` uint8.

  Returns:
    Scalar, mean over images and pixels.
  """

  def error(image):
    image = batches.to_float(image[None])
    return jnp.mean(jnp.square(decode(encode(image)) - image))

  at_once = batches.count_at_once(images.shape[1:])
  return jnp.mean(jax.lax.map(error, images, batch_size=at_once))


def psnr(mse: float, peak: float = 1.0) -> float:
  """Returns the peak signal-to-noise ratio of a scalar error, in decibels."""
  return float(10 * np.log10(peak**2 / mse)) if mse > 0 else float('inf')


def count_class_swaps(
    encode: codes.EncodeFn,
    decode: codes.DecodeFn,
    classify: ClassifyFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    seed: int = 0,
) -> SwapCounts:
  """Counts how often an image's class follows swapped factors.

  Table 1 of Lezama (2019). Images are paired at random within batches of 128 in
  the order of the data; the last, incomplete one is left out. By protocol:

  class_swaps: the class of an image is the judge's opinion of its
    reconstruction; pairs of equal opinions are left out; a swap counts if the
    judge sees the donor's class in the swapped image. (The released code's
    rule, with the judge in evaluation mode.)
  class_swaps_noisy_judge: the same with the judge's dropout switched on in
    every pass, as the released code left it.
  class_swaps_true_labels: pairs of different true labels; a swap counts if the
    judge sees the donor's label in the swapped image.

  Args:
    encode: `[B, H, W, C] -> Code`, of images in [0, 1].
    decode: `Code -> [B, H, W, C]`.
    classify: the judge.
    images: `[M, H, W, C]` uint8.
    labels: `[M]` int.
    seed: of the pairs and of the noisy judge.

  Returns:
    SwapCounts over the data set.
  """
  num_batches = images.shape[0] // SWAP_BATCH_SIZE
  split = lambda x: x[: num_batches * SWAP_BATCH_SIZE].reshape(
      num_batches, SWAP_BATCH_SIZE, *x.shape[1:]
  )
  keys = jax.random.split(jax.random.key(seed), num_batches)

  def count(args):
    batch_images, batch_labels, key = args
    pair_key, own_key, swap_key = jax.random.split(key, 3)
    permutation = jax.random.permutation(pair_key, SWAP_BATCH_SIZE)
    code = encode(batches.to_float(batch_images))
    reconstructions = decode(code)
    swapped = decode(codes.swap_factors(code, permutation))
    opinion, seen = classify(reconstructions, None), classify(swapped, None)
    judged = [
        (opinion, seen),
        (classify(reconstructions, own_key), classify(swapped, swap_key)),
        (batch_labels, seen),
    ]
    pairs, followed = [], []
    for own, after in judged:
      donor = own[permutation]
      pairs.append(jnp.sum(own != donor))
      followed.append(jnp.sum((own != donor) & (after == donor)))
    return SwapCounts(jnp.stack(followed), jnp.stack(pairs))

  counts = jax.lax.map(count, (split(images), split(labels), keys))
  return jax.tree.map(lambda x: jnp.sum(x, axis=0), counts)


def compute_accuracy(
    classify: ClassifyFn,
    images: jax.Array,
    labels: jax.Array,
    transform: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
  """Computes a judge's accuracy, also on what an autoencoder makes of images.

  Args:
    classify: the judge.
    images: `[M, H, W, C]` uint8.
    labels: `[M]` int.
    transform: `[B, H, W, C] -> [B, H, W, C]`, images in [0, 1], applied first.

  Returns:
    Scalar in [0, 1].
  """

  def correct(example):
    image, label = example
    classes = classify(transform(batches.to_float(image[None])), None)
    return jnp.mean(classes == label)

  at_once = batches.count_at_once(images.shape[1:])
  return jnp.mean(jax.lax.map(correct, (images, labels), batch_size=at_once))


def evaluate_autoencoder(
    encode: codes.EncodeFn,
    decode: codes.DecodeFn,
    judge: JudgeFn,
    judge_params: codes.Params,
    images: jax.Array,
    labels: jax.Array,
    *,
    seed: int = 0,
) -> dict[str, jax.Array]:
  """Measures an autoencoder by an ensemble of judges. May be jitted.

  Args:
    encode: `[B, H, W, C] -> Code`, of images in [0, 1].
    decode: `Code -> [B, H, W, C]`.
    judge: `(params, images, key) -> [B] int`.
    judge_params: of N judges, stacked: leaves `[N, ...]`.
    images: `[M, H, W, C]` uint8.
    labels: `[M]` int.
    seed: of the pairs that are swapped.

  Returns:
    Scalar `mse`; `[N]` `judge_accuracy` on the images and
    `judge_accuracy_reconstructions`; `[N, 3]` `followed` and `pairs`, see
    `count_class_swaps`.
  """

  def with_one_judge(params):
    classify = functools.partial(judge, params)
    counts = count_class_swaps(
        encode, decode, classify, images, labels, seed=seed
    )
    reconstruct = lambda x: decode(encode(x))
    return {
        'judge_accuracy': compute_accuracy(classify, images, labels),
        'judge_accuracy_reconstructions': compute_accuracy(
            classify, images, labels, reconstruct
        ),
        **counts._asdict(),
    }

  return {
      'mse': compute_mse(encode, decode, images),
      **jax.vmap(with_one_judge)(judge_params),
  }


def summarize(measured: dict[str, jax.Array]) -> dict[str, Any]:
  """Turns what `evaluate_autoencoder` measured into entries of a row.

  Args:
    measured: see there.

  Returns:
    JSON values: `mse`, `psnr` (images in [0, 1]); each protocol's rate as the
    mean over judges, None where a judge is left without pairs; of the headline
    `class_swaps` also each judge's and their standard deviation.
  """
  measured = {name: np.asarray(value) for name, value in measured.items()}
  row = {'mse': float(measured['mse']), 'psnr': psnr(float(measured['mse']))}
  for i, protocol in enumerate(PROTOCOLS):
    pairs, followed = measured['pairs'][:, i], measured['followed'][:, i]
    rates = followed / pairs if np.all(pairs) else None
    row[protocol] = None if rates is None else float(np.mean(rates))
    if i == 0:
      row['class_swaps_std'] = None if rates is None else float(np.std(rates))
      row['class_swaps_by_judge'] = None if rates is None else rates.tolist()
      row['class_swaps_pairs'] = pairs.tolist()
  for name in ('judge_accuracy', 'judge_accuracy_reconstructions'):
    row[name] = float(np.mean(measured[name]))
  return row
