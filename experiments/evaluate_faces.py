"""Measures a run of experiments.celeba, for experiments.evaluate."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from experiments import celeba_rows
from experiments import celeba_runs
from experiments import diagnosed_runs
from experiments import evaluate_metrics
from experiments import evaluated_runs
from experiments import seed_runs
from jacsup_jax.core import errors
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files
from jacsup_jax.figures import face_figures
from jacsup_jax.runs import workdir as workdirs


def evaluate(
    run: workdirs.WorkDir,
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = 'test',
    judge_workdir: str | os.PathLike[str] | None = None,
    diagnostics_images: int = 16,
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
    diagnostics_images: first ones of the split, that Jacobians are measured on;
      0 for none.
    metrics: see `evaluate_metrics.add`.

  Returns:
    The file, and its rows: a given teacher, the stages in the order of the
    run, then an untrained model; of one seed after the other.

  Raises:
    InputError: if no stage is finished, or the data or the judge do not fit
      the models.
  """
  celeba_runs.check_recorded(run, with_data=True)
  # Where to read is not of the result, and what is read now is small.
  values = {**run.manifest['flags'], 'data_dir': data_dir, 'cache': 'device'}
  selection_split = celeba_runs.choose_selection_split(values)
  if dataset not in (None, values['dataset']):
    raise errors.InputError(
        f'--dataset={dataset}, and the run in {run.path} is of'
        f' {values["dataset"]}; accepted: the same, since alpha is chosen on'
        ' it.'
    )
  if split == selection_split:
    raise errors.InputError(
        f'--split={split} is what alpha is chosen on in the run in {run.path};'
        ' accepted: another one.'
    )
  names = run.manifest['dataset']['attributes']
  plan, chain = seed_runs.read_plan(run), celeba_runs.make_stages(values)
  finished = evaluated_runs.find_finished(
      run, seed_runs.list_stages(plan, chain)
  )
  judge = _restore_judge(judge_workdir, values, names)
  models = seed_runs.restore(
      plan,
      finished,
      lambda stage, count: celeba_runs.restore(
          values, stage, run, len(names), count
      ),
  )
  if values['teacher_workdir'] is not None:
    teachers = celeba_runs.restore_teachers(values, names, list(models))
    models = {seed: [teachers[seed], *own] for seed, own in models.items()}
  selection = celeba_runs.load_split(values, selection_split)
  data = celeba_runs.load_split(values, split)
  evaluated_runs.compare_judges(run, 'judge', judge.describe(), what='flips')

  rows = celeba_rows.measure_seeds(values, models, judge, selection, data)
  by_seed = celeba_rows.list_measured(values, models, len(names))
  rows = evaluate_metrics.add(
      run,
      data.name,
      split,
      rows,
      [model for own in by_seed.values() for model in own],
      data,
      metrics,
  )
  diagnosed, some = [], data.images[:diagnostics_images]
  for seed, own in models.items() if diagnostics_images else ():
    # A given teacher too, which may have been measured with another seed.
    own = [*own, by_seed[seed][-1]]
    found = diagnosed_runs.measure(
        own,
        celeba_rows.encode_models(
            own, some, data.attributes[:diagnostics_images]
        ),
        [face_figures.readable(name) for name in names],
    )
    for entry in found:
      for row in rows:
        if (row['seed'], row['stage']) == (seed, entry.trained.stage.name):
          row.update(diagnosed_runs.row_entries(entry))
    # Details and pictures are of the first seed.
    diagnosed = diagnosed or found
  path = evaluated_runs.write(
      run,
      data.name,
      split,
      protocol=celeba_rows.describe_protocol(split, selection_split),
      fingerprint=data.fingerprint,
      rows=rows,
      judge=judge.describe(),
  )
  if diagnosed:
    diagnosed_runs.write(path, diagnosed, images=len(some))
  return path, rows


def _restore_judge(directory, values, names):
  """Restores a judge; one is not trained, which needs the training data."""
  directory = directory or attribute_judges.default_directory(
      values['dataset'], values['image_size']
  )
  if not judge_files.exist(directory):
    raise errors.InputError(
        f'{directory} has no judge; accepted: --judge_workdir=DIRECTORY of one'
        ' that experiments.celeba or experiments.judge trained.'
    )
  return attribute_judges.restore(
      directory,
      attribute_names=names,
      image_size=values['image_size'],
      dataset=values['dataset'],
  )
