"""Draws Figures 1 and 2 of Lezama (2019) from the models of a run."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import discovery_figures
from experiments import discovery_runs
from experiments import drawings
from jacsup_jax.data import batches
from jacsup_jax.runs import stages

# Model of a chain: its letter in Figure 1.
_LETTERS = {'student': 'b', 'student_no_jacobian': 'c'}
# Digits of Figure 2 in the paper.
_EXAMPLE_LABELS = (7, 2, 0)


def list_drawings(
    trained: Sequence[stages.Trained],
    images: np.ndarray,
    labels: np.ndarray,
    metrics: Sequence[Mapping[str, Any]],
) -> drawings.Drawings:
  """Lists the figures that the models of a run give; nothing is drawn yet.

  figure_1a, 1b, 1c, 1b_from_scratch: what the first teacher, the last student,
    the last one without Jacobian supervision and one from scratch decode while
    the first two factors run from their 1 % to their 99 % quantile, to the
    right and upwards. In all but a the nuisance is that of the first image, as
    in a class swap: factors of one, nuisance of another. (The mean nuisance
    would flatter: it is no image's, and with it a student with Jacobian
    supervision decodes classes nearer to the teacher's than with almost any
    image's.)
  figure_1d, 1d_no_jacobian, 1d_from_scratch: class swaps and error over each
    chain's training, or that of the student from scratch.
  figure_2, 2_no_jacobian: a row for each unit of each chain, decoded by the
    student that found it, from its 1 % to its 99 % quantile; all other units
    are those of three images.
  reconstructions: the first image of each class, by the models of Figure 1.

  Models that are not there are left out, and with a single factor a, b and c.

  Args:
    trained: models of the run, parents before their children.
    images: `[M, H, W, C]` uint8, held out from training.
    labels: `[M]` int.
    metrics: of metrics.jsonl, of the same models, for the curves.
  """
  floats = batches.to_float(jnp.asarray(images))
  labels = np.asarray(labels)
  teacher = next(model for model in trained if model.stage.parent is None)
  chains = discovery_figures.find_chains(trained)

  finals = {'a': ('teacher', teacher)}
  for model, chain in chains.items():
    name, _ = discovery_figures.CHAINS[model]
    finals[_LETTERS[model]] = (name, chain[-1])
  curves = {model: discovery_figures.CHAINS[model] for model in chains}
  for model in trained:
    if model.stage.model == discovery_runs.FROM_SCRATCH:
      finals['b_from_scratch'] = ('student from scratch', model)
      curves[model.stage.model] = ('student from scratch', '_from_scratch')
  first, second = {}, {}
  if teacher.model.num_factors >= 2:
    for letter, (name, model) in finals.items():
      first[f'figure_1{letter}'] = drawings.Drawing(
          functools.partial(
              discovery_figures.draw_factors, name, model, floats
          ),
          f'Figure 1: what the {name} decodes while its first two factors run'
          ' from their 1 % to their 99 % quantile.',
      )
  for model, (name, suffix) in curves.items():
    chain = chains.get(model) or [finals['b_from_scratch'][1]]
    if discovery_figures.have_curves(chain, metrics):
      first[f'figure_1d{suffix}'] = drawings.Drawing(
          functools.partial(
              discovery_figures.draw_curves, chain, metrics, name
          ),
          f'Figure 1 (d): class swaps and error over training, {name}.',
          is_curve=True,
      )

  examples = discovery_figures.first_of_classes(labels, _EXAMPLE_LABELS, 3)
  for model, chain in chains.items():
    name, suffix = discovery_figures.CHAINS[model]
    second[f'figure_2{suffix}'] = drawings.Drawing(
        functools.partial(
            discovery_figures.draw_newest_units,
            chain[1:],
            floats,
            floats[examples],
        ),
        f'Figure 2: the units of the {name}, each varied alone in three images'
        ' by the model that found it.',
    )

  shown = floats[discovery_figures.first_of_classes(labels, (), 10)]
  found = {
      '1': first,
      '2': second,
      drawings.RECONSTRUCTIONS: {
          'reconstructions': drawings.Drawing(
              functools.partial(
                  discovery_figures.draw_reconstructions,
                  dict(finals.values()),
                  shown,
              ),
              'Images that were held out, and what the models make of them.',
          )
      },
  }
  return {name: files for name, files in found.items() if files}
