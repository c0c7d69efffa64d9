"""What a run of experiments.mnist or svhn is, by the values of its flags.

The run itself and what reads it later (evaluate) share this; the values come
from the flags, or from the manifest of a run. What the experiments have of
their own is in mnist_runs and svhn_runs.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from experiments import evaluated_runs
from experiments import optimizer_flags
from experiments import seed_runs
from experiments import supervision_flags
from jacsup_jax.core import changes
from jacsup_jax.core import codes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.evaluation import class_swaps as evaluation
from jacsup_jax.evaluation import judges
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import discovery
from jacsup_jax.training import memory
from jacsup_jax.training import replicas as grid
from jacsup_jax.training import steps as training

FROM_SCRATCH = 'student_from_scratch'
STUDENTS = (
    'student', 'student_no_jacobian', 'student_unconstrained', FROM_SCRATCH
)  # pyformat: disable
# Of the values that make a run again, from its manifest: their annotations.
_KINDS = {
    'dataset': str, 'seed': int, 'batch_size': int, 'epochs': int,
    'num_factors': int, 'nuisance_dim': int, 'students': list[str],
    'lambda_y': float, 'lambda_diff': float, 'lambda_xcov': float, 'xcov': str,
    'learning_rate': float, 'weight_decay': float, 'compute_dtype': str,
    'eval_split': str,
}  # pyformat: disable
# Runs from before these flags have no such values.
_MAYBE_KINDS = {
    'grow_by': int, 'grow_when': str, 'patience': int | None,
    'first_width': int, 'normalize_students': bool, 'linear_code': bool,
    'teacher_workdir': str | None, **optimizer_flags.MAYBE_KINDS,
    **supervision_flags.MAYBE_KINDS, **supervision_flags.MAYBE_KINDS_OF_CHAINS,
    **seed_runs.MAYBE_KINDS,
}  # pyformat: disable
PROTOCOL = (
    'class_swaps: pairs within batches of 128 in order, the class of an image'
    ' is the judge\'s opinion of its reconstruction, equal opinions left out,'
    ' mean over the judges; _noisy_judge: their dropout on; _true_labels:'
    ' classes are true labels'
)


# (values, num_factors, nuisance_dim, is_first) -> autoencoder.
MakeModel = Callable[[Mapping[str, Any], int, int, bool], nn.Module]


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What an experiment has of its own.

  Attributes:
    name: of its binary.
    image_shape: (H, W, C) of its data.
    make_model: makes the autoencoder of a run; `is_first` of a first teacher.
    make_settings: makes the settings that all stages of a run share.
  """

  name: str
  image_shape: tuple[int, int, int]
  make_model: MakeModel
  make_settings: Callable[[Mapping[str, Any]], discovery.Settings]


def check_recorded(run: workdirs.WorkDir) -> None:
  """Checks the flags in the manifest of a run, before it is made again.

  Args:
    run: with a manifest.

  Raises:
    InputError: if a value that is needed is missing or cannot be.
  """
  run.check_recorded(
      _KINDS,
      _MAYBE_KINDS,
      of_stage={'sha256': str, 'epochs': int},
      of_dataset={'fingerprint': str},
  )
  evaluated_runs.check_model(run, 'num_factors', 'first_width')


def name_training_split(values: Mapping[str, Any]) -> str:
  """Returns what a run trains on: all of train, or all but validation.

  Args:
    values: of its flags, by name.
  """
  held_out = (
      values['eval_split'] == 'validation'
      # Runs from before this flag have no such value.
      or values.get('grow_when') == 'plateau'
  )
  return 'train_minus_validation' if held_out else 'train'


