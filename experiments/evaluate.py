"""Measures a run again, finished or not, on data that fit its models.

Writes WORKDIR/evaluations/DATASET_SPLIT.json in the format of results.json, and
files that begin with its name; nothing else in the work directory changes.

  python -m experiments.evaluate --workdir=runs/mnist --split=validation
  python -m experiments.evaluate --workdir=runs/celeba_quick
"""

from collections.abc import Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any, Literal, NamedTuple

from experiments import cli
from experiments import diagnostics
from experiments import progress
from experiments import session
from experiments import versions
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import class_scores
from jacsup_jax.evaluation import disentanglement
from jacsup_jax.evaluation import infomec
from jacsup_jax.evaluation import judges
from jacsup_jax.evaluation import predicted_labels
from jacsup_jax.evaluation import swap_ceiling
from jacsup_jax.evaluation import tables
from jacsup_jax.evaluation import thresholds
from jacsup_jax.runs import run as run_lib
from jacsup_jax.training import steps


@dataclasses.dataclass(frozen=True)
class Config(config.Options, group='data'):
  """The flags of this binary."""

  workdir: pathlib.Path = config.option(
    pathlib.Path('runs/mnist'),
    'A run, all of whose finished stages are measured.',
    group='what',
  )
  metrics: tuple[str, ...] = config.option(
    (),
    'Disentanglement scores to compute: seconds per model for digits, minutes'
    ' for codes with a thousand units and 40 attributes.',
    choices=tuple(disentanglement.METRICS),
    group='what',
  )
  infomec_pruning: float = config.option(
    infomec.PRUNING,
    'A unit is inactive, and left out of InfoM and InfoC, if its range is at'
    " most this share of the widest unit's; 0: only constant units.",
    low=0,
    high=1,
    group='what',
  )
  diagnostics_images: int | None = config.option(
    None,
    'Number of images on which Jacobians are measured; default: 256 for'
    ' classes, 16 for faces; 0: none.',
    low=0,
    group='what',
  )
  dataset: str | None = config.option(
    None,
    'Data set to measure on; default: the one of the run, which faces always'
    ' use.',
  )
  data_dir: pathlib.Path | None = config.option(
    None, 'Where the data are; default: where the run found them.'
  )
  split: Literal['test', 'validation', 'train'] = config.option(
    'test', 'Part of the data set.'
  )
  choose_strength: bool = config.option(
    False,
    'Choose the strengths of face edits again, instead of those that the'
    ' finished run chose.',
    group='what',
  )
  kept_weight: float = config.option(
    1.0,
    'With --choose_strength: the weight of the other attributes kept, beside'
    ' balanced flips; above 1, face edits are gentler.',
    low=0,
    high=100,
    group='what',
  )
  factor_units: tuple[int, ...] = config.option(
    (),
    'Units of baselines, counted from 0, whose swaps are also measured.',
    low=0,
    high=config.LARGEST_INTEGER,
    group='what',
  )
  judge_workdir: pathlib.Path | None = config.option(
    None,
    'Directory of the judges; default: a folder of runs/ named after the data'
    ' set. Judges of classes are trained if missing.',
  )

  def __post_init__(self):
    super().__post_init__()
    if self.kept_weight != 1 and not self.choose_strength:
      raise errors.InputError(
        f'--kept_weight={self.kept_weight:g} without --choose_strength;'
        ' accepted: both, as the finished run has chosen its strengths.'
      )


class Measured(NamedTuple):
  """Models of a run on a data set: rows, and what else is written."""

  models: Sequence[steps.Trained]
  rows: Sequence[dict[str, Any]]
  data: Any
  protocol: str
  judged_by: dict[str, Any]


def main(config: Config) -> None:
  """Measures the finished models of a run and writes the rows."""
  run = run_lib.Run.open(config.workdir)
  recorded = run.manifest['dataset']
  of_faces = bool(recorded.get('attributes'))
  _check_flags(config, of_faces)
  models = restore(run)
  folder = run.path / 'evaluations'
  files.check_writable(f'--workdir={run.path}: {folder}', folder)
  is_own = _is_own(config, run)
  if of_faces:
    measured = _measure_faces(config, run, models)
  else:
    measured = _measure_classes(config, run, models, is_own)
  name, data = config.dataset or recorded['name'], measured.data
  if name == recorded['name'] and not is_own:
    name = f'{name}_{data.fingerprint}'  # other data of the same name
  path = folder / f'{name.replace("/", "-")}_{config.split}.json'
  if config.metrics:
    _add_scores(config, measured, path)
  diagnostics.add(
    run,
    measured.models,
    measured.rows,
    measured.data,
    config.diagnostics_images,
    path,
  )
  results = {
    'experiment': 'evaluate',
    'protocol': measured.protocol,
    'dataset': {'name': name, 'fingerprint': data.fingerprint},
    **measured.judged_by,
    'rows': measured.rows,
  }
  files.write_whole(path, json.dumps(results, indent=1))
  progress.say(tables.format_rows(measured.rows))
  progress.say(f'saved in {path}')


