"""Tests of evaluation.judges, on images of four bright quadrants."""

import dataclasses
import functools
import json
from typing import Any, ClassVar

import chex
import jax
import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import judges

NAME = 'judge.safetensors'


def test_accuracy_is_that_of_numpy(class_ensemble, quadrants):
  test = quadrants[1]
  for i, accuracy in enumerate(class_ensemble.accuracy):
    x = test.images.reshape(200, 16) / 255.0
    params = jax.tree.map(lambda x, i=i: x[i], class_ensemble.params)
    for name in ('dense_0', 'dense_1', 'logits'):
      x = x @ params[name]['kernel'] + params[name]['bias'][None]
      x = np.maximum(x, 0) if name != 'logits' else x
    correct = np.mean(np.argmax(x, axis=1) == test.labels)
    # A tie or a rounding may turn one of 200.
    np.testing.assert_allclose(accuracy, correct, atol=0.0051)


def test_epochs_are_reported(trained_class_judges):
  _, reports = trained_class_judges
  assert [report[:2] for report in reports] == [(i, 4) for i in range(1, 5)]
  losses = [metrics['loss'] for _, _, metrics in reports]
  assert losses[-1] < losses[0] < 2


def test_seeds_are_judges_of_their_own(class_ensemble):
  for leaf in jax.tree.leaves(class_ensemble.params):
    assert leaf.shape[0] == 2
    assert not np.array_equal(leaf[0], leaf[1])


def test_judges_are_trained_once_and_without_validation(
  class_ensemble, quadrants, tmp_path, monkeypatch
):
  loaded = []

  def load(name, split, **unused_kwargs):
    loaded.append(split)
    return quadrants[0]

  monkeypatch.setattr(registry, 'load', load)
  monkeypatch.setattr(judges, 'train', lambda *a, **k: class_ensemble)
  make = functools.partial(
    judges.restore_or_train, tmp_path / 'judge', 'quadrants', None
  )
  assert make(seeds=(0, 1), epochs=4) is class_ensemble
  assert set(loaded) == {'test', 'train_minus_validation'}
  assert [p.name for p in tmp_path.iterdir()] == ['judge']
  monkeypatch.setattr(judges, 'train', None)  # Not again.
  restored = make(seeds=(0, 1), epochs=4)
  chex.assert_trees_all_equal(restored.params, class_ensemble.params)
  assert dataclasses.replace(restored, params=None) == dataclasses.replace(
    class_ensemble, params=None
  )
  assert make().seeds == (0, 1)
  assert restored.sha256 == codes.hash_tree(restored.params)
  json.dumps(restored.describe())
  for other in ({'seeds': (6,)}, {'epochs': 2}):
    with pytest.raises(errors.InputError, match='accepted: one for'):
      make(**other)


def test_every_file_of_arrays_has_judges_of_its_own(tmp_path):
  directories = []
  for seed in range(2):
    random = np.random.default_rng(seed)
    path = tmp_path / f'{seed}.npz'
    np.savez(
      path,
      images=random.integers(0, 256, (4, 28, 28), np.uint8),
      labels=np.arange(4) % 2,
      split=np.array(['train', 'train', 'test', 'test']),
    )
    directories.append(judges.default_directory('arrays', path))
  assert directories[0] != directories[1]
  assert directories[1] == judges.default_directory('arrays', path)
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
  np.testing.assert_array_equal(
    found.params['dense']['kernel'], [[0, 3], [1, 4], [2, 5]]
  )
  with pytest.raises(errors.InputError, match='is not Judges; accepted: acc'):
    judges.restore(directory, judges.Judges)


def test_interrupted_save_leaves_no_judges(tmp_path, monkeypatch):
  def fail(*unused_args):
    raise OSError(28, 'No space left on device')

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
