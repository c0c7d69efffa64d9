"""Tests of evaluation.jacobian_diagnosis, on small untrained models."""

import json

import jax
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.evaluation import jacobian_agreement
from jacsup_jax.evaluation import jacobian_diagnosis
from jacsup_jax.models import autoencoders
from jacsup_jax.models import model as models

SHAPE = (4, 4, 1)


def make_model(dim, seed):
  module = autoencoders.MlpAutoencoder(2, dim, (8,), image_shape=SHAPE)
  shapes = jax.eval_shape(lambda: autoencoders.init_variables(module, 0))
  random = np.random.default_rng(seed)
  # Drawn here, since initialisation would be compiled.
  draw = lambda x: random.normal(0, 0.2, x.shape).astype(x.dtype)
  params = jax.tree.map(draw, shapes['params'])
  stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
  return models.Model(module, params, stats['batch_stats'])


@pytest.fixture(scope='module')
def diagnosed():
  stages = [
    config.Stage(name, model, parent, dim, 1, config.LossWeights())
    for name, model, parent, dim in (
      ('teacher', 'teacher', None, 0),
      ('student_d01', 'student', 'teacher', 1),
      ('student_d02', 'student', 'student_d01', 2),
      ('random', 'random', None, 2),
    )
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
  products = jax.jit(
    lambda student, teacher: jacobian_agreement.multiply_columns(
      student.decode, student.encode(images),
      teacher.decode, teacher.encode(images),
    )
  )(student, teacher)  # fmt: skip
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
  assert np.shape(directions['directions']) == (2, 2)
  assert np.all(np.diff(directions['singular_values']) <= 0)
