"""Faces drawn by a formula, with attributes that are named as CelebA's.

A face is a pure function of its attributes and of a `Nuisance`, so that the
same face can be drawn with one attribute changed: what a perfect editor gives.
Shapes are distances to outlines, cut off softly over one pixel. Only +, -, *, /
and square roots are used, and uniform random numbers: IEEE arithmetic fixes
every bit of these, which it does not for sines, and nothing does for fonts.

Lengths are in units of half a head's height, x to the right and y down from the
middle of the head. Colours are in [0, 1].
"""

from typing import NamedTuple

import numpy as np

from jacsup_jax.core import errors

# In the order of CelebA's list.
ATTRIBUTES = (
    'Bald', 'Bangs', 'Big_Nose', 'Black_Hair', 'Blond_Hair', 'Bushy_Eyebrows',
    'Eyeglasses', 'Goatee', 'Mouth_Slightly_Open', 'Mustache', 'Pale_Skin',
    'Smiling', 'Wearing_Hat', 'Wearing_Lipstick',
)
# No face has both: the first would hide the second, or contradict it.
EXCLUSIVE = (
    ('Bald', 'Bangs'), ('Bald', 'Black_Hair'), ('Bald', 'Blond_Hair'),
    ('Bald', 'Wearing_Hat'), ('Wearing_Hat', 'Bangs'),
    ('Black_Hair', 'Blond_Hair'),
)
IMAGE_SIZE = 64
SPLIT_SIZES = {'train': 12000, 'validation': 1000, 'test': 1000}

_SEED = 20190506  # Of every random stream, with the split and the index.
_UNIT = 22.0 / 64.0  # Half a head's height, as a part of the image.
_MOUTH_Y = 0.56
_EYE_Y = -0.06


class Nuisance(NamedTuple):
  """What a face has besides its attributes.

  Pose and light are in [-1, 1] and 0 is neutral; all others are in [0, 1].
  """

  yaw: float = 0.0  # Turns the head: features move sideways.
  roll: float = 0.0  # Tilts all of the person, by 8 degrees at 1.
  shift_x: float = 0.0  # Moves all of the person, by 1.5 pixels in 64 at 1.
  shift_y: float = 0.0
  scale: float = 0.0  # Enlarges all of the person, by 6 % at 1.
  light: float = 0.0  # 1: from the right.
  face_width: float = 0.5
  jaw: float = 0.5  # 1: narrow.
  skin_tone: float = 0.5  # 1: dark. Pale_Skin leaves a little of it.
  eye_colour: float = 0.5  # From brown over green to blue.
  eye_size: float = 0.5
  brow_height: float = 0.5
  mouth_width: float = 0.5
  hair_colour: float = 0.5  # Brown, red, grey: of hair not black or blond.
  hair_shade: float = 0.5  # 1: light, within its colour.
  hair_length: float = 0.5
  parting: float = 0.5
  shirt_hue: float = 0.6
  shirt_value: float = 0.5
  hat_hue: float = 0.0
  hat_value: float = 0.5
  frame_hue: float = 0.6  # Of eyeglasses.
  background_hue: float = 0.55
  background_value: float = 0.5
  background_slope: float = 0.5  # From light above to light below.


