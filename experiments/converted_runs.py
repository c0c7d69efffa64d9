"""Converted models as runs and judges that the other binaries read.

A work directory that is made of a file has a manifest with the flags that the
model implies; what a file cannot say has the paper's values. `converted` in it
says what the file was.
"""

from collections.abc import Mapping
import functools
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp

from experiments import celeba_runs
from experiments import command_line
from experiments import discovery_runs
from experiments import mnist_runs
from experiments import seed_runs
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import attribute_flips as flips
from jacsup_jax.evaluation import class_swaps as evaluation
from jacsup_jax.evaluation import judge_files
from jacsup_jax.evaluation import judges
from jacsup_jax.interop import released as convert
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import replicas as grid
from jacsup_jax.training import steps as training

# Of a manifest: what a model was converted from.
ENTRY = 'converted'
_EXPERIMENTS = {
    'mnist_teacher': 'mnist', 'mnist_student': 'mnist', 'celeba': 'celeba'
}  # pyformat: disable
# Of Section 3, but what a model says; the released code's cross-covariance.
_DIGIT_VALUES = {
    'seed': 0, 'batch_size': 128, 'students': ['student'], 'lambda_y': 0.25,
    'lambda_diff': 0.1, 'lambda_xcov': 1e-3, 'xcov': 'norm',
    'learning_rate': 3e-4, 'weight_decay': 1e-6, 'compute_dtype': 'float32',
    'eval_split': 'test',
}  # pyformat: disable
# Of Section 4.
_FACE_VALUES = {
    'seed': 0, 'batch_size': 128, 'cycle_epochs': 0, 'student_epochs': 200,
    'students': [], 'supervisor': 'teacher', 'teacher_workdir': None,
    'linear_factors': False, 'compute_dtype': 'float32', 'learning_rate': 2e-3,
    'adam_b1': 0.5, 'weight_decay': 0.0, 'xcov': 'norm',
    'lambda_reconstruction': 1e2, 'lambda_prediction': 1e-1,
    'lambda_xcov': 1e-1, 'lambda_attribute_cycle': 1e-4,
    'lambda_nuisance_cycle': 1e-5, 'lambda_y': 1.0, 'lambda_diff': 50.0,
    'student_lambda_prediction': 0.0, 'student_lambda_xcov': 0.0,
    'skip_bad_images': False, 'held_out': 0, 'eval_split': 'test',
    'selection_images': 256,
}  # pyformat: disable


def write_digits(
    directory: pathlib.Path,
    layout: convert.Layout,
    converted: convert.Converted,
    *,
    source: Mapping[str, Any],
    dataset: str,
    data_dir: str | None,
    epochs: int,
) -> str:
  """Writes a work directory of experiments.mnist with one finished stage.

  Args:
    directory: that is not there.
    layout: of the model.
    converted: its variables, on the host.
    source: says what it was converted from.
    dataset: that it was trained on.
    data_dir: see `datasets.load`.
    epochs: that it was trained for.

  Returns:
    Name of the stage.

  Raises:
    InputError: if there is no such data set.
  """
  model = layout.model
  data = datasets.load(
      dataset, 'train', data_dir=data_dir, image_shape=layout.image_shape
  )
  # One growth by all units, of which a teacher has none yet.
  dim = max(1, model.nuisance_dim)
  values = _DIGIT_VALUES | {
      'dataset': dataset,
      'epochs': epochs,
      'num_factors': model.num_factors,
      'nuisance_dim': dim,
      'grow_by': dim,
  }
  chain = discovery_runs.make_stages(values)
  stage = chain[0] if model.normalize_code else chain[-1]
  optimizer = training.make_optimizer(
      values['learning_rate'], values['weight_decay']
  )
  _write_run(
      directory,
      'mnist',
      values,
      stage,
      training.create_train_state(converted.variables, optimizer),
      dataset={'name': data.name, 'fingerprint': data.fingerprint},
      source={**source, 'stage': stage.name, 'counts': converted.counts},
      epochs=epochs,
  )
  return stage.name


