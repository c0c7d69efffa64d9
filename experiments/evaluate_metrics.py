"""Scores of disentanglement of a run's models, for experiments.evaluate."""

from collections.abc import Mapping, Sequence
import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import celeba_runs
from experiments import evaluated_runs
from jacsup_jax.data import batches
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import disentanglement
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

# As many as scores of the literature are computed from; more say no more.
MOST_IMAGES = 10_000
_SEED = 0
_DIGITS = ('mnist_embedded', 'mnist', 'svhn_cropped')
_PROTOCOL = (
    'codes are (factors, nuisance) of at most'
    f' {MOST_IMAGES} images, drawn by seed {_SEED} where there are more; every'
    ' value of a label is a class; mig and modularity: 20 bins of equal width a'
    ' unit; sap: thresholds with the most balanced accuracy; dci: random'
    ' forests of ten trees, of codes of more than'
    f' {disentanglement.WIDEST_FOREST} units a lasso; 80 % of the images'
    ' fitted, 10 % to choose its depth or penalty, 10 % to report on'
)


def add(
    run: workdirs.WorkDir,
    name: str,
    split: str,
    rows: Sequence[Mapping[str, Any]],
    models: Sequence[stages.Trained],
    data: datasets.Dataset | datasets.FaceDataset,
    metrics: Sequence[str],
) -> list[dict[str, Any]]:
  """Measures scores, writes their details, and adds their values to rows.

  The details, a score by label or by unit and why one is undefined, go to
  WORKDIR/evaluations/NAME_SPLIT_metrics.json.

  Args:
    run: that is measured.
    name: of the data, in names of files.
    split: of that.
    rows: of results.json, one per model.
    models: in the order of the rows.
    data: to measure on.
    metrics: of `disentanglement.METRICS`; with none nothing is done.

  Returns:
    The rows, with an entry per score; None where it is undefined, of which a
    line is printed to stderr.

  Raises:
    InputError: if a metric is unknown.
  """
  disentanglement.check_metrics(metrics)
  if not metrics:
    return list(rows)
  labels, label_names = _take_labels(data)
  chosen = choose_images(len(labels))
  images = jnp.asarray(data.images[chosen])
  detailed, added, notes = [], [], {}
  for row, model in zip(rows, models, strict=True):
    if model.stage.model == celeba_runs.FADER:
      # What is handed to it is not found by it.
      found = {
          score: disentanglement.Score(
              None, reasons=('the factors of Fader Networks are the labels',)
          )
          for metric in metrics
          for score in disentanglement.SCORES[metric]
      }
    else:
      found = disentanglement.compute_scores(
          metrics,
          _encode(model, images, isinstance(data, datasets.FaceDataset)),
          labels[chosen],
          label_names,
          seed=_SEED,
      )
    added.append({**row, **{s: score.value for s, score in found.items()}})
    detailed.append(_describe(row, found, label_names))
    for score, result in found.items():
      for reason in result.reasons:
        notes.setdefault(reason, {}).setdefault(row['stage'])
  for reason, of_stages in notes.items():
    print(f'note: {", ".join(of_stages)}: {reason}', file=sys.stderr)
  evaluated_runs.write_text(
      run,
      name,
      f'{split}_metrics',
      json.dumps(
          {
              'protocol': _PROTOCOL,
              'dataset': {'name': name, 'fingerprint': data.fingerprint},
              'images': len(chosen),
              'labels': list(label_names),
              'rows': detailed,
          },
          indent=1,
          allow_nan=False,
      ),
  )
  return added


def choose_images(count: int) -> np.ndarray:
  """Returns the indices, in order, of the images that are looked at."""
  order = np.random.default_rng(_SEED).permutation(count)
  return np.sort(order[:MOST_IMAGES])


def _take_labels(data):
  """Returns `[M, L]` int labels of a data set, and their names."""
  if isinstance(data, datasets.FaceDataset):
    return np.asarray(data.attributes), data.attribute_names
  if data.all_labels is not None:
    return data.all_labels, data.label_names
  name = 'digit' if data.name in _DIGITS else 'class'
  return data.labels[:, np.newaxis], (name,)


def _encode(trained, images, are_faces):
  return np.asarray(
      _compute_codes(trained.model, trained.variables, images, are_faces)
  )


@functools.partial(jax.jit, static_argnames=('model', 'are_faces'))
def _compute_codes(model, variables, images, are_faces):
  encode = networks.make_encode(model, variables['batch_stats'])
  return disentanglement.compute_codes(
      functools.partial(encode, variables['params']),
      images,
      to_float=batches.to_signed_float if are_faces else batches.to_float,
  )


def _describe(row, found, label_names):
  """Returns the details of a row: each score with its parts by name."""
  described = {name: row[name] for name in ('model', 'stage', 'nuisance_dim')}
  for score, result in found.items():
    parts = list(result.parts)
    if parts and score not in disentanglement.SCORES_OF_UNITS:
      parts = dict(zip(label_names, parts, strict=True))
    described[score] = {
        'value': result.value,
        'parts': parts,
        'reasons': list(result.reasons),
    }
  return described
