"""Convert files of released weights to runs and judges, and back."""

from collections.abc import Sequence
import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.core import trees
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.evaluation import attribute_flips
from jacsup_jax.evaluation import class_swaps
from jacsup_jax.evaluation import judges
from jacsup_jax.interop import released
from jacsup_jax.interop import state_dicts
from jacsup_jax.models import autoencoders
from jacsup_jax.models import classifiers
from jacsup_jax.runs import run as runs
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import steps

_EXPERIMENT = 'convert'
_FACES = 'celeba_folder'
_SELECTION_IMAGES = 256


def import_model(
  source: str | os.PathLike[str],
  output: str | os.PathLike[str],
  *,
  num_factors: int = 2,
  dataset: str | None = None,
  data_dir: str | os.PathLike[str] | None = None,
  attributes: Sequence[str] = (),
  epochs: int = 100,
) -> str:
  """Converts a file of released weights to a run, or to a directory of judges.

  The run has one stage, planned and finished: the other commands evaluate it,
  edit with it, and grow students from it.

  Args:
    source: the file, see `state_dicts.read`.
    output: the directory, which must not exist.
    num_factors: k of a student on digits.
    dataset: the model's training data; by default mnist_embedded, for faces
      celeba_folder.
    data_dir: see `registry.load`.
    attributes: names of the factors of faces, in order.
    epochs: that the model was trained for.

  Returns:
    A line that describes what was written.

  Raises:
    InputError: if the file is not of a released network, or does not go with
      the other arguments; nothing is written then.
    StorageError: if the directory cannot be written.
  """
  output = _check_new(output)
  state = state_dicts.read(source)
  found = released.from_state_dict(os.fspath(source), state, num_factors)
  name = dataset or registry.DEFAULT_DATASET
  if isinstance(found.module, classifiers.MlpJudge):
    return _write_judge(output, found, name, data_dir, epochs)
  if isinstance(found.module, autoencoders.FaceAutoencoder):
    data = _describe_faces(found.module, dataset or _FACES, attributes)
  else:
    shape = found.module.image_shape
    train = registry.load(name, 'train', data_dir=data_dir, image_shape=shape)
    options = {'image_shape': list(shape)}
    fingerprint = train.fingerprint
    data = {'name': name, 'fingerprint': fingerprint, 'options': options}
  data['data_dir'] = data_dir and os.path.abspath(data_dir)
  with open(source, 'rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  converted = {'file': os.path.basename(source), 'sha256': sha256}
  stage = _write_run(output, found, data, epochs, converted)
  return f'{_describe(found.module)}: stage {stage} of the run in {output}'


def export_model(
  source: str | os.PathLike[str],
  output: str | os.PathLike[str],
  stage: str | None = None,
) -> str:
  """Converts a stage of a run to a file.

  Args:
    source: the work directory.
    output: the file, which must not exist; see `state_dicts.write`.
    stage: by default the last finished one.

  Returns:
    A line that describes what was written.

  Raises:
    InputError: if there is no such stage, or the released code has no such
      model; nothing is written then.
    StorageError: if the file cannot be written.
  """
  output = _check_new(output)
  if not os.fspath(output).endswith(state_dicts.SAFETENSORS):
    state_dicts.import_torch(output)  # before a model is loaded
  run = runs.Run.open(source, '--input')
  name = run.find_stage(stage or next(reversed(run.stages), None))
  trained = run.trained(name)
  state = released.to_state_dict(
    released.Converted(
      trained.module, trained.model.variables, int(trained.state.step)
    )
  )
  with files.writing(output):
    output.parent.mkdir(parents=True, exist_ok=True)
  state_dicts.write(output, state)
  return f'{_describe(trained.module)}: {len(state)} tensors in {output}'


def _check_new(output):
  path = files.expand_path('--output', output)
  if files.exists(path):
    raise errors.InputError(f'--output={output} exists; accepted: a new name.')
  files.check_writable(f'--output={output}', path.parent)
  return path


def _describe_faces(module, dataset, attributes):
  """Describes the data of a model of faces, which are not read."""
  names = list(attributes)
  if not len(names) == len(set(names)) == module.num_factors:
    raise errors.InputError(
      f'--attributes={",".join(names)}: {len(set(names))} names, and the model'
      f' has {module.num_factors} factors; accepted: a name for each, in'
      ' their order.'
    )
  options = {'image_size': module.image_size, 'attributes': names}
  return {
      'name': dataset, 'fingerprint': None, 'attributes': names,
      'options': options,
  }  # fmt: skip


def _describe(module):
  if isinstance(module, classifiers.MlpJudge):
    return f'judge of {module.num_classes} classes'
  k, d = module.num_factors, module.nuisance_dim
  return f'{type(module).__name__}, k = {k}, d = {d}'


def _write_run(output, found, data, epochs, converted) -> str:
  """Writes a run of one finished stage, whole or not at all."""
  module = found.module
  is_faces = isinstance(module, autoencoders.FaceAutoencoder)
  is_teacher = is_faces or module.normalize_code
  stage = config.Stage(
    'teacher' if is_teacher else f'student_d{module.nuisance_dim:02d}',
    'teacher' if is_teacher else 'student',
    parent=None,
    nuisance_dim=module.nuisance_dim,
    epochs=epochs,
    weights=(
      config.AttributeLossWeights() if is_faces else config.LossWeights()
    ),
  )
  flags: dict[str, Any] = {
      'dataset': data['name'], 'eval_split': 'test', 'seed': 0, 'seeds': 1,
      'epochs': epochs,
  }  # fmt: skip
  if is_faces:  # as experiments.celeba measures
    flags |= {
      'held_out': 0,
      'strengths': attribute_flips.STRENGTHS,
      'selection_images': _SELECTION_IMAGES,
    }
  state = steps.TrainState(
    np.int32(found.steps), **found.variables, opt_state=()
  )
  workdirs.WorkDir(output, '--output')  # refuses paths that Orbax cannot read
  with _made_whole(output) as scratch:
    run = workdirs.WorkDir(scratch)
    run.begin(_EXPERIMENT, flags, data, [stage.name], converted=converted)
    stages.save_finished(run, steps.Trained(stage, module, state))
  return stage.name


@contextlib.contextmanager
def _made_whole(directory):
  """Yields a new folder that becomes the directory if the block succeeds."""
  with files.writing(directory):
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(
      tempfile.mkdtemp(dir=directory.parent, prefix='.convert-')
    )
  try:
    yield scratch
    with files.writing(directory):
      scratch.chmod(0o755)  # mkdtemp makes it private to the user.
      scratch.rename(directory)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _write_judge(output, found, dataset, data_dir, epochs) -> str:
  """Writes a directory with one judge, and measures it."""
  test = registry.load(
    dataset,
    'test',
    data_dir=data_dir,
    image_shape=found.module.image_shape,
  )
  if test.num_classes != found.module.num_classes:
    raise errors.InputError(
      f'--dataset={dataset} has {test.num_classes} classes, and the judge'
      f' {found.module.num_classes}; accepted: a data set with as many.'
    )
  usual = classifiers.MlpJudge(test.num_classes).widths
  if found.module.widths != usual:
    raise errors.InputError(
      f'the judge has layers of {found.module.widths} units; accepted: {usual}.'
    )
  params = found.variables['params']
  accuracy = class_swaps.compute_accuracy(
    lambda images, key: class_swaps.classify(found.module, params, images, key),
    jnp.asarray(test.images),
    jnp.asarray(test.labels),
  )
  params = jax.tree.map(lambda x: x[None], params)
  judges.save(
    output,
    judges.Judges(
      num_classes=test.num_classes,
      image_shape=found.module.image_shape,
      dataset=judges.identify(dataset, test),
      seeds=(0,),
      epochs=epochs,
      params=params,
      accuracy=(float(accuracy),),
      sha256=trees.hash_tree(params),
    ),
  )
  return (
    f'{_describe(found.module)}: {float(accuracy):.2%} right on the test split'
    f' of {dataset}; in {output}'
  )
