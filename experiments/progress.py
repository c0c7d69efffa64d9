"""Lines and bars that say what a binary is doing.

Nothing here ends a run: a reader of stdout that has left, or a log on a full
disk, silences what follows.
"""

from collections.abc import Mapping, Sequence
import os
import sys
from typing import Any

import tqdm

from jacsup_jax.core import config as config_lib
from jacsup_jax.training import devices


def say(text: str, stream: Any = None) -> None:
  """Prints a line; a reader that has left, or a full log, ends nothing.

  Args:
    text: of one line or several.
    stream: stdout by default.
  """
  stream = stream or sys.stdout
  try:
    print(text, file=stream, flush=True)
  except (OSError, ValueError):
    _mute(stream)


def note(text: str) -> None:
  """Prints a note on stderr, on the first process alone."""
  if devices.is_first():
    say(f'note: {text}', sys.stderr)


def announce(text: str) -> None:
  """Prints what takes a while and shows no progress of its own."""
  if devices.is_first():
    say(f'{text} ...', sys.stderr)


class Progress:
  """A bar per stage on a terminal, a line per epoch elsewhere."""

  def __init__(
      self, stages: Sequence[config_lib.Stage], draw: bool | None = None
  ):
    """Prepares to report.

    Args:
      stages: of the run, in order.
      draw: a bar; None draws one on a terminal.
    """
    self._draw = sys.stderr.isatty() if draw is None else draw
    self._left = {stage.name: stage.epochs for stage in stages}
    self._bar, self._shown = None, None
    self._seconds: list[float] = []
    announce(
        f'training {len(self._left)} stages, the first epoch of each includes'
        ' compilation'
    )

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def report(self, stage: config_lib.Stage, record: Mapping[str, Any]) -> None:
    """Shows one record of metrics.jsonl."""
    epoch = record['epoch']
    self._start(stage)
    self._left[stage.name] = stage.epochs - epoch
    self._seconds.append(record['seconds'])
    values = {
        name: f'{record[name]:.4f}'
        for name in ('loss', 'eval_mse', 'eval_class_swaps')
        if record.get(name) is not None
    }
    if self._draw:
      self._update_bar(stage, epoch, values)
      return
    shown = ' '.join(f'{name}={value}' for name, value in values.items())
    say(
        f'{stage.name} {epoch}/{stage.epochs} {shown}'
        f' {record["images_per_second"]:.0f} images/s{self._estimate()}'
    )

  def close(self) -> None:
    """Ends the bar, if one is drawn."""
    if self._bar is not None:
      self._try(self._bar.close)
      self._bar = None

  def _start(self, stage):
    """Forgets stages before this one: they are complete, or ended early."""
    for name in list(self._left):
      if name == stage.name:
        break
      del self._left[name]

  def _estimate(self):
    """Returns the time that is left, once the pace is known."""
    left = sum(self._left.values())
    if len(self._seconds) < 2 or not left:
      return ''
    recent = sorted(self._seconds[-10:])
    seconds = left * recent[len(recent) // 2]
    if seconds < 90:
      return f', about {seconds:.0f} s left'
    if seconds < 5400:
      return f', about {seconds / 60:.0f} min left'
    return f', about {seconds / 3600:.1f} h left'

  def _update_bar(self, stage, epoch, values):
    if self._bar is None or self._shown != stage.name:
      self.close()
      self._shown = stage.name
      self._bar = tqdm.tqdm(
          total=stage.epochs, desc=stage.name, unit='epoch', initial=epoch - 1
      )
    left = self._estimate().removeprefix(', about ').removesuffix(' left')
    if left:
      values = values | {'left': left}
    self._try(lambda: self._bar.set_postfix(values))
    self._try(lambda: self._bar.update(epoch - self._bar.n))

  def _try(self, draw):
    try:
      draw()
    except (OSError, ValueError):
      self._draw, self._bar = False, None
      _mute(sys.stderr)


def _mute(stream):
  """Sends what is still written to a stream nowhere."""
  try:
    with open(os.devnull, 'w', encoding='utf-8') as nowhere:
      os.dup2(nowhere.fileno(), stream.fileno())
  except (OSError, ValueError, AttributeError):
    pass  # A stream without a file, as of a test.
