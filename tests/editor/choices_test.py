"""Models to choose from: stages of runs, files, the demo model."""

import dataclasses
import json

import numpy as np
import pytest

from jacsup_jax.baselines import fader
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.editor import choices
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import steps

WEIGHTS = config.LossWeights()
UNSUPERVISED = config.LossWeights(lambda_y=0, lambda_diff=0)
TEACHER = config.Stage('teacher', 'teacher', None, 0, 3, WEIGHTS)
STUDENT = config.Stage('student_d1', 'student', 'teacher', 1, 3, WEIGHTS)
OTHER = 'student_unconstrained'
CHAIN = (
  TEACHER,
  STUDENT,
  config.Stage(f'{OTHER}_d1', OTHER, 'teacher', 1, 3, UNSUPERVISED),
)


RESULTS = {
  'edit_values_by_attribute': {'y1': [-2.0, 2.0]},
  'attribute_flips_balanced_by_attribute': {'y1': 0.7},
  'kept_by_attribute': {'y1': 0.9},
}


def fake_load(name, split='train', **unused_options):
  random = np.random.default_rng(len(split))
  images = random.integers(0, 200, (70, 28, 28, 1), np.uint8)
  labels = np.arange(70, dtype=np.int32) % 10
  return registry.Dataset(name, split, images, labels, fingerprint='x')


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
  monkeypatch.setattr(registry, 'load', fake_load)


def write_run(path, chain=CHAIN, module=None):
  """Writes a run of stages that are not trained."""
  run = workdirs.WorkDir(path)
  data = {'name': 'small', 'fingerprint': 'x', 'options': {}}
  run.begin('any', {}, data, [stage.name for stage in chain])
  for stage in chain:
    own = module or autoencoders.MlpAutoencoder(
      2, stage.nuisance_dim, widths=(4,)
    )
    variables = autoencoders.init_variables(own, 0)
    state = steps.TrainState(np.int32(1), **variables, opt_state=())
    stages.save_finished(run, steps.Trained(stage, own, state))
  return path


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('runs') / 'a run')


def test_the_supervised_student_comes_first(run):
  found = choices.find(str(run))
  names = ['student_d1', 'student_unconstrained_d1', 'teacher']
  assert [own.id for own in found] == [f'a.run.{name}' for name in names]
  assert [own.title for own in found] == [
    'Student, d = 1, with Jacobian supervision',
    'Student, d = 1, with reconstruction alone',
    'Teacher, d = 0',
  ]
  assert {own.group for own in found} == {'a run'}
  assert choices.find(str(run), 'teacher')[0].id == 'a.run.teacher'


def test_students_with_and_without_supervision_are_a_pair(tmp_path):
  make = lambda model, dim: dataclasses.replace(
    STUDENT, name=f'{model}_d{dim}', model=model, nuisance_dim=dim
  )
  chain = [
    TEACHER,
    *(make('student', dim) for dim in (1, 2)),
    *(make('student_no_jacobian', dim) for dim in (2, 3)),
  ]
  found = choices.find(str(write_run(tmp_path / 'r', chain)))
  pairs = {own.id: own.counterpart for own in found if own.counterpart}
  pair = 'r.student_d2', 'r.student_no_jacobian_d2'
  assert pairs == {pair[0]: pair[1], pair[1]: pair[0]}


def test_deviations_are_those_of_numpy_and_are_kept(run, monkeypatch):
  found = choices.find(str(run))[0]
  samples, expected = found.open_samples(None), fake_load('x', 'test').images
  assert samples.count == len(expected)
  np.testing.assert_array_equal(samples.read([4, 2]), expected[[4, 2]])
  own = found.load()
  assert own.title == 'a run, student_d1'
  code = own.encode(fake_load('small').images).code
  values = np.concatenate(code, axis=1)
  assert [unit.name for unit in own.units] == ['y1', 'y2', 'z1']
  np.testing.assert_allclose(
    [unit.deviation for unit in own.units], values.std(axis=0), rtol=1e-4
  )
  # The next time no data are needed.
  monkeypatch.setattr(registry, 'load', None)
  assert choices.find(str(run))[0].load().units == own.units
  # Those of other weights are measured again.
  monkeypatch.setattr(registry, 'load', fake_load)
  stale = {'student_d1': {'sha256': '0', 'units': []}}
  (run / 'scales.json').write_text(json.dumps(stale))
  assert choices.find(str(run))[0].load().units == own.units


