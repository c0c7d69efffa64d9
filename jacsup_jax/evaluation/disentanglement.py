"""Scores of how codes and labels go together.

MIG, SAP, DCI, modularity, FactorVAE's score and InfoMEC.

Codes are `[M, U]`, finite; classes `[M, L]` int from 0, each label with two or
more. A score is a mean over parts, one per label or per unit of the code.
"""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from jacsup_jax.data import registry
from jacsup_jax.evaluation import factor_votes
from jacsup_jax.evaluation import infomec
from jacsup_jax.evaluation import predictors
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.models import model as models

# What each metric gives.
SCORES = {
  'mig': ('mig',),
  'sap': ('sap',),
  'dci': ('dci_disentanglement', 'dci_completeness', 'dci_informativeness'),
  'modularity': ('modularity',),
  'factor_vae': ('factor_vae_score',),
  'infomec': ('infom', 'infoe', 'infoc'),
}
METRICS = tuple(SCORES)
# The others have a part per label.
SCORES_OF_UNITS = ('dci_disentanglement', 'modularity', 'infom')
MOST_IMAGES = 10_000
BINS = 20
PROTOCOL = (
  f'codes are (factors, nuisance) of at most {MOST_IMAGES} images, drawn by'
  ' seed 0 where there are more; every value of a label is a class; mig and'
  f' modularity: {BINS} bins of equal width a unit; sap: thresholds with the'
  ' highest balanced accuracy; dci: random forests of ten trees, for'
  f' codes of more than {predictors.WIDEST_FOREST} units a lasso; 80 % of the'
  ' images fitted, 10 % to choose its depth or penalty, 10 % to report on;'
  f' factor_vae: {factor_votes.FITTED} votes a label of'
  f' {factor_votes.EXAMPLES} images to fit, {factor_votes.REPORTED} to report'
  ' on; infom, infoe and infoc: information by nearest neighbors, or by counts'
  f' if no unit has more than {infomec.MOST_VALUES} values, without units whose'
  ' range is at most --infomec_pruning of the widest'
)

# Units, labels that vary, and examples that each score needs.
_NEEDS = {
  'mig': (2, 1, 1),
  'sap': (2, 1, 1),
  'dci_disentanglement': (1, 2, 20),
  'dci_completeness': (2, 1, 20),
  'dci_informativeness': (1, 1, 20),
  'modularity': (1, 2, 1),
  'factor_vae_score': (1, 2, 20),
  'infom': (1, 2, 20),
  'infoe': (1, 1, 20),
  'infoc': (2, 1, 20),
}


@dataclasses.dataclass(frozen=True)
class Score:
  """A score with its parts, or the reasons why some are undefined (None)."""

  value: float | None
  parts: tuple[float | None, ...] = ()
  reasons: tuple[str, ...] = ()


def measure(
  model: models.Model,
  data: registry.Dataset,
  metrics: Sequence[str],
  pruning: float = infomec.PRUNING,
) -> dict[str, Score]:
  """Computes scores of a model's codes of at most `MOST_IMAGES` images.

  They are undefined for models whose factors are the labels. `pruning` is
  InfoMEC's, see `infomec.compute`.
  """
  if model.factors_are_labels:
    undefined = Score(None, reasons=('its factors are the labels',))
    return {s: undefined for metric in metrics for s in SCORES[metric]}
  labels, names = list_labels(data)
  order = np.random.default_rng(0).permutation(len(labels))
  chosen = np.sort(order[:MOST_IMAGES])
  codes = reconstruction.compute_codes(model, jnp.asarray(data.images[chosen]))
  return compute_scores(
    metrics, np.asarray(codes), labels[chosen], names, pruning
  )


