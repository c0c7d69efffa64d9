"""Dataclass fields that are command-line flags, and their checks."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from jacsup_jax.core import errors

# Faces are published at 1024x1024 at most.
_LARGEST_IMAGE = 4096


def option(
  default: Any,
  help: str,  # pylint: disable=redefined-builtin
  *,
  low: float | None = None,
  high: float | None = None,
  choices: Sequence[str] | None = None,
  group: str = 'training',
) -> Any:
  """Makes a dataclass field that is a flag.

  Args:
    default: of the flag. Its annotation may allow None; tuples are lists of
      values separated by commas.
    help: what the flag does, in a sentence.
    low: smallest accepted number.
    high: largest accepted number.
    choices: accepted values, of a tuple those of its entries.
    group: heading under which --help lists the flag.

  Returns:
    A `dataclasses.field`; see `check`.
  """
  metadata: dict[str, Any] = {'help': help, 'group': group}
  for name, value in (('low', low), ('high', high), ('choices', choices)):
    if value is not None:
      metadata[name] = value
  return dataclasses.field(default=default, metadata=metadata)


def check(config: Any) -> None:
  """Raises InputError if a field of a dataclass made by `option` is refused.

  Tracers and other stand-ins that JAX puts into a pytree are not checked.
  """
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if 'choices' in field.metadata:
      _check_choice(field, value)
    elif not isinstance(value, bool):
      _check_range(field, value)


def check_image_size(image_size: int) -> None:
  """Raises InputError unless a size in pixels is a power of two from 8."""
  if not 8 <= image_size <= _LARGEST_IMAGE or image_size & (image_size - 1):
    raise errors.InputError(
      f'--image_size={image_size}: accepted are powers of two from 8 to'
      f' {_LARGEST_IMAGE}'
    )


def _check_choice(field, value):
  choices = field.metadata['choices']
  found = value if isinstance(value, tuple) else (value,)
  if set(found) - set(choices) or len(found) > len(set(found)):
    accepted = ', '.join(map(str, choices))
    each = ', each at most once' if isinstance(value, tuple) else ''
    raise errors.InputError(
      f'--{field.name}={",".join(map(str, found))}; accepted: {accepted}{each}.'
    )


def _check_range(field, value):
  entries = value if isinstance(value, tuple) else (value,)
  low = field.metadata.get('low', -math.inf)
  high = field.metadata.get('high', math.inf)
  for entry in entries:
    if isinstance(entry, bool) or not isinstance(
      entry, (int, float, np.number, np.ndarray)
    ):
      continue
    for number in np.ravel(entry).tolist():
      # The comparison also refuses NaN.
      if not (low <= number <= high and math.isfinite(number)):
        raise errors.InputError(
          f'--{field.name}={number}; accepted: {_describe_range(low, high)}.'
        )


def _describe_range(low, high):
  if high < math.inf:
    return f'from {low} to {high}'
  if low > -math.inf:
    return f'{low} or larger, and finite'
  return 'finite numbers'
