"""Class swaps: how often an image's class follows swapped factors.

Models have images in [0, 1]; data are `[M, H, W, C]` uint8 images and `[M]` int
labels.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.evaluation import judges as judges_lib
from jacsup_jax.evaluation import reconstruction

# The released code judges pairs within batches of the data in its order.
SWAP_BATCH_SIZE = 128
PROTOCOLS = (
    'class_swaps', 'class_swaps_noisy_judge', 'class_swaps_true_labels'
)  # fmt: skip
PROTOCOL = (
  'class_swaps: pairs within batches of 128 in order, the class of an image'
  " is the judge's opinion of its reconstruction, equal opinions left out,"
  ' mean over the judges; _std: standard deviation over the judges (divisor'
  ' n - 1); _noisy_judge: their dropout on; _true_labels: classes are true'
  ' labels'
)


class SwapCounts(NamedTuple):
  """Judged pairs and those that followed, each `[3]` int, by `PROTOCOLS`."""

  followed: jax.Array
  pairs: jax.Array


def measure(
  model: reconstruction.Autoencoder,
  judges: judges_lib.Judges,
  images: jax.Array,
  labels: jax.Array,
) -> dict[str, Any]:
  """Measures an autoencoder: entries of a row, see `summarize`.

  InputError if the judges see images of another shape or range.
  """
  found = (*model.image_shape, *model.image_range)
  wanted = (*judges.image_shape, 0, 1)
  if found != wanted:
    raise errors.InputError(
      f'the model has images of (H, W, C, lowest, highest) = {found};'
      f' accepted: {wanted}, as its judges see.'
    )
  images, labels = jnp.asarray(images), jnp.asarray(labels)
  return summarize(
    _measure(judges.module, model, judges.params, images, labels)
  )


def count_class_swaps(
  model: reconstruction.Autoencoder,
  classify: judges_lib.ClassifyFn,
  images: jax.Array,
  labels: jax.Array,
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
  """
  num_batches = images.shape[0] // SWAP_BATCH_SIZE
  split = lambda x: x[: num_batches * SWAP_BATCH_SIZE].reshape(
    num_batches, SWAP_BATCH_SIZE, *x.shape[1:]
  )
  keys = jax.random.split(jax.random.key(0), num_batches)

  def count(args):
    batch_images, batch_labels, key = args
    pair_key, own_key, swap_key = jax.random.split(key, 3)
    permutation = jax.random.permutation(pair_key, SWAP_BATCH_SIZE)
    code = model.encode(batches.to_float(batch_images))
    reconstructions = model.decode(code)
    swapped = model.decode(codes.swap_factors(code, permutation))
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


def evaluate_autoencoder(
  model: reconstruction.Autoencoder,
  judge: Callable[..., jax.Array],
  judge_params: codes.Params,
  images: jax.Array,
  labels: jax.Array,
) -> dict[str, jax.Array]:
  """Measures an autoencoder by N judges, whose parameters are stacked.

  `judge` is a `judges.ClassifyFn` with parameters first. Returns a scalar
  `mse`; `[N]` `judge_accuracy` on the images and
  `judge_accuracy_reconstructions`; `[N, 3]` `followed` and `pairs`.
  """

  def with_one_judge(params):
    classify = functools.partial(judge, params)
    counts = count_class_swaps(model, classify, images, labels)
    args = classify, images, labels
    reconstruct = lambda x: model.decode(model.encode(x))
    return {
      'judge_accuracy': judges_lib.compute_accuracy(*args),
      'judge_accuracy_reconstructions': judges_lib.compute_accuracy(
        *args, reconstruct
      ),
      **counts._asdict(),
    }

  return {
    'mse': reconstruction.compute_mse(model, images),
    **jax.vmap(with_one_judge)(judge_params),
  }


def summarize(measured: dict[str, jax.Array]) -> dict[str, Any]:
  """Turns what `evaluate_autoencoder` measured into entries of a row.

  They are JSON values: `mse`, `psnr`; each protocol's rate as the mean over
  judges, None where a judge is left without pairs; for `class_swaps` also the
  rate and the pairs of each judge, and the standard deviation of the rates
  (divisor n - 1; None for one judge).
  """
  measured = {name: np.asarray(value) for name, value in measured.items()}
  mse = float(measured['mse'])
  row = {'mse': mse, 'psnr': reconstruction.psnr(mse)}
  for i, protocol in enumerate(PROTOCOLS):
    pairs, followed = measured['pairs'][:, i], measured['followed'][:, i]
    rates = (followed / pairs).tolist() if np.all(pairs) else None
    row[protocol] = rates and float(np.mean(rates))
    if i == 0:
      several = rates is not None and len(rates) > 1
      row['class_swaps_std'] = float(np.std(rates, ddof=1)) if several else None
      row['class_swaps_by_judge'] = rates
      row['class_swaps_pairs'] = pairs.tolist()
  for name in ('judge_accuracy', 'judge_accuracy_reconstructions'):
    row[name] = float(np.mean(measured[name]))
  return row


@functools.partial(jax.jit, static_argnums=0)
def _measure(module, model, *args):
  judge = functools.partial(judges_lib.classify, module)
  return evaluate_autoencoder(model, judge, *args)