def write_faces(
    directory: pathlib.Path,
    layout: convert.Layout,
    converted: convert.Converted,
    *,
    source: Mapping[str, Any],
    dataset: str,
    attributes: list[str],
    epochs: int,
) -> str:
  """Writes a work directory of experiments.celeba with a finished teacher.

  Args:
    directory: that is not there.
    layout: of the model.
    converted: its variables, on the host.
    source: says what it was converted from.
    dataset: that it was trained on, and is to be measured on.
    attributes: names of its factors.
    epochs: that it was trained for.

  Returns:
    Name of the stage.

  Raises:
    InputError: if the model has another number of factors.
  """
  model = layout.model
  if len(attributes) != model.num_factors or len(set(attributes)) != len(
      attributes
  ):
    raise errors.InputError(
        f'--attributes={",".join(attributes)} are {len(set(attributes))}'
        f' names, the model has {model.num_factors} factors; accepted: a name'
        ' for each, in the order of its factors.'
    )
  values = _FACE_VALUES | {
      'dataset': dataset,
      'attributes': attributes,
      'epochs': epochs,
      'image_size': model.image_size,
      'first_width': model.first_width,
      'last_width': model.last_width,
      'nuisance_dims': [str(model.nuisance_dim)],
      'strengths': [f'{x:g}' for x in flips.STRENGTHS],
  }
  (stage,) = celeba_runs.make_stages(values)
  optimizer = training.make_optimizer(
      values['learning_rate'], values['weight_decay'], values['adam_b1']
  )
  _write_run(
      directory,
      'celeba',
      values,
      stage,
      attribute_training.create_train_state(converted.variables, optimizer),
      dataset={'name': dataset, 'attributes': attributes},
      source={**source, 'stage': stage.name, 'counts': converted.counts},
      epochs=epochs,
  )
  return stage.name


def write_judge(
    directory: pathlib.Path,
    layout: convert.Layout,
    converted: convert.Converted,
    *,
    dataset: str,
    data_dir: str | None,
    epochs: int,
) -> judges.Judges:
  """Writes a directory of one judge; its accuracy is measured.

  Args:
    directory: that is not there.
    layout: of the judge.
    converted: its variables, on the host.
    dataset: that it was trained on, and is to judge.
    data_dir: see `datasets.load`.
    epochs: that it was trained for.

  Returns:
    An ensemble of it alone.

  Raises:
    InputError: if there is no such data set, or it has other classes.
  """
  test = datasets.load(
      dataset, 'test', data_dir=data_dir, image_shape=layout.image_shape
  )
  num_classes = layout.model.num_classes
  if test.num_classes != num_classes:
    raise errors.InputError(
        f'--dataset={dataset} has {test.num_classes} classes, the judge'
        f' {num_classes}; accepted: a set of as many.'
    )
  params = converted.variables['params']
  accuracy = _measure_judge(layout.model, params, test)
  params = jax.tree.map(lambda x: x[None], params)
  ensemble = judges.Judges(
      num_classes=num_classes,
      image_shape=layout.image_shape,
      dataset=judges.identify(dataset, test),
      seeds=(0,),
      epochs=epochs,
      params=params,
      accuracy=(accuracy,),
      sha256=checkpoints.hash_tree(params),
  )
  judges.save(directory, ensemble)
  return ensemble


def read_run(
    path: str | os.PathLike[str],
    kind: str,
    stage_name: str | None,
    seed: int | None = None,
) -> tuple[convert.Layout, convert.Converted]:
  """Reads a finished stage of a run.

  Args:
    path: its work directory.
    kind: that the model is to be of.
    stage_name: None for the teacher of digits, else for the last finished one;
      without the seed that the manifest has it with.
    seed: of a run of several; None for the first.

  Returns:
    Layout and variables of the model.

  Raises:
    InputError: if there is no such stage or seed, or it is of another kind.
  """
  run = workdirs.WorkDir(path)
  experiment = _EXPERIMENTS[kind]
  if run.manifest is None or run.manifest['experiment'] != experiment:
    raise errors.InputError(
        f'--input={path} is no run of experiments.{experiment}; accepted: the'
        f' work directory of one, for --kind={kind}.'
    )
  values = run.manifest['flags']
  if kind == 'celeba':
    celeba_runs.check_recorded(run, with_data=False)
    chain = celeba_runs.make_stages(values)
    # Fader Networks are another model.
    fits = lambda stage: stage.model != celeba_runs.FADER
  else:
    discovery_runs.check_recorded(run)
    chain = discovery_runs.make_stages(values)
    is_teacher = kind == 'mnist_teacher'
    fits = lambda stage: (stage.supervisor is None) == is_teacher
  plan = seed_runs.read_plan(run)
  seed = plan.seeds[0] if seed is None else seed
  if seed not in plan.seeds:
    raise errors.InputError(
        f'--seed={seed}; accepted: {plan.seeds[0]} to {plan.seeds[-1]}, the'
        f' seeds of {path}.'
    )
  finished = {
      name: stage
      for name, stage in seed_runs.name_stages(plan, chain, seed).items()
      if fits(stage) and stage.name in run.manifest['stages']
  }
  count = len(plan.seeds) if plan.together else 0
  name = stage_name or next(reversed(finished), None)
  if name not in finished:
    given = f' and --stage={name}' if name else ''
    raise errors.InputError(
        f'--input={path} with --kind={kind}{given}; accepted: a finished stage'
        f' of that kind, of which there are {", ".join(finished) or "none"}.'
    )
  if kind == 'celeba':
    if values['linear_factors']:
      raise errors.InputError(
          f'--input={path} is of --linear_factors; accepted: a run without,'
          ' since the released network has a LeakyReLU there.'
      )
    num_factors = len(run.manifest['dataset']['attributes'])
    trained = celeba_runs.restore(
        values, finished[name], run, num_factors, count
    )
  else:
    trained = discovery_runs.restore(
        mnist_runs.make_model, values, finished[name], run, count
    )
  if count:
    trained = grid.take_member(trained, plan.seeds.index(seed))
  layout = convert.Layout(kind, trained.model, trained.model.image_shape)
  counts = _read_counts(run, layout, name, int(trained.state.step))
  return layout, convert.Converted(trained.variables, counts)


