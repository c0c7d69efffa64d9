"""What the page is told of models, by hand."""

import dataclasses

import numpy as np
import tiny_editors

from jacsup_jax.editor import descriptions
from jacsup_jax.editor import profiles

# The units of the tiny editors have a mean of 0, a deviation of 2, and their
# quantiles at -4 and 4: positions from -2 to 2.
FACES, DIGITS = tiny_editors.make_faces(), tiny_editors.make_digits()


def _units(own):
  described = descriptions.describe_model(own)['units']
  return {unit['name']: unit for unit in described}


def test_sliders_without_a_profile_reach_over_the_training_data():
  unit = _units(FACES)['Eyeglasses']
  assert (unit['low'], unit['high'], unit['usual']) == (-2, 2, [-2, 2])
  assert unit['reach'] == 4 and not unit['is_weak']
  assert _units(DIGITS)['z3']['reach'] == 0


def test_sliders_with_scores_reach_as_far_as_edits_work():
  units = _units(tiny_editors.make_known_faces())
  glasses = units['Eyeglasses']
  # From -2 to 3 are two and a half deviations.
  assert (glasses['low'], glasses['high'], glasses['reach']) == (-1, 1.5, 2.5)
  assert (glasses['flips'], glasses['kept']) == (0.95, 0.8)
  assert units['Smiling']['is_weak'] and not units['Bald']['is_weak']


def test_what_is_shown_first_works():
  known = tiny_editors.make_known_faces()
  first = lambda own: descriptions.describe_model(own)['first']
  assert first(known) == 'Eyeglasses'
  assert first(DIGITS) == 'y1'
  weak = dataclasses.replace(known.profile.edits['Eyeglasses'], flips=0.5)
  strong = dataclasses.replace(weak, flips=0.9)
  edits = {'Eyeglasses': weak, 'Smiling': weak, 'Bald': strong}
  profile = profiles.Profile(edits=edits)
  other = dataclasses.replace(known, profile=profile)
  assert first(other) == 'Bald'
  assert descriptions.describe_model(other)['map'][0] == 'Bald'


def test_presets_need_attributes_that_work():
  labels = lambda own: [
    preset['label'] for preset in descriptions.describe_model(own)['presets']
  ]
  assert labels(FACES) == ['Glasses', 'Smile']
  known = tiny_editors.make_known_faces()
  assert labels(known) == ['Glasses'] and labels(DIGITS) == []
  [glasses] = descriptions.describe_model(known)['presets']
  assert glasses['targets'] == {'Eyeglasses': 1.5}


def test_the_map_of_classes_is_in_positions():
  own = tiny_editors.make_laid_out_digits()
  layout = descriptions.describe_model(own)['layout']
  assert layout['axes'] == ['y1', 'y2']
  assert layout['classes'][0] == {
    'label': '0',
    'targets': {'y1': -1.0, 'y2': 1.0},
  }
  assert descriptions.describe_model(DIGITS)['layout'] is None


def test_a_photo_has_the_positions_of_its_code():
  image = tiny_editors.SAMPLES['digits'][:1]
  encoded = DIGITS.encode(image)
  found = descriptions.describe_positions(DIGITS, encoded)
  code = np.concatenate([np.ravel(x) for x in encoded.code])
  np.testing.assert_allclose([*found.values()][:4], code[:4] / 2, rtol=1e-6)
  assert found['z3'] == 0  # It cannot be moved.
  faces = FACES.encode(tiny_editors.SAMPLES['faces'][:1])
  names = [unit.name for unit in FACES.units]
  assert [*descriptions.describe_positions(FACES, faces)] == names
