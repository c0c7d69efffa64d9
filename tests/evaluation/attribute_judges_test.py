"""Tests of evaluation.attribute_judges, on images of bright corners."""

import dataclasses
import functools
import json

import chex
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.evaluation import attribute_judges

SIZE = 8
NAMES = ('Top', 'Red')


def _classify(judge):
  return functools.partial(
    attribute_judges.classify, judge.module, judge.variables
  )


def test_accuracy_is_that_of_numpy(face_judge, faces):
  data = faces[1]
  images = data.images.astype(np.float32) / 127.5 - 1
  seen = np.asarray(_classify(face_judge)(images))
  correct = seen == data.labels
  # A rounding may turn one of 100, which weighs up to 1/40 of one sign.
  found = face_judge.accuracy
  np.testing.assert_allclose(found, correct.mean(axis=0), atol=0.011)
  present = data.labels > 0
  balanced = [
    (correct[present[:, i], i].mean() + correct[~present[:, i], i].mean()) / 2
    for i in range(2)
  ]
  np.testing.assert_allclose(face_judge.balanced_accuracy, balanced, atol=0.026)


def test_best_epoch_is_kept(trained_face_judge, faces):
  face_judge, reports = trained_face_judge
  assert [report[:2] for report in reports] == [(i, 8) for i in range(1, 9)]
  losses, accuracies = zip(*(
      (metrics['loss'], metrics['accuracy']) for _, _, metrics in reports
  ))  # fmt: skip
  assert losses[-1] < losses[0]
  assert face_judge.best_epoch == 1 + np.argmax(accuracies)
  np.testing.assert_allclose(np.mean(face_judge.accuracy), max(accuracies))
  # The weights are those of that epoch.
  counts = attribute_judges.compute_accuracy(face_judge, faces[1])
  np.testing.assert_allclose(counts.accuracy, face_judge.accuracy, atol=0.011)


def test_data_on_disk_are_read_in_parts(face_judge, faces, monkeypatch):
  monkeypatch.setattr(attribute_judges, '_CHUNK_IMAGES', 96)
  data, selection = (
    dataclasses.replace(data, images=None, read_images=data.images.__getitem__)
    for data in faces
  )
  # 24 steps of 32: parts of 3 steps, each of the images of its indices.
  indices = np.random.default_rng(0).permutation(768).reshape(24, 32)
  parts = list(attribute_judges._read_parts(data, None, indices))
  assert len(parts) == 8
  for part, (images, labels, own) in zip(np.split(indices, 8), parts):
    np.testing.assert_array_equal(images[own], faces[0].images[part])
    np.testing.assert_array_equal(labels[own], faces[0].labels[part])
  counts = attribute_judges.compute_accuracy(face_judge, selection)
  np.testing.assert_allclose(counts.accuracy, face_judge.accuracy, atol=0.011)
  assert counts.present[0] + counts.absent[0] == 100


def test_judge_is_trained_once(face_judge, faces, tmp_path, monkeypatch):
  monkeypatch.setattr(attribute_judges, 'train', lambda *a, **k: face_judge)
  make = functools.partial(
    attribute_judges.restore_or_train, tmp_path / 'judge', *faces
  )
  assert make() is face_judge
  monkeypatch.setattr(attribute_judges, 'train', None)  # Not again.
  restored = make(seed=0, epochs=8)
  assert [p.name for p in tmp_path.iterdir()] == ['judge']
  chex.assert_trees_all_equal(restored.variables, face_judge.variables)
  assert dataclasses.replace(restored, variables={}) == dataclasses.replace(
    face_judge, variables={}
  )
  assert restored.sha256 == codes.hash_tree(restored.variables)
  json.dumps(restored.describe())
  with pytest.raises(errors.InputError, match='accepted: one for'):
    make(hidden=9)
  other = dataclasses.replace(faces[0], fingerprint='other')
  with pytest.raises(errors.InputError, match='trained for fingerprint'):
    attribute_judges.restore_or_train(tmp_path / 'judge', other, faces[1])


def test_selection_of_other_attributes_is_refused(faces):
  other = dataclasses.replace(faces[1], attribute_names=('Top', 'Bald'))
  with pytest.raises(errors.InputError, match='Top, Bald'):
    attribute_judges.train(faces[0], other)


def test_judge_learns_what_can_be_told(face_judge, faces):
  assert min(face_judge.accuracy) > 0.9
  # It is at chance where nothing is left to see.
  counts = attribute_judges.count_correct(
    _classify(face_judge), *faces[1].read(range(100)), lambda x, _: 0.0 * x
  )
  np.testing.assert_allclose(counts.balanced_accuracy, 0.5)
