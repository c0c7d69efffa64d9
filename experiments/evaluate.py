"""Measures a run of experiments.mnist on any data set that fits its models.

  python -m experiments.evaluate --workdir=runs/mnist --split=validation
"""

import json
import os
import pathlib
import sys
from typing import Any

from absl import flags

from experiments import command_line
from experiments import mnist_runs
from jacsup_jax import datasets
from jacsup_jax import judges
from jacsup_jax import tables
from jacsup_jax import types
from jacsup_jax import workdirs

FLAGS = flags.FLAGS
SPLITS = ('test', 'validation', 'train')


def define_flags() -> None:
  """Defines the flags of this binary; not at import, others have the names."""
  flags.DEFINE_string(
      'workdir',
      'runs/mnist',
      'A run of experiments.mnist. Every finished stage is measured; the rows'
      ' go to WORKDIR/evaluations/DATASET_SPLIT.json, in the format of'
      ' results.json. Nothing else in it changes.',
  )
  flags.DEFINE_string(
      'dataset', None, 'Data set to measure on; that of the run by default.'
  )
  flags.DEFINE_string(
      'data_dir', None, 'Where TFDS keeps prepared sets; its own by default.'
  )
  flags.DEFINE_enum('split', 'test', SPLITS, 'Part of the data set.')
  flags.DEFINE_string(
      'judge_workdir',
      None,
      'Judges, trained when missing; runs/judge_DATASET by default.',
  )


def evaluate(
    workdir: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = 'test',
    judge_workdir: str | os.PathLike[str] | None = None,
) -> tuple[pathlib.Path, list[dict[str, Any]]]:
  """Measures the finished stages of a run and writes the rows.

  Args:
    workdir: of a run of experiments.mnist.
    dataset: name of what to measure on; None takes the run's own.
    data_dir: see `datasets.load`.
    split: one of `SPLITS`.
    judge_workdir: of the judges; None takes the default of the data set.

  Returns:
    The file, and its rows: the stages in the order of the run, then an
    untrained model as large as the last.

  Raises:
    InputError: if there is no run or no finished stage, or the data or the
      judges do not fit the models.
  """
  run = workdirs.WorkDir(workdir)
  _check_run(run)
  values = run.manifest['flags']
  finished = _find_finished(run)
  dataset = dataset or values['dataset']
  data = datasets.load(dataset, split, data_dir=data_dir)
  model = mnist_runs.make_model(values, values['num_factors'], 0, True)
  _check_shape(data, model.image_shape)
  # Before judges are trained, which takes a minute.
  models = [mnist_runs.restore(values, stage, run) for stage in finished]
  ensemble = judges.restore_or_train(
      judge_workdir or judges.default_directory(dataset), dataset, data_dir
  )
  if dataset == values['dataset']:
    _compare_judges(run, ensemble)

  measure = mnist_runs.make_evaluate(ensemble, data.images, data.labels)
  rows = [
      {
          **mnist_runs.describe(model, values['seed']),
          **measure(model.model, model.variables),
      }
      for model in [*models, mnist_runs.random_model(values, finished[-1])]
  ]
  results = {
      'experiment': 'evaluate',
      'protocol': _describe_protocol(values, dataset, split),
      'dataset': {'name': dataset, 'fingerprint': data.fingerprint},
      'judges': ensemble.describe(),
      'rows': rows,
  }
  path = run.path / 'evaluations' / f'{dataset.replace("/", "-")}_{split}.json'
  path.parent.mkdir(exist_ok=True)
  workdirs.write_whole(path, json.dumps(results, indent=1))
  return path, rows


def main() -> None:
  path, rows = evaluate(
      FLAGS.workdir,
      dataset=FLAGS.dataset,
      data_dir=FLAGS.data_dir,
      split=FLAGS.split,
      judge_workdir=FLAGS.judge_workdir,
  )
  print(tables.format_rows(rows))
  print(f'saved in {path}')


def _check_run(run):
  if run.manifest is None:
    raise types.InputError(
        f'--workdir={run.path} has no manifest.json; accepted: the work'
        ' directory of a run of experiments.mnist.'
    )
  experiment = run.manifest.get('experiment')
  if experiment != 'mnist':
    raise types.InputError(
        f'--workdir={run.path} is a run of {experiment}; accepted: one of'
        ' experiments.mnist.'
    )


def _find_finished(run):
  """Returns the finished stages of a run, of which there must be one."""
  stages = mnist_runs.make_stages(run.manifest['flags'])
  finished = [stage for stage in stages if stage.name in run.manifest['stages']]
  unfinished = [stage.name for stage in stages if stage not in finished]
  if not finished:
    raise types.InputError(
        f'--workdir={run.path} has no finished stage (unfinished:'
        f' {", ".join(unfinished)}); accepted: a run with one or more.'
    )
  if unfinished:
    _note(f'not measured, as unfinished: {", ".join(unfinished)}')
  return finished


def _compare_judges(run, ensemble):
  """Says so where a run was measured by other judges."""
  if not run.is_complete:
    return
  own = run.read_results().get('judges', ensemble.describe())
  if own['sha256'] != ensemble.sha256:
    _note('the judges are not those of results.json: swaps do not compare')


def _describe_protocol(values, dataset, split):
  """Returns what was measured, and whether on what was trained on."""
  trained_on = dataset == values['dataset'] and (
      split == 'train'
      or (split == 'validation' and values['eval_split'] == 'test')
  )
  return (
      f'{split} split of {dataset}'
      f'{", which the models were trained on" if trained_on else ""};'
      f' {mnist_runs.PROTOCOL}'
  )


def _check_shape(data, image_shape):
  found = data.images.shape[1:]
  if found != tuple(image_shape):
    raise types.InputError(
        f'--dataset={data.name} has images of {found}; accepted:'
        f' {tuple(image_shape)}, as the models of the run.'
    )


def _note(text):
  print(f'note: {text}', file=sys.stderr)


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
