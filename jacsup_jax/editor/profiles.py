"""What is known of a model: edits that work, usual errors, where classes lie.

A run's results say how far an attribute can be moved and what judges then see;
the rest is measured on the training data. Everything is optional: a model of
which nothing is known can be edited with all the same.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import spatial

from jacsup_jax.core import errors
from jacsup_jax.models import model as models

# Balanced flips below this are nearer to chance (0.5) than to certainty.
_LEAST_FLIPS = 0.75
# Quantiles of the errors of training images, by the names that are stored: of
# a usual picture, and of the last that is like the training data.
_USUAL, _LIMIT = '0.5', '0.99'
_NUM_ERRORS, _BATCH = 512, 64
# Cells a side of a layout, and the images that say the class of one.
_CELLS, _NEIGHBORS = 33, 15
# Further from any image than this share of the map, a cell has no class.
_FARTHEST = 0.04


@dataclasses.dataclass(frozen=True)
class EditScore:
  """How well edits of one attribute work, from a run's results.json."""

  absent: float  # the values that the factor was set to, in its own units
  present: float
  flips: float  # balanced over the signs, in [0, 1]; 0.5 is chance
  kept: float  # share of the judgements of other attributes that stay

  @property
  def is_weak(self) -> bool:
    """Whether judges hardly see the edit."""
    return self.flips < _LEAST_FLIPS


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the training data's classes lie in the plane of two factors.

  The plane reaches from the 1 % to the 99 % quantile of either factor.
  """

  # `[N, N]` classes, -1 where there are no images; the first row has the
  # highest values of the second factor.
  cells: tuple[tuple[int, ...], ...]
  # By class, the medians of the two factors in their own units.
  centers: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Profile:
  """What is known of a model besides its weights and its units."""

  about: str = ''  # what it is and what it was trained on, for a sentence
  edits: Mapping[str, EditScore] = dataclasses.field(default_factory=dict)
  # Quantiles, such as `0.99`, of the mean squared errors of reconstructions of
  # training images, in the model's range.
  errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
  layout: Layout | None = None

  def compare(self, error: float) -> float | None:
    """Compares the error of a picture with those of the training data.

    Returns how many times their median it is, if it is above their last
    quantile; else, or if they are not known, None.
    """
    usual, limit = (self.errors.get(name) for name in (_USUAL, _LIMIT))
    if usual is None or limit is None or error <= limit:
      return None
    return error / max(usual, 1e-12)


def measure(
  model: models.Model,
  images: np.ndarray,
  factors: np.ndarray,
  labels: np.ndarray | None,
) -> Profile:
  """Measures errors, and the layout of a model of two factors.

  Of training images `[M, H, W, C]` uint8, their factors `[M, K]`, and their
  classes `[M]`; there is no layout without classes.
  """
  found = []
  for start in range(0, min(len(images), _NUM_ERRORS), _BATCH):
    own = images[start : start + _BATCH]
    filled = np.resize(own, (_BATCH, *own.shape[1:]))
    found.append(np.asarray(_compute_errors(model, filled))[: len(own)])
  levels = np.quantile(np.concatenate(found), [float(_USUAL), float(_LIMIT)])
  layout = None
  if labels is not None and labels.ndim == 1 and factors.shape[1] == 2:
    layout = lay_out(factors, labels)
  return Profile(
    errors=dict(zip((_USUAL, _LIMIT), levels.tolist())), layout=layout
  )


def lay_out(factors: np.ndarray, labels: np.ndarray) -> Layout:
  """Lays out the classes `[M]` of images by their two factors `[M, 2]`."""
  low, high = np.quantile(factors, [0.01, 0.99], axis=0)
  # So that a factor that is constant divides by no zero.
  places = (factors - low) / np.maximum(high - low, 1e-12)
  steps = (np.arange(_CELLS) + 0.5) / _CELLS
  cells = np.stack(np.meshgrid(steps, steps[::-1]), axis=-1).reshape(-1, 2)
  count = range(1, min(_NEIGHBORS, len(labels)) + 1)
  distances, nearest = spatial.cKDTree(places).query(cells, count)
  votes = (labels[nearest][..., np.newaxis] == np.unique(labels)).sum(axis=1)
  classes = np.unique(labels)[votes.argmax(axis=1)]
  classes[distances[:, 0] > _FARTHEST] = -1
  centers = {
    str(own): tuple(np.median(factors[labels == own], axis=0).tolist())
    for own in np.unique(labels)
  }
  rows = classes.reshape(_CELLS, _CELLS).tolist()
  return Layout(tuple(map(tuple, rows)), centers)


def read_edits(row: Mapping[str, Any]) -> dict[str, EditScore]:
  """Reads scores by attribute from a row of results.json; {} without them."""
  try:
    return {
      name: EditScore(
        *map(float, values),
        flips=float(row['attribute_flips_balanced_by_attribute'][name]),
        kept=float(row['kept_by_attribute'][name]),
      )
      for name, values in row['edit_values_by_attribute'].items()
    }
  except (KeyError, TypeError, ValueError):  # Digits, or of an older version.
    return {}


def from_json(where: Any, value: Any) -> Profile:
  """Parses `dataclasses.asdict(profile)`; None is an empty one.

  InputError, which says where, if it is damaged.
  """
  if value is None:
    return Profile()
  try:
    layout = value.get('layout')
    own = Profile(
      str(value.get('about', '')),
      {own: EditScore(**x) for own, x in value.get('edits', {}).items()},
      {own: float(x) for own, x in value.get('errors', {}).items()},
      None if layout is None else _read_layout(**layout),
    )
    scores = [dataclasses.astuple(score) for score in own.edits.values()]
    centers = [] if own.layout is None else list(own.layout.centers.values())
    if all(
      np.all(np.isfinite(np.array(numbers, np.float64)))
      for numbers in (scores, [*own.errors.values()], centers)
    ):
      return own
  except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
    pass
  raise errors.InputError(
    f'{where} holds a profile that is damaged; accepted: one that this package'
    ' wrote, with finite numbers.'
  )


def _read_layout(
  cells: Sequence[Sequence[int]], centers: Mapping[str, Sequence[float]]
) -> Layout:
  cells = np.array(cells, np.int64)
  if cells.ndim != 2 or cells.shape[0] != cells.shape[1] or not cells.size:
    raise ValueError(f'cells are {list(cells.shape)}')
  pairs = {str(own): (float(x), float(y)) for own, (x, y) in centers.items()}
  return Layout(tuple(map(tuple, cells.tolist())), pairs)


@jax.jit
def _compute_errors(model, images):
  images = models.to_range(images, model.image_range)
  reconstructions = model.decode(model.encode(images))
  return jnp.mean(jnp.square(images - reconstructions), axis=(1, 2, 3))
