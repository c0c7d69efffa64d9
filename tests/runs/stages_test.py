"""Tests of jacsup_jax.stages, end to end on a small model."""

import collections
import contextlib
import dataclasses
import functools
import json
import resource
import shutil
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import preemption
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import discovery
from jacsup_jax.training import loop as epochs
from jacsup_jax.training import steps as training

SHAPE = (4, 4, 1)
EPOCHS = 3
STEPS_PER_EPOCH = 2  # 40 images in batches of 16; 8 are left out.
IMAGES = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
# With checkpoints after epochs 2 and 3, an epoch is lost if it stops after 1.
SETTINGS = discovery.Settings(batch_size=16, learning_rate=1e-2)
CHAIN = (
    config.Stage('teacher', 'teacher', None, 0, EPOCHS, config.LossWeights()),
    config.Stage('d1', 'student', 'teacher', 1, EPOCHS, config.LossWeights()),
    config.Stage('d2', 'student', 'd1', 2, EPOCHS, config.LossWeights()),
)


class Killed(Exception):
  pass


def _make_model(num_factors, nuisance_dim, normalize_code):
  return networks.MlpAutoencoder(
      num_factors,
      nuisance_dim,
      normalize_code,
      image_shape=SHAPE,
      widths=(8, 6),
  )


def _evaluate(model, variables):
  bias = variables['params']['decoder']['dense_0']['bias']
  return {'code_dim': model.code_dim, 'bias': float(jnp.sum(bias))}


_evaluate_now = _evaluate


def _run(
    path, *, chain=CHAIN, settings=SETTINGS, every=2, report=None, **kwargs
):
  workdir = workdirs.WorkDir(path)
  workdir.begin('test', {}, {}, [])
  return stages.run(
      chain,
      discovery.Discovery(settings, _make_model, 2, jnp.asarray(IMAGES)),
      workdir=workdir,
      evaluate=_evaluate_now,
      report=report or (lambda stage, record: None),
      checkpoint_every=every,
      eval_every=every,
      **kwargs,
  )


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  path = tmp_path_factory.mktemp('undisturbed')
  return path, _run(path)


def _metrics(path):
  """The records without what depends on the clock."""
  clock = ('seconds', 'images_per_second', 'compile_seconds', 'input_bound')
  return [
      {k: v for k, v in record.items() if k not in clock}
      for record in workdirs.WorkDir(path).read_metrics()
  ]


# Values.


def test_metrics_have_every_epoch_once(undisturbed):
  path, _ = undisturbed
  records = _metrics(path)
  assert [(r['stage'], r['epoch'], r['step']) for r in records] == [
      (stage.name, epoch, STEPS_PER_EPOCH * (EPOCHS * i + epoch))
      for i, stage in enumerate(CHAIN)
      for epoch in range(1, EPOCHS + 1)
  ]
  assert {'reconstruction', 'loss'} <= set(records[0])
  assert {'jacobian', 'factor_matching', 'cross_covariance'} <= set(records[-1])
  # Evaluated at epoch 2 and at the last, of the whole code.
  evaluated = [r['epoch'] for r in records if 'eval_code_dim' in r]
  assert evaluated == [2, 3] * 3
  assert records[-1]['eval_code_dim'] == 4


def test_student_from_scratch_is_supervised_without_growing(tmp_path):
  scratch = config.Stage(
      'scratch', 'student', None, 2, 1, config.LossWeights(), teacher='teacher'
  )
  teacher, student = _run(tmp_path, chain=(CHAIN[0], scratch))
  # A student's model, without the first teacher's BatchNorm; from step 0.
  assert not student.model.normalize_code
  assert student.state.step == STEPS_PER_EPOCH
  last = _metrics(tmp_path)[-1]
  assert {'jacobian', 'factor_matching', 'cross_covariance'} <= set(last)
  recorded = json.loads((tmp_path / 'manifest.json').read_text())['stages']
  assert recorded['scratch']['parent'] is None
  assert recorded['scratch']['supervisor'] == 'teacher'
  # At its start it is a fresh model, whatever the teacher is.
  recipe = discovery.Discovery(SETTINGS, _make_model, 2, jnp.asarray(IMAGES))
  model, state = recipe.create(scratch, {'teacher': teacher})
  fresh = networks.init_variables(model, SETTINGS.seed, SHAPE)
  chex.assert_trees_all_equal(state.params, fresh['params'])