def _check_flags(config, of_faces):
  """Raises InputError for a flag that would change nothing."""
  name, own, others = 'choose_strength', 'classes', 'faces'
  if of_faces:
    name, own, others = 'factor_units', others, own
  if getattr(config, name):
    raise errors.InputError(
      f'--{name} with {config.workdir}, a run of {own}; accepted: a run of'
      f' {others}, or no --{name}.'
    )


def restore(run: run_lib.Run) -> list[steps.Trained]:
  """Restores the finished models of a run, and teachers that it was given."""
  unfinished = [name for name in run.planned if name not in run.stages]
  run.find_stage(None)
  if unfinished:
    progress.note(f'not measured, as unfinished: {", ".join(unfinished)}')
  trained = [run.trained(name) for name in run.stages]
  given, directory = [], run.config.get('teacher_workdir')
  if directory is not None:
    try:
      stages = [model.stage for model in trained]
      given = session.restore_teachers(directory, stages)
    except errors.InputError as error:
      progress.note(f'the teacher that the run was given is left out: {error}')
  return session.by_seed([*given, *trained])


def _is_own(config, run):
  """Returns whether the data are those of the run; a name may have many."""
  recorded = run.manifest['dataset']
  if config.dataset not in (None, recorded['name']):
    return False
  try:
    train = run.load_data(
      recorded.get('split', 'train'), config.data_dir, in_memory=False
    )
  except errors.InputError:  # Others may have only the split that is measured.
    return False
  return train.fingerprint == recorded['fingerprint']


def _measure_classes(config, run, models, is_own):
  """Measures class swaps, and what the first teacher lets students reach."""
  recorded = run.manifest['dataset']
  name, data_dir = config.dataset or recorded['name'], config.data_dir
  if name == recorded['name']:
    data_dir = data_dir or recorded.get('data_dir')
  data = run.load_data(config.split, data_dir, name)
  found = session.restore_or_train_classes(
    config.judge_workdir, name, data_dir, models[0].module.image_shape
  )
  judged_by = {'judges': [judge.describe() for judge in found]}
  if is_own:
    session.compare_judges(run.results, judged_by)
  trained_on = recorded.get('split', 'train') if is_own else 'train'
  probed = class_scores.choose_probed_split(config.split, trained_on)
  probed = _load_probed(run, probed, data_dir, name)
  scores = class_scores.ClassScores(found, data, probed)
  measured, choices = versions.list_versions(
    session.add_random(models, versions.choose_like),
    found,
    lambda: run.load_data('validation', data_dir, name),
    config.factor_units,
    run.rows,
  )
  models = [version.trained for version in measured]
  rows = versions.make_rows(measured, scores.measure)
  for teacher in models:
    if config.diagnostics_images == 0 or teacher.stage.model != 'teacher':
      continue
    own = [row for row in rows if row['seed'] == teacher.stage.seed]
    ceilings = swap_ceiling.measure(
      teacher.model, found, data.images, own, teacher.stage.name
    )
    for row in own:
      row.update(ceilings.get(row['stage'], {}))
  whole = recorded.get('split') == 'train'
  seen = is_own and (
    config.split == 'train' or (config.split == 'validation' and whole)
  )
  trained_on = ', which the models were trained on' if seen else ''
  return Measured(
    models,
    rows,
    data,
    f'{config.split} split of {name}{trained_on};'
    f' {class_scores.PROTOCOL}{choices}',
    judged_by,
  )


def _load_probed(run, split, data_dir, name):
  """Loads the images on which probes of codes are trained, None if missing."""
  try:
    return run.load_data(split, data_dir, name)
  except errors.InputError as error:
    progress.note(f'no probes of codes: {error}')
  return None


