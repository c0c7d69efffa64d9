"""Thresholds of factors and judges: from where on an attribute is present.

The sign of a factor is no good guess for a rare attribute: trained for
likelihood, the factor is below 0 nearly always. A threshold for each attribute
is chosen on the selection split, never on the data that are reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def choose_thresholds(factors: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Chooses thresholds for the best balanced accuracy.

  The mean of sensitivity and specificity of `factor >= threshold`, over 0 and
  the midpoints of neighboring values; of equals the one closest to 0, so 0 for
  an attribute whose labels have one sign.

  Args:
    factors: `[M, K]`, predicted.
    labels: `[M, K]` in {-1, +1}.

  Returns:
    `[K]` float32.
  """
  factors, present = np.asarray(factors, np.float32), np.asarray(labels) > 0
  order = np.argsort(factors, axis=0)
  values = np.take_along_axis(factors, order, axis=0)
  below = np.cumsum(np.take_along_axis(present, order, axis=0), axis=0)[:-1]
  absent_below = np.arange(1, len(values))[:, np.newaxis] - below
  positive = np.sum(present, axis=0)
  negative = len(values) - positive
  # Twice the balanced accuracy times both counts: integers, so equals are.
  scores = (positive - below) * negative + absent_below * positive
  low, high = values[:-1], values[1:]
  with np.errstate(invalid='ignore'):  # Factors that are not finite.
    middle = (low.astype(np.float64) + high) / 2
  middle = middle.astype(np.float32)
  # Rounded to the lower value, it would not be above it.
  middle = np.where(middle > low, middle, high)
  scores = np.where((low < high) & np.isfinite(middle), scores, -1)
  # The sign.
  is_positive = factors >= 0
  signs = np.sum(is_positive & present, axis=0) * negative
  signs += np.sum(~is_positive & ~present, axis=0) * positive
  scores = np.concatenate([signs[np.newaxis], scores])
  candidates = np.concatenate([np.zeros_like(factors[:1]), middle])
  is_best = scores == np.max(scores, axis=0)
  best = np.argmin(np.where(is_best, np.abs(candidates), np.inf), axis=0)
  return np.take_along_axis(candidates, best[np.newaxis], axis=0)[0]


def recall(row: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
  """Returns the thresholds `[K]` of a row; 0 in those of older runs."""
  found = row.get('thresholds_by_attribute', {})
  return np.array([found.get(name, 0.0) for name in names], np.float32)
