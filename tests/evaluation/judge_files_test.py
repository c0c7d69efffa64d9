"""Tests of evaluation.judge_files; its users' own tests have the rest."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.evaluation import judge_files


@dataclasses.dataclass(frozen=True)
class Judges:
  seeds: tuple[int, ...]
  params: Any


JUDGES = Judges((0, 1), {'dense': {'kernel': np.arange(6.0).reshape(2, 3).T}})
NAME = 'judge.safetensors'


def test_what_is_saved_is_read(tmp_path):
  directory = tmp_path / 'new [1]*' / 'judges'
  judge_files.save(directory, JUDGES, 'params')
  assert judge_files.exist(directory)
  assert [path.name for path in directory.iterdir()] == [NAME]
  found = judge_files.read(directory, Judges, 'params')
  assert found.seeds == (0, 1)
  np.testing.assert_array_equal(
    found.params['dense']['kernel'], [[0, 3], [1, 4], [2, 5]]
  )


def test_interrupted_save_leaves_no_judges(tmp_path, monkeypatch):
  def fail(*unused_args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(errors.StorageError, match='No space left'):
    judge_files.save(tmp_path / 'judges', JUDGES, 'params')
  assert not judge_files.exist(tmp_path / 'judges')
  assert not list((tmp_path / 'judges').iterdir())


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

  with pytest.raises(errors.InputError, match='is not Others; accepted: names'):
    judge_files.read(tmp_path / 'judges', Others, 'params')


@pytest.mark.parametrize('content', [None, b'', b'no tensors', b'\xff' * 64])
def test_what_is_no_judge_is_refused_by_name(tmp_path, content):
  if content is not None:
    (tmp_path / NAME).write_bytes(content)
  with pytest.raises(errors.InputError, match=NAME) as error:
    judge_files.read(tmp_path, Judges, 'params')
  assert '\n' not in str(error.value)


def test_a_file_cut_short_is_refused(tmp_path):
  judge_files.save(tmp_path, JUDGES, 'params')
  path = tmp_path / NAME
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(errors.InputError, match=NAME):
    judge_files.read(tmp_path, Judges, 'params')
