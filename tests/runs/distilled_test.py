"""Tests of jacsup_jax.runs.distilled."""

import dataclasses

import numpy as np
import pytest

from jacsup_jax.core import codes
from jacsup_jax.core import errors
from jacsup_jax.models import checkers
from jacsup_jax.runs import distilled
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import distillation

PLAN = distillation.Distilled(
  'mixer', checkers.MixerChecker(2), 'teacher_seed0', 'abc', 3, 5, 16
)
PARAMS = {
  'Dense_0': {'bias': np.arange(2.0, dtype=np.float32)},
  'Dense_1': {'kernel': np.ones((2, 3), np.float32).T},
}
TRAINED = dataclasses.replace(
  PLAN, loss=0.25, sha256=codes.hash_tree(PARAMS), params=PARAMS
)
# It is not trained here.
DATA = np.zeros((1, 28, 28, 1), np.uint8), np.zeros((1, 2))


@pytest.fixture(autouse=True)
def distilled_now(monkeypatch):
  """The networks that were trained, as it seems."""
  found = []

  def distill(self, images, factors, report):
    found.append(self)
    assert (images is DATA[0]) and (factors is DATA[1])
    return TRAINED

  monkeypatch.setattr(distillation.Distilled, 'distill', distill)
  return found


@pytest.fixture
def workdir(tmp_path):
  return workdirs.WorkDir(tmp_path / 'run')


@pytest.fixture
def path(workdir):
  distilled.restore_or_distill(workdir, PLAN, *DATA)
  return workdir.checkers / 'teacher_seed0' / 'mixer.safetensors'


def test_a_network_is_trained_once(workdir, path, distilled_now):
  found = distilled.restore_or_distill(workdir, PLAN, *DATA)
  assert distilled_now == [PLAN]
  assert (found.loss, found.sha256) == (0.25, TRAINED.sha256)
  assert codes.hash_tree(found.params) == TRAINED.sha256
  assert distilled.describe(workdir) == [TRAINED.describe()]
  assert [*path.parent.iterdir()] == [path]


def test_a_run_without_networks_has_none(workdir):
  assert distilled.describe(workdir) == []


@pytest.mark.parametrize(
  ('changes', 'part'),
  [
    ({'teacher_sha256': 'def'}, 'teacher_sha256 abc there, def here'),
    ({'epochs': 6}, 'epochs 5 there, 6 here'),
    ({'module': checkers.MixerChecker(3)}, 'module .*there.*here'),
  ],
)
def test_another_network_is_refused(workdir, path, changes, part):
  plan = dataclasses.replace(PLAN, **changes)
  with pytest.raises(errors.InputError, match=f'{path}.*{part}.*accepted'):
    distilled.restore_or_distill(workdir, plan, *DATA)


@pytest.mark.parametrize('damage', ['cut', 'empty', 'changed', 'foreign'])
def test_a_damaged_file_is_one_line(workdir, path, damage):
  content = path.read_bytes()
  path.write_bytes(
    {
      'cut': content[:-5],
      'empty': b'',
      'changed': content[:-1] + bytes([content[-1] ^ 1]),
      'foreign': distilled.safetensors_numpy.save({'x': np.ones(2)}),
    }[damage]
  )
  with pytest.raises(errors.InputError, match=f'{path}.*accepted') as found:
    distilled.restore_or_distill(workdir, PLAN, *DATA)
  assert '\n' not in str(found.value)


def test_a_folder_that_cannot_be_written_is_one_line(workdir):
  workdir.path.mkdir()
  workdir.checkers.write_text('')
  with pytest.raises(errors.StorageError, match='checkers'):
    distilled.restore_or_distill(workdir, PLAN, *DATA)
