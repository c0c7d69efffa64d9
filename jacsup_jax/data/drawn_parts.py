"""Draw the parts of a face on a canvas, from the wall to the hat."""

import numpy as np

from jacsup_jax.data.drawn_canvas import Canvas
from jacsup_jax.data.drawn_canvas import blend
from jacsup_jax.data.drawn_canvas import ellipse
from jacsup_jax.data.drawn_canvas import hue
from jacsup_jax.data.drawn_canvas import rgb
from jacsup_jax.data.drawn_canvas import segment
from jacsup_jax.data.drawn_canvas import triangle_wave

_MOUTH_Y = 0.56
_EYE_Y = -0.06
_WHITE = rgb(1, 1, 1)


def skin_colour(canvas: Canvas) -> np.ndarray:
  """Picks the colour of the skin."""
  light, dark = rgb(0.90, 0.68, 0.52), rgb(0.60, 0.39, 0.27)
  skin = blend(light, dark, canvas.nuisance.skin_tone)
  if canvas.has['Pale_Skin']:
    return blend(rgb(1.00, 0.91, 0.87), skin, 0.10)
  return skin


def hair_colour(canvas: Canvas) -> np.ndarray:
  """Picks the colour of the hair; brows and beard are somewhat darker."""
  nuisance = canvas.nuisance
  if canvas.has['Black_Hair']:
    return rgb(0.07, 0.06, 0.08) * np.float32(0.6 + 0.8 * nuisance.hair_shade)
  if canvas.has['Blond_Hair']:
    base = rgb(0.93, 0.77, 0.40)
  elif nuisance.hair_colour < 0.5:
    base = rgb(0.42, 0.25, 0.13)
  elif nuisance.hair_colour < 0.75:
    base = rgb(0.62, 0.24, 0.09)
  else:
    base = rgb(0.55, 0.54, 0.54)
  return base * np.float32(0.9 + 0.2 * nuisance.hair_shade)


def _head_width(canvas: Canvas) -> float:
  return 0.70 + 0.10 * canvas.nuisance.face_width


def draw_background(canvas: Canvas) -> None:
  """Draws a wall lit from above or below; it does not move with the person."""
  nuisance = canvas.nuisance
  value = 0.45 + 0.45 * nuisance.background_value
  colour = hue(nuisance.background_hue, 0.28, value)
  axis = (np.arange(canvas.size, dtype=np.float32) + 0.5) / canvas.size - 0.5
  slope = 0.5 * (nuisance.background_slope - 0.5)
  light = 1 + slope * axis[:, None] + 0.15 * nuisance.light * axis[None, :]
  canvas.pixels += colour[:, None, None] * light[None]


def draw_back_hair(canvas: Canvas, hair: np.ndarray) -> None:
  """Draws hair behind the neck; at its shortest it still shows by the ears."""
  width = _head_width(canvas) + 0.15
  bottom = 0.30 + 1.0 * canvas.nuisance.hair_length
  crown = ellipse(canvas.x, canvas.y + 0.10, width, 1.06)
  # Below the crown's middle the hair falls straight, with a round end.
  fall = np.maximum(np.abs(canvas.x) - width, -0.10 - canvas.y)
  end = canvas.y - bottom + 0.25 * canvas.x * canvas.x
  shape = np.maximum(np.minimum(crown, fall), end)
  canvas.paint(shape, _shade_hair(canvas, hair, 0.78))


def _shade_hair(canvas, hair, brightness) -> np.ndarray:
  """Shades hair with strands and a gloss on the crown, `[3, S, S]`."""
  x, y = canvas.x, canvas.y
  strands = triangle_wave(3.5 * x + 0.8 * x * y)
  gloss = np.clip(1 - np.abs(y + 0.88 - 0.35 * x * x) / 0.16, 0, 1)
  light = brightness * (1 + 0.08 * strands + 0.16 * gloss)
  return hair[:, None, None] * light[None] + 0.05 * gloss[None]


