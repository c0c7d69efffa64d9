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

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import textwrap
from typing import Any, NamedTuple

import jax
from matplotlib import figure as mpl_figure
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import registry
from jacsup_jax.figures import curves
from jacsup_jax.figures import digits
from jacsup_jax.figures import faces
from jacsup_jax.figures import panels
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.training import steps

Row = Mapping[str, Any]

# Kind of a model -> its name, its letter in Figure 1, the end of file names.
_KINDS = {
    'teacher': ('teacher', 'a', ''),
    'student': ('student with Jacobian supervision', 'b', ''),
    'student_no_jacobian': (
        'student without Jacobian supervision', 'c', '_no_jacobian'
    ),
    'student_from_scratch': (
        'student from scratch', 'b_from_scratch', '_from_scratch'
    ),
}  # fmt: skip
_CHAINS = ('student', 'student_no_jacobian')
# Classes of the examples of Figure 2 in the paper.
_EXAMPLE_CLASSES = (7, 2, 0)
# The paper's units that relate to the digit were found at these d.
_DIGIT_DIMS = (9, 10)
_SUBJECTS = 8
# A figure with more columns cannot be read; the paper's has 32.
_MAX_ATTRIBUTES = 32
_NO_BREAK = '\N{NO-BREAK SPACE}'


class Drawing(NamedTuple):
  """A figure that can be drawn.

  Attributes:
    figure: its number in the paper, or its name, as in --figure.
    name: of its file, without ending.
    draw: makes it.
    dpi: dots per inch of a PNG.
    colors: number of colours of a PNG; None for all.
  """

  figure: str
  name: str
  draw: Callable[[], mpl_figure.Figure]
  dpi: int = panels.DPI
  colors: int | None = None


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Models and data of a run, of the first of its seeds.

  Attributes:
    path: of the run.
    trained: finished models, parents before their children.
    data: that they were not trained on.
    rows: of results.json; empty if the run is not complete.
    records: of metrics.jsonl.
  """

  path: pathlib.Path
  trained: Sequence[steps.Trained]
  data: registry.Dataset
  rows: Sequence[Row] = ()
  records: Sequence[Row] = ()

  @property
  def has_attributes(self) -> bool:
    return self.data.attribute_names is not None

  @property
  def in_colour(self) -> bool:
    return self.data.image_shape[-1] > 1

  @property
  def in_range(self) -> np.ndarray:
    """Examples whose codes give the range of a unit."""
    return np.arange(min(len(self.data), 1000 if self.in_colour else 10**6))

  @property
  def finals(self) -> dict[str, steps.Trained]:
    """The last model of each kind."""
    finals = {trained.stage.model: trained for trained in self.trained}
    if len(finals) > 1:
      finals.pop('teacher_phase_1', None)
    if self.has_attributes:
      return finals
    return {kind: finals[kind] for kind in _KINDS if kind in finals}

  @property
  def measured(self) -> dict[str, tuple[steps.Trained, Row]]:
    """The last model of each kind with its row, if that has flips."""
    rows = {row.get('stage'): row for row in self.rows
            if 'attribute_flips_by_attribute' in row}  # fmt: skip
    return {
        kind: (trained, rows[trained.stage.name])
        for kind, trained in self.finals.items()
        if trained.stage.name in rows
    }

  def chain(self, trained: steps.Trained) -> list[steps.Trained]:
    """Returns a model and those that it grew from, the first teacher first."""
    by_name = {other.stage.name: other for other in self.trained}
    chain = [trained]
    while (parent := by_name.get(chain[0].stage.parent)) is not None:
      chain.insert(0, parent)
    return chain

  def records_of(self, trained: steps.Trained) -> list[Row]:
    """Returns the records of a model's chain."""
    names = {other.stage.name for other in self.chain(trained)}
    return [record for record in self.records if record['stage'] in names]

  def name(self, trained: steps.Trained) -> str:
    """Returns a model's name for readers, with its d."""
    kind = trained.stage.model
    name = faces.name_model(kind) if self.has_attributes else _KINDS[kind][0]
    size = f'd = {trained.stage.nuisance_dim}'
    # Lines do not end within the size.
    return f'{name}, {size.replace(" ", _NO_BREAK)}'

  def images(self, rows: Iterable[int]) -> np.ndarray:
    """Returns images in [0, 1]."""
    return self.data.read(rows)[0] / np.float32(255)

  def encode(self, model: model_lib.Model, rows: Iterable[int]) -> codes.Code:
    """Encodes examples of the data."""
    images, labels = self.data.read(rows)
    return _encode(model, images, labels if self.has_attributes else None)


def list_drawings(own: Loaded) -> list[Drawing]:
  """Lists the figures of a run; nothing is drawn yet."""
  if own.has_attributes:
    found = _list_of_attributes(own)
  else:
    found = (_list_of_colour if own.in_colour else _list_of_grey)(own)
  found.append(list_reconstructions(own, own.finals.values()))
  for kind, trained in own.finals.items():
    found.append(_make('swaps', f'swaps_{kind}', _draw_swaps, own, trained))
  return found


