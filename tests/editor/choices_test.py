"""Models to choose from: stages of runs, files, the demo model."""

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

SPREAD = {'train': 2.0, 'test': 1.0}


def fake_load(name, split='train', **unused_options):
  random = np.random.default_rng(len(split))
  images = random.integers(0, 100 * SPREAD[split], (70, 28, 28, 1), np.uint8)
  labels = np.arange(70, dtype=np.int32) % 10
  return registry.Dataset(
    name=name, split=split, images=images, labels=labels, fingerprint='x'
  )


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
  monkeypatch.setattr(registry, 'load', fake_load)


def write_run(path, models=('student', 'student_unconstrained')):
  """Writes a run of a teacher and of students that grew from it."""
  weights = config.LossWeights()
  chain = [config.Stage('teacher', 'teacher', None, 0, 3, weights)]
  chain += [
      config.Stage(f'{model}_d1', model, 'teacher', 1, 3, weights if i == 0
                   else config.LossWeights(lambda_y=0, lambda_diff=0))
      for i, model in enumerate(models)
  ]  # fmt: skip
  run = workdirs.WorkDir(path)
  data = {'name': 'small', 'fingerprint': 'x', 'options': {}}
  run.begin('any', {}, data, [stage.name for stage in chain])
  for number, stage in enumerate(chain):
    module = autoencoders.MlpAutoencoder(2, stage.nuisance_dim, widths=(4,))
    state = steps.TrainState(
      np.int32(1), **autoencoders.init_variables(module, number), opt_state=()
    )
    stages.save_finished(run, steps.Trained(stage, module, state))
  return path


@pytest.fixture
def run(tmp_path):
  return write_run(tmp_path / 'a run')


def test_the_supervised_student_comes_first(run):
  found = choices.find(str(run))
  assert [(own.id, own.group, own.title) for own in found] == [
    ('a.run.student_d1', 'a run', 'student_d1'),
    ('a.run.teacher', 'a run', 'teacher'),
    ('a.run.student_unconstrained_d1', 'a run', 'student_unconstrained_d1'),
  ]
  first = choices.find(str(run), stage='teacher')[0]
  assert first.title == 'teacher'


def test_deviations_are_those_of_numpy_and_are_kept(run, monkeypatch):
  own = choices.find(str(run))[0].load()
  assert own.title == 'a run, student_d1'
  code = own.encode(fake_load('small').images).code
  values = np.concatenate([code.factors, code.nuisance], axis=1)
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


def test_samples_of_a_run_are_its_test_images(run):
  own = choices.find(str(run))[0]
  found = own.open_samples(None)
  expected = fake_load('small', 'test').images
  assert found.count == len(expected)
  np.testing.assert_array_equal(found.read([4, 2]), expected[[4, 2]])


def test_a_folder_of_runs(tmp_path, caplog):
  write_run(tmp_path / 'b' / 'run', ())
  write_run(tmp_path / 'a', ())
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / 'manifest.json').write_text('{')
  found = choices.find(str(tmp_path))
  assert [own.id for own in found] == ['a.teacher', 'b.run.teacher']
  assert '1 runs' in caplog.text


def _refused(*args, **options):
  with pytest.raises(errors.InputError, match='accepted') as info:
    choices.find(*args, **options)[0].load()
  return str(info.value)


def test_other_places_and_stages_are_refused(run, tmp_path):
  assert 'student_d1' in _refused(str(run), stage='student_d09')
  assert 'is not a run' in _refused(str(tmp_path), stage='teacher')
  (tmp_path / 'empty').mkdir()
  assert 'holds no run' in _refused(str(tmp_path / 'empty'))
  assert 'does not exist' in _refused(str(tmp_path / 'none'))


@pytest.mark.parametrize('entry', [None, [{'name': 'y1'}]], ids=str)
def test_damaged_units_are_refused(run, entry):
  choices.find(str(run))[0].load()
  stored = json.loads((run / 'scales.json').read_text())
  stored['student_d1']['units'] = entry
  (run / 'scales.json').write_text(json.dumps(stored))
  assert 'scales.json' in _refused(str(run))
  (run / 'scales.json').write_text('{')
  assert 'scales.json' in _refused(str(run))


def test_models_that_do_not_predict_their_factors_are_left_out(tmp_path):
  run = workdirs.WorkDir(tmp_path / 'faders')
  run.begin('any', {}, {'name': 'small'}, ['fader'])
  stage = config.Stage('fader', 'fader', None, 8, 1, config.LossWeights())
  module = fader.FaderAutoencoder(2, 2, image_size=8)
  state = steps.TrainState(
    np.int32(1), **autoencoders.init_variables(module, 0), opt_state=()
  )
  stages.save_finished(run, steps.Trained(stage, module, state))
  assert 'no finished model to edit with' in _refused(str(tmp_path / 'faders'))
