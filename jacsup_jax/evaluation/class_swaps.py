"""Class swaps: how often an image's class follows swapped factors.

Models have images in [0, 1]; data are `[M, H, W, C]` uint8 images and `[M]` int
labels. Images are decoded and judged in chunks of n batches of B.
"""

from collections.abc import Iterator, Sequence
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

# The family of the released code's judge, and its protocols: a column of
# results.json for each. Other families have the first one.
PAPER_FAMILY = 'mlp'
PAPER_PROTOCOLS = (
    'class_swaps_mlp', 'class_swaps_noisy_judge', 'class_swaps_true_labels',
)  # fmt: skip
PROTOCOL = (
  'class_swaps: pairs within batches of 128 in order, the class of an image'
  " is the judge's opinion of its reconstruction, equal opinions left out;"
  ' _mlp, _cnn, _svm: mean over the judges of a family, and _std their standard'
  ' deviation (divisor n - 1); without a family: the lowest of these;'
  ' _noisy_judge: perceptrons with their dropout on; _true_labels: perceptrons,'
  ' classes are true labels'
)


class Decoded(NamedTuple):
  """What a model makes of a chunk of n batches of B images."""

  reconstructions: jax.Array  # [n, B, H, W, C] in [0, 1]
  swapped: jax.Array  # the same with the factors of the partners
  partners: np.ndarray  # [n, B] int
  keys: jax.Array  # [2, n], for the dropout of judges
  rows: np.ndarray  # [n, B] int, positions of the images
  is_first: np.ndarray  # [n, B] bool: not an image that fills up the end
  is_paired: np.ndarray  # [n] bool: batches whose pairs count


class Counts(NamedTuple):
  """What N judges of a family saw, by protocol of `PAPER_PROTOCOLS`."""

  followed: np.ndarray  # [P, N] int
  pairs: np.ndarray  # [P, N] int
  correct: np.ndarray  # [N] int, reconstructions


def check_model(
  model: reconstruction.Autoencoder, judges: Sequence[Any]
) -> None:
  """Raises InputError if judges see images of another shape or range."""
  found = (*model.image_shape, *model.image_range)
  for judge in judges:
    wanted = (*judge.image_shape, 0, 1)
    if found != wanted:
      raise errors.InputError(
        f'the model has images of (H, W, C, lowest, highest) = {found};'
        f' accepted: {wanted}, as its judges see.'
      )


def decode_pairs(
  model: reconstruction.Autoencoder, images: np.ndarray
) -> Iterator[Decoded]:
  """Reconstructs images, and swaps factors at random within batches of 128.

  Images are `[M, H, W, C]` uint8. Batches are in the order of the data; the
  last, incomplete one has no pairs. InputError if there are no images.
  """
  count, size = len(images), judges_lib.BATCH_SIZE
  if count == 0:
    raise errors.InputError('found no image to evaluate; accepted: 1 or more.')
  rows = judges_lib.list_rows(count)
  positions = np.arange(rows.size).reshape(rows.shape)
  keys = jax.random.split(jax.random.key(0), rows.shape[:2])
  for own, where, own_keys in zip(rows, positions, keys):
    reconstructions, swapped, partners, noise = _decode(
      model, jnp.asarray(images[own]), own_keys
    )
    yield Decoded(
        reconstructions, swapped, np.asarray(partners), noise, own,
        where < count, where[:, -1] < count // size * size,
    )  # fmt: skip


