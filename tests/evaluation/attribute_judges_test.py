"""Tests of evaluation.attribute_judges, on images of bright corners."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_judges

_train = functools.partial(
  attribute_judges.train, epochs=4, batch_size=16, first_width=4, last_width=8,
  hidden=8,
)  # fmt: skip


@pytest.fixture(scope='module')
def faces():
  """Attribute 0 brightens the upper half; attribute 1 the channel of red."""
  random = np.random.default_rng(0)
  attributes = random.choice(np.array([-1, 1], np.int8), (480, 2))
  images = random.integers(0, 80, (480, 8, 8, 3), np.uint8)
  images[attributes[:, 0] > 0, :4] += 100
  images[attributes[:, 1] > 0, ..., 0] += 70
  return [
    registry.Dataset(
      'corners', split, images[own], attributes[own], 'abc', ('Top', 'Red')
    )
    for split, own in (('train', slice(384)), ('validation', slice(384, 480)))
  ]


@pytest.fixture(scope='module', params=attribute_judges.KINDS)
def trained(faces, request):
  """A small judge, and the reports of its training."""
  reports = []
  report = lambda *args: reports.append(args)
  return _train(*faces, kind=request.param, report=report), reports


@pytest.fixture(scope='module')
def face_judge(trained):
  return trained[0]


def test_accuracy_is_that_of_numpy(face_judge, faces):
  data = faces[1]
  images = data.images.astype(np.float32) / 127.5 - 1
  classify = jax.jit(attribute_judges.classify, static_argnums=0)
  seen = classify(face_judge.module, face_judge.variables, images)
  correct = np.asarray(seen) == data.labels
  # A rounding may turn one of 96, which weighs up to 1/40 of one sign.
  found = face_judge.accuracy
  np.testing.assert_allclose(found, correct.mean(axis=0), atol=0.011)
  assert min(found) > 0.9
  balanced = [
    np.mean([own[signs > 0].mean(), own[signs < 0].mean()])
    for own, signs in zip(correct.T, data.labels.T)
  ]
  np.testing.assert_allclose(face_judge.balanced_accuracy, balanced, atol=0.026)


def test_best_epoch_is_kept(trained):
  face_judge, reports = trained
  assert [report[:2] for report in reports] == [(i, 4) for i in range(1, 5)]
  losses = [metrics['loss'] for _, _, metrics in reports]
  accuracies = [metrics['accuracy'] for _, _, metrics in reports]
  assert losses[-1] < losses[0]
  assert face_judge.best_epoch == 1 + np.argmax(accuracies)
  found = np.mean(face_judge.balanced_accuracy)
  # An example at the threshold may be rounded to its other side.
  np.testing.assert_allclose(found, max(accuracies), atol=0.026)


def test_data_on_disk_are_read_in_parts(face_judge, faces, monkeypatch):
  monkeypatch.setattr(attribute_judges, '_CHUNK_IMAGES', 48)
  data, selection = (
    dataclasses.replace(data, images=None, read_images=data.images.__getitem__)
    for data in faces
  )
  # 24 steps of 16: parts of 3 steps, each of the images of its indices.
  indices = np.random.default_rng(0).permutation(384).reshape(24, 16)
  parts = attribute_judges._read_parts(data, None, indices)
  for part, read in zip(np.split(indices, 8), parts, strict=True):
    images, labels, own = read
    np.testing.assert_array_equal(images[own], faces[0].images[part])
    np.testing.assert_array_equal(labels[own], faces[0].labels[part])
  # The weights are those of the best epoch.
  counts = attribute_judges.compute_accuracy(face_judge, selection)
  np.testing.assert_allclose(counts.accuracy, face_judge.accuracy, atol=0.011)
  assert counts.present[0] + counts.absent[0] == 96


def test_rare_attributes_are_not_called_absent(faces):
  # One of 20 images has the attribute, and its sign is hard to see: by
  # likelihood all are absent.
  random = np.random.default_rng(1)
  labels = np.where(random.random((480, 1)) < 0.05, 1, -1).astype(np.int8)
  images = random.integers(0, 200, (480, 8, 8, 3), np.uint8)
  images[labels[:, 0] > 0] += 20
  make = lambda own: registry.Dataset(
    'rare', 'train', images[own], labels[own], 'abc', ('Rare',)
  )
  data, selection = make(slice(320)), make(slice(320, 480))
  judge = _train(data, selection, kind='strided', epochs=2)
  counts = attribute_judges.compute_accuracy(judge, selection)
  assert counts.present_correct[0] >= counts.present[0] / 2
  assert judge.balanced_accuracy[0] > 0.6
  np.testing.assert_array_equal(counts.accuracy, judge.accuracy)


def test_a_robust_classifier_is_harder_to_mislead(faces, monkeypatch):
  monkeypatch.setattr(attribute_judges, '_PERTURBATION', 0.3)
  data = faces[1]
  images = batches.to_signed_float(data.images)

  def mislead(kind):
    own = _train(*faces, kind=kind)

    @jax.jit
    def see(images):
      lose = lambda x: -(own.module.apply(own.variables, x) * data.labels).sum()
      slope = jax.grad(lose)(images)
      size = (slope**2).mean(axis=(1, 2, 3), keepdims=True) ** 0.5
      changed = images + 0.3 * slope / size
      return attribute_judges.classify(own.module, own.variables, changed)

    return np.mean(see(images) == data.labels), np.mean(own.accuracy)

  weak, accuracy = mislead('strided')
  robust, of_robust = mislead(attribute_judges.ROBUST)
  assert robust > weak + 0.1, (robust, weak)
  assert min(accuracy, of_robust) > 0.8


def test_judge_is_restored_and_others_are_refused(
  face_judge, faces, tmp_path, monkeypatch
):
  monkeypatch.setattr(attribute_judges, 'train', lambda *a, **k: face_judge)
  make = functools.partial(attribute_judges.restore_or_train, tmp_path)
  kind = face_judge.kind
  assert make(*faces, kind=kind) is face_judge
  restored = make(*faces, kind=kind)
  assert codes.hash_tree(restored.variables) == face_judge.sha256
  assert restored.module == face_judge.module
  assert restored.describe() == face_judge.describe()
  [other] = {*attribute_judges.KINDS} - {kind}
  with pytest.raises(errors.InputError, match=f'trained for kind {kind}; acc'):
    make(*faces, kind=other)
  changed = dataclasses.replace(faces[0], fingerprint='other')
  with pytest.raises(errors.InputError, match='trained for fingerprint'):
    make(changed, faces[1], kind=kind)


def test_unknown_kinds_and_other_attributes_are_refused(faces):
  with pytest.raises(errors.InputError, match='accepted: strided, residual'):
    attribute_judges.train(*faces, kind='deep')
  other = dataclasses.replace(faces[1], attribute_names=('Top', 'Bald'))
  with pytest.raises(errors.InputError, match='Top, Bald'):
    attribute_judges.train(faces[0], other, kind='strided')


def test_augmentation_is_that_of_its_draws():
  images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
  augment = jax.jit(attribute_judges.augment)
  found = np.asarray(augment(images, 3, 5))
  np.testing.assert_array_equal(found, augment(images, 3, 5))
  assert np.any(found != augment(images, 3, 6))
  assert np.any(found != augment(images, 4, 5))
  mirrored, shifts, blurred = (
    np.asarray(draw(3, 5, 16, *limit))
    for draw, *limit in (
      (batches.step_mirror,),
      (batches.step_shifts, 2),
      (batches.step_blur,),
    )
  )
  for i in np.flatnonzero(~blurred):
    image = images[i, :, ::-1] if mirrored[i] else images[i]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), 'edge')
    down, right = 2 - shifts[i]
    expected = padded[down : down + 32, right : right + 32] / 127.5 - 1
    np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_judge_is_at_chance_where_nothing_is_seen(face_judge, faces):
  grey = np.full_like(faces[1].images, 128)
  data = dataclasses.replace(faces[1], images=grey)
  counts = attribute_judges.compute_accuracy(face_judge, data)
  np.testing.assert_allclose(counts.balanced_accuracy, 0.5)
