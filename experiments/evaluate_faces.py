"""Measures a run of experiments.celeba, for experiments.evaluate."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from experiments import celeba_rows
from experiments import celeba_runs
from experiments import evaluate_metrics
from experiments import evaluated_runs
from jacsup_jax import attribute_judges
from jacsup_jax import judge_files
from jacsup_jax import types
from jacsup_jax import workdirs


def evaluate(
    run: workdirs.WorkDir,
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = 'test',
    judge_workdir: str | os.PathLike[str] | None = None,
    metrics: Sequence[str] = (),
) -> tuple[pathlib.Path, list[dict[str, Any]]]:
  """Measures the finished stages of a run and writes the rows.

  Args:
    run: of experiments.celeba.
    dataset: name of the run's own data set, or None.
    data_dir: see `datasets.load_faces`.
    split: 'test', 'validation' or 'train'; not the one that alpha is chosen
      on.
    judge_workdir: of a trained judge; None takes the default of the data set.
    metrics: see `evaluate_metrics.add`.

  Returns:
    The file, and its rows: a given teacher, the stages in the order of the
    run, then an untrained model.

  Raises:
    InputError: if no stage is finished, or the data or the judge do not fit
      the models.
  """
  celeba_runs.check_recorded(run, with_data=True)
  # Where to read is not of the result, and what is read now is small.
  values = {**run.manifest['flags'], 'data_dir': data_dir, 'cache': 'device'}
  selection_split = celeba_runs.choose_selection_split(values)
  if dataset not in (None, values['dataset']):
    raise types.InputError(
        f'--dataset={dataset}, and the run in {run.path} is of'
        f' {values["dataset"]}; accepted: the same, since alpha is chosen on'
        ' it.'
    )
  if split == selection_split:
    raise types.InputError(
        f'--split={split} is what alpha is chosen on in the run in {run.path};'
        ' accepted: another one.'
    )
  names = run.manifest['dataset']['attributes']
  finished = evaluated_runs.find_finished(run, celeba_runs.make_stages(values))
  judge = _restore_judge(judge_workdir, values, names)
  models = []
  if values['teacher_workdir'] is not None:
    models = [celeba_runs.restore_teacher(values, names)]
  models += [
      celeba_runs.restore(values, stage, run, len(names)) for stage in finished
  ]
  selection = celeba_runs.load_split(values, selection_split)
  data = celeba_runs.load_split(values, split)
  evaluated_runs.compare_judges(run, 'judge', judge.describe(), what='flips')

  rows = celeba_rows.measure_models(values, models, judge, selection, data)
  models.append(celeba_runs.random_model(values, len(names)))
  rows = evaluate_metrics.add(
      run, data.name, split, rows, models, data, metrics
  )
  path = evaluated_runs.write(
      run,
      data.name,
      split,
      protocol=celeba_rows.describe_protocol(split, selection_split),
      fingerprint=data.fingerprint,
      rows=rows,
      judge=judge.describe(),
  )
  return path, rows


def _restore_judge(directory, values, names):
  """Restores a judge; one is not trained, which needs the training data."""
  directory = directory or attribute_judges.default_directory(
      values['dataset'], values['image_size']
  )
  if not judge_files.exist(directory):
    raise types.InputError(
        f'{directory} has no judge; accepted: --judge_workdir=DIRECTORY of one'
        ' that experiments.celeba or experiments.judge trained.'
    )
  return attribute_judges.restore(
      directory,
      attribute_names=names,
      image_size=values['image_size'],
      dataset=values['dataset'],
  )