def make_stages(values: Mapping[str, Any]) -> list[config.Stage]:
  """Returns the teacher and the chains of students of a run.

  Args:
    values: of its flags, by name.

  Returns:
    Stages, parents before their children.

  Raises:
    InputError: if a value is not accepted.
  """
  dims = make_dims(values)
  students = values['students']
  if (
      not students
      or set(students) - set(STUDENTS)
      or len(students) > len(set(students))
  ):
    raise errors.InputError(
        f'--students={",".join(students)}; accepted: any of'
        f' {", ".join(STUDENTS)}, each once.'
    )
  supervised = config.LossWeights(
      lambda_y=values['lambda_y'],
      lambda_diff=values['lambda_diff'],
      lambda_xcov=values['lambda_xcov'],
      squared_xcov=values['xcov'] == 'squared',
      supervision=supervision_flags.make(values),
      **supervision_flags.make_constraints(values),
  )
  if (
      supervised.supervision.history
      # A manifest is read without it.
      and values.get('teacher_statistics', 'running') == 'batch'
  ):
    raise errors.InputError(
        '--teacher_statistics=batch with --supervise=history, whose models are'
        ' applied with running ones; accepted: --teacher_statistics=running.'
    )
  # No teacher looks at what they make of a swap.
  unsupervised = dataclasses.replace(
      supervised,
      lambda_check=0.0,
      supervision=dataclasses.replace(supervised.supervision, check=False),
  )
  weights = {
      'student': supervised,
      'student_no_jacobian': dataclasses.replace(
          unsupervised, lambda_y=0.0, lambda_diff=0.0
      ),
      'student_unconstrained': dataclasses.replace(
          unsupervised,
          lambda_y=0.0,
          lambda_diff=0.0,
          lambda_xcov=0.0,
          lambda_hsic=0.0,
          lambda_orthogonal=0.0,
          lambda_orthogonal_factors=0.0,
      ),
  }
  # Runs from before these flags have no such values.
  plateau = values.get('grow_when') == 'plateau'
  make_stage = functools.partial(
      config.Stage,
      epochs=values['epochs'],
      patience=values['patience'] if plateau else None,
  )
  chain = [
      make_stage(
          'teacher',
          'teacher',
          None,
          nuisance_dim=0,
          weights=supervised,
          epochs=values.get('teacher_epochs') or values['epochs'],
      )
  ]
  if values.get('teacher_workdir') is not None:
    chain = []
  for model in students:
    if model == FROM_SCRATCH:
      # As large as the last of a chain, and trained for as long as all of it.
      stage = make_stage(
          f'{model}_d{dims[-1]:02d}',
          model,
          None,
          nuisance_dim=dims[-1],
          epochs=len(dims) * values['epochs'],
          weights=supervised,
          teacher='teacher',
      )
      chain.append(stage)
      continue
    parent = 'teacher'
    for dim in dims:
      name = f'{model}_d{dim:02d}'
      chain.append(
          make_stage(
              name, model, parent, nuisance_dim=dim, weights=weights[model]
          )
      )
      parent = name
  return chain


def check_jacobian(
    values: Mapping[str, Any],
    chain: Sequence[config.Stage],
    image_shape: tuple[int, int, int],
) -> None:
  """Checks that the Jacobians of a run are small enough to be computed.

  Args:
    values: of its flags, by name.
    chain: its stages.
    image_shape: (H, W, C).

  Raises:
    InputError: if they are not.
  """
  # A given teacher is not of the chain.
  dims = {'teacher': 0} | {stage.name: stage.nuisance_dim for stage in chain}
  shape = (values['batch_size'], *image_shape)
  for stage in chain:
    weights = stage.weights
    if stage.supervisor is None:
      continue
    if weights.needs_teacher and weights.supervision.jacobian == 'full':
      # A student's factors are all units of its supervisor.
      changes.check_full_size(
          shape, values['num_factors'] + dims[stage.supervisor]
      )
    if weights.lambda_orthogonal or weights.lambda_orthogonal_factors:
      changes.check_full_size(
          shape,
          values['num_factors'] + stage.nuisance_dim,
          name='--lambda_orthogonal',
      )


def make_dims(values: Mapping[str, Any]) -> list[int]:
  """Returns d after each growth, the last as asked for.

  Args:
    values: of the flags, by name.

  Raises:
    InputError: if --nuisance_dim is not larger than the teacher's, or --grow_by
      leaves no growth.
  """
  last, by = values['nuisance_dim'], values.get('grow_by', 1)
  if last < 1:
    raise errors.InputError(
        f'--nuisance_dim={last} is not larger than the teacher\'s (0);'
        ' accepted: 1 or larger.'
    )
  if last > config.LARGEST_WIDTH:
    raise errors.InputError(
        f'--nuisance_dim={last}; accepted: {config.LARGEST_WIDTH} at most.'
    )
  if not 1 <= by <= last:
    raise errors.InputError(
        f'--grow_by={by} with --nuisance_dim={last}; accepted: from 1 to'
        f' {last}.'
    )
  return [*range(by, last, by), last]


