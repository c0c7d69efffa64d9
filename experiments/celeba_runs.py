"""What a run of experiments.celeba is, as functions of its flags' values.

The run itself and what reads it later share this; the values come from the
flags, or from the manifest of a run.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments import evaluated_runs
from experiments import seed_runs
from experiments import supervision_flags
from jacsup_jax.baselines import fader as fader_networks
from jacsup_jax.core import changes
from jacsup_jax.core import config
from jacsup_jax.core import errors
from jacsup_jax.data import registry as datasets
from jacsup_jax.evaluation import attribute_judges
from jacsup_jax.evaluation import judge_files
from jacsup_jax.models import autoencoders as networks
from jacsup_jax.runs import checkpoints
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs
from jacsup_jax.training import attribute_steps as attribute_training
from jacsup_jax.training import attributes as editing
from jacsup_jax.training import devices as parallel
from jacsup_jax.training import memory
from jacsup_jax.training import replicas as grid
from jacsup_jax.training import steps as training

FROM_SCRATCH = 'student_from_scratch'
STUDENTS = ('student', 'student_cycle', 'student_no_jacobian', FROM_SCRATCH)
CACHES = ('device', 'host', 'none')
TEACHER = 'teacher'
FADER = 'fader'
_JUDGE_BATCH_SIZE = 128
# Of flags: what a model is. A teacher of another run must agree in them.
_OF_MODEL = (
    'image_size', 'first_width', 'last_width', 'linear_factors',
    'compute_dtype',
)  # pyformat: disable
# A map of 2x2 with as many channels as a layer may have.
_LARGEST_DIM = 4 * config.LARGEST_WIDTH
# Of the values that make a run again, from its manifest: their annotations.
_KINDS = {
    'image_size': int, 'seed': int, 'epochs': int, 'cycle_epochs': int,
    'student_epochs': int, 'nuisance_dims': list[str], 'students': list[str],
    'supervisor': str, 'teacher_workdir': str | None, 'first_width': int,
    'last_width': int, 'linear_factors': bool, 'compute_dtype': str,
    'learning_rate': float, 'adam_b1': float, 'weight_decay': float,
    'xcov': str,
    **{
        f'lambda_{name}': float
        for name in (
            'reconstruction', 'prediction', 'xcov', 'attribute_cycle',
            'nuisance_cycle', 'y', 'diff',
        )
    },
    'student_lambda_prediction': float, 'student_lambda_xcov': float,
}  # pyformat: disable
# Of those that also say what was measured, and on what.
_KINDS_OF_DATA = {
    'dataset': str, 'attributes': list[str], 'skip_bad_images': bool,
    'held_out': int, 'eval_split': str, 'batch_size': int,
    'strengths': list[str], 'selection_images': int,
}  # pyformat: disable
# Runs from before these flags have no such values.
_MAYBE_KINDS = {
    'fader_epochs': int, 'lambda_adversarial': float,
    'adversarial_ramp_steps': int, **seed_runs.MAYBE_KINDS,
    **supervision_flags.MAYBE_KINDS,
}  # pyformat: disable


def check_recorded(run: workdirs.WorkDir, *, with_data: bool) -> None:
  """Checks the manifest of a run, before models are made of it again.

  Args:
    run: with a manifest.
    with_data: data are loaded as in the run, too.

  Raises:
    InputError: if a value that is needed is missing or cannot be.
  """
  run.check_recorded(
      _KINDS | (_KINDS_OF_DATA if with_data else {}),
      _MAYBE_KINDS,
      of_stage={'sha256': str},
      of_dataset={'attributes': list[str]},
  )
  values = run.manifest['flags']
  config.check_image_size(values['image_size'])
  evaluated_runs.check_model(run, 'first_width', 'last_width')
  if with_data:
    try:
      strengths = [float(strength) for strength in values['strengths']]
    except ValueError:
      strengths = []
    if not strengths or not all(0 < x < math.inf for x in strengths):
      found = ','.join(values['strengths'])
      raise errors.InputError(
          f'{run.path} has a run of --strengths={found}; accepted: numbers'
          ' above 0, separated by commas.'
      )


def parse_nuisance_dims(values: Mapping[str, Any]) -> list[int]:
  """Returns d of the teacher and after each growth.

  Args:
    values: of the flags, by name.

  Raises:
    InputError: if they are not rising multiples of 4.
  """
  given = values['nuisance_dims']
  accepted = (
      f'accepted: multiples of 4 up to {_LARGEST_DIM}, each larger than the'
      ' one before, as 2048,4096,8192.'
  )
  try:
    dims = [int(dim) for dim in given]
  except ValueError:
    dims = []
  if (
      not dims
      or any(dim < 4 or dim % 4 for dim in dims)
      or max(dims) > _LARGEST_DIM
      or any(b <= a for a, b in zip(dims, dims[1:]))
  ):
    raise errors.InputError(f'--nuisance_dims={",".join(given)}; {accepted}')
  return dims


def make_stages(values: Mapping[str, Any]) -> list[config.Stage]:
  """Returns the stages of a run: teacher in its phases, students, baseline.

  Args:
    values: of its flags, by name.

  Returns:
    Stages, parents before their children. With a teacher of another run, those
    after it alone.

  Raises:
    InputError: if a value is not accepted.
  """
  dims = parse_nuisance_dims(values)
  students = values['students']
  if set(students) - set(STUDENTS) or len(students) > len(set(students)):
    raise errors.InputError(
        f'--students={",".join(students)}; accepted: any of'
        f' {", ".join(STUDENTS)}, each once.'
    )
  if students and len(dims) < 2:
    raise errors.InputError(
        f'--nuisance_dims={dims[0]} leaves nothing for'
        f' --students={",".join(students)} to grow to; accepted: more than one'
        ' size, or --students= for the teacher alone.'
    )
  # Runs from before this flag have no such value.
  fader_epochs = values.get('fader_epochs', 0)
  _check_teacher(values, fader_epochs)
  chain = []
  if values['teacher_workdir'] is None and values['epochs']:
    chain += _make_teacher_stages(values, dims[0])
  for model in students:
    if model == FROM_SCRATCH:
      chain.append(_make_stage_from_scratch(values, dims))
      continue
    parent = TEACHER
    for dim in dims[1:]:
      name = f'{model}_d{dim}'
      chain.append(
          config.Stage(
              name,
              model,
              parent,
              dim,
              values['student_epochs'],
              make_weights(values, model),
              teacher=TEACHER if values['supervisor'] == 'teacher' else None,
          )
      )
      parent = name
  if fader_epochs:
    weights = config.FaderLossWeights(
        lambda_adversarial=values['lambda_adversarial'],
        ramp_steps=values['adversarial_ramp_steps'],
    )
    chain.append(
        config.Stage(FADER, FADER, None, dims[0], fader_epochs, weights)
    )
  return chain


def make_weights(
    values: Mapping[str, Any], model: str
) -> config.AttributeLossWeights:
  """Returns the weights of the terms of a model's objective.

  Args:
    values: of the run's flags, by name.
    model: 'teacher_phase_1', 'teacher', or one of `STUDENTS`.
  """
  take = lambda *names: {name: values[name] for name in names}
  squared = {'squared_xcov': values['xcov'] == 'squared'}
  base = take('lambda_reconstruction')
  of_labels = take('lambda_prediction', 'lambda_xcov')
  of_cycle = take('lambda_attribute_cycle', 'lambda_nuisance_cycle')
  # A student has neither labels nor eq. (10), unless flags say so.
  of_student = {
      'lambda_prediction': values['student_lambda_prediction'],
      'lambda_xcov': values['student_lambda_xcov'],
  }
  terms = {
      'teacher_phase_1': of_labels,
      TEACHER: of_labels | of_cycle,
      'student': of_student | take('lambda_y', 'lambda_diff'),
      FROM_SCRATCH: of_student | take('lambda_y', 'lambda_diff'),
      # Cycle losses in the place of the Jacobian, as in Tables 2 and 5.
      'student_cycle': of_student | of_cycle,
      'student_no_jacobian': of_student,
  }
  return config.AttributeLossWeights(
      **base,
      **terms[model],
      **squared,
      supervision=supervision_flags.make(values),
  )


def check_jacobian(
    values: Mapping[str, Any], chain: Sequence[config.Stage], num_factors: int
) -> None:
  """Checks that the Jacobians of a run are small enough to be computed.

  Args:
    values: of its flags, by name.
    chain: its stages.
    num_factors: k.

  Raises:
    InputError: if they are not.
  """
  if values['jacobian'] == 'full' and any(
      stage.weights.needs_teacher for stage in chain
  ):
    size = values['image_size']
    changes.check_full_size(
        (values['batch_size'], size, size, 3), num_factors
    )


def make_settings(values: Mapping[str, Any]) -> editing.Settings:
  """Returns the settings that all stages of a run share, but Fader Networks."""
  return editing.Settings(
      seed=values['seed'],
      batch_size=values['batch_size'],
      learning_rate=values['learning_rate'],
      adam_b1=values['adam_b1'],
      weight_decay=values['weight_decay'],
      mode=values['parallel'],
      growth=values['growth'],
      keep_moments=values['keep_moments'],
      on_device=values['cache'] == 'device',
  )


def make_fader_settings(values: Mapping[str, Any]) -> editing.Settings:
  """Returns the settings of Fader Networks in a run."""
  return dataclasses.replace(
      make_settings(values),
      learning_rate=values['fader_learning_rate'],
      weight_decay=0.0,
  )


def make_model(
    values: Mapping[str, Any], num_factors: int, nuisance_dim: int
) -> networks.FaceAutoencoder:
  """Returns the autoencoder of a run with a nuisance of this size."""
  return networks.FaceAutoencoder(
      num_factors,
      nuisance_dim // 4,
      image_size=values['image_size'],
      first_width=values['first_width'],
      last_width=values['last_width'],
      linear_factors=values['linear_factors'],
      dtype=jnp.dtype(values['compute_dtype']),
  )


def make_fader(
    values: Mapping[str, Any], num_factors: int, nuisance_dim: int
) -> fader_networks.FaderAutoencoder:
  """Returns the Fader Networks of a run with a nuisance of this size."""
  return fader_networks.FaderAutoencoder(
      num_factors,
      nuisance_dim // 4,
      image_size=values['image_size'],
      first_width=values['first_width'],
      last_width=values['last_width'],
      dtype=jnp.dtype(values['compute_dtype']),
  )


def load_split(
    values: Mapping[str, Any], split: str, *, in_memory: bool | None = None
) -> datasets.FaceDataset:
  """Loads a split of a run's data: its training set, or one to measure on.

  Args:
    values: of the run's flags, by name.
    split: of the data.
    in_memory: see `datasets.load_faces`; None: by --cache of what is trained
      on, and all of what is measured on.
  """
  if in_memory is None:
    # What is measured on is small.
    in_memory = split != 'train' or values['cache'] != 'none'
  return datasets.load_faces(
      values['dataset'],
      split,
      data_dir=values['data_dir'],
      image_size=values['image_size'],
      attributes=values['attributes'] or None,
      in_memory=in_memory,
      skip_bad_images=values['skip_bad_images'],
      held_out=values['held_out'],
  )


def choose_selection_split(values: Mapping[str, Any]) -> str:
  """Returns the split that alpha and the judge's epoch are chosen on.

  Never the one that is measured on: validation where that is test, else a part
  of train that is held out.

  Raises:
    InputError: if none is held out.
  """
  if values['eval_split'] == 'test':
    return 'validation'
  if values['held_out'] < 1:
    raise errors.InputError(
        '--eval_split=validation needs images to choose alpha on, and'
        f' --held_out={values["held_out"]}; accepted: 1 or more of the training'
        ' images.'
    )
  return 'held_out'


def restore_or_train_judge(
    directory: str | None,
    settings: Mapping[str, int],
    train: datasets.FaceDataset,
    selection: datasets.FaceDataset,
) -> attribute_judges.AttributeJudge:
  """Restores the judge of the training data, or trains and saves one.

  Args:
    directory: where it is or will be; None takes the default of the data.
    settings: 'epochs' and widths of one that is trained, see
      `attribute_judges.train`; one that is there may have others.
    train: the training data.
    selection: on which its epoch is chosen.

  Returns:
    The judge.

  Raises:
    InputError: if one that is there is for other data.
  """
  if directory is None:
    directory = attribute_judges.default_directory(
        train.name, train.image_size
    )
  batch_size = min(_JUDGE_BATCH_SIZE, len(train))
  asked = {'batch_size': batch_size, **settings}
  if judge_files.exist(directory):
    asked = {}

  def report(epoch, loss, accuracy):
    print(
        f'judge {epoch}/{settings["epochs"]} loss={loss:.4f}'
        f' accuracy={accuracy:.2%}',
        flush=True,
    )

  return attribute_judges.restore_or_train(
      directory, train, selection, report=report, **asked
  )


def restore_teachers(
    values: Mapping[str, Any],
    attribute_names: Sequence[str],
    seeds: Sequence[int],
) -> dict[int, stages.Trained]:
  """Restores the teachers of another run for the students of this one.

  Args:
    values: of this run's flags, by name.
    attribute_names: of its data.
    seeds: of this run.

  Returns:
    By seed: the trained teacher, which is that of the same seed where the other
    run has several, else the same one for all.

  Raises:
    InputError: if there is none, or it has other attributes, another size,
      other widths or other seeds.
  """
  where = f'--teacher_workdir={values["teacher_workdir"]}'
  no_teacher = errors.InputError(
      f'{where} holds no finished teacher; accepted: the work directory of'
      ' a run of experiments.celeba whose teacher is trained.'
  )
  # Before a work directory refuses a file by the name of another flag.
  if not pathlib.Path(values['teacher_workdir']).is_dir():
    raise no_teacher
  run = workdirs.WorkDir(values['teacher_workdir'])
  if run.manifest is None or run.manifest['experiment'] != 'celeba':
    raise no_teacher
  # A teacher's stage has its seed in its name where they are trained in turn.
  if not any(name.startswith(TEACHER) for name in run.manifest['stages']):
    raise no_teacher
  check_recorded(run, with_data=False)
  theirs, plan = run.manifest['flags'], seed_runs.read_plan(run)
  found = tuple(run.manifest['dataset']['attributes'])
  if found != tuple(attribute_names):
    raise errors.InputError(
        f'{where} has a teacher of the attributes {_list_names(found)}, the'
        f' data {_list_names(attribute_names)}; accepted: the same, in the same'
        ' order.'
    )
  names = [n for n in _OF_MODEL if theirs.get(n) != values[n]]
  if names:
    differing = [f'--{n}={theirs.get(n)} there, {values[n]} now' for n in names]
    raise errors.InputError(
        f'{where} has a teacher of other shape: {"; ".join(differing)};'
        ' accepted: the same.'
    )
  dim = parse_nuisance_dims(values)[0]
  their_dim = parse_nuisance_dims(theirs)[0]
  if dim != their_dim:
    raise errors.InputError(
        f'{where} has a teacher of d = {their_dim}, --nuisance_dims begins'
        f' with {dim}; accepted: the same.'
    )
  stage = {s.name: s for s in make_stages(theirs)}.get(TEACHER)
  if stage is None:
    raise errors.InputError(
        f'{where} has a finished teacher and flags that train none; accepted: a'
        ' manifest as experiments.celeba writes it.'
    )
  finished = [
      named
      for named in seed_runs.list_stages(plan, [stage])
      if named.name in run.manifest['stages']
  ]
  if not finished:
    raise no_teacher
  there = seed_runs.restore(
      plan,
      finished,
      lambda named, count: restore(
          theirs, named, run, len(attribute_names), count
      ),
  )
  if len(plan.seeds) == 1:
    [[teacher]] = there.values()
    return dict.fromkeys(seeds, teacher)
  trained = [seed for seed, models in there.items() if models]
  if set(seeds) - set(trained):
    raise errors.InputError(
        f'{where} has teachers of the seeds {_list_numbers(trained)}, this run'
        f' the seeds {_list_numbers(seeds)}; accepted: of those.'
    )
  return {seed: there[seed][0] for seed in seeds}


def restore(
    values: Mapping[str, Any],
    stage: config.Stage,
    workdir: workdirs.WorkDir,
    num_factors: int,
    count: int = 0,
) -> stages.Trained:
  """Restores the model of a finished stage.

  Args:
    values: of the run's flags, by name.
    stage: that the manifest has as finished.
    workdir: of the run.
    num_factors: k.
    count: of seeds that it trained together; 0 for a solo stage.

  Returns:
    The trained model, or a stack of them.

  Raises:
    InputError: if its checkpoint is missing, or not the one of the manifest.
  """
  make = make_fader if stage.model == FADER else make_model
  model = make(values, num_factors, stage.nuisance_dim)
  # Of its state, only the shapes matter here.
  optimizer = training.make_optimizer(
      values['learning_rate'], values['weight_decay'], values['adam_b1']
  )
  # Shapes alone: nothing is compiled.
  template = jax.eval_shape(
      lambda: attribute_training.create_train_state(
          networks.init_variables(model, 0, model.image_shape), optimizer
      )
  )
  if count:
    template = grid.stack_shapes(template, count)
  state, sha256 = checkpoints.restore_finished(workdir, stage.name, template)
  return stages.Trained(stage, model, state, sha256)


def random_model(
    values: Mapping[str, Any], num_factors: int
) -> stages.Trained:
  """Returns an untrained model as large as the teacher."""
  dim = parse_nuisance_dims(values)[0]
  weights = make_weights(values, 'teacher_phase_1')
  stage = config.Stage('random', 'random', None, dim, 0, weights)
  model = make_model(values, num_factors, dim)
  variables = networks.init_variables(model, values['seed'], model.image_shape)
  state = training.TrainState(0, opt_state=(), **variables)
  return stages.Trained(stage, model, state, '')


def _check_teacher(values, fader_epochs):
  """Raises InputError where nothing is trained, or without its teacher."""
  students = values['students']
  given = values['teacher_workdir'] is not None
  if not values['epochs'] and not given and students:
    raise errors.InputError(
        f'--epochs=0 trains no teacher for --students={",".join(students)};'
        ' accepted: 1 or more, or --teacher_workdir of one.'
    )
  if (given or not values['epochs']) and not students and not fader_epochs:
    why = (
        '--teacher_workdir gives the teacher' if given else '--epochs is 0'
    )
    raise errors.InputError(
        f'--students is empty and {why}: nothing to train; accepted: any of'
        f' {", ".join(STUDENTS)}, or --fader_epochs of 1 or more.'
    )


def _make_stage_from_scratch(values, dims):
  """Makes the stage of a student that does not grow from its teacher.

  It is as large as the last of the others, and trained for as many epochs as a
  chain of them together.
  """
  return config.Stage(
      f'{FROM_SCRATCH}_d{dims[-1]}',
      FROM_SCRATCH,
      None,
      dims[-1],
      (len(dims) - 1) * values['student_epochs'],
      make_weights(values, FROM_SCRATCH),
      teacher=TEACHER,
  )


def _make_teacher_stages(values, dim):
  first = make_weights(values, 'teacher_phase_1')
  second = make_weights(values, TEACHER)
  if not values['cycle_epochs'] or not second.needs_cycle:
    return [config.Stage(TEACHER, TEACHER, None, dim, values['epochs'], first)]
  phase = 'teacher_phase_1'
  return [
      config.Stage(phase, phase, None, dim, values['epochs'], first),
      config.Stage(
          TEACHER, TEACHER, phase, dim, values['cycle_epochs'], second
      ),
  ]


def estimate_bytes(
    values: Mapping[str, Any],
    chain: Sequence[config.Stage],
    num_factors: int,
    size: int,
    count: int,
) -> int:
  """Estimates what seeds that are trained together need on a device.

  Args:
    values: of the run's flags, by name.
    chain: stages of one seed.
    num_factors: k.
    size: of the training images, numbers in all.
    count: of seeds.

  Returns:
    Bytes: of the images, and of the stage that needs the most of each seed.
  """
  make = lambda dim: make_model(values, num_factors, dim)
  dims = {TEACHER: parse_nuisance_dims(values)[0]}
  dims |= {stage.name: stage.nuisance_dim for stage in chain}
  batch_size = max(1, values['batch_size'] // parallel.device_count())
  largest = {stage.model: stage for stage in chain}
  own = 0
  for stage in largest.values():
    teacher = None
    if stage.weights.needs_teacher:
      teacher = make(dims[stage.supervisor])
    own = max(
        own,
        memory.estimate_editing(
            make(stage.nuisance_dim),
            teacher,
            stage.weights,
            batch_size=batch_size,
        ),
    )
  return size + count * own


def _list_numbers(numbers):
  shown = ', '.join(map(str, numbers[:5]))
  return f'{shown}, ...' if len(numbers) > 5 else shown


def _list_names(names):
  shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
  return f'({len(names)}: {shown})'
