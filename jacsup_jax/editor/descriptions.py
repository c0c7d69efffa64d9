"""Describe a model for the page, as JSON: sliders, presets, the map of classes.

Positions are values of a unit in its standard deviations from its mean, so that
a photo at position p that is moved by a strength s is shown at p + s.
"""

from collections.abc import Mapping
import math
from typing import Any

import numpy as np

from jacsup_jax.editor import editor
from jacsup_jax.editor import profiles
from jacsup_jax.evaluation import unit_scales

# CelebA's attributes in the order in which the page shows them.
_ATTRIBUTES = {
    'Accessories and make-up': (
        'Eyeglasses', 'Wearing_Hat', 'Heavy_Makeup', 'Wearing_Earrings',
        'Wearing_Lipstick', 'Wearing_Necklace', 'Wearing_Necktie',
    ),
    'Hair': (
        'Bald', 'Bangs', 'Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair',
        'Receding_Hairline', 'Straight_Hair', 'Wavy_Hair',
    ),
    'Beard': (
        '5_o_Clock_Shadow', 'Goatee', 'Mustache', 'No_Beard', 'Sideburns',
    ),
    'Eyes and brows': (
        'Arched_Eyebrows', 'Bags_Under_Eyes', 'Bushy_Eyebrows', 'Narrow_Eyes',
    ),
    'Nose and mouth': (
        'Big_Lips', 'Big_Nose', 'Mouth_Slightly_Open', 'Pointy_Nose', 'Smiling',
    ),
    'Face shape': (
        'Chubby', 'Double_Chin', 'High_Cheekbones', 'Oval_Face', 'Pale_Skin',
        'Rosy_Cheeks',
    ),
    'Whole person': ('Attractive', 'Blurry', 'Male', 'Young'),
}  # fmt: skip
_FACTORS, _NUISANCE = 'Factors', 'Nuisance'
_GROUP_OF = {
  name: group for group, names in _ATTRIBUTES.items() for name in names
}
# Names of presets, and whether an attribute is made present (1) or absent (-1).
_PRESETS = {
  'Glasses': {'Eyeglasses': 1},
  'Hat': {'Wearing_Hat': 1, 'Bald': -1, 'Bangs': -1},
  'Beard': {'Goatee': 1, 'Mustache': 1, 'No_Beard': -1},
  'Blond': {'Blond_Hair': 1, 'Black_Hair': -1, 'Brown_Hair': -1, 'Bald': -1},
  'Black hair': {'Black_Hair': 1, 'Blond_Hair': -1, 'Bald': -1},
  'Fringe': {'Bangs': 1, 'Bald': -1, 'Wearing_Hat': -1},
  'Smile': {'Smiling': 1, 'Mouth_Slightly_Open': 1},
  'Older': {'Young': -1, 'Gray_Hair': 1},
  'Disguise': {'Eyeglasses': 1, 'Mustache': 1, 'Wearing_Hat': 1},
}
# What the strip below the picture shows first, where a model has it.
_FIRST = 'Eyeglasses'
# Sliders reach this many standard deviations at least, and at most; the range
# of a unit whose edits were measured may be shorter.
_LEAST_REACH, _MOST_REACH = 3.0, 6.0
_LEAST_MEASURED_REACH = 1.0


def describe_model(own: editor.Editor) -> dict[str, Any]:
  """Describes what the page needs to know of a model."""
  units = [_describe_unit(unit, own.profile) for unit in own.units]
  height, width, channels = own.image_shape
  first = _choose_first(units)
  about = own.profile.about or f'a model of {len(units)} sliders'
  return {
    'about': f'{about}, at {height}x{width} pixels',
    'channels': channels,
    'size': max(height, width),
    'units': units,
    'groups': [*_ATTRIBUTES, _FACTORS, _NUISANCE],
    'first': first,
    'map': _choose_axes(units, first),
    'presets': _list_presets(units),
    'layout': _describe_layout(own),
    # Codes that are feature maps lack detail that a photo has; where flat codes
    # are moved to another class, it would be a ghost of the first.
    'keep_detail': 1.0 if _has_map(own) else 0.0,
    'can_draw': channels == 1,
  }


