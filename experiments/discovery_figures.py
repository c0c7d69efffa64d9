"""What the figures of experiments.mnist and experiments.svhn share."""

from collections.abc import Mapping, Sequence
import functools
import textwrap
from typing import Any

import jax
from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.figures import panels as figures
from jacsup_jax.figures import traversals
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages

# Model of a chain: its name, and the end of file names.
CHAINS = {
    'student': ('student with Jacobian supervision', ''),
    'student_no_jacobian': (
        'student without Jacobian supervision', '_no_jacobian'
    ),
}  # pyformat: disable
_GRID_SIZE = 17
_NO_BREAK = '\N{NO-BREAK SPACE}'
_NUM_VALUES = 10


def find_chains(
    trained: Sequence[stages.Trained],
) -> dict[str, list[stages.Trained]]:
  """Returns each chain's models, from the first teacher to the last student.

  Args:
    trained: all models of a run, parents before their children.

  Returns:
    Model of a chain -> its models; chains that are not there are left out.
  """
  return {
      name: _find_chain(trained, name)
      for name in CHAINS
      if any(model.stage.model == name for model in trained)
  }


def first_of_classes(
    labels: np.ndarray, preferred: Sequence[int], count: int
) -> np.ndarray:
  """Returns the index of the first image of up to `count` classes.

  Args:
    labels: `[M]` int.
    preferred: classes that come first, where they are there.
    count: of classes at most.

  Returns:
    `[n]` int, n up to `count`.
  """
  classes = dict.fromkeys([*preferred, *np.unique(labels).tolist()])
  firsts = [np.flatnonzero(labels == label)[:1] for label in classes]
  return np.concatenate(firsts)[:count]


def draw_factors(
    name: str, model: stages.Trained, images: jax.Array
) -> mpl_figure.Figure:
  """Draws the grid of a model's first two factors; see `vary_factors`.

  Args:
    name: of the model.
    model: to draw.
    images: `[M, H, W, C]` in [0, 1], whose quantiles are the range.
  """
  return figures.factor_grid(
      *vary_factors(model, images, _GRID_SIZE), _title(name, model)
  )


def vary_factors(
    model: stages.Trained, images: jax.Array, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Decodes a grid of the first two factors, from 1 % to 99 % quantile.

  The nuisance is that of the first image.

  Args:
    model: with two factors or more.
    images: `[M, H, W, C]` in [0, 1], whose quantiles are the range.
    size: values of each factor.

  Returns:
    `[size, size, H, W, C]`, and the values along rows and columns, `[size]`.
  """
  codes = encode(model, images)
  first = jax.tree.map(lambda x: x[:1], codes)
  horizontal, vertical = (
      traversals.quantile_values(codes, unit, size) for unit in (0, 1)
  )
  grid = traversals.vary_factors(
      functools.partial(decode, model), first, 0, 1, horizontal, vertical
  )
  return np.asarray(grid), np.asarray(horizontal), np.asarray(vertical)


def have_curves(
    chain: Sequence[stages.Trained], metrics: Sequence[Mapping[str, Any]]
) -> bool:
  """Says whether a chain was evaluated in its training."""
  return any(
      record.get('eval_mse') is not None for record in _of_chain(chain, metrics)
  )


def draw_curves(
    chain: Sequence[stages.Trained],
    metrics: Sequence[Mapping[str, Any]],
    name: str,
) -> mpl_figure.Figure:
  """Draws class swaps and error over the training of a chain.

  Args:
    chain: its models.
    metrics: records of metrics.jsonl, of whatever stages.
    name: of the chain.
  """
  return figures.training_curves(_of_chain(chain, metrics), name)


def draw_newest_units(
    students: Sequence[stages.Trained], images: jax.Array, examples: jax.Array
) -> mpl_figure.Figure:
  """Draws a row for each unit, varied in the student that found it.

  Args:
    students: of one chain, from the first growth on.
    images: `[M, H, W, C]` in [0, 1], whose quantiles are the range.
    examples: `[n, H, W, C]`, whose other units are kept.
  """
  rows, labels, known = [], [], 0
  for model in students:
    dim = model.stage.nuisance_dim
    for new in range(known, dim):
      # The newest units are the last ones, whatever d the model has.
      unit = model.model.code_dim - dim + new
      rows.append(_decode_unit(model, unit, images, examples))
      labels.append(f'd = {new + 1}')
    known = dim
  return figures.traversals(
      np.stack(rows),
      labels,
      xlabel='newest unit, from its 1 % to its 99 % quantile',
  )


def draw_reconstructions(
    models: Mapping[str, stages.Trained], images: jax.Array
) -> mpl_figure.Figure:
  """Draws `[n, H, W, C]` images and what models, by name, make of them."""
  rows = {'original': images}
  for name, model in models.items():
    label = textwrap.fill(_title(name, model), 24)
    rows[label] = decode(model, encode(model, images))
  return figures.reconstructions(rows)


def encode(trained: stages.Trained, images: jax.Array) -> codes.Code:
  """Encodes `[B, H, W, C]` images in [0, 1], with running statistics."""
  return _encode(trained.model, trained.variables, images)


def decode(trained: stages.Trained, code: codes.Code) -> jax.Array:
  """Decodes codes of B examples to `[B, H, W, C]` images."""
  return _decode(trained.model, trained.variables, code)


def _of_chain(chain, metrics):
  names = {model.stage.name for model in chain}
  return [record for record in metrics if record['stage'] in names]


def _find_chain(trained, name):
  by_name = {model.stage.name: model for model in trained}
  model = max(
      (model for model in trained if model.stage.model == name),
      key=lambda model: model.stage.nuisance_dim,
  )
  chain = [model]
  while chain[0].stage.parent is not None:
    chain.insert(0, by_name[chain[0].stage.parent])
  return chain


def _title(name, model):
  # The spaces around the sign never end a line.
  size = f'd = {model.stage.nuisance_dim}'
  return f'{name}, {size.replace(" ", _NO_BREAK)}'


def _decode_unit(model, unit, images, examples):
  """Decodes examples with a unit of a student varied over its range."""
  values = traversals.quantile_values(encode(model, images), unit, _NUM_VALUES)
  return traversals.vary_unit(
      functools.partial(decode, model), encode(model, examples), unit, values
  )


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, variables, images):
  encode_images = networks.make_encode(model, variables['batch_stats'])
  return encode_images(variables['params'], images)


@functools.partial(jax.jit, static_argnums=0)
def _decode(model, variables, code):
  decode_code = networks.make_decode(model, variables['batch_stats'])
  return decode_code(variables['params'], code)