def list_reconstructions(
    own: Loaded,
    models: Iterable[steps.Trained],
    name: str = 'reconstructions',
) -> Drawing:
  """Lists originals and reconstructions, by models of one or several runs."""

  def draw():
    rows = _choose(own, 10)
    shown = {'original': own.images(rows)}
    for trained in models:
      label = textwrap.fill(own.name(trained), 24)
      shown[label] = _decode(trained.model, own.encode(trained.model, rows))
    return panels.reconstructions(shown)

  return Drawing('7' if own.has_attributes else name, name, draw)


def list_comparison(
    own: Loaded,
    ours: tuple[steps.Trained, Row],
    fader: tuple[steps.Trained, Row],
) -> Drawing:
  """Lists Figure 8: sweeps by a student and Fader Networks, maybe of two runs.

  Args:
    own: the run whose images are shown.
    ours: the student and its row.
    fader: the Fader Networks and their row.
  """

  def draw():
    indices = rank_attributes(ours[1], own.data)[:5]
    # In units of each model's own alpha.
    values = np.linspace(-1, 1, 9)
    both = [
        sweep_attributes(own, trained, indices, row['strength'] * values)
        for trained, row in (ours, fader)
    ]
    strengths = f'{ours[1]["strength"]:g} and {fader[1]["strength"]:g}'
    return faces.compared_sweeps(
        np.stack(both, axis=1),
        values,
        [own.data.attribute_names[i] for i in indices],
        ['student', 'Fader Networks'],
        xlabel=f'value of the factor $y_i$, in units of alpha ({strengths})',
    )

  return Drawing('8', 'figure_8', draw)


def rank_attributes(row: Row, data: registry.Dataset) -> list[int]:
  """Returns indices of attributes, those confirmed most often first."""
  rates = row['attribute_flips_by_attribute']
  names = data.attribute_names
  return sorted(range(len(names)), key=lambda i: -rates[names[i]])


def sweep_attributes(
    own: Loaded,
    trained: steps.Trained,
    indices: Sequence[int],
    values: np.ndarray,
) -> np.ndarray:
  """Sweeps each attribute in an image of its own, `[n, count, S, S, 3]`."""
  code = own.encode(trained.model, range(len(indices)))
  return np.concatenate([
      _vary_unit(trained.model, _take(code, i), index, values)
      for i, index in enumerate(indices)
  ])


