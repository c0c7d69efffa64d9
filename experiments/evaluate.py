"""Measures a finished or unfinished run again, on data that fit its models.

  python -m experiments.evaluate --workdir=runs/mnist --split=validation
  python -m experiments.evaluate --workdir=runs/celeba_quick
"""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from absl import flags

from experiments import ceilings
from experiments import command_line
from experiments import diagnosed_runs
from experiments import evaluate_digits
from experiments import evaluate_faces
from jacsup_jax.core import errors
from jacsup_jax.evaluation import disentanglement
from jacsup_jax.evaluation import tables
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS
SPLITS = ('test', 'validation', 'train')
_EVALUATE = {
    'mnist': evaluate_digits.evaluate,
    'svhn': evaluate_digits.evaluate,
    'celeba': evaluate_faces.evaluate,
}


def define_flags() -> None:
  """Defines the flags of this binary; not at import, others have the names."""
  flags.DEFINE_string(
      'workdir',
      'runs/mnist',
      'A run of experiments.mnist, svhn or celeba. Every finished stage is'
      ' measured; the rows go to WORKDIR/evaluations/DATASET_SPLIT.json, in'
      ' the format of results.json. Nothing else in it changes.',
  )
  flags.DEFINE_string(
      'dataset',
      None,
      'Data set to measure on; that of the run by default, and always for'
      ' faces, whose alpha is chosen on it.',
  )
  flags.DEFINE_string(
      'data_dir',
      None,
      'Where TFDS keeps prepared sets, its own by default; for arrays the file,'
      ' for celeba_folder the folder, as in the run.',
  )
  flags.DEFINE_enum('split', 'test', SPLITS, 'Part of the data set.')
  flags.DEFINE_string(
      'judge_workdir',
      None,
      'Judges, by default runs/judge_DATASET, of faces'
      ' runs/attribute_judge_DATASET_SIZE. Those of digits are trained when'
      ' missing.',
  )
  flags.DEFINE_integer(
      'diagnostics_images',
      None,
      'Images of the split, from its first on, that the Jacobians of the models'
      ' are measured on; by default 256 digits or 16 faces, 0 for none. Their'
      ' means go into the rows, the rest to DATASET_SPLIT_diagnostics.json and'
      ' pictures beside it.',
      lower_bound=0,
  )
  flags.DEFINE_list(
      'metrics',
      [],
      f'Scores of disentanglement, any of {", ".join(disentanglement.METRICS)};'
      ' by default none. Their details go to'
      ' WORKDIR/evaluations/DATASET_SPLIT_metrics.json. They take seconds a'
      ' model for digits and grow with units times labels: minutes for codes of'
      ' a thousand units and 40 attributes of faces.',
  )


def evaluate(
    workdir: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = 'test',
    judge_workdir: str | os.PathLike[str] | None = None,
    diagnostics_images: int | None = None,
    metrics: Sequence[str] = (),
) -> tuple[pathlib.Path, list[dict[str, Any]]]:
  """Measures the finished stages of a run and writes the rows.

  Args:
    workdir: of a run of experiments.mnist, svhn or celeba.
    dataset: name of what to measure on; None takes the run's own.
    data_dir: see `datasets.load` and `datasets.load_faces`.
    split: one of `SPLITS`.
    judge_workdir: of the judges; None takes the default of the data set.
    diagnostics_images: that Jacobians are measured on, none if 0; None takes
      the default of digits or of faces.
    metrics: of `disentanglement.METRICS`, whose scores the rows have too.

  Returns:
    The file, and its rows: the stages in the order of the run, then an
    untrained model.

  Raises:
    InputError: if there is no run or no finished stage, or the data or the
      judges do not fit the models.
  """
  disentanglement.check_metrics(metrics)
  run = workdirs.WorkDir(workdir)
  accepted = ' or '.join(f'experiments.{name}' for name in _EVALUATE)
  if run.manifest is None:
    raise errors.InputError(
        f'--workdir={run.path} has no manifest.json; accepted: the work'
        f' directory of a run of {accepted}.'
    )
  experiment = run.manifest.get('experiment')
  if experiment not in _EVALUATE:
    raise errors.InputError(
        f'--workdir={run.path} is a run of {experiment}; accepted: one of'
        f' {accepted}.'
    )
  # Before what takes minutes.
  place = run.path / 'evaluations'
  workdirs.check_writable(f'--workdir={run.path}: {place}', place)
  return _EVALUATE[experiment](
      run,
      dataset=dataset,
      data_dir=data_dir,
      split=split,
      judge_workdir=judge_workdir,
      metrics=metrics,
      **(
          {}
          if diagnostics_images is None
          else {'diagnostics_images': diagnostics_images}
      ),
  )


def main() -> None:
  path, rows = evaluate(
      FLAGS.workdir,
      dataset=FLAGS.dataset,
      data_dir=FLAGS.data_dir,
      split=FLAGS.split,
      judge_workdir=FLAGS.judge_workdir,
      diagnostics_images=FLAGS.diagnostics_images,
      metrics=FLAGS.metrics,
  )
  print(tables.format_rows(rows))
  if FLAGS.diagnostics_images != 0:
    diagnostics = diagnosed_runs.read(path)
    print(diagnosed_runs.format_undefined(diagnostics), end='')
    if diagnostics.get('ceiling'):
      print(ceilings.format_ceiling(diagnostics['ceiling']))
  print(f'saved in {path}')


if __name__ == '__main__':
  define_flags()
  command_line.run(main)
