"""Scores from mutual information: MIG and modularity.

Codes are discretised into bins of equal width between a unit's smallest and
largest value, 20 by default, and information is that of the empirical joint
distribution (the plug-in estimate), in nats. That is the convention of
Locatello et al. (2019) for codes without a distribution; Chen et al. (2018)
integrate over the posterior of a variational autoencoder, which these models
have none of. The estimate of independent variables is not 0 but some
(bins - 1) (classes - 1) / (2 M), alike for all units.
"""

from collections.abc import Sequence

import numpy as np

from jacsup_jax.evaluation.disentanglement import scores

BINS = 20


def compute_mig(
    codes: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
    *,
    bins: int = BINS,
) -> scores.Score:
  """Computes the mutual information gap.

  For each label v the information of the unit that has the most of it, less
  that of the next, over the entropy of v; the mean over labels. Chen et al.
  (2018). In [0, 1]: 1 if one unit determines v and no other says
  anything of it. A constant unit has no information, which is defined.

  A rotation that spreads each label over all units alike scores 0; a random one
  does not have to (0.06 to 0.17 were seen for five and eight labels of 10 and 7
  classes). Independent codes: 0 but for the estimate's noise.

  Args:
    codes: `[M, U]`.
    labels: `[M, L]` int.
    label_names: L names, for reasons.
    bins: of each unit.

  Returns:
    Score with a part per label. Undefined for a constant label, and for codes
    of one unit, where there is no gap.

  Raises:
    InputError: see `scores.check_arrays`.
  """
  codes, classes, names = scores.check_arrays(codes, labels, label_names)
  fault = scores.find_fault(codes)
  if fault is None and codes.shape[1] < 2:
    fault = 'MIG needs two units or more, and the code has one'
  if fault:
    return scores.undefined(fault)
  varying, reasons = scores.describe_constants(classes, names)
  information = mutual_information(
      discretise(codes, bins), classes[:, varying]
  )
  parts = []
  for column, label in zip(information.T, classes[:, varying].T):
    second, first = np.sort(column)[-2:]
    parts.append(float((first - second) / entropy(label)))
  return scores.mean_over_labels(
      scores.place(parts, varying, len(names)), reasons
  )


def compute_modularity(
    codes: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
    *,
    bins: int = BINS,
) -> scores.Score:
  """Computes modularity: whether a unit has information of one label alone.

  With m_ul the information of unit u on label l and theta_u the largest of
  them, 1 - sum over the other labels of m_ul^2 / (theta_u^2 (L - 1)); the mean
  over units. Ridgeway & Mozer (2018). In [0, 1]. How much theta_u is does not
  count: independent codes score by the noise of m_ul alone, 0 only where that
  is alike for all labels (0.2 was seen), and a code is not punished for what it
  lacks. A rotation scores 0 where every unit has as much of each label, as by a
  Hadamard matrix; random ones of five labels had 0.8.

  Args:
    codes: `[M, U]`.
    labels: `[M, L]` int.
    label_names: L names, for reasons.
    bins: of each unit.

  Returns:
    Score with a part per unit. A unit without any information, as a constant
    one, is undefined and not in the mean; constant labels are left out. With
    fewer than two labels that vary nothing is defined.

  Raises:
    InputError: see `scores.check_arrays`.
  """
  codes, classes, names = scores.check_arrays(codes, labels, label_names)
  fault = scores.find_fault(codes)
  if fault:
    return scores.undefined(fault)
  varying, reasons = scores.describe_constants(classes, names)
  if len(varying) < 2:
    return scores.undefined(
        f'modularity needs two labels that vary, found {len(varying)}', *reasons
    )
  return modularity_of_information(
      mutual_information(discretise(codes, bins), classes[:, varying]), reasons
  )


def modularity_of_information(
    information: np.ndarray, reasons: Sequence[str] = ()
) -> scores.Score:
  """Computes modularity from a table, see `compute_modularity`.

  Args:
    information: `[U, L]` not below 0, L of 2 or more.
    reasons: to hand on.
  """
  parts = []
  for row in information:
    top = row.max()
    rest = np.sum(row**2) - top**2
    parts.append(
        float(1 - rest / (top**2 * (len(row) - 1))) if top > 0 else None
    )
  empty = [unit for unit, part in enumerate(parts) if part is None]
  if empty:
    reasons = (*reasons, f'no information in {scores.name_units(empty)}')
  return scores.mean_over_labels(parts, reasons)


def discretise(codes: np.ndarray, bins: int = BINS) -> np.ndarray:
  """Puts each unit's values into bins of equal width over its range.

  Args:
    codes: `[M, U]` finite.
    bins: how many.

  Returns:
    `[M, U]` int from 0 to bins - 1; 0 everywhere for a constant unit.
  """
  low, high = codes.min(axis=0), codes.max(axis=0)
  # Of a constant unit nothing is divided by 0.
  width = np.where(high > low, high - low, 1.0)
  scaled = (codes - low) / width * bins
  # The largest value belongs to the last bin.
  return np.minimum(scaled.astype(np.int64), bins - 1)


def entropy(classes: np.ndarray) -> float:
  """Returns the empirical entropy of `[M]` classes, in nats."""
  share = np.bincount(classes) / len(classes)
  share = share[share > 0]
  return float(-np.sum(share * np.log(share)))


def mutual_information(units: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Computes the empirical mutual information of each unit with each label.

  Args:
    units: `[M, U]` int from 0, discretised codes.
    classes: `[M, L]` int from 0.

  Returns:
    `[U, L]` in nats, not below 0.
  """
  table = np.zeros((units.shape[1], classes.shape[1]))
  bins = units.max(axis=0) + 1
  for label, column in enumerate(classes.T):
    num_classes = int(column.max()) + 1
    for unit in range(units.shape[1]):
      counts = np.bincount(
          units[:, unit] * num_classes + column,
          minlength=bins[unit] * num_classes,
      ).reshape(bins[unit], num_classes)
      joint = counts / len(column)
      product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
      seen = joint > 0
      table[unit, label] = np.sum(
          joint[seen] * np.log(joint[seen] / product[seen])
      )
  # Rounding may leave what should be 0 just below, or just above, it.
  table[table < 1e-12] = 0
  return table
