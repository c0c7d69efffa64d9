"""Spread of the units of a code on the training data: the scale of edits."""

from collections.abc import Sequence
import dataclasses
import math
import pathlib
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
  """One unit of a code and its statistics on the training data.

  Attributes:
    name: of an attribute, or `y1`, `y2`, ... and `z1`, `z2`, ...
    kind: `FACTOR` or `NUISANCE`.
    mean: over the images.
    deviation: standard deviation; 0 if the unit is constant.
    low: 1 % quantile.
    high: 99 % quantile.
  """

  name: str
  kind: str
  mean: float
  deviation: float
  low: float
  high: float


def measure(
  model: models.Model, images: np.ndarray, factor_names: Sequence[str]
) -> tuple[Unit, ...]:
  """Measures the units of a model's code.

  Args:
    model: an autoencoder that predicts its factors.
    images: `[M, H, W, C]` uint8 training images; the first `NUM_IMAGES` count.
    factor_names: of the K factors.

  Returns:
    The factors, then the nuisance units `z1`, `z2`, ... if the code is flat.

  Raises:
    ValueError: if there is no image, or the model does not have K factors.
  """
  images = images[:NUM_IMAGES]
  if not len(images):
    raise ValueError('no image to measure units on.')
  if model.num_factors != len(factor_names):
    raise ValueError(
      f'the model has {model.num_factors} factors, and there are'
      f' {len(factor_names)} names.'
    )
  batches = []
  for start in range(0, len(images), _BATCH):
    own = images[start : start + _BATCH]
    # Filled to one size, so that one program is compiled.
    filled = np.resize(own, (_BATCH, *own.shape[1:]))
    code = jax.tree.map(np.asarray, _encode(model, filled))
    batches.append(codes.Code(*(x[: len(own)] for x in code)))
  code = jax.tree.map(lambda *own: np.concatenate(own), *batches)
  units = _describe(code.factors, factor_names, FACTOR)
  if code.nuisance.ndim == 2:
    names = [f'z{i + 1}' for i in range(code.nuisance.shape[1])]
    units += _describe(code.nuisance, names, NUISANCE)
  return tuple(units)


def from_json(
  where: str | pathlib.Path, values: Sequence[Any]
) -> tuple[Unit, ...]:
  """Parses units that were stored as `dataclasses.asdict(unit)`.

  Args:
    where: the file, for the message.
    values: JSON values.

  Returns:
    The units.

  Raises:
    InputError: if a value is not a unit with finite numbers.
  """
  try:
    units = tuple(Unit(**value) for value in values)
    is_valid = all(
      isinstance(unit.name, str)
      and unit.kind in (FACTOR, NUISANCE)
      and unit.deviation >= 0
      and all(
        math.isfinite(x)
        for x in (unit.mean, unit.deviation, unit.low, unit.high)
      )
      for unit in units
    )
  except (TypeError, OverflowError):
    is_valid = False
  if not is_valid:
    raise errors.InputError(
      f'{where} holds units that are damaged; accepted: those that this'
      ' package wrote, with finite numbers.'
    )
  return units


@jax.jit
def _encode(model, images):
  return model.encode(images)


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
