"""Restores runs of experiments.mnist, svhn and celeba to draw their figures."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any

from experiments import celeba_figures
from experiments import celeba_runs
from experiments import discovery_runs
from experiments import drawings
from experiments import evaluated_runs
from experiments import given_teachers
from experiments import mnist_figures
from experiments import mnist_runs
from experiments import seed_runs
from experiments import svhn_figures
from experiments import svhn_runs
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.data import registry as datasets
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

EXPERIMENTS = ('mnist', 'svhn', 'celeba')
# Of lines of metrics.jsonl: what curves are drawn of.
_OF_RECORD = {'epoch': int}
_MAYBE_OF_RECORD = {
    'eval_mse': float | None, 'eval_class_swaps': float | None,
    'phase': str | None, 'discriminator_accuracy': float,
    'reconstruction': float, 'adversarial_weight': float,
}  # pyformat: disable
_OF_ADVERSARIAL = ('reconstruction', 'adversarial_weight')


@dataclasses.dataclass(frozen=True)
class Loaded:
  """What the figures of a run are drawn of, of its first seed.

  Attributes:
    run: that it is of.
    trained: finished models, parents before their children; a given teacher
      first.
    data: that is not trained on, of digits or of faces.
    metrics: of metrics.jsonl.
    rows: of results.json, or what experiments.evaluate found in their place;
      empty where there are none.
  """

  run: workdirs.WorkDir
  trained: list[stages.Trained]
  data: datasets.Dataset | datasets.FaceDataset
  metrics: list[dict[str, Any]]
  rows: list[dict[str, Any]]

  @property
  def experiment(self) -> str:
    """Returns the name of its binary."""
    return self.run.manifest['experiment']


def open_run(workdir: str | os.PathLike[str]) -> workdirs.WorkDir:
  """Opens the work directory of a run whose figures can be drawn.

  Args:
    workdir: of the run.

  Raises:
    InputError: if it is none.
  """
  run = workdirs.WorkDir(workdir)
  accepted = ', '.join(f'experiments.{name}' for name in EXPERIMENTS)
  if run.manifest is None:
    raise errors.InputError(
        f'--workdir={run.path} has no manifest.json; accepted: the work'
        f' directory of a run of {accepted}.'
    )
  if run.manifest['experiment'] not in EXPERIMENTS:
    raise errors.InputError(
        f'--workdir={run.path} is a run of {run.manifest["experiment"]};'
        f' accepted: one of {accepted}.'
    )
  return run


def load(
    run: workdirs.WorkDir, data_dir: str | os.PathLike[str] | None
) -> Loaded:
  """Restores the models of a run, and loads the data to draw them on.

  Args:
    run: of `open_run`.
    data_dir: where its data are; see `datasets.load`.

  Raises:
    InputError: if no stage is finished, or something is damaged or missing.
  """
  if run.manifest['experiment'] == 'celeba':
    return _load_faces(run, data_dir)
  return _load_digits(run, data_dir)


def list_drawings(loaded: Loaded) -> drawings.Drawings:
  """Lists the figures of a run.

  Args:
    loaded: of it.
  """
  if loaded.experiment == 'celeba':
    return celeba_figures.list_drawings(
        loaded.trained, loaded.rows, loaded.data, loaded.metrics
    )
  own = mnist_figures if loaded.experiment == 'mnist' else svhn_figures
  return own.list_drawings(
      loaded.trained, loaded.data.images, loaded.data.labels, loaded.metrics
  )


def read_rows(run: workdirs.WorkDir) -> list[dict[str, Any]]:
  """Reads the rows of a run of faces, those of the first of its seeds.

  Args:
    run: with results.json; of an unfinished one what experiments.evaluate wrote
      is taken, if it did.

  Returns:
    Rows; none where it was not measured.

  Raises:
    InputError: if a file is damaged.
  """
  path = run.path / 'results.json'
  if not run.is_complete:
    name = run.manifest['dataset'].get('name', '')
    split = run.manifest['flags'].get('eval_split')
    path = evaluated_runs.make_path(run, name, split)
    if not untrusted.exists(path):
      return []
  rows = workdirs.read_rows(path)['rows']
  first = run.manifest['flags'].get('seed')
  rows = [row for row in rows if row.get('seed', first) == first]
  names = set(run.manifest['dataset'].get('attributes', ()))
  for number, row in enumerate(rows, start=1):
    where = f'{path} row {number} of seed {first}'
    untrusted.check_entries(
        where,
        row,
        {
            'stage': str,
            'strength': float,
            'attribute_flips_by_attribute': dict[str, float],
        },
    )
    missing = names - set(row['attribute_flips_by_attribute'])
    if missing:
      raise errors.InputError(
          f'{where} has no flips of {untrusted.describe(min(missing))};'
          ' accepted: rows of all attributes of the run.'
      )
  return rows


def _load_digits(run, data_dir):
  discovery_runs.check_recorded(run)
  values = run.manifest['flags']
  plan, stages_here = _find_finished(run, discovery_runs.make_stages(values))
  experiment = mnist_runs.EXPERIMENT
  if run.manifest['experiment'] == 'svhn':
    experiment = svhn_runs.make_experiment(values['dataset'])
  first, metrics = plan.seeds[0], _read_metrics(run, plan)
  data = datasets.load(
      values['dataset'],
      values['eval_split'],
      data_dir=data_dir,
      image_shape=experiment.image_shape,
  )
  if data.images.shape[1:] != tuple(experiment.image_shape):
    raise errors.InputError(
        f'{data.name} has images of {data.images.shape[1:]}; accepted:'
        f' {tuple(experiment.image_shape)}, as the models of the run.'
    )
  given = given_teachers.restore(experiment, values, plan.seeds[:1])[first]
  restored = seed_runs.restore(
      plan,
      stages_here,
      lambda stage, count: discovery_runs.restore(
          experiment.make_model, values, stage, run, count
      ),
  )[first]
  return Loaded(run, [*given, *restored], data, metrics, rows=[])


def _load_faces(run, data_dir):
  celeba_runs.check_recorded(run, with_data=True)
  values = {**run.manifest['flags'], 'data_dir': data_dir, 'cache': 'device'}
  plan, stages_here = _find_finished(run, celeba_runs.make_stages(values))
  names = run.manifest['dataset']['attributes']
  rows, metrics = read_rows(run), _read_metrics(run, plan)
  first = plan.seeds[0]
  data = celeba_runs.load_split(values, values['eval_split'])
  if list(data.attribute_names) != names:
    raise errors.InputError(
        f'{data.name} has other attributes than the run in {run.path};'
        ' accepted: the data that it was trained on.'
    )
  given = []
  if values['teacher_workdir'] is not None:
    given = [celeba_runs.restore_teachers(values, names, [first])[first]]
  restored = seed_runs.restore(
      plan,
      stages_here,
      lambda stage, count: celeba_runs.restore(
          values, stage, run, len(names), count
      ),
  )[first]
  return Loaded(run, [*given, *restored], data, metrics, rows)


def _find_finished(run, chain):
  """Returns the plan of a run and the finished stages of its first seed."""
  plan = seed_runs.read_plan(run)
  named = seed_runs.name_stages(plan, chain, plan.seeds[0])
  return plan, evaluated_runs.find_finished(
      run, list(named.values()), done='drawn'
  )


def _read_metrics(run, plan) -> Sequence[Mapping[str, Any]]:
  """Reads the lines that curves are drawn of, and checks them."""
  records = seed_runs.read_metrics(plan, run)
  for number, record in enumerate(records, start=1):
    where = f'{run.path / "metrics.jsonl"}, line {number} of the first seed,'
    untrusted.check_entries(where, record, _OF_RECORD)
    untrusted.check_entries(where, record, _MAYBE_OF_RECORD, optional=True)
    if 'discriminator_accuracy' in record:
      untrusted.check_entries(
          where, record, {name: float for name in _OF_ADVERSARIAL}
      )
  return records
