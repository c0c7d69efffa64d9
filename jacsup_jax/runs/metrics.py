"""Event files of a run for TensorBoard: its metrics, and pictures."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
import time
from typing import Any

import numpy as np

from jacsup_jax.core import config
from jacsup_jax.figures import pictures
from jacsup_jax.models import model as models

# model -> images `[rows, cols, H, W, C]` in [0, 1].
DrawFn = Callable[[models.Model], np.ndarray]


class EventFiles:
  """Event files, one folder a stage; a context manager.

  A file that cannot be written is noted once and does not stop the run.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    read_records: Callable[[], Sequence[Mapping[str, Any]]],
    note: Callable[[str], None],
  ):
    """Takes a function that reads metrics.jsonl, for stages of before."""
    self._directory = pathlib.Path(directory)
    self._read_records = read_records
    self._note = note
    self._writer = self._stage = self._picture = None
    self._failed = False

  def __enter__(self) -> 'EventFiles':
    self._try(self._add_missing)
    return self

  def __exit__(self, *unused_exception) -> None:
    self._try(self._close)

  def watch(
    self, evaluate: Callable[[models.Model], dict[str, Any]], draw: DrawFn
  ) -> Callable[[models.Model], dict[str, Any]]:
    """Returns an evaluation that also draws a picture for its record."""

    def evaluate_and_draw(model):
      if not self._failed:
        images = np.clip(np.asarray(draw(model)), 0, 1)
        self._picture = pictures.tile(np.round(images * 255).astype(np.uint8))
      return evaluate(model)

    return evaluate_and_draw

  def report(self, stage: config.Stage, record: Mapping[str, Any]) -> None:
    """Writes the record of an epoch, and its picture if one was drawn."""
    self._try(lambda: self._add(stage.name, record))

  def _try(self, write):
    if self._failed:
      return
    try:
      write()
    except OSError as error:
      self._failed = True
      self._note(
        f'{self._directory} cannot be written ({error.strerror}); the run'
        ' continues without event files.'
      )

  def _add_missing(self):
    records = self._read_records()
    names = {record['stage'] for record in records}
    there = {name for name in names if (self._directory / name).exists()}
    for record in records:
      if record['stage'] not in there:
        self._add(record['stage'], record)

  def _add(self, name, record):
    step = record['step']
    if name != self._stage:
      # Imported here: most runs write no event files.
      import tensorboardX

      self._close()
      self._writer = tensorboardX.SummaryWriter(
        str(self._directory / name),
        purge_step=step,
        # Names hold a second: two files of one second would be one.
        filename_suffix=f'.{time.time_ns()}',
      )
      self._stage = name
    for key, value in record.items():
      if key != 'step' and isinstance(value, (int, float)):
        self._writer.add_scalar(key, value, step)
    picture, self._picture = self._picture, None
    if picture is not None:
      self._writer.add_image('pictures', picture, step, dataformats='HWC')
    self._writer.flush()

  def _close(self):
    writer, self._writer, self._stage = self._writer, None, None
    if writer is not None:
      writer.close()
