"""Tests of evaluation.leakage with an oracle."""

import dataclasses

import jax
import numpy as np
import pytest
import two_pixels

from jacsup_jax.core import codes
from jacsup_jax.evaluation import leakage

CLASSES = 4
TRAIN = two_pixels.make_data('train', 600, 0, CLASSES)
TEST = two_pixels.make_data('test', 400, 1, CLASSES)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Model:
  """Takes some pixels as factors and some as nuisance."""

  factors: tuple[int, ...]
  nuisance: tuple[int, ...]

  @property
  def num_factors(self):
    return len(self.factors)

  def encode(self, images):
    flat = images.astype(np.float32).reshape(-1, 2)
    take = lambda pixels: flat[:, np.array(pixels, int)]
    return codes.Code(take(self.factors), take(self.nuisance))


def test_oracle_has_the_class_in_its_factors_alone():
  found = leakage.measure(Model((0,), (1,)), TRAIN, TEST)
  assert found['probe_mlp_factors'] > 0.99
  assert found['probe_linear_factors'] > 0.9
  # One in four, with a deviation of 0.022 over 400 images.
  for name in ('probe_linear_nuisance', 'probe_mlp_nuisance'):
    assert abs(found[name] - 1 / CLASSES) < 0.1


def test_anti_oracle_has_the_class_in_its_nuisance_too():
  found = leakage.measure(Model((1,), (0, 1)), TRAIN, TEST)
  assert found['probe_mlp_nuisance'] > 0.99
  assert abs(found['probe_mlp_factors'] - 1 / CLASSES) < 0.1


def test_a_perceptron_reads_what_a_line_cannot():
  random = np.random.default_rng(0)
  values = random.uniform(-1, 1, (1500, 2))
  labels = (values[:, 0] * values[:, 1] > 0).astype(int)
  found = leakage.probe(
    values[:1000], labels[:1000], values[1000:], labels[1000:]
  )
  assert found['mlp'] > 0.9 and found['linear'] < 0.65
  # The same each time.
  again = leakage.probe(
    values[:1000], labels[:1000], values[1000:], labels[1000:]
  )
  assert again == found


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_parts_without_units_or_numbers_have_none(bad):
  found = leakage.measure(Model((0,), ()), TRAIN, TEST)
  assert found['probe_linear_nuisance'] is found['probe_mlp_nuisance'] is None
  assert found['probe_linear_factors'] is not None
  codes_of = np.full((9, 2), bad)
  labels = np.arange(9) % 2
  found = leakage.probe(codes_of, labels, codes_of, labels)
  assert found == {'linear': None, 'mlp': None}
