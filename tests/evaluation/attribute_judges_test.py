"""Tests of evaluation.attribute_judges, on images of bright corners."""

import dataclasses
import functools
import json

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files

SIZE = 8
NAMES = ('Top', 'Red')


def _restore(directory, **other):
  wanted = {
      'attribute_names': NAMES, 'image_size': SIZE, 'dataset': 'corners',
      **other,
  }  # fmt: skip
  return attribute_judges.restore(directory, **wanted)


# Values.


def test_signs_are_those_of_the_logits():

  class Model:
    def apply(self, variables, images):
      return variables * images[:, 0, 0]

  images = jnp.array([[0.5, -0.5, 0.0]]).reshape(1, 1, 1, 3)
  np.testing.assert_array_equal(
    attribute_judges.classify(Model(), -2.0, images), [[-1, 1, -1]]
  )


def test_accuracy_is_that_of_numpy(face_judge, faces):
  data = faces[1]
  images = data.images.astype(np.float32) / 127.5 - 1
  seen = np.asarray(face_judge.judge(images))
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


def test_description_identifies_the_judge(face_judge):
  described = face_judge.describe()
  assert described['attribute_names'] == NAMES
  assert described['fingerprint'] == 'abc'
  assert described['sha256'] == trees.hash_tree(face_judge.variables)
  json.dumps(described)


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


# Invariants.


def test_data_on_disk_train_the_same_judge(face_judge, faces, monkeypatch):
  # 768 images in steps of 32: parts of 3 steps.
  monkeypatch.setattr(attribute_judges, '_CHUNK_IMAGES', 96)
  on_disk = [
    dataclasses.replace(data, images=None, read_images=data.images.__getitem__)
    for data in faces
  ]
  (one, _), (other, _) = (
    next(attribute_judges._train_epochs(face_judge, data))
    for data in (faces[0], on_disk[0])
  )
  # Programs of other sizes round otherwise; Adam at 1e-3 enlarges that where a
  # gradient is next to 0.
  chex.assert_trees_all_close(one['params'], other['params'], atol=2e-3)
  counts = attribute_judges.compute_accuracy(face_judge, on_disk[1])
  chex.assert_trees_all_equal(
    counts, attribute_judges.compute_accuracy(face_judge, faces[1])
  )
  assert counts.present[0] + counts.absent[0] == 100


def test_restored_judge_is_the_one_saved(face_judge, tmp_path):
  assert not judge_files.exist(tmp_path / 'judge')
  attribute_judges.save(tmp_path / 'judge', face_judge)
  assert judge_files.exist(tmp_path / 'judge')
  assert [p.name for p in tmp_path.iterdir()] == ['judge']
  restored = _restore(tmp_path / 'judge')
  chex.assert_trees_all_equal(restored.variables, face_judge.variables)
  assert dataclasses.replace(restored, variables={}) == dataclasses.replace(
    face_judge, variables={}
  )


@pytest.mark.parametrize(
    ('other', 'expected'),
    [
        ({'attribute_names': ('Top', 'Bald')},
         ['--attributes=Top,Red', '--attributes=Top,Bald']),
        ({'attribute_names': ('Top',)}, ['=Top,Red;', '--attributes=Top.']),
        ({'attribute_names': ('Red', 'Top')}, ['--attributes=Red,Top.']),
        ({'image_size': 16}, ['--image_size=8', '--image_size=16']),
        ({'dataset': 'celeb_a'}, ['--dataset=corners', '--dataset=celeb_a']),
    ],
)  # fmt: skip
def test_judge_of_other_data_is_refused(face_judge, tmp_path, other, expected):
  attribute_judges.save(tmp_path, face_judge)
  with pytest.raises(errors.InputError) as error:
    _restore(tmp_path, **other)
  message = str(error.value)
  assert str(tmp_path) in message and '\n' not in message
  for text in (*expected, 'accepted'):
    assert text in message


def test_judge_is_trained_once(face_judge, faces, tmp_path, monkeypatch):
  monkeypatch.setattr(attribute_judges, 'train', lambda *a, **k: face_judge)
  make = functools.partial(
    attribute_judges.restore_or_train, tmp_path / 'judge', *faces
  )
  assert make() is face_judge
  monkeypatch.setattr(attribute_judges, 'train', None)  # Not again.
  assert make(seed=0, epochs=8).sha256 == face_judge.sha256
  for other in ({'seed': 6}, {'epochs': 2}, {'hidden': 9}):
    with pytest.raises(errors.InputError, match='accepted: the same'):
      make(**other)
  with pytest.raises(errors.InputError, match='fingerprint abc'):
    attribute_judges.restore_or_train(
      tmp_path / 'judge',
      dataclasses.replace(faces[0], fingerprint='other'),
      faces[1],
    )


def test_directory_of_something_else_is_refused(faces, tmp_path):
  (tmp_path / 'letter.txt').write_text('dear')
  with pytest.raises(errors.InputError, match=str(tmp_path)):
    attribute_judges.restore_or_train(tmp_path, *faces)
  assert [p.name for p in tmp_path.iterdir()] == ['letter.txt']


def test_selection_of_other_attributes_is_refused(faces):
  other = dataclasses.replace(faces[1], attribute_names=('Top', 'Bald'))
  with pytest.raises(errors.InputError, match='Top, Bald'):
    attribute_judges.train(faces[0], other)


# Oracle and anti-oracle.


def test_judge_learns_what_can_be_told(face_judge, faces):
  assert min(face_judge.accuracy) > 0.9
  # It is at chance where nothing is left to see.
  counts = attribute_judges.count_correct(
    face_judge.judge, *faces[1].read(range(100)), lambda x, _: 0.0 * x
  )
  np.testing.assert_allclose(counts.balanced_accuracy, 0.5)
