"""Tests of jacsup_jax.training.attributes."""

import dataclasses
import functools

import chex
from flax import traverse_util
import jax
import numpy as np
import pytest
import small_models

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import autoencoders
from jacsup_jax.training import attributes
from jacsup_jax.training import chains
from jacsup_jax.training import loop
from jacsup_jax.training import steps

FLAGS = attributes.AttributesConfig(
  nuisance_dims=(8, 12, 20),
  epochs=1,
  cycle_epochs=1,
  student_epochs=1,
  batch_size=4,
)
STAGES = attributes.make_stages(FLAGS)
TRAINED = STAGES[:3]  # Two sizes.
replace = dataclasses.replace


def _make_dataset(num_examples=10):
  random = np.random.default_rng(0)
  return registry.Dataset(
    'small',
    'train',
    random.integers(0, 256, (num_examples, 8, 8, 3), np.uint8),
    random.choice([-1, 1], (num_examples, 2)).astype(np.int8),
    attribute_names=('Bald', 'Smiling'),
  )


def _make_module(nuisance_dim):
  return autoencoders.FaceAutoencoder(
    2, nuisance_dim // 4, image_size=8, first_width=4, last_width=4
  )


def _recipe(flags=FLAGS):
  return attributes.Attributes(flags, _make_module, _make_dataset())


@pytest.fixture(scope='module')
def chain():
  return small_models.train(_recipe(), TRAINED)


def test_chain_of_stages():
  assert [(s.name, s.parent, s.supervisor, s.nuisance_dim) for s in STAGES] == [
    ('teacher_phase_1', None, None, 8),
    ('teacher', 'teacher_phase_1', 'teacher_phase_1', 8),
    ('student_d12', 'teacher', 'teacher', 12),
    # Supervised by the teacher, as released.
    ('student_d20', 'student_d12', 'teacher', 20),
  ]
  stages = attributes.make_stages(
    replace(FLAGS, cycle_epochs=0, students=(), seeds=2)
  )
  assert [s.name for s in stages] == ['teacher_seed0', 'teacher_seed1']
  given = replace(FLAGS, teacher_workdir='runs/other')
  assert attributes.make_stages(given) == STAGES[2:]
  scratch = replace(FLAGS, students=('student_from_scratch',))
  [stage] = attributes.make_stages(scratch)[2:]
  assert (stage.parent, stage.supervisor, stage.epochs) == (None, 'teacher', 2)


def test_a_model_of_labels_supervises_students_from_scratch():
  weights = replace(FLAGS.weights, decode_labels=1.0, edits='flip')
  own = {'supervisor': 'cvae', 'epochs': 0, 'weights': weights}
  flags = replace(FLAGS, students=('student_from_scratch',), **own)
  [stage] = attributes.make_stages(flags)
  assert (stage.parent, stage.supervisor, stage.epochs) == (None, 'cvae', 2)
  both = attributes.make_stages(replace(flags, seeds=2))
  assert [s.supervisor for s in both] == ['cvae_seed0', 'cvae_seed1']
  for changed, found in (
    ({'students': ('student',)}, '--students=student with --supervisor=cvae'),
    ({'weights': replace(weights, decode_labels=0.5)}, '--decode_labels=0.5'),
    ({'teacher_workdir': 'runs/other'}, '--teacher_workdir with --supervisor'),
    ({'supervisor': 'fader'}, '--supervisor=fader; accepted: teacher, cvae'),
  ):
    with pytest.raises(errors.InputError, match=found):
      replace(flags, **changed)


def test_only_flips_can_be_stronger():
  weights = replace(FLAGS.weights, largest_flip=4.0)
  with pytest.raises(errors.InputError, match='--largest_flip=4.0 with'):
    replace(FLAGS, weights=weights)
  replace(FLAGS, weights=replace(weights, edits='flip'))


def test_labels_are_decoded_by_models_that_predict_them():
  weights = replace(FLAGS.weights, decode_labels=0.5)
  flags = replace(FLAGS, weights=weights)
  for stage in attributes.make_stages(flags):
    assert stage.weights.decode_labels == 0.5
  weights = replace(weights, lambda_prediction=0.0)
  with pytest.raises(errors.InputError, match='--decode_labels with --lambda'):
    replace(FLAGS, weights=weights)


def test_edits_are_checked_from_the_second_phase_on():
  weights = replace(FLAGS.weights, lambda_edit_check=3.0)
  flags = replace(FLAGS, weights=weights)
  for stage in attributes.make_stages(flags):
    checked = 0.0 if stage.model == 'teacher_phase_1' else 3.0
    assert stage.weights.lambda_edit_check == checked