def test_manifest_has_the_chain_of_parents(undisturbed):
  path, trained = undisturbed
  recorded = json.loads((path / 'manifest.json').read_text())['stages']
  assert list(recorded) == ['teacher', 'd1', 'd2']
  assert recorded['teacher']['parent'] is None
  assert recorded['teacher']['parent_sha256'] is None
  for parent, child in (('teacher', 'd1'), ('d1', 'd2')):
    assert recorded[child]['parent'] == parent
    assert recorded[child]['parent_sha256'] == recorded[parent]['sha256']
  assert [recorded[s.name]['nuisance_dim'] for s in CHAIN] == [0, 1, 2]
  assert len({recorded[s.name]['sha256'] for s in CHAIN}) == 3
  # The parameters are still those: training a child leaves its parent alone.
  for model in trained:
    assert checkpoints.hash_tree(model.state.params) == model.sha256
    assert recorded[model.stage.name]['sha256'] == model.sha256


def test_models_have_the_first_teachers_factors(undisturbed):
  _, trained = undisturbed
  sizes = [(t.model.num_factors, t.model.nuisance_dim) for t in trained]
  assert sizes == [(2, 0), (2, 1), (2, 2)]
  assert [t.model.normalize_code for t in trained] == [True, False, False]
  as_teacher = discovery.as_teacher(trained[2].model)
  assert (as_teacher.num_factors, as_teacher.nuisance_dim) == (4, 0)


def test_training_lowers_the_reconstruction_error(undisturbed):
  path, _ = undisturbed
  records = _metrics(path)
  assert records[2]['reconstruction'] < records[0]['reconstruction']


@pytest.mark.parametrize(
    ('errors', 'patience', 'expected'),
    [
        ([], 1, False),
        ([1.0], 1, False),
        ([1.0, 0.9], 1, False),
        ([1.0, 1.0], 1, True),  # Equal is not better.
        ([1.0, 1.1, 0.9], 2, False),
        ([0.9, 1.0, 0.95], 2, True),
        ([0.9, 1.0, 0.95], 3, False),
    ],
)
def test_plateau_is_so_many_epochs_without_a_lowest_error(
    errors, patience, expected
):
  assert stages.has_plateaued(errors, patience) is expected


# Invariants.


def _run_to_plateau(path, report=None):
  """Each stage has its lowest error after its second epoch."""
  chain = [dataclasses.replace(stage, epochs=9, patience=2) for stage in CHAIN]
  workdir = workdirs.WorkDir(path)
  workdir.begin('test', {}, {}, [])

  def validate(unused_model, unused_variables):
    records = workdir.read_metrics()
    stage = _stage_now(records, chain)
    done = sum(record['stage'] == stage for record in records)
    return [3.0, 1.0, 2.0, 1.5, 0.0][done]

  return stages.run(
      chain,
      discovery.Discovery(SETTINGS, _make_model, 2, jnp.asarray(IMAGES)),
      workdir=workdir,
      evaluate=_evaluate,
      validate=validate,
      report=report or (lambda stage, record: None),
      checkpoint_every=1,
      eval_every=5,
  )


def _stage_now(records, chain):
  """Returns the stage of the next record: a stage has four of them."""
  done = collections.Counter(record['stage'] for record in records)
  return next(stage.name for stage in chain if done[stage.name] < 4)


