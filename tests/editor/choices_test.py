"""Tests of experiments.edited_runs, on runs of experiments.mnist."""

import json
import shutil

import fuzzing
import numpy as np
import pytest
import small_runs

from experiments import edited_runs
from experiments import samples
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.editor import editor
from jacsup_jax.evaluation import judges
from jacsup_jax.runs import workdir as workdirs

NAMES = ('teacher', 'student_d01')
# Of validation: the run has not seen all of the training images.
SPLIT = '--eval_split=validation'


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A run and its judge; of several seeds, see seeds_test."""
  root = tmp_path_factory.mktemp('runs')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, 'load', small_runs.load)
    judges.restore_or_train(root / 'judge', 'small', None, seeds=(0,), epochs=1)
  status, _, err = small_runs.invoke(
      f'--workdir={root / "solo"}', f'--judge_workdir={root / "judge"}', SPLIT
  )
  assert status == 0, err
  return root


@pytest.fixture
def copied(runs, tmp_path):
  """A run that a test may change."""
  return workdirs.WorkDir(shutil.copytree(runs / 'solo', tmp_path / 'run'))


@pytest.fixture
def with_data(monkeypatch):
  monkeypatch.setattr(datasets, 'load', small_runs.load)


def _scales(run):
  return json.loads((run.path / 'scales.json').read_text())


# Values.


def test_scales_of_a_run_are_those_measured_later(copied, with_data):
  written = _scales(copied)
  assert set(written['stages']) == set(NAMES)
  found = [stage.name for stage in edited_runs.list_stages(copied)]
  assert found == list(NAMES)
  kept = [edited_runs.load(copied, stage=name).units for name in NAMES]
  (copied.path / 'scales.json').unlink()
  for name, units in zip(NAMES, kept):
    assert edited_runs.load(copied, stage=name).units == units
  assert _scales(copied) == written


def test_deviations_are_those_of_numpy(runs, with_data):
  own = edited_runs.load(workdirs.WorkDir(runs / 'solo'))
  images = small_runs.load('small', 'train_minus_validation').images
  code = own.encode(images).code
  values = np.concatenate([code.factors, code.nuisance], axis=1)
  assert [unit.name for unit in own.units] == ['y1', 'y2', 'z1']
  assert [unit.kind for unit in own.units] == [
      editor.FACTOR, editor.FACTOR, editor.NUISANCE
  ]  # pyformat: disable
  np.testing.assert_allclose(
      [unit.deviation for unit in own.units], values.std(axis=0), rtol=1e-4
  )
  assert own.image_shape == (28, 28, 1) and not own.is_signed
  assert own.title == 'solo, student_d01'


def test_samples_are_those_of_the_split(runs, with_data):
  run = workdirs.WorkDir(runs / 'solo')
  found = samples.of_run(run)
  expected = small_runs.load('small', 'validation').images
  assert found.count == len(expected)
  np.testing.assert_array_equal(found.read_first(5), expected[:5])
  np.testing.assert_array_equal(found.read([4, 2]), expected[[4, 2]])


# Invariants.


def test_no_data_are_needed_where_scales_are(runs):
  for name in NAMES:
    edited_runs.load(workdirs.WorkDir(runs / 'solo'), stage=name)


def test_a_complete_run_is_left_alone(runs):
  before = (runs / 'solo' / 'scales.json').stat().st_mtime_ns
  status, out, _ = small_runs.invoke(f'--workdir={runs / "solo"}', SPLIT)
  assert status == 0 and 'is complete' in out
  assert (runs / 'solo' / 'scales.json').stat().st_mtime_ns == before


def test_a_run_that_goes_on_writes_over_damaged_scales(runs, copied):
  written = _scales(copied)
  (copied.path / 'results.json').unlink()
  (copied.path / 'scales.json').write_text('{')
  status, _, err = small_runs.invoke(
      f'--workdir={copied.path}', f'--judge_workdir={runs / "judge"}', SPLIT
  )  # pyformat: disable
  assert status == 0, err
  assert _scales(copied) == written
  # Nothing else depends on them.
  for name in ('results.json', 'metrics.jsonl'):
    assert (copied.path / name).read_bytes() == (
        runs / 'solo' / name
    ).read_bytes()


def test_scales_of_other_weights_are_measured_again(copied, with_data):
  written = _scales(copied)
  stale = json.loads(json.dumps(written))
  entry = stale['stages']['student_d01']
  entry['sha256'] = '0' * 64
  entry['units'][0]['deviation'] = 1234.5
  (copied.path / 'scales.json').write_text(json.dumps(stale))
  own = edited_runs.load(copied)
  assert own.units[0].deviation != 1234.5
  assert _scales(copied) == written


@pytest.mark.parametrize('stage', [None, 'teacher'])
def test_one_stage_that_is_missing_leaves_the_others(copied, with_data, stage):
  written = _scales(copied)
  name = stage or 'student_d01'
  fewer = {n: e for n, e in written['stages'].items() if n != name}
  (copied.path / 'scales.json').write_text(json.dumps({'stages': fewer}))
  edited_runs.load(copied, stage=stage)
  assert _scales(copied) == written


# Mistakes.


def test_missing_data_are_one_line(copied):
  (copied.path / 'scales.json').unlink()
  with pytest.raises(errors.InputError) as info:
    edited_runs.load(copied)
  fuzzing.check_message(str(info.value), 'small')
  assert not (copied.path / 'scales.json').exists()


@pytest.mark.parametrize(
    'text',
    [
        '', '{', '[]', 'null', '{}', '{"stages": []}', '\0', '{"stages": 1}',
        '[' * 10_000,
    ],
)
def test_damaged_scales_are_one_line(copied, with_data, text):
  (copied.path / 'scales.json').write_text(text)
  with pytest.raises(errors.InputError) as info:
    edited_runs.load(copied)
  fuzzing.check_message(str(info.value), copied.path / 'scales.json')


@pytest.mark.parametrize(
    'change',
    [
        {'units': None}, {'units': 'x'}, {'units': [1]}, {'units': [{}]},
        {'units': [{'name': 'y1'}]},
    ],
)
def test_damaged_entries_are_one_line(copied, with_data, change):
  scales = _scales(copied)
  scales['stages']['student_d01'] |= change
  (copied.path / 'scales.json').write_text(json.dumps(scales))
  with pytest.raises(errors.InputError) as info:
    edited_runs.load(copied)
  fuzzing.check_message(str(info.value), copied.path / 'scales.json')


@pytest.mark.parametrize('remove', [1, 3])
def test_units_of_another_number_are_refused(copied, with_data, remove):
  scales = _scales(copied)
  entry = scales['stages']['student_d01']
  entry['units'] = entry['units'][:-remove]
  (copied.path / 'scales.json').write_text(json.dumps(scales))
  with pytest.raises(errors.InputError) as info:
    edited_runs.load(copied)
  fuzzing.check_message(str(info.value), copied.path / 'scales.json')


def test_unknown_stages_are_refused(copied):
  with pytest.raises(errors.InputError, match='student_d01'):
    edited_runs.load(copied, stage='student_d09')


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='manifest.json'):
    edited_runs.load(workdirs.WorkDir(tmp_path))
