"""Tests of jacsup_jax.numerics, and of what stages do about bad numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.baselines import fader_training
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import losses
from jacsup_jax.data import batches
from jacsup_jax.data import faces
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import discovery
from jacsup_jax.training import numerics
from jacsup_jax.training import replicas as grid
from jacsup_jax.training import steps as training

DIGITS = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
BATCH_SIZE = 4
STEPS = 10  # Of an epoch.
# By term of Section 3: the function that computes it.
DIGIT_TERMS = {
    'reconstruction': 'reconstruction_loss',
    'factor_matching': 'factor_matching_loss',
    'jacobian': 'jacobian_loss',
    'cross_covariance': 'cross_covariance_loss',
}
FACE_TERMS = {
    'reconstruction': ('teacher', 'reconstruction_loss'),
    'attribute_hinge': ('phase_1', 'attribute_hinge_loss'),
    'cross_covariance': ('teacher', 'cross_covariance_loss'),
    'attribute_cycle': ('teacher', 'attribute_cycle_loss'),
    'nuisance_cycle': ('teacher', 'nuisance_cycle_loss'),
    'factor_matching': ('student', 'factor_matching_loss'),
    'jacobian': ('student', 'jacobian_loss'),
}
FACE_STAGES = {
    'phase_1': config.Stage(
        'phase_1', 'teacher', None, 8, 2,
        config.AttributeLossWeights(lambda_prediction=1.0, lambda_xcov=1.0),
    ),
    'teacher': config.Stage(
        'teacher', 'teacher', None, 8, 2,
        config.AttributeLossWeights(
            lambda_prediction=1.0, lambda_xcov=1.0,
            lambda_attribute_cycle=1.0, lambda_nuisance_cycle=1.0,
        ),
    ),
    'student': config.Stage(
        'student', 'student', 'teacher', 12, 2,
        config.AttributeLossWeights(lambda_y=1.0, lambda_diff=1.0),
    ),
}  # pyformat: disable


# Values.


def test_first_bad_step_and_its_terms_are_found():
  nan, inf = np.nan, np.inf
  metrics = {
      'loss': np.array([1.0, nan, nan]),
      'jacobian': np.array([0.5, inf, 0.1]),
      'reconstruction': np.array([0.5, 0.5, nan]),
  }
  with pytest.raises(numerics.NonFiniteError) as error:
    numerics.check_metrics(20, metrics)
  assert error.value.step == 21
  assert error.value.broken == ('jacobian',)
  assert numerics.describe(error.value, None) == 'jacobian is not finite'


def test_finite_metrics_are_no_error():
  numerics.check_metrics(0, {'loss': np.ones(3), 'a': np.zeros((3, 2))})
  numerics.check_metrics(0, {})


def test_members_of_a_grid_are_named():
  metrics = {'loss': np.array([[1.0, 2.0, 3.0], [1.0, np.nan, np.inf]])}
  with pytest.raises(numerics.NonFiniteError) as error:
    numerics.check_metrics(0, metrics)
  assert error.value.step == 1 and error.value.members == (1, 2)
  line = numerics.describe(error.value, None)
  assert line == 'loss of member 1, 2 of the grid is not finite'


@pytest.mark.parametrize(
    ('bad', 'expected'),
    [
        (
            {'the images', 'a', 'b', 'the gradient of a'},
            'the images are not finite',
        ),
        ({'a', 'the gradient of a', 'the gradient of b'}, 'a is not finite'),
        (
            {'the gradient of a', 'the gradient of b'},
            'the gradient of a and the gradient of b are not finite',
        ),
        (set(), 'x and y are not finite'),
    ],
)
def test_what_comes_first_is_named(bad, expected):
  names = (
      'the parameters', 'the images', 'a', 'b', 'the gradient of a',
      'the gradient of b',
  )  # pyformat: disable
  error = numerics.NonFiniteError(0, ['x', 'y'])
  found = {name: name not in bad for name in names}
  assert numerics.describe(error, found) == expected


def test_integers_and_empty_trees_are_finite():
  assert numerics.is_finite({'step': jnp.array(3), 'empty': {}})
  assert numerics.is_finite({})
  infinite = {'a': jnp.ones(2), 'b': jnp.array([1, jnp.inf])}
  assert not numerics.is_finite(infinite)


# Gradients.


def test_a_gradient_is_examined_where_the_term_is_finite():
  # The derivative of a root at 0.
  objective = lambda p: (p, ({'root': jnp.sqrt(p), 'square': p**2}, None))
  found = numerics.examine(jnp.array(0.0), {'the images': 1.0}, [objective])
  assert {name: bool(value) for name, value in found.items()} == {
      'the parameters': True, 'the images': True, 'root': True, 'square': True,
      'the gradient of root': False, 'the gradient of square': True,
  }  # pyformat: disable


# Invariants: a bad number at one batch of a run. It hangs on which examples
# are in the batch, so that another order of the data does not have it.


class _Poison:
  """Spoils something where a batch holds the examples of a given one."""

  def __init__(self, images, indices):
    self.mark = float(jnp.sum(images[indices, 0, 0, 0].astype(jnp.int32)))
    self.factor = None

  def look(self, images):
    """Makes the factor of a step from its images, uint8 or scaled to 1."""
    first = images[:, 0, 0, 0]
    if first.dtype != jnp.uint8:
      first = jnp.round(first * 255)
    is_marked = jnp.sum(first.astype(jnp.float32)) == self.mark
    self.factor = jnp.where(is_marked, jnp.nan, 1.0)

  def spoil_value(self, function):
    return lambda *args, **kwargs: function(*args, **kwargs) * self.factor

  def spoil_gradient(self, function):
    """The value stays; the gradient is that of a root at 0."""

    def spoiled(*args, **kwargs):
      value = function(*args, **kwargs)
      is_marked = jnp.isnan(self.factor)
      zero = jnp.where(is_marked, 0.0 * value, 1.0)
      return value + jnp.where(is_marked, jnp.sqrt(zero), 0.0)

    return spoiled


def _digits(epoch, step):
  indices = batches.epoch_indices(0, epoch, len(DIGITS), BATCH_SIZE)[step]
  return _Poison(DIGITS, np.asarray(indices))


def _run_digits(path, monkeypatch, poison, *, what=None, how=None, **faults):
  """Trains two stages; what the second's epoch 1 finds is spoiled."""
  gather = training._gather_inputs
  # How the poisoned batch is known, from the images that it is made of.
  def look(data, indices, *args):
    poison.look(jnp.take(data.images, indices, axis=0))
    inputs = gather(data, indices, *args)
    if what == 'images':
      return inputs._replace(images=inputs.images * poison.factor)
    return inputs

  monkeypatch.setattr(training, '_gather_inputs', look)
  if what in DIGIT_TERMS:
    name = DIGIT_TERMS[what]
    spoil = getattr(poison, f'spoil_{how}')
    monkeypatch.setattr(losses, name, spoil(getattr(losses, name)))
  make_model = lambda k, d, is_first: networks.MlpAutoencoder(
      k, d, is_first, image_shape=(4, 4, 1), widths=(8, 6)
  )
  recipe = discovery.Discovery(
      discovery.Settings(batch_size=BATCH_SIZE, learning_rate=1e-3),
      make_model, 2, jnp.asarray(DIGITS),
  )  # pyformat: disable
  weights = config.LossWeights()
  chain = [
      config.Stage('teacher', 'teacher', None, 0, 1, weights),
      config.Stage('d1', 'student', 'teacher', 1, 3, weights),
  ]
  return _run(path, chain, recipe, **faults)


