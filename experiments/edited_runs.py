"""Models to edit with, of runs of experiments.mnist, svhn and celeba.

What a strength of 1 is comes from the training data and is kept in the run, in
`scales.json`: runs write it when they end, and what an older run lacks is
measured when it is first edited with.
"""

from collections.abc import Sequence
import json
import os
from typing import Any

import numpy as np

from experiments import celeba_runs
from experiments import command_line
from experiments import discovery_runs
from experiments import mnist_runs
from experiments import samples
from experiments import seed_runs
from experiments import svhn_runs
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import untrusted
from jacsup_jax.editor import editor
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

_NAME = 'scales.json'


def list_stages(run: workdirs.WorkDir) -> list[config.Stage]:
  """Returns the finished stages of a run that predict their factors.

  Of several seeds, those of the first.

  Args:
    run: with a manifest.

  Raises:
    InputError: if it is the run of another program, or no such stage is
      finished.
  """
  return [stage for _, stage in _find_stages(run)]


def choose_stage(run: workdirs.WorkDir, stage: str | None = None) -> str:
  """Returns the name of the stage that `load` restores.

  Args:
    run: with a manifest.
    stage: see `load`.

  Raises:
    InputError: as `load` does for runs and stages.
  """
  return _choose(run, _find_stages(run), stage)[1].name