def draw_body(canvas: Canvas, skin: np.ndarray) -> None:
  """Draws the neck, in the shade of the chin, and a shirt."""
  x, y, nuisance = canvas.x, canvas.y, canvas.nuisance
  neck = np.maximum(np.abs(x) - 0.34, 0.4 - y)
  shade = 0.70 + 0.14 * np.clip((y - 1.0) / 0.4, 0, 1)
  canvas.paint(neck, skin, light=shade)
  shirt = hue(nuisance.shirt_hue, 0.60, 0.30 + 0.50 * nuisance.shirt_value)
  opening = -ellipse(x, y - 1.08, 0.36, 0.26)
  shoulders = np.maximum(ellipse(x, y - 1.95, 1.45, 0.90), opening)
  light = 1 - 0.18 * x * x + 0.10 * nuisance.light * x
  canvas.paint(shoulders, shirt, light=light)
  collar = np.abs(ellipse(x, y - 1.08, 0.40, 0.30)) - 0.035
  canvas.paint(np.maximum(collar, 1.14 - y), shirt * np.float32(0.65), 0.8)


def draw_head(canvas: Canvas, skin: np.ndarray) -> None:
  """Draws ears, then the head as a lit ball, with cheeks."""
  x, y, nuisance = canvas.x, canvas.y, canvas.nuisance
  width = _head_width(canvas)
  for side in (-1.0, 1.0):
    # Yaw hides an ear and brings out the other.
    ear_x = side * (width + 0.01) - 0.5 * canvas.turn
    ear = ellipse(x - ear_x, y - 0.08, 0.12, 0.22)
    canvas.paint(ear, skin * np.float32(0.84))
    inner = ellipse(x - ear_x - side * 0.01, y - 0.08, 0.05, 0.12)
    canvas.paint(inner, skin * np.float32(0.68), blur=0.03)
  # Narrower at the chin.
  down = np.clip(y, 0, 1)
  taper = 1 - (0.10 + 0.14 * nuisance.jaw) * down * down
  head = ellipse((x - 0.35 * canvas.turn * down) / taper, y, width, 1.0)
  edge = np.clip(1 + head / 0.45, 0, 1)
  light = 1.03 - 0.20 * edge * edge - 0.04 * y + 0.16 * nuisance.light * x
  canvas.paint(head, skin, light=light)
  raised = 0.05 if canvas.has['Smiling'] else 0.0
  rosy = blend(skin, rgb(0.88, 0.36, 0.32), 0.5)
  for side in (-1.0, 1.0):
    cheek = ellipse(canvas.u - side * 0.42, y - 0.30 + raised, 0.17, 0.12)
    canvas.paint(cheek, rosy, 0.28, blur=0.10)
  if canvas.has['Bald']:
    gloss = ellipse(x - 0.22 * nuisance.light, y + 0.70, 0.26, 0.10)
    canvas.paint(gloss, blend(skin, _WHITE, 0.8), 0.55, blur=0.08)


def _eye_centres(canvas: Canvas) -> list[tuple[float, float]]:
  """Finds (side, u) of both eyes; the one turned away is nearer the nose."""
  return [(side, side * 0.33 - 0.25 * canvas.turn) for side in (-1.0, 1.0)]


def draw_eyes(canvas: Canvas, skin: np.ndarray) -> None:
  """Draws white, iris, pupil, spark and lashes; a smile lifts the lower lid."""
  y, nuisance = canvas.y - _EYE_Y, canvas.nuisance
  width = 0.155 + 0.03 * nuisance.eye_size
  height = 0.095 + 0.025 * nuisance.eye_size
  brown, green = rgb(0.25, 0.13, 0.06), rgb(0.25, 0.42, 0.20)
  if nuisance.eye_colour < 0.5:
    iris = blend(brown, green, nuisance.eye_colour * 2)
  else:
    iris = blend(green, rgb(0.20, 0.42, 0.72), nuisance.eye_colour * 2 - 1)
  for _, centre in _eye_centres(canvas):
    x = canvas.u - centre
    socket = ellipse(x, y + 0.02, width + 0.07, height + 0.08)
    canvas.paint(socket, skin * np.float32(0.68), 0.35, blur=0.06)
    eye = ellipse(x, y, width, height)
    if canvas.has['Smiling']:
      eye = np.maximum(eye, y - 0.62 * height + 0.6 * x * x)
    white = canvas.cover(eye)
    canvas.paint(eye, rgb(0.96, 0.96, 0.95))
    x = x - 0.2 * canvas.turn
    canvas.paint(ellipse(x, y, 0.092, 0.092), iris, white)
    canvas.paint(ellipse(x, y, 0.045, 0.045), rgb(0.03, 0.03, 0.03), white)
    spark = ellipse(x - 0.035, y + 0.04, 0.028, 0.028)
    canvas.paint(spark, _WHITE, 0.9 * white)
    lashes = np.maximum(np.abs(eye) - 0.028, y + 0.25 * height)
    canvas.paint(lashes, rgb(0.12, 0.08, 0.07))


