"""Draw the figures of a run from what its models decode.

Functions take a run and models of it, and return a figure; `drawing` lists
which of them a run can give.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
import textwrap
from typing import Any

import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.data import registry
from jacsup_jax.figures import digits
from jacsup_jax.figures import faces
from jacsup_jax.figures import panels
from jacsup_jax.figures import sweeps
from jacsup_jax.models import model as model_lib
from jacsup_jax.training import steps

Row = Mapping[str, Any]

# Kind of a model -> its name, its letter in Figure 1, the end of file names.
KINDS = {
    'teacher': ('teacher', 'a', ''),
    'student': ('student with Jacobian supervision', 'b', ''),
    'student_no_jacobian': (
        'student without Jacobian supervision', 'c', '_no_jacobian'
    ),
    'student_from_scratch': (
        'student from scratch', 'b_from_scratch', '_from_scratch'
    ),
}  # fmt: skip
_SUBJECTS = 8
# A figure with more columns cannot be read; the paper's has 32.
_MAX_ATTRIBUTES = 32
_NO_BREAK = '\N{NO-BREAK SPACE}'


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Models and data of one seed of a run.

  Attributes:
    path: of the run.
    trained: finished models, parents before their children.
    data: that they were not trained on.
    rows: of results.json, if any.
    records: of metrics.jsonl.
  """

  path: pathlib.Path
  trained: Sequence[steps.Trained]
  data: registry.Dataset
  rows: Sequence[Row] = ()
  records: Sequence[Row] = ()

  @property
  def has_attributes(self) -> bool:
    """Whether labels are attributes, not classes."""
    return self.data.attribute_names is not None

  @property
  def in_range(self) -> np.ndarray:
    """Examples whose codes give the range of a unit."""
    limit = 1000 if self.data.image_shape[-1] > 1 else 10**6
    return np.arange(min(len(self.data), limit))

  @property
  def finals(self) -> dict[str, steps.Trained]:
    """The last model of each kind."""
    finals = {trained.stage.model: trained for trained in self.trained}
    if len(finals) > 1:
      finals.pop('teacher_phase_1', None)
    if self.has_attributes:
      return finals
    return {kind: finals[kind] for kind in KINDS if kind in finals}

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
    name = faces.name_model(kind) if self.has_attributes else KINDS[kind][0]
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
  return np.concatenate(
    [
      _vary_unit(trained.model, _take(code, i), index, values)
      for i, index in enumerate(indices)
    ]
  )


def vary_factors(
  own: Loaded, trained: steps.Trained, size: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Decodes a grid of the first two factors, with the first image's nuisance.

  Returns:
    `[size, size, H, W, C]`, and the values along rows and columns, `[size]`,
    from the 1 % to the 99 % quantile on the first `limit` images.
  """
  code = own.encode(trained.model, own.in_range[:limit])
  values = [sweeps.quantile_values(code, unit, size) for unit in (0, 1)]
  grid = _vary_two(trained.model, _take(code, 0), np.arange(2), *values)
  return grid, *map(np.asarray, values)


def draw_factors(own, trained):
  """Draws the grid of a model's first two factors."""
  return digits.factor_grid(*vary_factors(own, trained, 17), own.name(trained))


def draw_reconstructions(own, models):
  """Draws originals and their reconstructions by each model."""
  rows = choose_examples(own, 10)
  shown = {'original': own.images(rows)}
  for trained in models:
    label = textwrap.fill(own.name(trained), 24)
    shown[label] = _decode(trained.model, own.encode(trained.model, rows))
  return panels.reconstructions(shown)


def draw_newest_units(own, last, examples):
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


def draw_grids(own, trained, units, label):
  """Draws a grid of two units for each example, above its reconstruction."""
  model, size = trained.model, 7
  in_range = own.encode(model, own.in_range)
  code = own.encode(model, choose_examples(own, 4))
  values = [sweeps.quantile_values(in_range, unit, size) for unit in units]
  blocks = []
  for i, reconstruction in enumerate(_decode(model, code)):
    grid = _vary_two(model, _take(code, i), np.array(units), *values)
    # The last row has one image, in its middle.
    last = np.ones_like(grid[:1])
    last[0, size // 2] = reconstruction
    blocks.append(np.concatenate([grid[::-1], last]))
  texts = [f'{x:.2g}'.replace('-', panels.MINUS) for x in values[1][::-1]]
  return digits.traversals(
    np.stack(blocks, axis=1),
    [*texts, 'unchanged'],
    xlabel=f'{label}: to the right and upwards',
  )


def draw_swaps(own, trained):
  """Draws images with the factors of each other."""
  rows = choose_examples(own, 8)
  images, code = own.images(rows), own.encode(trained.model, rows)
  # A row of `swap_all_factors` has one donor; donors stand along the top.
  swapped = np.swapaxes(_swap(trained.model, code), 0, 1)
  return panels.swaps(images, images, swapped, own.name(trained))


def draw_flips(own, trained, row):
  """Draws faces with one attribute flipped at a time."""
  model, rows = trained.model, choose_examples(own, _SUBJECTS)
  indices = rank_attributes(row, own.data)[:_MAX_ATTRIBUTES]
  code = own.encode(model, rows)
  return faces.attribute_flips(
    own.images(rows),
    _decode(model, code),
    _flip(model, code, np.array(indices), row['strength']),
    [own.data.attribute_names[i] for i in indices],
    f'{own.name(trained)}, alpha = {row["strength"]:g}',
  )


def draw_sweeps(own, trained, row):
  """Draws the attributes confirmed most often over -alpha to alpha."""
  indices = rank_attributes(row, own.data)[:4]
  values = np.linspace(-row['strength'], row['strength'], 9)
  return faces.sweeps(
    sweep_attributes(own, trained, indices, values),
    values,
    [own.data.attribute_names[i] for i in indices],
    title=own.name(trained),
  )


def draw_comparison(own, ours, fader):
  """Draws sweeps by a student above those by Fader Networks."""
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


def choose_examples(own, count, preferred=()):
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
