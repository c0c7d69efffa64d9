"""Files of released weights as runs and judges, and back."""

import sys

import chex
import jax
import numpy as np
import pytest

from experiments import cli
from experiments import convert
from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_judges
from jacsup_jax.evaluation import judges
from jacsup_jax.interop import converted_runs
from jacsup_jax.interop import released
from jacsup_jax.interop import state_dicts
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.runs import run as runs

MODULES = {
  'teacher': autoencoders.MlpAutoencoder(
    2, 0, normalize_code=True, widths=(4,)
  ),
  'student': autoencoders.MlpAutoencoder(2, 3, widths=(4,)),
  'judge': classifiers.MlpJudge(10),
  'faces': autoencoders.FaceAutoencoder(
    3, 2, image_size=8, first_width=4, last_width=4
  ),
}


def fake_load(name, split='train', *, image_shape=None, **unused_options):
  images = np.zeros((20, *(image_shape or (28, 28, 1))), np.uint8)
  labels = np.arange(20, dtype=np.int32) % 10
  content = f'{name}-{split}'
  return registry.Dataset(name, split, images, labels, fingerprint=content)


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
  monkeypatch.setattr(registry, 'load', fake_load)


def write(folder, kind):
  """Writes a file of a module with random numbers; returns path and content."""
  module = MODULES[kind]
  random = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: random.uniform(0.1, 1, x.shape).astype(np.float32),
    jax.eval_shape(lambda: autoencoders.init_variables(module, 0)),
  )
  steps = 77 if variables['batch_stats'] else 0
  state = released.to_state_dict(released.Converted(module, variables, steps))
  path = folder / f'{kind}.safetensors'
  state_dicts.write(path, state)
  return path, state


def convert_with_flags(source, output, *flags):
  argv = [f'--input={source}', f'--output={output}', *flags]
  convert.main(cli.parse(convert.Config(), argv))


def refuses(function, source, output, part, **options):
  before = sorted(source.parent.rglob('*'))
  with pytest.raises(errors.InputError, match=part) as error:
    function(source, output, **options)
  assert '\n' not in str(error.value)
  assert sorted(source.parent.rglob('*')) == before


@pytest.mark.parametrize('kind', ['teacher', 'student', 'faces'])
def test_a_converted_run_is_opened_as_any_and_gives_the_file_again(
  kind, tmp_path, capsys
):
  path, state = write(tmp_path, kind)
  made, back = tmp_path / 'run', tmp_path / 'back.safetensors'
  names = ['--attributes=a,b,c'] if kind == 'faces' else []
  convert_with_flags(path, made, '--epochs=7', *names)
  line = capsys.readouterr().out
  refuses(converted_runs.import_model, path, made, 'exists')
  run = runs.Run.open(made)
  # The one stage is planned and finished: nothing is missing.
  [name] = run.stages
  assert run.planned == run.stages and f'stage {name}' in line
  assert name == ('student_d03' if kind == 'student' else 'teacher')
  assert run.stage(name).epochs == 7
  assert run.module(name) == MODULES[kind]
  params = run.restore(name).params
  if kind == 'faces':
    np.testing.assert_array_equal(
      params['encoder']['down_0']['bias'], state['enc_layers.0.0.bias']
    )
    assert run.factor_names == ['a', 'b', 'c']
  else:
    np.testing.assert_array_equal(
      params['decoder']['dense_1']['kernel'], state['decoder.2.weight'].T
    )
    assert run.factor_names == ['y1', 'y2']
    assert run.manifest['dataset']['fingerprint'] == 'mnist_embedded-train'
    assert run.load_data('test').image_shape == (28, 28, 1)
  assert run.manifest['converted']['file'] == path.name
  convert_with_flags(made, back)
  chex.assert_trees_all_equal(state_dicts.read(back), state, strict=True)


def test_a_judge_is_restored_as_any(tmp_path):
  path, state = write(tmp_path, 'judge')
  line = converted_runs.import_model(path, tmp_path / 'judge')
  found = judges.restore(
    tmp_path / 'judge' / 'mlp', class_judges.NetworkJudges, family='mlp'
  )
  np.testing.assert_array_equal(
    found.variables['params']['logits']['kernel'][0],
    state['model.out.weight'].T,
  )
  # All images are equal, and two of twenty have any one class.
  assert found.accuracy == pytest.approx((0.1,)) and '10.00%' in line
  # So it judges nothing.
  with pytest.raises(errors.InputError, match='10.00% .* accepted: 97.50%'):
    class_judges.restore_or_train(tmp_path / 'judge', 'mnist_embedded', None)


def test_bad_files_and_places(tmp_path, monkeypatch):
  path, _ = write(tmp_path, 'teacher')
  output, import_model = tmp_path / 'x', converted_runs.import_model
  with pytest.raises(errors.InputError, match='--input or --output'):
    convert.main(convert.Config())
  refuses(import_model, path, path / 'x', 'is a file')
  refuses(import_model, path, tmp_path / 'a[b]', '--output')
  export, file = converted_runs.export_model, tmp_path / 'x.safetensors'
  refuses(export, tmp_path, file, 'no manifest.json')
  faces, _ = write(tmp_path, 'faces')
  wrong = {'attributes': ('a', 'b', 'b')}
  refuses(import_model, faces, output, '3 factors', **wrong)
  import_model(path, tmp_path / 'run')
  refuses(export, tmp_path / 'run', file, 'no_stage', stage='no_stage')
  monkeypatch.setitem(sys.modules, 'torch', None)
  # Before the model is loaded, and a folder is made.
  refuses(export, tmp_path, tmp_path / 'new' / 'x.pth', 'not installed')
  path.rename(tmp_path / 'model.pth')
  refuses(import_model, tmp_path / 'model.pth', output, 'not installed')
