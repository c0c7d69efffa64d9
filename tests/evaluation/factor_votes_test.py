"""Tests of evaluation.factor_votes.

Oracle: labels as codes. Anti-oracles: codes that are drawn apart from the
labels, and a unit alone.
"""

import itertools

import numpy as np
import pytest

from jacsup_jax.evaluation import disentanglement
from jacsup_jax.evaluation import factor_votes

LABELS = np.array([*itertools.product(range(4), repeat=3)])


def test_labels_in_any_order_and_scale_score_one():
  codes = LABELS[:, [2, 0, 1]] * [-1.0, 30.0, 0.1]
  assert [*factor_votes.compute(codes, LABELS)] == [1, 1, 1]
  # A constant unit has no vote.
  codes = np.insert(codes, 1, 5, axis=1)
  assert [*factor_votes.compute(codes, LABELS)] == [1, 1, 1]


def test_one_unit_predicts_one_label():
  # All votes go to it; of equal counts the first label is predicted.
  assert [*factor_votes.compute(LABELS[:, :1], LABELS)] == [1, 0, 0]


def test_two_labels_of_one_unit_are_not_told_apart():
  # Unit 0 stands still with labels 0 and 1, which are the same.
  labels = np.stack([LABELS[:, 0], LABELS[:, 0], LABELS[:, 2]], axis=1)
  first, second, third = factor_votes.compute(LABELS[:, [0, 2]] * 1.0, labels)
  assert (first, second, third) == (1, 0, 1)


def test_codes_apart_from_labels_are_at_chance():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, (2000, 4))
  found = factor_votes.compute(rng.normal(size=(2000, 6)), labels)
  assert np.mean(found) == pytest.approx(1 / 4, abs=0.06)


def test_the_score_is_the_mean_and_constant_codes_have_none():
  score = lambda codes: disentanglement.compute_scores(
    ['factor_vae'], codes, LABELS, ['a', 'b', 'c']
  )['factor_vae_score']
  assert score(LABELS).value == 1
  assert score(LABELS[:, :1]).value == pytest.approx(1 / 3)
  nothing = score(np.ones((len(LABELS), 2)))
  assert nothing.value is None and 'no information' in nothing.reasons[0]
