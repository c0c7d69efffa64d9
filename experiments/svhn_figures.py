"""Draws Figures 9 to 12 of Lezama (2019) from the models of a run."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import discovery_figures
from experiments import drawings
from jacsup_jax.data import batches
from jacsup_jax.figures import panels as figures
from jacsup_jax.figures import traversals
from jacsup_jax.runs import stages
from jacsup_jax.training import discovery

# Of images, whose codes give the range of a unit.
_RANGE_SIZE = 1000
_NUM_VALUES = 7
_NUM_EXAMPLES = 4
# d of the paper's factors that are related to the digit.
_DIGIT_DIMS = (9, 10)


def list_drawings(
    trained: Sequence[stages.Trained],
    images: np.ndarray,
    labels: np.ndarray,
    metrics: Sequence[Mapping[str, Any]],
) -> drawings.Drawings:
  """Lists the figures that the models of a run give; nothing is drawn yet.

  All units run from their 1 % to their 99 % quantile on the first 1,000 images,
  to the right and upwards. Figures 10 to 12 are drawn for each chain, those
  without Jacobian supervision with `_no_jacobian` at the end of their names.

  figure_9: the first teacher's two factors.
  figure_10: a row for each student, with the unit that it found varied.
  figure_11: the last student's units that were found at d = 9 and 10, as in the
    paper, or the last two of a smaller one, of four images of other classes.
  figure_12: the last student's first two factors, of the same images.
  curves: class swaps and error over each chain's training.
  reconstructions: the first image of each class, by the teacher and the last
    students.

  With a single factor 9 and 12 are left out, with d = 1 11.

  Args:
    trained: models of the run, parents before their children.
    images: `[M, H, W, C]` uint8, held out from training.
    labels: `[M]` int.
    metrics: of metrics.jsonl, of the same models, for the curves.
  """
  labels = np.asarray(labels)
  to_float = lambda x: batches.to_float(jnp.asarray(x))
  in_range = to_float(images[:_RANGE_SIZE])
  shown = to_float(images[discovery_figures.first_of_classes(labels, (), 10)])
  examples = shown[:_NUM_EXAMPLES]
  teacher = next(model for model in trained if model.stage.parent is None)
  has_two_factors = teacher.model.num_factors >= 2
  finals = {'teacher': teacher}
  found = {name: {} for name in ('9', '10', '11', '12', drawings.CURVES)}

  if has_two_factors:
    found['9']['figure_9'] = drawings.Drawing(
        functools.partial(
            discovery_figures.draw_factors, 'teacher', teacher, in_range
        ),
        'Figure 9: what the first teacher decodes while its two factors run'
        ' from their 1 % to their 99 % quantile.',
    )
  for model, chain in discovery_figures.find_chains(trained).items():
    name, suffix = discovery_figures.CHAINS[model]
    last = finals[name] = chain[-1]
    found['10'][f'figure_10{suffix}'] = drawings.Drawing(
        functools.partial(
            discovery_figures.draw_newest_units, chain[1:], in_range, examples
        ),
        f'Figure 10: the units of the {name}, each varied alone by the model'
        ' that found it.',
    )
    if discovery_figures.have_curves(chain, metrics):
      found[drawings.CURVES][f'curves{suffix}'] = drawings.Drawing(
          functools.partial(
              discovery_figures.draw_curves, chain, metrics, name
          ),
          f'Class swaps and error over training, {name}.',
          is_curve=True,
      )
    if last.stage.nuisance_dim >= 2:
      dims = _DIGIT_DIMS
      if last.stage.nuisance_dim < max(dims):
        dims = (last.stage.nuisance_dim - 1, last.stage.nuisance_dim)
      units = tuple(last.model.num_factors + dim - 1 for dim in dims)
      found['11'][f'figure_11{suffix}'] = _list_grids(
          last, units, f'units of d = {dims[0]}, {dims[1]}', in_range,
          examples, f'Figure 11: two units of the {name}, varied in four'
          ' images, whose reconstructions are below.',
      )  # pyformat: disable
    if has_two_factors:
      found['12'][f'figure_12{suffix}'] = _list_grids(
          last, (0, 1), 'the first two factors', in_range, examples,
          f'Figure 12: the teacher\'s two factors in the {name}, varied in four'
          ' images, whose reconstructions are below.',
      )  # pyformat: disable
  found[drawings.RECONSTRUCTIONS] = {
      'reconstructions': drawings.Drawing(
          functools.partial(
              discovery_figures.draw_reconstructions, finals, shown
          ),
          'Images that were held out, and what the models make of them.',
      )
  }
  return {name: files for name, files in found.items() if files}


def _list_grids(last, units, xlabel, images, examples, caption):
  return drawings.Drawing(
      functools.partial(_draw_grids, last, units, xlabel, images, examples),
      caption,
  )


def _draw_grids(trained, units, xlabel, images, examples):
  """Draws a grid of two units for each example, above its reconstruction."""
  # Any unit is a factor then.
  trained = dataclasses.replace(
      trained, model=discovery.as_teacher(trained.model)
  )
  codes = discovery_figures.encode(trained, images)
  own = discovery_figures.encode(trained, examples)
  decode = functools.partial(discovery_figures.decode, trained)
  horizontal, vertical = (
      traversals.quantile_values(codes, unit, _NUM_VALUES) for unit in units
  )
  blocks = []
  for i, reconstruction in enumerate(np.asarray(decode(own))):
    code = jax.tree.map(lambda x, i=i: x[i : i + 1], own)
    grid = traversals.vary_factors(decode, code, *units, horizontal, vertical)
    # The last row has one image, in its middle.
    last = np.ones_like(grid[:1])
    last[0, _NUM_VALUES // 2] = reconstruction
    blocks.append(np.concatenate([grid[::-1], last]))
  return figures.traversals(
      np.stack(blocks, axis=1),
      [*(_show(value) for value in vertical[::-1]), 'unchanged'],
      xlabel=f'{xlabel}: to the right and upwards',
  )


def _show(value):
  return f'{value:.2g}'.replace('-', '\N{MINUS SIGN}')
