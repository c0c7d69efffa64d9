"""Tests of evaluation.disentanglement.

Oracle: labels as codes. Anti-oracles: codes that are drawn apart from the
labels, and a rotation that spreads every label over all units alike.
"""

import itertools

import numpy as np
import pytest
from scipy import linalg

from jacsup_jax.evaluation import disentanglement
from jacsup_jax.evaluation import predictors

LOG2 = np.log(2)
HADAMARD = linalg.hadamard(4) / 2


def full(classes, labels):
  """Returns every combination once, `[classes^labels, labels]` int."""
  return np.array(list(itertools.product(range(classes), repeat=labels)))


def compute(metrics, codes, labels):
  names = [f'label {i}' for i in range(labels.shape[1])]
  return disentanglement.compute_scores(metrics, codes, labels, names)


def values(codes, labels):
  found = compute(disentanglement.METRICS, codes, labels)
  return {name: score.value for name, score in found.items()}


def test_mig_by_hand():
  # Unit 0 is label 0, unit 1 tells it of the table above; of label 1, which
  # is independent of both, nothing is told.
  label = np.array([0, 0, 0, 1, 1, 1, 1, 0])
  unit = np.array([0, 0, 0, 1, 1, 1, 0, 1])
  label, unit = np.tile(label, 2), np.tile(unit, 2)
  labels = np.stack([label, np.repeat([0, 1], 8)], axis=1)
  found = compute(['mig'], np.stack([label, unit], 1), labels)['mig']
  second = (3 / 4) * np.log(3 / 2) + (1 / 4) * np.log(1 / 2)
  gap = 1 - second / LOG2
  np.testing.assert_allclose(found.parts, [gap, 0], atol=1e-12)
  assert found.value == pytest.approx(gap / 2)


def test_modularity_by_hand():
  # 1 - (0.04 + 0) / (0.16 x 2), 1 - 2 / 2, 1; the last unit has nothing.
  score = disentanglement.modularity_of_information(
    np.array([[0.4, 0.2, 0], [1, 1, 1], [0, 0, 3], [0, 0, 0]])
  )
  np.testing.assert_allclose(score.parts[:3], [0.875, 0, 1], atol=1e-12)
  assert score.parts[3] is None
  assert score.value == pytest.approx(1.875 / 3)
  assert score.reasons == ('1 of its 4 parts hold no information',)


