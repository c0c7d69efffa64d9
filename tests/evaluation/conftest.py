"""Tiny judges that the tests of evaluation share, trained once."""

import numpy as np
import pytest

from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judges

QUADRANTS = (4, 4, 1)
SMALL_FACE_JUDGE = {
    'first_width': 4, 'last_width': 8, 'hidden': 8, 'batch_size': 32,
    'epochs': 8,
}  # fmt: skip


def make_quadrants(count, seed, split='train'):
  """Images of four classes: the quadrant that is bright."""
  random = np.random.default_rng(seed)
  labels = random.integers(0, 4, count).astype(np.int32)
  images = random.integers(0, 100, (count, *QUADRANTS), np.uint8)
  for image, label in zip(images, labels):
    row, column = 2 * (label // 2), 2 * (label % 2)
    image[row : row + 2, column : column + 2] += 150
  return registry.Dataset('quadrants', split, images, labels, 'abc')


def make_faces(count, seed, split):
  """Attribute 0 brightens the upper half; attribute 1 the channel of red."""
  random = np.random.default_rng(seed)
  attributes = random.choice(np.array([-1, 1], np.int8), (count, 2))
  images = random.integers(0, 80, (count, 8, 8, 3), np.uint8)
  images[attributes[:, 0] > 0, :4] += 100
  images[attributes[:, 1] > 0, ..., 0] += 70
  return registry.Dataset(
    'corners', split, images, attributes, 'abc', ('Top', 'Red')
  )


@pytest.fixture(scope='session')
def quadrants():
  return make_quadrants(512, 0), make_quadrants(200, 1, 'test')


@pytest.fixture(scope='session')
def trained_class_judges(quadrants):
  """Two class judges, and the reports of their training."""
  reports = []
  ensemble = judges.train(
      'quadrants', *quadrants, seeds=(0, 1), epochs=4, batch_size=64,
      report=lambda *args: reports.append(args),
  )  # fmt: skip
  return ensemble, reports


@pytest.fixture(scope='session')
def class_ensemble(trained_class_judges):
  return trained_class_judges[0]


@pytest.fixture(scope='session')
def faces():
  return make_faces(768, 0, 'train'), make_faces(100, 1, 'validation')


@pytest.fixture(scope='session')
def trained_face_judge(faces):
  """A face judge, and the reports of its training."""
  reports = []
  judge = attribute_judges.train(
    *faces, report=lambda *args: reports.append(args), **SMALL_FACE_JUDGE
  )
  return judge, reports


@pytest.fixture(scope='session')
def face_judge(trained_face_judge):
  return trained_face_judge[0]
