"""Tests of jacsup_jax.evaluation.thresholds."""

import numpy as np
import pytest

from jacsup_jax.evaluation import thresholds


def _balanced(factors, labels, threshold):
  seen = factors >= threshold
  return np.mean(seen[labels > 0]) + np.mean(~seen[labels < 0])


def test_thresholds_by_hand():
  labels = np.array([
      [-1, -1, 1, -1, 1],
      [-1, 1, 1, 1, -1],
      [-1, -1, 1, -1, 1],
      [1, 1, 1, 1, -1],
  ])  # fmt: skip
  factors = np.array([
      # Separated below 0; two cuts that are right for 3 of 4; labels of one
      # sign; 0 separates as well as 1.25 would; a constant.
      [-9.0, 1.0, -2.0, -0.5, 3.0],
      [-8.0, 2.0, -1.0, 3.0, 3.0],
      [-7.0, 3.0, -3.0, -1.0, 3.0],
      [-5.0, 4.0, -4.0, 4.0, 3.0],
  ])  # fmt: skip
  found = thresholds.choose_thresholds(factors, labels)
  assert found.dtype == np.float32
  # The second: 1.5 and 3.5 are equals.
  np.testing.assert_array_equal(found, [-6, 1.5, 0, 0, 0])


def test_no_threshold_is_better():
  random = np.random.default_rng(0)
  # Ties: factors have one digit.
  factors = np.round(random.normal(-2, 1, (60, 4)), 1).astype(np.float32)
  labels = np.where(factors + random.normal(1, 1, (60, 4)) > 0, 1, -1)
  found = thresholds.choose_thresholds(factors, labels)
  for own, signs, threshold in zip(factors.T, labels.T, found):
    scores = [_balanced(own, signs, x) for x in np.append(own, 0)]
    assert _balanced(own, signs, threshold) == pytest.approx(max(scores))


def test_neighboring_floats_are_told_apart():
  low = np.float32(1)
  high = np.nextafter(low, np.float32(2))
  factors = np.array([[low], [high]])
  [found] = thresholds.choose_thresholds(factors, np.array([[-1], [1]]))
  assert low < found <= high


def test_factors_that_are_not_finite_leave_a_threshold_that_is():
  factors = np.array([[np.nan], [-np.inf], [np.inf], [1.0]])
  labels = np.array([[1], [-1], [1], [-1]])
  assert np.isfinite(thresholds.choose_thresholds(factors, labels)).all()


def test_older_rows_have_thresholds_of_zero():
  row = {'thresholds_by_attribute': {'Bald': -2.5, 'Male': 0.25}}
  found = thresholds.recall(row, ['Male', 'Bald'])
  np.testing.assert_array_equal(found, np.float32([0.25, -2.5]))
  np.testing.assert_array_equal(thresholds.recall({}, ['Male', 'Bald']), [0, 0])
