"""Tests of jacsup_jax.editing, end to end on a small model."""

import dataclasses
import time

import chex
import jax
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import faces
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import compilation

NUM_FACTORS = 2
PHASE_1 = config.AttributeLossWeights()
PHASE_2 = config.AttributeLossWeights(
    lambda_attribute_cycle=1e-2, lambda_nuisance_cycle=1e-2
)
STUDENT = config.AttributeLossWeights(
    lambda_prediction=0.0, lambda_xcov=0.0, lambda_y=1.0, lambda_diff=50.0
)
CHAIN = (
    config.Stage('phase_1', 'teacher_phase_1', None, 8, 2, PHASE_1),
    config.Stage('teacher', 'teacher', 'phase_1', 8, 2, PHASE_2),
    config.Stage('d12', 'student', 'teacher', 12, 2, STUDENT),
    config.Stage('d20', 'student', 'd12', 20, 2, STUDENT, teacher='teacher'),
)
SETTINGS = editing.Settings(batch_size=4)


class Killed(Exception):
  pass


def _make_dataset(num_examples=10):
  random = np.random.default_rng(0)
  return faces.FaceDataset(
      name='small',
      split='train',
      attribute_names=('Bald', 'Smiling'),
      image_size=8,
      fingerprint='small',
      attributes=random.choice([-1, 1], (num_examples, 2)).astype(np.int8),
      images=random.integers(0, 256, (num_examples, 8, 8, 3), np.uint8),
  )


def _make_model(nuisance_dim):
  return networks.FaceAutoencoder(
      NUM_FACTORS, nuisance_dim // 4, image_size=8, first_width=4, last_width=4
  )


def _run(path, *, chain=CHAIN, settings=SETTINGS, report=None, given=()):
  workdir = workdirs.WorkDir(path)
  workdir.begin('test', {}, {}, [])
  return stages.run(
      chain,
      editing.Editing(settings, _make_model, _make_dataset()),
      workdir=workdir,
      evaluate=lambda model, variables: {'d': model.nuisance_dim},
      report=report or (lambda stage, record: None),
      given=given,
      checkpoint_every=1,
      eval_every=1,
  )


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  path = tmp_path_factory.mktemp('undisturbed')
  return path, _run(path)


# Values.


def test_stages_have_the_terms_of_their_weights(undisturbed):
  path, trained = undisturbed
  records = workdirs.WorkDir(path).read_metrics()
  assert [(r['stage'], r['epoch'], r['step']) for r in records] == [
      (stage.name, epoch, 2 * (2 * i + epoch))
      for i, stage in enumerate(CHAIN)
      for epoch in (1, 2)
  ]
  has = lambda name: [name in record for record in records[::2]]
  assert has('attribute_hinge') == [True] * 4
  assert has('nuisance_cycle') == [False, True, False, False]
  assert has('jacobian') == [False, False, True, True]
  assert [record['eval_d'] for record in records[::2]] == [8, 8, 12, 20]
  assert [model.model.nuisance_dim for model in trained] == [8, 8, 12, 20]


def test_manifest_says_who_supervises(undisturbed):
  path, _ = undisturbed
  recorded = workdirs.WorkDir(path).manifest['stages']
  assert recorded['d20']['parent'] == 'd12'
  assert recorded['d20']['supervisor'] == 'teacher'
  assert recorded['d12']['supervisor'] == 'teacher'


def test_batch_larger_than_the_data_is_the_users_mistake():
  settings = editing.Settings(batch_size=64)
  with pytest.raises(errors.InputError, match='--batch_size=64.* 10 '):
    editing.Editing(settings, _make_model, _make_dataset())


def _grow(undisturbed, **settings):
  _, trained = undisturbed
  recipe = editing.Editing(
      editing.Settings(batch_size=4, **settings), _make_model, _make_dataset()
  )
  by_name = {model.stage.name: model for model in trained}
  model, state = recipe.create(CHAIN[2], by_name)
  return by_name['teacher'], model, state


def test_growth_enlarges_what_the_code_touches(undisturbed):
  teacher, _, state = _grow(undisturbed)
  shapes = lambda tree: {
      jax.tree_util.keystr(path): np.shape(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  old = shapes(teacher.state._asdict())
  new = shapes(state._asdict())
  grown = {name for name in old if old[name] != new[name]}
  # Kernel, bias, scale, bias of the norm, mean and variance of the encoder's
  # last layer, and the decoder's first kernel; twice more in Adam's moments.
  assert len(grown) == 3 * 5 + 2
  for name in grown:
    assert ("['encoder']" in name and "['down_1']" in name) or (
        "['decoder']" in name and "['up_0']" in name
    ), name


def test_growth_keeps_factors_and_weights(undisturbed):
  teacher, _, state = _grow(undisturbed)
  old = teacher.state.params['encoder']['down_1']
  new = state.params['encoder']['down_1']
  for name in ('kernel', 'bias'):
    # Channels: 2 of nuisance, 1 new, 2 factors.
    kept = np.delete(np.asarray(new[name]), 2, axis=-1)
    np.testing.assert_array_equal(kept, old[name])
  assert state.step == teacher.state.step


def test_preserving_growth_starts_at_the_teachers_images(undisturbed):
  teacher, model, state = _grow(undisturbed, growth='preserving')
  images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3), minval=-1.0)

  def autoencode(model, state):
    encode = networks.make_encode(model, state.batch_stats)
    decode = networks.make_decode(model, state.batch_stats)
    code = encode(state.params, images)
    return code.factors, decode(state.params, code)

  found = autoencode(model, state)
  expected = autoencode(teacher.model, teacher.state)
  # Matrix products of another width may be summed in another order.
  chex.assert_trees_all_close(found, expected, atol=1e-6)