def _run(path, chain, recipe, **faults):
  workdir = workdirs.WorkDir(path)
  workdir.begin('test', {}, {}, [])
  lines = []
  try:
    trained = stages.run(
        chain,
        recipe,
        workdir=workdir,
        evaluate=lambda model, variables: {},
        checkpoint_every=1,
        faults=stages.Faults(**faults),
        note=lines.append,
    )
  except errors.RunError as error:
    return str(error), lines
  return trained, lines


@pytest.mark.parametrize('how', ['value', 'gradient'])
@pytest.mark.parametrize(
    'what',
    [
        'jacobian',
        *(
            pytest.param(term, marks=pytest.mark.slow)
            for term in DIGIT_TERMS
            if term != 'jacobian'
        ),
    ],
)
def test_the_term_of_digits_is_named(tmp_path, monkeypatch, what, how):
  # Of epoch 2 of the student, the third of the chain, step 5.
  line, _ = _run_digits(
      tmp_path, monkeypatch, _digits(2, 5), what=what, how=how
  )
  of = 'the gradient of ' if how == 'gradient' else ''
  # A gradient shows in the terms of the step after it.
  step = STEPS + STEPS + 5 + (how == 'gradient')
  assert line.startswith(f'd1, epoch 2, step {step}: {of}{what} is not finite')
  assert 'step 20 stands' in line and '--on_nan=rollback' in line
  assert '\n' not in line
  # Nothing that is not finite was saved.
  steps = [int(p.name) for p in (tmp_path / 'checkpoints' / 'd1').iterdir()]
  assert sorted(steps) == [20]


