"""A judge of classes that is no neural network: a support vector machine.

It sees histograms of oriented gradients (Dalal & Triggs, 2005), compressed to
principal components, with an RBF kernel. scikit-learn trains it; it is stored
as arrays and applied by JAX.
"""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges

# 98.7 % of real test digits with these, trained in some ten seconds.
_MOST_IMAGES, _NUM_COMPONENTS = 20_000, 64
_PENALTY = 10.0
_ORIENTATIONS = 9
_CELLS = 8  # at most, along the shorter side
_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class SvmJudge:
  """One support vector machine, of (H, W, C) images in [0, 1].

  Of S support vectors of F components, and P pairs of classes; `arrays` are
  `mean` `[D]` and `components` `[D, F]` of the histograms, `vectors` `[S, F]`,
  `weights` `[S, P]`, `biases` `[P]`, `gamma` `[]` and the two classes `pairs`
  `[2, P]` of which a positive or negative sum votes for. `accuracy` is that on
  the test split.
  """

  tree: ClassVar[str] = 'arrays'
  num_classes: int
  image_shape: tuple[int, int, int]
  dataset: str
  seeds: tuple[int, ...]
  num_images: int  # trained on, drawn by the seed
  arrays: dict[str, np.ndarray]
  accuracy: tuple[float, ...]
  sha256: str
  family: str = 'svm'

  def describe(self) -> dict[str, Any]:
    """Returns what identifies the judge, for results.json."""
    names = ('family', 'dataset', 'seeds', 'num_images', 'accuracy', 'sha256')
    return {name: getattr(self, name) for name in names}

  def classify(self, images: jax.Array) -> np.ndarray:
    """Returns the classes `[1, n, B]` that it sees in `[n, B, H, W, C]`."""
    return np.asarray(_classify(self.num_classes, self.arrays, images))[None]


def train(
  dataset: str, data: registry.Dataset, test: registry.Dataset, seed: int = 0
) -> SvmJudge:
  """Trains a judge on 20,000 images at most.

  `dataset` is the name that it stores, and `test` is for its accuracy alone.
  InputError if there are labels of one class.
  """
  # Imported here: judges are trained once.
  from sklearn import svm

  judges.check_labels(data)
  order = np.random.default_rng(seed).permutation(len(data))
  chosen = np.sort(order[:_MOST_IMAGES])
  histograms = np.concatenate([
    _compute_histograms(batches.to_float(jnp.asarray(data.images[rows])))
    for rows in np.split(chosen, range(_AT_ONCE, len(chosen), _AT_ONCE))
  ])  # fmt: skip
  mean = histograms.mean(axis=0)
  centred = histograms - mean
  _, vectors = np.linalg.eigh(centred.T @ centred)
  components = np.ascontiguousarray(vectors[:, ::-1][:, :_NUM_COMPONENTS])
  inputs = centred @ components
  gamma = np.float32(1 / np.sum(inputs.var(axis=0)))
  machine = svm.SVC(C=_PENALTY, gamma=gamma, cache_size=500)
  machine.fit(inputs, data.labels[chosen])
  arrays = {
      'mean': mean, 'components': components, 'gamma': gamma,
      **_export(machine),
  }  # fmt: skip
  shape = tuple(data.images.shape[1:])
  made = SvmJudge(
      data.num_classes, shape, dataset, (seed,), len(chosen), arrays, (),
      codes.hash_tree(arrays),
  )  # fmt: skip
  own = judges.compute_accuracy(made, test.images, test.labels)
  return dataclasses.replace(made, accuracy=tuple(own.tolist()))


def compute_histograms(images: jax.Array) -> jax.Array:
  """Computes histograms of oriented gradients of `[B, H, W, C]` images.

  As scikit-image's `hog`, with nine orientations, square cells, of which at
  most eight fit along the shorter side, and L2-Hys over the whole image. Dalal
  and Triggs normalize small blocks, which makes as much of a faint trace that a
  decoder leaves as of a stroke.

  Returns:
    `[B, D]`, in [0, 1].
  """
  cell = -(-min(images.shape[1:3]) // _CELLS)
  down = jnp.zeros_like(images).at[:, 1:-1].set(images[:, 2:] - images[:, :-2])
  right = jnp.zeros_like(images)
  right = right.at[:, :, 1:-1].set(images[:, :, 2:] - images[:, :, :-2])
  size = jnp.hypot(right, down)
  # Where there are colors, the one with the largest gradient counts.
  channel = jnp.argmax(size, axis=-1, keepdims=True)
  take = lambda x: jnp.take_along_axis(x, channel, axis=-1)
  angle = jnp.rad2deg(jnp.arctan2(take(down), take(right))) % 180
  edges = jnp.arange(_ORIENTATIONS) * (180 / _ORIENTATIONS)
  index = jnp.sum(angle >= edges[None, None, None, 1:], axis=-1)
  parts = jax.nn.one_hot(index, _ORIENTATIONS) * take(size)
  count, height, width = images.shape[:3]
  rows, columns = height // cell, width // cell
  parts = parts[:, : rows * cell, : columns * cell]
  parts = parts.reshape(count, rows, cell, columns, cell, _ORIENTATIONS)
  histograms = jnp.mean(parts, axis=(2, 4)).reshape(count, -1)
  return _normalize(jnp.minimum(_normalize(histograms), 0.2))


def _normalize(x):
  squares = jnp.sum(jnp.square(x), axis=1, keepdims=True)
  return x * jax.lax.rsqrt(squares + 1e-10)


_compute_histograms = jax.jit(compute_histograms)


def _export(machine):
  """Returns the arrays of a fitted machine that `_classify` needs.

  scikit-learn has a machine for each pair of classes, on the support vectors
  of the two; here each has one weight for each vector.
  """
  count = len(machine.classes_)
  ends = np.cumsum(machine.n_support_)
  own = [slice(end - n, end) for end, n in zip(ends, machine.n_support_)]
  pairs = [*itertools.combinations(range(count), 2)]
  weights = np.zeros((ends[-1], len(pairs)), np.float32)
  for column, (i, j) in enumerate(pairs):
    weights[own[i], column] = machine.dual_coef_[j - 1, own[i]]
    weights[own[j], column] = machine.dual_coef_[i, own[j]]
  # With two classes, a positive sum means scikit-learn's second one.
  sign = -1 if count == 2 else 1
  return {
    'vectors': machine.support_vectors_.astype(np.float32),
    'weights': sign * weights,
    'biases': (sign * machine.intercept_).astype(np.float32),
    'pairs': machine.classes_[np.array(pairs).T].astype(np.int32),
  }


@functools.partial(jax.jit, static_argnums=0)
def _classify(num_classes, arrays, images):
  vectors = arrays['vectors']
  lengths = jnp.sum(jnp.square(vectors), axis=1)

  def see(batch):
    x = compute_histograms(batch) - arrays['mean'][None]
    x = x @ arrays['components']
    own = jnp.sum(jnp.square(x), axis=1, keepdims=True)
    distances = jnp.maximum(own + lengths[None] - 2 * x @ vectors.T, 0)
    kernel = jnp.exp(-arrays['gamma'] * distances)
    sums = kernel @ arrays['weights'] + arrays['biases'][None]
    first, second = arrays['pairs'][:, None]
    votes = jnp.where(sums > 0, first, second)
    counts = jnp.sum(jax.nn.one_hot(votes, num_classes), axis=1)
    return jnp.argmax(counts, axis=-1)

  return jax.lax.map(see, images)