def count_swaps(judge: Any, decoded: Decoded, labels: np.ndarray) -> Counts:
  """Counts how often the class of an image follows swapped factors.

  Table 1 of Lezama (2019), by N judges of one family; `labels` are `[M]`, of
  the whole data set. By protocol:

  class_swaps_mlp, and of other families: the class of an image is the judge's
    opinion of its reconstruction; pairs of equal opinions are left out; a swap
    counts if the judge sees the donor's class in the swapped image. (The
    released code's rule, with the judge in evaluation mode.)
  class_swaps_noisy_judge: the same with the judge's dropout switched on in
    every pass, as the released code left it.
  class_swaps_true_labels: pairs of different true labels; a swap counts if the
    judge sees the donor's label in the swapped image.
  """
  labels = np.asarray(labels)[decoded.rows][None]
  own = judge.classify(decoded.reconstructions)
  seen = judge.classify(decoded.swapped)
  judged = [(own, seen)]
  if judge.family == PAPER_FAMILY:
    own_keys, swap_keys = decoded.keys
    noisy = (
      judge.classify(decoded.reconstructions, own_keys),
      judge.classify(decoded.swapped, swap_keys),
    )
    judged += [noisy, (np.broadcast_to(labels, seen.shape), seen)]
  followed, pairs = [], []
  for before, after in judged:
    donors = np.take_along_axis(before, decoded.partners[None], axis=-1)
    differ = (before != donors) & decoded.is_paired[None, :, None]
    pairs.append(np.sum(differ, axis=(1, 2)))
    followed.append(np.sum(differ & (after == donors), axis=(1, 2)))
  correct = np.sum((own == labels) & decoded.is_first[None], axis=(1, 2))
  return Counts(np.stack(followed), np.stack(pairs), correct)


def measure(
  model: reconstruction.Autoencoder,
  judges: Sequence[Any],
  images: np.ndarray,
  labels: np.ndarray,
) -> dict[str, Any]:
  """Measures class swaps by judges of several families: entries of a row.

  Images are `[M, H, W, C]` uint8, labels `[M]` int. InputError if the
  judges see images of another shape or range.
  """
  check_model(model, judges)
  counts = add_counts(
    {judge.family: count_swaps(judge, decoded, labels) for judge in judges}
    for decoded in decode_pairs(model, images)
  )
  return summarize(counts, len(images))


def add_counts(parts: Iterator[dict[str, Counts]]) -> dict[str, Counts]:
  """Adds the counts of chunks, by family."""
  add = functools.partial(jax.tree.map, np.add)
  return functools.reduce(add, parts)


def summarize(counts: dict[str, Counts], num_images: int) -> dict[str, Any]:
  """Turns counts by family into entries of a row, JSON values.

  For each family F: `class_swaps_F`, the mean over its judges, None if a judge
  has no pairs; the same with `_std` (divisor n - 1; None for one judge),
  `_by_judge` and `_pairs`; `judge_accuracy_reconstructions_F`. Perceptrons have
  the other protocols of the paper, too. `class_swaps` is the lowest of the
  families' means, None if one has none, and `class_swaps_family` its name.
  """
  row = {'class_swaps': None, 'class_swaps_family': None}
  for family, own in counts.items():
    name = f'class_swaps_{family}'
    rates = _compute_rates(own, 0)
    row[name] = _mean(rates)
    several = rates is not None and len(rates) > 1
    row[f'{name}_std'] = float(np.std(rates, ddof=1)) if several else None
    row[f'{name}_by_judge'] = rates
    row[f'{name}_pairs'] = own.pairs[0].tolist()
    accuracy = float(np.mean(own.correct / num_images))
    row[f'judge_accuracy_reconstructions_{family}'] = accuracy
    if family == PAPER_FAMILY:
      for i, protocol in enumerate(PAPER_PROTOCOLS[1:], start=1):
        row[protocol] = _mean(_compute_rates(own, i))
  means = {family: row[f'class_swaps_{family}'] for family in counts}
  if None not in means.values():
    lowest = min(means, key=means.get)
    row |= {'class_swaps': means[lowest], 'class_swaps_family': lowest}
  return row


def _compute_rates(counts, protocol):
  """Returns the rate of each judge, or None if one has no pairs."""
  pairs = counts.pairs[protocol]
  return (counts.followed[protocol] / pairs).tolist() if pairs.all() else None


def _mean(rates):
  return rates and float(np.mean(rates))


@jax.jit
def _decode(model, images, keys):
  def decode(args):
    batch, key = args
    pair_key, *noise_keys = jax.random.split(key, 3)
    partners = jax.random.permutation(pair_key, batch.shape[0])
    code = model.encode(batches.to_float(batch))
    swapped = model.decode(codes.swap_factors(code, partners))
    return model.decode(code), swapped, partners, jnp.stack(noise_keys)

  *decoded, noise = jax.lax.map(decode, (images, keys))
  return *decoded, noise.swapaxes(0, 1)
