"""Tests of jacsup_jax.training.discovery, chains and fitting."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.models import checkers
from jacsup_jax.training import discovery
from jacsup_jax.training import fitting
from jacsup_jax.training import loop
from jacsup_jax.training import steps

SHAPE = small_models.SHAPE
# Six steps in batches of 16.
IMAGES = np.random.default_rng(0).integers(0, 256, (104, *SHAPE), np.uint8)
DATA = registry.Dataset('small', 'train', IMAGES, np.zeros(104, np.int32))
FLAGS = discovery.DiscoveryConfig(
  nuisance_dim=1,
  epochs=1,
  batch_size=16,
  optimization=config.Optimization(learning_rate=1e-2),
)
CHECK = config.LossWeights(lambda_check=0.1)
replace = dataclasses.replace


def _recipe(flags=FLAGS):
  return discovery.Discovery(
    flags, small_models.make_module, jnp.asarray(IMAGES)
  )


@pytest.fixture(scope='module')
def chain():
  return small_models.train(_recipe(), discovery.make_stages(FLAGS))[0]


def test_chain_of_stages():
  flags = replace(FLAGS, nuisance_dim=5, grow_by=2, teacher_epochs=7, seed=3)
  teacher, *students = discovery.make_stages(flags)
  assert (teacher.name, teacher.epochs, teacher.seed) == ('teacher', 7, 3)
  assert teacher.supervisor is None
  assert [(s.name, s.parent, s.nuisance_dim) for s in students] == [
    ('student_d02', 'teacher', 2),
    ('student_d04', 'student_d02', 4),
    ('student_d05', 'student_d04', 5),
  ]
  # A given teacher is not in the chain.
  flags = replace(flags, teacher_workdir='runs/other')
  assert discovery.make_stages(flags) == students


def test_kinds_of_students():
  weights = replace(CHECK, lambda_hsic=0.5, lambda_orthogonal=0.2)
  flags = replace(FLAGS, nuisance_dim=2, epochs=3, weights=weights)
  flags = replace(flags, students=discovery.STUDENTS)
  flags = replace(flags, grow_when='plateau', patience=4)
  stages = {stage.name: stage for stage in discovery.make_stages(flags)}
  assert stages['student_d02'].weights == weights
  alone = stages['student_no_jacobian_d02'].weights
  assert not alone.needs_teacher and alone.lambda_hsic == 0.5
  free = stages['student_unconstrained_d02'].weights
  assert not free.needs_teacher
  assert not any((free.lambda_xcov, free.lambda_hsic, free.lambda_orthogonal))
  scratch = stages['student_from_scratch_d02']
  assert (scratch.parent, scratch.supervisor) == (None, 'teacher')
  assert scratch.epochs == 2 * 3 and scratch.weights == weights
  assert {stage.patience for stage in stages.values()} == {4}


def test_full_jacobians_have_a_size_limit():
  full = config.LossWeights(supervision=config.Supervision('full'))
  flags = replace(FLAGS, nuisance_dim=3, weights=full)
  stages = discovery.make_stages(flags)
  discovery.check_sizes(flags, stages, SHAPE)
  # 16 images of 2^21 values by 2 to 4 units, of 4 bytes.
  with pytest.raises(errors.InputError, match='--jacobian=full'):
    discovery.check_sizes(flags, stages, (1024, 2048, 1))
  flags = replace(flags, weights=config.LossWeights(lambda_orthogonal=0.1))
  stages = discovery.make_stages(flags)
  with pytest.raises(errors.InputError, match='--lambda_orthogonal'):
    discovery.check_sizes(flags, stages, (1024, 2048, 1))


def test_student_begins_with_its_parents_weights_and_steps(chain):
  teacher = chain['teacher']
  _, student = discovery.make_stages(FLAGS)
  module, state = _recipe().create(student, chain)
  assert (module.num_factors, module.nuisance_dim) == (2, 1)
  assert state.step == teacher.state.step == 6
  kernel = state.params['encoder']['code']['kernel']
  old = teacher.state.params['encoder']['code']['kernel']
  np.testing.assert_array_equal(kernel[:, :2], old)
  assert not jax.tree.leaves(state.batch_stats)
  # A new optimizer, unless its moments are kept.
  adam = lambda state: [s for s in state.opt_state if hasattr(s, 'mu')][0]
  assert adam(state).count == 0
  _, kept = _recipe(replace(FLAGS, keep_moments=True)).create(student, chain)
  assert adam(kept).count == 6


@pytest.mark.parametrize(
  ('growth', 'fold', 'stays', 'same_factors'),
  [
    ('random', None, False, False),
    ('random', True, False, True),
    ('preserving', None, False, True),
    ('preserving', False, False, False),
    ('preserving', None, True, True),
  ],
)
def test_normalization_is_folded_dropped_or_stays(
  chain, growth, fold, stays, same_factors
):
  make = lambda factors, dim, is_first: small_models.make_module(
    factors, dim, is_first or stays
  )
  flags = replace(FLAGS, growth=growth, fold_normalization=fold)
  recipe = discovery.Discovery(flags, make, jnp.asarray(IMAGES))
  module, state = recipe.create(discovery.make_stages(FLAGS)[1], chain)
  assert bool(jax.tree.leaves(state.batch_stats)) == stays
  student = steps.Trained(None, module, state).model
  teacher = chain['teacher'].model
  code, expected = student.encode(IMAGES), teacher.encode(IMAGES)
  is_close = functools.partial(np.allclose, atol=1e-5)
  assert is_close(code.factors, expected.factors) == same_factors
  # A new unit that the decoder ignores leaves the images as they are.
  same_images = is_close(student.decode(code), teacher.decode(expected))
  assert same_images == (same_factors and growth == 'preserving')


def test_same_seed_gives_the_same_bits_and_another_does_not(chain):
  flags = replace(FLAGS, seeds=2)
  trained, _ = small_models.train(_recipe(flags), discovery.make_stages(flags))
  first, second = (
    trained[f'student_d01_seed{seed}'].state.params for seed in (0, 1)
  )
  chex.assert_trees_all_equal(first, chain['student_d01'].state.params)
  bias = lambda params: params['decoder']['dense_0']['bias']
  assert not np.array_equal(bias(first), bias(second))


def test_resumed_stage_is_bit_identical(chain):
  stage = discovery.make_stages(FLAGS)[1]
  module, state = _recipe().create(stage, chain)
  epoch_fn = replace(_recipe().make_epoch(stage, module, chain), part_steps=2)
  polls, taken = iter([False, False, True]), loop.Taken()
  state = loop.run(epoch_fn, state, 1, taken, should_stop=lambda: next(polls))
  assert taken.count == 4
  state = jax.device_get(state)  # As from a checkpoint.
  state = loop.run(epoch_fn, state, 1, taken)
  chex.assert_trees_all_equal(state, chain['student_d01'].state)


def test_recipe_of_neighbors_and_a_checked_student(chain):
  flags = replace(
    FLAGS,
    first_teacher='neighbors',
    neighbors=config.NeighborWeights(num_neighbors=3),
    students=('student_from_scratch',),
    weights=config.LossWeights(lambda_check=0.02, ramp=config.Ramp('linear')),
    optimization=replace(FLAGS.optimization, learning_rate_schedule='cosine'),
  )
  recipe = _recipe(flags)
  teacher, student = discovery.make_stages(flags)
  module, _ = recipe.create(teacher, {})
  program = recipe.make_steps(teacher, module, None)
  assert program.weights == flags.neighbors and program.num_steps == 6
  data = recipe.make_data(teacher, {})
  assert data.neighbors.shape == (104, 3)
  # Neither grown from the teacher, nor before its steps are known.
  module, state = recipe.create(student, chain)
  assert state.step == 0
  program = recipe.make_steps(student, module, chain['teacher'])
  assert program.ramp_steps == program.num_steps == 6
  _, metrics = small_models.train(recipe, [student], [chain['teacher']])
  assert metrics[student.name]['swap_check'] > 0


def test_networks_learn_from_each_supervisor_and_may_be_kept():
  flags = replace(
    FLAGS,
    nuisance_dim=2,
    weights=CHECK,
    checkers=('teacher', 'patches', 'mixer'),
    checker_epochs=1,
  )
  images = jnp.asarray(np.kron(IMAGES, np.ones((1, 2, 2, 1), np.uint8)))
  make = functools.partial(small_models.make_module, shape=(8, 8, 1))
  kept = {}

  def keep(network, *data):
    assert not network.sha256
    key = network.teacher, network.name
    return kept.get(key) or kept.setdefault(key, network.distill(*data))

  train = lambda keep: small_models.train(
    discovery.Discovery(flags, make, images, keep), discovery.make_stages(flags)
  )
  trained, metrics = train(keep)
  assert [*kept] == [
    (teacher, name)
    for teacher in ('teacher', 'student_d01')
    for name in ('patches', 'mixer')
  ]
  # All units of a supervisor are factors.
  assert [x.module.num_factors for x in kept.values()] == [2, 2, 3, 3]
  assert metrics['student_d02']['swap_check'] > 0
  again, _ = train(keep)  # Nothing is distilled.
  chex.assert_trees_all_equal(
    again['student_d02'].state, trained['student_d02'].state
  )
  # Other numbers would be seen.
  for key, network in kept.items():
    params = jax.tree.map(lambda x: x + 0.1, network.params)
    kept[key] = replace(network, params=params)
  moved, _ = train(keep)
  bias = lambda found: found['student_d02'].state.params['decoder']['dense_0']
  assert not np.array_equal(bias(moved)['bias'], bias(trained)['bias'])


def test_what_looks_is_chosen_by_name():
  assert FLAGS.checkers == ('teacher',) and not FLAGS.networks
  flags = replace(FLAGS, weights=CHECK, checkers=('mixer', 'teacher'))
  assert flags.networks == ('mixer',)
  assert {*discovery.CHECKERS} == {'teacher', *checkers.CHECKERS}


@pytest.mark.parametrize(
  ('names', 'part'),
  [
    ((), '--checkers=; accepted: teacher, patches, mixer'),
    (('cnn',), '--checkers=cnn; accepted: teacher, patches'),
    (('mixer', 'mixer'), 'each at most once'),
  ],
)
def test_names_that_are_not_known_are_refused(names, part):
  with pytest.raises(errors.InputError, match=part):
    replace(FLAGS, checkers=names)


def test_students_without_supervision_need_no_networks():
  flags = replace(
    FLAGS,
    students=('student_unconstrained',),
    weights=CHECK,
    checkers=('patches',),
  )
  teacher, student = discovery.make_stages(flags)
  assert not student.weights.lambda_check
  module = small_models.make_module(2, 1)
  parent = steps.Trained(teacher, small_models.make_module(2, 0, True), None)
  assert not _recipe(flags).make_steps(student, module, parent).checker_modules


def test_fitted_students_are_those_of_the_recipe(chain):
  teacher = fitting.fit_teacher(
    DATA, epochs=1, module=small_models.make_module(2, 0, True), flags=FLAGS
  )
  student = fitting.fit_student(teacher, DATA, epochs=1, flags=FLAGS)
  chex.assert_trees_all_equal(
    student.state.params, chain['student_d01'].state.params
  )
  assert student.stage.name == 'student_d01' and len(student.sha256) == 64
  assert student.state.step == 2 * teacher.state.step == 12


def test_student_objective_is_a_pure_function(chain):
  weights = config.LossWeights(lambda_check=0.5)
  student, teacher = chain['student_d01'].model, chain['teacher'].model
  objective = fitting.student_objective(student, teacher, weights)
  permutation = jnp.roll(jnp.arange(104), 1)
  call = jax.jit(jax.value_and_grad(objective))
  loss, grads = call(student.params, jnp.asarray(IMAGES), permutation)
  assert np.isfinite(loss)
  chex.assert_tree_all_finite(grads)
  assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grads))
