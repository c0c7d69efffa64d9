"""Lines, bars and event files that show what a binary is doing.

Nothing here ends a run: a reader of stdout that has left, or a log on a full
disk, silences what follows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments import flags
from jacsup_jax.core import config as config_lib
from jacsup_jax.data import registry
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.runs import metrics
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices

_MOST_EXAMPLES, _MOST_ATTRIBUTES = 8, 16  # of pictures for TensorBoard


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


def report_judge(epoch: int, epochs: int, means: Mapping[str, float]) -> None:
  """Prints a line after an epoch of a judge's training."""
  values = ' '.join(f'{name}={value:.4f}' for name, value in means.items())
  say(f'judge {epoch}/{epochs} {values}')


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
    values = {}
    for name in ('loss', 'eval_mse', 'eval_class_swaps'):
      # Replicas have a list of values; a measure may be undefined.
      known = [x for x in np.ravel(record.get(name)) if x is not None]
      if known:
        values[name] = f'{np.mean(known):.4f}'
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


@contextlib.contextmanager
def observed(
    run: flags.RunConfig,
    workdir: workdirs.WorkDir,
    stages: Sequence[config_lib.Stage],
    evaluate: Callable[[model_lib.Model], dict[str, Any]],
    draw: metrics.DrawFn,
) -> Iterator[tuple[Callable[..., None], Callable[..., dict[str, Any]]]]:
  """Shows progress, and writes event files if they were asked for.

  Args:
    run: its flags.
    workdir: of the run.
    stages: of the run.
    evaluate: model -> metrics.
    draw: model -> pictures of event files.

  Yields:
    `report` and `evaluate` of `runs.stages.run`.
  """
  with contextlib.ExitStack() as stack:
    shown = stack.enter_context(Progress(stages, run.progress))
    if not run.tensorboard:
      yield shown.report, evaluate
      return
    events = stack.enter_context(
        metrics.EventFiles(
            workdir.path / 'tensorboard',
            workdir.read_metrics,
            note=note,
        )
    )

    def report(stage, record):
      events.report(stage, record)
      shown.report(stage, record)

    yield report, events.watch(evaluate, draw)


def make_draw_swaps(data: registry.Dataset) -> metrics.DrawFn:
  """Makes pictures of swapped factors, for TensorBoard.

  Args:
    data: of classes; the first image of each class is drawn.

  Returns:
    Draws a row of images, one of reconstructions, and for each image a row of
    all with its factors.
  """
  _, firsts = np.unique(data.labels, return_index=True)
  images = jnp.asarray(data.images[firsts[:_MOST_EXAMPLES]]) / 255

  @jax.jit
  def draw(model):
    code = model.encode(images)
    swapped = sweeps.swap_all_factors(model.decode, code)
    return jnp.concatenate([jnp.stack([images, model.decode(code)]), swapped])

  return lambda model: np.asarray(draw(model))


def make_draw_flips(data: registry.Dataset, strength: float) -> metrics.DrawFn:
  """Makes pictures of flipped attributes, for TensorBoard.

  Args:
    data: of faces; the first images are drawn.
    strength: alpha of a flip.

  Returns:
    Draws a row of images, one of reconstructions, and one for each flip.
  """
  few = range(min(_MOST_EXAMPLES, len(data)))
  images, labels = map(jnp.asarray, data.read(few))

  @jax.jit
  def draw(model):
    code = model.encode(images, labels)
    count = min(labels.shape[1], _MOST_ATTRIBUTES)
    flipped = sweeps.flip_factors(
        model.decode, code, jnp.arange(count), strength
    )
    first = jnp.stack([images / 127.5 - 1, model.decode(code)])
    return (jnp.concatenate([first, jnp.swapaxes(flipped, 0, 1)]) + 1) / 2

  return lambda model: np.asarray(draw(model))


def _mute(stream):
  """Sends what is still written to a stream nowhere."""
  try:
    with open(os.devnull, 'w', encoding='utf-8') as nowhere:
      os.dup2(nowhere.fileno(), stream.fileno())
  except (OSError, ValueError, AttributeError):
    pass  # A stream without a file, as of a test.
