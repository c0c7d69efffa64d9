"""InfoMEC: modularity, explicitness and compactness as information.

Hsu et al.: Disentanglement via Latent Quantization. NeurIPS 2023. Codes are
`[M, U]`, finite; classes `[M, L]` int from 0, each label with two or more.
"""

from typing import NamedTuple

import numpy as np

# A unit is active if its values extend over more than this share of the widest
# unit's. The released one; of discrete codes all that vary are active.
PRUNING = 1 / 20
# Codes are discrete if no unit has more values, as those of QLAE.
MOST_VALUES = 20
# For the estimator of Ross (2014), as in its release.
_NEIGHBORS = 10


class InfoMec(NamedTuple):
  """Parts of the three scores, each a mean over its parts; NaN: undefined."""

  modularity: np.ndarray  # [U], NaN for units that are not active
  explicitness: np.ndarray  # [L]
  compactness: np.ndarray  # [L]


def compute(
  codes: np.ndarray, classes: np.ndarray, pruning: float = PRUNING
) -> InfoMec:
  """Computes InfoM, InfoE and InfoC.

  InfoM of a unit is the share that its most informed label has of the unit's
  information about all labels, InfoC of a label the share that its best active
  unit has of all active units' information on it; both are scaled from the
  least possible share to 0 and from 1 to 1. Information is divided by the
  label's entropy. InfoE of a label is 1 less the cross-entropy of a logistic
  regression on all units over the label's entropy, on the same examples; units
  are standardized, or of discrete codes one-hot. (The released regression
  weighs classes to be alike, which is another score where they are not.)

  Args:
    codes: `[M, U]`.
    classes: `[M, L]`.
    pruning: share of the range of the widest unit up to which a unit counts as
      inactive, and enters neither InfoM nor InfoC: noise in an unused unit is
      no information. 0 prunes constant units alone.
  """
  discrete = is_discrete(codes)
  information = normalized_information(codes, classes, discrete)
  ranges = np.ptp(codes, axis=0)
  active = ranges > (0.0 if discrete else pruning * ranges.max())
  shares = share_of_largest(information, axis=1)
  return InfoMec(
    np.where(active, shares, np.nan),
    explicitness(codes, classes, discrete),
    share_of_largest(information[active], axis=0),
  )


def is_discrete(codes: np.ndarray) -> bool:
  """Returns whether no unit takes more than `MOST_VALUES` values."""
  return all(len(np.unique(unit)) <= MOST_VALUES for unit in codes.T)


def normalized_information(
  codes: np.ndarray, classes: np.ndarray, discrete: bool
) -> np.ndarray:
  """Computes I(z_u; s_l) / H(s_l), `[U, L]`.

  Of discrete codes by counting, else by nearest neighbors, Ross (2014).
  """
  from sklearn import feature_selection
  from sklearn import metrics

  found = np.zeros((codes.shape[1], classes.shape[1]))
  values = [np.unique(unit, return_inverse=True)[1] for unit in codes.T]
  units = _standardize(codes)
  for label, column in enumerate(classes.T):
    if discrete:
      own = [metrics.mutual_info_score(column, unit) for unit in values]
    else:
      own = feature_selection.mutual_info_classif(
        units,
        column,
        discrete_features=False,
        n_neighbors=_NEIGHBORS,
        random_state=0,
      )
    found[:, label] = np.asarray(own) / entropy(column)
  # Rounding may leave what should be 0 just above it.
  return np.where(found < 1e-12, 0, found)


def share_of_largest(information: np.ndarray, axis: int) -> np.ndarray:
  """Computes the share of the largest along an axis, scaled to [0, 1].

  1 / n of n entries becomes 0. NaN where all are 0, or n is 1 or 0.
  """
  count = np.float64(information.shape[axis])
  with np.errstate(invalid='ignore', divide='ignore'):
    largest = information.max(axis=axis, initial=0.0)
    share = largest / information.sum(axis=axis)
    return (share - 1 / count) / (1 - 1 / count)


def explicitness(
  codes: np.ndarray, classes: np.ndarray, discrete: bool
) -> np.ndarray:
  """Computes InfoE of each label, `[L]`."""
  from sklearn import linear_model
  from sklearn import metrics
  from sklearn import preprocessing

  units = _standardize(codes)
  if discrete:
    units = preprocessing.OneHotEncoder().fit_transform(codes)
  found = []
  for column in classes.T:
    # In effect without a penalty.
    model = linear_model.LogisticRegression(C=1e9, max_iter=200)
    with _quiet():
      predicted = model.fit(units, column).predict_proba(units)
    loss = metrics.log_loss(column, predicted, labels=model.classes_)
    found.append(1 - loss / entropy(column))
  return np.array(found)


def entropy(classes: np.ndarray) -> float:
  """Computes the entropy of `[M]` classes, in nats."""
  shares = np.unique(classes, return_counts=True)[1] / len(classes)
  return float(-np.sum(shares * np.log(shares)))


def _standardize(codes):
  spread = codes.std(axis=0)
  return (codes - codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _quiet():
  """Ignores that a separable label has no finite optimum to converge to."""
  import warnings

  from sklearn import exceptions

  return warnings.catch_warnings(
    action='ignore', category=exceptions.ConvergenceWarning
  )
