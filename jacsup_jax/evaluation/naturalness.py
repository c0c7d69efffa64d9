"""Naturalness: whether images look like real ones, in features of a judge.

Improved precision and recall (Kynkäänniemi et al., 2019) and a Frechet distance
(Heusel et al., 2017). Features are those of a convolutional judge, so none of
these can be compared with published ones in Inception's or VGG's features.
"""

import dataclasses

import numpy as np

# Distances of all pairs are computed.
MOST_IMAGES = 5_120
_NEIGHBORS = 3
_AT_ONCE = 1024
PROTOCOL = (
  f'precision, recall: of {MOST_IMAGES} images at most, within the distance of'
  f' the {_NEIGHBORS}rd nearest neighbor, and frechet: in the last features of'
  ' the first convolutional judge, against real images'
)


@dataclasses.dataclass(frozen=True)
class Manifold:
  """Features of images, with a ball around each.

  The union of the balls, which reach the third nearest neighbor, is an
  estimate of where such images are. `features` are `[M, F]`, `radii` `[M]`.
  """

  features: np.ndarray
  radii: np.ndarray

  @classmethod
  def fit(cls, features: np.ndarray) -> 'Manifold':
    """Fits the balls around features `[M, F]`."""
    from sklearn import neighbors

    count = min(_NEIGHBORS, len(features) - 1)
    search = neighbors.NearestNeighbors(n_neighbors=count, algorithm='brute')
    distances, _ = search.fit(features).kneighbors()
    return cls(features, distances[:, -1])

  def count_share(self, features: np.ndarray) -> float:
    """Returns the share of other images `[N, F]` that lie in any ball."""
    # Products of matrices, in float32, take an eighth of the time that
    # scikit-learn does. Centred, so that little is cancelled.
    centre = self.features.mean(axis=0)
    own, others = self.features - centre, features - centre
    lengths, limits = np.sum(own**2, axis=1), self.radii**2
    inside = []
    for start in range(0, len(others), _AT_ONCE):
      part = others[start : start + _AT_ONCE]
      squares = np.sum(part**2, axis=1)[:, None] + lengths - 2 * part @ own.T
      inside.append(np.any(squares <= limits, axis=1))
    return float(np.mean(np.concatenate(inside)))


def measure(
  real: Manifold, features: np.ndarray, name: str
) -> dict[str, float | None]:
  """Measures images by features `[N, F]` against real ones.

  Returns, with the name after each: `precision`, the share of the images that
  are as real ones may be; `recall`, the share of the real ones that these
  images cover; and `frechet`, from 0 on. None of fewer than two images, or of
  features that are not finite.
  """
  found = dict.fromkeys(['precision', 'recall', 'frechet'])
  if len(features) > 1 and np.all(np.isfinite(features)):
    found = {
      'precision': real.count_share(features),
      'recall': Manifold.fit(features).count_share(real.features),
      'frechet': compute_distance(real.features, features),
    }
  return {f'{score}_{name}': value for score, value in found.items()}


def compute_distance(features: np.ndarray, others: np.ndarray) -> float:
  """Computes the Frechet distance of Gaussians fitted to two sets of features.

  `[M, F]` and `[N, F]`: |m - n|^2 + tr(C + D - 2 (C D)^(1/2)).
  """
  means, covariances = [], []
  for values in (features, others):
    values = np.asarray(values, np.float64)
    means.append(values.mean(axis=0))
    covariances.append(np.cov(values, rowvar=False, ddof=0))
  # tr (C D)^(1/2) is the sum of the roots of the eigenvalues, which are those
  # of a symmetric matrix: C^(1/2) D C^(1/2).
  values, vectors = np.linalg.eigh(covariances[0])
  root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
  product = np.linalg.eigvalsh(root @ covariances[1] @ root)
  mixed = np.sqrt(np.maximum(product, 0)).sum()
  distance = np.sum(np.square(means[0] - means[1]))
  return float(distance + sum(map(np.trace, covariances)) - 2 * mixed)
