"""Tests of evaluation.judges, on images of four bright quadrants."""

import dataclasses
import functools
from typing import Any, ClassVar
from unittest import mock

import chex
import jax
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges

NAME = 'judge.safetensors'


@pytest.fixture(scope='module')
def quadrants():
  """Images of four classes: the quadrant that is bright; 512, and 200."""
  random = np.random.default_rng(0)
  labels = random.integers(0, 4, 712).astype(np.int32)
  images = random.integers(0, 100, (712, 4, 4, 1), np.uint8)
  bright = np.eye(4, dtype=np.uint8)[labels].reshape(-1, 2, 2, 1)
  images += 150 * bright.repeat(2, axis=1).repeat(2, axis=2)
  return (
    registry.Dataset('quadrants', 'train', images[:512], labels[:512], 'abc'),
    registry.Dataset('quadrants', 'test', images[512:], labels[512:], 'abc'),
  )


@pytest.fixture(scope='module')
def trained(quadrants):
  """Two class judges, and the reports of their training."""
  reports = []
  ensemble = judges.train(
      'quadrants', *quadrants, seeds=(0, 1), epochs=4, batch_size=64,
      report=lambda *args: reports.append(args),
  )  # fmt: skip
  return ensemble, reports


def test_accuracy_is_that_of_numpy(trained, quadrants):
  ensemble, reports = trained
  test = quadrants[1]
  for i, accuracy in enumerate(ensemble.accuracy):
    x = test.images.reshape(200, 16) / 255.0
    params = jax.tree.map(lambda x, i=i: x[i], ensemble.params)
    for name in ('dense_0', 'dense_1', 'logits'):
      x = x @ params[name]['kernel'] + params[name]['bias'][None]
      x = np.maximum(x, 0) if name != 'logits' else x
    correct = np.mean(np.argmax(x, axis=1) == test.labels)
    # A tie or a rounding may turn one of 200.
    np.testing.assert_allclose(accuracy, correct, atol=0.0051)
  # Seeds are judges of their own.
  for leaf in jax.tree.leaves(ensemble.params):
    assert leaf.shape[0] == 2 and not np.array_equal(leaf[0], leaf[1])
  assert [report[:2] for report in reports] == [(i, 4) for i in range(1, 5)]
  assert reports[-1][2]['loss'] < reports[0][2]['loss'] < 2


def test_judges_are_trained_without_validation(
  trained, quadrants, tmp_path, monkeypatch
):
  ensemble, _ = trained
  loaded = []

  def load(name, split, **unused_kwargs):
    loaded.append(split)
    return quadrants[0]

  monkeypatch.setattr(registry, 'load', load)
  monkeypatch.setattr(judges, 'train', lambda *a, **k: ensemble)
  make = functools.partial(judges.restore_or_train, tmp_path, 'quadrants', None)
  assert make(seeds=(0, 1), epochs=4) is ensemble
  assert set(loaded) == {'test', 'train_minus_validation'}
  restored = make()
  chex.assert_trees_all_equal(restored.params, ensemble.params)
  assert restored.describe() == ensemble.describe()
  for other in ({'seeds': (6,)}, {'epochs': 2}):
    with pytest.raises(errors.InputError, match='accepted: one for'):
      make(**other)


def test_every_file_of_arrays_has_judges_of_its_own(tmp_path):
  labels, split = [0, 1, 0, 1], ['train', 'train', 'test', 'test']
  directories = []
  for grey in (0, 1, 1):
    path = tmp_path / f'{len(directories)}.npz'
    images = np.full((4, 28, 28), grey, np.uint8)
    np.savez(path, images=images, labels=labels, split=split)
    directories.append(judges.default_directory('arrays', path))
  assert directories[0] != directories[1] == directories[2]
  assert judges.default_directory('mnist', None) == 'runs/judge_mnist'


def test_fewer_images_than_a_batch_are_the_users_mistake():
  images, labels = np.zeros((5, 4, 4, 1), np.uint8), np.zeros(5, np.int32)
  data = registry.Dataset('small', 'train', images, labels)
  with pytest.raises(errors.InputError, match='=small has 5 .* 128 or'):
    judges.train('small', data, data, seeds=(0,), epochs=1)


@dataclasses.dataclass(frozen=True)
class Stored:
  tree: ClassVar[str] = 'params'
  seeds: tuple[int, ...]
  params: Any


STORED = Stored((0, 1), {'dense': {'kernel': np.arange(6.0).reshape(2, 3).T}})


def test_what_is_saved_is_read(tmp_path):
  directory = tmp_path / 'new [1]*' / 'judges'
  judges.save(directory, STORED)
  assert judges.exist(directory)
  assert [path.name for path in directory.iterdir()] == [NAME]
  found = judges.restore(directory, Stored)
  assert found.seeds == (0, 1)
  kernel = found.params['dense']['kernel']
  np.testing.assert_array_equal(kernel, [[0, 3], [1, 4], [2, 5]])
  with pytest.raises(errors.InputError, match='is not Judges; accepted: acc'):
    judges.restore(directory, judges.Judges)


def test_interrupted_save_leaves_no_judges(tmp_path, monkeypatch):
  fail = mock.Mock(side_effect=OSError(28, 'No space left on device'))
  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(errors.StorageError, match='No space left'):
    judges.save(tmp_path / 'judges', STORED)
  assert not list((tmp_path / 'judges').iterdir())


def test_judges_are_trained_in_a_new_or_empty_directory(tmp_path):
  make = lambda: judges.restore_or_make(tmp_path, Stored, lambda: STORED)
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(errors.InputError, match='not a directory of judges'):
    make()
  (tmp_path / 'notes.txt').unlink()
  assert make() is STORED
  assert make().seeds == (0, 1)


@pytest.mark.parametrize('content', [None, b'', b'no tensors', b'\xff' * 64])
def test_what_is_no_judge_is_refused_by_name(tmp_path, content):
  if content is not None:
    (tmp_path / NAME).write_bytes(content)
  with pytest.raises(errors.InputError, match=NAME) as error:
    judges.restore(tmp_path, Stored)
  assert '\n' not in str(error.value)