def load(
    run: workdirs.WorkDir,
    *,
    stage: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> editor.Editor:
  """Restores a model of a run, and what a strength of 1 is in it.

  Args:
    run: of experiments.mnist, svhn or celeba.
    stage: name of a finished stage; None takes the last student, or the last
      teacher if there is none.
    data_dir: where the training data are, for a run that lacks scales.json.

  Returns:
    The editor. Of several seeds, that of the first.

  Raises:
    InputError: if there is no such stage, its checkpoint is damaged, or the
      scales are missing and the training data too.
  """
  found = _find_stages(run)
  recorded, chosen = _choose(run, found, stage)
  model = _restore(run, chosen)
  units = _read(run, recorded, model)
  if units is None:
    data = samples.of_split(run, _name_training_split(run), data_dir=data_dir)
    images = data.read_first(unit_scales.NUM_IMAGES)
    [units] = _measure_and_write(
        run, _read_entries(run), [(recorded, model)], images
    )
  return _make_editor(run, model, units)


def write_scales(
    run: workdirs.WorkDir,
    plan: seed_runs.Plan,
    trained: Sequence[stages.Trained],
    images: np.ndarray,
) -> None:
  """Measures what a strength of 1 is in trained models; writes scales.json.

  Args:
    run: that they are of.
    plan: of its seeds.
    trained: all models of the first seed; those that do not predict their
      factors are left out.
    images: `[M, H, W, C]` uint8, of the training data.
  """
  named = seed_runs.name_stages(
      plan, [model.stage for model in trained], plan.seeds[0]
  )
  pairs = [
      (named[model.stage.name].name, model)
      for model in trained
      if model.stage.model != celeba_runs.FADER
  ]
  # What is there is of the same models, or damaged.
  _measure_and_write(run, {}, pairs, images)


def factor_names(run: workdirs.WorkDir) -> list[str]:
  """Returns the names of a run's factors: attributes, or y1, y2, ..."""
  if run.manifest['experiment'] == 'celeba':
    return list(run.manifest['dataset']['attributes'])
  count = run.manifest['flags']['num_factors']
  return [f'y{i + 1}' for i in range(count)]


def _find_stages(run):
  """Returns pairs: name in the manifest, stage by its own name."""
  if run.manifest is None:
    raise errors.InputError(
        f'--workdir={run.path} has no manifest.json; accepted: the work'
        ' directory of a run, or a file of experiments.edit --export.'
    )
  experiment = run.manifest['experiment']
  if experiment == 'celeba':
    celeba_runs.check_recorded(run, with_data=False)
    make_stages = celeba_runs.make_stages
  elif experiment in ('mnist', 'svhn'):
    discovery_runs.check_recorded(run)
    make_stages = discovery_runs.make_stages
  else:
    raise errors.InputError(
        f'{run.path} is a run of {experiment}, whose models have no decoder to'
        ' edit with; accepted: runs of mnist, svhn, celeba.'
    )
  plan = seed_runs.read_plan(run)
  chain = make_stages(run.manifest['flags'])
  named = seed_runs.name_stages(plan, chain, plan.seeds[0])
  found = [
      (stage.name, own)
      for stage, own in zip(named.values(), chain)
      if stage.name in run.manifest['stages']
      and own.model != celeba_runs.FADER
  ]
  if not found:
    raise errors.InputError(
        f'--workdir={run.path} has no finished stage to edit with; accepted: a'
        ' run with a finished teacher or student.'
    )
  return found


def _choose(run, found, stage):
  if stage is None:
    students = [pair for pair in found if pair[1].model.startswith('student')]
    supervised = [pair for pair in students if pair[1].model == 'student']
    return (supervised or students or found)[-1]
  for pair in found:
    if stage in (pair[0], pair[1].name):
      return pair
  names = ', '.join(own.name for _, own in found)
  raise errors.InputError(
      f'--stage={stage} is no finished stage of {run.path} that predicts its'
      f' factors; accepted: {names}.'
  )


def _restore(run, stage):
  """Restores the model of a stage, of the first seed."""
  values = run.manifest['flags']
  plan = seed_runs.read_plan(run)
  experiment = run.manifest['experiment']
  if experiment == 'celeba':
    count = len(run.manifest['dataset']['attributes'])
    restore = lambda own, seeds: celeba_runs.restore(
        values, own, run, count, seeds
    )
  else:
    make_model = (
        mnist_runs.make_model if experiment == 'mnist' else svhn_runs.make_model
    )
    restore = lambda own, seeds: discovery_runs.restore(
        make_model, values, own, run, seeds
    )
  first = plan.seeds[0]
  named = seed_runs.name_stages(plan, [stage], first)
  return seed_runs.restore(plan, list(named.values()), restore)[first][0]


def _name_training_split(run):
  if run.manifest['experiment'] == 'celeba':
    return 'train'
  return discovery_runs.name_training_split(run.manifest['flags'])


def _measure_and_write(run, entries, pairs, images):
  """Measures models by name, adds them to entries, and writes these."""
  names = factor_names(run)
  entries, measured = dict(entries), []
  for recorded, model in pairs:
    bare = _make_editor(run, model, ())
    units = unit_scales.measure(bare.predict, images, names)
    entries[recorded] = {
        'sha256': model.sha256,
        'images': min(len(images), unit_scales.NUM_IMAGES),
        'units': [unit_scales.to_json(unit) for unit in units],
    }
    measured.append(units)
  try:
    workdirs.write_whole(
        run.path / _NAME, json.dumps({'stages': entries}, indent=1)
    )
  except errors.StorageError as error:
    command_line.note(f'{_NAME} is not kept: {error}')
  return measured


def _read_entries(run) -> dict[str, Any]:
  path = run.path / _NAME
  if not untrusted.exists(path):
    return {}
  entries = untrusted.read_json(path)
  untrusted.check_entries(path, entries, {'stages': dict})
  return entries['stages']


def _read(run, name, model):
  """Returns the units of a stage; None where they are not there, or old."""
  path = run.path / _NAME
  entry = _read_entries(run).get(name)
  if not isinstance(entry, dict) or entry.get('sha256') != model.sha256:
    return None
  untrusted.check_entries(f'{path} {name}', entry, {'units': list})
  units = unit_scales.read_units(f'{path} {name}', entry['units'])
  expected = factor_names(run)
  if run.manifest['experiment'] != 'celeba':
    expected += [f'z{i + 1}' for i in range(model.stage.nuisance_dim)]
  if [unit.name for unit in units] != expected:
    raise errors.InputError(
        f'{path} {name} has {len(units)} units that are not those of the model;'
        f' accepted: {", ".join(expected[:3])}, ... ({len(expected)}), or no'
        f' {_NAME}, which is then made again.'
    )
  return units


def _make_editor(run, model, units):
  return editor.Editor(
      model.model,
      model.variables,
      units,
      is_signed=run.manifest['experiment'] == 'celeba',
      title=f'{run.path.name}, {model.stage.name}',
  )
