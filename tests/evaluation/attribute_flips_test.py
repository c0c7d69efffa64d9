"""Tests of evaluation.attribute_flips, on images that are the attributes."""

import dataclasses
import functools
import json
import types

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_flips as flips
from jacsup_jax.evaluation import edit_counts

NAMES = ('Smiling', 'Male', 'Eyeglasses')
K = len(NAMES)
ATTRIBUTES = np.array(
  [[1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, 1, 1], [-1, 1, -1]], np.int8
)
# Attribute i is in pixel (0, i).
BLANK = np.full((5, 8, 8, 3), 128, np.uint8)
IMAGES = BLANK.copy()
IMAGES[:, 0, :K] = np.where(ATTRIBUTES > 0, 230, 25)[:, :, None]
TARGETS = edit_counts.Targets(
  jnp.full(K, -2.0), jnp.full(K, 2.0), jnp.zeros((K, K), bool), jnp.zeros(K)
)


class _PixelJudge(nn.Module):
  """Sees attribute i in pixel (0, i)."""

  def features(self, images):
    return images[:, 0, :K, 0]

  def __call__(self, images):
    return self.features(images)


JUDGE = types.SimpleNamespace(module=_PixelJudge(), variables={})
DATA = registry.Dataset(
  'tiny', 'test', IMAGES, ATTRIBUTES, attribute_names=NAMES
)


def _encode(images, unused_attributes):
  """The attributes are the factors, the whole image the nuisance."""
  return codes.Code(images[:, 0, :K, 0], images)


def _decode(code):
  """Paints the factors over the image."""
  painted = jnp.repeat(code.factors[:, :, None], 3, axis=2)
  return code.nuisance.at[:, 0, :K].set(painted)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=[],
  meta_fields=[
    *('encode', 'decode', 'factors_are_labels', 'has_bounded_factors')
  ],
)
@dataclasses.dataclass(frozen=True)
class _Model:
  encode: object = _encode
  decode: object = _decode
  factors_are_labels: bool = False
  has_bounded_factors: bool = False

  image_range = (-1, 1)


def _measure(data=DATA, **functions):
  model = _Model(**functions)
  chosen = flips.choose_strengths(model, [JUDGE], data)
  return flips.measure(model, [JUDGE], chosen, data)


def test_counts_by_hand():
  # The first judge sees attribute 0 only beyond 3, and always sees attribute 1;
  # its attribute 2 follows pixel 0. The second one always sees all.
  def classify(images):
    first = jnp.where(images[:, 0, 0, 0] >= 3, 1, -1)
    always = jnp.ones_like(first)
    third = jnp.where(images[:, 0, 0, 0] >= 0, 1, -1)
    own = jnp.stack([first, always, third], axis=1)
    return jnp.stack([own, jnp.ones_like(own)])

  count = jax.jit(
    functools.partial(edit_counts.count_edits, _Model(), classify)
  )
  counts = count(IMAGES, ATTRIBUTES, TARGETS)
  np.testing.assert_array_equal(counts.images, [[3, 2], [1, 4], [4, 1]])
  # Attribute 0: asked for -1 where it was +1 (2 images), seen -1 always.
  # Attribute 1: asked for +1 where it was -1 (1 image), seen +1 always.
  # Attribute 2: asked +1, +1, +1, -1, +1; seen by pixel 0: +, -, -, +, -.
  np.testing.assert_array_equal(counts.flipped[0], [[0, 2], [1, 0], [1, 0]])
  np.testing.assert_array_equal(counts.flipped[1], [[3, 0], [1, 0], [4, 0]])
  # Flipping 0 turns what is seen of 2 in all 5 images, 1 stays; flipping
  # another changes nothing else.
  np.testing.assert_array_equal(counts.kept, [[5, 10, 10], [10, 10, 10]])
  # All change is in the first row, outside of the ellipse.
  outside, inside = counts.change[0]
  assert inside == 0 and outside > 0
  # Factors are 0.8 or -0.8: all are below a threshold of 0.9, so that present
  # is asked for, and all above one of -0.9.
  targets = TARGETS._replace(thresholds=jnp.array([0.9, -0.9, 0.0]))
  moved = count(IMAGES, ATTRIBUTES, targets)
  np.testing.assert_array_equal(moved.flipped[0], [[0, 2], [1, 0], [1, 0]])
  # What is seen of 2 by pixel 0 turns in the 3 images where that was negative.
  np.testing.assert_array_equal(moved.kept[0], [7, 10, 10])
  raised = TARGETS._replace(thresholds=jnp.array([-0.9, 0.9, 0.0]))
  moved = count(IMAGES, ATTRIBUTES, raised)
  np.testing.assert_array_equal(moved.flipped[0], [[0, 2], [1, 0], [1, 0]])
  np.testing.assert_array_equal(moved.kept[0], [8, 10, 10])
  # Factors that err: the direction is theirs unless that of the label is given.
  wrong = lambda images, labels: codes.Code(-1.0 * labels, images)
  count = functools.partial(
    edit_counts.count_edits, _Model(encode=wrong), classify
  )
  counts = jax.jit(count)(IMAGES, ATTRIBUTES, TARGETS, True)
  np.testing.assert_array_equal(counts.flipped[0], [[0, 2], [1, 0], [3, 1]])


