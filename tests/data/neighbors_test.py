"""Tests of jacsup_jax.data.neighbors."""

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import neighbors


def _images(flat):
  flat = np.asarray(flat, np.float32)
  return flat.reshape(len(flat), -1, 1, 1)


def test_neighbors_on_a_line():
  # Distances from 0: 1, 4, 9; from 1: 1, 3, 8;
  # from 4: 3, 4, 5; from 9: 5, 8, 9.
  line = _images([[0], [1], [4], [9]])
  found = neighbors.find(line, 2)
  np.testing.assert_array_equal(found, [[1, 2], [0, 2], [1, 0], [2, 1]])
  assert found.dtype == np.int32
  for count in (0, 4):
    with pytest.raises(errors.InputError, match=f'={count} of 4'):
      neighbors.find(line, count)


def test_no_image_is_its_own_neighbor_but_may_be_of_its_copy():
  flat = np.repeat(np.random.default_rng(0).normal(size=(20, 5)), 2, axis=0)
  found = neighbors.find(_images(flat), 3)
  rows = np.arange(len(flat))
  assert not np.any(found == rows[:, np.newaxis])
  np.testing.assert_array_equal(found[:, 0], rows ^ 1)


def test_components_keep_the_distances_of_images_of_so_many():
  # 200 pixels that have only 7 dimensions: nothing is lost.
  rng = np.random.default_rng(1)
  flat = rng.normal(size=(90, 7)) @ rng.normal(size=(7, 200))
  found = neighbors.find(_images(flat), 4)
  squares = np.sum((flat[:, np.newaxis] - flat) ** 2, axis=2)
  np.fill_diagonal(squares, np.inf)
  np.testing.assert_array_equal(found, np.argsort(squares, axis=1)[:, :4])


def test_neighbors_are_of_the_same_cluster_and_noise_has_none():
  rng = np.random.default_rng(3)
  labels = np.arange(200) % 4
  noise = rng.normal(size=(200, 64))
  agreement = lambda flat: np.mean(
    labels[neighbors.find(_images(flat), 5)] == labels[:, np.newaxis]
  )
  assert agreement(noise + 50 * np.eye(4)[labels] @ np.eye(4, 64)) == 1
  # Chance is 1 / 4.
  assert agreement(noise) < 0.4
