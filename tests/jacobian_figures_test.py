"""Tests of jacsup_jax.jacobian_figures."""

import numpy as np
import pytest

from jacsup_jax.figures import jacobian_figures

COSINES = np.array([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 0]])
COUNT = np.array([[4, 4, 0], [4, 4, 0], [0, 0, 0]])


def _draw(cosines=COSINES, count=COUNT, names=('y1', 'y2', 'z1')):
  return jacobian_figures.column_cosines(cosines, count, names, 'a title')


def test_cosines_are_written_and_what_is_undefined_is_not():
  axes = _draw().axes[0]
  texts = [text.get_text() for text in axes.texts]
  assert texts == ['1.00', '\N{MINUS SIGN}0.50', '\N{MINUS SIGN}0.50', '1.00']
  assert axes.images[0].get_array().mask.sum() == 5


def test_scale_is_from_minus_one_to_one_whatever_is_drawn():
  image = _draw().axes[0].images[0]
  assert image.get_clim() == (-1, 1)
  # White in the middle, blue below and red above.
  blue, white, red = image.cmap([0.0, 0.5, 1.0])[:, :3]
  assert blue[2] > blue[0] and red[0] > red[2] and min(white) > 0.9


def test_forty_names_do_not_overlap():
  names = [f'a long attribute {i}' for i in range(40)]
  figure = _draw(np.eye(40), np.ones((40, 40)), names)
  figure.canvas.draw()
  boxes = [
      label.get_window_extent() for label in figure.axes[0].get_yticklabels()
  ]
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == (
      names
  )
  for above, below in zip(boxes, boxes[1:]):
    assert below.y1 <= above.y0 + 0.5
  assert not figure.axes[0].texts


def test_names_must_fit():
  with pytest.raises(AssertionError):
    _draw(names=('y1', 'y2'))
