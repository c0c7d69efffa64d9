"""Tests of evaluation.svm_judge against scikit-image and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage import feature
from sklearn import svm

from jacsup_jax.data import registry
from jacsup_jax.evaluation import svm_judge


def _make_data(classes, count):
  """Makes images with a bright bar, whose direction is the class."""
  random = np.random.default_rng(count)
  labels = random.integers(0, classes, count).astype(np.int32)
  line = np.linspace(-1, 1, 16)
  angles = np.pi * (labels + random.uniform(-0.3, 0.3, count)) / classes
  places = random.uniform(-0.3, 0.3, count)
  away = line[:, None] * np.cos(angles)[:, None, None]
  away = away - line[None] * np.sin(angles)[:, None, None]
  images = np.exp(-(((away + places[:, None, None]) / 0.2) ** 2))
  images = (200 * images + random.uniform(0, 20, images.shape)).astype(np.uint8)
  return registry.Dataset('bars', 'test', images[..., None], labels)


@pytest.mark.parametrize('shape', [(28, 28, 1), (30, 37, 3), (5, 4, 1)])
def test_histograms_are_those_of_scikit_image(shape):
  images = np.random.default_rng(0).random((4, *shape), np.float32)
  found = np.asarray(svm_judge.compute_histograms(jnp.asarray(images)))
  cell = -(-min(shape[:2]) // 8)
  expected = [
    feature.hog(
      image,
      pixels_per_cell=(cell, cell),
      cells_per_block=(shape[0] // cell, shape[1] // cell),
      channel_axis=-1,
    )
    for image in images
  ]
  # float32 against float64.
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_without_edges_has_an_empty_histogram():
  images = jnp.full((2, 16, 16, 1), 0.5)
  assert not np.any(svm_judge.compute_histograms(images))


@pytest.mark.parametrize('classes', [2, 4])
def test_classes_are_those_of_scikit_learn(classes, monkeypatch):
  machines = []
  fit = svm.SVC.fit

  def remember(self, inputs, labels):
    machines.append((self, inputs))
    return fit(self, inputs, labels)

  monkeypatch.setattr(svm.SVC, 'fit', remember)
  data, test = _make_data(classes, 300), _make_data(classes, 256)
  judge = svm_judge.train('bars', data, test)
  [(machine, inputs)] = machines
  # Of the images that it is trained on, which are sorted as they were.
  images = jnp.asarray(data.images[:256] / np.float32(255))
  seen = judge.classify(images.reshape(2, 128, 16, 16, 1))
  np.testing.assert_array_equal(seen.ravel(), machine.predict(inputs)[:256])
  assert judge.accuracy[0] > 0.95
  assert seen.shape == (1, 2, 128) and judge.num_images == 300


def test_a_class_without_images_is_never_seen():
  data, test = _make_data(3, 200), _make_data(3, 200)
  # The labels 1, 3 and 4 of five.
  names = np.array([1, 3, 4], np.int32)
  data, test = (
    registry.Dataset(
      'bars', 'test', own.images, names[own.labels], num_classes=5
    )
    for own in (data, test)
  )
  judge = svm_judge.train('bars', data, test)
  assert judge.accuracy[0] > 0.9