def _measure_faces(config, run, models):
  """Measures attribute flips, with the strengths of the run or new ones."""
  own = run.manifest['dataset']
  chosen_on = session.choose_selection_split(
    run.config.get('eval_split', 'test'), run.config.get('held_out', 0)
  )
  recorded = {
    (row['stage'], row['labels']): row
    for row in (run.results or {}).get('rows', ())
    if 'edit_values_by_attribute' in row and not config.choose_strength
  }
  if config.dataset not in (None, own['name']) or config.split == chosen_on:
    raise errors.InputError(
      f'--dataset={config.dataset} --split={config.split}: strengths of the run'
      f' in {run.path} are chosen on {chosen_on} of {own["name"]}; accepted:'
      ' another split of the same data set, of any --data_dir.'
    )
  size = models[0].module.image_shape[0]
  face_judges = _restore_face_judges(config.judge_workdir, own, size)
  judged_by = {'judges': [judge.describe() for judge in face_judges]}
  session.compare_judges(run.results, judged_by)
  data = run.load_data(config.split, config.data_dir)
  models = session.add_random(models, session.choose_own)
  alphas = tuple(run.config.get('strengths', attribute_flips.STRENGTHS))
  count = run.config.get('selection_images')
  rows = []

  # A folder may have one split alone: read only if it is needed.
  @functools.cache
  def load_selection():
    return run.load_data(chosen_on, config.data_dir)

  def find_thresholds(predictor):
    row = recorded.get((predictor.stage.name, 'predicted'))
    if row is not None:
      return thresholds.recall(row, data.attribute_names)
    return attribute_flips.choose_thresholds(predictor.model, load_selection())

  versions = [*predicted_labels.list_versions(models, find_thresholds)]
  for model, labels, version in progress.track('measuring', versions):
    bound = version, face_judges
    row = recorded.get((model.stage.name, labels))
    if row is not None:
      chosen = attribute_flips.recall_strengths(row, data.attribute_names)
    else:
      chosen = attribute_flips.choose_strengths(
        *bound, load_selection(), alphas, count, config.kept_weight
      )
    images = run.config.get('edit_images')
    rows.append(session.describe(model) | {'labels': labels})
    rows[-1] |= attribute_flips.measure(*bound, chosen, data, images)
  how = '' if load_selection.cache_info().currsize else ' by the run'
  if config.kept_weight != 1:
    how = f', where kept counts {config.kept_weight:g} times as much as flips'
  protocol = (
    f'{config.split} split, strengths chosen on {chosen_on}{how};'
    f' {attribute_flips.PROTOCOL}'
  )
  models = [model for model, _, _ in versions]
  return Measured(models, rows, data, protocol, judged_by)


def _restore_face_judges(workdir, own, size):
  """Restores a judge of each kind, for the data set of a manifest."""
  found = []
  for kind in attribute_judges.KINDS:
    directory = attribute_judges.default_directory(own['name'], size, kind)
    directory = directory if workdir is None else workdir / kind
    if not judges.exist(directory):
      raise errors.InputError(
        f'{directory} has no judge; accepted: --judge_workdir=DIRECTORY of'
        ' those that experiments.celeba or experiments.judge trained.'
      )
    restored = judges.restore(
      directory,
      attribute_judges.AttributeJudge,
      kind=kind,
      attribute_names=tuple(own['attributes']),
      image_size=size,
      dataset=own['name'],
    )
    found.append(restored)
  return tuple(found)


def _add_scores(config, measured, path):
  """Adds scores of disentanglement to the rows; writes their details."""
  _, names = disentanglement.list_labels(measured.data)
  details, notes = [], {}
  known = {}  # Scores do not depend on which units are the factors.
  pairs = [*zip(measured.rows, measured.models, strict=True)]
  for row, trained in progress.track('scoring codes', pairs):
    place = row['seed'], row['stage']
    scores = known[place] = known.get(place) or disentanglement.measure(
      trained.model, measured.data, config.metrics, config.infomec_pruning
    )
    row.update({name: score.value for name, score in scores.items()})
    about = {name: row[name] for name in ('model', 'stage', 'nuisance_dim')}
    details.append(about | disentanglement.describe(scores, names))
    for score in scores.values():
      for reason in score.reasons:
        notes.setdefault(reason, {})[row['stage']] = None
  for reason, stages in notes.items():
    progress.note(f'{", ".join(stages)}: {reason}')
  written = {
    'protocol': disentanglement.PROTOCOL,
    'labels': list(names),
    'rows': details,
  }
  files.write_whole(
    path.with_name(f'{path.stem}_metrics.json'), json.dumps(written, indent=1)
  )


if __name__ == '__main__':
  cli.run(main, Config())
