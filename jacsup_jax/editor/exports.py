"""Enlarge and animate edits, as PNG and GIF files that can be shown around."""

from collections.abc import Sequence
import io

import numpy as np
from PIL import Image

from jacsup_jax.figures import pictures

PICTURE_SIZE = 512  # longest side, in pixels, of pictures that are smaller
ANIMATION_SIZE = 320
NUM_FRAMES = 20  # from the first setting to the last; then back
_FRAME_MS, _END_MS = 50, 700
# A GIF has 256 colours in all. They are chosen once, or still parts would
# flicker.
_COLORS = 256


def to_png(image: np.ndarray) -> bytes:
  """Encodes `[H, W, C]` uint8 as PNG, enlarged if it is smaller."""
  file = io.BytesIO()
  _enlarge(image, PICTURE_SIZE).save(file, 'PNG')
  return file.getvalue()


def to_gif(images: Sequence[np.ndarray]) -> bytes:
  """Encodes `[H, W, C]` uint8 as a GIF that plays there and back in a loop."""
  frames = [_enlarge(image, ANIMATION_SIZE).convert('RGB') for image in images]
  small = [np.asarray(frame)[::2, ::2] for frame in frames]
  palette = Image.fromarray(np.concatenate(small)).quantize(_COLORS)
  shown = [frame.quantize(palette=palette) for frame in frames]
  durations = [_END_MS, *[_FRAME_MS] * (len(shown) - 2), _END_MS]
  shown += shown[-2:0:-1]
  durations += [_FRAME_MS] * (len(shown) - len(durations))
  file = io.BytesIO()
  shown[0].save(
    file,
    'GIF',
    save_all=True,
    append_images=shown[1:],
    duration=durations,
    loop=0,
  )
  return file.getvalue()


def make_steps(first: np.ndarray, last: np.ndarray) -> np.ndarray:
  """Makes `[NUM_FRAMES, U]` strengths from `[U]` to `[U]`, slow at the ends."""
  shares = (1 - np.cos(np.linspace(0, np.pi, NUM_FRAMES))) / 2
  return first + shares[:, np.newaxis] * (last - first)


def _enlarge(image, size):
  height, width = image.shape[:2]
  factor = max(1.0, size / max(height, width))
  picture = pictures.to_picture(image)
  if factor == 1:
    return picture
  return picture.resize(
    (round(width * factor), round(height * factor)), Image.Resampling.LANCZOS
  )
