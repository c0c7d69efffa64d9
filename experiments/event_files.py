"""Event files of a run for TensorBoard, with pictures of its models."""

from collections.abc import Callable, Iterator
import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import progress
from jacsup_jax.data import registry
from jacsup_jax.figures import sweeps
from jacsup_jax.runs import metrics
from jacsup_jax.runs import workdir as workdirs

_MOST_EXAMPLES, _MOST_ATTRIBUTES = 8, 16


@contextlib.contextmanager
def added(
  workdir: workdirs.WorkDir,
  report: Callable[..., None],
  evaluate: Callable[..., dict],
  data: registry.Dataset,
  strength: float | None,
) -> Iterator[tuple[Callable[..., None], Callable[..., dict]]]:
  """Adds event files to what reports and evaluates while a run trains.

  Pictures are of swaps, or of faces' flips of a strength.
  """
  draw = _draw_swaps(data) if strength is None else _draw_flips(data, strength)
  with metrics.EventFiles(
    workdir.path / 'tensorboard', workdir.read_metrics, note=progress.note
  ) as events:

    def report_both(stage, record):
      events.report(stage, record)
      report(stage, record)

    yield report_both, events.watch(evaluate, draw)


def _draw_swaps(data):
  """Draws images, reconstructions, and for each image all with its factors."""
  _, firsts = np.unique(data.labels, return_index=True)
  images = jnp.asarray(data.images[firsts[:_MOST_EXAMPLES]]) / 255

  @jax.jit
  def draw(model):
    code = model.encode(images)
    swapped = sweeps.swap_all_factors(model.decode, code)
    return jnp.concatenate([jnp.stack([images, model.decode(code)]), swapped])

  return draw


def _draw_flips(data, strength):
  """Draws images, reconstructions, and a row for each flipped attribute."""
  few = range(min(_MOST_EXAMPLES, len(data)))
  images, labels = map(jnp.asarray, data.read(few))
  flipped_factors = jnp.arange(min(labels.shape[1], _MOST_ATTRIBUTES))

  @jax.jit
  def draw(model):
    code = model.encode(images, labels)
    flipped = sweeps.flip_factors(model.decode, code, flipped_factors, strength)
    first = jnp.stack([images / 127.5 - 1, model.decode(code)])
    return (jnp.concatenate([first, jnp.swapaxes(flipped, 0, 1)]) + 1) / 2

  return draw
