"""Tests of jacsup_jax.judge_files; what judges make of it: their own tests."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.evaluation import judge_files
from jacsup_jax.runs import checkpoints


@dataclasses.dataclass(frozen=True)
class Judges:
  seeds: tuple[int, ...]
  params: Any


JUDGES = Judges((0, 1), {'kernel': np.arange(3.0)})


def test_what_is_saved_is_read(tmp_path):
  directory = tmp_path / 'new' / 'judges'
  judge_files.save(directory, JUDGES, 'params')
  assert judge_files.exist(directory)
  found = judge_files.read(directory, Judges, 'params')
  assert found == Judges((0, 1), None)
  params = judge_files.restore_tree(directory, JUDGES.params)
  np.testing.assert_array_equal(params['kernel'], [0, 1, 2])


def test_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
  def fail(*unused_args):
    raise OSError('disk full')

  monkeypatch.setattr(checkpoints.StageCheckpoints, 'save', fail)
  with pytest.raises(OSError, match='disk full'):
    judge_files.save(tmp_path / 'judges', JUDGES, 'params')
  assert not list(tmp_path.iterdir())


def test_directory_of_something_else_is_not_free(tmp_path):
  judge_files.check_free(tmp_path)
  judge_files.check_free(tmp_path / 'new')
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(errors.InputError, match='not a directory of judges'):
    judge_files.check_free(tmp_path)


def test_judges_of_another_kind_are_refused(tmp_path):
  judge_files.save(tmp_path / 'judges', JUDGES, 'params')

  @dataclasses.dataclass
  class Others:
    names: tuple[str, ...]
    params: Any

  with pytest.raises(errors.InputError, match=r'judge.json.*\(Others\)'):
    judge_files.read(tmp_path / 'judges', Others, 'params')
