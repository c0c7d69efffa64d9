"""What every score of disentanglement is, and what it is computed from.

`U` units of a code, `L` labels, the ground-truth factors of the literature.
(Factors are the first units of a code in this package.)
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from jacsup_jax.core import errors


@dataclasses.dataclass(frozen=True)
class Score:
  """A score, or why there is none. Never NaN.

  Attributes:
    value: of the whole; None where it is undefined.
    parts: of each label or each unit, None where undefined.
    reasons: why a value is None, a line each.
  """

  value: float | None
  parts: tuple[float | None, ...] = ()
  reasons: tuple[str, ...] = ()


def undefined(*reasons: str) -> Score:
  """Returns a score that cannot be had."""
  return Score(None, reasons=reasons)


def check_arrays(
    codes: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
  """Checks codes and labels.

  Args:
    codes: `[M, U]` real numbers.
    labels: `[M, L]` int, of any values; each value is a class.
    label_names: L names; 'label 0' and so on by default.

  Returns:
    The codes as float64, the labels as classes from 0 without gaps, the names.

  Raises:
    InputError: if the arrays are of other ranks or types, do not have the same
      number of examples, or have none.
  """
  codes, labels = np.asarray(codes), np.asarray(labels)
  for name, array, letters, kinds in (
      ('codes', codes, '(M, U)', 'fiub'), ('labels', labels, '(M, L)', 'iub')
  ):  # pyformat: disable
    if array.ndim != 2 or not array.size:
      raise errors.InputError(
          f'{name} have the shape {array.shape}; accepted: {letters}, none of'
          ' them 0.'
      )
    if array.dtype.kind not in kinds:
      accepted = 'real numbers' if 'f' in kinds else 'integers'
      raise errors.InputError(
          f'{name} are of type {array.dtype}; accepted: {accepted}.'
      )
  if len(codes) != len(labels):
    raise errors.InputError(
        f'found {len(codes)} codes and labels of {len(labels)} examples;'
        ' accepted: as many of both.'
    )
  names = tuple(label_names or (f'label {i}' for i in range(labels.shape[1])))
  if len(names) != labels.shape[1]:
    raise errors.InputError(
        f'found {len(names)} names for {labels.shape[1]} labels; accepted: as'
        ' many of both.'
    )
  classes = [np.unique(column, return_inverse=True)[1] for column in labels.T]
  return codes.astype(np.float64), np.stack(classes, axis=1), names


def find_fault(codes: np.ndarray) -> str | None:
  """Says why nothing can be computed from codes; None if it can."""
  bad = int(np.sum(~np.all(np.isfinite(codes), axis=1)))
  if bad:
    return f'{bad} of {len(codes)} codes are not finite'
  return None


def mean_over_labels(
    parts: Sequence[float | None], reasons: Sequence[str]
) -> Score:
  """Returns the score whose value is the mean of the parts that are defined."""
  defined = [part for part in parts if part is not None]
  value = float(np.mean(defined)) if defined else None
  return Score(value, tuple(parts), tuple(reasons))


def describe_constants(
    classes: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Finds labels that say nothing, for which no score is defined.

  Args:
    classes: `[M, L]`, from `check_arrays`.
    names: L.

  Returns:
    The indices of the labels that vary, and a line for each other one.
  """
  varies = classes.max(axis=0) > 0
  lines = [
      f'{name} is the same in all {len(classes)} examples'
      for name, does in zip(names, varies)
      if not does
  ]
  return np.flatnonzero(varies), tuple(lines)


def place(
    parts: Sequence[float | None], indices: np.ndarray, count: int
) -> list[float | None]:
  """Puts the parts of some labels in their places among all, None elsewhere."""
  placed = [None] * count
  for index, part in zip(indices, parts, strict=True):
    placed[index] = part
  return placed


def name_units(units: Sequence[int]) -> str:
  """Names units of a code, the first few of many."""
  shown = ', '.join(map(str, units[:5])) + (', ...' if len(units) > 5 else '')
  return f'{len(units)} of the units ({shown})'
