"""Measures a run of experiments.mnist or svhn, for experiments.evaluate."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import jax.numpy as jnp

from experiments import ceilings
from experiments import diagnosed_runs
from experiments import discovery_figures
from experiments import discovery_runs
from experiments import evaluate_metrics
from experiments import evaluated_runs
from experiments import given_teachers
from experiments import mnist_runs
from experiments import seed_runs
from experiments import svhn_runs
from jacsup_jax.core import errors
from jacsup_jax.data import batches
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import judges
from jacsup_jax.runs import workdir as workdirs

# By the data set that a run was trained on.
_EXPERIMENTS = {
    'mnist': lambda unused_dataset: mnist_runs.EXPERIMENT,
    'svhn': svhn_runs.make_experiment,
}


def evaluate(
    run: workdirs.WorkDir,
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = 'test',
    judge_workdir: str | os.PathLike[str] | None = None,
    diagnostics_images: int = 256,
    metrics: Sequence[str] = (),
) -> tuple[pathlib.Path, list[dict[str, Any]]]:
  """Measures the finished stages of a run and writes the rows.

  Args:
    run: of experiments.mnist or experiments.svhn.
    dataset: name of what to measure on; None takes the run's own.
    data_dir: see `datasets.load`.
    split: 'test', 'validation' or 'train'.
    judge_workdir: of the judges; None takes the default of the data set.
    diagnostics_images: first ones of the split, that Jacobians are measured on;
      0 for none.
    metrics: see `evaluate_metrics.add`.

  Returns:
    The file, and its rows: the stages in the order of the run, then an
    untrained model as large as the last; of one seed after the other.

  Raises:
    InputError: if no stage is finished, or the data or the judges do not fit
      the models.
  """
  discovery_runs.check_recorded(run)
  values = run.manifest['flags']
  experiment = _EXPERIMENTS[run.manifest['experiment']](values['dataset'])
  plan, chain = seed_runs.read_plan(run), discovery_runs.make_stages(values)
  finished = evaluated_runs.find_finished(
      run, seed_runs.list_stages(plan, chain)
  )
  dataset = dataset or values['dataset']
  data = datasets.load(
      dataset, split, data_dir=data_dir, image_shape=experiment.image_shape
  )
  _check_shape(data, experiment.image_shape)
  own_data = _is_own_data(run, dataset, data_dir, experiment.image_shape)
  # Before judges are trained, which takes a minute.
  models = seed_runs.restore(
      plan,
      finished,
      lambda stage, count: discovery_runs.restore(
          experiment.make_model, values, stage, run, count
      ),
  )
  teachers = given_teachers.restore(experiment, values, list(models))
  models = {seed: [*teachers[seed], *own] for seed, own in models.items()}
  ensemble = judges.restore_or_train(
      judge_workdir or judges.default_directory(dataset, data_dir),
      dataset,
      data_dir,
      image_shape=experiment.image_shape,
  )
  if own_data:
    evaluated_runs.compare_judges(
        run, 'judges', ensemble.describe(), what='swaps'
    )

  rows = discovery_runs.measure(
      experiment.make_model,
      values,
      models,
      finished[-1],
      discovery_runs.make_evaluate(ensemble, data.images, data.labels),
  )
  by_seed = discovery_runs.add_random(
      experiment.make_model, values, models, finished[-1]
  )
  diagnosed, ceiling = [], None
  if diagnostics_images:
    images = batches.to_float(jnp.asarray(data.images[:diagnostics_images]))
  for seed, own in by_seed.items() if diagnostics_images else ():
    own_rows = [row for row in rows if row['seed'] == seed]
    found = diagnosed_runs.measure(
        own,
        [discovery_figures.encode(model, images) for model in own],
        [f'y{i + 1}' for i in range(values['num_factors'])],
    )
    for row, entry in zip(own_rows, found, strict=True):
      row.update(diagnosed_runs.row_entries(entry))
    own_ceiling = _measure_ceiling(own, ensemble, data.images, own_rows)
    if not diagnosed:  # Details and pictures are of the first seed.
      diagnosed, ceiling = found, own_ceiling
  name = dataset
  if dataset == values['dataset'] and not own_data:
    # Not to be taken for the data of the run.
    name = f'{dataset}_{data.fingerprint}'
  rows = evaluate_metrics.add(
      run,
      name,
      split,
      rows,
      [model for own in by_seed.values() for model in own],
      data,
      metrics,
  )
  path = evaluated_runs.write(
      run,
      name,
      split,
      protocol=_describe_protocol(values, dataset, split, own_data),
      fingerprint=data.fingerprint,
      rows=rows,
      judges=ensemble.describe(),
  )
  if diagnosed:
    diagnosed_runs.write(path, diagnosed, images=len(images), ceiling=ceiling)
  return path, rows


def _measure_ceiling(models, ensemble, images, rows):
  """Measures the first teacher's ceiling; the students' rows get theirs."""
  if models[0].stage.parent is not None:  # Its own is not there.
    return None
  ceiling = ceilings.measure(models[0], ensemble, images, rows)
  by_stage = {entry['stage']: entry for entry in ceiling['students']}
  for row in rows:
    entry = by_stage.get(row['stage'])
    if entry is not None:
      row['residual_share'] = entry['residual_share']
      row['class_swaps_ceiling'] = entry['class_swaps']
  return ceiling


def _is_own_data(run, dataset, data_dir, image_shape):
  """Whether a run was trained on this set; one name may have many files."""
  values = run.manifest['flags']
  if dataset != values['dataset']:
    return False
  split = discovery_runs.name_training_split(values)
  train = datasets.load(
      dataset, split, data_dir=data_dir, image_shape=image_shape
  )
  return train.fingerprint == run.manifest['dataset']['fingerprint']


def _describe_protocol(values, dataset, split, own_data):
  """Returns what was measured, and whether on what was trained on."""
  trained_on = own_data and (
      split == 'train' or (
          split == 'validation'
          and discovery_runs.name_training_split(values) == 'train'
      )
  )
  return (
      f'{split} split of {dataset}'
      f'{", which the models were trained on" if trained_on else ""};'
      f' {discovery_runs.PROTOCOL}'
  )


def _check_shape(data, image_shape):
  found = data.images.shape[1:]
  if found != tuple(image_shape):
    raise errors.InputError(
        f'--dataset={data.name} has images of {found}; accepted:'
        f' {tuple(image_shape)}, as the models of the run.'
    )
