"""Models in one file, whole or damaged."""

import json

from flax import traverse_util
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.editor import editor
from jacsup_jax.editor import model_files
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.models import model as models

MODULES = {
  'digits': autoencoders.MlpAutoencoder(
    2, 1, normalize_code=True, image_shape=(4, 4, 1), widths=(5,)
  ),
  'houses': autoencoders.SvhnAutoencoder(
    1, 2, image_shape=(8, 8, 3), widths=(4, 4), linear_code=True
  ),
  'faces': autoencoders.FaceAutoencoder(
    3, 1, image_size=8, first_width=4, last_width=4, linear_factors=True
  ),
}


def _make(name):
  module = MODULES[name]
  count = module.num_factors + (0 if name == 'faces' else module.nuisance_dim)
  units = tuple(
    unit_scales.Unit(f'u{i}', unit_scales.FACTOR, 0.1, 0.5 + i, -1.0, 1.0)
    for i in range(count)
  )
  variables = autoencoders.init_variables(module, 0)
  model = models.Model(module, variables['params'], variables['batch_stats'])
  return editor.Editor(model, units, f'a run, {name}')


def _flat(own):
  return traverse_util.flatten_dict(
    jax.device_get(own.model.variables), sep='/'
  )


@pytest.mark.parametrize('name', MODULES)
def test_an_editor_is_read_as_it_was_written(name, tmp_path):
  own = _make(name)
  model_files.write(tmp_path / 'x', own)
  read = model_files.read(tmp_path / 'x')
  assert read.model.module == own.model.module
  assert (read.units, read.title) == (own.units, own.title)
  found, expected = _flat(read), _flat(own)
  assert set(found) == set(expected)
  for key, x in expected.items():
    np.testing.assert_array_equal(found[key], x)
    assert found[key].dtype == np.float32


def _refused(path, *parts):
  with pytest.raises(errors.InputError) as info:
    model_files.read(path)
  message = str(info.value)
  assert message.isprintable() and len(message) < 3000
  for part in (str(path), *parts):
    assert part in message, message


@pytest.fixture
def saved(tmp_path):
  """The tensors of a file, its entry, and a function that writes others."""
  path = tmp_path / 'model.safetensors'
  model_files.write(path, _make('digits'))
  content = path.read_bytes()
  tensors = safetensors_numpy.load(content)
  size = int.from_bytes(content[:8], 'little')
  header = json.loads(content[8 : 8 + size])
  entry = json.loads(header['__metadata__']['jacsup_jax_editor'])

  def rewrite(tensors=tensors, entry=entry):
    text = entry if isinstance(entry, str) else json.dumps(entry)
    path.write_bytes(
      safetensors_numpy.save(tensors, {'jacsup_jax_editor': text})
    )
    return path

  return tensors, entry, rewrite


def test_a_file_cut_anywhere_is_refused(saved):
  path = saved[2]()
  content = path.read_bytes()
  for size in range(0, len(content), 397):
    path.write_bytes(content[:size])
    _refused(path, 'accepted')


def test_weights_of_an_unknown_model_are_refused(saved):
  tensors, _, rewrite = saved
  path = rewrite()
  path.write_bytes(safetensors_numpy.save(tensors))
  _refused(path, 'is not JSON')


@pytest.mark.parametrize(
  ('change', 'part'),
  [
    (lambda e: 'no JSON', 'jacsup_jax_editor'),
    (lambda e: e | {'units': e['units'][:1]}, '1 units'),
    (lambda e: e | {'units': [3, 4, 5]}, 'units'),
    (lambda e: e | {'units': None}, 'unit'),
    (lambda e: e | {'model': {}}, 'MlpAutoencoder'),
    (lambda e: e | {'model': {'name': 'os'}}, 'MlpAutoencoder'),
    (
      lambda e: e | {'model': models.describe_module(classifiers.MlpJudge(10))},
      'accepted: an autoencoder',
    ),
  ],
)
def test_other_entries_are_refused(saved, change, part):
  _, entry, rewrite = saved
  _refused(rewrite(entry=change(entry)), part)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('num_factors', 3), ('num_factors', 10**9), ('nuisance_dim', None),
        ('widths', [10**9]), ('image_shape', [4, 4]),
        ('normalize_code', False),
    ],
)  # fmt: skip
def test_a_model_that_the_weights_do_not_fit_is_refused(saved, field, value):
  _, entry, rewrite = saved
  _refused(rewrite(entry=entry | {'model': entry['model'] | {field: value}}))


def test_other_weights_are_refused(saved):
  tensors, _, rewrite = saved
  key = sorted(tensors)[0]
  x = tensors[key]
  for other in (
    {k: v for k, v in tensors.items() if k != key},
    tensors | {'params/other': x},
    tensors | {key: x[..., None]},
    tensors | {key: np.full_like(x, np.nan)},
  ):
    _refused(rewrite(tensors=other))