def draw_brows(canvas: Canvas, hair: np.ndarray) -> None:
  """Draws brows, arched; bushy ones are thrice as thick, longer and darker."""
  bushy = canvas.has['Bushy_Eyebrows']
  colour = hair * np.float32(0.45 if bushy else 0.65)
  width, height = (0.25, 0.085) if bushy else (0.20, 0.030)
  level = _EYE_Y - 0.21 - 0.05 * canvas.nuisance.brow_height
  for side, centre in _eye_centres(canvas):
    x = (canvas.u - centre) * side
    y = canvas.y - level - 0.9 * (x - 0.04) * (x - 0.04)
    canvas.paint(ellipse(x, y, width, height), colour, 1.0 if bushy else 0.8)


def draw_nose(canvas: Canvas, skin: np.ndarray) -> None:
  """Draws a bridge with a lit and a dark side, a round tip and nostrils."""
  big = canvas.has['Big_Nose']
  width, bottom = (0.27, 0.365) if big else (0.115, 0.275)
  # The tip stands out of the face, so yaw moves it further.
  x, y = canvas.u - 0.5 * canvas.turn, canvas.y
  dark, lit = skin * np.float32(0.70), blend(skin, _WHITE, 0.30)
  side = -1.0 if canvas.nuisance.light >= 0 else 1.0
  start, end = (side * 0.06, _EYE_Y - 0.04), (side * width * 0.7, bottom - 0.05)
  bridge = segment(x, y, start, end, 0.05 if big else 0.03)
  canvas.paint(bridge, dark, 0.55, blur=0.03)
  end = (0.0, bottom - 0.10)
  ridge = segment(x, y, (0.0, _EYE_Y), end, 0.055 if big else 0.035)
  canvas.paint(ridge, lit, 0.45, blur=0.03)
  below = ellipse(x, y - bottom + 0.02, width + 0.035, 0.32 * width + 0.045)
  canvas.paint(below, dark, 0.85, blur=0.02)
  if big:
    for wing in (-1.0, 1.0):
      ball = ellipse(x - wing * 0.18, y - bottom + 0.05, 0.10, 0.09)
      canvas.paint(ball, skin * np.float32(0.86), blur=0.015)
    lit = blend(lit, rgb(0.85, 0.35, 0.30), 0.45)
  tip = ellipse(x, y - bottom + 0.07, 0.75 * width, 0.55 * width + 0.02)
  canvas.paint(tip, blend(skin, lit, 0.50), blur=0.02)
  for wing in (-1.0, 1.0):
    across = x - wing * 0.55 * width
    nostril = ellipse(across, y - bottom - 0.005, 0.30 * width, 0.032)
    canvas.paint(nostril, skin * np.float32(0.35), 0.85)


def draw_mouth(canvas: Canvas, skin: np.ndarray) -> None:
  """Draws lips on a curve whose ends a smile lifts; teeth where it is open."""
  smiling, opened = canvas.has['Smiling'], canvas.has['Mouth_Slightly_Open']
  width = (0.36 if smiling else 0.25) + 0.05 * canvas.nuisance.mouth_width
  x, y = canvas.u - 0.1 * canvas.turn, canvas.y - _MOUTH_Y
  across = x / width
  inside = np.clip(1 - across * across, 0, 1)
  lift = -0.17 if smiling else 0.035  # moves the ends downwards
  y = y - lift * (1 - inside) + (-0.04 if smiling else 0.0)
  gap = (0.19 if smiling else 0.17) if opened else 0.0
  ends = np.abs(x) - width
  upper, lower = -0.065 * inside, gap * inside + 0.085 * inside
  lips = np.maximum(np.maximum(upper - y, y - lower), ends)
  colour, part = blend(skin, rgb(0.62, 0.27, 0.25), 0.45), 0.85
  if canvas.has['Wearing_Lipstick']:
    colour, part = rgb(0.80, 0.04, 0.16), 1.0
  canvas.paint(lips, colour, part)
  shine = ellipse(x, y - gap - 0.05, 0.12, 0.025)
  canvas.paint(shine, blend(colour, _WHITE, 0.5), 0.35, blur=0.02)
  if opened:
    hollow = np.maximum(np.maximum(-y, y - gap * inside), ends)
    canvas.paint(hollow, rgb(0.22, 0.04, 0.05))
    teeth = np.maximum(hollow, y - 0.45 * gap * inside)
    canvas.paint(teeth, rgb(0.97, 0.96, 0.93))
  else:
    line = np.maximum(np.abs(y) - 0.022, ends - 0.02)
    canvas.paint(line, colour * np.float32(0.35), 0.85)
  if smiling:
    start, end = (0.27, 0.26), (width + 0.07, 0.42)
    for side in (-1.0, 1.0):
      fold = segment(x * side, canvas.y, start, end, 0.012)
      canvas.paint(fold, skin * np.float32(0.6), 0.45, blur=0.02)


