"""Tests of experiments.evaluate_metrics on faces; digits are in evaluate_test.

Models are not trained: what is measured are arrays.
"""

import json

import numpy as np
import pytest

from experiments import celeba_runs
from experiments import evaluate_metrics
from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.core import config
from jacsup_jax.data import registry as datasets
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import steps as training

NAMES = ('Bald', 'Smiling', 'Young')
WEIGHTS = config.AttributeLossWeights()


def make_data(count=24):
  """Images whose channels are three attributes, the last of them constant."""
  rng = np.random.default_rng(0)
  attributes = np.where(rng.integers(0, 2, (count, 3)), 1, -1).astype(np.int8)
  attributes[:, 2] = 1
  images = (128 + 60 * attributes.astype(int)).astype(np.uint8)
  images = np.tile(images[:, None, None, :], (1, 8, 8, 1))
  return datasets.FaceDataset(
      name='faces',
      split='test',
      attribute_names=NAMES,
      image_size=8,
      fingerprint='of faces',
      attributes=attributes,
      images=images,
  )


def make_trained(name, model):
  variables = networks.init_variables(model, 0, model.image_shape)
  state = training.TrainState(0, opt_state=(), **variables)
  stage = config.Stage(name, name, None, 4, 0, WEIGHTS)
  return stages.Trained(stage, model, state, '')


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """The rows, what was printed is not kept, and the details."""
  sizes = {'image_size': 8, 'first_width': 4, 'last_width': 4}
  models = [
      make_trained('teacher', networks.FaceAutoencoder(3, 1, **sizes)),
      make_trained(
          celeba_runs.FADER, fader_networks.FaderAutoencoder(3, 1, **sizes)
      ),
  ]
  rows = [
      {
          'model': model.stage.model,
          'stage': model.stage.name,
          'nuisance_dim': 4,
          'mse': 0.5,
      }
      for model in models
  ]
  run = workdirs.WorkDir(tmp_path_factory.mktemp('run'))
  found = evaluate_metrics.add(
      run, 'faces', 'test', rows, models, make_data(), ['mig', 'sap']
  )
  path = run.path / 'evaluations' / 'faces_test_metrics.json'
  return rows, found, json.loads(path.read_text())


def test_attributes_are_labels_by_name(measured):
  rows, found, details = measured
  assert details['labels'] == list(NAMES)
  assert details['dataset'] == {'name': 'faces', 'fingerprint': 'of faces'}
  assert found[0].items() >= rows[0].items()
  parts = details['rows'][0]['mig']['parts']
  assert set(parts) == set(NAMES) and parts['Young'] is None
  mean = (parts['Bald'] + parts['Smiling']) / 2
  assert found[0]['mig'] == pytest.approx(mean)
  assert details['rows'][0]['mig']['reasons'] == [
      'Young is the same in all 24 examples'
  ]


def test_fader_networks_have_no_scores(measured):
  _, found, details = measured
  assert found[1]['mig'] is None and found[1]['sap'] is None
  [reason] = details['rows'][1]['sap']['reasons']
  assert 'are the labels' in reason


def test_without_metrics_nothing_is_done(tmp_path):
  run = workdirs.WorkDir(tmp_path / 'run')
  rows = [{'model': 'teacher'}]
  found = evaluate_metrics.add(run, 'faces', 'test', rows, [], None, [])
  assert found == rows
  assert not (tmp_path / 'run' / 'evaluations').exists()


def test_images_are_chosen_once_and_for_all():
  assert evaluate_metrics.choose_images(5).tolist() == [0, 1, 2, 3, 4]
  first, again = (evaluate_metrics.choose_images(20_000) for _ in range(2))
  assert len(first) == evaluate_metrics.MOST_IMAGES
  assert np.all(np.diff(first) > 0) and np.array_equal(first, again)