def test_spoiled_images_are_named(tmp_path, monkeypatch):
  line, notes = _run_digits(
      tmp_path, monkeypatch, _digits(2, 5), what='images'
  )
  assert line.startswith('d1, epoch 2, step 25: the images are not finite')
  assert 'taken again' in notes[0]


@pytest.mark.parametrize(
    'step', [0, pytest.param(STEPS - 1, marks=pytest.mark.slow)]
)
def test_a_gradient_at_the_ends_of_an_epoch_is_named(
    tmp_path, monkeypatch, step
):
  line, _ = _run_digits(
      tmp_path, monkeypatch, _digits(2, step), what='jacobian', how='gradient'
  )
  assert 'epoch 2' in line and 'the gradient of jacobian' in line


def test_rollback_finishes_the_run(tmp_path, monkeypatch):
  trained, notes = _run_digits(
      tmp_path, monkeypatch, _digits(2, 5), what='jacobian', how='value',
      on_nan='rollback',
  )  # pyformat: disable
  assert [model.stage.name for model in trained] == ['teacher', 'd1']
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(trained[1].state))
  assert 'back to step 20' in notes[-1] and '(1 of 3)' in notes[-1]
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  [entry] = manifest['rollbacks']
  assert entry['stage'] == 'd1' and entry['to_step'] == 20
  assert 'jacobian is not finite' in entry['because']
  records = workdirs.WorkDir(tmp_path).read_metrics()
  assert [r['step'] for r in records] == [10, 20, 30, 40]
  # The same run, continued after its end or begun anew, is the same.
  again, _ = _run_digits(
      tmp_path, monkeypatch, _digits(2, 5), what='images', on_nan='stop'
  )
  assert [t.sha256 for t in again] == [t.sha256 for t in trained]


def test_rollbacks_have_an_end(tmp_path, monkeypatch):
  poison = _digits(2, 5)
  poison.look = lambda images: setattr(poison, 'factor', jnp.nan)
  line, notes = _run_digits(
      tmp_path, monkeypatch, poison, what='jacobian', how='value',
      on_nan='rollback', max_rollbacks=2,
  )  # pyformat: disable
  assert 'went back 2 times' in line and '--max_rollbacks' in line
  assert len([note for note in notes if 'back to' in note]) == 2


# Faces.


def _make_faces():
  random = np.random.default_rng(0)
  return faces.FaceDataset(
      name='small',
      split='train',
      attribute_names=('Bald', 'Smiling'),
      image_size=8,
      fingerprint='small',
      attributes=random.choice([-1, 1], (40, 2)).astype(np.int8),
      images=random.integers(0, 256, (40, 8, 8, 3), np.uint8),
  )


@pytest.mark.parametrize(
    'on_device',
    [
        pytest.param(True, id='resident'),
        pytest.param(False, id='fed', marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    'what',
    [
        'jacobian',
        'images',
        *(
            pytest.param(term, marks=pytest.mark.slow)
            for term in FACE_TERMS
            if term != 'jacobian'
        ),
    ],
)
def test_the_term_of_faces_is_named(tmp_path, monkeypatch, what, on_device):
  stage, name = FACE_TERMS.get(what, ('teacher', None))
  if not on_device and stage == 'student':
    pytest.skip('as the teacher')
  data = _make_faces()
  # Of the second epoch of the stage.
  epoch = 3 if stage == 'student' else 1
  rows = np.asarray(batches.epoch_indices(0, epoch, 40, BATCH_SIZE)[5])
  poison = _Poison(data.images, rows)
  make = attribute_training.make_inputs

  def look(step, batch, *args, **kwargs):
    poison.look(batch.images)
    inputs = make(step, batch, *args, **kwargs)
    if what == 'images':
      return inputs._replace(images=inputs.images * poison.factor)
    return inputs

  # Which corner is looked at must not change.
  monkeypatch.setattr(batches, 'mirror', lambda images, flags: images)
  monkeypatch.setattr(attribute_training, 'make_inputs', look)
  if name:
    monkeypatch.setattr(losses, name, poison.spoil_value(getattr(losses, name)))
  make_model = lambda dim: networks.FaceAutoencoder(
      2, dim // 4, image_size=8, first_width=4, last_width=4
  )
  recipe = editing.Editing(
      editing.Settings(batch_size=BATCH_SIZE, on_device=on_device),
      make_model, data,
  )  # pyformat: disable
  names = ['phase_1'] if stage == 'phase_1' else ['teacher', 'student']
  chain = [FACE_STAGES[name] for name in names]
  line, _ = _run(tmp_path, chain, recipe)
  verb = 'are' if what == 'images' else 'is'
  article = 'the ' if what == 'images' else ''
  assert isinstance(line, str), 'it did not stop'
  assert line.startswith(
      f'{stage}, epoch 2, step {epoch * STEPS + 5}: {article}{what} {verb} not'
      ' finite'
  )


@pytest.mark.parametrize('what', ['reconstruction', 'discriminator'])
def test_the_term_of_fader_networks_is_named(tmp_path, monkeypatch, what):
  data = _make_faces()
  rows = np.asarray(batches.epoch_indices(0, 0, 40, BATCH_SIZE)[3])
  poison = _Poison(data.images, rows)
  make = fader_training._make_inputs

  def look(state, batch, *args):
    poison.look(batch.images)
    return make(state, batch, *args)

  monkeypatch.setattr(batches, 'mirror', lambda images, flags: images)
  monkeypatch.setattr(fader_training, '_make_inputs', look)
  if what == 'reconstruction':
    monkeypatch.setattr(
        losses,
        'reconstruction_loss',
        poison.spoil_value(losses.reconstruction_loss),
    )
  else:
    objective = fader_training.discriminator_objective

    def spoiled(*args, **kwargs):
      loss, (metrics, stats) = objective(*args, **kwargs)
      loss = loss * poison.factor
      return loss, ({**metrics, 'discriminator': loss}, stats)

    monkeypatch.setattr(fader_training, 'discriminator_objective', spoiled)
  make_model = lambda dim: fader_networks.FaderAutoencoder(
      2, dim // 4, image_size=8, first_width=4, last_width=4,
      discriminator_width=6, discriminator_hidden=5,
  )  # pyformat: disable
  recipe = fader_training.FaderEditing(
      editing.Settings(batch_size=BATCH_SIZE), make_model, data
  )
  weights = config.FaderLossWeights(1.0, ramp_steps=0)
  line, _ = _run(
      tmp_path, [config.Stage('fader', 'fader', None, 8, 1, weights)], recipe
  )
  assert line.startswith(f'fader, epoch 1, step 3: {what} is not finite')


# A grid.


def test_a_member_of_a_grid_is_named(tmp_path, monkeypatch):
  members = [
      grid.Member(0, config.LossWeights(lambda_diff=0.1)),
      grid.Member(0, config.LossWeights(lambda_diff=2.0)),
  ]
  make_model = lambda k, d, is_first: networks.MlpAutoencoder(
      k, d, is_first, image_shape=(4, 4, 1), widths=(8, 6)
  )
  recipe = grid.GridDiscovery(
      discovery.Settings(batch_size=BATCH_SIZE),
      make_model, 2, jnp.asarray(DIGITS), members,
  )  # pyformat: disable
  chain = grid.make_stages(members, [1], 2)
  chain[0] = dataclasses.replace(chain[0], epochs=1)
  make_objective = training.make_student_objective

  def make_spoiled(model, weights, **kwargs):
    objective = make_objective(model, weights, **kwargs)

    def spoiled(*args):
      loss, (metrics, stats) = objective(*args)
      factor = jnp.where(weights.lambda_diff > 1, jnp.nan, 1.0)
      metrics = {**metrics, 'jacobian': metrics['jacobian'] * factor}
      return loss * factor, (metrics, stats)

    return spoiled

  monkeypatch.setattr(training, 'make_student_objective', make_spoiled)
  line, _ = _run(tmp_path, chain, recipe)
  assert line.startswith(
      'student_d01, epoch 1, step 10: jacobian of member 1 of the grid is not'
  )
