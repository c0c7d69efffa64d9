"""Event files of a run for TensorBoard, with pictures of its models."""

from collections.abc import Callable, Iterator
import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import progress
from jacsup_jax.data import registry
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
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
  with metrics.EventFiles(
    workdir.path / 'tensorboard', workdir.read_metrics, note=progress.note
  ) as events:

    def report_both(stage, record):
      events.report(stage, record)
      report(stage, record)

    yield report_both, events.watch(evaluate, _make_draw(data, strength))


def _make_draw(data, strength):
  """Draws images, reconstructions, and a row for each donor or flip."""
  shown = np.arange(len(data))
  if strength is None:
    _, shown = np.unique(data.labels, return_index=True)
  images, labels = map(jnp.asarray, data.read(shown[:_MOST_EXAMPLES]))

  @jax.jit
  def draw(model):
    code = model.encode(images, labels)
    if strength is None:
      rows = sweeps.swap_all_factors(model.decode, code)
    else:
      flipped = jnp.arange(min(labels.shape[1], _MOST_ATTRIBUTES))
      targets = jnp.broadcast_to(
        jnp.array([[-strength, strength]]), (labels.shape[1], 2)
      )
      rows = sweeps.flip_factors(model.decode, code, flipped, targets)
      rows = jnp.swapaxes(rows, 0, 1)
    originals = model_lib.to_range(images, model.image_range)
    low, high = model.image_range
    first = jnp.stack([originals, model.decode(code)])
    return (jnp.concatenate([first, rows]) - low) / (high - low)

  return draw