def make_settings(
    values: Mapping[str, Any], *, fold_normalization: bool
) -> discovery.Settings:
  """Returns the settings that all stages of a run share."""
  return discovery.Settings(
      seed=values['seed'],
      batch_size=values['batch_size'],
      learning_rate=values['learning_rate'],
      weight_decay=values['weight_decay'],
      mode=values['parallel'],
      growth=values['growth'],
      fold_normalization=fold_normalization,
      keep_moments=values['keep_moments'],
      teacher_train_mode=values['teacher_statistics'] == 'batch',
      **optimizer_flags.make_settings(values),
  )


def restore(
    make_model: MakeModel,
    values: Mapping[str, Any],
    stage: config.Stage,
    workdir: workdirs.WorkDir,
    count: int = 0,
) -> stages.Trained:
  """Restores the model of a finished stage.

  Args:
    make_model: of the experiment.
    values: of the run's flags, by name.
    stage: that the manifest has as finished.
    workdir: of the run.
    count: of seeds that it trained together; 0 for a solo stage.

  Returns:
    The trained model, or a stack of them.

  Raises:
    InputError: if its checkpoint is missing, or not the one of the manifest.
  """
  model = make_model(
      values,
      values['num_factors'],
      stage.nuisance_dim,
      stage.supervisor is None,
  )
  made = optimizer_flags.make_settings(values)
  optimizer = training.make_optimizer(
      values['learning_rate'],
      values['weight_decay'],
      name=made['optimizer'],
      # Of its state the shapes alone are needed.
      decay_steps=1 if made['decay_learning_rate'] else None,
  )
  # Shapes alone: nothing is compiled.
  template = jax.eval_shape(
      lambda: training.create_train_state(
          networks.init_variables(model, 0, model.image_shape), optimizer
      )
  )
  if count:
    template = grid.stack_shapes(template, count)
  state, sha256 = checkpoints.restore_finished(workdir, stage.name, template)
  # Fewer than asked for, where it stopped on a plateau.
  epochs = workdir.manifest['stages'][stage.name]['epochs']
  stage = dataclasses.replace(stage, epochs=epochs)
  return stages.Trained(stage, model, state, sha256)


def random_model(
    make_model: MakeModel, values: Mapping[str, Any], stage: config.Stage
) -> stages.Trained:
  """Returns an untrained model as large as that of a stage."""
  stage = dataclasses.replace(stage, name='random', model='random', epochs=0)
  model = make_model(values, values['num_factors'], stage.nuisance_dim, False)
  variables = networks.init_variables(model, values['seed'], model.image_shape)
  state = training.TrainState(0, opt_state=(), **variables)
  return stages.Trained(stage, model, state, '')


def make_evaluate(
    ensemble: judges.Judges, images: jax.Array, labels: jax.Array
) -> Callable[[nn.Module, codes.Variables], dict[str, Any]]:
  """Makes `evaluate(model, variables) -> entries of a row` on one data set.

  Args:
    ensemble: of judges.
    images: `[M, H, W, C]` uint8.
    labels: `[M]` int.

  Returns:
    A function that compiles once for each model.
  """
  images, labels = jnp.asarray(images), jnp.asarray(labels)

  def evaluate(model, variables):
    measured = _measure(
        model, variables, ensemble.model, ensemble.params, images, labels
    )
    return evaluation.summarize(measured)

  return evaluate


def describe(trained: stages.Trained, seed: int) -> dict[str, Any]:
  """Returns what a row of results.json says of a model besides measurements."""
  stage, weights = trained.stage, trained.stage.weights
  return {
      'model': stage.model,
      'stage': stage.name,
      'nuisance_dim': stage.nuisance_dim,
      'seed': seed,
      'epochs': stage.epochs,
      'lambda_y': weights.lambda_y,
      'lambda_diff': weights.lambda_diff,
      'lambda_xcov': weights.lambda_xcov,
      **supervision_flags.describe(weights.supervision),
      **supervision_flags.describe_constraints(weights),
      'sha256': trained.sha256,
  }


