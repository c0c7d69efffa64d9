"""Models in one file, whole or damaged."""

import json

import chex
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
import tiny_editors

from jacsup_jax.core import errors
from jacsup_jax.editor import model_files
from jacsup_jax.editor import profiles
from jacsup_jax.models import classifiers
from jacsup_jax.models import model as models

ENTRY = 'jacsup_jax_editor'
JUDGE = models.describe_module(classifiers.MlpJudge(10))


@pytest.fixture(scope='module')
def content(tmp_path_factory):
  """The bytes of a file, its tensors and its entry."""
  path = tmp_path_factory.mktemp('models') / 'digits'
  model_files.write(path, tiny_editors.make_digits())
  whole = path.read_bytes()
  size = int.from_bytes(whole[:8], 'little')
  entry = json.loads(whole[8 : 8 + size])['__metadata__'][ENTRY]
  return whole, safetensors_numpy.load(whole), json.loads(entry)


@pytest.mark.parametrize(
  'name', ['digits', 'faces', 'known_faces', 'laid_out_digits']
)
def test_an_editor_is_read_as_it_was_written(name, tmp_path):
  own = getattr(tiny_editors, f'make_{name}')()
  model_files.write(tmp_path / 'x', own)
  read = model_files.read(tmp_path / 'x')
  assert read.model.module == own.model.module
  assert (read.units, read.title) == (own.units, own.title)
  assert read.profile == own.profile
  chex.assert_trees_all_equal(
    read.model.variables, own.model.variables, strict=True
  )


def test_a_file_without_a_profile_is_read(content, tmp_path):
  _, tensors, entry = content
  entry = {key: entry[key] for key in entry if key != 'profile'}
  saved = safetensors_numpy.save(tensors, {ENTRY: json.dumps(entry)})
  (tmp_path / 'x').write_bytes(saved)
  assert model_files.read(tmp_path / 'x').profile == profiles.Profile()


def _refused(path, content, *parts):
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match='accepted') as info:
    model_files.read(path)
  message = str(info.value)
  assert message.isprintable() and len(message) < 3000
  for part in (str(path), *parts):
    assert part in message, message


@pytest.mark.parametrize(
  ('change', 'part'),
  [
    (lambda e: 'no JSON', ENTRY),
    (lambda e: e | {'units': e['units'][:1]}, '1 units'),
    (lambda e: e | {'model': {'name': 'os'}}, 'MlpAutoencoder'),
    (lambda e: e | {'model': JUDGE}, 'no autoencoder'),
    (lambda e: e | {'profile': {'edits': 1}}, 'profile that is damaged'),
    # Models that the weights do not fit.
    (lambda e: e | {'model': e['model'] | {'num_factors': 10**9}}, ''),
    (lambda e: e | {'model': e['model'] | {'nuisance_dim': None}}, ''),
    (lambda e: e | {'model': e['model'] | {'widths': [9]}}, 'accepted: [9]'),
  ],
  ids=range(8),
)
def test_other_entries_are_refused(content, change, part, tmp_path):
  _, tensors, entry = content
  found = change(entry)
  text = found if isinstance(found, str) else json.dumps(found)
  _refused(tmp_path / 'x', safetensors_numpy.save(tensors, {ENTRY: text}), part)


def test_files_cut_anywhere_and_other_weights_are_refused(content, tmp_path):
  whole, tensors, entry = content
  for size in range(0, len(whole), len(whole) // 9):
    _refused(tmp_path / 'x', whole[:size])
  _refused(tmp_path / 'x', safetensors_numpy.save(tensors), 'is not JSON')
  key, x = min(tensors.items())
  for other, part in (
    ({k: v for k, v in tensors.items() if k != key}, 'missing'),
    (tensors | {'params/other': x}, 'accepted: missing'),
    (tensors | {key: x[..., None]}, key),
    (tensors | {key: np.full_like(x, np.nan)}, 'not finite'),
  ):
    saved = safetensors_numpy.save(other, {ENTRY: json.dumps(entry)})
    _refused(tmp_path / 'x', saved, part)
