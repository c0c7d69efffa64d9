"""Tests of the public API: the quickstart of the README, and the names."""

import ast
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jacsup_jax as js
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_judges
from jacsup_jax.evaluation import judges
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

README = pathlib.Path(__file__).parents[1] / 'README.md'
# From the README's chain to one student of one epoch.
SHORTER = {
  'epochs=10': 'epochs=1',
  'range(3)': 'range(1)',
  'student_d03': 'student_d01',
  'student_d02': 'teacher',
}


def _write_data(path):
  """Ten blurred patterns of 8x8: 256 to train on, 128 to test."""
  random = np.random.default_rng(0)
  labels = random.integers(0, 10, 384)
  patterns = np.kron(random.integers(0, 200, (10, 4, 4)), np.ones((2, 2), int))
  images = patterns[labels] + random.integers(0, 55, (384, 8, 8))
  split = np.where(np.arange(384) < 256, 'train', 'test')
  np.savez(path, images=images.astype(np.uint8), labels=labels, split=split)


def test_quickstart(tmp_path, monkeypatch, capsys):
  """The README's lines, on small data."""
  _write_data(tmp_path / 'data.npz')
  load = registry.load

  def load_small(unused_name, split='train', **options):
    return load('arrays', split, **options | {'data_dir': 'data.npz'})

  monkeypatch.setattr(js, 'load_data', load_small)
  monkeypatch.setattr(registry, 'load', load_small)
  monkeypatch.setattr(class_judges, 'SEEDS', (0,))
  monkeypatch.setattr(judges, 'EPOCHS', 1)
  monkeypatch.chdir(tmp_path)
  code = README.read_text().split('## From Python')[1]
  code = re.search('```python\n(.*?)```', code, re.DOTALL)[1]
  for long, short in SHORTER.items():
    assert long in code
    code = code.replace(long, short)
  train_lines, run_lines = code.split('run = js.Run', 1)

  names = {}
  exec(train_lines, names)
  student = names['student']
  row = ast.literal_eval(capsys.readouterr().out)
  assert row['nuisance_dim'] == 1 and 0 <= row['judge_accuracy_svm'] <= 1
  assert row['mse'] > 0 and 'class_swaps' in row
  # Both are saved as a run does.
  train, trained = names['train'], [names['teacher'], student]
  data = {'name': train.name, 'fingerprint': train.fingerprint}
  data['options'] = {'image_shape': train.image_shape}
  workdir = workdirs.WorkDir(tmp_path / 'runs' / 'mnist_quick')
  workdir.begin('test', {}, data, [each.stage.name for each in trained])
  for each in trained:
    stages.save_finished(workdir, each)
  exec(f'run = js.Run{run_lines}', names)

  run, model, images = names['run'], names['model'], names['images']
  assert run.stages == ['teacher', 'student_d01']
  assert run.results is None and run.factor_names == ['y1', 'y2']
  assert names['code'].nuisance.shape == (8, 1)
  assert names['swapped'].shape == images.shape
  np.testing.assert_array_equal(
    model.decode(names['code']),
    student.model.decode(student.model.encode(images)),
  )
  gradients = jax.tree.leaves(names['gradients'])
  sizes = [np.abs(np.asarray(gradient)).max() for gradient in gradients]
  assert np.all(np.isfinite(sizes)) and any(sizes)


def test_names_exist_and_are_documented():
  assert len(js.__all__) == len(set(js.__all__)) and 20 <= len(js.__all__) <= 32
  for name in js.__all__:
    assert getattr(js, name).__doc__, name
    assert f'  {name}' in js.__doc__ or f', {name}' in js.__doc__, name
  assert set(js.__all__) <= set(dir(js))
  with pytest.raises(AttributeError, match='nothing'):
    js.nothing


def test_evaluate_of_attributes_has_no_class_swaps():
  images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
  labels = np.ones((6, 2), np.int8)
  data = js.Dataset('own', 'test', images, labels, attribute_names=('a', 'b'))

  class Half:
    """Reconstructs every image as its mean value, 0."""

    num_factors, nuisance_dim, image_range = 2, 4, (-1, 1)
    image_shape, factors_are_labels = (8, 8, 3), False
    encode = lambda self, images, attributes=None: images
    decode = lambda self, images: jnp.zeros_like(images, jnp.float32)

  jax.tree_util.register_static(Half)
  row = js.evaluate(Half(), data)
  expected = np.mean(((2.0 * images - 255) / 255) ** 2)
  assert row['mse'] == pytest.approx(expected, rel=1e-5)
  # Peak to peak of [-1, 1].
  assert row['psnr'] == pytest.approx(10 * np.log10(4 / expected), rel=1e-5)
  assert set(row) == {'num_factors', 'nuisance_dim', 'mse', 'psnr'}
