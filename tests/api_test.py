"""Tests of the public API: the quickstart, and the names."""

import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jacsup_jax as js
from jacsup_jax.evaluation import judges
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import fitting


def _write_data(path):
  """Ten blurred patterns of 8x8: 256 to train on, 128 to test."""
  random = np.random.default_rng(0)
  labels = random.integers(0, 10, 384)
  patterns = np.kron(random.integers(0, 200, (10, 4, 4)), np.ones((2, 2), int))
  images = patterns[labels] + random.integers(0, 55, (384, 8, 8))
  split = np.where(np.arange(384) < 256, 'train', 'test')
  np.savez(path, images=images.astype(np.uint8), labels=labels, split=split)
  return path


def test_quickstart(tmp_path, monkeypatch):
  """The README's lines, on small data."""
  path = _write_data(tmp_path / 'data.npz')
  train = js.load_data('arrays', data_dir=path)
  test = js.load_data('arrays', 'test', data_dir=path)
  monkeypatch.setattr(judges, 'SEEDS', (0,))
  monkeypatch.chdir(tmp_path)

  teacher = js.fit_teacher(train, num_factors=2, epochs=1)
  student = js.fit_student(teacher, train, grow_by=2, epochs=1)
  row = js.evaluate(student, test, data_dir=path)
  assert row['nuisance_dim'] == 2 and 0 <= row['judge_accuracy'] <= 1
  assert row['mse'] > 0 and 'class_swaps' in row
  assert js.evaluate(student.model, test, data_dir=path) == row

  # As an experiment leaves it: stages of the same chain.
  _save_run(tmp_path / 'runs' / 'it', path, train, [teacher, student])
  run = js.Run.open('runs/it')
  assert run.stages == ['teacher', 'student_d02']
  assert run.results is None and run.factor_names == ['y1', 'y2']
  assert run.load_data('train').fingerprint == train.fingerprint
  model = run.restore('student_d02')
  images, permutation = test.images[:8], jnp.roll(jnp.arange(8), 1)
  code = model.encode(images)
  assert code.factors.shape == (8, 2) and code.nuisance.shape == (8, 2)
  swapped = model.decode(js.swap_factors(code, permutation))
  assert swapped.shape == images.shape
  np.testing.assert_array_equal(
    model.decode(code), student.model.decode(student.model.encode(images))
  )

  objective = js.student_objective(model, run.restore('teacher'))
  gradients = jax.grad(objective)(model.params, images, permutation)
  norms = [float(jnp.linalg.norm(g)) for g in jax.tree.leaves(gradients)]
  assert all(np.isfinite(norms)) and any(norms)


def _save_run(path, data, train, trained):
  """Saves trained models as a run does."""
  workdir = workdirs.WorkDir(path)
  workdir.begin(
    'test',
    {'epochs': 1},
    {
      'name': train.name,
      'fingerprint': train.fingerprint,
      'options': {'image_shape': train.image_shape},
      'data_dir': data,
    },
    [model.stage.name for model in trained],
  )
  for model in trained:
    stages.save_finished(workdir, model)


def test_names_exist_and_are_documented():
  assert len(js.__all__) == len(set(js.__all__)) and 20 <= len(js.__all__) <= 32
  for name in js.__all__:
    assert getattr(js, name).__doc__, name
    assert f'  {name}' in js.__doc__ or f', {name}' in js.__doc__, name
  assert set(js.__all__) <= set(dir(js))
  with pytest.raises(AttributeError, match='nothing'):
    js.nothing
  assert js.fit_teacher is fitting.fit_teacher


def test_import_is_quick_and_needs_no_experiments():
  code = (
    'import sys, jacsup_jax as js\n'
    'for name in js.__all__: getattr(js, name)\n'
    'found = {name.split(".")[0] for name in sys.modules}\n'
    'assert not found & {"experiments", "matplotlib", "sklearn",'
    ' "tensorflow", "torch"}, found'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
  begun = time.perf_counter()
  subprocess.run([sys.executable, '-c', 'import jacsup_jax'], check=True)
  assert time.perf_counter() - begun < 1.5


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
