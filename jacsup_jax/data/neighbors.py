"""Find the nearest neighbours of images in pixels, by scikit-learn."""

import jax
import numpy as np

from jacsup_jax.core import errors

# Distances are those of the leading principal components, which have nearly all
# of the variance of digits: several times faster, and less of it is noise.
_NUM_COMPONENTS = 50


def find(images: jax.Array | np.ndarray, num_neighbors: int) -> np.ndarray:
  """Finds the nearest neighbours of each of M images `[M, H, W, C]`.

  By Euclidean distance of their first 50 principal components. Returns rows
  `[M, num_neighbors]` int32, the nearest first; never the image itself, but for
  another one that is equal to it. InputError unless `num_neighbors` is from 1
  to M - 1.
  """
  # Two fifths of what a command would import, and few look for neighbours.
  from sklearn import decomposition
  from sklearn import neighbors as nearest

  flat = np.asarray(images).reshape(len(images), -1).astype(np.float32)
  if not 1 <= num_neighbors < len(flat):
    raise errors.InputError(
      f'--num_neighbors={num_neighbors} of {len(flat)} images; accepted: from'
      f' 1 to {len(flat) - 1}.'
    )
  if min(flat.shape) > _NUM_COMPONENTS:
    # Eigenvectors of the covariance: the same in each run.
    pca = decomposition.PCA(_NUM_COMPONENTS, svd_solver='covariance_eigh')
    flat = pca.fit_transform(flat)
  search = nearest.NearestNeighbors(
    n_neighbors=num_neighbors, algorithm='brute'
  )
  # Without arguments an image is not its own neighbour.
  return search.fit(flat).kneighbors(return_distance=False).astype(np.int32)
