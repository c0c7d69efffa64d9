"""Metrics of a run: metrics.jsonl, and event files for TensorBoard."""

from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import numpy as np

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.models import model as models

# Entries of a record that identify it; all other numbers are shown.
_KEYS = ('stage', 'step')
_PICTURE = 'pictures'
_FLUSH_SECONDS = 1

# model -> images `[rows, cols, H, W, C]` in [0, 1].
DrawFn = Callable[[models.Model], np.ndarray]


class MetricsFile:
  """metrics.jsonl: one JSON object a line, one line an epoch."""

  def __init__(self, path: str | os.PathLike[str]):
    self._path = pathlib.Path(path)

  def append(self, record: Mapping[str, Any]) -> None:
    """Appends a record, whole or not at all.

    Args:
      record: JSON values with `stage` and `step`.

    Raises:
      StorageError: if it cannot be written.
    """
    with files.writing(self._path):
      size = self._path.stat().st_size if self._path.exists() else 0
      try:
        with open(self._path, 'a', encoding='utf-8') as file:
          file.write(json.dumps(record) + '\n')
      except OSError:
        if self._path.exists():
          os.truncate(self._path, size)
        raise

  def read(self) -> list[dict[str, Any]]:
    """Returns all records; a last line that a crash cut off is left out.

    Raises:
      InputError: if another line is damaged.
    """
    if not self._path.exists():
      return []
    records = []
    lines = files.read_bytes(self._path).split(b'\n')[:-1]
    for number, line in enumerate(lines, start=1):
      where = f'{self._path} line {number}'
      record = files.parse_json(where, line)
      if not isinstance(record.get('stage'), str) or not isinstance(
        record.get('step'), int
      ):
        raise errors.InputError(
          f'{where} is {files.describe(record)}; accepted: an object with'
          ' "stage" and "step".'
        )
      records.append(record)
    return records

  def drop_after(self, stage: str, step: int) -> None:
    """Removes records of a stage after a step, which it will take again."""
    kept = [r for r in self.read() if r['stage'] != stage or r['step'] <= step]
    files.write_whole(
      self._path, ''.join(json.dumps(record) + '\n' for record in kept)
    )


class EventFiles:
  """Event files of a run, one folder a stage; a context manager.

  They hold the numbers of metrics.jsonl, and pictures. Steps that a resumed
  stage takes again replace their first records. A file that cannot be written
  is noted once and does not stop the run.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    read_records: Callable[[], Sequence[Mapping[str, Any]]],
    *,
    note: Callable[[str], None] = lambda line: None,
  ):
    """Prepares event files; nothing is written before the first record.

    Args:
      directory: its subfolders are the stages.
      read_records: returns the records of metrics.jsonl.
      note: called with a line if files cannot be written.
    """
    self._directory = pathlib.Path(directory)
    self._read_records = read_records
    self._note = note
    self._writer, self._stage = None, None
    self._picture = None
    self._failed = False

  def __enter__(self) -> 'EventFiles':
    return self

  def __exit__(self, *unused_exception) -> None:
    # Stages that were trained before event files were asked for.
    self._try(self._add_missing_stages)
    self._try(self._close)

  def watch(
    self,
    evaluate: Callable[[models.Model], dict[str, Any]],
    draw: DrawFn,
  ) -> Callable[[models.Model], dict[str, Any]]:
    """Returns an evaluation that also draws a picture for its record.

    Args:
      evaluate: model -> metrics.
      draw: model -> `[rows, cols, H, W, C]` images in [0, 1].
    """

    def evaluate_and_draw(model):
      if not self._failed:
        self._picture = tile(draw(model))
      return evaluate(model)

    return evaluate_and_draw

  def report(self, stage: config.Stage, record: Mapping[str, Any]) -> None:
    """Writes the record of an epoch; it is on the disk within seconds."""
    self._try(lambda: self._report(stage.name, record))

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

  def _report(self, name, record):
    if name != self._stage:
      self._open(name, record['step'])
    self._write(record)
    picture, self._picture = self._picture, None
    if picture is not None:
      self._writer.add_image(
        _PICTURE, picture, record['step'], dataformats='HWC'
      )

  def _open(self, name, step):
    """Opens the writer of a stage that continues with a step, or has ended."""
    # Imported here: most runs write no event files.
    import tensorboardX

    self._close()
    directory = self._directory / name
    earlier = [
      record
      for record in self._read_records()
      if record['stage'] == name and (step is None or record['step'] < step)
    ]
    if directory.exists():
      # A killed process may not have flushed its last record.
      earlier = earlier[-1:]
    directory.mkdir(parents=True, exist_ok=True)
    self._writer = tensorboardX.SummaryWriter(
      str(directory),
      purge_step=earlier[0]['step'] if earlier else step,
      flush_secs=_FLUSH_SECONDS,
      # Names hold a second: two files of one second would be one.
      filename_suffix=f'.{len(list(directory.iterdir())):04}',
    )
    self._stage = name
    for record in earlier:
      self._write(record)

  def _write(self, record):
    for name, value in list_scalars(record):
      self._writer.add_scalar(name, value, record['step'])

  def _add_missing_stages(self):
    for name in dict.fromkeys(r['stage'] for r in self._read_records()):
      if not (self._directory / name).exists():
        self._open(name, None)

  def _close(self):
    writer, self._writer, self._stage = self._writer, None, None
    if writer is not None:
      writer.close()


def list_scalars(record: Mapping[str, Any]) -> list[tuple[str, float]]:
  """Returns the numbers of a record by name; of a list, one an entry."""
  scalars = []
  for name, value in record.items():
    values = {name: value}
    if isinstance(value, list):
      values = {f'{name}/{i}': entry for i, entry in enumerate(value)}
    scalars += [
      (key, float(number))
      for key, number in values.items()
      # A measurement may be None, such as class swaps without a pair.
      if name not in _KEYS and isinstance(number, (int, float))
    ]
  return scalars


def tile(images: np.ndarray) -> np.ndarray:
  """Tiles images into one without gaps.

  Args:
    images: `[rows, cols, H, W, C]`; values outside [0, 1] are clipped.

  Returns:
    `[rows * H, cols * W, C]` uint8.
  """
  rows, cols, height, width, channels = images.shape
  tiled = np.swapaxes(np.asarray(images), 1, 2).reshape(
    rows * height, cols * width, channels
  )
  return np.round(np.clip(tiled, 0, 1) * 255).astype(np.uint8)
