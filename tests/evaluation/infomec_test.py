"""Tests of evaluation.infomec.

Oracle: labels as codes. Anti-oracle: codes that are drawn apart from the
labels. Small joint tables: each score by its definition, from probabilities.
"""

import itertools

import numpy as np
import pytest

from jacsup_jax.evaluation import disentanglement
from jacsup_jax.evaluation import infomec

LOG2 = np.log(2)


def tabulate(counts):
  """Returns examples `[M, axes]` int of a table of counts."""
  cells = [*np.ndindex(counts.shape)]
  return np.repeat(cells, counts.ravel(), axis=0)


def entropy_of(table):
  """Computes the entropy of a table of probabilities, in nats."""
  known = table[table > 0]
  return -np.sum(known * np.log(known))


def information_of(table, first, second):
  """Computes I(a; b) = H(a) + H(b) - H(a, b) of two axes of a joint table."""
  axes = range(table.ndim)
  rest = lambda *kept: tuple(axis for axis in axes if axis not in kept)
  return (
    entropy_of(table.sum(axis=rest(first)))
    + entropy_of(table.sum(axis=rest(second)))
    - entropy_of(table.sum(axis=rest(first, second)))
  )


def score(codes, classes, pruning=infomec.PRUNING):
  names = [f'label {i}' for i in range(classes.shape[1])]
  found = disentanglement.compute_scores(
    ['infomec'], codes, classes, names, pruning
  )
  return {name: each.value for name, each in found.items()}


def test_shares_by_hand():
  information = np.array([[0.6, 0.2, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]])
  # (0.75 - 1/3) / (2/3); a third, which is the least; no information.
  of_units = infomec.share_of_largest(information, axis=1)
  np.testing.assert_allclose(of_units, [0.625, 0, np.nan], atol=1e-12)
  # Columns: 6/11, 5/7 and 1 of three units.
  of_labels = infomec.share_of_largest(information, axis=0)
  wanted = (np.array([6 / 11, 5 / 7, 1]) - 1 / 3) * 1.5
  np.testing.assert_allclose(of_labels, wanted, atol=1e-12)
  # Of one unit there is no other to share with, and none may be active.
  for count in (1, 0):
    found = infomec.share_of_largest(information[:count], axis=0)
    assert found.shape == (3,) and np.isnan(found).all()


def test_scores_by_hand():
  # Two labels of four equal combinations. Unit 0 is the first label; unit 1
  # tells both: 0 0 -> 0, 0 1 -> 1, 1 0 -> 2, 1 1 -> 3.
  labels = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 10, axis=0)
  codes = np.stack([labels[:, 0], 2 * labels[:, 0] + labels[:, 1]], axis=1)
  found = infomec.compute(codes.astype(float), labels)
  # Information over entropy: [1, 0] and [1, 1].
  np.testing.assert_allclose(found.modularity, [1, 0], atol=1e-9)
  np.testing.assert_allclose(found.compactness, [0, 1], atol=1e-9)
  np.testing.assert_allclose(found.explicitness, [1, 1], atol=1e-3)
  assert score(codes, labels) == pytest.approx(
    {'infom': 0.5, 'infoe': 1, 'infoc': 0.5}, abs=1e-3
  )


@pytest.mark.parametrize('seed', range(3))
def test_modularity_and_compactness_are_those_of_the_joint_table(seed):
  # Axes: labels of 2 and 3 classes, units of 3 and 4 values.
  counts = np.random.default_rng(seed).integers(1, 9, (2, 3, 3, 4))
  table = counts / counts.sum()
  wanted = np.array([
    [
      information_of(table, label, unit)
      / entropy_of(table.sum(axis=tuple({0, 1, 2, 3} - {label})))
      for label in (0, 1)
    ]
    for unit in (2, 3)
  ])  # fmt: skip
  examples = tabulate(counts)
  codes, classes = examples[:, 2:].astype(float), examples[:, :2]
  information = infomec.normalized_information(codes, classes, discrete=True)
  np.testing.assert_allclose(information, wanted, atol=1e-9)
  found = score(codes, classes)
  # The mean share of the largest, from 1/2 to 1, as the paper scales it.
  for name, axis in (('infom', 1), ('infoc', 0)):
    share = np.mean(wanted.max(axis=axis) / wanted.sum(axis=axis))
    assert found[name] == pytest.approx((share - 0.5) / 0.5), name


@pytest.mark.parametrize('seed', range(3))
def test_explicitness_of_one_discrete_unit_is_its_information(seed):
  # A regression on one-hot values can give every conditional distribution.
  counts = np.random.default_rng(seed).integers(1, 9, (3, 4))
  table, examples = counts / counts.sum(), tabulate(counts)
  found = infomec.explicitness(
    examples[:, 1:].astype(float), examples[:, :1], discrete=True
  )
  wanted = information_of(table, 0, 1) / entropy_of(table.sum(axis=1))
  np.testing.assert_allclose(found, [wanted], atol=1e-4)


def test_explicitness_needs_no_more_than_a_linear_boundary():
  grid = np.array([*itertools.product(np.linspace(-1, 1, 24), repeat=2)])
  line = (grid @ [1.0, 0.3] > 0).astype(int)
  product = (grid[:, 0] * grid[:, 1] > 0).astype(int)
  found = infomec.explicitness(
    grid, np.stack([line, product], axis=1), discrete=False
  )
  assert found[0] > 0.9 and abs(found[1]) < 0.05


def test_continuous_information_is_that_of_gaussians():
  # Means 0 and 3 of variance 1: I = log 2 less the entropy of the overlap.
  rng = np.random.default_rng(0)
  label = np.repeat([0, 1], 2000)
  unit = rng.normal(size=4000) + 3 * label
  x = np.linspace(-8, 11, 20_001)
  density = lambda mean: np.exp(-((x - mean) ** 2) / 2) / np.sqrt(2 * np.pi)
  mixed = (density(0) + density(3)) / 2
  log = np.log(np.maximum(mixed, 1e-300))
  spread = -np.sum(mixed * log) * (x[1] - x[0])
  wanted = spread - 0.5 * np.log(2 * np.pi * np.e)
  found = infomec.normalized_information(
    unit[:, np.newaxis], label[:, np.newaxis], discrete=False
  )
  np.testing.assert_allclose(found, [[wanted / LOG2]], atol=0.03)


def test_pruning_leaves_out_units_that_hardly_vary():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, (400, 2))
  codes = np.concatenate(
    # A third unit of a thousandth of the range, which is both labels mixed.
    [labels + 0.1 * rng.normal(size=(400, 2)), 1e-3 * labels.sum(1)[:, None]],
    axis=1,
  )
  codes[:, 2] += 1e-5 * rng.normal(size=400)
  pruned, kept = score(codes, labels), score(codes, labels, pruning=0.0)
  assert pruned['infom'] > 0.95 and pruned['infoc'] > 0.95
  assert kept['infom'] < 0.75 and kept['infoc'] < 0.75
  parts = infomec.compute(codes, labels).modularity
  assert [*np.isnan(parts)] == [False, False, True]
  # What is left of one unit has no compactness.
  assert score(codes[:, [0, 2]], labels)['infoc'] is None


def test_oracle_and_anti_oracle():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 5, (1000, 3))
  noise = rng.uniform(-0.4, 0.4, labels.shape)
  for value in score(labels + noise, labels).values():
    assert value > 0.9
  found = score(rng.normal(size=(1000, 3)), labels)
  assert found['infoe'] < 0.05
  for value in infomec.normalized_information(
    rng.normal(size=(1000, 3)), labels, discrete=False
  ).ravel():
    assert value < 0.05
