"""Find models to edit with: stages of runs, exported files, the demo model."""

import dataclasses
import functools
import json
import logging
import pathlib
import re

import numpy as np

from jacsup_jax.core import errors
from jacsup_jax.data import drawn_faces
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.editor import editor
from jacsup_jax.editor import model_files
from jacsup_jax.editor import profiles
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import run as runs

_log = logging.getLogger(__name__)
DEMO = pathlib.Path(__file__).with_name('demo') / 'faces.safetensors'
_SPLIT = 'test'
_SCALES = 'scales.json'
_MANIFEST = 'manifest.json'
# Kinds of stages as users read them: a noun, and how it was trained.
_SUPERVISED, _ALONE = 'student', 'student_no_jacobian'
_KINDS = {
  'teacher': ('teacher', ''),
  'teacher_phase_1': ('teacher after its first phase', ''),
  _SUPERVISED: ('student', 'with Jacobian supervision'),
  _ALONE: ('student', 'without Jacobian supervision'),
  'student_unconstrained': ('student', 'with reconstruction alone'),
  'student_cycle': ('student', 'with cycle losses instead'),
  'student_from_scratch': ('student', 'with Jacobian supervision from scratch'),
}


def find(
  workdir: str | None = None,
  stage: str | None = None,
  data_dir: str | None = None,
  runs_dir: str | None = None,
) -> list[editor.Choice]:
  """Lists the models that flags name, the default one first.

  `workdir` is a run, a folder of runs, or a file of `model_files.write`. The
  `stage` of the run is listed first, by default its last student, a supervised
  one if there is any, else its last teacher. Then come the runs of the folder
  `runs_dir` and, with it or without any flag, the demo model. Raises InputError
  if there is no such run, file or stage.
  """
  found = []
  if workdir is not None:
    found += _find_in(workdir, stage, data_dir)
  elif stage is not None:
    raise errors.InputError(f'--stage={stage}; accepted: with --workdir=RUN.')
  if runs_dir is not None:
    root = files.expand_path('--runs_dir', runs_dir)
    if not root.is_dir():
      raise errors.InputError(
        f'--runs_dir={runs_dir} is not a folder; accepted: a folder of runs.'
      )
    found += _find_runs(root, '--runs_dir', data_dir)
  if workdir is None or runs_dir is not None:
    found.append(_make_file_choice(DEMO, 'Demo: drawn faces'))
  # A run may be in both places.
  return list({choice.id: choice for choice in found}.values())


def _find_in(workdir, stage, data_dir):
  """Lists the models of --workdir."""
  path = files.expand_path('--workdir', workdir)
  if not files.exists(path):
    raise errors.InputError(
      f'--workdir={workdir} does not exist; accepted: a run, a folder of'
      ' runs, or a file written with --export.'
    )
  if (path / _MANIFEST).exists():
    return _make_run_choices(path, path.resolve().name, stage, data_dir)
  if stage is not None:
    raise errors.InputError(
      f'--stage={stage} with --workdir={workdir}, which is not a run; accepted:'
      ' a run.'
    )
  if path.is_dir():
    return _find_runs(path, '--workdir', data_dir)
  return [_make_file_choice(path, path.stem)]


def _find_runs(root, flag, data_dir):
  """Lists the models of the runs of a folder, at most two levels below it."""
  choices, skipped = [], 0
  manifests = (*root.glob(f'*/{_MANIFEST}'), *root.glob(f'*/*/{_MANIFEST}'))
  for path in sorted(manifest.parent for manifest in manifests):
    try:
      group = str(path.relative_to(root))
      choices += _make_run_choices(path, group, None, data_dir)
    except errors.InputError:  # Damaged, or with nothing to edit with.
      skipped += 1
  if not choices:
    raise errors.InputError(
      f'{flag}={root} holds no run with a model to edit with; accepted: a'
      ' folder of runs with a finished teacher or student.'
    )
  if skipped:
    _log.warning('%d runs in %s have no model to edit with.', skipped, root)
  return choices


def _make_run_choices(path, group, stage, data_dir):
  """Lists the finished stages of a run, the best one to edit with first."""
  run = runs.Run.open(path)

  # Teachers, then other students, then supervised ones; the first seed last.
  def rank(name):
    stage = run.stage(name)
    kind = (stage.model.startswith('student'), stage.model == 'student')
    return *kind, -stage.seed

  names = [own for own in run.stages if not run.module(own).factors_are_labels]
  names.sort(key=rank)
  if not names or stage not in (None, *names):
    raise errors.InputError(
      f'--workdir={path} has no finished model {stage or "to edit with"};'
      f' accepted: {", ".join(names) or "a run with a teacher or student"}.'
    )
  first = stage or names[-1]
  make_id = lambda name: _make_id(f'{group}.{name}') if name else ''
  return [
    editor.Choice(
      id=make_id(name),
      group=group,
      title=_make_title(run.stage(name)),
      load=functools.partial(_load, run, name, data_dir),
      open_samples=lambda unused_editor: _open(run, _SPLIT, data_dir),
      counterpart=make_id(_find_counterpart(run, names, name)),
    )
    for name in sorted(names[::-1], key=lambda own: own != first)
  ]


