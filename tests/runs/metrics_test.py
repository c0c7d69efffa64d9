"""Tests of jacsup_jax.runs.metrics."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.runs import metrics

STAGE = config.Stage('teacher', 'teacher', None, 0, 3, config.LossWeights())


def _record(step, stage='teacher', **values):
  return {'stage': stage, 'epoch': step, 'step': step, **values}


# metrics.jsonl.


def test_records_come_back_in_order(tmp_path):
  file = metrics.MetricsFile(tmp_path / 'metrics.jsonl')
  assert file.read() == []
  records = [_record(step) for step in (1, 2)]
  for record in records:
    file.append(record)
  assert file.read() == records


def test_cut_off_last_line_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  file = metrics.MetricsFile(path)
  file.append(_record(1))
  path.write_text(path.read_text() + '{"stage": "a", "st')
  assert file.read() == [_record(1)]
  # Resuming removes it, so that the next line is whole.
  file.drop_after('teacher', 1)
  file.append(_record(2))
  assert file.read() == [_record(1), _record(2)]


def test_steps_after_a_checkpoint_are_dropped_of_its_stage_alone(tmp_path):
  file = metrics.MetricsFile(tmp_path / 'metrics.jsonl')
  for stage, step in (('a', 1), ('a', 2), ('b', 3), ('b', 4)):
    file.append(_record(step, stage))
  file.drop_after('b', 3)
  assert [r['step'] for r in file.read()] == [1, 2, 3]
  file.drop_after('a', 0)
  assert [r['step'] for r in file.read()] == [3]


@pytest.mark.parametrize('line', ['{', '[]', '{"stage": "a"}'])
def test_damaged_line_is_refused_by_number(tmp_path, line):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(f'{{"stage": "a", "step": 1}}\n{line}\n')
  with pytest.raises(errors.InputError, match='metrics.jsonl line 2'):
    metrics.MetricsFile(path).read()


def test_failed_append_leaves_whole_lines(tmp_path, monkeypatch):
  file = metrics.MetricsFile(tmp_path / 'metrics.jsonl')
  file.append(_record(1))

  class Full:
    def __init__(self, *args, **kwargs):
      self.file = open_file(*args, **kwargs)

    def __enter__(self):
      return self

    def __exit__(self, *unused_exception):
      self.file.close()

    def write(self, text):
      self.file.write(text[:5])
      self.file.flush()
      raise OSError(28, 'No space left on device')

  open_file = open
  with monkeypatch.context() as patch:
    patch.setattr(metrics, 'open', Full, raising=False)
    with pytest.raises(errors.StorageError, match='No space left'):
      file.append(_record(2))
  assert file.read() == [_record(1)]


# Event files.


class _Run:
  """Records as metrics.jsonl keeps them."""

  def __init__(self):
    self.records = []

  def add(self, events, step, stage='teacher', **values):
    self.records.append(_record(step, stage, **values))
    if events is not None:
      events.report(dataclasses.replace(STAGE, name=stage), self.records[-1])

  def open(self, path, **kwargs):
    return metrics.EventFiles(path, lambda: list(self.records), **kwargs)


def _shown(directory):
  """Returns what TensorBoard shows: by tag, values by step."""
  shown = {}
  for path in sorted(directory.glob('events.out.tfevents*')):
    content = path.read_bytes()
    while content:
      # Length, its checksum, the event, its checksum.
      length = int.from_bytes(content[:8], 'little')
      event = event_pb2.Event.FromString(content[12 : 12 + length])
      content = content[16 + length :]
      if event.HasField('session_log'):  # Voids this step and later ones.
        for values in shown.values():
          for step in [s for s in values if s >= event.step]:
            del values[step]
      for value in event.summary.value:
        found = value.simple_value
        if value.HasField('image'):
          found = (value.image.height, value.image.width)
        shown.setdefault(value.tag, {})[event.step] = found
  return shown


def test_tile_puts_images_where_they_belong():
  images = np.arange(4.0).reshape(2, 2, 1, 1, 1) / 3
  np.testing.assert_array_equal(
    metrics.tile(images)[..., 0], [[0, 85], [170, 255]]
  )
  assert metrics.tile(images - 1).max() == 0
  wide = np.zeros((2, 3, 4, 5, 3))
  wide[1, 2] = 1
  tiled = metrics.tile(wide)
  assert tiled.shape == (8, 15, 3) and tiled.dtype == np.uint8
  assert tiled[4:, 10:].min() == 255 and tiled.sum() == 255 * 4 * 5 * 3


def test_scalars_are_the_numbers_of_a_record():
  record = _record(5, loss=0.5, words='none', swaps=None, both=[1.0, None])
  assert metrics.list_scalars(record) == [
    ('epoch', 5.0),
    ('loss', 0.5),
    ('both/0', 1.0),
  ]  # pyformat: disable


def test_records_and_pictures_are_written(tmp_path):
  run = _Run()
  with run.open(tmp_path) as events:
    evaluate = events.watch(
      lambda model: {'mse': model}, lambda model: np.ones((1, 2, 3, 3, 1))
    )
    assert evaluate(1.0) == {'mse': 1.0}
    run.add(events, 10, loss=0.25)
    run.add(events, 20, loss=0.125)
    run.add(events, 20, 'student', loss=2.0)
  shown = _shown(tmp_path / 'teacher')
  assert shown['loss'] == {10: 0.25, 20: 0.125}
  assert shown['pictures'] == {10: (3, 6)}
  assert _shown(tmp_path / 'student')['loss'] == {20: 2.0}


def test_steps_that_are_taken_again_are_shown_once(tmp_path):
  run = _Run()
  with run.open(tmp_path) as events:
    for step in (10, 20, 30):
      run.add(events, step, loss=float(step))
  run.records = run.records[:1]  # Resumed from step 10.
  with run.open(tmp_path) as events:
    run.add(events, 20, loss=22.0)
  assert _shown(tmp_path / 'teacher')['loss'] == {10: 10.0, 20: 22.0}


def test_records_from_before_event_files_are_added(tmp_path):
  run = _Run()
  run.add(None, 10, loss=1.0)
  run.add(None, 10, 'finished', loss=7.0)
  with run.open(tmp_path) as events:
    run.add(events, 20, loss=2.0)
  assert _shown(tmp_path / 'teacher')['loss'] == {10: 1.0, 20: 2.0}
  assert _shown(tmp_path / 'finished')['loss'] == {10: 7.0}


def test_a_file_that_cannot_be_written_is_noted_once(tmp_path):
  (tmp_path / 'file').write_text('')
  run, lines = _Run(), []
  where = tmp_path / 'file' / 'tensorboard'
  with run.open(where, note=lines.append) as events:
    run.add(events, 10, loss=1.0)
    run.add(events, 20, loss=1.0)
  [line] = lines
  assert str(where) in line and line.isprintable()


def test_no_tensorflow_is_imported():
  code = (
    'import sys, tensorboardX; from jacsup_jax.runs import metrics;'
    ' assert not {"tensorflow", "tensorboard", "torch"} & set(sys.modules)'
  )
  subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    check=True,
  )