def draw(index: int, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Draws an example of the data set.

  Args:
    index: of the example, in [0, SPLIT_SIZES[split]).
    split: one of SPLIT_SIZES.

  Returns:
    The image, `[64, 64, 3]` uint8, and its attributes, `[K]` int8 in {-1, +1},
    in the order of ATTRIBUTES.

  Raises:
    InputError: if there is no such example.
  """
  attributes, nuisance = sample(index, split)
  return draw_face(attributes, nuisance, IMAGE_SIZE), attributes


def sample(index: int, split: str) -> tuple[np.ndarray, Nuisance]:
  """Draws the attributes and the nuisance of an example at random.

  The nuisance is independent of the attributes, and its entries of each other:
  all are uniform. The attributes depend on a hidden coin, of two looks; the
  probabilities below are for one look / the other.

    Bald 0.30 / 0.04.
    Wearing_Hat 0.25 of those not Bald.
    Bangs 0.30 / 0.60 of those neither Bald nor with a hat.
    Black_Hair 0.40 of those not Bald; Blond_Hair 0.30 / 0.45 of those not Bald;
    never both, and neither is brown, red or grey.
    Goatee 0.50 / 0.04. Mustache 0.65 with a Goatee; 0.30 / 0.04 without.
    Big_Nose 0.50 / 0.30. Bushy_Eyebrows 0.60 / 0.25. Eyeglasses 0.35 / 0.25.
    Smiling 0.45 / 0.60. Wearing_Lipstick 0.05 / 0.65.
    Mouth_Slightly_Open 0.45 and Pale_Skin 0.30, independent of all.

  Args:
    index: of the example, in [0, SPLIT_SIZES[split]).
    split: one of SPLIT_SIZES.

  Returns:
    The attributes, `[K]` int8 in {-1, +1}, and the nuisance.

  Raises:
    InputError: if there is no such example.
  """
  if split not in SPLIT_SIZES:
    raise errors.InputError(
        f'split {split!r} of drawn faces: accepted are {", ".join(SPLIT_SIZES)}'
    )
  if not 0 <= index < SPLIT_SIZES[split]:
    raise errors.InputError(
        f'example {index} of split {split!r} of drawn faces: accepted are 0 to'
        f' {SPLIT_SIZES[split] - 1}'
    )
  stream = [_SEED, list(SPLIT_SIZES).index(split), index]
  # Two streams, so that another attribute would leave the nuisance alone.
  attributes = _sample_attributes(np.random.PCG64([*stream, 0]))
  nuisance = _sample_nuisance(np.random.PCG64([*stream, 1]))
  return attributes, nuisance


def is_allowed(attributes: np.ndarray) -> bool:
  """Says whether a face can have these attributes: none are EXCLUSIVE.

  Args:
    attributes: `[K]`, in {-1, +1}.

  Returns:
    Whether `draw_face` accepts them.
  """
  return _find_conflict(attributes) is None


def draw_face(
    attributes: np.ndarray, nuisance: Nuisance, size: int = IMAGE_SIZE
) -> np.ndarray:
  """Draws one face.

  Args:
    attributes: `[K]`, in {-1, +1}, in the order of ATTRIBUTES.
    nuisance: what else the face has.
    size: S, in pixels.

  Returns:
    `[S, S, 3]` uint8.

  Raises:
    InputError: if the attributes are not K values of -1 or 1, or EXCLUSIVE.
  """
  attributes = np.asarray(attributes)
  if attributes.shape != (len(ATTRIBUTES),) or not np.isin(
      attributes, (-1, 1)
  ).all():
    raise errors.InputError(
        f'attributes {attributes.tolist()} of a drawn face: accepted are'
        f' {len(ATTRIBUTES)} values of -1 or 1'
    )
  conflict = _find_conflict(attributes)
  if conflict is not None:
    raise errors.InputError(
        f'a drawn face cannot have both {conflict[0]} and {conflict[1]}:'
        ' accepted is one of them'
    )
  has = dict(zip(ATTRIBUTES, (attributes > 0).tolist()))
  canvas = _Canvas(nuisance, size)
  skin = _skin_colour(has, nuisance)
  hair = _hair_colour(has, nuisance)
  _draw_background(canvas, nuisance)
  if not has['Bald']:
    _draw_back_hair(canvas, nuisance, hair)
  _draw_body(canvas, nuisance, skin)
  _draw_head(canvas, has, nuisance, skin)
  _draw_nose(canvas, has, nuisance, skin)
  _draw_mouth(canvas, has, nuisance, skin)
  _draw_facial_hair(canvas, has, hair)
  _draw_eyes(canvas, has, nuisance, skin)
  if not has['Bald']:
    _draw_front_hair(canvas, has, nuisance, hair)
  _draw_brows(canvas, has, nuisance, hair)
  if has['Eyeglasses']:
    _draw_glasses(canvas, nuisance)
  if has['Wearing_Hat']:
    _draw_hat(canvas, nuisance)
  return canvas.to_uint8()


def _find_conflict(attributes: np.ndarray) -> tuple[str, str] | None:
  """Gives a pair of EXCLUSIVE that both hold, if any."""
  for first, second in EXCLUSIVE:
    if (
        attributes[ATTRIBUTES.index(first)] > 0
        and attributes[ATTRIBUTES.index(second)] > 0
    ):
      return first, second
  return None


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


class _Canvas:
  """An image being painted, and where its pixels are on the person.

  Attributes:
    pixels: `[3, S, S]` float32, the image.
    x, y: `[S, S]` float32, coordinates of the pixels, in half heads.
    u: `[S, S]` float32, x from the middle of the face, which yaw moves.
    unit: pixels in half a head.
    turn: what yaw moves the middle of the face by.
  """

  def __init__(self, nuisance: Nuisance, size: int):
    self.size = size
    self.pixels = np.zeros((3, size, size), np.float32)
    self.unit = size * _UNIT * (1 + 0.06 * nuisance.scale)
    axis = np.arange(size, dtype=np.float32) + 0.5
    shift = size * 1.5 / 64
    columns = (axis - (size / 2 + shift * nuisance.shift_x)) / self.unit
    rows = (axis - (size * 0.535 + shift * nuisance.shift_y)) / self.unit
    # A rotation by twice the angle whose tangent is `half`: no sine needed.
    half = 0.07 * nuisance.roll
    cosine = (1 - half * half) / (1 + half * half)
    sine = 2 * half / (1 + half * half)
    self.x = cosine * columns[None, :] + sine * rows[:, None]
    self.y = cosine * rows[:, None] - sine * columns[None, :]
    self.turn = 0.11 * nuisance.yaw
    self.u = self.x - self.turn

  def cover(self, distance: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """Gives the part of each pixel inside an outline, `[S, S]` in [0, 1].

    Args:
      distance: `[S, S]`, to the outline, negative inside.
      blur: half the width of the edge, besides that of a pixel.
    """
    if not blur:
      return np.clip(0.5 - distance * self.unit, 0, 1)
    width = 2 * blur + 1 / self.unit
    ramp = np.clip(0.5 - distance / width, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)

  def paint(self, cover: np.ndarray, colour: np.ndarray) -> None:
    """Paints a `[3]` or `[3, S, S]` colour where `[S, S]` cover says."""
    if colour.ndim == 1:
      colour = colour[:, None, None]
    self.pixels += cover[None] * (colour - self.pixels)

  def to_uint8(self) -> np.ndarray:
    """Gives the image, `[S, S, 3]`."""
    scaled = np.clip(self.pixels, 0, 1) * 255 + 0.5
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 0))


def _ellipse(x, y, width, height) -> np.ndarray:
  """Distance to an ellipse of these half axes, to first order."""
  across, down = x / width, y / height
  radius = np.sqrt(across * across + down * down)
  across, down = across / width, down / height
  slope = np.sqrt(across * across + down * down)
  return radius * (radius - 1) / (slope + 1e-3)


def _segment(x, y, start, end, radius) -> np.ndarray:
  """Distance to a line with round ends."""
  along_x, along_y = end[0] - start[0], end[1] - start[1]
  length = along_x * along_x + along_y * along_y
  x, y = x - start[0], y - start[1]
  part = np.clip((x * along_x + y * along_y) / length, 0, 1)
  x, y = x - part * along_x, y - part * along_y
  return np.sqrt(x * x + y * y) - radius


def _triangle_wave(x) -> np.ndarray:
  """Rises and falls between -1 and 1, once in a unit."""
  return 4 * np.abs(x - np.floor(x) - 0.5) - 1


def _rgb(*values: float) -> np.ndarray:
  """A colour, `[3]` float32."""
  return np.array(values, np.float32)


def _blend(first: np.ndarray, second: np.ndarray, part: float) -> np.ndarray:
  """Goes from a colour to another."""
  return first + (second - first) * np.float32(part)


def _hue(hue: float, saturation: float, value: float) -> np.ndarray:
  """A colour by hue in [0, 1], saturation and value, `[3]` float32."""
  ramps = []
  for offset in (0.0, 2 / 3, 1 / 3):
    position = (hue + offset) % 1.0 * 6
    ramps.append(min(max(abs(position - 3) - 1, 0.0), 1.0))
  return _rgb(*[value * (1 - saturation * (1 - ramp)) for ramp in ramps])


def _skin_colour(has: dict[str, bool], nuisance: Nuisance) -> np.ndarray:
  light, dark = _rgb(0.90, 0.68, 0.52), _rgb(0.60, 0.39, 0.27)
  skin = _blend(light, dark, nuisance.skin_tone)
  if has['Pale_Skin']:
    return _blend(_rgb(1.00, 0.91, 0.87), skin, 0.10)
  return skin


def _hair_colour(has: dict[str, bool], nuisance: Nuisance) -> np.ndarray:
  """Of the head and, somewhat darker, of brows, moustache and goatee."""
  if has['Black_Hair']:
    return _rgb(0.07, 0.06, 0.08) * np.float32(0.6 + 0.8 * nuisance.hair_shade)
  if has['Blond_Hair']:
    base = _rgb(0.93, 0.77, 0.40)
  elif nuisance.hair_colour < 0.5:
    base = _rgb(0.42, 0.25, 0.13)
  elif nuisance.hair_colour < 0.75:
    base = _rgb(0.62, 0.24, 0.09)
  else:
    base = _rgb(0.55, 0.54, 0.54)
  return base * np.float32(0.9 + 0.2 * nuisance.hair_shade)


def _head_width(nuisance: Nuisance) -> float:
  return 0.70 + 0.10 * nuisance.face_width


def _head_distance(canvas: _Canvas, nuisance: Nuisance) -> np.ndarray:
  """Distance to the outline of the head, narrower towards the chin."""
  down = np.clip(canvas.y, 0, 1)
  taper = 1 - (0.10 + 0.14 * nuisance.jaw) * down * down
  x = canvas.x - 0.35 * canvas.turn * down
  return _ellipse(x / taper, canvas.y, _head_width(nuisance), 1.0)


def _draw_background(canvas: _Canvas, nuisance: Nuisance) -> None:
  """A wall lit from above or below; it does not move with the person."""
  colour = _hue(
      nuisance.background_hue, 0.28, 0.45 + 0.45 * nuisance.background_value
  )
  axis = (np.arange(canvas.size, dtype=np.float32) + 0.5) / canvas.size - 0.5
  slope = 0.5 * (nuisance.background_slope - 0.5)
  light = 1 + slope * axis[:, None] + 0.15 * nuisance.light * axis[None, :]
  canvas.pixels += colour[:, None, None] * light[None]


def _draw_back_hair(
    canvas: _Canvas, nuisance: Nuisance, hair: np.ndarray
) -> None:
  """Hair behind the neck; at its shortest it still shows by the ears."""
  width = _head_width(nuisance) + 0.15
  bottom = 0.30 + 1.0 * nuisance.hair_length
  crown = _ellipse(canvas.x, canvas.y + 0.10, width, 1.06)
  # Below the crown's middle the hair falls straight, with a round end.
  fall = np.maximum(np.abs(canvas.x) - width, -0.10 - canvas.y)
  end = canvas.y - bottom + 0.25 * canvas.x * canvas.x
  shape = np.maximum(np.minimum(crown, fall), end)
  canvas.paint(canvas.cover(shape), _shade_hair(canvas, hair, 0.78))


def _shade_hair(
    canvas: _Canvas, hair: np.ndarray, brightness: float
) -> np.ndarray:
  """Gives hair strands and a gloss on the crown, `[3, S, S]`."""
  x, y = canvas.x, canvas.y
  strands = _triangle_wave(3.5 * x + 0.8 * x * y)
  gloss = np.clip(1 - np.abs(y + 0.88 - 0.35 * x * x) / 0.16, 0, 1)
  light = brightness * (1 + 0.08 * strands + 0.16 * gloss)
  return hair[:, None, None] * light[None] + 0.05 * gloss[None]


def _draw_body(
    canvas: _Canvas, nuisance: Nuisance, skin: np.ndarray
) -> None:
  """Neck, in the shade of the chin, and a shirt."""
  x, y = canvas.x, canvas.y
  neck = np.maximum(np.abs(x) - 0.34, 0.4 - y)
  shade = 0.70 + 0.14 * np.clip((y - 1.0) / 0.4, 0, 1)
  canvas.paint(canvas.cover(neck), skin[:, None, None] * shade[None])
  shirt = _hue(nuisance.shirt_hue, 0.60, 0.30 + 0.50 * nuisance.shirt_value)
  shoulders = np.maximum(
      _ellipse(x, y - 1.95, 1.45, 0.90), -_ellipse(x, y - 1.08, 0.36, 0.26)
  )
  light = 1 - 0.18 * x * x + 0.10 * nuisance.light * x
  canvas.paint(
      canvas.cover(shoulders), shirt[:, None, None] * light[None]
  )
  collar = np.abs(_ellipse(x, y - 1.08, 0.40, 0.30)) - 0.035
  collar = np.maximum(collar, 1.14 - y)
  canvas.paint(0.8 * canvas.cover(collar), shirt * np.float32(0.65))


def _draw_head(
    canvas: _Canvas,
    has: dict[str, bool],
    nuisance: Nuisance,
    skin: np.ndarray,
) -> None:
  """Ears, then the head as a lit ball, with cheeks."""
  x, y, u = canvas.x, canvas.y, canvas.u
  width = _head_width(nuisance)
  for side in (-1.0, 1.0):
    # Yaw hides an ear and brings out the other.
    ear_x = side * (width + 0.01) - 0.5 * canvas.turn
    ear = _ellipse(x - ear_x, y - 0.08, 0.12, 0.22)
    canvas.paint(canvas.cover(ear), skin * np.float32(0.84))
    inner = _ellipse(x - ear_x - side * 0.01, y - 0.08, 0.05, 0.12)
    canvas.paint(canvas.cover(inner, 0.03), skin * np.float32(0.68))
  head = _head_distance(canvas, nuisance)
  edge = np.clip(1 + head / 0.45, 0, 1)
  light = (
      1.03 - 0.20 * edge * edge - 0.04 * y + 0.16 * nuisance.light * x
  )
  canvas.paint(canvas.cover(head), skin[:, None, None] * light[None])
  raised = 0.05 if has['Smiling'] else 0.0
  rosy = _blend(skin, _rgb(0.88, 0.36, 0.32), 0.5)
  for side in (-1.0, 1.0):
    cheek = _ellipse(u - side * 0.42, y - 0.30 + raised, 0.17, 0.12)
    canvas.paint(0.28 * canvas.cover(cheek, 0.10), rosy)
  if has['Bald']:
    gloss = _ellipse(x - 0.22 * nuisance.light, y + 0.70, 0.26, 0.10)
    canvas.paint(
        0.55 * canvas.cover(gloss, 0.08), _blend(skin, _rgb(1, 1, 1), 0.8)
    )


def _eye_centres(canvas: _Canvas) -> list[tuple[float, float]]:
  """Gives (side, u) of both eyes; the one turned away is nearer the nose."""
  return [(side, side * 0.33 - 0.25 * canvas.turn) for side in (-1.0, 1.0)]


def _draw_eyes(
    canvas: _Canvas,
    has: dict[str, bool],
    nuisance: Nuisance,
    skin: np.ndarray,
) -> None:
  """White, iris, pupil, a spark and lashes; a smile lifts the lower lid."""
  u, y = canvas.u, canvas.y - _EYE_Y
  width, height = 0.155 + 0.03 * nuisance.eye_size, 0.095
  height += 0.025 * nuisance.eye_size
  if nuisance.eye_colour < 0.5:
    iris = _blend(
        _rgb(0.25, 0.13, 0.06), _rgb(0.25, 0.42, 0.20), nuisance.eye_colour * 2
    )
  else:
    iris = _blend(
        _rgb(0.25, 0.42, 0.20), _rgb(0.20, 0.42, 0.72),
        nuisance.eye_colour * 2 - 1,
    )
  for _, centre in _eye_centres(canvas):
    x = u - centre
    socket = _ellipse(x, y + 0.02, width + 0.07, height + 0.08)
    canvas.paint(0.35 * canvas.cover(socket, 0.06), skin * np.float32(0.68))
    eye = _ellipse(x, y, width, height)
    if has['Smiling']:
      eye = np.maximum(eye, y - 0.62 * height + 0.6 * x * x)
    white = canvas.cover(eye)
    canvas.paint(white, _rgb(0.96, 0.96, 0.95))
    x = x - 0.2 * canvas.turn
    canvas.paint(white * canvas.cover(_ellipse(x, y, 0.092, 0.092)), iris)
    canvas.paint(
        white * canvas.cover(_ellipse(x, y, 0.045, 0.045)),
        _rgb(0.03, 0.03, 0.03),
    )
    spark = _ellipse(x - 0.035, y + 0.04, 0.028, 0.028)
    canvas.paint(0.9 * white * canvas.cover(spark), _rgb(1, 1, 1))
    lashes = np.maximum(np.abs(eye) - 0.028, y + 0.25 * height)
    canvas.paint(canvas.cover(lashes), _rgb(0.12, 0.08, 0.07))


def _draw_brows(
    canvas: _Canvas,
    has: dict[str, bool],
    nuisance: Nuisance,
    hair: np.ndarray,
) -> None:
  """Brows, arched; bushy ones are thrice as thick, longer and darker."""
  bushy = has['Bushy_Eyebrows']
  colour = hair * np.float32(0.45 if bushy else 0.65)
  level = _EYE_Y - 0.21 - 0.05 * nuisance.brow_height
  for side, centre in _eye_centres(canvas):
    x = (canvas.u - centre) * side
    y = canvas.y - level - 0.9 * (x - 0.04) * (x - 0.04)
    if bushy:
      brow = _ellipse(x, y, 0.25, 0.085)
    else:
      brow = _ellipse(x, y, 0.20, 0.030)
    canvas.paint((1.0 if bushy else 0.8) * canvas.cover(brow), colour)


def _draw_nose(
    canvas: _Canvas,
    has: dict[str, bool],
    nuisance: Nuisance,
    skin: np.ndarray,
) -> None:
  """A bridge with a lit and a dark side, a round tip and nostrils."""
  big = has['Big_Nose']
  width, bottom = (0.27, 0.365) if big else (0.115, 0.275)
  # The tip stands out of the face, so yaw moves it further.
  x, y = canvas.u - 0.5 * canvas.turn, canvas.y
  dark, lit = skin * np.float32(0.70), _blend(skin, _rgb(1, 1, 1), 0.30)
  side = -1.0 if nuisance.light >= 0 else 1.0
  bridge = _segment(
      x, y, (side * 0.06, _EYE_Y - 0.04), (side * width * 0.7, bottom - 0.05),
      0.05 if big else 0.03,
  )
  canvas.paint(0.55 * canvas.cover(bridge, 0.03), dark)
  ridge = _segment(
      x, y, (0.0, _EYE_Y), (0.0, bottom - 0.10), 0.055 if big else 0.035
  )
  canvas.paint(0.45 * canvas.cover(ridge, 0.03), lit)
  below = _ellipse(x, y - bottom + 0.02, width + 0.035, 0.32 * width + 0.045)
  canvas.paint(0.85 * canvas.cover(below, 0.02), dark)
  if big:
    for wing in (-1.0, 1.0):
      ball = _ellipse(x - wing * 0.18, y - bottom + 0.05, 0.10, 0.09)
      canvas.paint(canvas.cover(ball, 0.015), skin * np.float32(0.86))
  tip = _ellipse(x, y - bottom + 0.07, 0.75 * width, 0.55 * width + 0.02)
  if big:
    lit = _blend(lit, _rgb(0.85, 0.35, 0.30), 0.45)
  canvas.paint(canvas.cover(tip, 0.02), _blend(skin, lit, 0.50))
  for wing in (-1.0, 1.0):
    nostril = _ellipse(
        x - wing * 0.55 * width, y - bottom - 0.005, 0.30 * width, 0.032
    )
    canvas.paint(0.85 * canvas.cover(nostril), skin * np.float32(0.35))


def _draw_mouth(
    canvas: _Canvas,
    has: dict[str, bool],
    nuisance: Nuisance,
    skin: np.ndarray,
) -> None:
  """Lips around a curve whose ends a smile lifts; teeth where it is open."""
  smiling, opened = has['Smiling'], has['Mouth_Slightly_Open']
  width = (0.36 if smiling else 0.25) + 0.05 * nuisance.mouth_width
  x, y = canvas.u - 0.1 * canvas.turn, canvas.y - _MOUTH_Y
  across = x / width
  inside = np.clip(1 - across * across, 0, 1)
  lift = -0.17 if smiling else 0.035  # Of the ends, downwards.
  y = y - lift * (1 - inside) + (-0.04 if smiling else 0.0)
  gap = (0.19 if smiling else 0.17) if opened else 0.0
  ends = np.abs(x) - width
  upper, lower = -0.065 * inside, gap * inside + 0.085 * inside
  lips = np.maximum(np.maximum(upper - y, y - lower), ends)
  if has['Wearing_Lipstick']:
    colour, part = _rgb(0.80, 0.04, 0.16), 1.0
  else:
    colour, part = _blend(skin, _rgb(0.62, 0.27, 0.25), 0.45), 0.85
  canvas.paint(part * canvas.cover(lips), colour)
  shine = _ellipse(x, y - gap - 0.05, 0.12, 0.025)
  canvas.paint(
      0.35 * canvas.cover(shine, 0.02), _blend(colour, _rgb(1, 1, 1), 0.5)
  )
  if opened:
    hollow = np.maximum(np.maximum(-y, y - gap * inside), ends)
    within = canvas.cover(hollow)
    canvas.paint(within, _rgb(0.22, 0.04, 0.05))
    teeth = np.maximum(hollow, y - 0.45 * gap * inside)
    canvas.paint(canvas.cover(teeth), _rgb(0.97, 0.96, 0.93))
  else:
    line = np.maximum(np.abs(y) - 0.022, ends - 0.02)
    canvas.paint(0.85 * canvas.cover(line), colour * np.float32(0.35))
  if smiling:
    for side in (-1.0, 1.0):
      fold = _segment(
          x * side, canvas.y, (0.27, 0.26), (width + 0.07, 0.42), 0.012
      )
      canvas.paint(0.45 * canvas.cover(fold, 0.02), skin * np.float32(0.6))


def _draw_facial_hair(
    canvas: _Canvas, has: dict[str, bool], hair: np.ndarray
) -> None:
  """Moustache and goatee, darker than the hair so that skin sets them off."""
  x, y = canvas.u - 0.1 * canvas.turn, canvas.y
  colour = hair * np.float32(0.42)
  colour = colour[:, None, None] * (1 + 0.10 * _triangle_wave(5 * x))[None]
  if has['Mustache']:
    across = x / 0.38
    thick = 0.088 * np.clip(1 - across * across, 0, 1)
    middle = 0.435 + 0.55 * x * x
    shape = np.maximum(np.abs(y - middle) - thick, np.abs(x) - 0.38)
    canvas.paint(canvas.cover(shape), colour)
  if has['Goatee']:
    # Wide at the lip and round on the chin, which it reaches over.
    shape = _ellipse(x, y - 0.92, 0.27 - 0.10 * np.clip(y - 0.8, 0, 0.4), 0.17)
    canvas.paint(canvas.cover(shape), colour)


def _draw_front_hair(
    canvas: _Canvas,
    has: dict[str, bool],
    nuisance: Nuisance,
    hair: np.ndarray,
) -> None:
  """Hair over the skull and by the temples, open over the face."""
  x, y = canvas.x, canvas.y
  width = _head_width(nuisance)
  skull = _ellipse(x, y + 0.12, width + 0.12, 1.05)
  face = _ellipse(x - 0.5 * canvas.turn, y - 0.30, width - 0.06, 1.06)
  parted = x - 0.6 * (nuisance.parting - 0.5)
  if has['Bangs']:
    strands = 0.05 * _triangle_wave(3.2 * parted)
    hairline = -0.375 + strands + 0.10 * parted * parted
  else:
    hairline = -0.80 + 0.80 * parted * parted
  opening = np.maximum(face, hairline - y)
  shape = np.maximum(np.maximum(skull, -opening), y - 0.28)
  canvas.paint(canvas.cover(shape), _shade_hair(canvas, hair, 1.0))


def _draw_glasses(canvas: _Canvas, nuisance: Nuisance) -> None:
  """Lenses in frames, a bridge and temples, all before the face."""
  u, y = canvas.u, canvas.y - _EYE_Y - 0.02
  frame = _hue(nuisance.frame_hue, 0.7, 0.20)
  for side, centre in _eye_centres(canvas):
    x = u - centre
    lens = _ellipse(x, y, 0.26, 0.205)
    canvas.paint(0.22 * canvas.cover(lens), _rgb(0.80, 0.92, 1.0))
    canvas.paint(canvas.cover(np.abs(lens) - 0.038), frame)
    temple = _segment(
        u, y, (centre + side * 0.26, -0.04), (side * 0.74, -0.07), 0.030
    )
    canvas.paint(canvas.cover(temple), frame)
  middle = -0.25 * canvas.turn
  bridge = _segment(u, y, (middle - 0.08, -0.05), (middle + 0.08, -0.05), 0.035)
  canvas.paint(canvas.cover(bridge), frame)


def _draw_hat(canvas: _Canvas, nuisance: Nuisance) -> None:
  """A crown, a band and a brim over the forehead; sides of hair stay."""
  x, y = canvas.x, canvas.y
  width = _head_width(nuisance)
  colour = _hue(nuisance.hat_hue, 0.65, 0.35 + 0.50 * nuisance.hat_value)
  curve = 0.10 * x * x
  crown = np.maximum(
      _ellipse(x, y + 0.50, width + 0.08, 0.86), y + 0.52 - curve
  )
  light = 1.02 - 0.35 * x * x + 0.20 * nuisance.light * x
  canvas.paint(canvas.cover(crown), colour[:, None, None] * light[None])
  band = np.maximum(crown, -0.74 + curve - y)
  canvas.paint(0.85 * canvas.cover(band), colour * np.float32(0.45))
  brim = _ellipse(x, y + 0.50 - curve, width + 0.32, 0.085)
  shadow = _ellipse(x, y + 0.42 - curve, width - 0.04, 0.09)
  canvas.paint(0.35 * canvas.cover(shadow, 0.05), _rgb(0.10, 0.06, 0.05))
  canvas.paint(
      canvas.cover(brim), colour[:, None, None] * (0.85 * light)[None]
  )
