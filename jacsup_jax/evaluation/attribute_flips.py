"""Edits of attributes: what judges see of them, and what else they change.

Two protocols: the paper's (Section 4.3 of Lezama, 2019), one alpha for all
attributes in units of a factor; and the field's, balanced by sign, with a
strength for each attribute in standard deviations of its factor. Models have
images in [-1, 1] and a factor per attribute; data are `[M, S, S, 3]` uint8 and
`[M, K]` int labels in {-1, +1}. There are J judges; means are those of the
judge who gives the lower one.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import edit_counts
from jacsup_jax.evaluation import edit_truth
from jacsup_jax.evaluation import likeness
from jacsup_jax.evaluation import reconstruction
from jacsup_jax.evaluation import thresholds as thresholds_lib

# alpha, in units of a factor, whose margin in the hinge loss (11) is 1.
STRENGTHS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0)
# From the mean of a factor, in its deviations. Factors that are the labels, or
# bounded by them, have a mean of 0 and units of 1, so that 1 is the label. Less
# than that is for models whose labels are exaggerations.
DEVIATIONS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
# A judge with less balanced accuracy on real images says little about a flip;
# 0.5 is chance.
TOLD_ACCURACY = 0.75
# The attributes of STGAN (Liu et al., 2019), which the field reports.
STGAN = (
  *('Bald', 'Bangs', 'Black_Hair', 'Blond_Hair', 'Brown_Hair'),
  *('Bushy_Eyebrows', 'Eyeglasses', 'Male', 'Mouth_Slightly_Open'),
  *('Mustache', 'No_Beard', 'Pale_Skin', 'Young'),
)
PROTOCOL = (
  'attribute_flips: y_i set to -strength sign(y_i), counted if the judge then'
  ' sees the opposite of the label, mean over all images and attributes;'
  ' strength has the most flips on the selection split; preservation: the other'
  " attributes' judgements that stay those of the reconstruction."
  ' attribute_flips_balanced: y_i set to its mean plus or minus a number of its'
  ' deviations (bounded factors and labels: 0 and 1), and attributes that'
  ' exclude it to minus that where it is asked for, with the most flips plus'
  ' kept on the selection split; an attribute is predicted where y_i reaches'
  ' the threshold of the best balanced accuracy on all of the selection split'
  ' (labels: 0); mean of images with and without the attribute;'
  ' kept: as preservation; _one: one number for all attributes;'
  ' _given: against the label instead of the prediction;'
  ' labels: of models that are given them, those of the data or predicted, with'
  " its thresholds, by the run's first model;"
  ' _stgan: over 13 attributes; outside_inside: mean change outside of an'
  ' ellipse around face and hair over that inside; _told: over attributes that'
  f' all judges tell with a balanced accuracy of {TOLD_ACCURACY} or more. Of'
  f' several judges the lower one counts. Drawn faces: {edit_truth.PROTOCOL}'
)

_BATCH_SIZE = attribute_judges.BATCH_SIZE


def measure(
  model: reconstruction.Autoencoder,
  judges: Sequence[attribute_judges.AttributeJudge],
  chosen: Mapping[str, Any],
  data: registry.Dataset,
  edit_images: int | None = None,
) -> dict[str, Any]:
  """Measures a model: entries of a row, see `summarize`.

  `chosen` is from `choose_strengths` or `recall_strengths`. Edits are counted
  on the first `edit_images` (None: all) of the data.
  """
  bound = _bind(model, judges)
  whole = [*map(jnp.asarray, (data.images, data.labels))]
  some = [x[:edit_images] for x in whole]
  numbers = chosen['one'], chosen['each'], chosen['each']
  targets = edit_counts.make_targets(
    chosen['spread'],
    [chosen['alpha']],
    numbers,
    data.conflicts,
    chosen['thresholds'],
  )
  given = jnp.array([False, False, False, True])
  counts = _apply(_count_each, *bound, *some, targets, given)
  each = jax.tree.map(lambda x: x[2], targets)
  row = summarize(
    chosen,
    jax.device_get(counts),
    jax.device_get(_apply(evaluate_faces, *bound, *whole, each.thresholds)),
    jax.device_get(each),
    data.attribute_names,
  )
  if model.factors_are_labels:
    for name in ('factor_accuracy', 'factor_balanced_accuracy'):
      row[name] = None
      del row[f'{name}_by_attribute']
  flip = edit_counts.flip_factor
  row |= likeness.measure(model, judges[-1], *some, flip, each)
  if data.name == registry.DEFAULT_FACES:  # Drawn: the truth is known.
    values = row['edit_values_by_attribute']
    row |= edit_truth.measure(model, data.attribute_names, values, data.split)
  return row


def choose_strengths(
  model: reconstruction.Autoencoder,
  judges: Sequence[attribute_judges.AttributeJudge],
  selection: registry.Dataset,
  alphas: Sequence[float] = STRENGTHS,
  selection_images: int | None = None,
  kept_weight: float = 1.0,
) -> dict[str, Any]:
  """Chooses a model's strengths on the first `selection_images` (None: all).

  See `choose_from`; `thresholds` `[K]` are chosen on all images. InputError
  unless there are alphas, all above 0 and finite.
  """
  values = np.sort(np.asarray(alphas, np.float32))
  if not values.size or not np.all((values > 0) & np.isfinite(values)):
    raise errors.InputError(
      f'the strengths to choose from are {list(alphas)}; accepted: one or'
      ' more, each above 0 and finite.'
    )
  # Moved here, as transfers by jit are refused in runs.
  whole = [*map(jnp.asarray, (selection.images, selection.labels))]
  few = [x[:selection_images] for x in whole]
  spread, thresholds = _study_factors(model, *whole, len(few[0]))
  conflicts = selection.conflicts
  grid = edit_counts.make_targets(
    spread, values, DEVIATIONS, conflicts, thresholds
  )
  given = jnp.zeros(len(grid.absent), bool)
  tried = _apply(_count_each, *_bind(model, judges), *few, grid, given)
  return {
    'spread': spread,
    'thresholds': thresholds,
    **choose_from(jax.device_get(tried), values, kept_weight),
  }


def choose_thresholds(
  model: reconstruction.Autoencoder, selection: registry.Dataset
) -> np.ndarray:
  """Chooses the thresholds `[K]` of the labels that a model predicts."""
  # Moved here, as transfers by jit are refused in runs.
  arrays = map(jnp.asarray, (selection.images, selection.labels))
  factors = jax.device_get(reconstruction.encode_factors(model, *arrays))
  return thresholds_lib.choose_thresholds(factors, selection.labels)


def recall_strengths(
  row: Mapping[str, Any], attribute_names: Sequence[str]
) -> dict[str, Any]:
  """Returns the strengths that were chosen for a row of results.json."""
  values = np.array(
    [row['edit_values_by_attribute'][x] for x in attribute_names]
  )
  each = np.array([row['deviations_by_attribute'][x] for x in attribute_names])
  absent, present = jnp.asarray(values.T, jnp.float32)
  spread = (absent + present) / 2, (present - absent) / (2 * each)
  return {
    'spread': spread,
    'thresholds': thresholds_lib.recall(row, attribute_names),
    'alpha': row['strength'],
    'one': row['deviations_one'],
    'each': each,
    'curve': row['edit_curve'],
  }


def choose_from(
  tried: edit_counts.EditCounts,
  alphas: Sequence[float],
  kept_weight: float = 1.0,
) -> dict[str, Any]:
  """Chooses strengths from counts `[P, ...]` of `alphas`, then of `DEVIATIONS`.

  `alpha`: most flips, as the paper's; `one` number of deviations for all
  attributes and `each` `[K]`: most balanced flips plus `kept_weight` times
  kept; of equals the smaller. Means over judges decide. `curve` has flips and
  kept by deviations.
  """
  count = len(alphas)
  flips, kept = edit_counts.compute_rates(tried)
  plain = np.sum(tried.flipped, -1) / np.sum(tried.images, -1)[:, np.newaxis]
  alpha = np.argmax(np.mean(plain[:count], axis=(1, 2)))
  score = np.mean(flips + kept_weight * kept, axis=1)[count:]
  # The lower judge's, as in the rows.
  lowest = [np.min(np.mean(x, -1), -1)[count:].tolist() for x in (flips, kept)]
  names = 'deviations', 'flips', 'kept'
  curve = [dict(zip(names, point)) for point in zip(DEVIATIONS, *lowest)]
  return {
    'alpha': float(alphas[alpha]),
    'one': DEVIATIONS[np.argmax(np.mean(score, axis=1))],
    'each': np.array(DEVIATIONS)[np.argmax(score, axis=0)],
    'curve': curve,
  }


def compute_area(curve: Sequence[Mapping[str, float]]) -> float:
  """Computes the area of flips over kept, both in [0, 1].

  Of all points that a strength of the curve reaches or exceeds in both.
  """
  area, highest = 0.0, 0.0
  for point in sorted(curve, key=lambda point: -point['kept']):
    area += max(0.0, point['flips'] - highest) * point['kept']
    highest = max(highest, point['flips'])
  return area


def evaluate_faces(
  model: reconstruction.Autoencoder,
  classify: Callable[[jax.Array], jax.Array],
  images: jax.Array,
  attributes: jax.Array,
  thresholds: jax.Array,
) -> dict[str, Any]:
  """Measures reconstructions, and what judges and factors say of faces.

  `factors` are counted by their signs, and by the `[K]` thresholds.
  """
  count = lambda seen, *transform: attribute_judges.count_correct(
    seen, images, attributes, *transform
  )
  reconstruct = lambda *batch: model.decode(model.encode(*batch))
  levels = jnp.stack([jnp.zeros_like(thresholds), thresholds])[:, jnp.newaxis]
  # Codes take the place of images, and their factors that of two judges.
  signs = lambda code: jnp.where(code.factors[jnp.newaxis] >= levels, 1, -1)
  return {
    'mse': reconstruction.compute_mse(
      model, images, attributes, batch_size=_BATCH_SIZE
    ),
    'judge': count(classify),
    'judge_reconstructions': count(classify, reconstruct),
    'factors': count(signs, model.encode),
  }


def summarize(
  chosen: Mapping[str, Any],
  counts: edit_counts.EditCounts,
  measured: Mapping[str, Any],
  targets: edit_counts.Targets,
  attribute_names: Sequence[str],
) -> dict[str, Any]:
  """Turns what was measured into entries of a row, JSON values.

  `counts` are those of the paper's alpha, of one number of deviations, of one
  for each attribute, and of these with the direction given. Rates are in [0,
  1], some also by name in `..._by_attribute`; None where no attribute counts.
  """
  images = np.sum(counts.images, axis=-1)[:, np.newaxis]
  paper = np.sum(counts.flipped, axis=-1)[0] / images[0]
  flips, kept = edit_counts.compute_rates(counts)
  judge, reconstructed = measured['judge'], measured['judge_reconstructions']
  told = np.min(judge.balanced_accuracy, axis=0) >= TOLD_ACCURACY
  stgan = np.isin(attribute_names, STGAN)
  change = np.maximum(counts.change[2], 1e-12)
  mse = float(measured['mse'])
  row = {
    'mse': mse,
    'psnr': reconstruction.psnr(mse, peak=2.0),
    'strength': chosen['alpha'],
    'attribute_flips_told': _lowest(paper, told),
    'attributes_told': int(np.sum(told)),
    'preservation': _lowest(kept[0]),
    'attribute_flips_balanced_told': _lowest(flips[2], told),
    'attribute_flips_balanced_stgan': _lowest(flips[2], stgan),
    'stgan_lacking': [x for x in STGAN if x not in attribute_names],
    'deviations_one': chosen['one'],
    'edit_curve': chosen['curve'],
    'edit_curve_area': compute_area(chosen['curve']),
    'outside_inside': float(np.divide(*np.sum(change, axis=0))),
  }
  for name, index in (('', 2), ('_one', 1), ('_given', 3)):
    row[f'attribute_flips_balanced{name}'] = _lowest(flips[index])
    row[f'kept{name}'] = _lowest(kept[index])
  by_attribute = {
    'attribute_flips': paper,
    'attribute_flips_balanced': flips[2],
    'kept': kept[2],
    'judge_accuracy': judge.accuracy,
    'judge_balanced_accuracy': judge.balanced_accuracy,
    'judge_accuracy_reconstructions': reconstructed.accuracy,
    'factor_accuracy': measured['factors'].accuracy[0],
    'factor_balanced_accuracy': measured['factors'].balanced_accuracy[1],
    'outside_inside': change[:, 0] / change[:, 1],
  }
  of_attributes = lambda x: dict(zip(attribute_names, x.tolist(), strict=True))
  for name, values in by_attribute.items():
    values = np.atleast_2d(values)
    row.setdefault(name, _lowest(values))
    # Those of the judge whose mean is lowest.
    row[f'{name}_by_attribute'] = of_attributes(values[values.mean(1).argmin()])
  row['deviations_by_attribute'] = of_attributes(chosen['each'])
  row['thresholds_by_attribute'] = of_attributes(chosen['thresholds'])
  row['edit_values_by_attribute'] = of_attributes(np.stack(targets[:2], -1))
  return row


def _lowest(rates, counted=True):
  """Returns the lowest of the means of `[J, K]` rates; None without any."""
  if not np.any(counted):
    return None
  return float(np.min(np.mean(rates, axis=-1, where=counted)))


def _study_factors(model, images, attributes, count):
  """Returns means and deviations of factors, and their thresholds.

  The former are of the first `count` images; 0 and 1 in units of labels, whose
  thresholds are 0.
  """
  num_factors = attributes.shape[1]
  spread = np.zeros(num_factors), np.ones(num_factors)
  thresholds = np.zeros(num_factors, np.float32)
  if not model.factors_are_labels:
    factors = reconstruction.encode_factors(model, images, attributes)
    factors = np.asarray(jax.device_get(factors), np.float64)
    thresholds = thresholds_lib.choose_thresholds(
      factors, jax.device_get(attributes)
    )
    if not model.has_bounded_factors:
      spread = np.mean(factors[:count], axis=0), np.std(factors[:count], axis=0)
  return tuple(jnp.asarray(x, jnp.float32) for x in spread), thresholds


def _count_each(model, classify, images, attributes, targets, given):
  """Counts edits of `[P, K]` targets, of given directions or not."""
  count = functools.partial(
    edit_counts.count_edits, model, classify, images, attributes
  )
  return jax.lax.map(lambda args: count(*args), (targets, given))


def _bind(model, judges):
  modules = tuple(judge.module for judge in judges)
  return model, modules, tuple(judge.variables for judge in judges)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _apply(function, model, modules, variables, *args):
  """Applies a function of a model and of what judges see."""

  def classify(images):
    return jnp.stack(
      [
        attribute_judges.classify(module, own, images)
        for module, own in zip(modules, variables)
      ]
    )

  return function(model, classify, *args)
