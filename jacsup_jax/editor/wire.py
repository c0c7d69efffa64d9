"""Describe units and encode pictures for the page; its errors."""

import io
import math
from typing import Any

import numpy as np
from PIL import Image

from jacsup_jax.evaluation import unit_scales
from jacsup_jax.figures import pictures

# CelebA's attributes in the order in which the page shows them.
_ATTRIBUTES = {
    'Hair': (
        'Bald', 'Bangs', 'Black_Hair', 'Blond_Hair', 'Brown_Hair', 'Gray_Hair',
        'Receding_Hairline', 'Straight_Hair', 'Wavy_Hair',
    ),
    'Face shape': (
        'Chubby', 'Double_Chin', 'High_Cheekbones', 'Oval_Face', 'Pale_Skin',
        'Rosy_Cheeks',
    ),
    'Eyes and brows': (
        'Arched_Eyebrows', 'Bags_Under_Eyes', 'Bushy_Eyebrows', 'Narrow_Eyes',
    ),
    'Nose and mouth': (
        'Big_Lips', 'Big_Nose', 'Mouth_Slightly_Open', 'Pointy_Nose', 'Smiling',
    ),
    'Beard': (
        '5_o_Clock_Shadow', 'Goatee', 'Mustache', 'No_Beard', 'Sideburns',
    ),
    'Accessories and make-up': (
        'Eyeglasses', 'Heavy_Makeup', 'Wearing_Earrings', 'Wearing_Hat',
        'Wearing_Lipstick', 'Wearing_Necklace', 'Wearing_Necktie',
    ),
    'Whole person': ('Attractive', 'Blurry', 'Male', 'Young'),
}  # fmt: skip
_FACTORS, _NUISANCE = 'Factors', 'Nuisance'
GROUPS = (*_ATTRIBUTES, _FACTORS, _NUISANCE)
_GROUP_OF = {
  name: group for group, names in _ATTRIBUTES.items() for name in names
}
# Sliders reach this many standard deviations at least, and at most.
_LEAST_REACH, _MOST_REACH = 3.0, 6.0
_THUMBNAIL = 64  # longest side, in pixels


class NotFoundError(LookupError):
  """There is no such model or photo; the message is one line."""


def describe_unit(unit: unit_scales.Unit) -> dict[str, Any]:
  """Describes a slider as JSON; `reach` is 0 if the unit cannot be moved."""
  reach = 0.0
  if unit.deviation > 0:
    # From one end of the training data to the other.
    span = (unit.high - unit.low) / unit.deviation
    reach = float(np.clip(math.ceil(span * 2) / 2, _LEAST_REACH, _MOST_REACH))
  label, group = unit.name, _GROUP_OF.get(unit.name, _FACTORS)
  if unit.name in _GROUP_OF:
    label = unit.name.replace('_o_Clock', " o'clock").replace('_', ' ')
    label = label[:1] + label[1:].lower()
  if unit.kind == unit_scales.NUISANCE:
    group = _NUISANCE
  return {'name': unit.name, 'label': label, 'group': group, 'reach': reach}


def encode(image: np.ndarray) -> bytes:
  """Encodes `[H, W, C]` uint8, C of 1 or 3, as lossless WebP."""
  file = io.BytesIO()
  # At 256x256 this takes half the time of the fastest PNG, at no larger size.
  pictures.to_picture(image).save(
    file, format='WEBP', lossless=True, quality=0, method=0
  )
  return file.getvalue()


def shrink(images: np.ndarray) -> np.ndarray:
  """Tiles `[N, H, W, C]` side by side as thumbnails, `[h, N * w, C]`."""
  height, width, channels = images.shape[1:]
  factor = min(1.0, _THUMBNAIL / max(height, width))
  size = (round(width * factor), round(height * factor))
  resize = lambda own: own.resize(size, Image.Resampling.LANCZOS)
  small = [np.asarray(resize(pictures.to_picture(image))) for image in images]
  return np.concatenate(small, axis=1).reshape(size[1], -1, channels)
