"""Tests of evaluation.judge_files; its users' own tests have the rest."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.evaluation import judge_files


@dataclasses.dataclass(frozen=True)
class Judges:
  tree: ClassVar[str] = 'params'
  seeds: tuple[int, ...]
  params: Any


JUDGES = Judges((0, 1), {'dense': {'kernel': np.arange(6.0).reshape(2, 3).T}})
NAME = 'judge.safetensors'


def test_what_is_saved_is_read(tmp_path):
  directory = tmp_path / 'new [1]*' / 'judges'
  judge_files.save(directory, JUDGES)
  assert judge_files.exist(directory)
  assert [path.name for path in directory.iterdir()] == [NAME]
  found = judge_files.restore(directory, Judges)
  assert found.seeds == (0, 1)
  np.testing.assert_array_equal(
    found.params['dense']['kernel'], [[0, 3], [1, 4], [2, 5]]
  )


def test_interrupted_save_leaves_no_judges(tmp_path, monkeypatch):
  def fail(*unused_args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(errors.StorageError, match='No space left'):
    judge_files.save(tmp_path / 'judges', JUDGES)
  assert not judge_files.exist(tmp_path / 'judges')
  assert not list((tmp_path / 'judges').iterdir())


def test_judges_are_trained_in_a_new_or_empty_directory(tmp_path):
  make = lambda *, seeds: judge_files.restore_or_train(
    tmp_path, Judges, lambda: JUDGES, seeds=seeds
  )
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(errors.InputError, match='not a directory of judges'):
    make(seeds=(0, 1))
  (tmp_path / 'notes.txt').unlink()
  assert make(seeds=(0, 1)) is JUDGES
  assert make(seeds=(0, 1)).seeds == (0, 1)
  with pytest.raises(errors.InputError, match=r'seeds \(0, 1\); accepted'):
    make(seeds=(2,))


def test_judges_of_another_kind_are_refused(tmp_path):
  judge_files.save(tmp_path / 'judges', JUDGES)

  @dataclasses.dataclass
  class Others:
    tree: ClassVar[str] = 'params'
    names: tuple[str, ...]
    params: Any

  with pytest.raises(errors.InputError, match='is not Others; accepted: names'):
    judge_files.restore(tmp_path / 'judges', Others)


@pytest.mark.parametrize('content', [None, b'', b'no tensors', b'\xff' * 64])
def test_what_is_no_judge_is_refused_by_name(tmp_path, content):
  if content is not None:
    (tmp_path / NAME).write_bytes(content)
  with pytest.raises(errors.InputError, match=NAME) as error:
    judge_files.restore(tmp_path, Judges)
  assert '\n' not in str(error.value)
