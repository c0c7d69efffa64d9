"""Tests of evaluation.class_judges, on images of four bright quadrants."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_judges


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


def _train(family, quadrants, seeds=(0, 1)):
  reports = []
  found = class_judges.train(
      family, 'quadrants', *quadrants, seeds=seeds, epochs=4, batch_size=64,
      report=lambda *args: reports.append(args),
  )  # fmt: skip
  return found, reports


@pytest.fixture(scope='module')
def perceptrons(quadrants):
  """Two perceptrons, and the reports of their training."""
  return _train('mlp', quadrants)


@pytest.fixture(scope='module')
def convolutional(quadrants):
  """Two convolutional judges, and the reports of their training."""
  return _train('cnn', quadrants)


def _split(quadrants, monkeypatch):
  """Makes `registry.load` return the quadrants; lists what is asked for."""
  loaded = []

  def load(name, split, **unused_kwargs):
    loaded.append(split)
    return quadrants[split == 'test']

  monkeypatch.setattr(registry, 'load', load)
  return loaded


def test_accuracy_of_perceptrons_is_that_of_numpy(perceptrons, quadrants):
  ensemble, reports = perceptrons
  test = quadrants[1]
  for i, accuracy in enumerate(ensemble.accuracy):
    x = test.images.reshape(200, 16) / 255.0
    params = jax.tree.map(lambda x, i=i: x[i], ensemble.variables['params'])
    for name in ('dense_0', 'dense_1', 'logits'):
      x = x @ params[name]['kernel'] + params[name]['bias'][None]
      x = np.maximum(x, 0) if name != 'logits' else x
    correct = np.mean(np.argmax(x, axis=1) == test.labels)
    # A tie or a rounding may turn one of 200.
    np.testing.assert_allclose(accuracy, correct, atol=0.0051)
  assert [report[:2] for report in reports] == [(i, 4) for i in range(1, 5)]
  assert reports[-1][2]['loss'] < reports[0][2]['loss'] < 2


@pytest.mark.parametrize('family', ['perceptrons', 'convolutional'])
def test_seeds_are_judges_of_their_own(family, request):
  ensemble, _ = request.getfixturevalue(family)
  for leaf in jax.tree.leaves(ensemble.variables['params']):
    assert leaf.shape[0] == 2 and not np.array_equal(leaf[0], leaf[1])
  assert min(ensemble.accuracy) > 0.9


def test_convolutional_judges_are_trained_in_turn(convolutional, quadrants):
  ensemble, reports = convolutional
  assert [report[:2] for report in reports] == [(i, 8) for i in range(1, 9)]
  alone, _ = _train('cnn', quadrants, seeds=(1,))
  second = jax.tree.map(lambda x: x[1:], ensemble.variables)
  chex.assert_trees_all_equal(second, alone.variables)
  # The last layer sees the features.
  images = jnp.asarray(quadrants[1].images[:128])[None] / 255.0
  features = ensemble.features(images)
  logits = ensemble.variables['params']['logits']
  seen = np.argmax(features @ logits['kernel'][0] + logits['bias'][0], axis=-1)
  np.testing.assert_array_equal(ensemble.classify(images)[0], seen)


def test_dropout_is_on_with_a_key(perceptrons, quadrants):
  ensemble, _ = perceptrons
  images = jnp.asarray(quadrants[1].images[:128]).reshape(1, 128, 4, 4, 1)
  # Grey images, of which judges are unsure.
  images = 0.2 + images / 25500.0
  classify = lambda seed: ensemble.classify(
    images, jax.random.split(jax.random.key(seed), 1)
  )
  assert not np.array_equal(classify(0), classify(1))
  np.testing.assert_array_equal(classify(0), classify(0))


def test_augmented_images_are_near_the_own(quadrants):
  images = np.zeros((64, 28, 28, 1), np.uint8)
  images[:, 14, 14] = 240
  found = np.asarray(class_judges.augment(jnp.asarray(images), 0, 0))
  # Shifts by a pixel at most, and half are blurred: 1/4 of white in the middle.
  peaks = found.max(axis=(1, 2, 3)) * 255
  assert 16 < np.sum(np.isclose(peaks, 60)) < 48
  assert np.all(np.isclose(peaks, 60) | np.isclose(peaks, 240))
  np.testing.assert_allclose(found.sum(axis=(1, 2, 3)) * 255, 240, rtol=1e-5)
  rows = {np.argmax(one.max(axis=(1, 2))) for one in found}
  assert rows == {13, 14, 15}


def test_families_are_trained_without_validation_and_restored(
  quadrants, tmp_path, monkeypatch
):
  loaded, lines = _split(quadrants, monkeypatch), []
  make = functools.partial(
    class_judges.restore_or_train, tmp_path, 'quadrants', None
  )
  made = make(seeds=(0, 1), epochs=3, announce=lines.append)
  assert [own.family for own in made] == list(class_judges.FAMILIES)
  assert len(lines) == 3 and str(tmp_path / 'cnn') in lines[1]
  assert set(loaded) == {'test', 'train_minus_validation'}
  # Convolutional ones take half of the epochs; one machine has no seeds.
  assert [own.epochs for own in made[:2]] == [3, 2]
  assert [len(own.accuracy) for own in made] == [2, 2, 1]
  for own, again in zip(made, make()):
    assert again.describe() == own.describe()
    tree = lambda x: getattr(x, x.tree)
    chex.assert_trees_all_equal(
      jax.tree.leaves(tree(again)), jax.tree.leaves(tree(own)), strict=True
    )
  for other in ({'seeds': (6, 7)}, {'epochs': 2}):
    with pytest.raises(errors.InputError, match='accepted: one for'):
      make(**other)


def test_judges_below_the_bar_are_refused_with_both_numbers(
  perceptrons, quadrants, tmp_path, monkeypatch
):
  _split(quadrants, monkeypatch)
  ensemble = dataclasses.replace(perceptrons[0], accuracy=(0.99, 0.912))
  class_judges.check_accuracy(ensemble)  # No bar is known of quadrants.
  bars = {'quadrants': {'mlp': 0.975}}
  monkeypatch.setattr(class_judges, 'LOWEST_ACCURACY', bars)
  with pytest.raises(errors.InputError, match=r'91\.20% .* 97\.50%') as error:
    class_judges.check_accuracy(ensemble)
  assert '\n' not in str(error.value) and 'mlp' in str(error.value)
  # Neither saved, nor accepted where they are.
  monkeypatch.setattr(class_judges, 'train', lambda *a, **k: ensemble)
  with pytest.raises(errors.InputError, match='91.20%'):
    class_judges.restore_or_train(tmp_path, 'quadrants', None)
  assert not (tmp_path / 'mlp').exists()


def test_bars_of_digits():
  bars = class_judges.LOWEST_ACCURACY
  assert bars['mnist'] == bars['mnist_embedded']
  assert set(bars['mnist']) == set(class_judges.FAMILIES)
  assert bars['mnist']['cnn'] == 0.992 and bars['mnist']['svm'] == 0.975


@pytest.mark.parametrize('split', [0, 1])
def test_labels_of_one_class_are_refused(
  quadrants, split, tmp_path, monkeypatch
):
  same = dataclasses.replace(
    quadrants[split], labels=np.full_like(quadrants[split].labels, 3)
  )
  pair = [same, quadrants[1]] if split == 0 else [quadrants[0], same]
  _split(pair, monkeypatch)
  with pytest.raises(errors.InputError, match='quadrants are 3; acc') as error:
    class_judges.restore_or_train(tmp_path, 'quadrants', None)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


def test_every_file_of_arrays_has_judges_of_its_own(tmp_path):
  labels, split = [0, 1, 0, 1], ['train', 'train', 'test', 'test']
  directories = []
  for grey in (0, 1, 1):
    path = tmp_path / f'{len(directories)}.npz'
    images = np.full((4, 28, 28), grey, np.uint8)
    np.savez(path, images=images, labels=labels, split=split)
    directories.append(class_judges.default_directory('arrays', path))
  assert directories[0] != directories[1] == directories[2]
  assert class_judges.default_directory('mnist', None) == 'runs/judge_mnist'


def test_fewer_images_than_a_batch_are_the_users_mistake():
  images, labels = np.zeros((5, 4, 4, 1), np.uint8), np.arange(5)
  data = registry.Dataset('small', 'train', images, labels)
  with pytest.raises(errors.InputError, match='=small has 5 .* 128 or'):
    class_judges.train('mlp', 'small', data, data, seeds=(0,), epochs=1)
