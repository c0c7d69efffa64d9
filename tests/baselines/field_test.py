"""Tests of jacsup_jax.baselines.field."""

import pytest

from jacsup_jax.baselines import field
from jacsup_jax.core import config
from jacsup_jax.core import errors

NAMES = ('beta_vae', 'xcov', 'mixing')


def test_stages_have_codes_of_one_size_and_weights_of_their_own():
  flags = field.FieldConfig(baselines=NAMES, baseline_epochs=3)
  stages = field.make_stages(flags, 2, 14, 10)
  assert [(s.name, s.nuisance_dim, s.epochs) for s in stages] == [
      ('beta_vae', 14, 3), ('xcov', 6, 3), ('mixing', 14, 3)
  ]  # fmt: skip
  assert [type(s.weights) for s in stages] == [
    field.BetaVaeWeights,
    field.ClassXcovWeights,
    field.MixingWeights,
  ]
  for stage in stages:
    assert config.Stage.from_json(stage.to_json()) == stage
    assert stage.supervisor is None and not stage.weights.needs_teacher


def test_a_stage_for_each_strength():
  flags = field.FieldConfig(
    baselines=('qlae', 'tcvae'), baseline_strengths=(0.5, 2)
  )
  stages = field.make_stages(flags, 2, 14, 10)
  names = ['qlae_x0.5', 'qlae_x2', 'tcvae_x0.5', 'tcvae_x2']
  assert [s.name for s in stages] == [s.model for s in stages] == names
  found = [getattr(s.weights, s.weights.main) for s in stages]
  assert found == [0.05, 0.2, 3.0, 12.0]


@pytest.mark.parametrize(
  ('options', 'part'),
  [
    ({'baselines': ('vae',)}, '--baselines=vae; accepted: beta_vae'),
    ({'baseline_strengths': ()}, '--baseline_strengths='),
    ({'baseline_strengths': (1.0, 1.0)}, 'each once'),
    ({'baseline_strengths': (-1.0,)}, '--baseline_strengths=-1'),
    ({'factor_units': (3, -1)}, r'--factor_units=-1'),
  ],
)
def test_what_is_refused(options, part):
  with pytest.raises(errors.InputError, match=part):
    field.FieldConfig(**options)


@pytest.mark.parametrize(
  ('name', 'dim', 'part'),
  [
    ('xcov', 8, 'a code of 10 units for 10 classes'),
    ('mixing', 13, 'does not divide'),
  ],
)
def test_codes_that_a_method_cannot_have(name, dim, part):
  flags = field.FieldConfig(baselines=(name,))
  with pytest.raises(errors.InputError, match=part):
    field.make_stages(flags, 2, dim, 10)