def measure(
    make_model: MakeModel,
    values: Mapping[str, Any],
    trained: Mapping[int, Sequence[stages.Trained]],
    last: config.Stage,
    evaluate: Callable[[nn.Module, codes.Variables], dict[str, Any]],
) -> list[dict[str, Any]]:
  """Measures the models of a run, and for each seed an untrained one.

  Args:
    make_model: of the experiment.
    values: of the run's flags, by name.
    trained: by seed.
    last: the stage that the untrained models are as large as.
    evaluate: see `make_evaluate`.

  Returns:
    Rows of results.json, one seed after the other.
  """
  return [
      describe(model, seed) | evaluate(model.model, model.variables)
      for seed, models in add_random(make_model, values, trained, last).items()
      for model in models
  ]


def add_random(
    make_model: MakeModel,
    values: Mapping[str, Any],
    trained: Mapping[int, Sequence[stages.Trained]],
    last: config.Stage,
) -> dict[int, list[stages.Trained]]:
  """Returns models by seed, in the order of `measure`; see there."""
  return {
      seed: [
          *models,
          random_model(make_model, seed_runs.for_seed(values, seed), last),
      ]
      for seed, models in trained.items()
  }


def estimate_bytes(
    experiment: Experiment,
    values: Mapping[str, Any],
    chain: Sequence[config.Stage],
    size: int,
    count: int,
) -> int:
  """Estimates what seeds that are trained together need on a device.

  Args:
    experiment: whose models they are.
    values: of the run's flags, by name.
    chain: stages of one seed.
    size: of the training images, numbers in all.
    count: of seeds.

  Returns:
    Bytes: of the images, and of the largest student of each seed.
  """
  make_model = functools.partial(
      experiment.make_model, values, values['num_factors']
  )
  settings, needed = experiment.make_settings(values), 0
  batch_size = max(1, values['batch_size'] // parallel.device_count())
  # A given teacher is not of the chain.
  dims = {'teacher': 0} | {stage.name: stage.nuisance_dim for stage in chain}
  last = {stage.model: stage for stage in chain if stage.supervisor}
  for stage in last.values():
    teacher = discovery.as_teacher(
        make_model(dims[stage.supervisor], stage.supervisor == 'teacher')
    )
    in_step = teacher.normalize_code and settings.teacher_train_mode
    keeps = not in_step and grid.keeps_outputs(size, count)
    own = memory.estimate_discovery(
        make_model(stage.nuisance_dim, False),
        teacher,
        stage.weights,
        batch_size=batch_size,
        keeps_outputs=keeps,
    )
    if keeps and stage.weights.needs_teacher:
      own += 4 * size
    needed = max(needed, size + count * own)
  return needed


def make_validate(
    images: jax.Array,
) -> Callable[[nn.Module, codes.Variables], float]:
  """Makes `validate(model, variables) -> error` for stages that may end early.

  Args:
    images: `[M, H, W, C]` uint8, neither trained nor reported on.
  """
  images = jnp.asarray(images)
  return lambda model, variables: float(
      _measure_error(model, variables, images)
  )


@functools.partial(jax.jit, static_argnames='model')
def _measure_error(model, variables, images):
  params, batch_stats = variables['params'], variables['batch_stats']
  return evaluation.compute_mse(
      functools.partial(networks.make_encode(model, batch_stats), params),
      functools.partial(networks.make_decode(model, batch_stats), params),
      images,
  )


@functools.partial(jax.jit, static_argnames=('model', 'judge_model'))
def _measure(model, variables, judge_model, judge_params, images, labels):
  """Measures a model with all judges, as one program."""
  params, batch_stats = variables['params'], variables['batch_stats']
  return evaluation.evaluate_autoencoder(
      functools.partial(networks.make_encode(model, batch_stats), params),
      functools.partial(networks.make_decode(model, batch_stats), params),
      functools.partial(judges.classify, judge_model),
      judge_params,
      images,
      labels,
  )