def test_a_stage_ends_on_a_plateau(tmp_path):
  trained = _run_to_plateau(tmp_path)
  assert [model.stage.epochs for model in trained] == [4, 4, 4]
  recorded = json.loads((tmp_path / 'manifest.json').read_text())['stages']
  assert [entry['epochs'] for entry in recorded.values()] == [4, 4, 4]
  records = _metrics(tmp_path)
  assert [r['validation_mse'] for r in records] == [3.0, 1.0, 2.0, 1.5] * 3
  # The last epoch is evaluated, whichever it is.
  assert [r['epoch'] for r in records if 'eval_bias' in r] == [4, 4, 4]
  assert records[-1]['step'] == 12 * STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ('stage', 'epoch'),
    [
        ('d1', 4),
        pytest.param('d1', 3, marks=pytest.mark.slow),
        pytest.param('d2', 1, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_stage_ends_on_the_same_plateau(tmp_path, stage, epoch):
  def kill(current, record):
    if (current.name, record['epoch']) == (stage, epoch):
      raise Killed

  undisturbed = _run_to_plateau(tmp_path / 'a')
  with pytest.raises(Killed):
    _run_to_plateau(tmp_path / 'b', kill)
  resumed = _run_to_plateau(tmp_path / 'b')
  assert [t.sha256 for t in resumed] == [t.sha256 for t in undisturbed]
  assert _metrics(tmp_path / 'b') == _metrics(tmp_path / 'a')


# After which call of `report` it stops: in the middle of the first stage,
# before any checkpoint; between checkpoints of a grown stage; after the first
# epoch of a grown stage; after the last epoch of a stage, so that the next
# begins with a growth.
@pytest.mark.parametrize(
    ('stage', 'epoch'), [('teacher', 1), ('d1', 1), ('d1', 2), ('d1', 3)]
)
def test_resumed_run_is_bit_identical(undisturbed, tmp_path, stage, epoch):
  def kill(current, record):
    if (current.name, record['epoch']) == (stage, epoch):
      raise Killed

  with pytest.raises(Killed):
    _run(tmp_path, report=kill)
  trained = _run(tmp_path)
  path, expected = undisturbed
  for found, model in zip(trained, expected):
    chex.assert_trees_all_equal(found.state, model.state)
    assert found.sha256 == model.sha256
  # Each (stage, epoch) once, with the same numbers.
  assert _metrics(tmp_path) == _metrics(path)
  manifest = lambda p: json.loads((p / 'manifest.json').read_text())['stages']
  assert manifest(tmp_path) == manifest(path)


def test_killed_while_it_grows_is_bit_identical(
    undisturbed, tmp_path, monkeypatch
):
  grow = discovery.grow_state

  def kill(parent, *args):
    if parent.stage.name == 'teacher':
      raise Killed
    return grow(parent, *args)

  with monkeypatch.context() as patch:
    patch.setattr(discovery, 'grow_state', kill)
    with pytest.raises(Killed):
      _run(tmp_path)
  _, expected = undisturbed
  assert [t.sha256 for t in _run(tmp_path)] == [t.sha256 for t in expected]


def test_complete_run_trains_nothing(undisturbed, monkeypatch):
  path, expected = undisturbed
  before = _metrics(path)
  monkeypatch.setattr(discovery.Discovery, 'make_epoch', None)
  trained = _run(path)
  assert [t.sha256 for t in trained] == [t.sha256 for t in expected]
  assert _metrics(path) == before


def test_grown_checkpoint_of_other_sizes_is_refused_by_name(undisturbed):
  path, _ = undisturbed
  chain = (CHAIN[0], dataclasses.replace(CHAIN[1], nuisance_dim=2))
  with pytest.raises(errors.InputError, match='checkpoints/d1/'):
    _run(path, chain=chain)


def test_each_stage_compiles_its_epoch_once(tmp_path, caplog):
  counts = collections.defaultdict(list)

  def count(stage, unused_record):
    compiled = [m for m in caplog.messages if 'Finished XLA compilation' in m]
    epochs = sum('train_epoch' in m for m in compiled)
    counts[stage.name].append((epochs, len(compiled)))

  # Evaluation and checkpoint in every epoch.
  with jax.log_compiles():
    _run(tmp_path, every=1, report=count)
  for i, stage in enumerate(CHAIN):
    epochs, compiled = zip(*counts[stage.name])
    # One more than after the stage before.
    assert epochs == (i + 1,) * EPOCHS
    # Nothing else compiles once the first epoch is done.
    assert compiled == (compiled[0],) * EPOCHS


def _grown_state(**settings):
  """The state that a student of a trained teacher begins with, and the two."""
  optimizer = training.make_optimizer(1e-2, 0.0)
  teacher_model = _make_model(2, 0, True)
  variables = networks.init_variables(teacher_model, 5, SHAPE)
  variables['batch_stats'] = jax.tree.map(
      lambda x: x + 0.5, variables['batch_stats']
  )
  state = training.create_train_state(variables, optimizer)
  state = state._replace(
      step=jnp.array(6, jnp.int32),
      opt_state=jax.tree.map(lambda x: x + 1, state.opt_state),
  )
  parent = stages.Trained(CHAIN[0], teacher_model, state, '')
  model = _make_model(2, 1, False)
  fresh = training.create_train_state(
      networks.init_variables(model, 0, SHAPE), optimizer
  )
  grown = discovery.grow_state(parent, fresh, discovery.Settings(**settings))
  return parent, model, grown


def test_preserving_growth_starts_at_the_teachers_images():
  parent, model, grown = _grown_state(
      growth='preserving', fold_normalization=True
  )
  images = jax.random.uniform(jax.random.key(0), (4, *SHAPE))
  encode = networks.make_encode(parent.model, parent.state.batch_stats)
  code = encode(parent.state.params, images)
  expected = networks.make_decode(parent.model)(parent.state.params, code)
  grown_code = networks.make_encode(model)(grown.params, images)
  # Folding rounds once; codes and images are of size 1.
  np.testing.assert_allclose(grown_code.factors, code.factors, atol=1e-6)
  np.testing.assert_allclose(
      networks.make_decode(model)(grown.params, grown_code),
      expected,
      atol=1e-6,
  )
  # Goes on with the data's order.
  assert grown.step == 6


def test_normalization_is_dropped_where_it_is_not_folded():
  parent, _, grown = _grown_state(fold_normalization=False)
  np.testing.assert_array_equal(
      grown.params['encoder']['code']['kernel'][:, :2],
      parent.state.params['encoder']['code']['kernel'],
  )
  assert not jax.tree.leaves(grown.batch_stats)


@pytest.mark.parametrize('keep', [True, False])
def test_moments_go_on_or_start_at_zero(keep):
  _, _, grown = _grown_state(keep_moments=keep)
  # Every leaf of the parent's optimizer state is 1; new units have 0.
  kernel = lambda tree: tree['decoder']['dense_0']['kernel']
  [adam] = [s for s in grown.opt_state if hasattr(s, 'mu')]
  np.testing.assert_array_equal(
      kernel(adam.mu)[:2], np.full((2, 6), float(keep))
  )
  np.testing.assert_array_equal(kernel(adam.mu)[2], np.zeros(6))
  assert adam.count == int(keep)


def test_student_without_weights_has_no_teacher_terms(tmp_path):
  chain = (
      CHAIN[0],
      config.Stage(
          'alone', 'student_no_jacobian', 'teacher', 1, 1,
          config.LossWeights(0.0, 0.0, 1e-3),
      ),
  )  # pyformat: disable
  _run(tmp_path, chain=chain)
  last = _metrics(tmp_path)[-1]
  assert last['stage'] == 'alone'
  assert not {'jacobian', 'factor_matching'} & set(last)
  assert 'cross_covariance' in last


def test_two_chains_grow_from_one_teacher(tmp_path):
  chain = (
      CHAIN[0],
      config.Stage('a', 'student', 'teacher', 1, 1, config.LossWeights()),
      config.Stage('b', 'student', 'teacher', 1, 1, config.LossWeights()),
  )
  # Equal stages of one parent are equal models.
  _, first, second = _run(tmp_path, chain=chain)
  assert first.sha256 == second.sha256


def test_batch_larger_than_the_data_is_the_users_mistake(tmp_path):
  settings = discovery.Settings(batch_size=64)
  with pytest.raises(errors.InputError, match='--batch_size=64.* 40 '):
    _run(tmp_path, settings=settings)


# A convolutional code, whose BatchNorm all stages have.

COLOURS = np.random.default_rng(1).integers(0, 256, (24, 16, 16, 3), np.uint8)


def _make_svhn_model(num_factors, nuisance_dim, is_first, normalize=True):
  return networks.SvhnAutoencoder(
      num_factors,
      nuisance_dim,
      is_first or normalize,
      image_shape=(16, 16, 3),
      widths=(3, 4, 5),
      linear_code=True,
  )


@pytest.mark.parametrize(
    'teacher_train_mode',
    [pytest.param(False, marks=pytest.mark.slow), True],
)
def test_a_chain_grows_through_a_convolutional_code(
    tmp_path, teacher_train_mode
):
  workdir = workdirs.WorkDir(tmp_path)
  workdir.begin('test', {}, {}, [])
  settings = discovery.Settings(
      batch_size=8, teacher_train_mode=teacher_train_mode
  )
  trained = stages.run(
      [dataclasses.replace(stage, epochs=1) for stage in CHAIN],
      discovery.Discovery(
          settings, _make_svhn_model, 2, jnp.asarray(COLOURS)
      ),
      workdir=workdir,
      evaluate=_evaluate_nothing,
  )
  for dim, model in enumerate(trained):
    assert (model.model.num_factors, model.model.nuisance_dim) == (2, dim)
    chex.assert_tree_all_finite(model.variables)
    stats = model.state.batch_stats['encoder']['code_norm']
    assert stats['mean'].shape == (2 + dim,)
    # Running statistics have left those of a new model.
    assert np.all(stats['mean'] != 0) and np.all(stats['var'] != 1)
  assert {'jacobian', 'factor_matching'} <= set(_metrics(tmp_path)[-1])


def _evaluate_nothing(model, variables):
  del model, variables
  return {}


@pytest.mark.parametrize('normalize', [True, False])
def test_preserving_growth_of_a_convolutional_code(normalize):
  optimizer = training.make_optimizer(1e-2, 0.0)
  shape = COLOURS.shape[1:]
  teacher_model = _make_svhn_model(2, 0, True)
  variables = networks.init_variables(teacher_model, 5, shape)
  variables['batch_stats'] = jax.tree.map(
      lambda x: x + 0.5, variables['batch_stats']
  )
  parent = stages.Trained(
      CHAIN[0],
      teacher_model,
      training.create_train_state(variables, optimizer),
      '',
  )
  model = _make_svhn_model(2, 1, False, normalize)
  fresh = training.create_train_state(
      networks.init_variables(model, 0, shape), optimizer
  )
  grown = discovery.grow_state(
      parent,
      fresh,
      discovery.Settings(growth='preserving', fold_normalization=True),
  )
  assert bool(jax.tree.leaves(grown.batch_stats)) == normalize
  images = jax.random.uniform(jax.random.key(0), (4, *shape))

  def apply(model, state):
    code = networks.make_encode(model, state.batch_stats)(state.params, images)
    return code.factors, networks.make_decode(model)(state.params, code)

  # Folding rounds once; a BatchNorm that stays is not folded.
  chex.assert_trees_all_close(
      apply(model, grown),
      apply(teacher_model, parent.state),
      atol=0.0 if normalize else 1e-6,
      rtol=0.0,
  )


# Faults.


def _slow(*values):
  return pytest.param(*values, marks=pytest.mark.slow)


FINE = dataclasses.replace(SETTINGS, batch_size=4)  # Ten steps an epoch.


class _Stop:
  """In the place of a signal: it comes at one of the places that look."""

  def __init__(self, monkeypatch, at):
    self.left = at
    self.places = 0
    monkeypatch.setattr(preemption, 'requested', self.requested)
    monkeypatch.setattr(epochs.Pace, 'choose', lambda self, most: min(most, 2))

  def requested(self):
    self.places += 1
    self.left -= 1
    return signal.SIGTERM if self.left == 0 else None


@pytest.fixture(scope='module')
def undisturbed_fine(tmp_path_factory):
  path = tmp_path_factory.mktemp('fine')
  return path, _run(path, settings=FINE)


# Five parts an epoch: the first of the first epoch; within epochs; before the
# last part of a stage; in the first epoch of a student; where nothing was
# taken.
@pytest.mark.parametrize(
    'at', [1, 9, 16, 17, *(_slow(at) for at in (2, 15, 23, 45))]
)
def test_a_stop_within_an_epoch_is_bit_identical(
    undisturbed_fine, tmp_path, monkeypatch, at
):
  path, expected = undisturbed_fine
  with monkeypatch.context() as patch:
    _Stop(patch, at)
    with pytest.raises(preemption.Preempted) as stopped:
      _run(tmp_path, settings=FINE)
  # Two steps a part, of 30 in a stage.
  step = 2 * (at - 1)
  assert f'step {step} is saved' in str(stopped.value)
  stage = CHAIN[step // 30].name
  saved = tmp_path / 'checkpoints' / stage / str(step)
  assert saved.is_dir() and str(saved) in str(stopped.value)
  trained = _run(tmp_path, settings=FINE)
  for found, model in zip(trained, expected, strict=True):
    chex.assert_trees_all_equal(found.state, model.state)
  assert _metrics(tmp_path) == _metrics(path)
  # It stops again, and is none the worse.
  assert [t.sha256 for t in _run(tmp_path, settings=FINE)] == [
      t.sha256 for t in expected
  ]


def test_many_stops_are_bit_identical(undisturbed_fine, tmp_path, monkeypatch):
  path, expected = undisturbed_fine
  for stops in range(100):
    with monkeypatch.context() as patch:
      _Stop(patch, 4)
      try:
        trained = _run(tmp_path, settings=FINE)
        break
      except preemption.Preempted:
        continue
  assert stops > 10
  assert [t.sha256 for t in trained] == [t.sha256 for t in expected]
  assert _metrics(tmp_path) == _metrics(path)


@pytest.mark.parametrize('epoch', [2, 3])
def test_a_stop_while_measuring_measures_again(
    undisturbed_fine, tmp_path, monkeypatch, epoch
):
  path, expected = undisturbed_fine
  calls = []

  def stop(*args):
    calls.append(args)
    if len(calls) == epoch - 1:
      raise preemption.Preempted
    return _evaluate(*args)

  with monkeypatch.context() as patch:
    patch.setitem(globals(), '_evaluate_now', stop)
    with pytest.raises(preemption.Preempted, match=f'step {10 * epoch} is sav'):
      _run(tmp_path, settings=FINE)
  with pytest.raises(Killed):
    # What was measured late is not measured once more by the next.
    _run(tmp_path, settings=FINE, report=_kill_at('d1', 2))
  assert [t.sha256 for t in _run(tmp_path, settings=FINE)] == [
      t.sha256 for t in expected
  ]
  assert _metrics(tmp_path) == _metrics(path)


def _kill_at(stage, epoch):
  def kill(current, record):
    if (current.name, record['epoch']) == (stage, epoch):
      raise Killed

  return kill


def test_damaged_newest_checkpoint_loses_an_epoch_and_says_so(tmp_path):
  undisturbed = _run(tmp_path / 'a', every=1)
  with pytest.raises(Killed):
    _run(tmp_path / 'b', every=1, report=_kill_at('d1', 2))
  newest = tmp_path / 'b' / 'checkpoints' / 'd1' / '10'
  (newest / 'default' / '_METADATA').write_bytes(b'{}')
  lines = []
  trained = _run(tmp_path / 'b', every=1, note=lines.append)
  assert f'{newest} is damaged' in lines[0]
  assert 'going on from' in lines[-1] and lines[-1].endswith('/d1/8')
  assert [t.sha256 for t in trained] == [t.sha256 for t in undisturbed]
  assert _metrics(tmp_path / 'b') == _metrics(tmp_path / 'a')
  assert (newest.parent / 'damaged-10').is_dir()


# Also of a stage that others have grown from already.
@pytest.mark.parametrize('stage', ['teacher', 'd1'])
def test_a_stage_without_checkpoints_is_never_trained_again_unasked(
    tmp_path, stage
):
  undisturbed = _run(tmp_path)
  manifest = (tmp_path / 'manifest.json').read_text()
  shutil.rmtree(tmp_path / 'checkpoints' / stage)
  for _ in range(2):
    with pytest.raises(errors.InputError, match='--on_damage=retrain') as error:
      _run(tmp_path)
    assert f'{stage}/' in str(error.value) and 'missing' in str(error.value)
  again = _run(tmp_path, faults=stages.Faults(on_damage='retrain'))
  assert [t.sha256 for t in again] == [t.sha256 for t in undisturbed]
  found = json.loads((tmp_path / 'manifest.json').read_text())
  expected = json.loads(manifest)
  assert found['stages'] == expected['stages']


def test_a_finished_stage_with_other_parameters_is_refused(tmp_path):
  _run(tmp_path)
  path = tmp_path / 'manifest.json'
  manifest = json.loads(path.read_text())
  manifest['stages']['d1']['sha256'] = '0' * 64
  path.write_text(json.dumps(manifest))
  error = 'the manifest has .* 000000000000'
  with pytest.raises(errors.InputError, match=error):
    _run(tmp_path)


def _fail_at(monkeypatch, number, target, name):
  """Lets one call of a function fail as on a full disk; returns all calls."""
  function, calls = getattr(target, name), []

  def call(*args, **kwargs):
    calls.append(args)
    if len(calls) == number:
      raise errors.StorageError('/path cannot be written (No space left)')
    return function(*args, **kwargs)

  monkeypatch.setattr(target, name, call)
  return calls


# Two checkpoints a stage: after epoch 2, and the last.
@pytest.mark.parametrize('number', [1, 3, _slow(2), _slow(6)])
@pytest.mark.parametrize(
    ('target', 'name'),
    [
        (checkpoints.StageCheckpoints, 'save'),
        (workdirs.WorkDir, 'record_checkpoints'),
        (workdirs.WorkDir, 'append_metrics'),
    ],
)
def test_full_disk_stops_the_run_which_goes_on_later(
    undisturbed, tmp_path, monkeypatch, number, target, name
):
  path, expected = undisturbed
  with monkeypatch.context() as patch:
    _fail_at(patch, number, target, name)
    with pytest.raises(errors.StorageError, match='cannot be written'):
      _run(tmp_path)
  trained = _run(tmp_path)
  assert [t.sha256 for t in trained] == [t.sha256 for t in expected]
  assert _metrics(tmp_path) == _metrics(path)


@pytest.mark.parametrize(
    ('target', 'name', 'number'),
    [
        (checkpoints.StageCheckpoints, 'save', 3),
        (workdirs.WorkDir, 'append_metrics', 4),
    ],
)
def test_full_disk_is_said_and_training_goes_on(
    undisturbed, tmp_path, monkeypatch, target, name, number
):
  path, expected = undisturbed
  _fail_at(monkeypatch, number, target, name)
  lines = []
  trained = _run(
      tmp_path,
      faults=stages.Faults(on_checkpoint_error='continue'),
      note=lines.append,
  )
  assert 'No space left' in lines[0] and '=continue' in lines[0]
  assert [t.sha256 for t in trained] == [t.sha256 for t in expected]
  if target is checkpoints.StageCheckpoints:
    assert _metrics(tmp_path) == _metrics(path)


def test_the_last_checkpoint_of_a_stage_must_be_written(tmp_path, monkeypatch):
  _fail_at(monkeypatch, 2, checkpoints.StageCheckpoints, 'save')
  with pytest.raises(errors.StorageError):
    _run(tmp_path, faults=stages.Faults(on_checkpoint_error='continue'))


@contextlib.contextmanager
def _file_size_limit(size):
  """No file may grow beyond it: what is written fails as on a full disk."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# At every checkpoint of the run, from the first bytes on or in its middle.
@pytest.mark.parametrize('size', [500, _slow(0), _slow(2000)])
def test_no_room_at_any_checkpoint_leaves_those_before(
    undisturbed, tmp_path, monkeypatch, size
):
  path, expected = undisturbed
  save = checkpoints.StageCheckpoints.save
  failed = 0
  for number in range(1, 7):
    calls = []

    def save_once_without_room(saved, step, *args):
      calls.append(step)
      if len(calls) > 1:
        return save(saved, step, *args)
      with _file_size_limit(size):
        return save(saved, step, *args)

    with monkeypatch.context() as patch:
      patch.setattr(
          checkpoints.StageCheckpoints, 'save', save_once_without_room
      )
      with pytest.raises(errors.StorageError) as error:
        _run(tmp_path)
      failed += 1
    message = str(error.value)
    assert f'{calls[0]} cannot be written' in message and 'MB free' in message
    assert '\n' not in message
    # What is there restores.
    left = [p for p in (tmp_path / 'checkpoints').glob('*/*')]
    assert len(left) == len([p for p in left if p.name.isdigit()])
    with monkeypatch.context() as patch:
      # One more checkpoint, and the next has no room again.
      patch.setattr(checkpoints.StageCheckpoints, 'save', _Once(save))
      if number < 6:
        with pytest.raises(Killed):
          _run(tmp_path)
      else:
        trained = _run(tmp_path)
  assert failed == 6
  assert [t.sha256 for t in trained] == [t.sha256 for t in expected]
  assert _metrics(tmp_path) == _metrics(path)


class _Once:
  """Saves one checkpoint; the run is killed at the next."""

  def __init__(self, save):
    self._save = save
    self._saved = False

  def __get__(self, instance, unused_owner):
    return functools.partial(self, instance)

  def __call__(self, saved, step, *args):
    if self._saved:
      raise Killed
    self._saved = True
    return self._save(saved, step, *args)