def draw_facial_hair(canvas: Canvas, hair: np.ndarray) -> None:
  """Draws moustache and goatee, darker than the hair to stand out from skin."""
  x, y = canvas.u - 0.1 * canvas.turn, canvas.y
  colour, light = hair * np.float32(0.42), 1 + 0.10 * triangle_wave(5 * x)
  if canvas.has['Mustache']:
    across = x / 0.38
    thick = 0.088 * np.clip(1 - across * across, 0, 1)
    middle = 0.435 + 0.55 * x * x
    shape = np.maximum(np.abs(y - middle) - thick, np.abs(x) - 0.38)
    canvas.paint(shape, colour, light=light)
  if canvas.has['Goatee']:
    # Wide at the lip and round on the chin, which it reaches over.
    shape = ellipse(x, y - 0.92, 0.27 - 0.10 * np.clip(y - 0.8, 0, 0.4), 0.17)
    canvas.paint(shape, colour, light=light)


def draw_front_hair(canvas: Canvas, hair: np.ndarray) -> None:
  """Draws hair over the skull and by the temples, open over the face."""
  x, y = canvas.x, canvas.y
  width = _head_width(canvas)
  skull = ellipse(x, y + 0.12, width + 0.12, 1.05)
  face = ellipse(x - 0.5 * canvas.turn, y - 0.30, width - 0.06, 1.06)
  parted = x - 0.6 * (canvas.nuisance.parting - 0.5)
  if canvas.has['Bangs']:
    strands = 0.05 * triangle_wave(3.2 * parted)
    hairline = -0.375 + strands + 0.10 * parted * parted
  else:
    hairline = -0.80 + 0.80 * parted * parted
  opening = np.maximum(face, hairline - y)
  shape = np.maximum(np.maximum(skull, -opening), y - 0.28)
  canvas.paint(shape, _shade_hair(canvas, hair, 1.0))


def draw_glasses(canvas: Canvas) -> None:
  """Draws lenses in frames, a bridge and temples, all before the face."""
  u, y = canvas.u, canvas.y - _EYE_Y - 0.02
  frame = hue(canvas.nuisance.frame_hue, 0.7, 0.20)
  for side, centre in _eye_centres(canvas):
    lens = ellipse(u - centre, y, 0.26, 0.205)
    canvas.paint(lens, rgb(0.80, 0.92, 1.0), 0.22)
    canvas.paint(np.abs(lens) - 0.038, frame)
    start, end = (centre + side * 0.26, -0.04), (side * 0.74, -0.07)
    canvas.paint(segment(u, y, start, end, 0.030), frame)
  middle = -0.25 * canvas.turn
  bridge = segment(u, y, (middle - 0.08, -0.05), (middle + 0.08, -0.05), 0.035)
  canvas.paint(bridge, frame)


def draw_hat(canvas: Canvas) -> None:
  """Draws a crown, a band and a brim over the forehead; sides of hair stay."""
  x, y, nuisance = canvas.x, canvas.y, canvas.nuisance
  width = _head_width(canvas)
  colour = hue(nuisance.hat_hue, 0.65, 0.35 + 0.50 * nuisance.hat_value)
  curve = 0.10 * x * x
  crown = np.maximum(ellipse(x, y + 0.50, width + 0.08, 0.86), y + 0.52 - curve)
  light = 1.02 - 0.35 * x * x + 0.20 * nuisance.light * x
  canvas.paint(crown, colour, light=light)
  band = np.maximum(crown, -0.74 + curve - y)
  canvas.paint(band, colour * np.float32(0.45), 0.85)
  brim = ellipse(x, y + 0.50 - curve, width + 0.32, 0.085)
  shadow = ellipse(x, y + 0.42 - curve, width - 0.04, 0.09)
  canvas.paint(shadow, rgb(0.10, 0.06, 0.05), 0.35, blur=0.05)
  canvas.paint(brim, colour, light=0.85 * light)
