"""Tests of evaluation.unit_scales."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.evaluation import unit_scales

UNIT = unit_scales.Unit('a', unit_scales.FACTOR, 0.0, 1.0, -1.0, 1.0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Model:
  """Encodes by hand: factors (x0, 5), nuisance (2 x1, x2 + x3)."""

  has_map: bool = False

  def encode(self, images):
    x = images.reshape(len(images), 4).astype(jnp.float32)
    nuisance = jnp.stack([2 * x[:, 1], x[:, 2] + x[:, 3]], axis=1)
    if self.has_map:
      nuisance = nuisance[:, None, None]
    # Rounding of the constant is no spread.
    rounded = 5 + 1e-8 * x[:, 0]
    return codes.Code(jnp.stack([x[:, 0], rounded], axis=1), nuisance)


# `[M, 1, 4, 1]`.
IMAGES = np.random.default_rng(0).integers(0, 256, (150, 1, 4, 1), np.uint8)
NAMES = ('Smiling', 'Male')


# Less than a batch; some and an incomplete one.
@pytest.mark.parametrize('count', [1, 150])
def test_units_are_those_of_numpy(count):
  images = IMAGES[:count]
  x = images.reshape(count, 4).astype(np.float64)
  values = np.stack(
    [x[:, 0], np.full(count, 5), 2 * x[:, 1], x[:, 2] + x[:, 3]], axis=1
  )
  units = unit_scales.measure(Model(), images, NAMES)
  assert [(u.name, u.kind) for u in units] == [
      ('Smiling', unit_scales.FACTOR), ('Male', unit_scales.FACTOR),
      ('z1', unit_scales.NUISANCE), ('z2', unit_scales.NUISANCE),
  ]  # fmt: skip
  for unit, own in zip(units, values.T):
    np.testing.assert_allclose(
      [unit.mean, unit.deviation, unit.low, unit.high],
      [own.mean(), own.std(), *np.quantile(own, [0.01, 0.99])],
      rtol=1e-6,
    )
  assert units[1].deviation == 0


def test_a_map_of_nuisance_gives_no_unit():
  units = unit_scales.measure(Model(has_map=True), IMAGES, NAMES)
  assert tuple(unit.name for unit in units) == NAMES


@pytest.mark.parametrize(
    'change',
    [
        {'kind': 'neither'}, {'deviation': -1.0}, {'deviation': float('nan')},
        {'mean': float('inf')}, {'mean': 'x'}, {'name': 3}, {'other': 1},
    ],
)  # fmt: skip
def test_damaged_units_are_refused(change):
  entry = dataclasses.asdict(UNIT)
  with pytest.raises(errors.InputError, match='scales.json') as info:
    unit_scales.from_json('scales.json', [entry, entry | change])
  assert str(info.value).isprintable()