def test_one_threshold_by_hand():
  classes = np.array([0, 0, 0, 1, 1])
  codes = np.array([
      # Between 3 and 4; either way round; only below 2, since 2 is of both.
      [1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [1, 2, 2, 2, 2], [0, 0, 0, 0, 0],
      # 0 0 1 0 1: recalls 2/3 and 1 after the second.
      [1, 2, 4, 3, 5],
  ]).T  # fmt: skip
  np.testing.assert_allclose(
    predictors.threshold_accuracies(codes, classes),
    [1, 1, (1 / 3 + 1) / 2, 0.5, (2 / 3 + 1) / 2],
  )


def test_thresholds_are_the_best_of_all():
  rng = np.random.default_rng(0)
  for _ in range(5):
    classes = np.concatenate([np.arange(3), rng.integers(0, 3, 9)])
    codes = rng.integers(0, 6, (12, 1))
    weights = 1 / np.bincount(classes)
    best = 0
    for low, high in itertools.combinations_with_replacement(range(7), 2):
      inside = np.digitize(codes[:, 0], [low, high])
      for told in itertools.product(range(3), repeat=3):
        right = np.array(told)[inside] == classes
        best = max(best, np.sum(weights[classes] * right) / 3)
    found = predictors.threshold_accuracies(codes, classes)
    np.testing.assert_allclose(found, [best])


def test_dci_of_importance_by_hand():
  importance = np.array([[1, 0], [0, 0.5], [0, 0.5], [0, 0]])
  separate, complete = disentanglement.dci_of_importance(importance)
  # Every unit that counts is of one label; label 1 has two of four units.
  assert separate.parts == (1, 1, 1, None) and separate.value == 1
  np.testing.assert_allclose(complete.parts, [1, 0.5])
  assert complete.value == pytest.approx(0.75)
  importance = np.array([[0.75, 0.75], [0.25, 0]])
  separate, complete = disentanglement.dci_of_importance(importance)
  # The first unit is of both alike and has 6/7 of all importance.
  np.testing.assert_allclose(separate.parts, [0, 1], atol=1e-12)
  assert separate.value == pytest.approx(1 / 7)
  entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
  np.testing.assert_allclose(complete.parts, [1 - entropy, 1])


def test_labels_as_codes_score_one():
  labels = full(16, 3)
  found = values(-3.0 * labels[:, ::-1], labels)
  # The next best unit of 16 classes is right on one of them.
  assert found.pop('sap') == pytest.approx(1 - 1 / 16)
  # What a regression of finitely many steps reaches.
  assert found.pop('infoe') == pytest.approx(1, abs=1e-3)
  assert found == pytest.approx(dict.fromkeys(found, 1), abs=1e-6)
  assert len(found) == 8


def test_independent_codes_score_zero():
  labels = np.tile(full(10, 2), (20, 1))
  found = values(np.random.default_rng(0).normal(size=labels.shape), labels)
  for name in ('mig', 'sap', 'dci_disentanglement', 'dci_completeness'):
    assert 0 <= found[name] <= 0.1, name
  # Chance, of ten classes; modularity is not defined to be small, only
  # between 0 and 1.
  assert found['dci_informativeness'] <= 0.15
  assert 0 <= found['modularity'] <= 1


def test_a_rotation_of_all_labels_over_all_units_scores_zero():
  labels = full(6, 4)
  found = values((labels - 2.5) @ HADAMARD, labels)
  # The labels are still there.
  assert found.pop('dci_informativeness') > 0.4
  assert found.pop('infoe') > 0.4
  # Chance, of four labels.
  assert found.pop('factor_vae_score') == pytest.approx(1 / 4, abs=0.1)
  for name, value in found.items():
    assert 0 <= value <= 0.1, name


def test_order_sign_scale_and_names_of_classes_do_not_count():
  rng = np.random.default_rng(1)
  labels = rng.integers(0, 4, (200, 2))
  # Halves, which scaling by 4 and shifting keep exact.
  codes = np.round(labels @ rng.normal(size=(2, 3)) + rng.normal(size=(200, 3)))
  codes /= 2
  metrics = ('mig', 'sap', 'modularity')
  first = compute(metrics, codes, labels)
  again = compute(metrics, 4 * codes[:, [2, 0, 1]] + 3, labels * 7 - 5)
  for name in metrics:
    assert first[name].value == pytest.approx(again[name].value, abs=1e-12)
  flipped = compute(['sap'], -codes, labels)
  assert first['sap'].value == pytest.approx(flipped['sap'].value)


def test_a_constant_label_is_left_out_and_named():
  codes = full(3, 3)
  labels = np.insert(codes, 1, 4, axis=1)
  found = compute(disentanglement.METRICS, codes, labels)
  for name, score in found.items():
    assert score.reasons == ('label 1 is the same in all 27 examples',), name
    assert score.value is not None
    if name not in disentanglement.SCORES_OF_UNITS:
      assert [part is None for part in score.parts] == [0, 1, 0, 0]
  assert found['mig'].value == pytest.approx(1)
  assert found['modularity'].value == pytest.approx(1)


def test_a_constant_unit_is_not_nan():
  labels = full(4, 3)
  codes = np.insert(labels, 0, 9, axis=1)
  found = compute(disentanglement.METRICS, codes, labels)
  for name, score in found.items():
    numbers = [x for x in (score.value, *score.parts) if x is not None]
    assert np.all(np.isfinite(numbers)), name
  assert found['modularity'].parts[0] is None
  assert found['modularity'].value == pytest.approx(1)
  assert '1 of its 4 parts' in found['modularity'].reasons[0]
  assert found['mig'].value == pytest.approx(1)


def test_few_examples_and_codes_that_are_not_finite():
  labels = full(2, 2)
  found = compute(['dci'], labels, labels)
  assert '20 examples: 2 units' in found['dci_completeness'].reasons[0]
  codes = labels.astype(float)
  codes[1, 0] = np.nan
  found = compute(disentanglement.METRICS, codes, labels)
  for score in found.values():
    assert score.value is None
    assert score.reasons[0] == '1 of 4 codes are not finite'
