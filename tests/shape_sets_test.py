"""Tests of dSprites and Shapes3D: of reading them, and of runs on them.

TFDS is mocked, as the sets are large; what it says of their features is its
own.
"""

import contextlib
import io
import json
import pathlib
import sys

from absl.testing import flagsaver
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import command_line
from experiments import evaluate
from experiments import svhn
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.data import shape_sets

FLAGFILES = pathlib.Path(__file__).parents[1] / 'experiments' / 'flagfiles'
NAMES = tuple(shape_sets.LAYOUTS)

pytestmark = pytest.mark.usefixtures('svhn_flags')


@pytest.fixture(scope='module')
def finished(svhn_flags, tmp_path_factory):
  """A tiny run on mocked dSprites: its directory, its judges' beside it."""
  del svhn_flags
  root = tmp_path_factory.mktemp('dsprites')
  with mocked():
    status, err = invoke(root, 'dsprites')
  assert status == 0, err
  return root


def mocked():
  return tfds.testing.mock_data(num_examples=210)


def invoke(root, name):
  """Runs experiments.svhn by a flagfile, tiny; returns status and stderr."""
  args = (
      f'--flagfile={FLAGFILES / f"{name}.flags"}', f'--data_dir={root}',
      f'--workdir={root / "run"}', f'--judge_workdir={root / "judge"}',
      '--first_width=2', '--nuisance_dim=1', '--epochs=1', '--batch_size=64',
  )  # pyformat: disable
  err = io.StringIO()
  with contextlib.ExitStack() as stack:
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(sys, 'argv', ['experiments/svhn.py', *args])
    stack.enter_context(flagsaver.flagsaver())
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(err))
    exit_info = stack.enter_context(pytest.raises(SystemExit))
    command_line.run(svhn.main)
  return exit_info.value.code or 0, err.getvalue()


# Values.


@pytest.mark.parametrize('name', NAMES)
def test_labels_and_splits_of_a_mocked_set(name, tmp_path):
  layout = shape_sets.LAYOUTS[name]
  with tfds.testing.mock_data(num_examples=60):
    sizes = {}
    for split in datasets.SPLITS:
      data = datasets.load(
          name, split, data_dir=tmp_path, image_shape=layout.image_shape
      )
      sizes[split] = len(data.images)
      assert data.images.shape[1:] == layout.image_shape
      assert data.label_names == layout.label_names
      assert data.all_labels.shape == (sizes[split], len(layout.label_names))
      np.testing.assert_array_equal(
          data.labels, data.all_labels[:, layout.label_names.index('shape')]
      )
      assert data.labels.max() < data.num_classes
  # A sixth of all is test, then a sixth of the others validation.
  assert sizes == {
      'train': 50, 'train_minus_validation': 42, 'validation': 8, 'test': 10
  }


def test_features_are_those_of_tfds(tmp_path):
  for name, layout in shape_sets.LAYOUTS.items():
    features = tfds.builder(name, data_dir=tmp_path).info.features
    found = {feature for feature in features if feature.startswith('label_')}
    assert found == set(layout.features)
    assert tuple(features['image'].shape) == layout.image_shape


def test_parts_of_large_and_small_sets():
  train = shape_sets.choose_rows(737_280, 'train')
  test = shape_sets.choose_rows(737_280, 'test')
  assert train == range(100_000)
  assert test == range(727_280, 737_280)
  assert shape_sets.choose_rows(20_000, 'train') == range(10_000)
  assert shape_sets.choose_rows(12, 'test') == range(10, 12)


def test_white_is_255():
  images = np.array([0, 1, 1], np.uint8).reshape(3, 1, 1, 1)
  assert shape_sets.brighten(images).ravel().tolist() == [0, 255, 255]
  images[0] = 2
  np.testing.assert_array_equal(shape_sets.brighten(images), images)


def test_other_sets_have_one_label(tmp_path):
  with tfds.testing.mock_data(num_examples=12):
    data = datasets.load('mnist', 'test', data_dir=tmp_path)
  assert data.all_labels is None and data.label_names == ()


# Runs.


def test_a_run_is_of_the_sets_own_images(finished):
  manifest = json.loads((finished / 'run' / 'manifest.json').read_text())
  assert manifest['dataset']['name'] == 'dsprites'
  figures = {path.stem for path in (finished / 'run' / 'figures').iterdir()}
  assert {'figure_9', 'figure_10', 'figure_12', 'reconstructions'} <= figures


@pytest.mark.slow
def test_a_run_on_colour_images(tmp_path):
  with mocked():
    status, err = invoke(tmp_path, 'shapes3d')
  assert status == 0, err


def test_all_labels_are_measured(finished, capsys):
  with mocked():
    path, rows = evaluate.evaluate(
        finished / 'run',
        data_dir=finished,
        judge_workdir=finished / 'judge',
        metrics=['mig', 'modularity'],
    )
  assert [row['model'] for row in rows] == ['teacher', 'student', 'random']
  details = json.loads(
      path.with_name('dsprites_test_metrics.json').read_text()
  )
  names = ['shape', 'scale', 'orientation', 'x_position', 'y_position']
  assert details['labels'] == names
  for row, detail in zip(rows, details['rows'], strict=True):
    assert set(detail['mig']['parts']) == set(names)
    assert detail['mig']['value'] == row['mig']
    assert len(detail['modularity']['parts']) == 2 + row['nuisance_dim']
  capsys.readouterr()


# Bad input.


def test_another_size_is_refused(tmp_path):
  with mocked(), pytest.raises(errors.InputError, match='64x64x1: accepted are'):
    datasets.load('dsprites', 'train', data_dir=tmp_path)
