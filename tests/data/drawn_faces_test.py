"""Tests of drawn_faces: what is drawn, and that it can be told."""

import functools
import hashlib

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import drawn_faces

_NAMES = drawn_faces.ATTRIBUTES
_PLAIN = np.full([len(_NAMES)], -1, np.int8)


def _with(*names: str) -> np.ndarray:
  return np.array([1 if name in names else -1 for name in _NAMES], np.int8)


@functools.cache
def _faces(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
  faces = [drawn_faces.draw(index, split) for index in range(count)]
  images, attributes = zip(*faces)
  return np.stack(images), np.stack(attributes)


@functools.cache
def _attributes(count: int) -> np.ndarray:
  return np.stack(
    [drawn_faces.sample(index, 'train')[0] for index in range(count)]
  )


@functools.cache
def _flip(index: int, name: str):
  """Draws a face with and without an attribute, or gives None."""
  attributes, nuisance = drawn_faces.sample(index, 'test')
  k = _NAMES.index(name)
  flipped = attributes.copy()
  flipped[k] = -flipped[k]
  if not drawn_faces.is_allowed(flipped):
    return None
  off, on = (attributes, flipped) if flipped[k] > 0 else (flipped, attributes)
  return (
    drawn_faces.draw_face(off, nuisance),
    drawn_faces.draw_face(on, nuisance),
    nuisance,
  )


# Value.


def test_names_are_in_celeba_order():
  # CelebA's list is alphabetical.
  assert list(_NAMES) == sorted(set(_NAMES))


def test_draw_gives_an_image_and_attributes():
  image, attributes = drawn_faces.draw(3, 'train')
  assert image.shape == (64, 64, 3) and image.dtype == np.uint8
  assert attributes.shape == (len(_NAMES),) and attributes.dtype == np.int8
  assert set(attributes.tolist()) == {-1, 1}
  assert image.flags.c_contiguous


def test_a_neutral_face_is_where_it_should_be():
  nuisance = drawn_faces.Nuisance(background_hue=0.6, shirt_hue=0.33)
  image = drawn_faces.draw_face(_PLAIN, nuisance).astype(int)
  # A blue wall in the corner, warm skin on a cheek, a green shirt below.
  assert image[2, 2].argmax() == 2
  assert image[40, 25].argmax() == 0 and image[40, 25].min() > 80
  assert image[62, 18].argmax() == 1


@pytest.mark.parametrize(
  'name, row, column, darker',
  [
    ('Bald', 13, 32, False),  # Hair becomes skin.
    ('Bangs', 24, 32, True),
    ('Goatee', 54, 32, True),
    ('Mustache', 43, 29, True),
    ('Pale_Skin', 40, 22, False),
  ],
)
def test_an_attribute_changes_its_place(name, row, column, darker):
  nuisance = drawn_faces.Nuisance(hair_colour=0.2)
  off = drawn_faces.draw_face(_PLAIN, nuisance).astype(int)[row, column]
  on = drawn_faces.draw_face(_with(name), nuisance).astype(int)[row, column]
  difference = on.sum() - off.sum()
  assert (difference < -100) if darker else (difference > 100)


def test_user_mistakes_raise():
  with pytest.raises(errors.InputError, match="'training'.*train, validation"):
    drawn_faces.draw(0, 'training')
  with pytest.raises(errors.InputError, match='1000.*0 to 999'):
    drawn_faces.draw(1000, 'test')
  with pytest.raises(errors.InputError, match='-1 of split'):
    drawn_faces.draw(-1, 'test')
  with pytest.raises(errors.InputError, match='values of -1 or 1'):
    drawn_faces.draw_face(np.zeros_like(_PLAIN), drawn_faces.Nuisance())
  with pytest.raises(errors.InputError, match='values of -1 or 1'):
    drawn_faces.draw_face(_PLAIN[1:], drawn_faces.Nuisance())


@pytest.mark.parametrize('pair', drawn_faces.EXCLUSIVE)
def test_exclusive_attributes_raise(pair):
  assert not drawn_faces.is_allowed(_with(*pair))
  with pytest.raises(errors.InputError, match=' and '.join(pair)):
    drawn_faces.draw_face(_with(*pair), drawn_faces.Nuisance())


# Invariant.


def test_faces_are_those_that_published_runs_saw():
  digest = hashlib.sha256()
  for index in range(5):
    digest.update(drawn_faces.draw(index, 'train')[0].tobytes())
  assert digest.hexdigest()[:16] == '95f3eccb458dbf65'


def test_draw_is_a_pure_function():
  image, attributes = drawn_faces.draw(5, 'test')
  np.random.seed(0)
  drawn_faces.draw(6, 'test')
  again, attributes_again = drawn_faces.draw(5, 'test')
  np.testing.assert_array_equal(image, again)
  np.testing.assert_array_equal(attributes, attributes_again)


def test_faces_and_splits_differ():
  first = [drawn_faces.draw(0, split)[0] for split in drawn_faces.SPLIT_SIZES]
  images = np.concatenate([np.stack(first), _faces('train', 500)[0][1:]])
  assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_attributes_are_allowed_and_neither_rare_nor_universal():
  attributes = _attributes(3000)
  assert all(drawn_faces.is_allowed(row) for row in attributes)
  rates = (attributes > 0).mean(0)
  # The lowest is Bald's 0.17; the standard error is below 0.01.
  assert rates.min() > 0.13 and rates.max() < 0.6


def test_attributes_are_correlated_but_not_determined():
  attributes = _attributes(3000) > 0
  lipstick = attributes[:, _NAMES.index('Wearing_Lipstick')]
  mustache = attributes[:, _NAMES.index('Mustache')]
  goatee = attributes[:, _NAMES.index('Goatee')]
  smiling = attributes[:, _NAMES.index('Smiling')]
  opened = attributes[:, _NAMES.index('Mouth_Slightly_Open')]
  assert mustache[goatee].mean() > 2 * mustache[~goatee].mean()
  assert 0 < mustache[lipstick].mean() < 0.5 * mustache[~lipstick].mean()
  # Independent: four standard errors of a difference of two rates.
  assert abs(opened[smiling].mean() - opened[~smiling].mean()) < 0.075


def test_nuisance_is_independent_of_attributes():
  samples = [drawn_faces.sample(index, 'train') for index in range(3000)]
  attributes = np.array([attributes for attributes, _ in samples], float)
  nuisance = np.array([tuple(nuisance) for _, nuisance in samples])
  assert nuisance[:, :6].min() < -0.9 and nuisance[:, 6:].min() >= 0
  assert nuisance.max() <= 1
  both = np.corrcoef(attributes.T, nuisance.T)
  # Some 350 correlations, of standard error 0.018: 4.5 of these.
  assert np.abs(both[: len(_NAMES), len(_NAMES) :]).max() < 0.082


def test_shift_moves_all_of_the_person():
  # 2 / 3 of 1.5 pixels. The wall stays, so it is made even.
  flat = drawn_faces.Nuisance(background_slope=0.5)
  image = drawn_faces.draw_face(_PLAIN, flat).astype(int)
  moved = drawn_faces.draw_face(_PLAIN, flat._replace(shift_x=2 / 3)).astype(
    int
  )
  # Coordinates are float32, whence a level here and there.
  assert np.abs(moved[:, 1:] - image[:, :-1]).max() <= 1


def test_sizes_agree():
  attributes, nuisance = drawn_faces.sample(7, 'train')
  small = drawn_faces.draw_face(attributes, nuisance, 64).astype(float)
  large = drawn_faces.draw_face(attributes, nuisance, 256).astype(float)
  means = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
  # Edges of one pixel against the mean of 16: thin lines differ somewhat.
  assert np.abs(means - small).mean() < 4


def test_every_nuisance_is_visible():
  attributes = _with('Wearing_Hat', 'Eyeglasses')
  for field in drawn_faces.Nuisance._fields:
    ends = [
      drawn_faces.draw_face(
        attributes, drawn_faces.Nuisance()._replace(**{field: value})
      ).astype(int)
      if field != 'parting'
      # A hat covers the parting.
      else drawn_faces.draw_face(
        _PLAIN, drawn_faces.Nuisance(parting=value)
      ).astype(int)
      for value in (0.1, 0.9)
    ]
    assert np.abs(ends[0] - ends[1]).max() > 20, field


# Oracle: the labels are in the pixels.


@pytest.mark.parametrize('name', _NAMES)
def test_every_flip_is_visible(name):
  flips = [_flip(index, name) for index in range(24)]
  flips = [flip for flip in flips if flip is not None]
  assert len(flips) >= 3
  for off, on, _ in flips:
    change = np.abs(on.astype(int) - off.astype(int)).max(-1)
    # At least 12 pixels change by a tenth of the range or more.
    assert (change > 25).sum() >= 12
    # The wall's top corners belong to no attribute.
    assert not change[:6, :6].any() and not change[:6, -6:].any()


@pytest.mark.parametrize(
  'name, rows',
  [
    ('Goatee', slice(44, 64)),
    ('Mustache', slice(34, 52)),
    ('Mouth_Slightly_Open', slice(38, 60)),
    ('Bangs', slice(6, 46)),
    ('Wearing_Lipstick', slice(38, 60)),
    ('Eyeglasses', slice(22, 46)),
  ],
)
def test_a_flip_stays_in_its_place(name, rows):
  for index in range(12):
    flip = _flip(index, name)
    if flip is None:
      continue
    changed = (flip[0] != flip[1]).any((1, 2))
    changed[rows] = False
    assert not changed.any()


def test_a_ridge_classifier_tells_attributes():
  images, attributes = _faces('train', 500)
  tests, truth = _faces('validation', 200)

  def features(faces):
    # Means of 2x2 pixels, about the middle of the range.
    means = faces.reshape(len(faces), 32, 2, 32, 2, 3).mean((2, 4))
    return np.c_[means.reshape(len(faces), -1) / 127.5 - 1, np.ones(len(faces))]

  x, y = features(images), attributes.astype(float)
  # Fewer examples than features: solved in the space of the examples.
  weights = x.T @ np.linalg.solve(x @ x.T + 30 * np.eye(len(x)), y)
  right = np.sign(features(tests) @ weights) == truth
  # The mean of both classes' accuracies: 0.5 is chance.
  balanced = np.array(
    [
      (right[truth[:, k] > 0, k].mean() + right[truth[:, k] < 0, k].mean()) / 2
      for k in range(len(_NAMES))
    ]
  )
  scores = dict(zip(_NAMES, balanced.round(3).tolist()))
  for name in ('Bald', 'Black_Hair', 'Blond_Hair', 'Pale_Skin', 'Wearing_Hat'):
    assert scores[name] > 0.85, scores
  assert min(scores.values()) > 0.6, scores
