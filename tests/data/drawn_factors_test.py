"""Tests of data.drawn_factors."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import drawn_factors
from jacsup_jax.data import registry

NAMES = drawn_factors.LABEL_NAMES


@pytest.fixture
def few(monkeypatch, tmp_path):
  monkeypatch.setattr(
    drawn_faces, 'SPLIT_SIZES', {'train': 10, 'validation': 2, 'test': 3}
  )
  return lambda split, **options: registry.load(
    'drawn_factors', split, data_dir=tmp_path, **options
  )


def _list(nuisance, **attributes):
  values = [attributes.get(name, -1) for name in drawn_faces.ATTRIBUTES]
  listed = drawn_factors.list_factors(np.array(values), nuisance)
  return dict(zip(NAMES, listed, strict=True))


def test_factors_by_hand():
  neutral = drawn_faces.Nuisance()
  found = _list(neutral, Eyeglasses=1)
  assert found['hair'] == 3 and found['Eyeglasses'] == 1
  assert found['Smiling'] == 0
  # 0 is the middle of pose, 0.5 of all others: the third of four values.
  assert found['yaw'] == found['light'] == found['jaw'] == 2
  edge = neutral._replace(yaw=-1.0, roll=1.0, jaw=0.0, shirt_hue=0.2499)
  found = _list(edge, Blond_Hair=1)
  assert found['hair'] == 2
  shown = [found[name] for name in ('yaw', 'roll', 'jaw', 'shirt_hue')]
  assert shown == [0, 3, 0, 0]
  assert [_list(neutral, **{name: 1})['hair'] for name in ('Bald',)] == [0]


def test_splits_have_images_classes_and_factors(few, tmp_path):
  sizes = {}
  for split in registry.SPLITS:
    data = few(split, image_shape=(32, 32, 3))
    sizes[split] = len(data)
    assert data.image_shape == (32, 32, 3) and data.num_classes == 4
    assert data.label_names == NAMES and data.attribute_names is None
    np.testing.assert_array_equal(data.labels, data.all_labels[:, 0])
  assert [*sizes.values()] == [12, 10, 2, 3]
  drawn = registry.load(
    'synthetic_faces', 'test', data_dir=tmp_path, image_size=32
  )
  np.testing.assert_array_equal(data.images, drawn.images)
  column = drawn.labels[:, drawn_faces.ATTRIBUTES.index('Smiling')] > 0
  own = data.all_labels[:, NAMES.index('Smiling')]
  np.testing.assert_array_equal(own, column)


def test_other_shapes_are_refused(few):
  with pytest.raises(errors.InputError, match='28x28x3.*28x28x1'):
    few('test', image_shape=(28, 28, 1))
