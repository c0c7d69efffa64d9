"""Convert files of released weights to runs and judges, and back."""

from collections.abc import Sequence
import dataclasses
import hashlib
import os
import shutil

import jax
import numpy as np

from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import files
from jacsup_jax.data import registry
from jacsup_jax.evaluation import class_judges
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


def import_model(
  source: files.Path,
  output: files.Path,
  *,
  num_factors: int = 2,
  dataset: str | None = None,
  data_dir: files.Path | None = None,
  attributes: Sequence[str] = (),
  epochs: int = 100,
) -> str:
  """Converts a file of released weights to a run, or to a directory of judges.

  Options are the flags of experiments.convert. Returns a line that describes
  what was written. Raises InputError, and writes nothing, if the file is not of
  a released network or does not go with the options.
  """
  output = _check_new(output)
  state = state_dicts.read(source)
  found = released.from_state_dict(os.fspath(source), state, num_factors)
  module, name = found.module, dataset or registry.DEFAULT_DATASET
  if isinstance(module, classifiers.MlpJudge):
    return _write_judge(output, found, name, data_dir, epochs)
  if isinstance(module, autoencoders.FaceAutoencoder):
    names = list(attributes)  # The images are not read.
    if not len(names) == len(set(names)) == module.num_factors:
      raise errors.InputError(
        f'--attributes={",".join(names)}, and the model has'
        f' {module.num_factors} factors; accepted: a name for each, in order.'
      )
    data = {'name': dataset or 'celeba_folder', 'fingerprint': None}
    data |= {'attributes': names}
    options = {'image_size': module.image_size, 'attributes': names}
  else:
    shape = module.image_shape
    train = registry.load(name, 'train', data_dir=data_dir, image_shape=shape)
    data = {'name': name, 'fingerprint': train.fingerprint}
    options = {'image_shape': list(shape)}
  data_dir = data_dir and os.path.abspath(data_dir)
  data |= {'options': options, 'data_dir': data_dir}
  sha256 = hashlib.sha256(files.read_bytes(source)).hexdigest()
  converted = {'file': os.path.basename(source), 'sha256': sha256}
  stage = _write_run(output, found, data, epochs, converted)
  return f'{_describe(module)}: stage {stage} of the run in {output}'


def export_model(
  source: files.Path, output: files.Path, stage: str | None = None
) -> str:
  """Converts a stage of a run, by default the last one, to a new file.

  Returns a line that describes it. Raises InputError if there is no such stage,
  or the released code has no such model.
  """
  output = _check_new(output)
  files.check_output('--output', output, state_dicts.ENDINGS)
  state_dicts.import_torch(output)
  run = runs.Run.open(source, '--input')
  name = run.find_stage(stage or next(reversed(run.stages), None))
  trained = run.trained(name)
  step = int(trained.state.step)
  converted = released.Converted(trained.module, trained.model.variables, step)
  state = released.to_state_dict(converted)
  state_dicts.write(output, state)
  return f'{_describe(trained.module)}: {len(state)} tensors in {output}'


def _check_new(output):
  path = files.expand_path('--output', output)
  if files.exists(path):
    raise errors.InputError(f'--output={output} exists; accepted: a new name.')
  files.check_writable(f'--output={output}: {path.parent}', path.parent)
  return path


def _describe(module):
  k, d = module.num_factors, module.nuisance_dim
  return f'{type(module).__name__}, k = {k}, d = {d}'


def _write_run(output, found, data, epochs, converted) -> str:
  """Writes a run of one finished stage, whole or not at all."""
  module = found.module
  flags = {'dataset': data['name'], 'seed': 0, 'seeds': 1, 'epochs': epochs}
  weights = config.LossWeights()
  name = model = 'teacher'
  if isinstance(module, autoencoders.FaceAutoencoder):
    weights = config.AttributeLossWeights()
    flags['selection_images'] = 256  # as experiments.celeba measures
  elif not module.normalize_code:
    name, model = f'student_d{module.nuisance_dim:02d}', 'student'
  stage = config.Stage(name, model, None, module.nuisance_dim, epochs, weights)
  step = np.int32(found.steps)
  state = steps.TrainState(step, **found.variables, opt_state=())
  run = workdirs.WorkDir(output, '--output')
  try:
    run.begin('convert', flags, data, [name], converted=converted)
    stages.save_finished(run, steps.Trained(stage, module, state))
  except BaseException:
    shutil.rmtree(output, ignore_errors=True)
    raise
  return name


def _write_judge(output, found, dataset, data_dir, epochs) -> str:
  """Writes a directory with one judge, and measures it."""
  module, params = found.module, found.variables['params']
  shape = module.image_shape
  test = registry.load(dataset, 'test', data_dir=data_dir, image_shape=shape)
  usual = classifiers.MlpJudge(test.num_classes, image_shape=shape)
  if module != usual:
    raise errors.InputError(
      f'{module.num_classes} classes and layers of {module.widths} units;'
      f' accepted for --dataset={dataset}: {usual.num_classes}, {usual.widths}.'
    )
  params = jax.tree.map(lambda x: np.asarray(x)[None], params)
  family = class_swaps.PAPER_FAMILY
  made = class_judges.NetworkJudges(
      family, module.num_classes, shape, class_judges.identify(dataset, test),
      (0,), epochs, {'params': params}, (), codes.hash_tree(params),
  )  # fmt: skip
  [accuracy] = judges.compute_accuracy(made, test.images, test.labels).tolist()
  made = dataclasses.replace(made, accuracy=(accuracy,))
  judges.save(output / family, made)
  return (
    f'judge of {module.num_classes} classes: {accuracy:.2%} right on the test'
    f' split of {dataset}; in {output / family}'
  )
