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
from jacsup_jax.evaluation import unit_scales
from jacsup_jax.models import autoencoders
from jacsup_jax.runs import run as runs

_log = logging.getLogger(__name__)
DEMO = pathlib.Path(__file__).with_name('demo') / 'faces.safetensors'
_SPLIT = 'test'
_SCALES = 'scales.json'
_MANIFEST = 'manifest.json'


def find(
  workdir: str | None = None,
  stage: str | None = None,
  data_dir: str | None = None,
) -> list[editor.Choice]:
  """Lists the models that flags name, the default one first.

  `workdir` is a run, a folder of runs, or a file of `model_files.write`; None,
  the demo model. The `stage` of the run is listed first, by default its last
  student, a supervised one if there is any, else its last teacher. Raises
  InputError if there is no such run, file or stage.
  """
  if workdir is None:
    return [_make_file_choice(DEMO, 'Drawn faces')]
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
    return _find_runs(path, data_dir)
  return [_make_file_choice(path, path.stem)]


def _find_runs(root, data_dir):
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
      f'--workdir={root} holds no run with a model to edit with; accepted: a'
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
  return [
    editor.Choice(
      id=_make_id(f'{group}.{name}'),
      group=group,
      title=name,
      load=functools.partial(_load, run, name, data_dir),
      open_samples=lambda unused_editor: _open(run, _SPLIT, data_dir),
    )
    for name in sorted(names, key=lambda own: own != first)
  ]


def _make_file_choice(path, title):
  """Makes the choice of an exported file; samples are drawn faces or digits."""
  load = functools.partial(model_files.read, path)
  return editor.Choice(_make_id(path.stem), '', title, load, _open_packaged)


def _load(run, stage, data_dir):
  """Loads a stage; its units are measured and stored the first time."""
  model = run.restore(stage)
  path = run.path / _SCALES
  sha256 = run.manifest['stages'][stage]['sha256']
  entries = files.read_json(path) if path.exists() else {}
  entry = entries.get(stage)
  if not isinstance(entry, dict) or entry.get('sha256') != sha256:
    data = _open(run, 'train', data_dir)
    images = data.read(range(min(unit_scales.NUM_IMAGES, data.count)))
    units = unit_scales.measure(model, images, run.factor_names)
    entry = {'sha256': sha256, 'units': list(map(dataclasses.asdict, units))}
    try:
      files.write_whole(path, json.dumps(entries | {stage: entry}, indent=1))
    except errors.StorageError as error:
      _log.warning('%s is not kept: %s', _SCALES, error)
  units = unit_scales.from_json(path, entry.get('units'))
  return editor.Editor(model, units, f'{run.path.name}, {stage}')


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
