"""Tests of experiments.convert and converted_runs: files, runs and judges."""

import dataclasses
import os
import sys

import convert_test
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import celeba_runs
from experiments import convert
from experiments import discovery_runs
from experiments import evaluated_runs
from experiments import mnist_runs
from experiments import repeated_runs
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import judges
from jacsup_jax.interop import released as layouts
from jacsup_jax.interop import safetensors_files
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import replicas as grid


def fake_load(name, split, *, data_dir=None, image_shape=None):
  del data_dir
  return datasets.Dataset(
      name=name,
      split=split,
      images=np.zeros((20, *(image_shape or (28, 28, 1))), np.uint8),
      labels=np.arange(20, dtype=np.int32) % 10,
      num_classes=10,
      fingerprint=f'{name}-{split}',
  )


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
  monkeypatch.setattr(datasets, 'load', fake_load)


def write(folder, kind):
  """Writes a state dict with random numbers; returns its path and content."""
  state = convert_test.stored('celeba')[0]
  if kind != 'celeba':
    state = convert_test.paper_state(kind, 10 if kind == 'mnist_judge' else 5)
  rng = np.random.default_rng(0)
  state = {
      name: rng.uniform(0.1, 1, x.shape).astype(x.dtype)
      if x.dtype == np.float32
      else x
      for name, x in state.items()
  }
  path = folder / f'{kind}.safetensors'
  safetensors_files.write_state_dict(path, state)
  return path, state


def make_run_of_seeds(solo, path, *, together):
  """Makes a run of the seeds 0, a converted run's model, and 1, of zeros."""
  solo = workdirs.WorkDir(solo)
  manifest = solo.manifest
  values = {**manifest['flags'], 'seeds': 2, 'train_seeds': 'auto'}
  [(name, record)] = manifest['stages'].items()
  stages = {s.name: s for s in discovery_runs.make_stages(values)}
  first = discovery_runs.restore(
      mnist_runs.make_model, values, stages[name], solo
  )
  zeros = jax.tree.map(jnp.zeros_like, first.state)
  second = dataclasses.replace(first, state=zeros)
  if together:
    named = {name: grid.stack_members([first, second]).state}
  else:
    named = {f'{name}_seed0': first.state, f'{name}_seed1': zeros}
  run = workdirs.WorkDir(path)
  run.begin('mnist', values, manifest['dataset'], [], seeds_together=together)
  for name, state in named.items():
    with checkpoints.StageCheckpoints(run.checkpoints(name)) as saved:
      run.record_checkpoints(name, {'0': saved.save(0, state)})
    sha256 = checkpoints.hash_tree(state.params)
    run.record_stage(name, {**record, 'sha256': sha256})


def refuses(source, output, *parts, **kwargs):
  before = sorted(output.parent.rglob('*'))
  with pytest.raises(errors.InputError) as error:
    convert.convert_model(source, output, **kwargs)
  assert '\n' not in str(error.value)
  for part in parts:
    assert part in str(error.value)
  assert sorted(output.parent.rglob('*')) == before


@pytest.mark.parametrize('kind', layouts.KINDS)
def test_a_directory_gives_the_same_file_again(kind, tmp_path):
  path, state = write(tmp_path, kind)
  made, back = tmp_path / 'made', tmp_path / 'back.safetensors'
  options = {'attributes': ['a', 'b', 'c']} if kind == 'celeba' else {}
  convert.convert_model(path, made, kind=kind, **options)
  convert.convert_model(made, back, kind=kind, to='safetensors')
  convert_test.equal_bits(safetensors_files.read_state_dict(back), state)
  assert not list(tmp_path.glob('.*'))
  refuses(made, tmp_path / 'x', 'would make one again', kind=kind)
  refuses(path, made, 'is there already', kind=kind)


@pytest.mark.parametrize('kind', ['mnist_teacher', 'mnist_student'])
def test_runs_on_digits_are_read_as_any(kind, tmp_path, capsys):
  path, state = write(tmp_path, kind)
  line = convert.convert_model(path, tmp_path / 'run', kind=kind)
  run = workdirs.WorkDir(tmp_path / 'run')
  discovery_runs.check_recorded(run)
  values = run.manifest['flags']
  (stage,) = evaluated_runs.find_finished(
      run, discovery_runs.make_stages(values)
  )
  assert stage.name in line
  assert 'unfinished' in capsys.readouterr().err
  trained = discovery_runs.restore(mnist_runs.make_model, values, stage, run)
  assert trained.model.code_dim == 5
  assert trained.model.normalize_code == (kind == 'mnist_teacher')
  last = trained.state.params['decoder']['dense_3']['kernel']
  np.testing.assert_array_equal(last, state['decoder.6.weight'].T)
  assert run.manifest['dataset']['fingerprint'] == 'mnist_embedded-train'
  # It was not trained here, so nothing can be repeated.
  with pytest.raises(errors.InputError, match='was converted'):
    repeated_runs.read(tmp_path / 'run')
  other = set(layouts.KINDS[:2]) - {kind}
  refuses(
      tmp_path / 'run', tmp_path / 'x', 'of which there are none',
      kind=other.pop(), to='safetensors',
  )  # pyformat: disable


