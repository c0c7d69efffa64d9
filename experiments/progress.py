"""Lines and bars that show what a binary is doing."""

from collections.abc import Iterator, Mapping, Sequence
import sys
import time
from typing import Any

from jax import monitoring
import numpy as np
import tqdm

from jacsup_jax.core import config as config_lib
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.training import devices

# JAX's event after a program is compiled, or read from a cache.
_COMPILED = '/jax/core/compile/backend_compile_duration'
# Between two lines of `track`.
_SECONDS = 30.0
say = files.say


def note(text: str) -> None:
  """Prints a note on stderr, on the first process alone."""
  if devices.is_first():
    say(f'note: {text}', 'stderr')


def announce(text: str) -> None:
  """Prints what takes a while and shows no progress of its own."""
  if devices.is_first():
    say(f'{text} ...', 'stderr')


def track(doing: str, items: Sequence[Any]) -> Iterator[Any]:
  """Yields items, and prints how many there are, and at times how far it is."""
  announce(f'{doing}: {len(items)} models')
  shown = time.monotonic()
  for done, item in enumerate(items):
    if time.monotonic() - shown >= _SECONDS:
      announce(f'{doing}: {done} of {len(items)} done')
      shown = time.monotonic()
    yield item


def report_data(data: registry.Dataset) -> None:
  """Prints what a run is trained on, on the first process alone."""
  if devices.is_first():
    size = 'x'.join(map(str, data.image_shape))
    say(f'data: {len(data):,} images of {size}, {data.name} {data.split}')


def report_judges(accuracy: Mapping[str, Sequence[float]]) -> None:
  """Prints how often judges, by name, are right on real images."""
  each = (f'{name} {np.mean(own):.1%}' for name, own in accuracy.items())
  say(f'judges: right on {", ".join(each)} of real images')


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
    self._kinds = {stage.name: stage.model for stage in stages}
    self._bar, self._shown = None, None
    # For each stage that has begun, seconds of its epochs without compilation;
    # for each kind, how much longer the first epoch of its last stage was.
    self._paces: dict[str, list[float]] = {}
    self._longer: dict[str, float] = {}
    self._compiling = 0.0  # Seconds since the last record.
    announce(
      f'training {len(self._left)} stages, {sum(self._left.values())} epochs in'
      ' all; the first of each stage includes compilation'
    )

  def __enter__(self) -> 'Progress':
    monitoring.register_event_duration_secs_listener(self._listen)
    return self

  def __exit__(self, *unused_exception) -> None:
    monitoring.unregister_event_duration_listener(self._listen)
    self.close()

  def _listen(self, event, seconds, **unused):
    if event == _COMPILED:
      self._compiling += seconds

  def report(self, stage: config_lib.Stage, record: Mapping[str, Any]) -> None:
    """Shows one record of metrics.jsonl."""
    epoch = record['epoch']
    # Stages before this one are complete, or ended early.
    names = [*self._left]
    for name in names[: names.index(stage.name)]:
      del self._left[name]
    self._left[stage.name] = stage.epochs - epoch
    compiling, self._compiling = self._compiling, 0.0
    self._note_pace(stage, record['seconds'], compiling)
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
    parts = [
      f'{stage.name} {epoch}/{stage.epochs} {shown}'
      f' {record["images_per_second"]:.0f} images/s'
    ]
    if compiling >= 1:
      parts.append(f'{compiling:.0f} s of compilation')
    if left := self._estimate():
      parts.append(f'{left} left')
    say(', '.join(parts))
    _note_lost()

  def close(self) -> None:
    """Ends the bar, if one is drawn."""
    if self._bar is not None:
      self._try(self._bar.close)
      self._bar = None

  def _note_pace(self, stage, seconds, compiling):
    own = self._paces.setdefault(stage.name, [])
    if not own:
      # What was compiled for evaluation is no part of the epoch's seconds.
      own.append(max(seconds - compiling, seconds / 10))
      self._longer[stage.model] = seconds - own[0]
    else:
      own.append(seconds)

  def _estimate(self):
    """Returns the time that is left in words, once a pace is known.

    A stage that has not begun is as slow as the last one of its kind. Of a kind
    that is still unknown, as students are while their teacher is trained, it
    is as slow as any so far: a lower bound, since most are slower.
    """
    left = {name: epochs for name, epochs in self._left.items() if epochs}
    if sum(map(len, self._paces.values())) < 2 or not left:
      return ''
    paces = {
      self._kinds[name]: np.median(own[1:][-10:] or own)
      for name, own in self._paces.items()
    }
    seconds = 0.0
    for name, epochs in left.items():
      kind = self._kinds[name]
      seconds += epochs * paces.get(kind, max(paces.values()))
      if name not in self._paces:
        seconds += self._longer.get(kind, max(self._longer.values()))
    known = all(self._kinds[name] in paces for name in left)
    text = f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} min'
    return f'{"about" if known else "at least"} {text}'

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