def test_conflicts_and_thresholds_are_of_deviations_alone():
  conflicts = np.array(
    [[False, True, False], [True, False, False], [False] * 3]
  )
  targets = edit_counts.make_targets(
    (jnp.zeros(K), jnp.ones(K)), [3.0], [1.0, 2.0], conflicts, np.full(K, -0.5)
  )
  np.testing.assert_array_equal(targets.thresholds[:, 0], [0, -0.5, -0.5])
  np.testing.assert_array_equal(targets.present[:, 0], [3, 1, 2])
  assert not np.any(targets.conflicts[0])
  for own in targets.conflicts[1:]:
    np.testing.assert_array_equal(own, conflicts)


def test_a_larger_weight_of_kept_chooses_gentler_edits():
  count = 1 + len(flips.DEVIATIONS)  # After the only alpha.
  flipped = np.zeros((count, 2, K, 2))
  kept = np.full((count, 2, K), 32)
  # Flips 0.6 and kept 0.8 at the second number, 1.0 and 0.5 at the fourth.
  flipped[2], flipped[4], kept[4] = 6, 10, 20
  images = np.full((count, K, 2), 10)
  tried = edit_counts.EditCounts(flipped, kept, images, np.zeros(()))
  for weight, place in ((1.0, 3), (1.3, 3), (1.4, 1), (3.0, 1)):
    chosen = flips.choose_from(tried, (5.0,), weight)
    assert chosen['one'] == flips.DEVIATIONS[place]
    assert set(chosen['each']) == {flips.DEVIATIONS[place]}


def test_strengths_are_chosen_by_hand():
  count = len(flips.DEVIATIONS)
  flipped = np.zeros((2 + count, 2, K, 2))
  flipped[1] = 3  # The second alpha flips more.
  flipped[2 + 1, :, 0] = 10  # Attribute 0 flips from the second number on,
  flipped[2 + 2 :, :, 0] = 10
  flipped[2 + 4, :, 1] = 10  # attribute 1 only at the fifth.
  kept = np.full((2 + count, 2, K), 40)
  kept[-1] = 0
  images = np.full((2 + count, K, 2), 10)
  tried = edit_counts.EditCounts(flipped, kept, images, np.zeros(()))
  chosen = flips.choose_from(tried, (5.0, 7.0))
  assert chosen['alpha'] == 7 and chosen['one'] == flips.DEVIATIONS[4]
  np.testing.assert_array_equal(
    chosen['each'], np.array(flips.DEVIATIONS)[[1, 4, 0]]
  )
  assert chosen['curve'][4]['flips'] == pytest.approx(2 / 3)
  assert chosen['curve'][-1]['kept'] == 0
  # Half of the flips at all kept, all of them at half kept.
  curve = [{'flips': 0.5, 'kept': 1.0}, {'flips': 1.0, 'kept': 0.5}]
  assert flips.compute_area(curve) == 0.75


def test_oracle_flips_everything_and_keeps_the_rest():
  row = _measure()
  json.dumps(row)
  for name in (
      'attribute_flips', 'attribute_flips_told', 'preservation', 'kept',
      'attribute_flips_balanced', 'attribute_flips_balanced_told',
      'attribute_flips_balanced_stgan', 'attribute_flips_balanced_one',
      'attribute_flips_balanced_given', 'kept_given', 'kept_one',
      'edit_curve_area',
      'judge_accuracy', 'judge_accuracy_reconstructions', 'factor_accuracy',
      'factor_balanced_accuracy',
  ):  # fmt: skip
    assert row[name] == pytest.approx(1), name
  assert len(row['stgan_lacking']) == 11 and 'Bald' in row['stgan_lacking']
  assert row['attributes_told'] == K and row['mse'] < 1e-12
  assert row['ssim'] > 0.999 and abs(row['frechet_reconstructions']) < 1e-6
  assert row['deviations_by_attribute'].keys() == {*NAMES}
  # The strengths of a row measure the same again.
  chosen = flips.recall_strengths(json.loads(json.dumps(row)), NAMES)
  again = flips.measure(_Model(), [JUDGE], chosen, DATA)
  np.testing.assert_allclose(
    *(list(x['edit_values_by_attribute'].values()) for x in (again, row)),
    rtol=1e-5,
  )
  assert again['kept'] == 1 and again['edit_curve'] == row['edit_curve']
  # The signs are right, and closest to 0.
  assert [*row['thresholds_by_attribute'].values()] == [0] * K


