"""Scores from predicting labels by a code: SAP and DCI."""

from collections.abc import Sequence
import functools

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.evaluation.disentanglement import scores

PREDICTORS = ('random_forest', 'lasso', 'gradient_boosting')
# A tree looks at all units in every split: of a thousand it would take minutes
# a label.
WIDEST_FOREST = 64
# Eastwood & Williams choose a forest's depth, label by label, on held-out
# examples; theirs have ten trees.
_DEPTHS = (2, 4, 8, 16)
_TREES = 10
# Numbers for which threads take longer than trees.
_SMALL = 2**17
# Of a lasso, chosen in the same way; of units with a deviation of 1, where a
# class is 0 or 1. The largest first.
_PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)
# Of examples: to fit, to choose the depth, to report on.
_SHARES = (0.8, 0.1, 0.1)
_FEWEST = 20
# Numbers that are sorted at a time.
_AT_ONCE = 2**23
_DCI_NAMES = (
    'dci_disentanglement', 'dci_completeness', 'dci_informativeness'
)  # pyformat: disable


def compute_sap(
    codes: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
    *,
    continuous: Sequence[bool] | None = None,
) -> scores.Score:
  """Computes the separated attribute predictability.

  For each label how well single units predict it: the best of them less the
  next; the mean over labels. Kumar et al. (2018): a class is predicted by
  thresholds on the unit, fitted to the same examples that are reported on to
  have the most balanced accuracy (the mean of the classes' recalls); a
  continuous label by a line, with its R^2. Here C classes have up to C - 1
  thresholds, the best of all; what is between two of them is any one class. (In
  disentanglement_lib a linear support vector machine stands for thresholds, and
  other examples are reported on.)

  In [0, 1 - 1 / C] for C classes, as no unit is worse than chance; [0, 1] for
  R^2. So an identity of binary labels scores 0.5, of 10 classes 0.9: a score of
  at least 0.9 is not possible below 10 classes. A constant unit is chance,
  which is defined. Independent codes and a rotation that spreads each label
  over all units alike: near 0. A random one does not have to be: of five labels
  of 10 classes four had 0.04 to 0.14.

  Args:
    codes: `[M, U]`.
    labels: `[M, L]` int.
    label_names: L names, for reasons.
    continuous: of each label, whether its integers are amounts; none by
      default.

  Returns:
    Score with a part per label. Undefined for a constant label, and for codes
    of one unit, where there is no next one.

  Raises:
    InputError: see `scores.check_arrays`.
  """
  amounts = np.asarray(labels)
  codes, classes, names = scores.check_arrays(codes, labels, label_names)
  continuous = continuous or [False] * len(names)
  if len(continuous) != len(names):
    raise errors.InputError(
        f'found {len(continuous)} values of continuous for {len(names)} labels;'
        ' accepted: as many of both.'
    )
  fault = scores.find_fault(codes)
  if fault is None and codes.shape[1] < 2:
    fault = 'SAP needs two units or more, and the code has one'
  if fault:
    return scores.undefined(fault)
  varying, reasons = scores.describe_constants(classes, names)
  parts = []
  for label in varying:
    if continuous[label]:
      predictability = squared_correlations(codes, amounts[:, label])
    else:
      predictability = threshold_accuracies(codes, classes[:, label])
    second, first = np.sort(predictability)[-2:]
    parts.append(float(first - second))
  return scores.mean_over_labels(
      scores.place(parts, varying, len(names)), reasons
  )


def squared_correlations(codes: np.ndarray, amounts: np.ndarray) -> np.ndarray:
  """Returns `[U]`, R^2 of a line from each unit to an amount that varies."""
  codes = codes - codes.mean(axis=0)
  amounts = amounts - amounts.mean()
  spread = np.sum(codes**2, axis=0) * np.sum(amounts**2)
  # A line from a constant unit explains nothing.
  squares = np.square(amounts @ codes) / np.where(spread > 0, spread, 1.0)
  return np.where(spread > 0, squares, 0.0)


