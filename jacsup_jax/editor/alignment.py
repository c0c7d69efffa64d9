"""Crop the square around a face, placed as in CelebA's aligned pictures.

dlib and face_recognition_models are optional: pip install 'jacsup_jax[align]'.
"""

from collections.abc import Callable
import importlib.util
import pathlib

import numpy as np
from PIL import Image

# Centres of the eyes as fractions of the square's side, from CelebA's 178x218
# pictures without 20 rows above and below. The eye on the left comes first.
EYES = np.array([[69.5, 91.5], [108.0, 91.5]]) / 178
# Faces are searched in a picture of at most this side, which takes a second.
_SEARCHED_SIDE = 800
# Larger photos are reduced: no model takes more pixels.
_LARGEST_SIDE = 4096


def find_aligner() -> Callable[[np.ndarray], np.ndarray | None] | None:
  """Makes the function that aligns photos; None without its packages.

  It turns `[H, W, 3]` uint8 into `[s, s, 3]` uint8, the square around the
  largest face, or into None if it finds no face.
  """
  # Not imported: the package needs a module of old versions of setuptools.
  spec = importlib.util.find_spec('face_recognition_models')
  if spec is None or not spec.submodule_search_locations:
    return None
  folder = pathlib.Path(spec.submodule_search_locations[0]) / 'models'
  try:
    import dlib

    find_faces = dlib.get_frontal_face_detector()
    find_landmarks = dlib.shape_predictor(
      str(folder / 'shape_predictor_5_face_landmarks.dat')
    )
  except (ImportError, RuntimeError):  # RuntimeError: unreadable weights.
    return None

  def align(image):
    picture = Image.fromarray(image)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    eyes = _find_eyes(find_faces, find_landmarks, picture)
    return None if eyes is None else cut_square(np.asarray(picture), eyes)

  return align


def cut_square(image: np.ndarray, eyes: np.ndarray) -> np.ndarray:
  """Crops the square in which the eyes lie where CelebA has them.

  The picture, `[H, W, 3]` uint8, is rotated and moved, and its last pixels are
  repeated beyond the border, as in CelebA. `eyes`, `[2, 2]`, are the centres of
  the left and the right eye as x, y in pixels, at least one apart; 0, 0 is the
  outer corner of the first pixel. Returns `[s, s, 3]` uint8.
  """
  # Picture pixels per side of the square: a rotation and a scale.
  x, y = (eyes[1] - eyes[0]) / (EYES[1, 0] - EYES[0, 0])
  turn = np.array([[x, -y], [y, x]])
  start = eyes.mean(axis=0) - turn @ EYES.mean(axis=0)
  corners = start + np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ turn.T
  # The filter reads two pixels beyond the corners.
  low = np.floor(corners.min(axis=0)).astype(int) - 2
  high = np.ceil(corners.max(axis=0)).astype(int) + 2
  patch = image.take(np.arange(low[1], high[1]), 0, mode='clip')
  patch = patch.take(np.arange(low[0], high[0]), 1, mode='clip')
  size = round(np.hypot(x, y))
  matrix = np.column_stack([turn / size, start - low]).ravel()
  square = Image.fromarray(patch).transform(
    (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
  )
  return np.array(square)


def _find_eyes(find_faces, find_landmarks, picture):
  """Finds the eyes of the largest face, see `cut_square`; None without one."""
  small = picture.copy()
  small.thumbnail((_SEARCHED_SIDE, _SEARCHED_SIDE))
  searched = np.array(small)
  # Small faces only if there are no others: it takes four times as long.
  faces = find_faces(searched, 0) or find_faces(searched, 1)
  if not faces:
    return None
  face = max(faces, key=lambda own: own.area())
  found = find_landmarks(searched, face)
  points = np.array([[point.x, point.y] for point in found.parts()]) + 0.5
  # Outer and inner corner of the right eye, then of the left eye, then a nose.
  eyes = np.stack([points[2:4].mean(axis=0), points[0:2].mean(axis=0)])
  eyes = eyes * np.array(picture.size) / small.size
  return eyes if np.hypot(*(eyes[1] - eyes[0])) >= 1 else None