def _make_title(stage):
  """Makes a title such as `Student, d = 3, with Jacobian supervision`."""
  noun, how = _KINDS.get(stage.model, (stage.name, ''))
  parts = [
    noun[:1].upper() + noun[1:],
    f'd = {stage.nuisance_dim}',
    *([how] if how else []),
    *([f'seed {stage.seed}'] if stage.seed else []),
  ]
  return ', '.join(parts)


def _find_counterpart(run, names, name):
  """Finds the student of the same size trained in the other way, if any."""
  own = run.stage(name)
  other = {_SUPERVISED: _ALONE, _ALONE: _SUPERVISED}.get(own.model)
  wanted = other, own.nuisance_dim, own.seed
  for candidate in names:
    found = run.stage(candidate)
    if (found.model, found.nuisance_dim, found.seed) == wanted:
      return candidate
  return None


def _make_file_choice(path, title):
  """Makes the choice of an exported file; samples are drawn faces or digits."""
  load = functools.partial(model_files.read, path)
  return editor.Choice(_make_id(path.stem), '', title, load, _open_packaged)


def _load(run, stage, data_dir):
  """Loads a stage; what the data say of it is stored the first time."""
  model = run.restore(stage)
  path = run.path / _SCALES
  sha256 = run.manifest['stages'][stage]['sha256']
  entries = files.read_json(path) if path.exists() else {}
  entry = entries.get(stage)
  is_stored = isinstance(entry, dict) and 'profile' in entry
  if not is_stored or entry.get('sha256') != sha256:
    entry = {'sha256': sha256, **_measure(run, model, data_dir)}
    try:
      files.write_whole(path, json.dumps(entries | {stage: entry}))
    except errors.StorageError as error:
      _log.warning('%s is not kept: %s', _SCALES, error)
  units = unit_scales.from_json(path, entry.get('units'))
  profile = dataclasses.replace(
    profiles.from_json(path, entry['profile']),
    about=_describe(run, stage),
    edits=_read_edits(run, sha256),
  )
  return editor.Editor(model, units, f'{run.path.name}, {stage}', profile)


def _measure(run, model, data_dir):
  """Measures units and profile on the run's training data, as JSON."""
  data = run.load_data('train', data_dir=data_dir, in_memory=False)
  rows = range(min(unit_scales.NUM_IMAGES, len(data)))
  images, labels = data.read(rows)
  code = unit_scales.encode(model, images)
  units = unit_scales.describe(code, run.factor_names)
  profile = profiles.measure(model, images, code.factors, labels)
  return {
    'units': list(map(dataclasses.asdict, units)),
    'profile': dataclasses.asdict(profile),
  }


def _describe(run, stage):
  """Describes a model, for a sentence: `a student of 2 factors ...`."""
  own, module = run.stage(stage), run.module(stage)
  noun, how = _KINDS.get(own.model, ('model', ''))
  kind = (
    'attributes' if run.manifest['dataset'].get('attributes') else 'factors'
  )
  return (
    f'a {noun} of {module.num_factors} {kind} and d = {own.nuisance_dim},'
    f' trained {how} on {run.manifest["dataset"]["name"]}'
  ).replace('  ', ' ')


def _read_edits(run, sha256):
  """Reads how well a model's edits work; {} if the run does not say."""
  try:
    rows = [row for row in run.rows if row.get('sha256') == sha256]
  except errors.InputError:  # Damaged results are no reason not to edit.
    rows = []
  return profiles.read_edits(rows[0]) if rows else {}


def _open(run, split, data_dir):
  # Few images of a set that may be large: they are decoded when read.
  data = run.load_data(split, data_dir=data_dir, in_memory=False)
  return editor.Samples(len(data), lambda rows: data.read(rows)[0])


def _open_packaged(own):
  """Opens test images of this package that fit a model."""
  if isinstance(own.model.module, autoencoders.FaceAutoencoder):
    size = own.image_shape[0]

    def draw(rows):
      faces = [drawn_faces.sample(row, _SPLIT) for row in rows]
      return np.stack([drawn_faces.draw_face(*face, size) for face in faces])

    return editor.Samples(drawn_faces.SPLIT_SIZES[_SPLIT], draw)
  if own.image_shape != (28, 28, 1):
    raise errors.InputError(
      f'there are no samples of shape {list(own.image_shape)} without a run;'
      ' accepted: your own photo, or --workdir=RUN.'
    )
  data = registry.load(registry.DEFAULT_DATASET, _SPLIT)
  return editor.Samples(len(data), lambda rows: data.read(rows)[0])


def _make_id(name):
  return re.sub(r'[^A-Za-z0-9_.-]+', '.', name).strip('.') or 'model'
