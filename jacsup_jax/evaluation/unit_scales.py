"""Spread of the units of a code on the training data: the scale of edits."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import model as models

FACTOR = 'factor'
NUISANCE = 'nuisance'
# The deviation over this many images is within 1.6 % of that over all.
NUM_IMAGES = 2048
_BATCH = 64
_LOW = 0.01
# A unit that varies less is one that training left dead.
_LEAST_DEVIATION = 1e-6


@dataclasses.dataclass(frozen=True)
class Unit:
  """One unit of a code and its statistics on the training data."""

  name: str  # of an attribute, or `y1`, `y2`, ... and `z1`, `z2`, ...
  kind: str  # `FACTOR` or `NUISANCE`
  mean: float
  deviation: float  # standard deviation; 0 if the unit is constant
  low: float  # 1 % quantile
  high: float  # 99 % quantile


def measure(
  model: models.Model, images: np.ndarray, factor_names: Sequence[str]
) -> tuple[Unit, ...]:
  """Measures the units of a model's code on its first `NUM_IMAGES` images.

  Images are `[M, H, W, C]` uint8, of the training data. Returns the factors,
  then the nuisance units `z1`, `z2`, ... if the code is flat.
  """
  return describe(encode(model, images), factor_names)


def encode(model: models.Model, images: np.ndarray) -> codes.Code:
  """Encodes the first `NUM_IMAGES` of `[M, H, W, C]` uint8, in batches."""
  images = images[:NUM_IMAGES]
  found = []
  for start in range(0, len(images), _BATCH):
    own = images[start : start + _BATCH]
    # Filled to one size, so that one program is compiled.
    code = _encode(model, np.resize(own, (_BATCH, *own.shape[1:])))
    found.append([np.asarray(x)[: len(own)] for x in code])
  return codes.Code(*map(np.concatenate, zip(*found)))


def describe(code: codes.Code, factor_names: Sequence[str]) -> tuple[Unit, ...]:
  """Describes the units of the code of M images, as `measure` does."""
  units = _describe(code.factors, factor_names, FACTOR)
  if code.nuisance.ndim == 2:
    names = [f'z{i + 1}' for i in range(code.nuisance.shape[1])]
    units += _describe(code.nuisance, names, NUISANCE)
  return tuple(units)


def from_json(where: Any, values: Sequence[Any]) -> tuple[Unit, ...]:
  """Parses units that were stored as `dataclasses.asdict(unit)` in a file.

  InputError, which says where, if they are damaged.
  """
  try:
    units = tuple(Unit(**value) for value in values)
    numbers = [(u.mean, u.deviation, u.low, u.high) for u in units]
    if np.all(np.isfinite(numbers)) and all(
      isinstance(unit.name, str)
      and unit.kind in (FACTOR, NUISANCE)
      and unit.deviation >= 0
      for unit in units
    ):
      return units
  except (TypeError, OverflowError):
    pass
  raise errors.InputError(
    f'{where} holds units that are damaged; accepted: those that this package'
    ' wrote, with finite numbers.'
  )


_encode = jax.jit(lambda model, images: model.encode(images))


def _describe(values, names, kind):
  values = values.astype(np.float64)
  deviations = values.std(axis=0)
  # Rounding of about 1e-7 is no variation that a slider could use.
  deviations[deviations < _LEAST_DEVIATION] = 0.0
  lows, highs = np.quantile(values, [_LOW, 1 - _LOW], axis=0)
  means = values.mean(axis=0)
  return [
    Unit(name, kind, *map(float, own))
    for name, *own in zip(names, means, deviations, lows, highs)
  ]
