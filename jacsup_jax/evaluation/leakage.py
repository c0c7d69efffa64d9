"""Leakage: what probes read of an image's class in each part of its code.

Factors should say the class, the nuisance should not: then its accuracy is that
of the most frequent class.
"""

import warnings

import jax.numpy as jnp
import numpy as np

from jacsup_jax.data import registry
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.models import model as models

# Training images of a probe, drawn by seed 0.
MOST_IMAGES = 5_000
_HIDDEN, _EPOCHS = 64, 30
PROTOCOL = (
  f'probe: accuracy of a linear classifier and of a perceptron with {_HIDDEN}'
  ' hidden units for the class, on the factors or on the nuisance alone,'
  f' fitted to {MOST_IMAGES} images at most that are not of this split'
)


def measure(
  model: models.Model, train: registry.Dataset, data: registry.Dataset
) -> dict[str, float | None]:
  """Measures what codes say of the class: entries of a row.

  Probes are trained on images of `train` and scored on all of `data`. Returns
  accuracies in [0, 1]: `probe_linear_factors`, `probe_mlp_factors`,
  `probe_linear_nuisance` and `probe_mlp_nuisance`, None for a code without that
  part, or with numbers that are not finite.
  """
  order = np.random.default_rng(0).permutation(len(train))
  chosen = np.sort(order[:MOST_IMAGES])
  known = _encode(model, train.images[chosen])
  asked = _encode(model, data.images)
  row = {}
  for part, own, other in zip(('factors', 'nuisance'), known, asked):
    found = probe(own, train.labels[chosen], other, data.labels)
    row |= {f'probe_{name}_{part}': x for name, x in found.items()}
  return row


def probe(
  codes: np.ndarray,
  labels: np.ndarray,
  other_codes: np.ndarray,
  other_labels: np.ndarray,
) -> dict[str, float | None]:
  """Trains probes on `[M, U]` codes and scores them on `[N, U]` others.

  Logistic regression, and a perceptron with one hidden layer; units are scaled
  to a deviation of 1. Returns the accuracies of `linear` and `mlp`, None
  without units or of codes that are not finite.
  """
  from sklearn import exceptions
  from sklearn import linear_model
  from sklearn import neural_network
  from sklearn import preprocessing

  probes = {
    'linear': linear_model.LogisticRegression(max_iter=200),
    'mlp': neural_network.MLPClassifier(
        (_HIDDEN,), batch_size=min(100, len(codes)), learning_rate_init=3e-3,
        max_iter=_EPOCHS, random_state=0,
    ),
  }  # fmt: skip
  finite = np.all(np.isfinite(codes)) and np.all(np.isfinite(other_codes))
  if codes.shape[1] == 0 or not finite:
    return dict.fromkeys(probes)
  scaler = preprocessing.StandardScaler().fit(codes)
  codes, other_codes = map(scaler.transform, (codes, other_codes))
  with warnings.catch_warnings():
    # Epochs are few on purpose.
    warnings.simplefilter('ignore', exceptions.ConvergenceWarning)
    return {
      name: float(one.fit(codes, labels).score(other_codes, other_labels))
      for name, one in probes.items()
    }


def _encode(model, images):
  """Encodes `[M, H, W, C]` uint8 images to flat factors and nuisance."""
  found = reconstruction.compute_codes(model, jnp.asarray(images))
  return np.split(np.asarray(found), [model.num_factors], axis=1)
