"""The front picture: digits, faces or both, as their runs decode them."""

from collections.abc import Sequence
import functools

import jax.numpy as jnp
import numpy as np

from experiments import celeba_figures
from experiments import discovery_figures
from experiments import discovery_runs
from experiments import drawings
from experiments import drawn_runs
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.figures import front_figures

# Images a side of a grid of digits, whose first examples give the range.
_GRID_SIZE, _RANGE_SIZE = 9, 1000
_MOST_ATTRIBUTES, _NUM_VALUES = 5, 7
# Twice that of a README, as wide as a screen.
_DPI, _COLORS = 170, 256


def list_front(loaded: Sequence[drawn_runs.Loaded]) -> drawings.Drawing:
  """Lists the front picture of one run, or of one of digits and one of faces.

  Digits (or SVHN): the first teacher's two factors, in it and in the last
  student. Faces: the attributes that the judge confirms most often for the last
  student, or the teacher without one, over values from -alpha to alpha.

  Args:
    loaded: the runs.

  Raises:
    InputError: if they are others, or lack the models.
  """
  faces = [run for run in loaded if run.experiment == 'celeba']
  digits = [run for run in loaded if run.experiment != 'celeba']
  if len(faces) > 1 or len(digits) > 1:
    raise errors.InputError(
        f'--figure=front with {len(digits)} runs of digits and {len(faces)} of'
        ' faces; accepted: one of either, or of both.'
    )
  for run in loaded:
    (_choose_faces if run in faces else _choose_digits)(run)
  return drawings.Drawing(
      functools.partial(_draw, digits, faces),
      'Factors of a teacher and of its student, which reconstructs better.',
      dpi=_DPI,
      colors=_COLORS,
  )


def _draw(digits, faces):
  grids, sweeps = [], None
  for run in digits:
    images = batches.to_float(jnp.asarray(run.data.images[:_RANGE_SIZE]))
    for title, model in _choose_digits(run):
      grid, _, _ = discovery_figures.vary_factors(model, images, _GRID_SIZE)
      grids.append((title, grid))
  for run in faces:
    model, row = _choose_faces(run)
    indices = celeba_figures.rank_attributes(row, run.data)[:_MOST_ATTRIBUTES]
    values = np.linspace(-row['strength'], row['strength'], _NUM_VALUES)
    sweeps = front_figures.Sweeps(
        celeba_figures.sweep_attributes(model, run.data, indices, values),
        celeba_figures.first_images(run.data, len(indices)),
        [run.data.attribute_names[i] for i in indices],
    )
  return front_figures.front(grids, sweeps)


def _choose_digits(run):
  """Returns pairs: title, model; of the teacher and the last student."""
  teacher = next(m for m in run.trained if m.stage.parent is None)
  chosen = [('teacher, d = 0', teacher)]
  chains = discovery_figures.find_chains(run.trained)
  students = [
      *chains.get('student', [])[-1:],
      *(m for m in run.trained if m.stage.model == discovery_runs.FROM_SCRATCH),
  ]
  if students:
    dim = students[0].stage.nuisance_dim
    chosen.append((f'student, d = {dim}', students[0]))
  if teacher.model.num_factors < 2:
    raise errors.InputError(
        f'--figure=front: {run.run.path} has a teacher of one factor; accepted:'
        ' of two or more.'
    )
  return chosen


def _choose_faces(run):
  """Returns the last student, or the teacher without one, and its row."""
  measured = celeba_figures.find_measured(run.trained, run.rows)
  for name in ('student', 'teacher'):
    if name in measured:
      return measured[name]
  raise errors.InputError(
      f'--figure=front: {run.run.path} has no student or teacher that is'
      ' measured; accepted: a complete run, or one of experiments.evaluate.'
  )
