"""Tests of evaluation.naturalness, by hand and with an oracle."""

import numpy as np
import pytest

from jacsup_jax.evaluation import naturalness


def _draw(seed, count=1500, shift=0.0, scale=1.0):
  random = np.random.default_rng(seed)
  return (shift + scale * random.normal(size=(count, 4))).astype(np.float32)


def test_precision_and_recall_by_hand():
  # On a line: the third nearest neighbors are 3, 2, 2, 3 and 8 away.
  real = naturalness.Manifold.fit(np.array([[0.0], [1], [2], [3], [9]]))
  np.testing.assert_allclose(real.radii, [3, 2, 2, 3, 8])
  # -3 is at a border, which belongs to the ball; -3.5 and 17.5 are outside.
  others = np.array([[-3.0], [-3.5], [17], [17.5]])
  assert real.count_share(others) == 0.5


def test_oracle_images_are_natural_and_cover_all():
  real = naturalness.Manifold.fit(_draw(0))
  found = naturalness.measure(real, _draw(1), 'swapped')
  assert set(found) == {
      'precision_swapped', 'recall_swapped', 'frechet_swapped'
  }  # fmt: skip
  # Samples of one distribution, whose ends are thin.
  assert found['precision_swapped'] > 0.8 and found['recall_swapped'] > 0.8
  assert found['frechet_swapped'] < 0.05
  same = naturalness.measure(real, real.features, 'same')
  assert same['precision_same'] == same['recall_same'] == 1
  assert same['frechet_same'] == pytest.approx(0, abs=1e-6)


def test_anti_oracle_images_are_elsewhere():
  real = naturalness.Manifold.fit(_draw(0))
  found = naturalness.measure(real, _draw(1, shift=20.0), 'swapped')
  assert found['precision_swapped'] == found['recall_swapped'] == 0
  assert found['frechet_swapped'] == pytest.approx(4 * 20**2, rel=0.01)


def test_alike_images_are_natural_and_cover_little():
  real = naturalness.Manifold.fit(_draw(0))
  found = naturalness.measure(real, _draw(1, scale=0.1), 'swapped')
  assert found['precision_swapped'] > 0.99 and found['recall_swapped'] < 0.1
  # And noise the other way round.
  found = naturalness.measure(real, _draw(1, scale=10.0), 'swapped')
  assert found['precision_swapped'] < 0.1 and found['recall_swapped'] > 0.9


def test_what_is_undefined_is_none():
  real = naturalness.Manifold.fit(_draw(0))
  for features in (_draw(1)[:1], np.full((9, 4), np.nan), np.zeros((0, 4))):
    found = naturalness.measure(real, features, 'swapped')
    assert set(found.values()) == {None}


def test_distance_of_gaussians_is_that_of_the_formula():
  random = np.random.default_rng(0)
  values = random.normal(size=(200, 3))
  compute = naturalness.compute_distance
  assert compute(values, values) == pytest.approx(0, abs=1e-9)
  # A shift adds its square; twice the spread, the square of one deviation.
  shifted = values + [1.0, 2.0, 0.0]
  assert compute(values, shifted) == pytest.approx(5)
  wider = 2 * (values - values.mean(axis=0)) + values.mean(axis=0)
  variance = values.var(axis=0).sum()
  assert compute(values, wider) == pytest.approx(variance)
