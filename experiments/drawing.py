"""List the figures that a run can give, by what its data and models are.

Figures of classes, grey images:
  figure_1a, 1b, 1c, 1b_from_scratch: what the teacher, the last student, the
    last one without Jacobian supervision and one from scratch decode while the
    first two factors run from their 1 % to their 99 % quantile. The nuisance is
    that of the first image; a mean nuisance would flatter.
  figure_1d, 1d_no_jacobian, 1d_from_scratch: class swaps and error over the
    training of each chain.
  figure_2, 2_no_jacobian: a row for each unit of a chain, varied in three
    images by the student that found it.
Figures of classes, images in colour:
  figure_9: the teacher's two factors.
  figure_10, 11, 12, and _no_jacobian: the newest unit of each student; two
    units of the last student that are related to the class; its first factors.
  curves, curves_no_jacobian: class swaps and error over training.
Figures of attributes:
  figure_4: flips against error, of all models.
  figure_5_MODEL: each attribute flipped, the most often confirmed one first.
  figure_8: the best attributes swept by the student and by Fader Networks.
  figure_8_MODEL (sweeps): four attributes, each over -alpha to alpha.
  curves_MODEL, discriminator_MODEL: error over training, and the accuracy of
    the latent discriminator of Fader Networks.
Of both: reconstructions (Figure 7 of attributes), and swaps_MODEL: images with
the factors of each other.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
import os
import pathlib
from typing import NamedTuple

from matplotlib import figure as mpl_figure
import numpy as np

from experiments import decoding
from jacsup_jax.data import files
from jacsup_jax.figures import curves
from jacsup_jax.figures import panels
from jacsup_jax.training import steps

_CHAINS = ('student', 'student_no_jacobian')
# Classes of the examples of Figure 2 in the paper.
_EXAMPLE_CLASSES = (7, 2, 0)
# The paper's units that relate to the digit were found at these d.
_DIGIT_DIMS = (9, 10)


class Drawing(NamedTuple):
  """A figure that can be drawn."""

  figure: str  # its number in the paper, or its name, as in --figure
  name: str  # of its file, without ending
  draw: Callable[[], mpl_figure.Figure]
  dpi: int = panels.DPI  # of a PNG
  colors: int | None = None  # of a PNG; None for all


def list_drawings(own: decoding.Loaded) -> list[Drawing]:
  """Lists the figures of a run; nothing is drawn yet."""
  if own.has_attributes:
    found = _list_of_attributes(own)
  else:
    in_colour = own.data.image_shape[-1] > 1
    found = (_list_of_colour if in_colour else _list_of_grey)(own)
  found.append(list_reconstructions(own, own.finals.values()))
  for kind, trained in own.finals.items():
    found.append(
      _make('swaps', f'swaps_{kind}', decoding.draw_swaps, own, trained)
    )
  return found


def save(
  drawings: Iterable[Drawing],
  folder: str | os.PathLike[str],
  formats: Sequence[str] = ('png',),
) -> list[pathlib.Path]:
  """Draws figures and writes each in all formats of `panels.FORMATS`.

  Raises:
    StorageError: if a file cannot be written.
  """
  written = []
  for one in drawings:
    figure = one.draw()
    for ending in formats:
      path = pathlib.Path(folder) / f'{one.name}.{ending}'
      with files.writing(path):
        panels.save(figure, path, ending, dpi=one.dpi, colors=one.colors)
      written.append(path)
  return written


def list_reconstructions(
  own: decoding.Loaded,
  models: Iterable[steps.Trained],
  name: str = 'reconstructions',
) -> Drawing:
  """Lists originals and reconstructions, by models of one or several runs."""
  figure = '7' if own.has_attributes else 'reconstructions'
  return _make(figure, name, decoding.draw_reconstructions, own, list(models))


def list_comparison(
  own: decoding.Loaded,
  ours: tuple[steps.Trained, decoding.Row],
  fader: tuple[steps.Trained, decoding.Row],
) -> Drawing:
  """Lists Figure 8, which compares a student and Fader Networks, of any runs.

  Args:
    own: the run whose images are shown.
    ours: the student and its row.
    fader: the Fader Networks and their row.
  """
  return _make('8', 'figure_8', decoding.draw_comparison, own, ours, fader)


def _list_of_grey(own):
  found = []
  for kind, trained in own.finals.items():
    _, letter, suffix = decoding.KINDS[kind]
    if trained.model.num_factors >= 2:
      found.append(
        _make('1', f'figure_1{letter}', decoding.draw_factors, own, trained)
      )
    if kind != 'teacher':
      found += _list_curves(own, trained, '1', f'figure_1d{suffix}')
    if kind in _CHAINS:
      examples = decoding.choose_examples(own, 3, _EXAMPLE_CLASSES)
      found.append(_make(
          '2', f'figure_2{suffix}', decoding.draw_newest_units, own, trained,
          examples,
      ))  # fmt: skip
  return found


def _list_of_colour(own):
  found = []
  for kind, trained in own.finals.items():
    suffix, num_factors = decoding.KINDS[kind][2], trained.model.num_factors
    if kind == 'teacher' and num_factors >= 2:
      found.append(_make('9', 'figure_9', decoding.draw_factors, own, trained))
    if kind not in _CHAINS:
      continue
    found.append(_make(
        '10', f'figure_10{suffix}', decoding.draw_newest_units, own, trained,
        decoding.choose_examples(own, 4),
    ))  # fmt: skip
    last = trained.stage.nuisance_dim
    if last >= 2:
      dims = _DIGIT_DIMS if last >= max(_DIGIT_DIMS) else (last - 1, last)
      units = [num_factors + dim - 1 for dim in dims]
      label = f'units of d = {dims[0]}, {dims[1]}'
      found.append(_make(
          '11', f'figure_11{suffix}', decoding.draw_grids, own, trained, units,
          label,
      ))  # fmt: skip
    if num_factors >= 2:
      found.append(_make(
          '12', f'figure_12{suffix}', decoding.draw_grids, own, trained, (0, 1),
          'the first two factors',
      ))  # fmt: skip
    found += _list_curves(own, trained, 'curves', f'curves{suffix}')
  return found


def _list_of_attributes(own):
  found = []
  if curves.has_tradeoff(own.rows):
    found.append(_make('4', 'figure_4', curves.tradeoff, own.rows))
  for kind, pair in own.measured.items():
    found.append(
      _make('5', f'figure_5_{kind}', decoding.draw_flips, own, *pair)
    )
    found.append(
      _make('sweeps', f'figure_8_{kind}', decoding.draw_sweeps, own, *pair)
    )
  if {'student', 'fader'} <= set(own.measured):
    pairs = own.measured['student'], own.measured['fader']
    found.append(list_comparison(own, *pairs))
  share = np.mean(own.data.labels > 0, axis=0)
  commoner = float(np.mean(np.maximum(share, 1 - share)))
  for kind, trained in own.finals.items():
    records = own.records_of(trained)
    if any(record.get('eval_mse') is not None for record in records):
      name = f'curves_{kind}'
      found.append(_make('curves', name, curves.error_curves, records))
    if any('discriminator_accuracy' in record for record in records):
      found.append(_make(
          'curves', f'discriminator_{kind}', curves.adversarial_curves, records,
          commoner,
      ))  # fmt: skip
  return found


def _list_curves(own, trained, figure, name):
  records = own.records_of(trained)
  if all(record.get('eval_mse') is None for record in records):
    return []
  title = decoding.KINDS[trained.stage.model][0]
  return [_make(figure, name, curves.swap_curves, records, title)]


def _make(figure, name, draw, *args):
  return Drawing(figure, name, functools.partial(draw, *args))