def list_labels(data: registry.Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns the labels `[M, L]` of a data set, and their names."""
  if data.attribute_names is not None:
    return np.asarray(data.labels), data.attribute_names
  if data.all_labels is not None:
    return data.all_labels, data.label_names
  return data.labels[:, np.newaxis], ('class',)


def compute_scores(
  metrics: Sequence[str],
  codes: np.ndarray,
  labels: np.ndarray,
  label_names: Sequence[str],
  pruning: float = infomec.PRUNING,
) -> dict[str, Score]:
  """Computes the scores that `SCORES` lists for some metrics.

  Codes are `[M, U]` real numbers, labels `[M, L]` int of any values; constant
  ones are left out and named. `pruning` is InfoMEC's, see `infomec.compute`.
  """
  codes = np.asarray(codes, np.float64)
  classes = [np.unique(column, return_inverse=True)[1] for column in labels.T]
  classes = np.stack(classes, axis=1)
  functions = {
    'mig': compute_mig,
    'sap': compute_sap,
    'dci': compute_dci,
    'modularity': lambda codes, classes: (
      modularity_of_information(mutual_information(discretise(codes), classes)),
    ),
    'factor_vae': compute_factor_vae,
    'infomec': lambda codes, classes: tuple(
      map(_mean, infomec.compute(codes, classes, pruning))
    ),
  }
  varies = classes.max(axis=0) > 0
  constant = tuple(
    f'{name} is the same in all {len(classes)} examples'
    for name in itertools.compress(label_names, ~varies)
  )
  bad = int(np.sum(~np.all(np.isfinite(codes), axis=1)))
  sizes = codes.shape[1], int(np.sum(varies)), len(codes)
  scores = {}
  for metric in metrics:
    found = None
    for i, name in enumerate(SCORES[metric]):
      score = _refuse(name, sizes, bad)
      if score is None:
        found = found or functions[metric](codes, classes[:, varies])
        score = found[i]
      parts = score.parts
      if name not in SCORES_OF_UNITS and parts:
        known = iter(parts)
        parts = tuple(next(known) if does else None for does in varies)
      scores[name] = Score(score.value, parts, (*score.reasons, *constant))
  return scores


def describe(
  scores: dict[str, Score], label_names: Sequence[str]
) -> dict[str, Any]:
  """Returns scores as JSON values, parts of labels by their names."""
  described = {name: dataclasses.asdict(s) for name, s in scores.items()}
  for name, score in described.items():
    if score['parts'] and name not in SCORES_OF_UNITS:
      score['parts'] = dict(zip(label_names, score['parts'], strict=True))
  return described


def compute_mig(codes: np.ndarray, classes: np.ndarray) -> tuple[Score]:
  """Computes the mutual information gap, Chen et al. (2018); parts of labels.

  The information of the unit that has the most of a label, less that of the
  next, over the label's entropy; of codes in bins of equal width, as in
  Locatello et al. (2019). In [0, 1].
  """
  ordered = np.sort(mutual_information(discretise(codes), classes), axis=0)
  entropy = np.diagonal(mutual_information(classes, classes))
  return (_mean((ordered[-1] - ordered[-2]) / entropy),)


def modularity_of_information(information: np.ndarray) -> Score:
  """Computes modularity, Ridgeway & Mozer (2018), from information `[U, L]`.

  1 - sum over the other labels of m_ul^2 / (theta_u^2 (L - 1)), with theta_u
  the largest m_ul of unit u. In [0, 1]; random rotations of five labels: 0.8.
  """
  top = information.max(axis=1)
  rest = np.sum(information**2, axis=1) - top**2
  with np.errstate(invalid='ignore'):
    return _mean(1 - rest / (top**2 * (information.shape[1] - 1)))


def discretise(codes: np.ndarray) -> np.ndarray:
  """Puts each unit's values `[M, U]` into `BINS` of equal width, from 0."""
  low, high = codes.min(axis=0), codes.max(axis=0)
  width = np.where(high > low, high - low, 1.0)  # A constant unit is in bin 0.
  scaled = (codes - low) / width * BINS
  # The largest value belongs to the last bin.
  return np.minimum(scaled.astype(np.int64), BINS - 1)


def mutual_information(units: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Computes the information `[U, L]` of `[M, U]` bins on labels, in nats."""
  from sklearn import metrics

  table = np.zeros((units.shape[1], classes.shape[1]))
  for unit, label in np.ndindex(table.shape):
    own, other = units[:, unit], classes[:, label]
    counts = np.zeros((own.max() + 1, other.max() + 1), np.int64)
    np.add.at(counts, (own, other), 1)
    score = metrics.mutual_info_score(None, None, contingency=counts)
    table[unit, label] = score
  # Rounding may leave what should be 0 just above it.
  return np.where(table < 1e-12, 0, table)


def compute_sap(codes: np.ndarray, classes: np.ndarray) -> tuple[Score]:
  """Computes the separated attribute predictability; parts of labels.

  The balanced accuracy of the single unit that predicts a label best, less that
  of the next. Kumar et al. (2018): a class is predicted by up to C - 1
  thresholds on the unit, fitted to the examples that are reported on. In
  [0, 1 - 1 / C]: labels as codes score 0.5 if they are binary.
  """
  gaps = []
  for column in classes.T:
    accuracies = predictors.threshold_accuracies(codes, column)
    gaps.append(np.diff(np.sort(accuracies)[-2:]).item())
  return (_mean(gaps),)


def compute_dci(
  codes: np.ndarray, classes: np.ndarray
) -> tuple[Score, Score, Score]:
  """Computes disentanglement, completeness and informativeness.

  Eastwood & Williams (2018), by the units' importance to `predictors.predict`.
  Disentanglement of a unit is 1 less the entropy (base L) of its importance
  over labels, weighted by its share of all importance; completeness of a label
  1 less the entropy (base U) of the units' importance to it; informativeness
  the accuracy on new examples.
  """
  found = [predictors.predict(codes, column) for column in classes.T]
  importance, accuracies = zip(*found)
  return (
    *dci_of_importance(np.stack(importance, axis=1)),
    _mean(accuracies),
  )


def compute_factor_vae(codes: np.ndarray, classes: np.ndarray) -> tuple[Score]:
  """Computes FactorVAE's score, see `factor_votes`; parts of labels."""
  if not np.any(np.ptp(codes, axis=0)):
    return (_mean(np.full(classes.shape[1], np.nan)),)
  return (_mean(factor_votes.compute(codes, classes)),)


def dci_of_importance(importance: np.ndarray) -> tuple[Score, Score]:
  """Computes disentanglement and completeness from importance `[U, L]`.

  Units without importance, and labels without important units, are left out.
  """
  weights = importance.sum(axis=1)
  return (
    _mean(_one_less_entropy(importance), weights=weights),
    _mean(_one_less_entropy(importance.T)),
  )


def _refuse(name, sizes, bad):
  """Returns the undefined score of unfit data, None if they are fit."""
  if bad:
    return Score(None, reasons=(f'{bad} of {sizes[-1]} codes are not finite',))
  if all(size >= need for size, need in zip(sizes, _NEEDS[name])):
    return None
  shown = '{} units, {} labels that vary and {} examples'
  reason = f'{name} needs {shown.format(*_NEEDS[name])}: {shown.format(*sizes)}'
  return Score(None, reasons=(reason,))


def _mean(parts, weights=None):
  """Returns the score of the mean of all parts but NaN; how many are NaN."""
  parts = np.array(parts, float)
  defined = ~np.isnan(parts)
  value = None
  if defined.any():
    weights = None if weights is None else weights[defined]
    value = float(np.average(parts[defined], weights=weights))
  shown = tuple(np.where(defined, parts.astype(object), None))
  if defined.all():
    return Score(value, shown)
  reason = f'{np.sum(~defined)} of its {len(parts)} parts hold no information'
  return Score(value, shown, (reason,))


def _one_less_entropy(importance):
  """Returns 1 less the entropy of each row's shares; NaN for rows of 0."""
  from scipy import stats

  with np.errstate(invalid='ignore'):
    return 1 - stats.entropy(importance, base=importance.shape[1], axis=1)
