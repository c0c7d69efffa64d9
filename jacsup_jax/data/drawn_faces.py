"""Draw faces by a formula, with attributes that are named as CelebA's.

A face is a pure function of its attributes and of a `Nuisance`, so that the
same face can be drawn with one attribute changed: what a perfect editor gives.
"""

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import drawn_canvas
from jacsup_jax.data import drawn_parts

Nuisance = drawn_canvas.Nuisance

# In the order of CelebA's list.
ATTRIBUTES = (
  *('Bald', 'Bangs', 'Big_Nose', 'Black_Hair', 'Blond_Hair', 'Bushy_Eyebrows'),
  *('Eyeglasses', 'Goatee', 'Mouth_Slightly_Open', 'Mustache', 'Pale_Skin'),
  *('Smiling', 'Wearing_Hat', 'Wearing_Lipstick'),
)
# No face has both: the first would hide the second, or contradict it.
EXCLUSIVE = (
  *(('Bald', name) for name in ('Bangs', 'Black_Hair', 'Blond_Hair')),
  *(('Bald', 'Wearing_Hat'), ('Wearing_Hat', 'Bangs')),
  ('Black_Hair', 'Blond_Hair'),
)
# Smaller faces are reduced from the first size; larger ones are drawn anew.
IMAGE_SIZE, LARGEST_SIZE = 64, 256
SPLIT_SIZES = {'train': 12000, 'validation': 1000, 'test': 1000}

_SEED = 20190506  # seeds every stream, with the split and the index


def draw(
  index: int, split: str, size: int = IMAGE_SIZE
) -> tuple[np.ndarray, np.ndarray]:
  """Draws `[size, size, 3]` uint8, and `[K]` int8 attributes in {-1, +1}."""
  attributes, nuisance = sample(index, split)
  return draw_face(attributes, nuisance, size), attributes


def sample(index: int, split: str) -> tuple[np.ndarray, Nuisance]:
  """Draws the attributes and the nuisance of an example at random.

  The nuisance is independent of the attributes, and its entries of each other:
  all are uniform. The attributes depend on a hidden coin, of two looks.
  """
  if index not in range(SPLIT_SIZES.get(split, 0)):
    raise errors.InputError(
      f'drawn face {index} of split {split!r}; accepted: those of {SPLIT_SIZES}'
    )
  stream = [_SEED, list(SPLIT_SIZES).index(split), index]
  # Two streams, so that another attribute would leave the nuisance alone.
  attributes = _sample_attributes(np.random.PCG64([*stream, 0]))
  nuisance = _sample_nuisance(np.random.PCG64([*stream, 1]))
  return attributes, nuisance


def is_allowed(attributes: np.ndarray) -> bool:
  """Checks whether a face can have `[K]` attributes: none are EXCLUSIVE."""
  return not _find_conflicts(attributes)


def draw_face(
  attributes: np.ndarray, nuisance: Nuisance, size: int = IMAGE_SIZE
) -> np.ndarray:
  """Draws one face, `[size, size, 3]` uint8, from `[K]` attributes."""
  attributes = np.asarray(attributes)
  if attributes.shape != (len(ATTRIBUTES),) or set(attributes) - {-1, 1}:
    raise errors.InputError(
      f'attributes {attributes.tolist()} of a drawn face: accepted are'
      f' {len(ATTRIBUTES)} values of -1 or 1'
    )
  has = dict(zip(ATTRIBUTES, (attributes > 0).tolist()))
  if conflicts := _find_conflicts(attributes):
    raise errors.InputError(
      f'a drawn face cannot have both {" and ".join(conflicts[0])}: accepted is'
      ' one of them'
    )
  canvas = drawn_canvas.Canvas(has, nuisance, size)
  skin, hair = drawn_parts.skin_colour(canvas), drawn_parts.hair_colour(canvas)
  drawn_parts.draw_background(canvas)
  if not has['Bald']:
    drawn_parts.draw_back_hair(canvas, hair)
  drawn_parts.draw_body(canvas, skin)
  drawn_parts.draw_head(canvas, skin)
  drawn_parts.draw_nose(canvas, skin)
  drawn_parts.draw_mouth(canvas, skin)
  drawn_parts.draw_facial_hair(canvas, hair)
  drawn_parts.draw_eyes(canvas, skin)
  if not has['Bald']:
    drawn_parts.draw_front_hair(canvas, hair)
  drawn_parts.draw_brows(canvas, hair)
  if has['Eyeglasses']:
    drawn_parts.draw_glasses(canvas)
  if has['Wearing_Hat']:
    drawn_parts.draw_hat(canvas)
  return canvas.to_uint8()


def _find_conflicts(attributes: np.ndarray) -> list[tuple[str, str]]:
  """Lists the pairs of EXCLUSIVE that both hold."""
  held = {name for name, value in zip(ATTRIBUTES, attributes) if value > 0}
  return [pair for pair in EXCLUSIVE if held.issuperset(pair)]


def _sample_attributes(bits: np.random.PCG64) -> np.ndarray:
  """Draws attributes as `sample` says; `[K]` int8."""
  # One number for each, used or not, so that none shifts the others.
  numbers = iter(np.random.Generator(bits).random(len(ATTRIBUTES)).tolist())
  look = next(numbers) < 0.5

  def happens(probability: float, other: float | None = None) -> bool:
    if other is not None and not look:
      probability = other
    return next(numbers) < probability

  has = {'Bald': happens(0.30, 0.04)}
  haired = not has['Bald']
  has['Wearing_Hat'] = happens(0.25) and haired
  has['Bangs'] = happens(0.30, 0.60) and haired and not has['Wearing_Hat']
  colour = next(numbers)
  has['Black_Hair'] = haired and colour < 0.40
  has['Blond_Hair'] = haired and 0 <= colour - 0.40 < (0.30 if look else 0.45)
  has['Goatee'] = happens(0.50, 0.04)
  has['Mustache'] = happens(0.65) if has['Goatee'] else happens(0.30, 0.04)
  has['Big_Nose'] = happens(0.50, 0.30)
  has['Bushy_Eyebrows'] = happens(0.60, 0.25)
  has['Eyeglasses'] = happens(0.35, 0.25)
  has['Smiling'] = happens(0.45, 0.60)
  has['Wearing_Lipstick'] = happens(0.05, 0.65)
  has['Mouth_Slightly_Open'] = happens(0.45)
  has['Pale_Skin'] = happens(0.30)
  return np.array([1 if has[name] else -1 for name in ATTRIBUTES], np.int8)


def _sample_nuisance(bits: np.random.PCG64) -> Nuisance:
  """Draws a nuisance, uniformly in its ranges."""
  values = np.random.Generator(bits).random(len(Nuisance._fields)).tolist()
  pose = Nuisance._fields.index('face_width')
  return Nuisance(*[2 * v - 1 for v in values[:pose]], *values[pose:])
