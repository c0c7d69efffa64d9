"""Tests of jacsup_jax.baselines.field_recipe: each method learns."""

import functools

import chex
import numpy as np
import pytest
import tiny_codes

from jacsup_jax.baselines import field
from jacsup_jax.baselines import field_recipe
from jacsup_jax.core import codes
from jacsup_jax.models import autoencoders

# Weights that leave the reconstruction the largest term.
METHODS = {
  'beta_vae': field.BetaVaeWeights(0.1),
  'annealed_vae': field.AnnealedVaeWeights(5.0, 0.1),
  'tcvae': field.TcVaeWeights(1.5),
  'factor_vae': field.FactorVaeWeights(1.0, 8),
  'qlae': field.QlaeWeights(0.0),
  'xcov': field.ClassXcovWeights(),
  'mixing': field.MixingWeights(0.01),
}


def test_every_baseline_has_a_method():
  flags = field.FieldConfig()
  choices = field.FieldConfig.__dataclass_fields__['baselines'].metadata
  assert {*choices['choices']} == {*METHODS}
  of_flags = {type(getattr(flags, f'{name}_weights')) for name in METHODS}
  assert of_flags == {*map(type, METHODS.values())} == {*field_recipe.METHODS}


@pytest.mark.parametrize('name', METHODS)
def test_each_method_learns_on_the_networks_of_a_student(name):
  run = tiny_codes.Run(METHODS[name], 30)
  state, metrics = run.train(30)
  errors = [each['reconstruction'] for each in metrics]
  assert errors[-1] < 0.7 * errors[0] and np.isfinite(metrics[-1]['loss'])
  student = tiny_codes.make_student(2, 2, False)
  like = autoencoders.init_variables(student, 0)['params']
  chex.assert_trees_all_equal_shapes(state.params['decoder'], like['decoder'])
  model = run.bind(state)
  code = model.encode(run.dataset.images)
  assert codes.merge(code).shape == (64, 4)
  assert model.decode(code).shape == (64, *tiny_codes.SHAPE)


def test_networks_are_convolutional_if_the_student_is():
  make = functools.partial(tiny_codes.make_student, convolutional=True)
  run = tiny_codes.Run(METHODS['beta_vae'], make=make)
  assert run.module.is_convolutional
  student = autoencoders.init_variables(make(2, 2, False), 0)['params']
  assert {*run.state.params['encoder']} == {*student['encoder']}
  state, metrics = run.train(2)
  assert metrics[1]['loss'] < metrics[0]['loss']
  # Of a linear code: means on both sides of 0 can be had.
  assert run.module.make_encoder(4).linear_code
