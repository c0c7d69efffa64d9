"""Tests of evaluation.judges: files of judges, and accuracy."""

import dataclasses
import types
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest

from jacsup_jax.core import errors
from jacsup_jax.evaluation import judges

NAME = 'judge.safetensors'


@dataclasses.dataclass(frozen=True)
class Stored:
  tree: ClassVar[str] = 'params'
  seeds: tuple[int, ...]
  params: Any


@dataclasses.dataclass(frozen=True)
class Other(Stored):
  names: tuple[str, ...] = ()


STORED = Stored((0, 1), {'dense': {'kernel': np.arange(6.0).reshape(2, 3).T}})


def test_accuracy_is_of_every_image_once():
  # One of two judges sees the first pixel, the other never errs at odd places.
  images = np.zeros((200, 1, 1, 1), np.uint8)
  images[:, 0, 0, 0] = np.arange(200)

  def classify(batches):
    seen = np.round(np.asarray(batches)[..., 0, 0, 0] * 255).astype(int)
    return np.stack([seen, seen * (seen % 2)])

  found = judges.compute_accuracy(
    types.SimpleNamespace(classify=classify), images, np.arange(200)
  )
  # 0 is right by either; the end, filled up with the first images, is left out.
  np.testing.assert_allclose(found, [1, 101 / 200])
  rows = judges.list_rows(200)
  assert rows.shape == (1, 2, 128)
  np.testing.assert_array_equal(rows.ravel()[[0, 199, 200]], [0, 199, 0])
  assert judges.list_rows(10_000).shape == (10, 8, 128)


def test_what_is_saved_is_read(tmp_path):
  directory = tmp_path / 'new [1]*' / 'judges'
  judges.save(directory, STORED)
  assert judges.exist(directory)
  assert [path.name for path in directory.iterdir()] == [NAME]
  found = judges.restore(directory, Stored)
  assert found.seeds == (0, 1)
  kernel = found.params['dense']['kernel']
  np.testing.assert_array_equal(kernel, [[0, 3], [1, 4], [2, 5]])
  with pytest.raises(errors.InputError, match='is not Other; accepted: names'):
    judges.restore(directory, Other)


def test_interrupted_save_leaves_no_judges(tmp_path, monkeypatch):
  fail = mock.Mock(side_effect=OSError(28, 'No space left on device'))
  monkeypatch.setattr('os.replace', fail)
  with pytest.raises(errors.StorageError, match='No space left'):
    judges.save(tmp_path / 'judges', STORED)
  assert not list((tmp_path / 'judges').iterdir())


def test_judges_are_trained_in_a_new_or_empty_directory(tmp_path):
  make = lambda: judges.restore_or_make(tmp_path, Stored, lambda: STORED)
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(errors.InputError, match='not a directory of judges'):
    make()
  (tmp_path / 'notes.txt').unlink()
  assert make() is STORED
  assert make().seeds == (0, 1)


@pytest.mark.parametrize('content', [None, b'', b'no tensors', b'\xff' * 64])
def test_what_is_no_judge_is_refused_by_name(tmp_path, content):
  if content is not None:
    (tmp_path / NAME).write_bytes(content)
  with pytest.raises(errors.InputError, match=NAME) as error:
    judges.restore(tmp_path, Stored)
  assert '\n' not in str(error.value)
