"""Lines and bars that show what a binary is doing."""

from collections.abc import Mapping, Sequence
import sys
from typing import Any

import numpy as np
import tqdm

from jacsup_jax.core import config as config_lib
from jacsup_jax.data import files
from jacsup_jax.training import devices

say = files.say


def note(text: str) -> None:
  """Prints a note on stderr, on the first process alone."""
  if devices.is_first():
    say(f'note: {text}', 'stderr')


def announce(text: str) -> None:
  """Prints what takes a while and shows no progress of its own."""
  if devices.is_first():
    say(f'{text} ...', 'stderr')


def report_judge(epoch: int, epochs: int, means: Mapping[str, float]) -> None:
  """Prints a line after an epoch of a judge's training."""
  values = ' '.join(f'{name}={value:.4f}' for name, value in means.items())
  say(f'judge {epoch}/{epochs} {values}')
  _note_lost()


def report_checker(name: str, epoch: int, epochs: int, loss: float) -> None:
  """Prints a line after an epoch of a network of --checkers."""
  say(f'{name} {epoch}/{epochs} loss={loss:.4f}')


class Progress:
  """A bar per stage on a terminal, a line per epoch elsewhere."""

  def __init__(
    self, stages: Sequence[config_lib.Stage], draw: bool | None = None
  ):
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    self._draw = on_terminal if draw is None else draw
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
    # Stages before this one are complete, or ended early.
    names = [*self._left]
    for name in names[: names.index(stage.name)]:
      del self._left[name]
    self._left[stage.name] = stage.epochs - epoch
    self._seconds.append(record['seconds'])
    values = {}
    for name in ('loss', 'eval_mse', 'eval_class_swaps_mlp'):
      # Replicas have a list of values; a measure may be undefined.
      known = [x for x in np.ravel(record.get(name)) if x is not None]
      if known:
        values[name] = f'{np.mean(known):.4f}'
    if self._draw:
      self._try(lambda: self._update_bar(stage, epoch, values))
      _note_lost()
      return
    shown = ' '.join(f'{name}={value}' for name, value in values.items())
    pace, left = f'{record["images_per_second"]:.0f} images/s', self._estimate()
    say(
      f'{stage.name} {epoch}/{stage.epochs} {shown} {pace}'
      + (f', about {left} left' if left else '')
    )
    _note_lost()

  def close(self) -> None:
    """Ends the bar, if one is drawn."""
    if self._bar is not None:
      self._try(self._bar.close)
      self._bar = None

  def _estimate(self):
    """Returns the time that is left in words, once the pace is known."""
    left = sum(self._left.values())
    if len(self._seconds) < 2 or not left:
      return ''
    seconds = left * np.median(self._seconds[-10:])
    if seconds < 90:
      return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min'

  def _update_bar(self, stage, epoch, values):
    if self._bar is None or self._shown != stage.name:
      self.close()
      self._shown = stage.name
      self._bar = tqdm.tqdm(
        total=stage.epochs, desc=stage.name, unit='epoch', initial=epoch - 1
      )
    if left := self._estimate():
      values = values | {'left': left}
    self._bar.set_postfix(values)
    self._bar.update(epoch - self._bar.n)

  def _try(self, draw):
    try:
      draw()
    except (OSError, ValueError) as error:
      self._draw, self._bar = False, None
      files.drop_stream('stderr', error)


def _note_lost():
  """Notes once, on the stream that is left, which one shows nothing more."""
  while files.lost_streams:
    name, reason = files.lost_streams.popitem()
    left = 'stderr' if name == 'stdout' else 'stdout'
    say(f'note: {name} is lost ({reason}); the run continues.', left)
    if left in files.lost_streams:  # Both are.
      files.lost_streams.clear()
