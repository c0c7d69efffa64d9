"""Tests of evaluation.edit_truth, with an editor that draws faces anew."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.data import drawn_faces
from jacsup_jax.evaluation import edit_truth

NAMES = ('Eyeglasses', 'Smiling')
VALUES = {name: (-1.0, 1.0) for name in NAMES}
COUNT = 6


def _redraw(factors, indices):
  """Draws the faces of the test split with two attributes as they are told."""
  rows = [drawn_faces.ATTRIBUTES.index(name) for name in NAMES]
  found = []
  for own, index in zip(factors, indices):
    attributes, nuisance = drawn_faces.sample(int(index), 'test')
    attributes[rows] = np.where(own >= 0, 1, -1)
    image = drawn_faces.draw_face(attributes, nuisance, 16)
    found.append(image / np.float32(127.5) - 1)
  return np.stack(found)


@jax.tree_util.register_static
class _Oracle:
  """Finds a face by its pixels, and draws it with its factors."""

  module = types.SimpleNamespace(image_size=16)

  def __init__(self):
    faces = [drawn_faces.sample(i, 'test') for i in range(COUNT)]
    drawn = [drawn_faces.draw_face(*face, 16) for face in faces]
    self._faces = np.stack(drawn) / np.float32(127.5) - 1

  def encode(self, images, labels):
    distances = jnp.abs(images[:, None] - self._faces[None])
    nearest = jnp.argmin(jnp.sum(distances, axis=(2, 3, 4)), axis=1)
    return codes.Code(1.0 * labels, nearest)

  def decode(self, code):
    shape = jax.ShapeDtypeStruct((len(code.nuisance), 16, 16, 3), jnp.float32)
    return jax.pure_callback(_redraw, shape, code.factors, code.nuisance)


def test_redrawn_faces_are_perfect():
  row = edit_truth.measure(_Oracle(), NAMES, VALUES, count=COUNT)
  assert row['edit_error'] < 1e-5 and row['edit_leak'] < 2e-3
  assert row['edit_error_by_attribute'].keys() == {*NAMES}


def test_edits_of_another_attribute_are_wrong():
  # 0.1 and -0.1 draw the face that it is.
  other = {'Eyeglasses': (0.1, -0.1), 'Smiling': (-1.0, 1.0)}
  row = edit_truth.measure(_Oracle(), NAMES, other, count=COUNT)
  assert row['edit_error_by_attribute']['Eyeglasses'] == pytest.approx(1)
  assert row['edit_error_by_attribute']['Smiling'] < 1e-5


def test_compare_by_hand():
  change = np.zeros((1, 2, 2, 3), np.float32)
  change[0, 0, 0] = 0.4
  assert edit_truth.compare(change, change) == (0, 0)
  assert edit_truth.compare(0 * change, change) == (1, 0)
  edit = change.copy()
  edit[0, 1] = 0.2  # Two of three pixels outside.
  error, leak = edit_truth.compare(edit, change)
  assert error == pytest.approx(np.sqrt(2 * 0.04 / 0.16))
  assert leak == pytest.approx((2 * 0.2 / 3) / 0.4)
