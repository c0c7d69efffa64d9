"""Tests of evaluation.attribute_flips, on images that are the attributes."""

import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.evaluation import attribute_flips as flips
from jacsup_jax.evaluation import attribute_judges

NAMES = ('Smiling', 'Male', 'Eyeglasses')
K = len(NAMES)
ATTRIBUTES = np.array(
  [[1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, 1, 1], [-1, 1, -1]], np.int8
)
# Attribute i is in pixel (0, i).
BLANK = np.full((5, 8, 8, 3), 128, np.uint8)
IMAGES = BLANK.copy()
IMAGES[:, 0, :K] = np.where(ATTRIBUTES > 0, 230, 25)[:, :, None]


def _encode(images, unused_attributes):
  """The attributes are the factors, the whole image the nuisance."""
  return codes.Code(images[:, 0, :K, 0], images)


def _decode(code):
  """Paints the factors over the image."""
  painted = jnp.repeat(code.factors[:, :, None], 3, axis=2)
  return code.nuisance.at[:, 0, :K].set(painted)


ORACLE = types.SimpleNamespace(encode=_encode, decode=_decode)


def _classify(images):
  return jnp.where(images[:, 0, :K, 0] >= 0, 1, -1)


def _measure(encode, decode, images):
  functions = {'encode': encode, 'decode': decode}
  model = types.SimpleNamespace(**functions, image_range=(-1, 1))
  measure = functools.partial(flips.evaluate_faces, model, _classify)
  return flips.summarize(jax.jit(measure)(images, ATTRIBUTES, 2.0), NAMES)


def test_counts_by_hand():
  # This judge sees attribute 0 only beyond 3, and always sees attribute 1; its
  # attribute 2 follows pixel 0.
  def classify(images):
    first = jnp.where(images[:, 0, 0, 0] >= 3, 1, -1)
    second = jnp.ones_like(first)
    third = jnp.where(images[:, 0, 0, 0] >= 0, 1, -1)
    return jnp.stack([first, second, third], axis=1)

  count = jax.jit(functools.partial(flips.count_flips, ORACLE, classify))
  counts = count(IMAGES, ATTRIBUTES, 2.0)
  # Attribute 0: asked for -1 where it was +1 (2 images), seen -1 always.
  # Attribute 1: asked for +1 where it was -1 (1 image), seen +1 always.
  # Attribute 2: asked +1, +1, +1, -1, +1; seen by pixel 0: +, -, -, +, -.
  np.testing.assert_array_equal(counts.flipped, [2, 1, 1])
  np.testing.assert_array_equal(counts.as_asked, [2, 1, 1])
  # Factors that err: what is asked for stays, what counts as flipped does not.
  counts = count(IMAGES, -ATTRIBUTES, 2.0)
  np.testing.assert_array_equal(counts.flipped, [3, 4, 4])
  np.testing.assert_array_equal(counts.as_asked, [2, 1, 1])
  # Flipping 0 turns what is seen of 2 in all 5 images, 1 stays; flipping
  # another changes nothing else.
  np.testing.assert_array_equal(counts.kept, [5, 10, 10])
  assert counts.images == 5


def test_summary_by_hand():
  counts = attribute_judges.SignCounts(*map(jnp.array, (
      [4, 4, 1], [4, 2, 1], [6, 6, 9], [3, 3, 9]
  )))  # fmt: skip
  row = flips.summarize(
    {
      'mse': jnp.float32(0.04),
      'strength': jnp.float32(5),
      'flips': flips.FlipCounts(
        flipped=jnp.array([10, 2, 6]),
        as_asked=jnp.array([10, 3, 2]),
        kept=jnp.array([20, 10, 0]),
        images=jnp.array(10),
      ),
      'judge': counts,
      'judge_reconstructions': counts,
      'factors': counts,
    },
    NAMES,
  )
  json.dumps(row)
  by_attribute = {'Smiling': 1.0, 'Male': 0.2, 'Eyeglasses': 0.6}
  assert row['attribute_flips_by_attribute'] == by_attribute
  for name, expected in {
      'attribute_flips': 0.6, 'attribute_flips_as_asked': 0.5,
      # Balanced: 0.75, 0.5, 1; the first is just told.
      'attributes_told': 2, 'attribute_flips_told': 0.8, 'preservation': 0.5,
      'judge_accuracy': (0.7 + 0.5 + 1) / 3, 'psnr': 20, 'strength': 5,
  }.items():  # fmt: skip
    np.testing.assert_allclose(row[name], expected, rtol=1e-5, err_msg=name)


def test_strength_that_works_is_chosen():
  # Seen as asked for only between 4 and 6.
  def classify(images):
    pixels = images[:, 0, :K, 0]
    works = (jnp.abs(pixels) > 4) & (jnp.abs(pixels) < 6)
    return jnp.where(works, jnp.sign(pixels), 0).astype(int)

  choose = jax.jit(functools.partial(flips.choose_strength, ORACLE, classify))
  strength, rates = choose(IMAGES, ATTRIBUTES, (40, 1, 5, 12))
  assert strength == 5
  np.testing.assert_array_equal(rates, [0, 1, 0, 0])


def test_factors_may_be_the_labels():
  encode = lambda images, labels: codes.Code(1.0 * labels, images)
  row = _measure(encode, _decode, BLANK)
  # Nothing is seen in the images, everything in what is decoded.
  assert row['judge_accuracy'] < 1
  assert row['judge_accuracy_reconstructions'] == 1
  assert row['attribute_flips'] == row['preservation'] == 1


def test_oracle_flips_everything_and_keeps_the_rest():
  row = _measure(_encode, _decode, IMAGES)
  for name in (
      'attribute_flips', 'attribute_flips_as_asked', 'attribute_flips_told',
      'preservation',
      'judge_accuracy', 'judge_accuracy_reconstructions', 'factor_accuracy',
  ):  # fmt: skip
    assert row[name] == 1, name
  assert row['attributes_told'] == K
  assert row['mse'] < 1e-12


def test_decoder_that_ignores_factors_never_flips():
  # The judge still sees the signs of the factors themselves.
  row = _measure(_encode, lambda code: code.nuisance, IMAGES)
  assert row['attribute_flips'] == 0
  assert row['preservation'] == 1


@pytest.mark.parametrize('grid', [(), (1, 0), (-2,), (float('inf'),)])
def test_strengths_not_above_zero_are_refused(grid):
  with pytest.raises(errors.InputError, match='accepted: one or more'):
    flips.measure(None, None, None, None, grid)
