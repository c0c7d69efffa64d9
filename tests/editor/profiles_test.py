"""What is known of a model: layouts and errors by hand, and damaged entries."""

import dataclasses
import json

import chex
import numpy as np
import pytest
import tiny_editors

from jacsup_jax.core import errors
from jacsup_jax.editor import profiles

SCORE = profiles.EditScore(-1.0, 2.0, flips=0.75, kept=0.5)
PROFILE = profiles.Profile(
  'a student',
  {'Bald': SCORE},
  {'0.5': 1.0, '0.99': 4.0},
  profiles.Layout(((0, -1), (1, 1)), {'0': (0.5, 1.0), '1': (0.0, -1.0)}),
)


def test_the_layout_of_four_classes_in_quarters():
  axis = np.linspace(-1, 1, 40)
  factors = np.stack(np.meshgrid(3 * axis, axis), axis=-1).reshape(-1, 2)
  # Class 0 at the left and below, 1 at the right, 2 and 3 above them.
  labels = (factors[:, 0] > 0) + 2 * (factors[:, 1] > 0)
  layout = profiles.lay_out(factors, labels)
  cells = np.array(layout.cells)
  middle = len(cells) // 2
  assert (cells[:middle, :middle] == 2).all()  # The first row is the highest.
  assert (cells[:middle, middle + 1 :] == 3).all()
  assert (cells[middle + 1 :, :middle] == 0).all()
  np.testing.assert_allclose(layout.centers['1'], [1.54, -0.51], atol=0.01)


def test_places_without_images_have_no_class():
  random = np.random.default_rng(0)
  ring = random.normal(size=(500, 2))
  ring /= np.linalg.norm(ring, axis=1, keepdims=True)
  layout = profiles.lay_out(ring, np.zeros(500, int))
  middle = len(layout.cells) // 2
  assert layout.cells[middle][middle] == -1
  assert layout.cells[middle][0] == 0
  # A constant factor, or fewer images than neighbours, is no error.
  profiles.lay_out(np.zeros((3, 2)), np.arange(3))


def test_errors_are_those_of_the_reconstructions():
  own = tiny_editors.make_digits()
  images = np.random.default_rng(0).integers(0, 256, (70, 28, 28, 1), np.uint8)
  encoded = own.encode(images)
  each = np.square(encoded.images - encoded.reconstructions).mean((1, 2, 3))
  factors = np.asarray(encoded.code.factors)
  found = profiles.measure(own.model, images, factors, np.arange(70) % 3)
  expected = np.quantile(each, [0.5, 0.99])
  np.testing.assert_allclose([*found.errors.values()], expected, rtol=1e-5)
  assert found.layout is not None
  # Attributes are no classes.
  none = profiles.measure(own.model, images, factors, np.ones((70, 2), np.int8))
  assert none.layout is None


def test_a_picture_is_compared_with_the_training_data():
  assert PROFILE.compare(4.0) is None
  assert PROFILE.compare(6.0) == 6.0
  assert profiles.Profile().compare(1e9) is None


def test_a_score_is_weak_below_three_quarters():
  assert not SCORE.is_weak
  assert dataclasses.replace(SCORE, flips=0.74).is_weak


def test_a_row_without_edits_has_no_scores():
  row = {
    'edit_values_by_attribute': {'Bald': [-1, 2]},
    'attribute_flips_balanced_by_attribute': {'Bald': 0.75},
    'kept_by_attribute': {'Bald': 0.5},
  }
  assert profiles.read_edits(row) == {'Bald': SCORE}
  for name in row:
    assert profiles.read_edits({**row, name: {'Bangs': [1, 2, 3]}}) == {}
  assert profiles.read_edits({'class_swaps': 0.5}) == {}


def test_a_profile_is_read_as_it_was_written():
  for own in (PROFILE, profiles.Profile()):
    stored = json.loads(json.dumps(dataclasses.asdict(own)))
    chex.assert_equal(profiles.from_json('x', stored), own)
  assert profiles.from_json('x', None) == profiles.Profile()
  # Parts may be missing.
  assert profiles.from_json('x', {'about': 'a'}) == profiles.Profile('a')


@pytest.mark.parametrize(
  'change',
  [
    {'edits': {'Bald': {'absent': 1}}},
    {'edits': {'Bald': dataclasses.asdict(SCORE) | {'kept': float('nan')}}},
    {'edits': []},
    {'errors': {'0.5': 'x'}},
    {'errors': {'0.5': float('inf')}},
    {'layout': {'cells': [[0, 1]], 'centers': {}}},
    {'layout': {'cells': [[0]], 'centers': {'0': [1]}}},
    {'layout': [1]},
  ],
  ids=range(8),
)
def test_damaged_profiles_are_refused(change):
  stored = dataclasses.asdict(PROFILE) | change
  with pytest.raises(errors.InputError, match='file.*damaged; accepted'):
    profiles.from_json('file', stored)
