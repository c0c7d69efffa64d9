"""Tests of jacsup_jax.editor_files: models in one file, whole or damaged."""

import json

from flax import traverse_util
import fuzzing
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from jacsup_jax.core import errors
from jacsup_jax.editor import editor
from jacsup_jax.editor import editor_files
from jacsup_jax.models import autoencoders as networks



def _units(model):
  names = [f'y{i + 1}' for i in range(model.num_factors)]
  kinds = [editor.FACTOR] * len(names)
  if not isinstance(model, networks.FaceAutoencoder):
    names += [f'z{i + 1}' for i in range(model.nuisance_dim)]
    kinds += [editor.NUISANCE] * model.nuisance_dim
  return tuple(
      editor.Unit(name, kind, 0.1, 0.5 + i, -1.0, 1.0)
      for i, (name, kind) in enumerate(zip(names, kinds))
  )


MODELS = {
    'digits': networks.MlpAutoencoder(
        2, 1, normalize_code=True, image_shape=(4, 4, 1), widths=(5,)
    ),
    'houses': networks.SvhnAutoencoder(
        1, 2, image_shape=(8, 8, 3), widths=(4, 4), linear_code=True
    ),
    'faces': networks.FaceAutoencoder(
        3, 1, image_size=8, first_width=4, last_width=4, linear_factors=True
    ),
}


def _make(name):
  model = MODELS[name]
  variables = networks.init_variables(model, 0)
  return editor.Editor(
      model, variables, _units(model), name == 'faces', f'a run, {name}'
  )


def _flat(own):
  return traverse_util.flatten_dict(jax.device_get(own.variables), sep='/')


# Values.


@pytest.mark.parametrize('name', MODELS)
def test_what_is_read_is_what_was_written(name, tmp_path):
  own = _make(name)
  editor_files.write(tmp_path / 'x', own)
  read = editor_files.read(tmp_path / 'x')
  assert read.model == own.model and read.units == own.units
  assert (read.is_signed, read.title) == (own.is_signed, own.title)
  found, expected = _flat(read), _flat(own)
  assert set(found) == set(expected)
  for key, x in expected.items():
    np.testing.assert_array_equal(found[key], x)
    assert found[key].dtype == np.float32


def test_a_read_editor_edits_alike(tmp_path):
  own = _make('faces')
  editor_files.write(tmp_path / 'x', own)
  read = editor_files.read(tmp_path / 'x')
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
  strengths = np.array([1.0, -2.0, 0.5])
  edits = [
      each.edit(each.encode(images.astype(np.uint8)), strengths)
      for each in (own, read)
  ]
  np.testing.assert_array_equal(*edits)


@pytest.mark.parametrize('name', MODELS)
def test_halves_are_within_float16(name, tmp_path):
  own = _make(name)
  editor_files.write(tmp_path / 'x', own, half=True)
  editor_files.write(tmp_path / 'whole', own)
  read = editor_files.read(tmp_path / 'x')
  for key, x in _flat(own).items():
    found = _flat(read)[key]
    assert found.dtype == np.float32
    # 11 bits; and the least number that is there below 2**-14.
    np.testing.assert_allclose(found, x, rtol=2**-11, atol=2**-25)
    np.testing.assert_array_equal(found, x.astype(np.float16))
  sizes = [(tmp_path / n).stat().st_size for n in ('x', 'whole')]
  weights = sum(x.size for x in _flat(own).values())
  assert sizes[1] - sizes[0] == pytest.approx(2 * weights, abs=200)


# Damage.


def _refused(path, *parts):
  with pytest.raises(errors.InputError) as info:
    editor_files.read(path)
  fuzzing.check_message(str(info.value), path, *parts)


@pytest.fixture
def saved(tmp_path):
  """A file, its tensors and what it says of them; writes another."""
  path = tmp_path / 'model.safetensors'
  editor_files.write(path, _make('digits'))
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

  return path, tensors, entry, rewrite


@pytest.mark.parametrize(
    'content', [b'', b'x', b'\0' * 8, b'\xff' * 100, b'PK\x03\x04' + b'\0' * 60]
)
def test_what_is_no_such_file_is_refused(tmp_path, content):
  (tmp_path / 'x').write_bytes(content)
  _refused(tmp_path / 'x', 'accepted')


def test_no_file_and_a_folder_are_refused(tmp_path):
  _refused(tmp_path / 'missing')
  _refused(tmp_path)


def test_weights_of_no_model_are_refused(saved):
  path, tensors, _, _ = saved
  path.write_bytes(safetensors_numpy.save(tensors))
  _refused(path, 'not what model')


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        (lambda e: 'no JSON', 'jacsup_jax_editor'),
        (lambda e: [], 'jacsup_jax_editor'),
        (lambda e: e | {'units': None}, 'units'),
        (lambda e: e | {'units': e['units'][:1]}, '1 units'),
        (lambda e: e | {'units': e['units'] * 2}, '6 units'),
        (lambda e: e | {'units': [3, 4, 5]}, 'unit 1'),
        (lambda e: e | {'is_signed': 'yes'}, 'is_signed'),
        (lambda e: e | {'title': None}, 'title'),
        (lambda e: e | {'model': {}}, 'MlpAutoencoder'),
        (lambda e: e | {'model': {'name': 'os'}}, 'MlpAutoencoder'),
        (lambda e: e | {'model': {'name': ['x']}}, 'MlpAutoencoder'),
    ],
)
def test_other_entries_are_refused(saved, change, part):
  _, _, entry, rewrite = saved
  _refused(rewrite(entry=change(entry)), part)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('num_factors', 3), ('num_factors', 0), ('num_factors', -1),
        ('num_factors', 10**9), ('num_factors', 1.5), ('num_factors', True),
        ('nuisance_dim', 2), ('nuisance_dim', None), ('widths', [6]),
        ('widths', []), ('widths', [10**9]), ('widths', 'x'), ('widths', [[1]]),
        ('image_shape', [4, 4]), ('image_shape', []),
        ('image_shape', [0, 0, 1]), ('image_shape', [10**6, 10**6, 3]),
        ('normalize_code', False),
    ],
)
def test_a_model_that_the_weights_are_not_of_is_refused(saved, field, value):
  _, _, entry, rewrite = saved
  path = rewrite(entry=entry | {'model': entry['model'] | {field: value}})
  _refused(path)


@pytest.mark.parametrize('size', [0, 7, 12, 2**20, -8])
def test_faces_of_a_size_that_cannot_be_are_refused(tmp_path, size):
  path = tmp_path / 'x'
  editor_files.write(path, _make('faces'))
  content = path.read_bytes()
  length = int.from_bytes(content[:8], 'little')
  header = json.loads(content[8 : 8 + length])
  entry = json.loads(header['__metadata__']['jacsup_jax_editor'])
  entry['model']['image_size'] = size
  path.write_bytes(
      safetensors_numpy.save(
          safetensors_numpy.load(content),
          {'jacsup_jax_editor': json.dumps(entry)},
      )
  )
  _refused(path)


def test_other_weights_are_refused(saved):
  _, tensors, _, rewrite = saved
  key = sorted(tensors)[0]
  x = tensors[key]
  others = {
      'missing': {k: v for k, v in tensors.items() if k != key},
      'more': tensors | {'params/other': x},
      'shape': tensors | {key: x[..., None]},
      'nan': tensors | {key: np.full_like(x, np.nan)},
      'inf': tensors | {key: np.full_like(x, np.inf)},
      'none': {},
  }
  for other in others.values():
    _refused(rewrite(tensors=other))


def test_damaged_files_are_refused_in_one_line(tmp_path):
  source, path = tmp_path / 'whole', tmp_path / 'damaged'
  editor_files.write(source, _make('digits'))

  def check(content):
    path.write_bytes(content)
    fuzzing.read(lambda: editor_files.read(path), path)

  fuzzing.run('editors', fuzzing.bytes_of(source.read_bytes()), check)


def test_damaged_entries_are_refused_in_one_line(saved):
  _, _, entry, rewrite = saved

  def check(content):
    try:
      text = content.decode()
    except UnicodeDecodeError:
      return
    path = rewrite(entry=text)
    fuzzing.read(lambda: editor_files.read(path), path)

  fuzzing.run('entries of editors', fuzzing.json_of(entry), check)
