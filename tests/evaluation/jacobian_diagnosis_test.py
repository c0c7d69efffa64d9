"""Tests of evaluation.jacobian_diagnosis, on small untrained models."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.evaluation import jacobian_agreement
from jacsup_jax.evaluation import jacobian_diagnosis
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

SHAPE = (4, 4, 1)
WEIGHTS = config.LossWeights()


def make_model(dim, seed):
  module = autoencoders.MlpAutoencoder(2, dim, (8,), image_shape=SHAPE)
  return models.Model(module, **autoencoders.init_variables(module, seed))


def make_stage(name, model, parent, dim):
  return config.Stage(name, model, parent, dim, 1, WEIGHTS)


@pytest.fixture(scope='module')
def diagnosed():
  stages = [
    make_stage('teacher', 'teacher', None, 0),
    make_stage('student_d01', 'student', 'teacher', 1),
    make_stage('student_d02', 'student', 'student_d01', 2),
    make_stage('random', 'random', None, 2),
  ]
  stage_models = [make_model(dim, i) for i, dim in enumerate((0, 1, 2, 2))]
  images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
  found = jacobian_diagnosis.measure(stages, stage_models, images, ('y1', 'y2'))
  return stage_models, images, found


def test_stages_are_compared_along_the_chain(diagnosed):
  _, _, (teacher, first, second, random) = diagnosed
  assert teacher['supervisor'] is teacher['first_teacher'] is None
  assert first['supervisor']['stage'] == 'teacher'
  assert first['first_teacher'] is first['supervisor']
  # A teacher's whole code is what its student is supervised by.
  assert second['supervisor']['stage'] == 'student_d01'
  assert list(second['supervisor']['factors']) == ['y1', 'y2', 'z1']
  assert list(second['first_teacher']['factors']) == ['y1', 'y2']
  # What is not a student has no supervisor.
  assert random['supervisor'] is None
  assert random['first_teacher']['stage'] == 'teacher'
  json.dumps(diagnosed[2], allow_nan=False)


def test_agreement_is_that_of_the_columns(diagnosed):
  stage_models, images, found = diagnosed
  teacher, student = stage_models[:2]
  products = jacobian_agreement.multiply_columns(
      student.decode, student.encode(images), teacher.decode,
      teacher.encode(images),
  )  # fmt: skip
  expected = jacobian_agreement.compute_agreement(products, ('y1', 'y2'))
  row = jacobian_diagnosis.row_entries(found[1])
  np.testing.assert_allclose(
    [row['jacobian_cosine'], row['jacobian_norm_error_first_teacher']],
    [expected['cosine'], expected['norm_error']],
    rtol=1e-4,
  )
  assert set(jacobian_diagnosis.row_entries(found[0]).values()) == {None}


def test_directions_are_of_the_nuisance(diagnosed):
  _, _, found = diagnosed
  assert found[0]['principal_directions'] is None
  directions = found[2]['principal_directions']
  assert directions['images'] == 5
  assert np.shape(directions['directions']) == (2, 2)
  assert np.all(np.diff(directions['singular_values']) <= 0)


def test_zero_columns_are_listed(diagnosed):
  stage_models, images, _ = diagnosed
  # A decoder of a constant image.
  dead = dataclasses.replace(
    stage_models[0],
    params={**stage_models[0].params, 'decoder': _zeros(stage_models[0])},
  )
  stages = [
    make_stage('teacher', 'teacher', None, 0),
    make_stage('student_d01', 'student', 'teacher', 1),
  ]
  found = jacobian_diagnosis.measure(
    stages, [dead, stage_models[1]], images, ('y1', 'y2')
  )
  [line, _] = jacobian_diagnosis.format_undefined(found, 5)
  assert line.startswith('student_d01 against teacher')
  assert line.endswith('on so many of 5 images: y1 (5), y2 (5)')


def _zeros(model):
  return jax.tree.map(jnp.zeros_like, model.params['decoder'])