def test_what_is_known_of_a_model_is_measured_once(run):
  own = choices.find(str(run))[0].load()
  profile = own.profile
  assert profile.about == (
    'a student of 2 factors and d = 1, trained with Jacobian supervision on'
    ' small'
  )
  encoded = own.encode(fake_load('small').images)
  errors = np.square(encoded.images - encoded.reconstructions).mean((1, 2, 3))
  expected = np.quantile(errors, [0.5, 0.99])
  np.testing.assert_allclose([*profile.errors.values()], expected, rtol=1e-4)
  assert set(profile.layout.centers) == {str(i) for i in range(10)}
  # Results that a run has later are read when they are there.
  (run / 'results.json').write_text(json.dumps({'protocol': '', 'rows': [
      {'sha256': 'another'}, RESULTS | {'sha256': _sha256(run, 'student_d1')},
  ]}))  # fmt: skip
  score = choices.find(str(run))[0].load().profile.edits['y1']
  assert (score.present, score.flips, score.kept) == (2.0, 0.7, 0.9)
  assert score.is_weak
  (run / 'results.json').write_text('{')
  assert choices.find(str(run))[0].load().profile == profile
  (run / 'results.json').unlink()


def _sha256(run, stage):
  manifest = json.loads((run / 'manifest.json').read_text())
  return manifest['stages'][stage]['sha256']


def test_a_folder_of_runs_keeps_the_demo(tmp_path):
  write_run(tmp_path / 'a', [TEACHER])
  ids = lambda **flags: [own.id for own in choices.find(**flags)]
  assert ids(runs_dir=str(tmp_path)) == ['a.teacher', 'faces']
  run = str(tmp_path / 'a')
  assert ids(workdir=run, runs_dir=str(tmp_path)) == ['a.teacher', 'faces']
  write_run(tmp_path / 'b', [TEACHER])
  found = ids(workdir=str(tmp_path / 'b'), runs_dir=str(tmp_path))
  assert found == ['b.teacher', 'a.teacher', 'faces']
  assert ids() == ['faces']
  for place in ('none', 'a/manifest.json', 'a'):
    with pytest.raises(errors.InputError, match='--runs_dir.*accepted'):
      choices.find(runs_dir=str(tmp_path / place))


def test_a_folder_of_runs(tmp_path, caplog):
  write_run(tmp_path / 'b' / 'run', [TEACHER])
  write_run(tmp_path / 'a', [TEACHER])
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / 'manifest.json').write_text('{')
  found = choices.find(str(tmp_path))
  assert [own.id for own in found] == ['a.teacher', 'b.run.teacher']
  assert '1 runs' in caplog.text


def _refused(*args):
  with pytest.raises(errors.InputError, match='accepted') as info:
    choices.find(*args)[0].load()
  return str(info.value)


def test_other_places_stages_units_and_models_are_refused(run, tmp_path):
  assert 'student_d1' in _refused(str(run), 'student_d09')
  assert 'is not a run' in _refused(str(tmp_path), 'teacher')
  assert 'holds no run' in _refused(str(tmp_path))
  assert 'does not exist' in _refused(str(tmp_path / 'none'))
  stage = config.Stage('fader', 'fader', None, 8, 1, WEIGHTS)
  module = fader.FaderAutoencoder(2, 2, image_size=8)  # predicts no factors
  write_run(tmp_path / 'faders', [stage], module)
  assert 'no finished model to edit with' in _refused(str(tmp_path / 'faders'))
  choices.find(str(run))[0].load()
  stored = json.loads((run / 'scales.json').read_text())
  for change in ({'units': [{'name': 'y1'}]}, {'profile': {'errors': 1}}):
    changed = {'student_d1': stored['student_d1'] | change}
    (run / 'scales.json').write_text(json.dumps(changed))
    assert 'scales.json' in _refused(str(run))
  (run / 'scales.json').write_text('{')
  assert 'scales.json' in _refused(str(run))