@pytest.mark.parametrize('together', [True, False])
def test_each_seed_of_a_run_can_be_had(tmp_path, together):
  path, state = write(tmp_path, 'mnist_student')
  run = tmp_path / 'run'
  convert.convert_model(path, tmp_path / 'solo', kind='mnist_student')
  make_run_of_seeds(tmp_path / 'solo', run, together=together)
  options = {'kind': 'mnist_student', 'to': 'safetensors'}
  for seed, scale in ((None, 1), (0, 1), (1, 0)):
    output = tmp_path / f'{seed}.safetensors'
    convert.convert_model(run, output, seed=seed, **options)
    convert_test.equal_bits(
        safetensors_files.read_state_dict(output),
        {name: x * np.float32(scale) for name, x in state.items()},
    )
  output = tmp_path / 'x'
  refuses(run, output, '--seed=2; accepted: 0 to 1', seed=2, **options)
  refuses(
      run, output, 'which there are student_d03.', stage='teacher', **options
  )


def test_a_run_on_faces_is_read_as_any(tmp_path):
  path, state = write(tmp_path, 'celeba')
  names = ['a', 'b', 'c']
  convert.convert_model(
      path, tmp_path / 'run', kind='celeba', attributes=names
  )
  run = workdirs.WorkDir(tmp_path / 'run')
  celeba_runs.check_recorded(run, with_data=True)
  values = run.manifest['flags']
  (stage,) = celeba_runs.make_stages(values)
  trained = celeba_runs.restore(values, stage, run, 3)
  bias = trained.state.params['encoder']['down_0']['bias']
  np.testing.assert_array_equal(bias, state['enc_layers.0.0.bias'])
  # Students of another run can grow from it.
  asked = values | {'teacher_workdir': str(tmp_path / 'run')}
  (teacher,) = celeba_runs.restore_teachers(asked, names, (0,)).values()
  assert teacher.sha256 == trained.sha256
  for wrong in ([], ['a', 'b'], ['a', 'b', 'b']):
    refuses(
        path, tmp_path / 'x', 'has 3 factors', kind='celeba', attributes=wrong
    )


def test_judges_are_read_as_any(tmp_path):
  path, state = write(tmp_path, 'mnist_judge')
  line = convert.convert_model(path, tmp_path / 'judge', kind='mnist_judge')
  found = judges.restore_or_train(tmp_path / 'judge', 'mnist_embedded', None)
  np.testing.assert_array_equal(
      found.params['logits']['kernel'][0], state['model.out.weight'].T
  )
  # All images are alike, and two of twenty have any one class.
  assert found.accuracy == pytest.approx((0.1,)) and '10.00%' in line
  refuses(
      tmp_path / 'judge', tmp_path / 'x', '--judge=1; accepted: less than 1',
      kind='mnist_judge', to='safetensors', judge=1,
  )  # pyformat: disable


def test_bad_files_and_places(tmp_path, monkeypatch):
  path, _ = write(tmp_path, 'mnist_teacher')
  output = tmp_path / 'x'
  refuses(path, output, '--kind=mnist_teacher', kind='mnist_judge')
  cut = tmp_path / 'cut.safetensors'
  cut.write_bytes(path.read_bytes()[:-1])
  refuses(cut, output, 'no whole safetensors', kind='mnist_teacher')
  refuses(tmp_path / 'no', output, kind='mnist_teacher')
  refuses(path, path / 'x', 'below the file', kind='mnist_teacher')
  refuses(tmp_path, output, 'is no run', kind='celeba', to='safetensors')
  refuses(tmp_path, output, 'judge.json', kind='mnist_judge', to='safetensors')
  monkeypatch.setitem(sys.modules, 'torch', None)
  refuses(
      path, output, 'not installed', kind='mnist_teacher', to='torch'
  )
  other = tmp_path / 'model.pth'
  os.rename(cut, other)
  refuses(other, output, 'not installed', kind='mnist_teacher')
