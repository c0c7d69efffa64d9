"""How the page of experiments.edit and its server tell each other things.

Units as JSON, edits that are asked for, pictures.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from experiments import attribute_groups
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.editor import editor
from jacsup_jax.figures import pictures

MOST_TILES = 15
# Strengths further out leave float32 and whatever the model has seen.
_LARGEST_STRENGTH = 100.0
# Sliders go so far at least, and at most.
_LEAST_REACH, _MOST_REACH = 3.0, 6.0
_THUMBNAIL = 64  # Pixels of a side at most.


@dataclasses.dataclass(frozen=True)
class Asked:
  """Edits that are asked for.

  Attributes:
    strengths: `[N, U]` float32, of the U units of the model.
    keep_detail: in [0, 1].
  """

  strengths: np.ndarray
  keep_detail: float


def describe_unit(unit: editor.Unit) -> dict[str, Any]:
  """Returns what a slider is made of; its `reach` is 0 if it cannot move."""
  reach = 0.0
  if unit.deviation > 0:
    # From one end of the training data to the other.
    span = (unit.high - unit.low) / unit.deviation
    reach = float(np.clip(math.ceil(span * 2) / 2, _LEAST_REACH, _MOST_REACH))
  return {
      'name': unit.name,
      'label': attribute_groups.make_label(unit.name),
      'kind': unit.kind,
      'group': attribute_groups.find_group(unit),
      'reach': reach,
  }


def read_edit(
    request: Mapping[str, Any], units: Sequence[editor.Unit]
) -> Asked:
  """Reads an edit, N = 1.

  Args:
    request: `strengths` by the names of units, in standard deviations, and
      `keep_detail`; nothing is moved or kept where they are missing.
    units: of the model.

  Raises:
    InputError: if there is no such unit, or a number is none or out of range.
  """
  strengths = request.get('strengths', {})
  if not isinstance(strengths, dict):
    raise errors.InputError(
        'strengths are no object; accepted: numbers by the names of units.'
    )
  values = np.zeros((1, len(units)), np.float32)
  for name, strength in strengths.items():
    values[0, _find_unit(units, name)] = _read_strength(name, strength)
  detail = request.get('keep_detail', 0.0)
  if not _is_number(detail) or not 0 <= detail <= 1:
    raise errors.InputError(
        f'keep_detail is {untrusted.describe(detail)}; accepted: 0 to 1.'
    )
  return Asked(values, float(detail))


def read_strip(
    request: Mapping[str, Any], units: Sequence[editor.Unit]
) -> Asked:
  """Reads a strip, in which one unit runs over N strengths.

  Args:
    request: as of `read_edit`, and `unit`, the `low` and `high` strengths that
      it runs over, and the `count` of tiles, N.
    units: of the model.

  Raises:
    InputError: as `read_edit`, or if N is not 2 to `MOST_TILES`.
  """
  asked = read_edit(request, units)
  unit = _find_unit(units, request.get('unit'))
  low = _read_strength('low', request.get('low'))
  high = _read_strength('high', request.get('high'))
  count = request.get('count')
  if type(count) is not int or not 2 <= count <= MOST_TILES:
    raise errors.InputError(
        f'count is {untrusted.describe(count)}; accepted: 2 to {MOST_TILES}.'
    )
  moves = [(unit, np.linspace(low, high, count))]
  return dataclasses.replace(
      asked, strengths=editor.sweep(asked.strengths[0], moves)
  )


def encode(image: np.ndarray) -> bytes:
  """Encodes `[H, W, C]` uint8, C of 1 or 3, as WebP without loss."""
  file = io.BytesIO()
  # At 256x256 half of the time that the fastest PNG takes, and no larger.
  pictures.to_picture(image).save(
      file, format='WEBP', lossless=True, quality=0, method=0
  )
  return file.getvalue()


def shrink(images: np.ndarray) -> np.ndarray:
  """Returns `[h, N * w, C]`, all of `[N, H, W, C]` side by side and small."""
  height, width, channels = images.shape[1:]
  factor = min(1.0, _THUMBNAIL / max(height, width))
  size = (round(width * factor), round(height * factor))
  resize = lambda own: own.resize(size, Image.Resampling.LANCZOS)
  small = [np.asarray(resize(pictures.to_picture(image))) for image in images]
  return np.concatenate(small, axis=1).reshape(size[1], -1, channels)


def _find_unit(units, name):
  names = [unit.name for unit in units]
  if name not in names:
    raise errors.InputError(
        f'no unit {untrusted.describe(name)}; accepted: {", ".join(names)}.'
    )
  return names.index(name)


def _read_strength(name, value):
  if not _is_number(value) or not abs(value) <= _LARGEST_STRENGTH:
    raise errors.InputError(
        f'{name[:80]} is {untrusted.describe(value)}; accepted: a number from'
        f' {-_LARGEST_STRENGTH:g} to {_LARGEST_STRENGTH:g}.'
    )
  return float(value)


def _is_number(value):
  # JSON's true is no number, and NaN, which Python reads, fails what follows.
  return isinstance(value, (int, float)) and not isinstance(value, bool)
