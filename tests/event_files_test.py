"""Tests of jacsup_jax.event_files, and of the runs that write them."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import shown_events

from jacsup_jax.core import config
from jacsup_jax.runs import event_files

ROOT = pathlib.Path(__file__).parents[1]
STAGE = config.Stage('teacher', 'teacher', None, 0, 3, config.LossWeights())


class _Run:
  """Records as metrics.jsonl keeps them."""

  def __init__(self):
    self.records = []

  def read(self):
    return list(self.records)

  def add(self, events, step, stage='teacher', **values):
    record = {'stage': stage, 'epoch': step, 'step': step, **values}
    self.records.append(record)
    if events is not None:
      events.report(dataclasses.replace(STAGE, name=stage), record)


# Values.


def test_tile_puts_images_where_they_belong():
  images = np.arange(4.0).reshape(2, 2, 1, 1, 1) / 3
  np.testing.assert_array_equal(
      event_files.tile(images)[..., 0], [[0, 85], [170, 255]]
  )
  assert event_files.tile(images - 1).max() == 0
  wide = np.zeros((2, 3, 4, 5, 3))
  wide[1, 2] = 1
  tiled = event_files.tile(wide)
  assert tiled.shape == (8, 15, 3) and tiled.dtype == np.uint8
  assert tiled[4:, 10:].min() == 255 and tiled.sum() == 255 * 4 * 5 * 3
  with pytest.raises(AssertionError):
    event_files.tile(wide[0])


def test_scalars_are_the_numbers_of_a_record():
  record = {
      'stage': 'x', 'step': 5, 'epoch': 2, 'loss': 0.5, 'words': 'none',
      'eval_class_swaps': None, 'both': [1.0, None],
  }  # pyformat: disable
  assert event_files.list_scalars(record) == [('epoch', 2.0), ('loss', 0.5)]
  assert event_files.list_scalars(record, (3, 4)) == [
      ('epoch', 2.0), ('loss', 0.5), ('both/seed3', 1.0)
  ]  # pyformat: disable


def test_records_and_pictures_are_read_back(tmp_path):
  run = _Run()
  with event_files.EventFiles(tmp_path, run.read) as events:
    evaluate = events.watch(
        lambda model, variables: {'mse': model + variables},
        lambda model, variables: np.full((1, 2, 3, 3, 1), model),
    )
    assert evaluate(1.0, 2.0) == {'mse': 3.0}
    run.add(events, 10, loss=0.25, eval_mse=3.0)
    run.add(events, 20, loss=0.125)
    # At once, not at the end.
    shown = shown_events.read(tmp_path / 'teacher')
    assert shown['loss'] == {10: 0.25, 20: 0.125}
    evaluate(0.0, 2.0)
    run.add(events, 20, 'student', loss=2.0)
  shown = shown_events.read(tmp_path / 'teacher')
  assert shown['eval_mse'] == {10: 3.0} and list(shown['pictures']) == [10]
  (tmp_path / 'x.png').write_bytes(shown['pictures'][10])
  picture = np.asarray(Image.open(tmp_path / 'x.png'))
  assert picture.shape == (3, 6, 3) and picture.min() == 255
  student = shown_events.read(tmp_path / 'student')
  assert student['loss'] == {20: 2.0} and list(student['pictures']) == [20]


# Invariants.


def test_steps_that_are_taken_again_are_there_once(tmp_path):
  run = _Run()
  with event_files.EventFiles(tmp_path, run.read) as events:
    for step in (10, 20, 30):
      run.add(events, step, loss=float(step))
    # A rollback within the same second.
    run.records = run.records[:1]
    run.add(events, 20, loss=21.0)
  # Killed after step 20, and resumed from step 10.
  run.records = run.records[:1]
  with event_files.EventFiles(tmp_path, run.read) as events:
    run.add(events, 20, loss=22.0)
    run.add(events, 30, loss=32.0)
  shown = shown_events.read(tmp_path / 'teacher')
  assert shown['loss'] == {10: 10.0, 20: 22.0, 30: 32.0}
  assert event_files.read_steps(tmp_path / 'teacher') == {10, 20, 30}


def test_records_of_before_are_added(tmp_path):
  run = _Run()
  run.add(None, 10, loss=1.0)  # By a run without event files.
  run.add(None, 10, 'finished', loss=7.0)
  with event_files.EventFiles(tmp_path, run.read) as events:
    run.add(events, 20, loss=2.0)
    # Stopped between metrics.jsonl and its report.
    run.add(None, 30, loss=3.0)
  shown = shown_events.read(tmp_path / 'teacher')
  assert shown['loss'] == {10: 1.0, 20: 2.0, 30: 3.0}
  assert shown_events.read(tmp_path / 'finished')['loss'] == {10: 7.0}
  run.add(None, 40, loss=4.0)  # Killed there.
  with event_files.EventFiles(tmp_path, run.read) as events:
    run.add(events, 50, loss=5.0)
  shown = shown_events.read(tmp_path / 'teacher')['loss']
  assert shown == {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0, 50: 5.0}
  before = sorted(tmp_path.rglob('*'))
  with event_files.EventFiles(tmp_path, run.read):
    pass  # Nothing is missing.
  assert sorted(tmp_path.rglob('*')) == before


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path):
  run = _Run()
  with event_files.EventFiles(tmp_path, run.read) as events:
    for step in (10, 20):
      run.add(events, step, loss=1.0)
  [path] = (tmp_path / 'teacher').iterdir()
  content = path.read_bytes()
  for damaged in (
      content[:-3], content[:9], b'', b'\xff' * 30, content[:12] + b'\xff' * 50
  ):  # pyformat: disable
    path.write_bytes(damaged)
    assert event_files.read_steps(tmp_path / 'teacher') <= {10, 20}
  assert event_files.read_steps(tmp_path / 'nowhere') == set()


def test_a_file_that_cannot_be_written_is_said_once(tmp_path):
  (tmp_path / 'file').write_text('')
  run, lines = _Run(), []
  where = tmp_path / 'file' / 'tensorboard'
  with event_files.EventFiles(where, run.read, note=lines.append) as events:
    run.add(events, 10, loss=1.0)
    run.add(events, 20, loss=1.0)
  [line] = lines
  assert str(where) in line and line.isprintable()


def test_no_tensorflow_is_imported():
  code = (
      'import sys; from experiments import observed_runs;'
      ' assert not {"tensorflow", "tensorboard", "torch"} & set(sys.modules)'
  )
  done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=ROOT,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr
