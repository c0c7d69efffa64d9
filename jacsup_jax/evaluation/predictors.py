"""How well a code predicts one label: by one unit (SAP), or by all (DCI)."""

import numpy as np

# On a thousand units a forest takes minutes a label.
WIDEST_FOREST = 64
_DEPTHS = (2, 4, 8, 16)
_PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)


def threshold_accuracies(codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Computes the best balanced accuracy `[U]` of thresholds on each unit.

  Codes are `[M, U]`, classes `[M]` int from 0 without gaps. A linear SVM per
  unit and label would take a quarter of an hour for a face code.
  """
  # Each class counts the same, however many examples it has.
  weights = 1 / np.bincount(classes)
  search = _search_one_threshold if len(weights) == 2 else _search_thresholds
  found = []
  # Some units at a time, to bound memory.
  for values in np.split(codes, range(512, codes.shape[1], 512), axis=1):
    order = np.argsort(values, axis=0, kind='stable')
    values = np.take_along_axis(values, order, axis=0)
    # A threshold lies between different values only.
    before = np.zeros(values.shape, bool)
    before[1:] = np.diff(values, axis=0) > 0
    found.append(search(classes[order], before, weights))
  return np.concatenate(found) / len(weights)


def predict(codes: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, float]:
  """Predicts a label from the whole code.

  Up to `WIDEST_FOREST` units by a random forest, where importance is the
  decrease of impurity; else by lasso regressions of the classes on standardised
  units, where it is the size of the weights. 80 % of the examples are fitted,
  10 % choose the depth or penalty, the simplest of equals, 10 % are reported.

  Returns `[U]` importance with a sum of 1, or 0 where there is nothing to find,
  and the accuracy on new examples.
  """
  order = np.random.default_rng(0).permutation(len(codes))
  ends = np.round(np.cumsum((0.8, 0.1)) * len(codes)).astype(int)
  fitted, choosing, reported = np.split(order, ends)
  if len(np.unique(classes[fitted])) < 2:  # There is nothing to find.
    right = np.mean(classes[reported] == classes[fitted][0])
    return np.zeros(codes.shape[1]), float(right)
  fit = _fit_forests if codes.shape[1] <= WIDEST_FOREST else _fit_lassos
  candidates = fit(codes[fitted], classes[fitted])
  score = lambda guess, rows: np.mean(guess(codes[rows]) == classes[rows])
  # max is the first of equals.
  importance, guess = max(candidates, key=lambda own: score(own[1], choosing))
  return importance, float(score(guess, reported))


def _fit_forests(codes, classes):
  """Yields importance and a predict function, for forests of rising depth."""
  from sklearn import ensemble

  for depth in _DEPTHS:
    forest = ensemble.RandomForestClassifier(
      10,
      max_depth=depth,
      # A split that does not see the best unit would credit others.
      max_features=None,
      # For little data threads take longer than trees.
      n_jobs=-1 if codes.size > 2**17 else 1,
      random_state=0,
    ).fit(codes, classes)
    yield forest.feature_importances_, forest.predict


def _fit_lassos(codes, classes):
  """Yields importance and a predict function, for falling penalties."""
  from sklearn import linear_model
  from sklearn import preprocessing

  scaler = preprocessing.StandardScaler().fit(codes)
  units = scaler.transform(codes)
  seen = np.unique(classes)
  is_class = (classes[:, None] == seen).astype(float)
  shares = is_class.mean(axis=0)
  products = units.T @ units
  for penalty in _PENALTIES:
    lasso = linear_model.Lasso(
      penalty, fit_intercept=False, precompute=products
    ).fit(units, is_class - shares)
    size = np.abs(lasso.coef_).sum(axis=0)

    def guess(x, weights=lasso.coef_.T):
      return seen[np.argmax(scaler.transform(x) @ weights + shares, axis=1)]

    yield size / (size.sum() or 1.0), guess


def _search_one_threshold(classes, before, weights):
  """Returns `[U]` sums of two recalls; classes and `before` are `[M, U]`."""
  # Recall of class 0 below each example, less what is lost of class 1.
  gained = np.where(classes == 0, weights[0], -weights[1])
  below = np.cumsum(gained, axis=0)[:-1]
  # Either class may be the one below the threshold.
  return 1 + np.max(np.abs(below) * before[1:], axis=0, initial=0.0)


def _search_thresholds(classes, before, weights):
  """Returns `[U]` sums of recalls, the best of all by dynamic programming."""
  num_examples, units = classes.shape
  # Best sum so far, where the example's interval is the t-th and of class c.
  best = np.zeros((units, len(weights), len(weights)))
  for i in range(num_examples):
    if i:
      # Into the next interval, of any class.
      onward = best[:, :-1].max(axis=-1, keepdims=True)
      better = np.maximum(best[:, 1:], onward)
      best[:, 1:] = np.where(before[i, :, None, None], better, best[:, 1:])
    label = classes[i]
    best[np.arange(units), :, label] += weights[label][:, None]
  return best.max(axis=(1, 2))
