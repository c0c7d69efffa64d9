"""Tests of jacsup_jax.runs.metrics."""

import dataclasses

import numpy as np
from tensorboardX.proto import event_pb2

from jacsup_jax.core import config
from jacsup_jax.runs import metrics

STAGE = config.Stage('teacher', 'teacher', None, 0, 3, config.LossWeights())


class _Run:
  """Records as metrics.jsonl keeps them."""

  def __init__(self):
    self.records = []

  def add(self, events, step, stage='teacher', **values):
    self.records.append({'stage': stage, 'step': step, **values})
    if events is not None:
      events.report(dataclasses.replace(STAGE, name=stage), self.records[-1])

  def open(self, path, note=print):
    return metrics.EventFiles(path, lambda: list(self.records), note)


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


def test_numbers_and_pictures_are_written(tmp_path):
  run = _Run()
  with run.open(tmp_path) as events:
    evaluate = events.watch(
      lambda model: {'mse': model}, lambda model: np.ones((1, 2, 3, 3, 1))
    )
    assert evaluate(1.0) == {'mse': 1.0}
    run.add(events, 10, loss=0.25, words='none', swaps=None)
    run.add(events, 20, loss=0.125)
    run.add(events, 20, 'student', loss=2.0)
  assert _shown(tmp_path / 'teacher') == {
    'loss': {10: 0.25, 20: 0.125}, 'pictures': {10: (3, 6)}
  }  # fmt: skip
  assert _shown(tmp_path / 'student') == {'loss': {20: 2.0}}


def test_steps_that_are_taken_again_are_shown_once_and_earlier_ones_added(
  tmp_path,
):
  run = _Run()
  run.add(None, 10, 'finished', loss=7.0)
  run.add(None, 10, loss=10.0)
  with run.open(tmp_path) as events:
    for step in (20, 30):
      run.add(events, step, loss=float(step))
  run.records = run.records[:2]  # Resumed from step 10.
  with run.open(tmp_path) as events:
    run.add(events, 20, loss=22.0)
  assert _shown(tmp_path / 'teacher') == {'loss': {10: 10.0, 20: 22.0}}
  assert _shown(tmp_path / 'finished') == {'loss': {10: 7.0}}


def test_a_file_that_cannot_be_written_is_noted_once(tmp_path):
  (tmp_path / 'file').write_text('')
  run, lines = _Run(), []
  where = tmp_path / 'file' / 'tensorboard'
  with run.open(where, note=lines.append) as events:
    run.add(events, 10, loss=1.0)
    run.add(events, 20, loss=1.0)
  [line] = lines
  assert str(where) in line and line.isprintable()
