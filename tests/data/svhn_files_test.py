"""Tests of jacsup_jax.data.svhn, by `registry.load`."""

import numpy as np
import pytest
from scipy import io
import tiny_sets

from jacsup_jax.core import errors
from jacsup_jax.data import registry

_SIZES = {'train': 24, 'test': 12}


def _content(split, **changes):
  rng = np.random.default_rng(_SIZES[split])
  images = rng.integers(0, 256, (32, 32, 3, _SIZES[split]), np.uint8)
  labels = np.arange(_SIZES[split], dtype=np.uint8)[:, None] % 10 + 1
  return {'X': images, 'y': labels} | changes


def _write(folder, **changes):
  folder.mkdir(parents=True, exist_ok=True)
  for split in _SIZES:
    path = folder / f'{split}_32x32.mat'
    io.savemat(path, _content(split, **changes), do_compression=True)
  return folder


@pytest.mark.parametrize('place', ['.', 'svhn_cropped', 'downloads/manual'])
def test_published_files_are_read_as_tfds_prepares_them(tmp_path, place):
  examples = {}
  for split in _SIZES:
    content = _content(split)
    examples[split] = [
      {'image': image, 'label': int(label) % 10, 'id': str(i)}
      for i, (image, label) in enumerate(
        zip(np.moveaxis(content['X'], -1, 0), content['y'][:, 0])
      )
    ]
  tiny_sets.write_prepared(tmp_path / 'prepared', 'svhn_cropped', examples)
  _write(tmp_path / 'mine' / place)
  for split in registry.SPLITS:
    found, expected = (
      registry.load('svhn_cropped', split, data_dir=tmp_path / name)
      for name in ('mine', 'prepared')
    )
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.fingerprint == expected.fingerprint
    assert found.num_classes == 10 and 0 in found.labels


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'y': np.arange(12)[:, None]}, 'from 0 to 11; accepted: .* 1 to 10'),
    ({'X': np.zeros((12, 32, 32, 3), np.uint8)}, r'shape \(12, 32, 32, 3\)'),
    ({'X': np.zeros((32, 32, 3, 12))}, 'X of type float64'),
    ({'X': None}, 'test_32x32.mat cannot be read'),
  ],
)
def test_what_does_not_fit(tmp_path, changes, message):
  changed = _content('test', **changes)
  _write(tmp_path)
  changed = {name: x for name, x in changed.items() if x is not None}
  io.savemat(tmp_path / 'test_32x32.mat', changed)
  with pytest.raises(errors.InputError, match=f'^.*{message}.*$'):
    registry.load('svhn_cropped', 'test', data_dir=tmp_path)


@pytest.mark.parametrize('content', [b'', b'<html>', b'MATLAB 7.3 MAT-file'])
def test_damaged_files(tmp_path, content):
  _write(tmp_path)
  path = tmp_path / 'test_32x32.mat'
  whole = path.read_bytes()
  for damaged in (content, whole[: len(whole) // 2]):
    path.write_bytes(damaged)
    message = 'test_32x32.mat cannot be read .*accepted'
    with pytest.raises(errors.InputError, match=message):
      registry.load('svhn_cropped', 'test', data_dir=tmp_path)
