"""First teachers of another run, for experiments.mnist and svhn."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from absl import flags

from experiments import discovery_runs
from experiments import seed_runs
from jacsup_jax.core import errors
from jacsup_jax.runs import stages
from jacsup_jax.runs import workdir as workdirs

FLAGS = flags.FLAGS
# Flags that functions here define belong to the binary that calls them, whose
# --help then shows them.
flags.disclaim_key_flags()


def define_flags() -> None:
  """Defines the flag."""
  flags.DEFINE_string(
      'teacher_workdir',
      None,
      'A run whose finished first teacher the students have, such as one of'
      ' experiments.convert; by default it is trained here. With --distributed'
      ' all processes read it.',
  )


def restore(
    experiment: discovery_runs.Experiment,
    values: Mapping[str, Any],
    seeds: Sequence[int],
) -> dict[int, list[stages.Trained]]:
  """Restores the first teachers of another run for the students of this one.

  Args:
    experiment: of both.
    values: of this run's flags, by name; runs from before the flag have none.
    seeds: of this run.

  Returns:
    By seed: the teacher, which is that of the same seed where the other run has
    several, else the same one for all; nothing where none is given.

  Raises:
    InputError: if there is none, or one of another k, or of other seeds.
  """
  directory = values.get('teacher_workdir')
  if directory is None:
    return {seed: [] for seed in seeds}
  where = f'--teacher_workdir={directory}'
  no_teacher = errors.InputError(
      f'{where} holds no finished first teacher; accepted: the work directory'
      f' of a run of experiments.{experiment.name} whose teacher is trained.'
  )
  # Before a work directory refuses a file by the name of another flag.
  if not pathlib.Path(directory).is_dir():
    raise no_teacher
  run = workdirs.WorkDir(directory)
  if run.manifest is None or run.manifest.get('experiment') != experiment.name:
    raise no_teacher
  discovery_runs.check_recorded(run)
  theirs, plan = run.manifest['flags'], seed_runs.read_plan(run)
  if theirs['num_factors'] != values['num_factors']:
    raise errors.InputError(
        f'{where} has a teacher of --num_factors={theirs["num_factors"]}, this'
        f' run {values["num_factors"]}; accepted: the same.'
    )
  if values.get('keep_moments') and theirs.get('optimizer', 'adam') != 'adam':
    raise errors.InputError(
        f'{where} has a teacher of --optimizer={theirs["optimizer"]}, whose'
        ' state --keep_moments cannot grow; accepted: one of adam.'
    )
  of_model = [
      name
      for name in ('first_width', 'linear_code')
      if theirs.get(name) != values.get(name)
  ]
  if of_model:
    differing = ', '.join(f'--{name}' for name in of_model)
    raise errors.InputError(
        f'{where} has a teacher of other {differing} than this run; accepted:'
        ' the same.'
    )
  finished = [
      stage
      for stage in seed_runs.list_stages(
          plan, discovery_runs.make_stages(theirs)
      )
      if stage.model == 'teacher' and stage.name in run.manifest['stages']
  ]
  if not finished:
    raise no_teacher
  there = seed_runs.restore(
      plan,
      finished,
      lambda stage, count: discovery_runs.restore(
          experiment.make_model, theirs, stage, run, count
      ),
  )
  if len(plan.seeds) == 1:
    [models] = there.values()
    return {seed: models for seed in seeds}
  missing = sorted(seed for seed in seeds if not there.get(seed))
  if missing:
    have = ', '.join(str(seed) for seed in there if there[seed])
    raise errors.InputError(
        f'{where} has teachers of the seeds {have}, and none of {missing[0]};'
        ' accepted: seeds of those.'
    )
  return {seed: there[seed] for seed in seeds}