def vary_factors(
    own: Loaded, trained: steps.Trained, size: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Decodes a grid of the first two factors, with the first image's nuisance.

  Args:
    own: the run whose images give the range of the factors.
    trained: with two factors or more.
    size: number of values of each factor, from the 1 % to the 99 % quantile.
    limit: number of first images that give the range at most.

  Returns:
    `[size, size, H, W, C]`, and the values along rows and columns, `[size]`.
  """
  code = own.encode(trained.model, own.in_range[:limit])
  values = [sweeps.quantile_values(code, unit, size) for unit in (0, 1)]
  grid = _vary_two(trained.model, _take(code, 0), np.arange(2), *values)
  return grid, *map(np.asarray, values)


def _list_of_grey(own):
  found = []
  for kind, trained in own.finals.items():
    _, letter, suffix = _KINDS[kind]
    if trained.model.num_factors >= 2:
      found.append(_make('1', f'figure_1{letter}', _draw_factors, own, trained))
    if kind != 'teacher':
      found += _list_curves(own, trained, '1', f'figure_1d{suffix}')
    if kind in _CHAINS:
      examples = _choose(own, 3, _EXAMPLE_CLASSES)
      found.append(_make(
          '2', f'figure_2{suffix}', _draw_newest_units, own, trained, examples
      ))  # fmt: skip
  return found


def _list_of_colour(own):
  found = []
  for kind, trained in own.finals.items():
    suffix, num_factors = _KINDS[kind][2], trained.model.num_factors
    if kind == 'teacher' and num_factors >= 2:
      found.append(_make('9', 'figure_9', _draw_factors, own, trained))
    if kind not in _CHAINS:
      continue
    found.append(_make(
        '10', f'figure_10{suffix}', _draw_newest_units, own, trained,
        _choose(own, 4),
    ))  # fmt: skip
    last = trained.stage.nuisance_dim
    if last >= 2:
      dims = _DIGIT_DIMS if last >= max(_DIGIT_DIMS) else (last - 1, last)
      units = [num_factors + dim - 1 for dim in dims]
      label = f'units of d = {dims[0]}, {dims[1]}'
      found.append(_make(
          '11', f'figure_11{suffix}', _draw_grids, own, trained, units, label
      ))  # fmt: skip
    if num_factors >= 2:
      found.append(_make(
          '12', f'figure_12{suffix}', _draw_grids, own, trained, (0, 1),
          'the first two factors',
      ))  # fmt: skip
    found += _list_curves(own, trained, 'curves', f'curves{suffix}')
  return found


def _list_of_attributes(own):
  found = []
  if curves.has_tradeoff(own.rows):
    found.append(_make('4', 'figure_4', curves.tradeoff, own.rows))
  for kind, pair in own.measured.items():
    found.append(_make('5', f'figure_5_{kind}', _draw_flips, own, *pair))
    found.append(_make('sweeps', f'figure_8_{kind}', _draw_sweeps, own, *pair))
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
  title = _KINDS[trained.stage.model][0]
  return [_make(figure, name, curves.swap_curves, records, title)]


def _make(figure, name, draw, *args):
  return Drawing(figure, name, functools.partial(draw, *args))


def _draw_factors(own, trained):
  return digits.factor_grid(*vary_factors(own, trained, 17), own.name(trained))


def _draw_newest_units(own, last, examples):
  """Draws a row for each unit, varied in the student that found it."""
  rows, known = [], 0
  for trained in own.chain(last):
    model, dim = trained.model, trained.stage.nuisance_dim
    for new in range(known, dim):
      # The newest units are the last ones, whatever d the module has.
      unit = model.num_factors + model.nuisance_dim - dim + new
      in_range = own.encode(model, own.in_range)
      values = sweeps.quantile_values(in_range, unit, 10)
      rows.append(_vary_unit(model, own.encode(model, examples), unit, values))
    known = dim
  labels = [f'd = {d + 1}' for d in range(len(rows))]
  label = 'newest unit, from its 1 % to its 99 % quantile'
  return digits.traversals(np.stack(rows), labels, xlabel=label)


def _draw_grids(own, trained, units, label):
  """Draws a grid of two units for each example, above its reconstruction."""
  model, size = trained.model, 7
  in_range = own.encode(model, own.in_range)
  code = own.encode(model, _choose(own, 4))
  values = [sweeps.quantile_values(in_range, unit, size) for unit in units]
  blocks = []
  for i, reconstruction in enumerate(_decode(model, code)):
    grid = _vary_two(model, _take(code, i), np.array(units), *values)
    # The last row has one image, in its middle.
    last = np.ones_like(grid[:1])
    last[0, size // 2] = reconstruction
    blocks.append(np.concatenate([grid[::-1], last]))
  texts = [f'{value:.2g}'.replace('-', panels.MINUS) for value in values[1][::-1]]
  return digits.traversals(
      np.stack(blocks, axis=1),
      [*texts, 'unchanged'],
      xlabel=f'{label}: to the right and upwards',
  )


def _draw_swaps(own, trained):
  rows = _choose(own, 8)
  images, code = own.images(rows), own.encode(trained.model, rows)
  # A row of `swap_all_factors` has one donor; donors stand along the top.
  swapped = np.swapaxes(_swap(trained.model, code), 0, 1)
  return panels.swaps(images, images, swapped, own.name(trained))


def _draw_flips(own, trained, row):
  model, rows = trained.model, _choose(own, _SUBJECTS)
  indices = rank_attributes(row, own.data)[:_MAX_ATTRIBUTES]
  code = own.encode(model, rows)
  return faces.attribute_flips(
      own.images(rows),
      _decode(model, code),
      _flip(model, code, np.array(indices), row['strength']),
      [own.data.attribute_names[i] for i in indices],
      f'{own.name(trained)}, alpha = {row["strength"]:g}',
  )


def _draw_sweeps(own, trained, row):
  indices = rank_attributes(row, own.data)[:4]
  values = np.linspace(-row['strength'], row['strength'], 9)
  return faces.sweeps(
      sweep_attributes(own, trained, indices, values),
      values,
      [own.data.attribute_names[i] for i in indices],
      title=own.name(trained),
  )


def _choose(own, count, preferred=()):
  """Chooses the first example of each class, or the first faces."""
  if own.has_attributes:
    return np.arange(min(count, _SUBJECTS, len(own.data)))
  classes = dict.fromkeys([*preferred, *np.unique(own.data.labels).tolist()])
  firsts = [np.flatnonzero(own.data.labels == label)[:1] for label in classes]
  return np.concatenate(firsts)[:count]


def _take(code, index):
  return jax.tree.map(lambda x: x[index : index + 1], code)


_encode = jax.jit(model_lib.Model.encode)


def _jit(decode_many):
  """Compiles `(decode, *args) -> images` as `(model, *args)`, for display."""
  jitted = jax.jit(lambda model, *args: decode_many(model.decode, *args))

  def decode_for_display(model, *args):
    low, high = model.image_range
    return (np.asarray(jitted(model, *args)) - low) / (high - low)

  return decode_for_display


_decode = _jit(lambda decode, code: decode(code))
_flip = _jit(sweeps.flip_factors)
_swap = _jit(sweeps.swap_all_factors)
_vary_unit = _jit(sweeps.vary_unit)
_vary_two = _jit(sweeps.vary_factors)
