"""What shows a run while it trains: progress, and event files if asked for."""

from collections.abc import Callable, Iterator
import contextlib
import functools
from typing import Any

from absl import flags
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import command_line
from experiments import seed_runs
from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.data import batches
from jacsup_jax.figures import traversals
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import event_files
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()

_FOLDER = 'tensorboard'
# Of a picture that a page has room for.
_MOST_EXAMPLES = 8
_MOST_ATTRIBUTES = 16

# (model, variables) -> `[rows, cols, H, W, C]` in [0, 1].
DrawFn = Callable[[nn.Module, codes.Variables], np.ndarray]


def define_flags() -> None:
  """Defines the flag of a binary whose runs may write event files."""
  flags.DEFINE_boolean(
      'tensorboard',
      False,
      'Write what metrics.jsonl has, and pictures at each evaluation, as event'
      f' files for TensorBoard, to {_FOLDER}/ in --workdir.',
  )


@contextlib.contextmanager
def watched(
    workdir: workdirs.WorkDir,
    plan: seed_runs.Plan,
    evaluate: stages.EvaluateFn,
    draw: DrawFn,
) -> Iterator[tuple[stages.ReportFn, stages.EvaluateFn]]:
  """Shows a run while it trains. Of the first process alone.

  Args:
    workdir: of the run.
    plan: of its seeds.
    evaluate: of a single model, for curves.
    draw: what event files have a picture of at each evaluation.

  Yields:
    `report` and `evaluate` of `stages.run`.
  """
  with command_line.Progress(FLAGS.progress) as progress:
    if not FLAGS.tensorboard:
      yield progress.report, evaluate
      return
    with event_files.EventFiles(
        workdir.path / _FOLDER,
        workdir.read_metrics,
        seeds=plan.seeds if plan.together else (),
        note=command_line.note,
    ) as events:

      def report(stage: config.Stage, record: dict[str, Any]) -> None:
        events.report(stage, record)
        progress.report(stage, record)

      yield report, events.watch(evaluate, draw)


def make_draw_swaps(images: np.ndarray, labels: np.ndarray) -> DrawFn:
  """Makes a picture of digits, whose factors are swapped.

  Args:
    images: `[M, H, W, C]` uint8, not of the training set.
    labels: `[M]` int; the first image of each class is drawn.

  Returns:
    Draws a row of originals, one of reconstructions, and one for each original:
    all images with the factors of that.
  """
  _, firsts = np.unique(np.asarray(labels), return_index=True)
  chosen = jnp.asarray(np.asarray(images)[firsts[:_MOST_EXAMPLES]])
  return lambda model, variables: np.asarray(
      _draw_swaps(model, variables, chosen)
  )


def make_draw_flips(
    images: np.ndarray, attributes: np.ndarray, strength: float
) -> DrawFn:
  """Makes a picture of faces, whose attributes are flipped.

  Args:
    images: `[M, S, S, 3]` uint8, not of the training set; the first are drawn.
    attributes: `[M, K]` int in {-1, +1}; the first are flipped.
    strength: alpha of a flip.

  Returns:
    Draws a row of originals, one of reconstructions, and one for each flip.
  """
  chosen = jnp.asarray(images[:_MOST_EXAMPLES])
  labels = jnp.asarray(attributes[:_MOST_EXAMPLES])
  return lambda model, variables: np.asarray(
      _draw_flips(model, variables, chosen, labels, strength)
  )


@functools.partial(jax.jit, static_argnums=0)
def _draw_swaps(model, variables, images):
  images = batches.to_float(images)
  encode = networks.make_encode(model, variables['batch_stats'])
  decode = functools.partial(
      networks.make_decode(model, variables['batch_stats']),
      variables['params'],
  )
  code = encode(variables['params'], images)
  swapped = traversals.swap_all_factors(decode, code)
  return jnp.concatenate([jnp.stack([images, decode(code)]), swapped])


@functools.partial(jax.jit, static_argnums=0)
def _draw_flips(model, variables, images, attributes, strength):
  images = batches.to_signed_float(images)
  # Fader Networks are given the labels.
  encode = fader_networks.make_labelled_encode(model, variables['batch_stats'])
  decode = functools.partial(
      networks.make_decode(model, variables['batch_stats']),
      variables['params'],
  )
  code = encode(variables['params'], images, attributes)
  count = min(attributes.shape[1], _MOST_ATTRIBUTES)
  flipped = traversals.flip_factors(decode, code, jnp.arange(count), strength)
  shown = jnp.stack([images, decode(code)])
  return (jnp.concatenate([shown, jnp.swapaxes(flipped, 0, 1)]) + 1) / 2