@pytest.mark.parametrize('bounded', [False, True])
def test_factors_that_are_always_negative_flip_as_if_labels_were_given(bounded):
  # Attributes 0 and 1 have factors of -1.1 and -2.9, attribute 2 of +-0.8.
  shift = jnp.array([2.0, 2.0, 0.0])

  def encode(images, unused_attributes):
    return codes.Code(images[:, 0, :K, 0] - shift[jnp.newaxis], images)

  def decode(code):
    return _decode(code._replace(factors=code.factors + shift[jnp.newaxis]))

  functions = {'encode': encode, 'decode': decode}
  model = _Model(**functions, has_bounded_factors=bounded)
  chosen = flips.choose_strengths(model, [JUDGE], DATA)
  np.testing.assert_allclose(chosen['thresholds'], [-2, -2, 0], atol=0.01)
  row = flips.measure(model, [JUDGE], chosen, DATA)
  for name in ('attribute_flips_balanced', 'kept', 'factor_balanced_accuracy'):
    assert row[name] == 1, name
  for name in ('attribute_flips_balanced', 'kept'):
    assert row[name] == row[f'{name}_given']
  # The paper's go by the sign.
  assert row['attribute_flips'] < 1 and row['factor_accuracy'] < 1
  # The thresholds of a row are recalled exactly; older rows have none.
  stored = json.loads(json.dumps(row))
  again = flips.recall_strengths(stored, NAMES)
  np.testing.assert_array_equal(again['thresholds'], chosen['thresholds'])
  again = flips.measure(model, [JUDGE], again, DATA)
  assert again['attribute_flips_balanced'] == 1
  del stored['thresholds_by_attribute']
  older = flips.recall_strengths(stored, NAMES)
  np.testing.assert_array_equal(older['thresholds'], np.zeros(K))
  older = flips.measure(model, [JUDGE], older, DATA)
  # Half of the images of two attributes are edited towards what they are.
  assert older['attribute_flips_balanced'] == pytest.approx(2 / 3)


def test_thresholds_are_of_all_selection_images():
  # The first two images have attribute 2 of one sign only.
  encode = lambda images, unused: codes.Code(images[:, 0, :K, 0] - 2, images)
  chosen = flips.choose_strengths(
    _Model(encode=encode), [JUDGE], DATA, selection_images=2
  )
  np.testing.assert_allclose(chosen['thresholds'], -2, atol=0.01)


def test_decoder_that_ignores_factors_never_flips():
  row = _measure(decode=lambda code: code.nuisance)
  assert row['attribute_flips'] == row['attribute_flips_balanced'] == 0
  assert row['preservation'] == row['kept'] == 1
  assert row['edit_curve_area'] == 0


def test_edits_without_effect_have_half_of_the_balanced_flips():
  # One image for all: a judge sees the same always, as of random weights.
  row = _measure(decode=lambda code: 0 * code.nuisance + 0.1)
  assert row['attribute_flips_balanced'] == 0.5
  assert row['attribute_flips_balanced_given'] == 0.5


def test_factors_may_be_the_labels():
  encode = lambda images, labels: codes.Code(1.0 * labels, images)
  blank = dataclasses.replace(DATA, images=BLANK)
  row = _measure(blank, encode=encode, factors_are_labels=True)
  # Nothing is seen in the images, everything in what is decoded.
  assert row['judge_accuracy'] < 1
  assert row['judge_accuracy_reconstructions'] == 1
  assert row['attribute_flips'] == row['attribute_flips_balanced'] == 1
  assert row['factor_accuracy'] is row['factor_balanced_accuracy'] is None
  assert [*row['thresholds_by_attribute'].values()] == [0] * K


@pytest.mark.parametrize('grid', [(), (1, 0), (-2,), (float('inf'),)])
def test_strengths_not_above_zero_are_refused(grid):
  with pytest.raises(errors.InputError, match='accepted: one or more'):
    flips.choose_strengths(None, [], None, grid)
