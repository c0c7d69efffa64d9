"""Draw the figures that a run can give, by what its data and models are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import textwrap
from typing import Any, NamedTuple

import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.figures import curves
from jacsup_jax.figures import grids
from jacsup_jax.figures import panels
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.training import steps

Row = Mapping[str, Any]

# Names of figures, by their numbers in the paper.
FIGURES = (
    '1', '2', '4', '5', '7', '8', '9', '10', '11', '12', 'curves',
    'edits', 'reconstructions', 'sweeps', 'swaps', 'tradeoff',
)  # fmt: skip
# Kind of a model -> its name, and its letter in Figure 1.
KINDS = {
  'teacher': ('teacher', 'a'),
  'student': ('student with Jacobian supervision', 'b'),
  'student_no_jacobian': ('student without Jacobian supervision', 'c'),
  'student_from_scratch': ('student from scratch', 'b_from_scratch'),
}
_CHAINS = ('student', 'student_no_jacobian')
# Classes of the examples of Figure 2 in the paper.
_EXAMPLE_CLASSES = (7, 2, 0)
# The paper's units that relate to the digit were found at these d.
_DIGIT_DIMS = (9, 10)
# The data of Table 1 of the paper.
_DIGITS = ('mnist_embedded', 'mnist')
_SUBJECTS = 8
# Examples whose codes give the range of a unit.
_IN_RANGE = 1000
# A figure with more columns cannot be read; the paper's has 32.
_MAX_ATTRIBUTES = 32
_SWEPT = np.linspace(-1, 1, 9)


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Models and data of one seed of a run."""

  path: pathlib.Path
  trained: Sequence[steps.Trained]  # parents before their children
  data: registry.Dataset  # that they were not trained on
  rows: Sequence[Row] = ()  # of results.json, if any
  records: Sequence[Row] = ()  # of metrics.jsonl

  @property
  def has_attributes(self) -> bool:
    """Whether labels are attributes, not classes."""
    return self.data.attribute_names is not None

  @property
  def finals(self) -> dict[str, steps.Trained]:
    """The last model of each kind."""
    finals = {trained.stage.model: trained for trained in self.trained}
    kinds = [kind for kind in finals if kind != 'teacher_phase_1'] or finals
    if not self.has_attributes:
      kinds = sorted(kinds, key=lambda kind: [*KINDS, kind].index(kind))
    return {kind: finals[kind] for kind in kinds}

  @property
  def measured(self) -> dict[str, tuple[steps.Trained, Row]]:
    """The last model of each kind with its row, if that has flips."""
    return {
      kind: (trained, row)
      for kind, trained in self.finals.items()
      for row in self.rows
      if row.get('stage') == trained.stage.name
      and 'edit_values_by_attribute' in row
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
    name, *_ = KINDS.get(kind, [panels.name_model(kind)])
    # Without spaces in it, so that no line ends within the size.
    return f'{name}, d\xa0=\xa0{trained.stage.nuisance_dim}'

  def images(self, rows: Iterable[int]) -> np.ndarray:
    """Returns images in [0, 1]."""
    return self.data.read(rows)[0] / np.float32(255)

  def encode(self, model: model_lib.Model, rows: Iterable[int]) -> codes.Code:
    """Encodes examples of the data."""
    images, labels = self.data.read(rows)
    arrays = (images, labels) if self.has_attributes else (images,)
    return sweeps.encode(model, *arrays)

  def values(
    self, model: model_lib.Model, units: Iterable[int], count: int
  ) -> list[np.ndarray]:
    """Returns the values over which a figure varies each unit."""
    code = self.encode(model, range(min(_IN_RANGE, len(self.data))))
    found = [sweeps.quantile_values(code, unit, count) for unit in units]
    return jax.device_get(found)

  def examples(self, count: int, preferred: Sequence[int] = ()) -> np.ndarray:
    """Returns the first example of each class, or the first faces."""
    if self.has_attributes:
      return np.arange(min(count, _SUBJECTS, len(self.data)))
    labels = self.data.labels
    classes = dict.fromkeys([*preferred, *np.unique(labels).tolist()])
    firsts = [np.flatnonzero(labels == label)[:1] for label in classes]
    return np.concatenate(firsts)[:count]


class Drawing(NamedTuple):
  """A figure that can be drawn."""

  figure: str  # its number in the paper, or its name, as in --figure
  name: str  # of its file, without ending
  draw: Callable[[], panels.Figure]


def make(figure: str, name: str, draw: Callable, *args: Any) -> Drawing:
  """Makes a drawing from a function and its arguments."""
  return Drawing(figure, name, functools.partial(draw, *args))


def list_drawings(own: Loaded) -> list[Drawing]:
  """Lists the figures of a run; nothing is drawn yet."""
  faces, models = own.has_attributes, own.finals
  found = [*(_list_of_attributes(own) if faces else _list_of_classes(own))]
  args = 'reconstructions', draw_reconstructions, own, models.values()
  found.append(make('7' if faces else 'reconstructions', *args))
  named = {own.name(trained): trained for trained in models.values()}
  if not faces:
    return [*found, make('swaps', 'swaps', draw_swaps, own, named)]
  for kind, one in zip(models, named.items()):
    found.append(make('swaps', f'swaps_{kind}', draw_swaps, own, dict([one])))
  return found


def save(
  drawings: Iterable[Drawing],
  folder: pathlib.Path,
  formats: Sequence[str] = ('png',),
) -> list[pathlib.Path]:
  """Draws figures and writes each in all formats of `panels.FORMATS`."""
  written = []
  for one in drawings:
    figure = one.draw()
    for ending in formats:
      written.append(folder / f'{one.name}.{ending}')
      files.write_whole(written[-1], panels.encode(figure, ending))
  return written


def _list_of_classes(own):
  """Figures 1 and 2 of grey images, 9 to 12 of images in colour."""
  colour = own.data.image_shape[-1] > 1
  if curves.has_tradeoff(own.rows, curves.SWAPS):
    yield make('tradeoff', 'tradeoff', draw_tradeoff, [own])
  for kind in [kind for kind in KINDS if kind in own.finals]:
    trained = own.finals[kind]
    (name, letter), suffix = KINDS[kind], kind.removeprefix('student')
    factors, last = trained.model.num_factors, trained.stage.nuisance_dim
    records = own.records_of(trained)
    if factors >= 2 and (kind == 'teacher' or not colour):
      number, file = ('9', 'figure_9') if colour else ('1', f'figure_1{letter}')
      yield make(number, file, _draw_factors, own, trained)
    if kind != 'teacher' and _have_errors(records):
      number, file = ('curves', 'curves') if colour else ('1', 'figure_1d')
      yield make(number, file + suffix, curves.swap_curves, records, name)
    if kind in _CHAINS:
      number = '10' if colour else '2'
      shown = own.examples(*((4,) if colour else (3, _EXAMPLE_CLASSES)))
      args = _draw_newest_units, own, trained, shown
      yield make(number, f'figure_{number}{suffix}', *args)
    if not colour or kind not in _CHAINS:
      continue
    if last >= 2:
      dims = _DIGIT_DIMS if last >= max(_DIGIT_DIMS) else (last - 1, last)
      units = [factors + dim - 1 for dim in dims]
      args = own, trained, units, f'units of d = {dims[0]}, {dims[1]}'
      yield make('11', f'figure_11{suffix}', _draw_grids, *args)
    if factors >= 2:
      args = own, trained, (0, 1), 'the first two factors'
      yield make('12', f'figure_12{suffix}', _draw_grids, *args)


def _list_of_attributes(own):
  if curves.has_tradeoff(own.rows):
    yield make('4', 'figure_4', curves.tradeoff, own.rows)
  if any(row.get('edit_curve') for row in own.rows):
    yield make('edits', 'edit_curves', curves.edit_curves, own.rows)
  measured = own.measured
  for kind, pair in measured.items():
    yield make('5', f'figure_5_{kind}', _draw_flips, own, *pair)
    yield make('sweeps', f'figure_8_{kind}', _draw_sweeps, own, *pair)
  if {'student', 'fader'} <= set(measured):
    args = own, measured['student'], measured['fader']
    yield make('8', 'figure_8', draw_comparison, *args)
  for kind, trained in own.finals.items():
    records = own.records_of(trained)
    if _have_errors(records):
      yield make('curves', f'curves_{kind}', curves.error_curves, records)


def _have_errors(records):
  return any(record.get('eval_mse') is not None for record in records)


def _find_best(row, count):
  """Returns the names of the attributes confirmed most often."""
  rates = row['attribute_flips_balanced_by_attribute']
  return sorted(rates, key=lambda name: -rates[name])[:count]


def _list_indices(own, names):
  return np.array([own.data.attribute_names.index(name) for name in names])


def _list_targets(row, names):
  """Returns the values of absent and present attributes, `[n, 2]`."""
  return np.array([row['edit_values_by_attribute'][name] for name in names])


def _sweep_attributes(own, trained, row, names):
  """Sweeps each attribute in an image of its own, `[n, count, S, S, 3]`."""
  # There may be fewer images than attributes.
  code = own.encode(trained.model, np.arange(len(names)) % len(own.data))
  values = np.linspace(*_list_targets(row, names).T, len(_SWEPT), axis=1)
  rows = [
    sweeps.decode(
      trained.model, sweeps.take(code, i), sweeps.vary_unit, index, values[i]
    )
    for i, index in enumerate(_list_indices(own, names))
  ]
  return np.concatenate(rows)


def _draw_factors(own, trained):
  """Draws a grid of the first two factors, with the first image's nuisance."""
  # A mean nuisance would flatter.
  model, units = trained.model, np.arange(2)
  values = own.values(model, units, 17)
  grid = sweeps.decode(
    model, own.encode(model, [0]), sweeps.vary_factors, units, *values
  )
  return grids.factor_grid(grid, *values, own.name(trained))


def draw_reconstructions(
  own: Loaded, models: Iterable[steps.Trained]
) -> panels.Figure:
  """Draws originals and reconstructions by models of one or several runs."""
  rows = own.examples(10)
  shown = {'original': own.images(rows)}
  for trained in models:
    label = textwrap.fill(own.name(trained), 24)
    shown[label] = sweeps.decode(trained.model, own.encode(trained.model, rows))
  return grids.reconstructions(shown)


def _draw_newest_units(own, last, examples):
  """Draws a row for each unit, varied in the student that found it."""
  rows, known = [], 0
  for trained in own.chain(last):
    model, dim = trained.model, trained.stage.nuisance_dim
    # The newest units are the last ones, whatever d the module has.
    end = model.num_factors + model.nuisance_dim
    units = range(end - dim + known, end)
    code = own.encode(model, examples)
    for unit, values in zip(units, own.values(model, units, 10)):
      rows.append(sweeps.decode(model, code, sweeps.vary_unit, unit, values))
    known = dim
  labels = [f'd = {d + 1}' for d in range(known)]
  label = 'newest unit, from its 1 % to its 99 % quantile'
  return grids.traversals(np.stack(rows), labels, xlabel=label)


def _draw_grids(own, trained, units, label):
  """Draws a grid of two units for each example, above its reconstruction."""
  model, size, blocks = trained.model, 7, []
  code = own.encode(model, own.examples(4))
  values = own.values(model, units, size)
  args = sweeps.vary_factors, np.array(units), *values
  for i, reconstruction in enumerate(sweeps.decode(model, code)):
    grid = sweeps.decode(model, sweeps.take(code, i), *args)
    # The last row has one image, in its middle.
    last = np.ones_like(grid[:1])
    last[0, size // 2] = reconstruction
    blocks.append(np.concatenate([grid[::-1], last]))
  labels = [panels.minus(f'{x:.2g}') for x in values[1][::-1]] + ['unchanged']
  label += ': to the right and upwards'
  return grids.traversals(np.stack(blocks, axis=1), labels, xlabel=label)


def draw_tradeoff(loaded: Sequence[Loaded]) -> panels.Figure:
  """Draws class swaps against error of one or several runs.

  Beside those of digits with two factors stand the paper's, of Table 1.
  """
  rows = [
    {**row, 'source': own.path.name} if len(loaded) > 1 else row
    for own in loaded
    for row in own.rows
    if row['model'] != 'random'  # Its error is ten times as large.
  ]
  if all(
    own.data.name in _DIGITS and own.trained[0].model.num_factors == 2
    for own in loaded
  ):
    # Imported here: other data have no numbers of the paper.
    from experiments import paper_numbers

    rows += paper_numbers.list_points(paper_numbers.TABLE_1)
  return curves.tradeoff(rows, curves.SWAPS)


def draw_swaps(
  own: Loaded, models: Mapping[str, steps.Trained]
) -> panels.Figure:
  """Draws swaps between a run's examples, by models of one or several runs."""
  rows, swapped = own.examples(10), {}
  for title, trained in models.items():
    code = own.encode(trained.model, rows)
    # A row of `swap_all_factors` has one donor; donors stand along the top.
    images = sweeps.decode(trained.model, code, sweeps.swap_all_factors)
    swapped[title] = images.swapaxes(0, 1)
  return grids.swaps(own.images(rows), own.images(rows), swapped)


def _draw_flips(own, trained, row):
  # Imported here: runs of digits have no attributes.
  from jacsup_jax.evaluation import thresholds

  model, rows = trained.model, own.examples(_SUBJECTS)
  names = _find_best(row, _MAX_ATTRIBUTES)
  code = own.encode(model, rows)
  targets = _list_targets(row, own.data.attribute_names)
  args = _list_indices(own, names), targets, own.data.conflicts
  levels = thresholds.recall(row, own.data.attribute_names)
  flipped = sweeps.decode(model, code, sweeps.flip_factors, *args, levels)
  shown = own.images(rows), sweeps.decode(model, code), flipped
  strengths = row.get('deviations_by_attribute', {})
  return grids.attribute_flips(
    *shown, names, own.name(trained), [*map(strengths.get, names)]
  )


def _draw_sweeps(own, trained, row):
  """Draws the attributes confirmed most often, from absent to present."""
  names = _find_best(row, 4)
  images = _sweep_attributes(own, trained, row, names)
  return grids.sweeps(images, _SWEPT, names, own.name(trained))


def draw_comparison(
  own: Loaded, ours: tuple[steps.Trained, Row], fader: tuple[steps.Trained, Row]
) -> panels.Figure:
  """Draws sweeps by a student above those by Fader Networks, Figure 8.

  Images are those of one run; the models, with their rows, may be of others.
  """
  names = _find_best(ours[1], 5)
  both = [_sweep_attributes(own, *pair, names) for pair in (ours, fader)]
  return grids.compared_sweeps(
      np.stack(both, axis=1), _SWEPT, names, ['student', 'Fader Networks'],
      xlabel=grids.SWEPT,
  )  # fmt: skip