def describe_positions(
  own: editor.Editor, encoded: editor.Encoded
) -> dict[str, float]:
  """Returns the positions of one image, B = 1, by unit."""
  factors, nuisance = (np.asarray(x)[0].ravel() for x in encoded.code)
  values = np.concatenate([factors, nuisance])[: len(own.units)]
  return {
    unit.name: _to_position(unit, float(value))
    for unit, value in zip(own.units, values)
  }


def _has_map(own):
  return not any(unit.kind == unit_scales.NUISANCE for unit in own.units) and (
    own.model.nuisance_dim > 0
  )


def _describe_unit(unit, profile):
  """Describes a slider; `reach` is 0 if the unit cannot be moved.

  Photos that lack an attribute are moved to `high` and others to `low`; without
  need they are moved to the end of the training data, `usual`. `flips` and
  `kept` are None if they were not measured.
  """
  score = profile.edits.get(unit.name)
  ends = (score.absent, score.present) if score else (unit.low, unit.high)
  low, high = (_to_position(unit, end) for end in sorted(ends))
  usual = [_to_position(unit, end) for end in (unit.low, unit.high)]
  reach, least = 0.0, _LEAST_MEASURED_REACH if score else _LEAST_REACH
  if unit.deviation > 0:
    # From one end to the other, whatever the photo.
    reach = float(np.clip(math.ceil((high - low) * 2) / 2, least, _MOST_REACH))
  label, group = unit.name, _GROUP_OF.get(unit.name, _FACTORS)
  if unit.name in _GROUP_OF:
    label = unit.name.replace('_o_Clock', " o'clock").replace('_', ' ')
    label = label.capitalize()
  if unit.kind == unit_scales.NUISANCE:
    group = _NUISANCE
  return {
    'name': unit.name,
    'label': label,
    'group': group,
    'reach': reach,
    'low': low,
    'high': high,
    'usual': usual,
    'flips': score.flips if score else None,
    'kept': score.kept if score else None,
    'is_weak': bool(score and score.is_weak),
  }


def _to_position(unit, value):
  return (value - unit.mean) / unit.deviation if unit.deviation else 0.0


def _choose_first(units):
  """Chooses the unit that is shown first: one that works, if it is known."""
  movable = [unit for unit in units if unit['reach']]
  strong = [unit for unit in movable if not unit['is_weak']] or movable
  names = [unit['name'] for unit in strong]
  if not names or _FIRST in names:
    return _FIRST if names else None
  return max(strong, key=lambda unit: unit['flips'] or 0.0)['name']


def _choose_axes(units, first):
  """Chooses two units for the map: the first one, and the next that works."""
  strong = [x for x in units if x['reach'] and not x['is_weak']]
  order = [*_GROUP_OF]
  place = lambda x: order.index(x['name']) if x['name'] in order else -1
  others = sorted((x for x in strong if x['name'] != first), key=place)
  return [name for name in (first, *(x['name'] for x in others[:1])) if name]


def _list_presets(units: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Lists presets of which the attributes that are made present all work."""
  by_name = {unit['name']: unit for unit in units if unit['reach']}
  found = []
  for label, signs in _PRESETS.items():
    wanted = [name for name, sign in signs.items() if sign > 0]
    if any(name not in by_name or by_name[name]['is_weak'] for name in wanted):
      continue
    targets = {
      name: by_name[name]['high' if sign > 0 else 'low']
      for name, sign in signs.items()
      if name in by_name
    }
    if targets:
      found.append({'label': label, 'targets': targets})
  return found


def _describe_layout(own):
  """Describes the map of classes; None if the model has none."""
  layout: profiles.Layout | None = own.profile.layout
  if layout is None:
    return None
  axes = own.units[:2]
  return {
    'axes': [unit.name for unit in axes],
    'cells': layout.cells,
    'classes': [
      {
        'label': label,
        'targets': {
          unit.name: _to_position(unit, value)
          for unit, value in zip(axes, center)
        },
      }
      for label, center in layout.centers.items()
    ],
  }