def test_weights_of_each_kind_of_model():
  weigh = functools.partial(attributes.make_weights, FLAGS)
  # lambda_1 to lambda_5 of Section 4.2, and those of eq. (9).
  first, teacher = weigh('teacher_phase_1'), weigh('teacher')
  assert first == config.AttributeLossWeights(1e2, 0.1, 0.1)
  assert teacher == config.AttributeLossWeights(1e2, 0.1, 0.1, 1e-4, 1e-5)
  student = config.AttributeLossWeights(1e2, 0, 0, 0, 0, 1.0, 50.0)
  assert weigh('student') == weigh('student_from_scratch') == student
  alone = replace(student, lambda_y=0.0, lambda_diff=0.0)
  assert weigh('student_no_jacobian') == alone
  assert weigh('student_cycle') == replace(
    alone, lambda_attribute_cycle=1e-4, lambda_nuisance_cycle=1e-5
  )


def test_data_and_sizes_are_checked():
  with pytest.raises(errors.InputError, match='--batch_size=64.* 10 '):
    _recipe(replace(FLAGS, batch_size=64))
  weights = replace(FLAGS.weights, supervision=config.Supervision('full'))
  stages = attributes.make_stages(replace(FLAGS, weights=weights))
  attributes.check_sizes(FLAGS, stages, 2, (8, 8, 3))
  with pytest.raises(errors.InputError, match='--jacobian=full'):
    attributes.check_sizes(
      replace(FLAGS, batch_size=128), stages, 40, (256, 256, 3)
    )


def test_stages_have_the_terms_of_their_weights(chain):
  trained, metrics = chain
  has = lambda name: [name in metrics[stage.name] for stage in TRAINED]
  assert has('attribute_hinge') == [True] * 3
  assert has('nuisance_cycle') == [False, True, False]
  assert has('jacobian') == [False, False, True]
  assert [trained[s.name].state.step for s in TRAINED] == [2, 4, 6]


def _grow(chain, **changes):
  trained, _ = chain
  module, state = _recipe(replace(FLAGS, **changes)).create(STAGES[2], trained)
  return trained['teacher'], module, state


def test_preserving_growth_starts_at_the_teachers_images(chain):
  teacher, module, state = _grow(chain, growth='preserving')
  images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), minval=-1.0)

  def autoencode(model):
    code = model.encode(images)
    return code.factors, model.decode(code)

  # Matrix products of another width may be summed in another order.
  chex.assert_trees_all_close(
    autoencode(steps.Trained(None, module, state).model),
    autoencode(teacher.model),
    atol=1e-6,
  )


@pytest.mark.parametrize('keep', [True, False])
def test_moments_are_kept_or_new(chain, keep):
  _, _, state = _grow(chain, keep_moments=keep)
  [adam] = [s for s in state.opt_state['decoder'] if hasattr(s, 'mu')]
  assert (adam.count > 0) == keep
  # The phases of a teacher share their optimizer.
  trained, _ = chain
  recipe = _recipe(replace(FLAGS, keep_moments=keep))
  _, state = recipe.create(STAGES[1], trained)
  chex.assert_trees_all_equal(state, trained['teacher_phase_1'].state)


@pytest.mark.parametrize('cache', ['device', 'host'])
def test_parts_and_chunks_give_the_same_steps(
  chain, monkeypatch, caplog, cache
):
  trained, _ = chain
  monkeypatch.setattr(chains, '_CHUNK_BYTES', 1)  # Chunks of one step.
  recipe = _recipe(replace(FLAGS, cache=cache))
  module, state = recipe.create(STAGES[0], {})
  epoch_fn = recipe.make_epoch(STAGES[0], module, {})
  assert epoch_fn.is_fed == (cache == 'host')
  polls = iter([False, True])
  taken = loop.Taken()
  epoch_fn = replace(epoch_fn, part_steps=1)
  state = loop.run(epoch_fn, state, 0, taken, should_stop=lambda: next(polls))
  assert taken.count == 1
  state = loop.run(epoch_fn, jax.device_get(state), 0, taken)
  expected = trained['teacher_phase_1'].state
  if cache == 'device':  # Of one program to the bit.
    chex.assert_trees_all_equal(state.params, expected.params)
  # The gradient of a bias before BatchNorm is rounding alone, and Adam's first
  # steps are as large as its rate.
  found, expected = map(
    traverse_util.flatten_dict, (state.params, expected.params)
  )
  for name in found:
    if name[-1] != 'bias':
      np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
  # Further epochs, of a restored state, compile nothing.
  with jax.log_compiles():
    for epoch in (1, 2):
      state, _ = epoch_fn(jax.device_get(state), epoch)
  assert not [m for m in caplog.messages if 'Finished XLA comp' in m]