def threshold_accuracies(codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Computes the best balanced accuracy of thresholds on each unit.

  Args:
    codes: `[M, U]` finite.
    classes: `[M]` int from 0, each of the C classes at least once.

  Returns:
    `[U]` in [1 / C, 1], of up to C - 1 thresholds.
  """
  # Each class counts the same, however many examples it has.
  weights = 1 / np.bincount(classes)
  search = _search_one_threshold if len(weights) == 2 else _search_thresholds
  width = max(1, _AT_ONCE // len(codes))
  found = []
  for start in range(0, codes.shape[1], width):
    values = codes[:, start : start + width]
    order = np.argsort(values, axis=0, kind='stable')
    values = np.take_along_axis(values, order, axis=0)
    # A threshold lies between different values only.
    before = np.zeros(values.shape, bool)
    before[1:] = np.diff(values, axis=0) > 0
    found.append(search(classes[order], before, weights))
  return np.concatenate(found) / len(weights)


def compute_dci(
    codes: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
    *,
    predictor: str | None = None,
    seed: int = 0,
) -> dict[str, scores.Score]:
  """Computes disentanglement, completeness and informativeness.

  Eastwood & Williams (2018). A predictor of each label from the whole code says
  how important each unit u is to it, R_ul. Disentanglement of a unit is 1 less
  the entropy, to the base of L, of its importance over labels, and their mean
  is weighted by what a unit has of all importance; completeness of a label is
  1 less the entropy, to the base of U, of the units' importance to it;
  informativeness is how well it is predicted.

  Conventions. Of the examples, shuffled by `seed`, 80 % are fitted, 10 % choose
  the depth of a forest (2, 4, 8 or 16, the smallest of equals), 10 % are
  reported on. Labels are classes, so predictors are classifiers and
  informativeness is the share that is right, in [0, 1] with chance above 0 (the
  paper has amounts, and the error of regression).

  random_forest: ten trees that look at all units in every split, R the decrease
    of impurity, as in the paper. The default up to `WIDEST_FOREST` units.
  lasso: the paper's other choice, and the default of wider codes. A linear
    regression of each class (0 or 1) on units of deviation 1 with a penalty on
    the sum of weights, chosen as the depth is (0.1 to 0.001, the largest of
    equals); the largest output is predicted, R the sum over classes of a
    weight's size. It finds what is linear alone.
  gradient_boosting: as in disentanglement_lib, scikit-learn's with its
    defaults; some ten times C as slow for C classes.

  R has the sum 1 over units for each label; completeness is the plain mean over
  labels.

  A rotation scores near 0 in disentanglement and completeness with forests
  (three random ones of five labels 0.03 to 0.06), as do independent codes; of
  these a lasso keeps the few units that chance favours, so that both may be
  anything. Informativeness of independent codes is chance, the share of the
  commonest class: not below 0.1 for fewer than 10 classes.

  Args:
    codes: `[M, U]`.
    labels: `[M, L]` int.
    label_names: L names, for reasons.
    predictor: one of `PREDICTORS`; None chooses by the width of the code.
    seed: of the split and the trees.

  Returns:
    Scores `dci_disentanglement` (a part per unit; undefined for fewer than two
    labels that vary), `dci_completeness` and `dci_informativeness` (a part per
    label; the former undefined for codes of one unit). Constant labels are left
    out; all is undefined for fewer than 20 examples.

  Raises:
    InputError: see `scores.check_arrays`; or the predictor is unknown.
  """
  codes, classes, names = scores.check_arrays(codes, labels, label_names)
  predictor = predictor or choose_predictor(codes.shape[1])
  if predictor not in PREDICTORS:
    raise errors.InputError(
        f'predictor {predictor!r}; accepted: {" or ".join(PREDICTORS)}.'
    )
  fault = scores.find_fault(codes)
  if fault is None and len(codes) < _FEWEST:
    fault = f'DCI needs {_FEWEST} examples or more, found {len(codes)}'
  varying, reasons = scores.describe_constants(classes, names)
  if fault is None and not len(varying):
    fault = 'DCI needs a label that varies, found 0'
  if fault:
    return dict.fromkeys(_DCI_NAMES, scores.undefined(fault, *reasons))
  importance, accuracies = [], []
  for label in varying:
    found, accuracy = _predict(codes, classes[:, label], predictor, seed)
    importance.append(found)
    accuracies.append(accuracy)
  disentanglement, completeness = dci_of_importance(
      np.stack(importance, axis=1), [names[label] for label in varying]
  )
  spread = lambda parts: scores.place(parts, varying, len(names))
  return dict(
      zip(
          _DCI_NAMES,
          (
              scores.Score(
                  disentanglement.value,
                  disentanglement.parts,
                  (*disentanglement.reasons, *reasons),
              ),
              scores.Score(
                  completeness.value,
                  tuple(spread(completeness.parts or [None] * len(varying))),
                  (*completeness.reasons, *reasons),
              ),
              scores.mean_over_labels(spread(accuracies), reasons),
          ),
      )
  )


def choose_predictor(num_units: int) -> str:
  """Returns the predictor that `compute_dci` takes by default."""
  return 'random_forest' if num_units <= WIDEST_FOREST else 'lasso'


def dci_of_importance(
    importance: np.ndarray, label_names: Sequence[str] | None = None
) -> tuple[scores.Score, scores.Score]:
  """Computes disentanglement and completeness from a table of importance.

  Args:
    importance: `[U, L]` not below 0.
    label_names: L names, for reasons.

  Returns:
    Scores, see `compute_dci`. A unit that is of no importance has no weight in
    the first, a label that no unit is important to is not in the second.
  """
  units, labels = importance.shape
  names = label_names or [f'label {i}' for i in range(labels)]
  total = importance.sum()
  if labels < 2:
    disentanglement = scores.undefined(
        f'disentanglement of DCI needs two labels that vary, found {labels}'
    )
  elif not total:
    disentanglement = scores.undefined('no unit is of importance to any label')
  else:
    parts = _one_less_entropy(importance)
    weights = importance.sum(axis=1) / total
    value = sum(w * p for w, p in zip(weights, parts) if p is not None)
    idle = [unit for unit, part in enumerate(parts) if part is None]
    disentanglement = scores.Score(
        float(value),
        tuple(parts),
        (f'no importance of {scores.name_units(idle)}',) if idle else (),
    )
  if units < 2:
    completeness = scores.undefined(
        'completeness of DCI needs two units or more, and the code has one'
    )
  else:
    parts = _one_less_entropy(importance.T)
    completeness = scores.mean_over_labels(
        parts,
        [
            f'no unit is of importance to {name}'
            for name, part in zip(names, parts)
            if part is None
        ],
    )
  return disentanglement, completeness


def _search_one_threshold(classes, before, weights):
  """Returns `[U]` sums of two recalls; classes and `before` are `[M, U]`."""
  # Recall of class 0 below each example, less what is lost of class 1.
  gained = np.where(classes == 0, weights[0], -weights[1])
  below = np.cumsum(gained, axis=0)[:-1]
  # Either class may be the one below the threshold.
  return 1 + np.max(np.abs(below) * before[1:], axis=0, initial=0.0)


def _search_thresholds(classes, before, weights):
  """Returns `[U]` sums of recalls, the best of all by dynamic programming.

  The state is the best sum up to an example whose interval is the t-th and has
  class c, of each unit.
  """
  num_examples, units = classes.shape
  best = np.zeros((units, len(weights), len(weights)))
  everything = np.arange(units)
  for i in range(num_examples):
    if i:
      # Into the next interval, of whatever class.
      onward = best[:, :-1].max(axis=-1, keepdims=True)
      better = np.maximum(best[:, 1:], onward)
      best[:, 1:] = np.where(before[i, :, None, None], better, best[:, 1:])
    label = classes[i]
    best[everything, :, label] += weights[label][:, None]
  return best.max(axis=(1, 2))


def _predict(codes, classes, predictor, seed):
  """Returns `[U]` importance to a label, and the accuracy on new examples."""
  order = np.random.default_rng(seed).permutation(len(codes))
  ends = np.round(np.cumsum(_SHARES)[:-1] * len(codes)).astype(int)
  fitted, choosing, reported = np.split(order, ends)
  if len(np.unique(classes[fitted])) < 2:
    # All that is fitted is alike: there is nothing to find.
    right = np.mean(classes[reported] == classes[fitted][0])
    return np.zeros(codes.shape[1]), float(right)
  fit = _fit_lassos if predictor == 'lasso' else _fit_trees
  score = lambda classify, rows: np.mean(classify(codes[rows]) == classes[rows])
  models = fit(codes[fitted], classes[fitted], predictor, seed)
  # max is the first of equals.
  importance, classify = max(models, key=lambda m: score(m[1], choosing))
  return importance, float(score(classify, reported))


def _fit_trees(codes, classes, predictor, seed):
  """Returns (importance, classify) of each depth."""
  # As in `neighbors`: slow to import, and rarely asked for.
  # pylint: disable=import-outside-toplevel
  from sklearn import ensemble

  make = [
      functools.partial(
          ensemble.RandomForestClassifier,
          _TREES,
          max_depth=depth,
          # All units, as in a forest of regressors: fewer would give units
          # importance that were looked at without the best one.
          max_features=None,
          n_jobs=-1 if codes.size > _SMALL else 1,
      )
      for depth in _DEPTHS
  ]
  if predictor == 'gradient_boosting':
    make = [ensemble.GradientBoostingClassifier]
  models = [m(random_state=seed).fit(codes, classes) for m in make]
  return [(model.feature_importances_, model.predict) for model in models]


def _fit_lassos(codes, classes, unused_predictor, unused_seed):
  """Returns (importance, classify) of each penalty."""
  # pylint: disable=import-outside-toplevel
  from sklearn import linear_model

  mean, deviation = codes.mean(axis=0), codes.std(axis=0)
  # A constant unit is 0 and stays it.
  scale = np.where(deviation > 0, deviation, 1.0)
  standardise = lambda x: (x - mean) / scale
  seen = np.unique(classes)
  # The second of two says what the first does.
  wanted = seen[:1] if len(seen) == 2 else seen
  units = np.asfortranarray(standardise(codes))
  products = units.T @ units
  weights, shares = [], []
  for label in wanted:
    is_class = (classes == label).astype(np.float64)
    shares.append(is_class.mean())
    # `[U, penalties]`, each begun at the one before.
    weights.append(
        linear_model.lasso_path(
            units,
            is_class - shares[-1],
            alphas=_PENALTIES,
            precompute=products,
        )[1]
    )
  weights, shares = np.stack(weights, axis=1), np.asarray(shares)

  def make_classify(chosen):
    def classify(x):
      outputs = standardise(x) @ chosen + shares
      if len(seen) == 2:
        outputs = np.concatenate([outputs, 1 - outputs], axis=1)
      return seen[np.argmax(outputs, axis=1)]

    return classify

  models = []
  for chosen in np.moveaxis(weights, -1, 0):
    size = np.sum(np.abs(chosen), axis=1)
    models.append((size / (size.sum() or 1.0), make_classify(chosen)))
  return models


def _one_less_entropy(importance):
  """Returns 1 less the entropy of each row's shares; None for rows of 0."""
  parts = []
  for row in importance:
    total = row.sum()
    if not total:
      parts.append(None)
      continue
    share = row[row > 0] / total
    entropy = -np.sum(share * np.log(share)) / np.log(len(row))
    parts.append(float(1 - entropy))
  return parts
