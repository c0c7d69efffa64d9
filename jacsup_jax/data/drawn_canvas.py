"""Paint soft-edged shapes by their distance, for drawn faces.

Shapes are distances to outlines, cut off softly over one pixel. Only +, -, *, /
and square roots are used: IEEE arithmetic fixes every bit of these, which it
does not for sines. Lengths are in half heads, colours in [0, 1].
"""

from typing import NamedTuple

import numpy as np

_UNIT = 22.0 / 64.0  # Half a head's height, as a part of the image.


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
  frame_hue: float = 0.6  # the eyeglasses'
  background_hue: float = 0.55
  background_value: float = 0.5
  background_slope: float = 0.5  # From light above to light below.


class Canvas:
  """An image `[3, S, S]` being painted, and the face that is drawn on it.

  x and y are the pixels' coordinates on the person, and u is x from the middle
  of the face, which yaw moves by `turn`; `[S, S]` float32. `unit` pixels are
  half a head. `has` are the attributes by name.
  """

  def __init__(self, has: dict[str, bool], nuisance: Nuisance, size: int):
    self.has, self.nuisance, self.size = has, nuisance, size
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
    """Computes the part of each pixel inside an outline, `[S, S]` in [0, 1].

    The distance to the outline, `[S, S]`, is negative inside. The edge is a
    pixel and twice `blur` wide.
    """
    if not blur:
      return np.clip(0.5 - distance * self.unit, 0, 1)
    width = 2 * blur + 1 / self.unit
    ramp = np.clip(0.5 - distance / width, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)

  def paint(self, distance, colour, part=1.0, *, blur=0.0, light=None) -> None:
    """Paints inside an outline, as opaque as `part`; see `cover`.

    The colour is `[3]` or `[3, S, S]`, and multiplied by `[S, S]` light.
    """
    if colour.ndim == 1:
      colour = colour[:, None, None]
    if light is not None:
      colour = colour * light[None]
    cover = part * self.cover(distance, blur)
    self.pixels += cover[None] * (colour - self.pixels)

  def to_uint8(self) -> np.ndarray:
    """Converts the pixels to an image, `[S, S, 3]`."""
    scaled = np.clip(self.pixels, 0, 1) * 255 + 0.5
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 0))


def ellipse(x, y, width, height) -> np.ndarray:
  """Computes the distance to an ellipse of these half axes, to first order."""
  across, down = x / width, y / height
  radius = np.sqrt(across * across + down * down)
  across, down = across / width, down / height
  slope = np.sqrt(across * across + down * down)
  return radius * (radius - 1) / (slope + 1e-3)


def segment(x, y, start, end, radius) -> np.ndarray:
  """Computes the distance to a line with round ends."""
  along_x, along_y = end[0] - start[0], end[1] - start[1]
  length = along_x * along_x + along_y * along_y
  x, y = x - start[0], y - start[1]
  part = np.clip((x * along_x + y * along_y) / length, 0, 1)
  x, y = x - part * along_x, y - part * along_y
  return np.sqrt(x * x + y * y) - radius


def triangle_wave(x) -> np.ndarray:
  """Computes a wave that rises and falls between -1 and 1, once in a unit."""
  return 4 * np.abs(x - np.floor(x) - 0.5) - 1


def rgb(*values: float) -> np.ndarray:
  """Makes a colour, `[3]` float32."""
  return np.array(values, np.float32)


def blend(first: np.ndarray, second: np.ndarray, part: float) -> np.ndarray:
  """Blends two colours."""
  return first + (second - first) * np.float32(part)


def hue(hue: float, saturation: float, value: float) -> np.ndarray:
  """Makes a colour by hue in [0, 1], saturation and value, `[3]` float32."""
  ramps = []
  for offset in (0.0, 2 / 3, 1 / 3):
    position = (hue + offset) % 1.0 * 6
    ramps.append(min(max(abs(position - 3) - 1, 0.0), 1.0))
  return rgb(*[value * (1 - saturation * (1 - ramp)) for ramp in ramps])