def read_judge(
    path: str | os.PathLike[str], member: int
) -> tuple[convert.Layout, convert.Converted]:
  """Reads one judge of a directory of judges of digits.

  Args:
    path: of the directory.
    member: which one, from 0.

  Returns:
    Layout and variables of the judge.

  Raises:
    InputError: if there is no such judge.
  """
  found = judge_files.read(path, judges.Judges, 'params')
  ensemble = judges.restore(
      path,
      dataset=found.dataset,
      num_classes=found.num_classes,
      image_shape=found.image_shape,
  )
  if member >= len(ensemble.seeds):
    raise errors.InputError(
        f'--judge={member}; accepted: less than {len(ensemble.seeds)}, the'
        f' number of judges in {path}.'
    )
  params = jax.tree.map(lambda x: x[member], ensemble.params)
  layout = convert.Layout('mnist_judge', ensemble.model, ensemble.image_shape)
  variables = {'params': params, 'batch_stats': {}}
  return layout, convert.Converted(variables, {})


def _read_counts(run, layout, stage_name, step):
  """Returns the counts of batches of a stage: those of its file, or steps."""
  names = convert.list_counters(layout)
  source = run.manifest.get(ENTRY)
  if not isinstance(source, Mapping) or source.get('stage') != stage_name:
    return {name: step for name in names}
  counts = source.get('counts')
  if not isinstance(counts, Mapping) or not all(
      name in names and type(count) is int and 0 <= count < 2**63
      for name, count in counts.items()
  ):
    raise errors.InputError(
        f'{run.path / "manifest.json"} has no counts of batches in {ENTRY!r};'
        ' accepted: a manifest as experiments.convert writes it.'
    )
  return counts


def _write_run(
    directory, experiment, values, stage, state, *, dataset, source, epochs
):
  """Writes a work directory, whole or not at all."""
  sha256 = checkpoints.hash_tree(state.params)
  with workdirs.writing(directory):
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(
        tempfile.mkdtemp(dir=directory.parent, prefix='.convert-')
    )
  try:
    run = workdirs.WorkDir(scratch)
    run.begin(
        experiment,
        values,
        dataset,
        parallel.describe_devices(),
        **command_line.describe_circumstances(),
        **{ENTRY: source},
    )
    with checkpoints.StageCheckpoints(run.checkpoints(stage.name)) as saved:
      saved_sha256 = saved.save(0, state)
    run.record_checkpoints(stage.name, {'0': saved_sha256})
    run.record_stage(
        stage.name,
        {
            'parent': None,
            'parent_sha256': None,
            'supervisor': None,
            'sha256': sha256,
            'nuisance_dim': stage.nuisance_dim,
            'epochs': epochs,
        },
    )
    with workdirs.writing(directory):
      scratch.chmod(0o755)  # mkdtemp makes it private to the user.
      scratch.rename(directory)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _measure_judge(model, params, test):
  return float(
      evaluation.compute_accuracy(
          functools.partial(judges.classify, model, params),
          jnp.asarray(test.images),
          jnp.asarray(test.labels),
      )
  )
