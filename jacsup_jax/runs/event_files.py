"""Event files of a run, which TensorBoard shows: scalars and pictures.

They have what metrics.jsonl has, and pictures besides. Each stage has a
directory of its own, which TensorBoard takes for a run: stages have the same
names of scalars, and chains that grow from one teacher the same steps. Nothing
here looks at a device, but for a picture where the model is measured anyway.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import os
import pathlib
import struct
import time
from typing import Any

from google.protobuf import message
import numpy as np
from tensorboardX import event_file_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2

from jacsup_jax.core import config
from jacsup_jax.figures import pictures
from jacsup_jax.runs import preemption
from jacsup_jax.runs import stages

# Of a record: what it is about, not what was found.
_NOT_SHOWN = ('stage', 'step')
_PICTURE = 'pictures'
# Longer than any event of ours.
_LONGEST_EVENT = 2**28


class EventFiles:
  """Observes a run and writes its event files, as a context.

  At the end of the context they have every line of metrics.jsonl, also of
  epochs before them: those of a run that was begun without event files, or
  that was killed between the two. Where a stage takes steps again, after an
  interruption or a rollback, TensorBoard is told to forget their first time.

  A file that cannot be written is said once, and does not end the run.
  """

  def __init__(
      self,
      directory: str | os.PathLike[str],
      read_records: Callable[[], Sequence[Mapping[str, Any]]],
      *,
      seeds: Sequence[int] = (),
      note: Callable[[str], None] = lambda line: None,
  ):
    """Begins to observe; nothing is written before a record.

    Args:
      directory: to write to, a directory for each stage.
      read_records: returns the lines of metrics.jsonl.
      seeds: of models that are trained together, whose records have a list of
        values, one for each.
      note: called with a line on what went wrong.
    """
    self._directory = pathlib.Path(directory)
    self._read_records = read_records
    self._seeds = tuple(seeds)
    self._note = note
    self._picture = None
    self._writer, self._stage, self._last = None, None, -1
    self._failed = False

  def __enter__(self) -> 'EventFiles':
    return self

  def __exit__(self, *unused_exception) -> None:
    with preemption.deferred():
      self._try(self._complete)
      self._try(self._close)

  def watch(
      self,
      evaluate: stages.EvaluateFn,
      draw: Callable[..., np.ndarray],
  ) -> stages.EvaluateFn:
    """Returns an evaluation that keeps a picture for the record it is for.

    Args:
      evaluate: `(model, variables) -> metrics`.
      draw: `(model, variables) -> images`, see `tile`. Of models that are
        trained together the first is drawn.
    """

    def evaluate_and_draw(model, variables):
      if self._picture is None and not self._failed:
        self._picture = tile(draw(model, variables))
      return evaluate(model, variables)

    return evaluate_and_draw

  def report(self, stage: config.Stage, record: Mapping[str, Any]) -> None:
    """Writes a record of metrics.jsonl; it is on disk when this returns.

    Args:
      stage: that it is of.
      record: with `step`; what is no number is left out.
    """
    picture, self._picture = self._picture, None
    with preemption.deferred():
      self._try(lambda: self._report(stage.name, record, picture))

  def _try(self, write):
    if self._failed:
      return
    try:
      write()
    except OSError as error:
      self._failed = True
      self._note(
          f'{self._directory} cannot be written ({error.strerror}); the run'
          ' goes on without event files.'
      )

  def _report(self, name, record, picture):
    step = record['step']
    # Steps that are taken again, or another stage.
    if name != self._stage or step <= self._last:
      self._open(name, step)
    self._write(record, picture)

  def _complete(self):
    """Adds what metrics.jsonl has and the event files have not."""
    records = self._read_records()
    for name in dict.fromkeys(record['stage'] for record in records):
      if name == self._stage:
        own = [r for r in records if r['stage'] == name]
        for record in own:
          if record['step'] > self._last:
            self._write(record)
      else:
        self._open(name, None)

  def _open(self, name, step):
    """Opens a file for a stage that goes on with a step; None: it is over."""
    self._close()
    directory = self._directory / name
    records = [
        record
        for record in self._read_records()
        if record['stage'] == name and (step is None or record['step'] < step)
    ]
    there = read_steps(directory)
    missing = [r['step'] for r in records if r['step'] not in there]
    first = min(missing, default=step)
    if first is None:
      return
    directory.mkdir(parents=True, exist_ok=True)
    # A name has its second alone: two of one second would be one file.
    number = len(list(directory.iterdir()))
    self._writer = event_file_writer.EventsWriter(
        str(directory / 'events'), f'.{number:04}'
    )
    self._stage, self._last = name, -1
    # What was written of this step and those after it is void.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write_event(first, session_log=start)
    for record in records:
      if record['step'] >= first:
        self._write(record)

  def _write(self, record, picture=None):
    step = record['step']
    for name, value in list_scalars(record, self._seeds):
      self._write_event(step, summary=summary.scalar(name, value))
    if picture is not None:
      shown = summary.image(_PICTURE, picture, dataformats='HWC')
      self._write_event(step, summary=shown)
    # It may be killed before the next one.
    self._writer.flush()
    self._last = step

  def _write_event(self, step, **content):
    self._writer.write_event(
        event_pb2.Event(wall_time=time.time(), step=step, **content)
    )

  def _close(self):
    writer, self._writer, self._stage = self._writer, None, None
    if writer is not None:
      writer.close()


def list_scalars(
    record: Mapping[str, Any], seeds: Sequence[int] = ()
) -> list[tuple[str, float]]:
  """Returns what a record of metrics.jsonl has of numbers, by name.

  Args:
    record: with one number, or one for each seed, by name.
    seeds: of models that are trained together.

  Returns:
    Pairs; with several seeds a name ends in that, as `loss/seed3`.
  """
  scalars = []
  for name, value in record.items():
    if name in _NOT_SHOWN:
      continue
    if isinstance(value, list) and len(value) == len(seeds):
      named = [(f'{name}/seed{s}', v) for s, v in zip(seeds, value)]
    else:
      named = [(name, value)]
    # None: nothing was found, as of class swaps with no pair to swap.
    scalars += [(n, float(v)) for n, v in named if isinstance(v, (int, float))]
  return scalars


def read_steps(directory: str | os.PathLike[str]) -> set[int]:
  """Returns the steps of whose scalars TensorBoard shows any.

  Args:
    directory: of event files; it may be missing. Of a damaged file, what is
      before the damage.
  """
  found = set()
  # In the order of TensorBoard, and of time.
  for path in sorted(pathlib.Path(directory).glob('*tfevents*')):
    for event in _read_events(path):
      if event.HasField('session_log'):
        found = {step for step in found if step < event.step}
      elif event.HasField('summary'):
        found.add(event.step)
  return found


def tile(images: np.ndarray) -> np.ndarray:
  """Lays images out in one, without gaps.

  Args:
    images: `[rows, cols, H, W, C]` in [0, 1]; what is outside is cut off.

  Returns:
    `[rows * H, cols * W, C]` uint8.
  """
  laid = pictures.tile(np.asarray(images))
  return np.round(np.clip(laid, 0, 1) * 255).astype(np.uint8)


def _read_events(path: pathlib.Path) -> Iterator[event_pb2.Event]:
  """Reads frames: length, its checksum, the event, its checksum."""
  with open(path, 'rb') as file:
    while len(head := file.read(12)) == 12:
      [length] = struct.unpack('<Q', head[:8])
      if length > _LONGEST_EVENT:
        return
      content = file.read(length)
      # What a kill cut off.
      if len(content) < length or len(file.read(4)) < 4:
        return
      try:
        yield event_pb2.Event.FromString(content)
      except message.DecodeError:
        return
