"""How far the units of a code spread on the training data.

Strengths of edits are told in these, see `editor`.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.editor import editor

# The deviation of so many is within 1.6 % of that of all.
NUM_IMAGES = 2048
_BATCH = 64
_LOW = 0.01
# A unit that moves less is one that training left dead.
_LEAST_DEVIATION = 1e-6
_UNIT = {
    'name': str, 'kind': str, 'mean': float, 'deviation': float, 'low': float,
    'high': float,
}  # pyformat: disable


def measure(
    encode: Callable[[np.ndarray], codes.Code],
    images: np.ndarray,
    factor_names: Sequence[str],
) -> tuple[editor.Unit, ...]:
  """Measures the units of a model's code.

  Args:
    encode: `[B, H, W, C]` uint8 images -> code; called with `B` of one size
      alone, so that it is compiled once.
    images: `[M, H, W, C]` uint8, of the training data; the first `NUM_IMAGES`
      count.
    factor_names: of the K factors.

  Returns:
    The factors, then the nuisance units `z1`, `z2`, ... if the code is flat.

  Raises:
    ValueError: if there is no image, or the model has not K factors.
  """
  images = images[:NUM_IMAGES]
  if not len(images):
    raise ValueError('no image to measure on.')
  codes = []
  for start in range(0, len(images), _BATCH):
    own = images[start : start + _BATCH]
    filled = np.resize(own, (_BATCH, *own.shape[1:]))
    codes.append(
        jax.tree.map(lambda x: np.asarray(x)[: len(own)], encode(filled))
    )
  factors = np.concatenate([code.factors for code in codes])
  if factors.shape[1] != len(factor_names):
    raise ValueError(
        f'the model has {factors.shape[1]} factors, and there are'
        f' {len(factor_names)} names.'
    )
  units = _describe(factors, factor_names, editor.FACTOR)
  if codes[0].nuisance.ndim == 2:
    nuisance = np.concatenate([code.nuisance for code in codes])
    names = [f'z{i + 1}' for i in range(nuisance.shape[1])]
    units += _describe(nuisance, names, editor.NUISANCE)
  return tuple(units)


def to_json(unit: editor.Unit) -> dict[str, str | float]:
  """Returns what a file has of a unit."""
  return dataclasses.asdict(unit)


def read_units(
    where: str | pathlib.Path, units: Sequence[Any]
) -> tuple[editor.Unit, ...]:
  """Reads units of a file.

  Args:
    where: they were found, for the error.
    units: JSON values.

  Raises:
    InputError: if they are not units, or not finite.
  """
  for number, unit in enumerate(units, start=1):
    if not isinstance(unit, dict):
      raise errors.InputError(
          f'{where} unit {number} is {untrusted.describe(unit)}; accepted: an'
          ' object.'
      )
    untrusted.check_entries(f'{where} unit {number}', unit, _UNIT)
    numbers = [unit[name] for name, kind in _UNIT.items() if kind is float]
    kinds = (editor.FACTOR, editor.NUISANCE)
    if (
        unit['kind'] not in kinds
        or not np.isfinite(numbers).all()
        or unit['deviation'] < 0
    ):
      raise errors.InputError(
          f'{where} unit {number} is not one; accepted: a {" or ".join(kinds)}'
          ' with finite numbers and a deviation of 0 or more.'
      )
  return tuple(
      editor.Unit(**{name: unit[name] for name in _UNIT}) for unit in units
  )


def _describe(values, names, kind):
  values = values.astype(np.float64)
  deviations = values.std(axis=0)
  # Not 1e-7 of rounding, by which a slider would do nothing.
  deviations[deviations < _LEAST_DEVIATION] = 0.0
  lows, highs = np.quantile(values, [_LOW, 1 - _LOW], axis=0)
  means = values.mean(axis=0)
  return [
      editor.Unit(name, kind, *map(float, own))
      for name, *own in zip(names, means, deviations, lows, highs)
  ]