@pytest.mark.parametrize('keep', [True, False])
def test_moments_go_on_or_start_at_zero(undisturbed, keep):
  _, _, state = _grow(undisturbed, keep_moments=keep)
  [adam] = [s for s in state.opt_state['decoder'] if hasattr(s, 'mu')]
  assert (adam.count > 0) == keep


def test_phases_share_their_optimizer(undisturbed):
  _, trained = undisturbed
  recipe = editing.Editing(
      editing.Settings(batch_size=4, keep_moments=False),
      _make_model,
      _make_dataset(),
  )
  _, state = recipe.create(CHAIN[1], {'phase_1': trained[0]})
  chex.assert_trees_all_equal(state, trained[0].state)


# Invariants.


@pytest.mark.parametrize(
    ('stage', 'epoch'),
    [('phase_1', 1), ('teacher', 1), ('teacher', 2), ('d12', 1), ('d20', 1)],
)
def test_resumed_run_is_bit_identical(undisturbed, tmp_path, stage, epoch):
  def kill(current, record):
    if (current.name, record['epoch']) == (stage, epoch):
      raise Killed

  with pytest.raises(Killed):
    _run(tmp_path, report=kill)
  trained = _run(tmp_path)
  _, expected = undisturbed
  for found, model in zip(trained, expected):
    chex.assert_trees_all_equal(found.state, model.state)


def test_fed_data_gives_the_steps_of_resident_data(undisturbed, tmp_path):
  settings = dataclasses.replace(SETTINGS, on_device=False)
  trained = _run(tmp_path, settings=settings, chain=CHAIN[:1])
  _, expected = undisturbed
  # Two programs; Adam's first steps are of the size of the learning rate.
  chex.assert_trees_all_close(
      trained[0].state.params, expected[0].state.params, atol=1e-4
  )


def test_students_grow_from_the_teacher_of_another_run(undisturbed, tmp_path):
  _, expected = undisturbed
  trained = _run(tmp_path, chain=CHAIN[2:3], given=expected[:2])
  assert [model.stage.name for model in trained] == ['d12']
  assert trained[0].sha256 == expected[2].sha256


# What an epoch must not do.


@pytest.mark.parametrize('on_device', [True, False], ids=['resident', 'fed'])
def test_an_epoch_reads_metrics_alone_and_compiles_once(monkeypatch, on_device):
  # Chunks of one step: the host has reasons to wait within an epoch.
  monkeypatch.setattr(editing, '_CHUNK_BYTES', 1)
  settings = dataclasses.replace(SETTINGS, on_device=on_device)
  recipe = editing.Editing(settings, _make_model, _make_dataset(17))
  model, state = recipe.create(CHAIN[0], {})
  epoch_fn = recipe.make_epoch(CHAIN[0], model, {})
  reads = []
  array_type = type(jax.numpy.zeros(()))
  value = array_type._value  # What float() and device_get read.
  as_array = np.asarray  # On the CPU it reads memory itself.

  def read(array):
    reads.append(array.shape)
    return value.fget(array)

  def read_whole(array, *args, **kwargs):
    if isinstance(array, jax.Array):
      reads.append(array.shape)
    return as_array(array, *args, **kwargs)

  monkeypatch.setattr(array_type, '_value', property(read))
  monkeypatch.setattr(np, 'asarray', read_whole)
  for epoch in range(3):
    reads.clear()
    with compilation.measured() as clock:
      state, metrics = epoch_fn(state, epoch)
    # Which examples are read, before the first step, where they are fed.
    assert reads[: not on_device] == ([] if on_device else [(4, 4)])
    # The metrics of a part that has ended, while the next one is computed.
    parts = 1 if on_device else 4
    ahead = int(not on_device)
    assert len(reads) == ahead + parts * (len(metrics) - ahead)
    assert set(reads[not on_device :]) == {(4 // parts,)}
    assert bool(clock.programs) == (epoch == 0)
    if not on_device:
      assert 0 <= metrics['input_bound'] <= 1
  jax.block_until_ready(metrics)


def test_waiting_for_data_is_measured(monkeypatch):
  settings = dataclasses.replace(SETTINGS, on_device=False)
  recipe = editing.Editing(settings, _make_model, _make_dataset())
  model, state = recipe.create(CHAIN[0], {})
  epoch_fn = recipe.make_epoch(CHAIN[0], model, {})
  state, metrics = epoch_fn(state, 0)
  read_chunks = recipe._iterate_chunks

  def read_slowly(epoch, first):
    for chunk in read_chunks(epoch, first):
      time.sleep(1.0)
      yield chunk

  monkeypatch.setattr(recipe, '_iterate_chunks', read_slowly)
  _, metrics = epoch_fn(state, 1)
  # The steps of so small a model take milliseconds.
  assert 0.5 < metrics['input_bound'] <= 1
