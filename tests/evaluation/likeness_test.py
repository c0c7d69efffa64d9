"""Tests of evaluation.likeness; `attribute_flips_test` measures models."""

import numpy as np
import pytest

from jacsup_jax.evaluation import likeness


def test_distance_of_gaussians_is_that_of_the_formula():
  random = np.random.default_rng(0)
  values = random.normal(size=(200, 3))
  assert likeness.compute_distance(values, values) == pytest.approx(0, abs=1e-9)
  # A shift adds its square; twice the spread, the square of one deviation.
  shifted = values + [1.0, 2.0, 0.0]
  assert likeness.compute_distance(values, shifted) == pytest.approx(5)
  wider = 2 * (values - values.mean(axis=0)) + values.mean(axis=0)
  variance = values.var(axis=0).sum()
  assert likeness.compute_distance(values, wider) == pytest.approx(variance)
