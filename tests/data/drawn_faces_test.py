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
  return tuple(map(np.stack, zip(*faces)))


@pytest.fixture(scope='module')
def samples():
  return [drawn_faces.sample(index, 'train') for index in range(3000)]


def test_what_is_not_there():
  for index, split in ((0, 'training'), (1000, 'test'), (-1, 'test')):
    with pytest.raises(errors.InputError, match='accepted'):
      drawn_faces.draw(index, split)
  for names in (_PLAIN[1:], _with(*drawn_faces.EXCLUSIVE[0])):
    with pytest.raises(errors.InputError, match='accepted'):
      drawn_faces.draw_face(names, drawn_faces.Nuisance())


def test_faces_are_those_that_published_runs_saw():
  content = b''.join(map(bytes, _faces('train', 500)[0][:5]))
  assert hashlib.sha256(content).hexdigest()[:16] == '95f3eccb458dbf65'


def test_attributes_are_correlated_but_not_determined(samples):
  assert all(drawn_faces.is_allowed(row) for row, _ in samples)
  attributes = np.array([row for row, _ in samples]) > 0
  rates = attributes.mean(0)
  # The lowest is Bald's 0.17; the standard error is below 0.01.
  assert rates.min() > 0.13 and rates.max() < 0.6
  has = dict(zip(_NAMES, attributes.T))
  mustache, lipstick = has['Mustache'], has['Wearing_Lipstick']
  assert mustache[has['Goatee']].mean() > 2 * mustache[~has['Goatee']].mean()
  assert 0 < mustache[lipstick].mean() < 0.5 * mustache[~lipstick].mean()
  # Independent: four standard errors of a difference of two rates.
  opened, smiling = has['Mouth_Slightly_Open'], has['Smiling']
  assert abs(opened[smiling].mean() - opened[~smiling].mean()) < 0.075


def test_nuisance_is_independent_of_attributes(samples):
  attributes = np.array([attributes for attributes, _ in samples], float)
  nuisance = np.array([tuple(nuisance) for _, nuisance in samples])
  assert nuisance[:, :6].min() < -0.9 and nuisance[:, 6:].min() >= 0
  assert nuisance.max() <= 1
  both = np.corrcoef(attributes.T, nuisance.T)
  # Some 350 correlations, of standard error 0.018: 4.5 of these.
  assert np.abs(both[: len(_NAMES), len(_NAMES) :]).max() < 0.082


def test_sizes_agree():
  attributes, nuisance = drawn_faces.sample(7, 'train')
  small = drawn_faces.draw_face(attributes, nuisance, 64).astype(float)
  large = drawn_faces.draw_face(attributes, nuisance, 256).astype(float)
  means = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
  # Edges of one pixel against the mean of 16: thin lines differ somewhat.
  assert np.abs(means - small).mean() < 4


@pytest.mark.parametrize('field', drawn_faces.Nuisance._fields)
def test_every_nuisance_is_visible(field):
  # A hat covers the parting.
  names = () if field == 'parting' else ('Wearing_Hat', 'Eyeglasses')
  low, high = (drawn_faces.Nuisance(**{field: x}) for x in (0.1, 0.9))
  draw = lambda nuisance: drawn_faces.draw_face(_with(*names), nuisance)
  assert np.abs(draw(low).astype(int) - draw(high)).max() > 20


@pytest.mark.parametrize('name', _NAMES)
def test_every_flip_is_visible(name):
  flips = 0
  for attributes, nuisance in (
    drawn_faces.sample(i, 'test') for i in range(24)
  ):
    flipped = np.where(np.array(_NAMES) == name, -attributes, attributes)
    if not drawn_faces.is_allowed(flipped):
      continue
    flips += 1
    before, after = (
      drawn_faces.draw_face(face, nuisance).astype(int)
      for face in (attributes, flipped)
    )
    change = np.abs(after - before).max(-1)
    # At least 12 pixels change by a tenth of the range or more.
    assert (change > 25).sum() >= 12
    # The wall's top corners belong to no attribute.
    assert not change[:6, :6].any() and not change[:6, -6:].any()
  assert flips >= 3


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
  rate = lambda held: (right & held).sum(0) / held.sum(0)
  balanced = (rate(truth > 0) + rate(truth < 0)) / 2
  scores = dict(zip(_NAMES, balanced.round(3).tolist()))
  for name in ('Bald', 'Black_Hair', 'Blond_Hair', 'Pale_Skin', 'Wearing_Hat'):
    assert scores[name] > 0.85, scores
  assert min(scores.values()) > 0.6, scores
